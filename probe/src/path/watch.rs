//! Flows of which packets wait for evidence.
//!
//! In: hash of a flow. Out: the ends of the two rows (one a sender) of its packets that wait.
//! Cost: 64 bytes a flow; a packet of a flow without one looks at two octets.
//! Invariants: a flow has at most one watch; a watch without packets may go to another flow, first
//! the one that was left longest ago. How far a flow has sent is known as long as a packet is followed,
//! and no longer, whoever needs its place or not.

use super::entry::{NONE, Range, reaches};
use crate::memory;
use crate::time::Timestamp;

/// Numbers that say where there may be a watch: what every packet looks at.
const PRESENCES: usize = 1 << 12;

/// Places next to each other in which a flow's watch may be, at either of two spots.
const WAYS: usize = 4;

/// The packets of one flow that wait. Arrays of two are by sender.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Watch {
    pub(super) flow: u64,
    /// Slots of the oldest and the newest.
    pub(super) oldest: [u32; 2],
    pub(super) newest: [u32; 2],
    /// End of the oldest's range: an acknowledgement that does not reach it says nothing.
    pub(super) oldest_end: [u32; 2],
    /// No range that was selected ends behind this: a segment that begins there is new. Stays
    /// when none waits any more, until another flow needs the place.
    pub(super) top: [u32; 2],
    /// Whether there was any.
    pub(super) has_top: [bool; 2],
    packets: u32,
    /// Clock of the newest packet that was put here.
    used: Timestamp,
}

const _: () = assert!(size_of::<Watch>() == 64, "one line");

/// A place for one packet more.
pub(super) struct Taken {
    pub(super) place: u32,
    /// Clock when the flow that had the place before was last there; what was known of it is lost.
    pub(super) forgot: Option<Timestamp>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            flow: 0,
            oldest: [NONE; 2],
            newest: [NONE; 2],
            oldest_end: [0; 2],
            top: [0; 2],
            has_top: [false; 2],
            packets: 0,
            used: Timestamp::ZERO,
        }
    }
}

pub(super) struct Watches {
    watches: memory::Table<Watch>,
    presences: memory::Table<u16>,
    /// How long a packet is followed.
    verdict_ns: u64,
}

impl Watches {
    /// For packets that are followed for so long.
    pub(super) fn new(watches: usize, verdict_ns: u64) -> Self {
        let watches = watches.next_power_of_two().max(WAYS);
        Self {
            watches: memory::table(watches, Watch::default()),
            presences: memory::table(PRESENCES, 0),
            verdict_ns,
        }
    }

    /// Whether a flow with this hash may be watched.
    #[inline]
    pub(super) fn may_have(&self, flow: u64) -> bool {
        self.presences[presence(flow)] != 0
    }

    /// Place of the flow's watch.
    pub(super) fn find(&self, flow: u64) -> Option<u32> {
        let is_its = |watch: &Watch| watch.packets > 0 && watch.flow == flow;
        self.places(flow).find(|place| self.watches.get(*place).is_some_and(is_its)).map(short)
    }

    pub(super) fn at(&mut self, place: u32) -> &mut Watch {
        &mut self.watches[place as usize]
    }

    /// Place of the flow's watch for one packet more; `None`: there is no room.
    pub(super) fn take(&mut self, flow: u64, clock: Timestamp) -> Option<Taken> {
        if let Some(place) = self.find(flow) {
            let watch = &mut self.watches[place as usize];
            watch.packets += 1;
            watch.use_at(clock, self.verdict_ns);
            return Some(Taken { place, forgot: None });
        }
        let is_left = |place: &usize| self.watches[*place].flow == flow;
        let left = self.places(flow).find(is_left);
        let place = left.or_else(|| self.free_place(flow))?;
        let watch = &mut self.watches[place];
        let is_other = left.is_none() && watch.used > Timestamp::ZERO;
        let forgot = is_other.then_some(watch.used);
        if left.is_none() {
            *watch = Watch { flow, ..Watch::default() };
        }
        watch.packets = 1;
        watch.use_at(clock, self.verdict_ns);
        let presence = &mut self.presences[presence(flow)];
        *presence = presence.saturating_add(1);
        Some(Taken { place: short(place), forgot })
    }

    /// One packet less.
    pub(super) fn release(&mut self, place: u32) {
        let watch = &mut self.watches[place as usize];
        watch.packets -= 1;
        if watch.packets == 0 {
            let presence = &mut self.presences[presence(watch.flow)];
            *presence = presence.saturating_sub(1);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.watches) + size_of_val(&*self.presences)
    }

    /// The place of the two spots that was left longest ago, at the spot that is used less: one
    /// that fills before the other would forget early (Azar, Broder, Karlin, Upfal, Balanced
    /// Allocations, 1999).
    fn free_place(&self, flow: u64) -> Option<usize> {
        let used = |place: usize| self.watches[place].used;
        let mut spots = self.spots(flow);
        spots.sort_by_key(|first| {
            (*first..*first + WAYS).map(|place| used(place).0 >> 3).sum::<u64>()
        });
        let is_free = |place: &usize| self.watches[*place].packets == 0;
        let oldest =
            |first: usize| (first..first + WAYS).filter(is_free).min_by_key(|place| used(*place));
        spots.into_iter().find_map(oldest)
    }

    fn places(&self, flow: u64) -> impl Iterator<Item = usize> + use<> {
        self.spots(flow).into_iter().flat_map(|first| first..first + WAYS)
    }

    fn spots(&self, flow: u64) -> [usize; 2] {
        let mask = (self.watches.len() - 1) & !(WAYS - 1);
        [low(flow >> 12) & mask, low(flow >> 38) & mask]
    }
}

impl Watch {
    /// Another packet comes: what is known of those before it may be too old.
    fn use_at(&mut self, clock: Timestamp, verdict_ns: u64) {
        if clock.since_ns(self.used) > verdict_ns {
            self.has_top = [false; 2];
        }
        self.used = self.used.max(clock);
    }

    /// Whether a range of this sender may have been sent before.
    pub(super) const fn may_repeat(&self, sender: usize, range: Range) -> bool {
        self.oldest[sender] != NONE && !reaches(range.begin, self.top[sender])
    }

    /// Whether an acknowledgement covers what this sender has sent.
    pub(super) const fn is_reached(&self, sender: usize, acknowledgement: u32) -> bool {
        self.oldest[sender] != NONE && reaches(acknowledgement, self.oldest_end[sender])
    }
}

#[inline]
fn presence(flow: u64) -> usize {
    low(flow) & (PRESENCES - 1)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it is masked to the table")]
const fn low(word: u64) -> usize {
    word as usize
}

fn short(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERDICT_NS: u64 = 5_000;

    /// What is known of a flow must not depend on when a sweep lets its packets go, nor on whether
    /// another flow has taken its place since.
    #[test]
    fn how_far_a_flow_has_sent_is_known_as_long_as_its_last_packet_is_followed() {
        for released in [true, false] {
            for (at, is_known) in [(10 + VERDICT_NS, true), (11 + VERDICT_NS, false)] {
                let mut watches = Watches::new(8, VERDICT_NS);
                let place = watches.take(1, Timestamp(10)).expect("there is room").place;
                watches.at(place).has_top[0] = true;
                if released {
                    watches.release(place);
                }
                let taken = watches.take(1, Timestamp(at)).expect("it has its place");
                assert_eq!(taken.place, place);
                assert_eq!(watches.at(place).has_top[0], is_known, "{released} {at}");
            }
        }
    }
}
