//! What the two directions of a flow look like below IP.
//!
//! In: the MAC addresses and segment of each packet. Out: [`Side`] of each direction.
//! Cost: nothing where both directions show the same two stations in the same segment, which a flow
//! keeps in its own line; else one more line for each packet of it.
//! Invariants: at most so many flows with directions apart as there are places; beyond them a flow
//! keeps the newest side only and is counted.
//! Source: virtual router addresses (RFC 5798 section 7.3) are why directions differ.

use crate::decode::{Headers, Mac, Marks};
use crate::inventory::Segment;

/// Octets of an Ethernet header without tags.
const ETHERNET_OCTETS: u8 = 14;

/// No place.
pub(super) const NOWHERE: u32 = u32::MAX;

/// What one endpoint's packets looked like below IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Segment seen.
    pub segment: Segment,
    /// Source MAC, zero without Ethernet.
    pub source_mac: Mac,
    /// Destination MAC, zero without Ethernet.
    pub destination_mac: Mac,
    /// 14 with an Ethernet header, else 0.
    pub layer2_header_octets: u8,
    /// Whether this endpoint sent anything yet.
    pub seen: bool,
}

impl Side {
    /// Of a packet.
    pub(super) fn of(headers: &Headers) -> Self {
        let ethernet = headers.marks.has(Marks::ETHERNET);
        Self {
            segment: headers.segment,
            source_mac: headers.source_mac,
            destination_mac: headers.destination_mac,
            layer2_header_octets: if ethernet { ETHERNET_OCTETS } else { 0 },
            seen: true,
        }
    }

    /// The other direction of the same two stations.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { source_mac: self.destination_mac, destination_mac: self.source_mac, ..self }
    }

    /// Whether both show the same stations in the same segment, in opposite directions.
    pub(super) fn answers(self, other: Self) -> bool {
        let turned = other.turned();
        (self.segment, self.source_mac, self.destination_mac)
            == (turned.segment, turned.source_mac, turned.destination_mac)
    }
}

/// A flow whose directions are not one the other turned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Apart {
    pub(super) sides: [Side; 2],
    /// Layer-2 octets that the present headers of a side do not explain, because they changed.
    pub(super) layer2_correction: [i64; 2],
}

/// Places for flows whose directions are apart.
pub(super) struct ApartSlab {
    entries: Vec<Apart>,
    free: Vec<u32>,
    places: usize,
    refused: u64,
}

impl ApartSlab {
    pub(super) fn new(places: usize) -> Self {
        Self {
            entries: Vec::with_capacity(places),
            free: Vec::with_capacity(places),
            places,
            refused: 0,
        }
    }

    /// Bytes when all places are taken.
    pub(super) fn bytes(&self) -> usize {
        self.places * (size_of::<Apart>() + size_of::<u32>())
    }

    /// Times that no place was free.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn get(&self, place: u32) -> Option<&Apart> {
        self.entries.get(place as usize)
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Apart> {
        self.entries.get_mut(place as usize)
    }

    /// Takes a place; `None`, and counted, where all are taken.
    pub(super) fn take(&mut self, entry: Apart) -> Option<u32> {
        if let Some(place) = self.free.pop() {
            self.entries[place as usize] = entry;
            return Some(place);
        }
        let place =
            u32::try_from(self.entries.len()).ok().filter(|_| self.entries.len() < self.places);
        match place {
            Some(_) => self.entries.push(entry),
            None => self.refused += 1,
        }
        place
    }

    pub(super) fn give_back(&mut self, place: u32) {
        if place != NOWHERE {
            self.free.push(place);
        }
    }
}
