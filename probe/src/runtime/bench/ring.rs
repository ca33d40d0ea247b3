//! A receive ring that is filled in memory.
//!
//! In: a [`Pattern`]. Out: its packets in bursts, as fast as they are taken or at a given rate.
//! Cost: a poll copies nothing. The ring is filled anew whenever it is empty; how long that took is
//! told, so that it can be left out of what is measured.
//! Invariants: stamps follow one another at the rate of the packets. At a given rate a packet comes
//! when the taker's own CPU time gets there; what finds the ring full is missed and counted, as a
//! NIC counts `imissed`.
//! Source: a ring of 4,096 descriptors, the largest that common NICs have (`ixgbe`, `i40e`: DPDK
//! `IXGBE_MAX_RING_DESC`, `I40E_MAX_RING_DESC`).

use std::cell::Cell;
use std::rc::Rc;

use crate::capture::{Burst, Frame, LinkType, Source, SourceState};
use crate::index::PortIndex;
use crate::time::{Timestamp, thread_cpu_ns};

use super::pattern::{FRAME_OCTETS, Pattern, Slot};

/// Packets that wait at most.
pub(super) const DESCRIPTORS: usize = 4_096;

/// The first stamp: a whole second, long ago.
const BEGIN: Timestamp = Timestamp(1_700_000_000_000_000_000);

const SECOND_NS: u64 = 1_000_000_000;

/// Bits behind the point of a distance in nanoseconds: a sum over a burst stays in 64 bits.
const STEP_BITS: u32 = 20;

/// What the one who measures asks of the ring, and what it tells. Both are on the same thread.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Nothing comes any more.
    pub(super) ended: Cell<bool>,
    /// Packets a second; they come by the clock of CPU time if `is_paced`, else when asked for.
    rate_pps: Cell<u64>,
    is_paced: Cell<bool>,
    /// Distance of two packets in nanoseconds, with [`STEP_BITS`] bits behind the point.
    step: Cell<u64>,
    /// CPU time that filling the ring took.
    pub(super) filling_ns: Cell<u64>,
    /// Packets that were taken.
    pub(super) given: Cell<u64>,
    /// Packets that found the ring full.
    pub(super) missed: Cell<u64>,
    /// The most that ever waited.
    pub(super) most_waiting: Cell<u64>,
    /// From when the present rate holds: packets taken, stamp, CPU time.
    since: Cell<(u64, Timestamp, u64)>,
}

impl Control {
    /// Packets come at `rate_pps` from now on; `is_paced`: not before their time.
    pub(super) fn set_rate(&self, rate_pps: u64, is_paced: bool) {
        let stamp = if self.rate_pps.get() == 0 { BEGIN } else { self.stamp(self.given.get()) };
        self.since.set((self.given.get(), stamp, self.clock_ns()));
        self.rate_pps.set(rate_pps.max(1));
        self.step.set((SECOND_NS << STEP_BITS) / rate_pps.max(1));
        self.is_paced.set(is_paced);
        self.missed.set(0);
        self.most_waiting.set(0);
    }

    /// CPU time of this thread without that of filling the ring.
    pub(super) fn clock_ns(&self) -> u64 {
        thread_cpu_ns().saturating_sub(self.filling_ns.get())
    }

    /// Stamp of the packet that so many were taken before.
    fn stamp(&self, packet: u64) -> Timestamp {
        let (given, stamp, _) = self.since.get();
        stamp + scaled(packet - given, SECOND_NS, self.rate_pps.get())
    }

    /// Packets that wait now.
    fn waiting(&self) -> u64 {
        let (given, _, clock_ns) = self.since.get();
        let elapsed_ns = self.clock_ns().saturating_sub(clock_ns);
        let come = scaled(elapsed_ns, self.rate_pps.get(), SECOND_NS);
        let waiting = come.saturating_sub(self.given.get() - given + self.missed.get());
        let missed = waiting.saturating_sub(DESCRIPTORS as u64);
        self.missed.set(self.missed.get() + missed);
        self.most_waiting.set(self.most_waiting.get().max(waiting - missed));
        waiting - missed
    }
}

/// `value * factor / divisor`, without overflow on the way; 0 for a divisor of 0.
fn scaled(value: u64, factor: u64, divisor: u64) -> u64 {
    let product = u128::from(value) * u128::from(factor);
    u64::try_from(product.checked_div(u128::from(divisor)).unwrap_or(0)).unwrap_or(u64::MAX)
}

/// The ring.
pub(super) struct RingSource {
    pattern: Pattern,
    slots: Box<[Slot]>,
    place: usize,
    burst_packets: usize,
    control: Rc<Control>,
}

impl RingSource {
    /// Gives at most `burst_packets` (at least 1) a poll.
    pub(super) fn new(pattern: Pattern, burst_packets: usize, control: Rc<Control>) -> Self {
        let slots = vec![Slot([0; FRAME_OCTETS]); DESCRIPTORS].into_boxed_slice();
        Self { pattern, place: slots.len(), slots, burst_packets: burst_packets.max(1), control }
    }

    #[cold]
    fn fill(&mut self) {
        let begun_ns = thread_cpu_ns();
        for slot in &mut self.slots {
            self.pattern.write(slot);
        }
        self.place = 0;
        let filling_ns = &self.control.filling_ns;
        filling_ns.set(filling_ns.get() + (thread_cpu_ns() - begun_ns));
    }
}

impl Source for RingSource {
    type Burst<'a> = RingBurst<'a>;

    fn is_live(&self) -> bool {
        false
    }

    #[inline]
    fn poll(&mut self) -> (RingBurst<'_>, SourceState) {
        if self.control.ended.get() {
            let burst = RingBurst { slots: &[], first: Timestamp::ZERO, step: 0 };
            return (burst, SourceState::Ended);
        }
        if self.place == self.slots.len() {
            self.fill();
        }
        let mut packets = self.burst_packets.min(self.slots.len() - self.place);
        if self.control.is_paced.get() {
            packets = packets.min(usize::try_from(self.control.waiting()).unwrap_or(packets));
        }
        let given = self.control.given.get();
        self.control.given.set(given + packets as u64);
        let slots = self.slots.get(self.place..self.place + packets).unwrap_or(&[]);
        self.place += packets;
        let burst =
            RingBurst { slots, first: self.control.stamp(given), step: self.control.step.get() };
        let clock = burst.stamp(packets.saturating_sub(1));
        (burst, SourceState::Open(clock))
    }
}

/// Packets of the ring.
pub(super) struct RingBurst<'a> {
    slots: &'a [Slot],
    first: Timestamp,
    step: u64,
}

impl RingBurst<'_> {
    /// Never behind the first stamp of the next burst, because the distance is rounded down.
    #[inline]
    fn stamp(&self, place: usize) -> Timestamp {
        self.first + ((place as u64 * self.step) >> STEP_BITS)
    }
}

impl Burst for RingBurst<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    fn frame(&self, place: usize) -> Frame<'_> {
        Frame {
            bytes: &self.slots[place].0,
            wire_octets: 60,
            timestamp: self.stamp(place),
            link: LinkType::Ethernet,
            port: PortIndex(0),
            stripped_vlan: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(control: &Rc<Control>) -> RingSource {
        RingSource::new(Pattern::new(100, None), 32, Rc::clone(control))
    }

    #[test]
    fn packets_come_when_asked_for_with_stamps_at_their_rate() {
        let control = Rc::new(Control::default());
        control.set_rate(1_000_000, false);
        let mut source = source(&control);
        let mut stamps = Vec::new();
        while stamps.len() < 10_000 {
            let (burst, state) = source.poll();
            assert!(burst.len() > 0 && burst.len() <= 32);
            stamps.extend((0..burst.len()).map(|place| burst.frame(place).timestamp));
            assert_eq!(state, SourceState::Open(stamps[stamps.len() - 1]));
        }
        assert_eq!(stamps[0], BEGIN);
        assert!(stamps.windows(2).all(|two| two[1].since_ns(two[0]) == 1_000));
        assert!(control.filling_ns.get() > 0 && control.missed.get() == 0);
        control.set_rate(500_000, false);
        let (burst, _) = source.poll();
        let next = stamps[stamps.len() - 1] + 1_000;
        assert_eq!(
            [burst.frame(0), burst.frame(1)].map(|frame| frame.timestamp),
            [next, next + 2_000]
        );
        control.ended.set(true);
        assert_eq!(source.poll().1, SourceState::Ended);
    }

    #[test]
    fn at_a_rate_packets_wait_and_are_missed_when_nobody_comes() {
        let control = Rc::new(Control::default());
        let mut source = source(&control);
        // Filled before time begins.
        control.set_rate(1, false);
        source.poll();
        control.set_rate(1_000_000, true);
        let begun_ns = control.clock_ns();
        while control.clock_ns() - begun_ns < 10_000_000 {}
        // 10,000 have come and 4,096 have found room.
        let (burst, _) = source.poll();
        assert_eq!(burst.len(), 32);
        drop(burst);
        assert_eq!(control.most_waiting.get(), 4_096);
        assert!(control.missed.get() >= 10_000 - 4_096);
        // One a second: nothing more comes.
        control.set_rate(1, true);
        let (burst, state) = source.poll();
        assert_eq!((burst.len(), control.missed.get()), (0, 0));
        assert!(matches!(state, SourceState::Open(clock) if clock > BEGIN));
    }
}
