//! Migrations to records.
//!
//! In: what the aggregator found. Out: rows of `migrations`.
//! Invariants: as of all records; what is not known or not measured is null.

use super::{MigrationRecord, RecordMaker, Rows};
use crate::aggregate::Migration;
use crate::index::TapIndex;

impl RecordMaker {
    /// Records of migrations.
    pub fn migrations(&mut self, found: &[Migration]) -> Rows {
        let migrations = found.iter().map(|one| self.migration(one)).collect();
        Rows { migrations, ..Rows::default() }
    }

    fn migration(&mut self, found: &Migration) -> MigrationRecord {
        let [from_host, to_host] = found.hosts.clone();
        let [from_tap, to_tap] = found.taps.map(|tap| tap.map(|tap| self.tap_name(tap)));
        let vm = found.vm.as_ref();
        MigrationRecord {
            time_ns: found.time.0,
            virtual_station_uuid: vm.map(|vm| vm.uuid.clone()),
            virtual_station_name: vm.and_then(|vm| vm.name.clone()),
            virtual_station_tenant: vm.and_then(|vm| vm.tenant.clone()),
            reported_by: found.reported.clone(),
            detected: found.detected,
            from_host,
            to_host,
            from_tap,
            to_tap,
            address_space: found.space.map(|space| self.space(space)),
            segment: found.segment.map(|segment| self.names().segment(segment)),
            address: found.address,
            mac: found.mac,
            last_seen_ns: found.silence.map(|(last, _)| last.0),
            first_seen_ns: found.silence.map(|(_, first)| first.0),
            blackout_ns: found.silence.map(|(last, first)| first.since_ns(last)),
            blackout_clock_bound_ns: found
                .clocks
                .map(|clocks| clocks.offset_ns.unsigned_abs().saturating_add(clocks.bound_ns)),
            peer_count: found.peers,
            sampling_probability: 1.0 / f64::from(self.path_one_in),
            estimate: self.path_one_in > 1 && found.silence.is_some(),
        }
    }

    fn tap_name(&mut self, tap: TapIndex) -> std::sync::Arc<str> {
        self.names().tap(tap)
    }
}
