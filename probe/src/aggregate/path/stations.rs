//! Which MAC address, in which segment, stands for an endpoint in a window.
//!
//! In: conversations of a window. Out: the [`Station`] of a sender.
//! Cost: two look-ups a conversation; some 60 bytes an endpoint.
//! Invariants: at most [`STATIONS_MAX`] endpoints a window, the first ones in order of conversations;
//! of an endpoint with several MAC addresses the one with the fewest addresses counts, for a router's
//! stands for many.

use crate::aggregate::ConversationKey;
use crate::decode::{Address, Mac};
use crate::hash::KeyedMap;
use crate::inventory::{AddressSpace, Segment};

/// Endpoints of which the station is known, in a window.
const STATIONS_MAX: usize = 1 << 16;

/// MAC addresses of one endpoint that are told apart in a window.
const MACS_MAX: usize = 2;

/// A network card, as far as frames show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Station {
    pub(super) space: AddressSpace,
    pub(super) mac: Mac,
}

type Endpoint = (AddressSpace, Address, u8);

/// Of one window.
#[derive(Default)]
pub(super) struct Stations {
    macs: KeyedMap<Endpoint, Vec<(Mac, Segment)>>,
    /// Addresses of a station.
    addresses: KeyedMap<Station, u32>,
    /// Senders that found no room, by conversations.
    pub(super) full: u64,
}

impl Stations {
    /// Notes who sent in a conversation: packets of the initiator, and of the responder.
    pub(super) fn note(&mut self, key: &ConversationKey, [forward, reverse]: [u64; 2]) {
        if forward > 0 {
            self.sender(key, key.source, (key.source_mac, key.segment));
        }
        if reverse > 0 {
            self.sender(key, key.destination, (key.destination_mac, key.reverse_segment));
        }
    }

    fn sender(&mut self, key: &ConversationKey, address: Address, shown: (Mac, Segment)) {
        let endpoint = (key.space, address, key.ip_version);
        if shown.0 == Mac::default() {
            return;
        }
        if self.macs.len() >= STATIONS_MAX && !self.macs.contains_key(&endpoint) {
            self.full += 1;
            return;
        }
        let macs = self.macs.entry(endpoint).or_default();
        if macs.len() < MACS_MAX && macs.iter().all(|(mac, _)| *mac != shown.0) {
            macs.push(shown);
            let station = Station { space: key.space, mac: shown.0 };
            *self.addresses.entry(station).or_default() += 1;
        }
    }

    /// The station of a sender with its segment, if its frames showed one.
    pub(super) fn of(
        &self,
        space: AddressSpace,
        address: Address,
        ip_version: u8,
    ) -> Option<(Station, Segment)> {
        let macs = self.macs.get(&(space, address, ip_version))?;
        let stations = macs.iter().map(|(mac, segment)| (Station { space, mac: *mac }, *segment));
        stations.min_by_key(|(station, _)| (self.addresses.get(station).copied(), station.mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(stations: &mut Stations, last: u8, mac: u8, packets: [u64; 2]) {
        let key = ConversationKey {
            source: Address::v4([10, 0, 0, last]),
            source_mac: Mac([mac; 6]),
            destination: Address::v4([10, 0, 0, 99]),
            destination_mac: Mac([99; 6]),
            ip_version: 4,
            ..ConversationKey::default()
        };
        stations.note(&key, packets);
    }

    fn mac_of(stations: &Stations, last: u8) -> Option<u8> {
        let found = stations.of(AddressSpace::default(), Address::v4([10, 0, 0, last]), 4);
        found.map(|(station, _)| station.mac.0[0])
    }

    #[test]
    fn who_finds_no_room_is_counted() {
        let mut stations = Stations::default();
        for number in 0..=u32::try_from(STATIONS_MAX).expect("few") {
            let key = ConversationKey {
                source: Address::v4(number.to_be_bytes()),
                source_mac: Mac([7; 6]),
                ..ConversationKey::default()
            };
            stations.note(&key, [1, 0]);
        }
        assert_eq!((stations.macs.len(), stations.full), (STATIONS_MAX, 1));
    }

    #[test]
    fn who_did_not_send_shows_no_station_and_a_router_stands_back() {
        let mut stations = Stations::default();
        say(&mut stations, 1, 7, [1, 0]);
        say(&mut stations, 2, 7, [1, 0]);
        say(&mut stations, 1, 9, [1, 0]);
        say(&mut stations, 3, 0, [1, 0]);
        assert_eq!(
            [1, 2, 3, 99].map(|last| mac_of(&stations, last)),
            [Some(9), Some(7), None, None]
        );
        say(&mut stations, 2, 7, [0, 1]);
        assert_eq!(mac_of(&stations, 99), Some(99));
    }
}
