//! A receive ring that is filled in memory.
//!
//! In: a [`Pattern`]. Out: its packets in bursts, as fast as they are taken.
//! Cost: a poll copies nothing. The ring is filled anew whenever it is empty; how long that took is
//! told, so that it can be left out of what is measured.
//! Invariants: stamps follow one another at a given rate, whatever the pace of the taker.
//! Source: the size is that of the largest receive rings of common NICs (4,096 descriptors in
//! DPDK's `ixgbe` and `i40e`).

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
    /// CPU time that filling the ring took.
    pub(super) filling_ns: Cell<u64>,
    /// Packets that were taken.
    pub(super) given: Cell<u64>,
}

/// The ring.
pub(super) struct RingSource {
    pattern: Pattern,
    slots: Box<[Slot]>,
    place: usize,
    burst_packets: usize,
    rate_pps: u64,
    control: Rc<Control>,
}

impl RingSource {
    /// Gives at most `burst_packets` (at least 1) a poll, with stamps of `rate_pps` (at least 1).
    pub(super) fn new(
        pattern: Pattern,
        burst_packets: usize,
        rate_pps: u64,
        control: Rc<Control>,
    ) -> Self {
        let slots = vec![Slot([0; FRAME_OCTETS]); DESCRIPTORS].into_boxed_slice();
        Self {
            pattern,
            place: slots.len(),
            slots,
            burst_packets: burst_packets.max(1),
            rate_pps: rate_pps.max(1),
            control,
        }
    }

    /// Stamp of the packet that so many were taken before.
    fn stamp(&self, packet: u64) -> Timestamp {
        let since_ns = u128::from(packet) * u128::from(SECOND_NS) / u128::from(self.rate_pps);
        BEGIN + u64::try_from(since_ns).unwrap_or(u64::MAX)
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
        let packets = self.burst_packets.min(self.slots.len() - self.place);
        let given = self.control.given.get();
        self.control.given.set(given + packets as u64);
        let slots = self.slots.get(self.place..self.place + packets).unwrap_or(&[]);
        self.place += packets;
        let step = (SECOND_NS << STEP_BITS) / self.rate_pps;
        let burst = RingBurst { slots, first: self.stamp(given), step };
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

    #[test]
    fn packets_come_when_asked_for_with_stamps_at_their_rate() {
        let control = Rc::new(Control::default());
        let pattern = Pattern::new(100, None);
        let mut source = RingSource::new(pattern, 33, 3_000_000, Rc::clone(&control));
        let mut stamps = Vec::new();
        while stamps.len() < 10_000 {
            let (burst, state) = source.poll();
            assert!(!burst.is_empty() && burst.len() <= 33);
            stamps.extend((0..burst.len()).map(|place| burst.frame(place).timestamp));
            assert_eq!(state, SourceState::Open(stamps[stamps.len() - 1]));
        }
        // The first of a burst, where nothing is rounded.
        assert_eq!((stamps[0], stamps[3_003]), (BEGIN, BEGIN + 1_001_000));
        let mut steps = stamps.windows(2).map(|two| two[1].as_ns() - two[0].as_ns());
        assert!(steps.all(|step| (333..=335).contains(&step)));
        assert_eq!(control.given.get(), stamps.len() as u64);
        assert!(control.filling_ns.get() > 0);
        control.ended.set(true);
        assert_eq!(source.poll().1, SourceState::Ended);
    }
}
