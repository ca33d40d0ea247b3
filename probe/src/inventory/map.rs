//! The workers' snapshot of what names segments and address spaces.
//!
//! In: joined segments of the configuration, places of stations of the inventory. Out: the
//! [`AddressSpace`] of a [`Segment`], and the segment of a MAC address at a tap whose mirror
//! replaced the tenant's VLAN tag.
//! Cost: one test of a length where nothing is joined, else one hash and one probe.
//! Invariants: immutable once it is shared; a segment that no one joined is its own space.
//! Source: ARCHITECTURE.md, "Segment and address space".

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::{AddressSpace, Segment};
use crate::index::TapIndex;

/// Stations that a map names at most; further ones are left out. 2²⁰ take about 32 MiB.
pub const STATIONS_MAX: usize = 1 << 20;

/// Segment → address space, and (tap, MAC) → segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentMap {
    spaces: HashMap<u64, AddressSpace, BuildHasherDefault<Mix>>,
    stations: HashMap<u64, Segment, BuildHasherDefault<Mix>>,
    /// By tap: whether any station is placed there.
    station_taps: Vec<bool>,
}

impl SegmentMap {
    /// Puts `segment` into `space`; the last word counts.
    pub fn join(&mut self, segment: Segment, space: AddressSpace) {
        self.spaces.insert(segment.bits(), space);
    }

    /// Says that untagged frames from or to `mac` at `tap` are of `segment`; the last word counts.
    /// `false` where the map is full ([`STATIONS_MAX`]).
    pub fn place(&mut self, tap: TapIndex, mac: [u8; 6], segment: Segment) -> bool {
        let key = station_key(tap, mac);
        if self.stations.len() >= STATIONS_MAX && !self.stations.contains_key(&key) {
            return false;
        }
        let place = usize::from(tap.0);
        if self.station_taps.len() <= place {
            self.station_taps.resize(place + 1, false);
        }
        if let Some(named) = self.station_taps.get_mut(place) {
            *named = true;
        }
        self.stations.insert(key, segment);
        true
    }

    /// The address space of `segment`: the joined one, else its own.
    #[inline]
    pub fn space_of(&self, segment: Segment) -> AddressSpace {
        if self.spaces.is_empty() {
            return AddressSpace::of_segment(segment);
        }
        let joined = self.spaces.get(&segment.bits());
        joined.copied().unwrap_or(AddressSpace::of_segment(segment))
    }

    /// Whether the frames of `tap` get their segment from MAC addresses.
    #[inline]
    pub fn names_stations_of(&self, tap: TapIndex) -> bool {
        self.station_taps.get(usize::from(tap.0)).is_some_and(|named| *named)
    }

    /// The segment of `mac` at `tap`, if known.
    pub fn station(&self, tap: TapIndex, mac: [u8; 6]) -> Option<Segment> {
        self.stations.get(&station_key(tap, mac)).copied()
    }
}

const fn station_key(tap: TapIndex, mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    ((tap.0 as u64) << 48) | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// One multiplication folded: the keys come from configuration and inventory, so nobody outside
/// can choose keys that collide, and a lookup of a foreign key only misses.
#[derive(Clone, Copy, Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the product are folded")]
    fn write_u64(&mut self, value: u64) {
        // 2⁶⁴ / golden ratio, Knuth, The Art of Computer Programming 3, section 6.4.
        let product = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::SegmentKind;

    #[test]
    fn unjoined_segments_are_their_own_space() {
        let vlan = Segment::new(0, SegmentKind::Vlan, 42);
        let mut map = SegmentMap::default();
        assert_eq!(map.space_of(vlan), AddressSpace::of_segment(vlan));
        map.join(Segment::new(0, SegmentKind::Vlan, 43), AddressSpace::named(0));
        assert_eq!(map.space_of(vlan), AddressSpace::of_segment(vlan));
    }

    #[test]
    fn joined_segments_share_a_space() {
        let mut map = SegmentMap::default();
        for vni in 1..100 {
            map.join(Segment::new(0, SegmentKind::Vxlan, vni), AddressSpace::named(7));
        }
        for vni in 1..100 {
            let space = map.space_of(Segment::new(0, SegmentKind::Vxlan, vni));
            assert_eq!(space, AddressSpace::named(7));
        }
    }

    #[test]
    fn stations_are_known_at_their_tap_only() {
        let mut map = SegmentMap::default();
        let segment = Segment::new(0, SegmentKind::Vlan, 7);
        assert!(map.place(TapIndex(3), [2, 0, 0, 0, 0, 1], segment));
        assert_eq!(map.station(TapIndex(3), [2, 0, 0, 0, 0, 1]), Some(segment));
        assert_eq!(map.station(TapIndex(2), [2, 0, 0, 0, 0, 1]), None);
        assert_eq!(map.station(TapIndex(3), [2, 0, 0, 0, 0, 2]), None);
        assert!(map.names_stations_of(TapIndex(3)));
        assert!(!map.names_stations_of(TapIndex(2)));
        assert!(!map.names_stations_of(TapIndex(4)));
    }
}
