//! The map of segments that workers hold, and how they get another one while packets come.
//!
//! In: taps and spaces of the plan, the inventory at a time. Out: [`SegmentMap`]s in a [`MapCell`].
//! Cost: a worker loads one number a turn; a new map is made by the keeper's thread, which also frees the
//! old one.
//! Invariants: a worker swaps between bursts, so one burst is read with one map. What was under way stays
//! in the address space that it began in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::config::Plan;
use crate::index::TapIndex;
use crate::inventory::{Inventory, Mac, STATIONS_MAX, SegmentMap};
use crate::time::Timestamp;

/// Where workers find the newest map.
#[derive(Debug, Default)]
pub struct MapCell {
    map: ArcSwap<SegmentMap>,
    version: AtomicU64,
}

impl MapCell {
    /// Grows with each map.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The newest map.
    pub fn load(&self) -> Arc<SegmentMap> {
        self.map.load_full()
    }

    /// Puts a map in the place of the one before, which comes back.
    pub fn publish(&self, map: SegmentMap) -> Arc<SegmentMap> {
        let before = self.map.swap(Arc::new(map));
        self.version.fetch_add(1, Ordering::Release);
        before
    }
}

/// Whether anything of the inventory is in the map of this plan: joined segments always may be.
fn places_stations(plan: &Plan) -> bool {
    plan.taps.iter().any(|tap| tap.matches.vlan.is_some() && tap.segment.is_none())
}

/// The map at a time. Places of MACs at taps whose mirror took the tenant's tag off come from the
/// inventory. Without a time, as for files, the interface that became valid last counts: a replay of an
/// old capture places a MAC that has moved since where it is now.
pub fn segment_map(plan: &Plan, inventory: &Inventory, at: Option<Timestamp>) -> SegmentMap {
    let mut map = SegmentMap::default();
    for space in &plan.spaces {
        for segment in &space.segments {
            map.join(*segment, space.space);
        }
    }
    for (segment, space) in inventory.spaces().joins(at.unwrap_or(Timestamp(u64::MAX))) {
        map.join(segment, space);
    }
    if !places_stations(plan) {
        return map;
    }
    let stations = inventory.stations(at);
    let mut left_out = 0_usize;
    for (place, tap) in (0_u16..).zip(&plan.taps) {
        if tap.matches.vlan.is_none() || tap.segment.is_some() {
            continue;
        }
        let mut placed = |mac: Mac, segment| map.place(TapIndex(place), mac.0, segment);
        left_out += stations.iter().filter(|(mac, segment)| !placed(**mac, **segment)).count();
    }
    if left_out > 0 {
        tracing::warn!(
            left_out,
            stations_max = STATIONS_MAX,
            "more MAC addresses in the inventory than can be placed at taps; the others have the \
             segment that the wire says"
        );
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TapMatch, TapPlan};
    use crate::inventory::{AddressSpace, ClassRules, Segment, SegmentKind, file};

    #[test]
    fn a_mac_is_placed_where_it_is_at_the_time() {
        let interface = |vlan: u16, from: u16| {
            format!(
                "[[vm.interface]]\nmac = \"fa:16:3e:00:00:01\"\nsegment = \"default/vlan/{vlan}\"\n\
                 valid_from = {from}-01-01T00:00:00Z\nvalid_to = {}-01-01T00:00:00Z\n",
                from + 1
            )
        };
        let text = format!(
            "[[tenant]]\nname = \"t\"\n[[vm]]\nuuid = \"00000000-0000-0000-0000-000000000001\"\n\
             name = \"a\"\ntenant = \"t\"\n{}{}",
            interface(20, 2025),
            interface(10, 2024)
        );
        let domains = ["default".to_owned()];
        let data = file::parse(&text, "i.toml", &domains, &[]).expect("it is right");
        let inventory = Inventory::new(&data, ClassRules::default());
        let matches = TapMatch { vlan: Some(99), ..TapMatch::default() };
        let taps = vec![TapPlan { matches, ..TapPlan::default() }];
        let plan = Plan { taps, ..Plan::default() };
        let vlan = |seconds: Option<u64>| {
            let at = seconds.map(|seconds| Timestamp::from_parts(seconds, 0));
            let map = segment_map(&plan, &inventory, at);
            map.station(TapIndex(0), [0xfa, 0x16, 0x3e, 0, 0, 1]).map(Segment::id)
        };
        // In the middle of 2024, of 2025 and of 2026; the last word.
        let seconds = [Some(1_720_000_000), Some(1_750_000_000), Some(1_780_000_000), None];
        assert_eq!(seconds.map(vlan), [Some(10), Some(20), None, Some(20)]);
    }

    #[test]
    fn segments_of_a_router_share_a_space() {
        let text =
            "[[space]]\nname = \"blue\"\nsegments = [\"default/vxlan/1\", \"default/vxlan/2\"]\n";
        let data = file::parse(text, "i.toml", &["default".to_owned()], &[]).expect("it is right");
        let inventory = Inventory::new(&data, ClassRules::default());
        let map = segment_map(&Plan::default(), &inventory, None);
        let space = |vni| map.space_of(Segment::new(0, SegmentKind::Vxlan, vni));
        assert_eq!(space(1), space(2));
        assert_ne!(space(1), space(3));
        assert_eq!(inventory.spaces().name(space(1)).map(AsRef::as_ref), Some("blue"));
        assert_eq!(space(1), AddressSpace::named(0));
    }

    #[test]
    fn a_new_map_has_a_new_version() {
        let cell = MapCell::default();
        let before = cell.version();
        let mut map = SegmentMap::default();
        let segment = Segment::new(0, SegmentKind::Vlan, 7);
        map.join(segment, AddressSpace::named(3));
        cell.publish(map);
        assert_ne!(cell.version(), before);
        assert_eq!(cell.load().space_of(segment), AddressSpace::named(3));
    }
}
