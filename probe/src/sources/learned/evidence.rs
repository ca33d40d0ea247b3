//! What one packet shows of who has which address, and its way from a worker to the learner.
//!
//! In: [`Evidence`] that a worker read. Out: the same at the [`EvidenceReceiver`], in the order of each
//! worker; how much was not learned, by reason.
//! Cost: one copy into a ring of the worker's own; nothing is allocated after [`evidence_rings`].
//! Invariants: at most [`RING_EVIDENCE`] wait for each worker; what finds no room is given back.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::counters::Counter;
use crate::inventory::{Address, Mac, Segment};
use crate::time::Timestamp;

/// What waits of one worker at most.
pub const RING_EVIDENCE: usize = 1_024;

/// Octets of a host name that is kept: a label of DNS (RFC 1035 section 2.3.4).
pub const HOST_NAME_OCTETS_MAX: usize = 63;

/// How an address was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Means {
    /// The sender of an ARP packet.
    Arp,
    /// A neighbour advertisement, or the sender of a solicitation.
    Neighbour,
    /// Duplicate address detection: it has the address unless somebody answers.
    Tentative,
    /// A server gave it.
    Dhcp,
}

/// A host name: letters, digits, `-`, `_` and dots; empty for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostName {
    octets: [u8; HOST_NAME_OCTETS_MAX],
    length: u8,
}

impl Default for HostName {
    fn default() -> Self {
        Self { octets: [0; HOST_NAME_OCTETS_MAX], length: 0 }
    }
}

impl HostName {
    /// `None` if it is empty, longer than [`HOST_NAME_OCTETS_MAX`], or has other characters: what a guest
    /// calls itself goes into records and pages.
    pub fn new(octets: &[u8]) -> Option<Self> {
        let allowed =
            |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
        if octets.is_empty() || !octets.iter().all(allowed) {
            return None;
        }
        let mut name = Self { length: u8::try_from(octets.len()).ok()?, ..Self::default() };
        name.octets.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(name)
    }

    /// Its text; `None` for none.
    pub fn text(&self) -> Option<&str> {
        let octets = self.octets.get(..usize::from(self.length))?;
        std::str::from_utf8(octets).ok().filter(|text| !text.is_empty())
    }
}

/// A MAC address has an address in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When the packet was received.
    pub at: Timestamp,
    /// Where.
    pub segment: Segment,
    /// Who.
    pub mac: Mac,
    /// What.
    pub address: Address,
    /// 4 or 6.
    pub ip_version: u8,
    /// How it was shown.
    pub means: Means,
    /// Seconds that a server gave it for; 0: it does not say.
    pub lease_s: u32,
    /// What a server calls it.
    pub name: HostName,
    /// There was a name, but none that may be shown.
    pub name_refused: bool,
}

macro_rules! unlearned {
    ($($variant:ident $name:literal $doc:literal,)+) => {
        /// Why nothing was learned from a packet, or not all.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Unlearned { $(#[doc = $doc] $variant,)+ }

        impl Unlearned {
            /// All, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the API and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

unlearned! {
    Cut "packet_cut" "The capture ended before what was to be read.",
    Malformed "packet_malformed" "Lengths, types or options are not those of the protocol.",
    NotOfSender "not_of_sender" "The MAC address that it names is not the one that sent the frame.",
    NotUnicast "not_unicast" "The address or MAC address is none of one interface.",
    OffLink "off_link" "The answer of a server on its way to another segment, or to a relay.",
    NameRefused "host_name_refused" "A host name with other characters than names have, or too long; the address was learned.",
    OverRate "over_rate" "More such packets in a second than are looked at.",
    RingFull "ring_full" "The way to the learner was full.",
    OtherNetwork "other_network" "The address is in none of inventory.learned.networks.",
    AddressesFull "addresses_full" "As many addresses are known as may be.",
    SegmentFull "segment_full" "As many addresses are known of the segment as may be.",
    MacFull "mac_full" "As many addresses are known of the MAC address as may be.",
    TentativeRefused "tentative_refused" "Another one has the address whose duplicates were looked for.",
    TentativeFull "tentative_full" "As many addresses wait for an answer as may be.",
}

/// How often something was not learned, by reason; one writer.
#[derive(Debug)]
pub(super) struct UnlearnedCounts([Counter; Unlearned::ALL.len()]);

impl Default for UnlearnedCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl UnlearnedCounts {
    /// Counts; only the owning thread may call it.
    #[inline]
    pub(super) fn add(&self, why: Unlearned) {
        self.0[why as usize].add(1);
    }

    /// A recent value.
    pub(super) fn of(&self, why: Unlearned) -> u64 {
        self.0[why as usize].load()
    }
}

/// A worker's end.
#[derive(Debug)]
pub struct EvidenceSender {
    queue: Arc<ArrayQueue<Evidence>>,
    counts: Arc<UnlearnedCounts>,
}

impl EvidenceSender {
    /// Hands evidence over; `false` where there is no room.
    pub fn push(&self, evidence: Evidence) -> bool {
        self.queue.push(evidence).is_ok()
    }

    /// Counts what is not learned.
    pub fn unlearned(&self, why: Unlearned) {
        self.counts.add(why);
    }
}

/// The learner's end of all workers' rings.
#[derive(Debug, Default)]
pub struct EvidenceReceiver {
    rings: Vec<Arc<ArrayQueue<Evidence>>>,
    counts: Vec<Arc<UnlearnedCounts>>,
    told: [u64; Unlearned::ALL.len()],
}

/// A ring for each worker.
pub fn evidence_rings(workers: usize) -> (Vec<EvidenceSender>, EvidenceReceiver) {
    let mut receiver = EvidenceReceiver::default();
    let senders = (0..workers).map(|_| {
        let queue = Arc::new(ArrayQueue::new(RING_EVIDENCE));
        let counts = Arc::<UnlearnedCounts>::default();
        receiver.rings.push(Arc::clone(&queue));
        receiver.counts.push(Arc::clone(&counts));
        EvidenceSender { queue, counts }
    });
    (senders.collect(), receiver)
}

impl EvidenceReceiver {
    /// The next of any worker.
    pub fn take(&mut self) -> Option<Evidence> {
        self.rings.iter().find_map(|ring| ring.pop())
    }

    /// What the workers counted since the last call.
    pub fn unlearned(&mut self) -> Vec<(Unlearned, u64)> {
        let mut more = Vec::new();
        for (why, told) in Unlearned::ALL.iter().zip(&mut self.told) {
            let now = self.counts.iter().map(|counts| counts.of(*why)).sum();
            if now > *told {
                more.push((*why, now - *told));
                *told = now;
            }
        }
        more
    }
}

#[cfg(test)]
impl Evidence {
    /// For tests: station 02:00:a:b:c:d and address 10.b.c.d, each by a number, shown by ARP.
    pub(crate) fn by_arp(mac: u32, address: u32, at: Timestamp) -> Self {
        let ([a, b, c, d], [_, x, y, z]) = (mac.to_be_bytes(), address.to_be_bytes());
        Self {
            at,
            segment: Segment::NONE,
            mac: Mac([2, 0, a, b, c, d]),
            address: Address::v4([10, x, y, z]),
            ip_version: 4,
            means: Means::Arp,
            lease_s: 0,
            name: HostName::default(),
            name_refused: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(last: u8) -> Evidence {
        Evidence::by_arp(last.into(), last.into(), Timestamp(1))
    }

    #[test]
    fn names_are_those_that_can_be_shown() {
        for (octets, text) in [
            (&b"web-1"[..], Some("web-1")),
            (b"a.b_c.example", Some("a.b_c.example")),
            (b"", None),
            (b"<b>", None),
            (b"two words", None),
            (b"nul\0", None),
            (&[0xc3, 0xa4], None),
            (&[b'a'; 63], Some("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")),
            (&[b'a'; 64], None),
            (&[b'a'; 300], None),
        ] {
            let name = HostName::new(octets);
            assert_eq!(name.as_ref().and_then(HostName::text), text, "{octets:?}");
        }
        assert_eq!(HostName::default().text(), None);
    }

    #[test]
    fn a_full_ring_gives_back_and_counts_are_told_once() {
        let (senders, mut receiver) = evidence_rings(2);
        let pushed = (0..2_000).filter(|_| senders[1].push(evidence(1))).count();
        assert_eq!(pushed, RING_EVIDENCE);
        assert!(senders[0].push(evidence(2)), "each has a ring of its own");
        for sender in &senders {
            sender.unlearned(Unlearned::RingFull);
        }
        assert_eq!(receiver.unlearned(), [(Unlearned::RingFull, 2)]);
        assert_eq!(receiver.unlearned(), []);
        let taken = std::iter::from_fn(|| receiver.take()).count();
        assert_eq!(taken, RING_EVIDENCE + 1);
    }
}
