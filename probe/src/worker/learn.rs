//! What packets show of who has which address, to the learner.
//!
//! In: packets of ARP, neighbour discovery and DHCP. Out: [`Evidence`] in a ring, when it is new or was
//! said long ago.
//! Cost: a comparison or two for all packets whose headers were all read; none for those in brief. For
//! these protocols a pass over the packet and one cache line, within a bound a second.
//! Invariants: nothing is allocated after `new`; no clock but the packets'. With NICs a full ring is
//! counted; a file waits.

use std::hash::BuildHasher;

use crate::config::Lessons;
use crate::counters::DropCause;
use crate::decode::Headers;
use crate::decode::learn::evidence;
use crate::hash::Keyed;
use crate::sources::learned::{Evidence, EvidenceSender, REPEAT_NS, Unlearned};
use crate::time::Timestamp;

/// Packets that are looked at in a second of the packets' clock at most.
const LOOKS_PER_S_MAX: u32 = 65_536;
/// What goes to the learner in a second of the packets' clock at most.
const EVIDENCE_PER_S_MAX: u32 = 4_096;
/// What was sent lately is remembered in so many sets, each of one cache line.
const SETS: usize = 512;
const WAYS: usize = 4;

/// What was sent, and when.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// Hash of what was said; 0 for nothing.
    tag: u64,
    at: Timestamp,
}

/// A set, in one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Sent; WAYS]);

/// A worker's part of learning.
pub struct LearnTap {
    lessons: Lessons,
    sender: EvidenceSender,
    sent: Box<[Set]>,
    hash: Keyed,
    second: u64,
    looks: u32,
    told: u32,
    /// The source is a file: it waits for room.
    waits: bool,
}

impl LearnTap {
    /// With nothing sent yet.
    pub fn new(lessons: Lessons, sender: EvidenceSender, waits: bool) -> Self {
        Self {
            lessons,
            sender,
            sent: vec![Set::default(); SETS].into_boxed_slice(),
            hash: Keyed::default(),
            second: 0,
            looks: 0,
            told: 0,
            waits,
        }
    }

    /// Whether a packet may show something.
    #[inline]
    pub(super) fn concerns(&self, headers: &Headers, rejected: Option<DropCause>) -> bool {
        self.lessons.concern(headers, rejected)
    }

    /// Looks at such a packet.
    #[cold]
    pub(super) fn look(&mut self, frame: &[u8], headers: &Headers, rejected: Option<DropCause>) {
        let second = headers.clock.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.looks, self.told) = (second, 0, 0);
        }
        self.looks += 1;
        if self.looks > LOOKS_PER_S_MAX {
            self.looks = LOOKS_PER_S_MAX;
            return self.sender.unlearned(Unlearned::OverRate);
        }
        match evidence(frame, headers, rejected) {
            Ok(Some(evidence)) => self.tell(&evidence),
            Ok(None) => {}
            Err(why) => self.sender.unlearned(why),
        }
    }

    /// Sends it, unless the same was sent just before.
    fn tell(&mut self, evidence: &Evidence) {
        let said = (
            (evidence.segment, evidence.mac, evidence.address, evidence.ip_version),
            (evidence.means, evidence.lease_s, evidence.name),
        );
        let tag = self.hash.hash_one(said).max(1);
        #[expect(clippy::cast_possible_truncation, reason = "the low bits choose")]
        let Set(set) = &mut self.sent[tag as usize % SETS];
        let known = set.iter().position(|sent| sent.tag == tag);
        if known.is_some_and(|way| evidence.at.since_ns(set[way].at) < REPEAT_NS) {
            return;
        }
        if self.told >= EVIDENCE_PER_S_MAX {
            return self.sender.unlearned(Unlearned::OverRate);
        }
        while !self.sender.push(*evidence) {
            if !self.waits {
                return self.sender.unlearned(Unlearned::RingFull);
            }
            std::thread::yield_now();
        }
        self.told += 1;
        let oldest = || (0..WAYS).min_by_key(|way| set[*way].at).unwrap_or(0);
        set[known.unwrap_or_else(oldest)] = Sent { tag, at: evidence.at };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::learned::{RING_EVIDENCE, evidence_rings};

    const ALL: Lessons = Lessons { arp: true, nd: true, dhcp: true };
    const SECOND: u64 = 1_000_000_000;

    fn evidence(number: u32, at: u64) -> Evidence {
        Evidence::by_arp(number, number, Timestamp(at))
    }

    #[test]
    fn what_was_sent_just_before_is_left_out() {
        let (mut senders, mut receiver) = evidence_rings(1);
        let mut tap = LearnTap::new(ALL, senders.remove(0), false);
        let mut sent = |number, at| {
            tap.tell(&evidence(number, at));
            receiver.take().is_some()
        };
        assert!(sent(1, SECOND) && !sent(1, 2 * SECOND) && sent(2, 2 * SECOND));
        assert!(!sent(1, 31 * SECOND - 1) && sent(1, 31 * SECOND) && !sent(1, 32 * SECOND));
        assert!(!sent(1, 30 * SECOND), "from before");
        // Many others in between may push it out; then it is sent again, which the learner knows.
        let all = (3..3_000).filter(|number| sent(*number, 32 * SECOND)).count();
        assert_eq!(all, 2_997);
    }

    #[test]
    fn a_second_has_a_bound_and_a_full_ring_is_tried_again() {
        let (mut senders, mut receiver) = evidence_rings(1);
        let mut tap = LearnTap::new(ALL, senders.remove(0), false);
        let count = u32::try_from(RING_EVIDENCE).expect("small");
        for number in 0..count + 3 {
            tap.tell(&evidence(number, SECOND));
        }
        assert_eq!(receiver.unlearned(), [(Unlearned::RingFull, 3)]);
        let taken = std::iter::from_fn(|| receiver.take()).count();
        assert_eq!(taken, RING_EVIDENCE);
        tap.tell(&evidence(count, SECOND));
        assert!(receiver.take().is_some(), "what found no room was not remembered");
        for number in 0..EVIDENCE_PER_S_MAX {
            tap.tell(&evidence(1 << 16 | number, SECOND));
            let _ = receiver.take();
        }
        assert_eq!(receiver.unlearned(), [(Unlearned::OverRate, u64::from(count) + 1)]);
        let frame = Headers { clock: Timestamp(2 * SECOND), ..Headers::default() };
        for _ in 0..LOOKS_PER_S_MAX + 2 {
            tap.look(&[], &frame, Some(DropCause::NotIpArp));
        }
        assert_eq!(
            receiver.unlearned(),
            [(Unlearned::OverRate, 2)],
            "without a station nothing else"
        );
        tap.tell(&evidence(1 << 20, 2 * SECOND));
        assert!(receiver.take().is_some(), "another second");
    }
}
