//! What the two directions of a flow look like below IP.
//!
//! In: the MAC addresses and segment of each packet. Out: [`Side`] of each direction.
//! Cost: nothing where both directions show the same two stations in the same segment, which a flow
//! keeps in its own line; else one more line for each packet of it.
//! Invariants: at most so many flows with directions apart as there are places; beyond them a flow
//! keeps the newest side only and is counted.
//! Source: virtual router addresses (RFC 5798 section 7.3) are why directions differ.

use crate::decode::Mac;
use crate::inventory::Segment;

use super::packet::Packet;
pub(super) use super::slab::NOWHERE;
use super::slab::Slab;

/// Octets of an Ethernet header without tags.
pub const ETHERNET_OCTETS: u8 = 14;

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
    pub(super) fn of(packet: &impl Packet) -> Self {
        let [source_mac, destination_mac] = packet.stations();
        Self {
            segment: packet.segment(),
            source_mac,
            destination_mac,
            layer2_header_octets: if packet.is_ethernet() { ETHERNET_OCTETS } else { 0 },
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
pub(super) type ApartSlab = Slab<Apart>;
