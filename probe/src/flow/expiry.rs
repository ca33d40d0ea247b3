//! When to look whether a flow is over.
//!
//! In: the second at which a flow may be over, and the clock. Out: flows to look at.
//! Cost: two bytes a slot are read in order; a flow itself is touched once an idle timeout, not
//! once a round.
//! Invariants: a flow is never looked at later than a round after it is over, but for clocks that
//! jump; then all flows are looked at.
//! Source: flow expiration, RFC 5470 §5.1.1.

use crate::config::FlowPlan;
use crate::index::FlowIndex;
use crate::memory;
use crate::time::{Timestamp, ms};

use super::{EndReason, Flow, TcpState};

const SECOND_NS: u64 = 1_000_000_000;

/// Seconds that a mark can lie ahead; later ones are looked at then and set again.
const AHEAD_MAX_S: u64 = 30_000;

/// Marks that are compared at once.
const MARKS_AT_ONCE: usize = 16;

/// Timeouts in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    idle_tcp_ns: u64,
    idle_other_ns: u64,
    closed_ns: u64,
    least_ns: u64,
    pub(super) active_ns: u64,
    /// The same in whole seconds, as far as seconds of 16 bits can tell it.
    pub(super) active_s: u64,
}

impl Timeouts {
    /// From the plan.
    pub(super) fn new(plan: &FlowPlan) -> Self {
        let ns = |milliseconds: u32| ms(u64::from(milliseconds));
        let (idle_tcp_ns, idle_other_ns) = (ns(plan.idle_tcp_ms), ns(plan.idle_other_ms));
        let closed_ns = ns(plan.closed_ms);
        Self {
            idle_tcp_ns,
            idle_other_ns,
            closed_ns,
            least_ns: idle_tcp_ns.min(idle_other_ns).min(closed_ns),
            active_ns: ns(plan.active_ms),
            active_s: (ns(plan.active_ms) / SECOND_NS).min(AHEAD_MAX_S),
        }
    }

    /// Whether the flow is over at `clock`, and why.
    #[inline]
    pub(super) fn over(&self, flow: &Flow, clock: Timestamp) -> Option<EndReason> {
        let silent_ns = clock.since_ns(flow.heard);
        if silent_ns < self.least_ns {
            return None;
        }
        let (timeout_ns, reason) = self.of(flow);
        (silent_ns >= timeout_ns).then_some(reason)
    }

    /// Whether the flow was silent so long that it could be over. It may be `true` where it was not.
    #[inline]
    pub(super) const fn may_be_over(&self, flow: &Flow, clock: Timestamp) -> bool {
        // Behind a later clock, which another source may have, this goes round: then it could be, too.
        clock.0.wrapping_sub(flow.heard.0) >= self.least_ns
    }

    fn of(&self, flow: &Flow) -> (u64, EndReason) {
        match flow.tcp {
            TcpState::Closed | TcpState::Reset => (self.closed_ns, EndReason::EndOfFlow),
            TcpState::Established | TcpState::HalfClosed => {
                (self.idle_tcp_ns, EndReason::IdleTimeout)
            }
            _ => (self.idle_other_ns, EndReason::IdleTimeout),
        }
    }
}

/// The second, by its low bits, at which each flow is to be looked at.
pub(super) struct Marks {
    seconds: memory::Table<u16>,
    hand: usize,
    /// Clock of the round before this one.
    round_before: Timestamp,
    round: Timestamp,
}

impl Marks {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            seconds: memory::table(slots, 0),
            hand: 0,
            round_before: Timestamp::ZERO,
            round: Timestamp::ZERO,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.seconds)
    }

    /// Marks a flow for when it will be over if it stays as it is; `clock` is now.
    #[inline]
    pub(super) fn set(
        &mut self,
        index: FlowIndex,
        flow: &Flow,
        timeouts: &Timeouts,
        clock: Timestamp,
    ) {
        let over_at = flow.heard + timeouts.of(flow).0;
        let latest = clock + AHEAD_MAX_S * SECOND_NS;
        let second = over_at.min(latest).0.div_ceil(SECOND_NS);
        self.seconds[index.0 as usize] = low(second);
    }

    /// Goes on through at most `slots_max` of the slots below `used`. The next slot to look at, or
    /// `None` when the step is over; `slots_max` is lowered by what was gone through.
    pub(super) fn next_due(
        &mut self,
        used: usize,
        slots_max: &mut usize,
        clock: Timestamp,
    ) -> Option<FlowIndex> {
        let now = low(clock.0 / SECOND_NS);
        // Marks tell before from after only so far: after a jump all are looked at.
        let jumped = clock.since_ns(self.round_before) >= AHEAD_MAX_S * SECOND_NS;
        let end = used.min(self.seconds.len()).min(self.hand.saturating_add(*slots_max));
        let begin = self.hand.min(end);
        let ahead = self.seconds.get(begin..end).unwrap_or_default();
        let passed = if jumped { 0 } else { not_due(ahead, now) };
        let is_found = passed < ahead.len();
        let gone_through = passed + usize::from(is_found);
        self.hand += gone_through;
        *slots_max -= gone_through;
        if is_found { u32::try_from(begin + passed).ok().map(FlowIndex) } else { None }
    }

    /// Whether the hand has come round; then it begins again.
    pub(super) fn ends_round(&mut self, used: usize, clock: Timestamp) -> bool {
        if self.hand < used {
            return false;
        }
        self.hand = 0;
        self.round_before = self.round;
        self.round = clock;
        true
    }
}

/// How many of the first marks are of a second to come.
#[inline]
fn not_due(marks: &[u16], now: u16) -> usize {
    let is_due = |mark: &u16| now.wrapping_sub(*mark).cast_signed() >= 0;
    let (blocks, rest) = marks.as_chunks::<MARKS_AT_ONCE>();
    // All of a block are compared, which the compiler does side by side.
    let has_due =
        |block: &[u16; MARKS_AT_ONCE]| block.iter().fold(false, |found, mark| found | is_due(mark));
    let whole = blocks.iter().position(has_due);
    let (before, last) = match whole {
        Some(place) => (place * MARKS_AT_ONCE, blocks[place].as_slice()),
        None => (blocks.len() * MARKS_AT_ONCE, rest),
    };
    before + last.iter().position(is_due).unwrap_or(last.len())
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is kept")]
const fn low(seconds: u64) -> u16 {
    seconds as u16
}
