//! Verdicts: what became of a range in doubt.
//!
//! In: ranges, what is known of them, the time. Out: [`Loss`]es.
//! Cost: a few compares for each range in doubt.
//! Invariants: a range gets one verdict; octets are exact, packets are full segments and the rest.
//! Source: docs/measures.md, loss by cause.

use crate::index::Sender;
use crate::time::Timestamp;

use super::doubt::{Doubt, Kind};
use super::half::{Half, mark};
use super::sequence::{Range, distance};
use super::trouble::{Trouble, state};
use super::{Cause, Loss, Sink, Terms};

/// TCP timestamps with their padding, which every segment carries once both sides agreed on them.
const TIMESTAMPS_OCTETS: u32 = 12;

/// Who sent what is judged, and how large its segments are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    pub(super) sender: Sender,
    segment_octets: u32,
}

impl Judge {
    pub(super) fn of(half: &Half, sender: Sender) -> Self {
        let stamps = if half.has(mark::STAMP_SEEN) { TIMESTAMPS_OCTETS } else { 0 };
        let segment_octets = half.segment_octets().saturating_sub(stamps).max(1);
        Self { sender, segment_octets }
    }

    /// States a loss; an empty one is none.
    pub(super) fn lost(self, cause: Cause, doubt: &Doubt, times: u8, sink: &mut impl Sink) {
        let octets = doubt.range.octets();
        if octets == 0 || times == 0 {
            return;
        }
        let packets = octets.div_ceil(self.segment_octets).saturating_mul(u32::from(times));
        let octets = octets.saturating_mul(u32::from(times));
        sink.loss(Loss { cause, sender: self.sender, octets, packets, at: doubt.at });
    }

    /// The verdict on a range that cannot wait any longer.
    pub(super) fn decide(self, doubt: &Doubt, sink: &mut impl Sink) {
        let (cause, times) = match doubt.kind {
            Kind::Hole if doubt.acked => (Cause::Mirror, 1),
            Kind::Hole => (Cause::Unresolved, 1),
            Kind::Repeat => (Cause::NetworkDownstream, doubt.times),
        };
        self.lost(cause, doubt, times, sink);
    }
}

/// Decides what is due at `now` of what `half` sent, which `acker` acknowledged; `reorder_ns` is
/// how long copies, and D-SACKs, may be late.
pub(super) fn settle(
    half: &mut Half,
    trouble: &mut Trouble,
    acker: &Half,
    judge: Judge,
    (now, reorder_ns, terms): (Timestamp, u64, &Terms),
    sink: &mut impl Sink,
) {
    let due = |doubt: &Doubt| {
        let wait_ns = if doubt.acked { reorder_ns } else { terms.verdict_ns };
        now.since_ns(doubt.since) >= wait_ns
    };
    while let Some(doubt) = trouble.doubts.take_if(due) {
        judge.decide(&doubt, sink);
    }
    if trouble.has(state::BEYOND) && now.since_ns(trouble.beyond_since) >= terms.verdict_ns {
        never_seen(half, trouble, acker, judge, sink);
    }
}

/// Decides everything: the flow is over, or goes on without memory of its trouble.
pub(super) fn settle_all(
    half: &mut Half,
    trouble: &mut Trouble,
    acker: &Half,
    judge: Judge,
    sink: &mut impl Sink,
) {
    while let Some(doubt) = trouble.doubts.take_if(|_| true) {
        judge.decide(&doubt, sink);
    }
    if trouble.has(state::BEYOND) {
        never_seen(half, trouble, acker, judge, sink);
    }
    *trouble = Trouble::default();
}

/// The receiver has octets of which nothing, and nothing behind them, was ever seen.
fn never_seen(
    half: &mut Half,
    trouble: &mut Trouble,
    acker: &Half,
    judge: Judge,
    sink: &mut impl Sink,
) {
    trouble.marks &= !state::BEYOND;
    if distance(half.next, acker.acked) > 0 {
        let range = Range { begin: half.next, end: acker.acked };
        judge.lost(Cause::Mirror, &Doubt::hole(range, trouble.beyond_since), 1, sink);
        half.next = acker.acked;
        half.marks |= mark::UNSEEN;
    }
}
