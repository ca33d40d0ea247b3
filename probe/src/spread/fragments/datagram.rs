//! A fragmented datagram: what names it, and what is known of it.
//!
//! In: its fragments. Out: its ports, and whether all of it was seen.
//! Cost: plain values.
//! Invariants: repeated and overlapping fragments count as often as they come, so a datagram may
//! count as whole too early; that shortens its life in a full table, and nothing else.

use crate::decode::{Address, Headers, Marks};
use crate::inventory::AddressSpace;

/// Octets of the headers before the fragment's payload: IPv4 without options; IPv6 with the
/// fragment header. Others are rare, and the difference is small.
const IPV4_HEADER_OCTETS: u32 = 20;
const IPV6_HEADER_OCTETS: u32 = 48;

/// What all fragments of a datagram have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DatagramKey {
    space: AddressSpace,
    source: Address,
    destination: Address,
    identification: u32,
    protocol: u8,
    ip_version: u8,
}

impl DatagramKey {
    pub(super) fn of(headers: &Headers) -> Self {
        Self {
            space: headers.space,
            source: headers.source,
            destination: headers.destination,
            identification: headers.ip_identification,
            protocol: headers.protocol,
            ip_version: headers.ip_version,
        }
    }
}

/// What is known of a datagram.
#[derive(Clone, Copy, Default)]
pub(super) struct Datagram {
    /// Source and destination, once the first fragment came.
    pub(super) ports: Option<(u16, u16)>,
    /// Newest of the fragments that wait, each of which names the one before it.
    pub(super) newest_waiting: Option<u32>,
    /// How many wait.
    pub(super) waiting: u32,
    seen_octets: u32,
    /// Known once the last fragment came.
    total_octets: Option<u32>,
}

impl Datagram {
    /// Counts the octets of a fragment.
    pub(super) fn note(&mut self, headers: &Headers) {
        let octets = payload_octets(headers);
        self.seen_octets = self.seen_octets.saturating_add(octets);
        if !headers.marks.has(Marks::MORE_FRAGMENTS) {
            self.total_octets = Some(u32::from(headers.fragment_offset).saturating_add(octets));
        }
    }

    /// Whether the first fragment came, and as many octets as there are.
    pub(super) fn is_whole(&self) -> bool {
        let all = self.total_octets.is_some_and(|total| self.seen_octets >= total);
        all && self.ports.is_some()
    }

    /// One more fragment waits, at `place`.
    pub(super) fn wait(&mut self, place: u32) {
        self.newest_waiting = Some(place);
        self.waiting += 1;
    }

    /// The newest of the fragments that waited; none waits any more.
    pub(super) fn take_waiting(&mut self) -> Option<u32> {
        self.waiting = 0;
        self.newest_waiting.take()
    }
}

/// Octets that a fragment holds of its datagram. In a later one all is payload; of the first one
/// the transport header belongs to it.
fn payload_octets(headers: &Headers) -> u32 {
    if headers.marks.has(Marks::LATER_FRAGMENT) {
        return headers.payload_octets;
    }
    let header_octets =
        if headers.ip_version == 4 { IPV4_HEADER_OCTETS } else { IPV6_HEADER_OCTETS };
    headers.octets.saturating_sub(header_octets)
}
