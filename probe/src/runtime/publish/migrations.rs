//! A migration as it is shown and logged.
//!
//! In: its record. Out: a [`LiveMigration`], a line in the log.

use crate::aggregate::live::LiveMigration;
use crate::record::MigrationRecord;

/// As API and page show it.
pub(super) fn live(record: &MigrationRecord) -> LiveMigration {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(ToOwned::to_owned);
    LiveMigration {
        time_ns: record.time_ns,
        virtual_station_uuid: text(&record.virtual_station_uuid),
        virtual_station_name: text(&record.virtual_station_name),
        virtual_station_tenant: text(&record.virtual_station_tenant),
        reported_by: text(&record.reported_by),
        detected: record.detected,
        from_host: text(&record.from_host),
        to_host: text(&record.to_host),
        from_tap: text(&record.from_tap),
        to_tap: text(&record.to_tap),
        segment: text(&record.segment),
        address: record.address.map(|address| address.to_string()),
        mac: record.mac.map(|mac| mac.to_string()),
        last_seen_ns: record.last_seen_ns,
        first_seen_ns: record.first_seen_ns,
        blackout_ns: record.blackout_ns,
        blackout_clock_bound_ns: record.blackout_clock_bound_ns,
        peer_count: record.peer_count,
        estimate: record.estimate,
    }
}

/// One line a migration.
pub(super) fn log(record: &MigrationRecord) {
    tracing::info!(
        time_ns = record.time_ns,
        vm = record.virtual_station_name.as_deref(),
        address = record.address.map(tracing::field::display),
        from = record.from_host.as_deref().or(record.from_tap.as_deref()),
        to = record.to_host.as_deref().or(record.to_tap.as_deref()),
        reported_by = record.reported_by.as_deref(),
        detected = record.detected,
        blackout_ns = record.blackout_ns,
        "migration"
    );
}
