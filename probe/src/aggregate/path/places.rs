//! Next to which tap an endpoint stands, and since when: a virtual machine that moves takes its way
//! between taps with it.
//!
//! In: ways that packets took, and when. Out: the tap next to an endpoint at a time.
//! Cost: one look-up an answer.
//! Invariants: at most [`PLACES_MAX`] endpoints.

use std::sync::Arc;

use crate::config::Plan;
use crate::decode::Address;
use crate::hash::KeyedMap;
use crate::index::TapIndex;
use crate::inventory::{AddressSpace, InventoryCell};
use crate::path::Ends;
use crate::time::Timestamp;

use super::history::{SPAN_NS, Way};

const PLACES_MAX: usize = 1 << 17;

type Endpoint = (AddressSpace, Address, u8);

/// From when to when something was seen there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stay {
    tap: TapIndex,
    first: Timestamp,
    last: Timestamp,
}

impl Stay {
    /// How far from it in time.
    fn distance_ns(&self, at: Timestamp) -> u64 {
        self.first.since_ns(at).max(at.since_ns(self.last))
    }
}

/// Of all endpoints that were seen on a way.
#[derive(Default)]
pub(super) struct Places {
    stays: KeyedMap<Endpoint, Vec<Stay>>,
    /// Stays that found no room, since somebody asked.
    full: u64,
}

impl Places {
    /// Packets took a way between two instants.
    pub(super) fn add(&mut self, ends: &Ends, way: Way, (first, last): (Timestamp, Timestamp)) {
        let [source, destination] = endpoints(ends);
        for (endpoint, tap) in [(source, way.0), (destination, way.1)] {
            self.stay(endpoint, Stay { tap, first, last });
        }
    }

    fn stay(&mut self, endpoint: Endpoint, stay: Stay) {
        if self.stays.len() >= PLACES_MAX && !self.stays.contains_key(&endpoint) {
            self.full += 1;
            return;
        }
        let stays = self.stays.entry(endpoint).or_default();
        match stays.iter_mut().find(|known| known.tap == stay.tap) {
            Some(known) => {
                known.first = known.first.min(stay.first);
                known.last = known.last.max(stay.last);
            }
            None => stays.push(stay),
        }
    }

    fn of(&self, endpoint: Endpoint) -> &[Stay] {
        self.stays.get(&endpoint).map_or(&[], Vec::as_slice)
    }

    /// Stays that found no room since the last call.
    pub(super) fn take_full(&mut self) -> u64 {
        std::mem::take(&mut self.full)
    }

    /// Takes over where endpoints were last seen, and forgets what is older than a minute.
    pub(super) fn go_on(&mut self, later: &Self, at: Timestamp) {
        self.stays.retain(|_, stays| {
            stays.retain(|stay| at.since_ns(stay.last) < SPAN_NS);
            !stays.is_empty()
        });
        let mut later: Vec<_> = later.stays.iter().collect();
        // Where there is no room for all it must not be the order in a table that decides.
        later.sort_unstable_by_key(|(endpoint, _)| **endpoint);
        for (endpoint, stays) in later {
            for stay in stays {
                // A stay that goes on ends later; where it began says nothing any more.
                self.stay(*endpoint, Stay { first: stay.last, ..*stay });
            }
        }
    }
}

/// Who an inventory says stands where.
#[derive(Clone, Default)]
pub struct Stands {
    inventory: Option<InventoryCell>,
    /// Of each tap.
    hosts: Vec<Option<String>>,
}

impl Stands {
    /// With the hosts of the plan's taps.
    pub fn new(plan: &Plan, inventory: InventoryCell) -> Self {
        let hosts = plan.taps.iter().map(|tap| tap.host.clone()).collect();
        Self { inventory: Some(inventory), hosts }
    }

    /// The way between the taps of both ends' hosts, if each has one tap.
    pub(super) fn way(&self, ends: &Ends, at: Timestamp) -> Option<Way> {
        let tap = |endpoint| {
            let host = self.host(endpoint, at)?;
            let stands_there = |known: &Option<String>| known.as_deref() == Some(&*host);
            let mut places = self.hosts.iter().enumerate().filter(|(_, known)| stands_there(known));
            let (place, _) = places.next()?;
            places.next().is_none().then_some(TapIndex(u16::try_from(place).ok()?))
        };
        let [source, destination] = endpoints(ends);
        let way = (tap(source)?, tap(destination)?);
        (way.0 != way.1).then_some(way)
    }

    fn host(&self, (space, address, version): Endpoint, at: Timestamp) -> Option<Arc<str>> {
        let inventory = self.inventory.as_ref()?.load();
        inventory.vm(inventory.resolve(space, address, version, None, at)?)?.host_at(at).cloned()
    }

    /// Whether an endpoint stands on a tap's host; `None`: not known, or no tap stands there.
    fn is_at(&self, endpoint: Endpoint, tap: TapIndex, at: Timestamp) -> Option<bool> {
        let host = self.host(endpoint, at)?;
        let mut hosts = self.hosts.iter().flatten();
        hosts.any(|known| **known == *host).then_some(())?;
        Some(self.hosts.get(usize::from(tap.0))?.as_deref() == Some(&*host))
    }
}

/// Whether the sender stood next to the first tap of a way, and the receiver next to the other, as
/// far as the inventory says, else the nearest time at which they were seen on a way.
pub(super) fn agree(
    stands: &Stands,
    known: &[&Places],
    ends: &Ends,
    way: Way,
    at: Timestamp,
) -> bool {
    let [source, destination] = endpoints(ends);
    let is_at = |endpoint, tap| {
        if let Some(is_at) = stands.is_at(endpoint, tap, at) {
            return is_at;
        }
        let stays = known.iter().flat_map(|places| places.of(endpoint));
        let nearest = stays.min_by_key(|stay| (stay.distance_ns(at), stay.tap != tap));
        nearest.is_none_or(|stay| stay.tap == tap)
    };
    is_at(source, way.0) && is_at(destination, way.1)
}

fn endpoints(ends: &Ends) -> [Endpoint; 2] {
    [ends.source, ends.destination].map(|address| (ends.space, address, ends.ip_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_is_where_he_was_seen_nearest_in_time() {
        let here = Ends { destination: Address::v4([10, 0, 0, 2]), ..Ends::default() };
        let there = Ends { destination: Address::v4([10, 0, 0, 3]), ..Ends::default() };
        let (up, down) = ((TapIndex(0), TapIndex(1)), (TapIndex(1), TapIndex(0)));
        let mut places = Places::default();
        places.add(&here, up, (Timestamp(10), Timestamp(20)));
        places.add(&there, down, (Timestamp(40), Timestamp(50)));
        let agrees = |at| agree(&Stands::default(), &[&places], &here, up, Timestamp(at));
        assert_eq!([5, 15, 28, 32, 60].map(agrees), [true, true, true, false, false]);
        let mut known = Places::default();
        known.go_on(&places, Timestamp(0));
        assert!(!agree(&Stands::default(), &[&known], &here, up, Timestamp(70)));
        known.go_on(&Places::default(), Timestamp(50 + SPAN_NS));
        assert!(known.stays.is_empty());
    }

    #[test]
    fn who_finds_no_room_is_counted() {
        let mut places = Places::default();
        let way = (TapIndex(0), TapIndex(1));
        // Each time two more endpoints.
        for number in 0..=u32::try_from(PLACES_MAX / 2).expect("few") {
            let [_, a, b, c] = number.to_be_bytes();
            let ends = Ends {
                source: Address::v4([10, a, b, c]),
                destination: Address::v4([11, a, b, c]),
                ..Ends::default()
            };
            places.add(&ends, way, (Timestamp(0), Timestamp(1)));
        }
        assert_eq!(
            (places.stays.len(), places.take_full(), places.take_full()),
            (PLACES_MAX, 2, 0)
        );
    }
}
