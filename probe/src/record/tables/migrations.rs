//! Columns of `migrations`.
//!
//! In: nothing. Out: [`MigrationRecord`].
//! Invariants: as of all tables.
//! Source: docs/measures.md, "Migrations".

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Rows, Table};
use crate::decode::Mac;
use crate::record::column::{Column, ColumnBuilder, Element, Value};
use crate::record::schema::Record;
use crate::time::Timestamp;

record! {
    /// Migrations: a VM went to another host, as a source of the inventory reports it, as the traffic
    /// shows it (the same MAC and IP address sends at another tap), or both.
    Migrations as migrations: MigrationRecord
    by time_ns, sorted by time_ns virtual_station_uuid address_space address mac
    {
        /// When it happened, since the epoch, UTC: as reported, else that of the first packet at the new
        /// tap.
        time_ns: u64, "ns", Element::None;
        /// The VM, as known when the record was made; null where the inventory names none, as the two
        /// that follow.
        virtual_station_uuid: Option<Arc<str>>, "uuid", Element::Ie(&[349]);
        /// Name of that VM.
        virtual_station_name: Option<Arc<str>>, "", Element::Ie(&[350]);
        /// Tenant of that VM.
        virtual_station_tenant: Option<Arc<str>>, "", Element::None;
        /// The source that reports it, by its name: file, api, ovsdb:host1 …; null where only traffic
        /// shows it.
        reported_by: Option<Arc<str>>, "", Element::None;
        /// Traffic shows it: the VM sends at another tap than before.
        detected: bool, "", Element::None;
        /// Host before: as reported, else that of the tap; null where not known.
        from_host: Option<Arc<str>>, "", Element::None;
        /// Host after, likewise.
        to_host: Option<Arc<str>>, "", Element::None;
        /// Tap next to it before; null where traffic does not show the migration.
        from_tap: Option<Arc<str>>, "", Element::None;
        /// Tap next to it after, likewise.
        to_tap: Option<Arc<str>>, "", Element::None;
        /// Address space of the address; null where not known.
        address_space: Option<Arc<str>>, "", Element::None;
        /// Segment of the address; null where not known.
        segment: Option<Arc<str>>, "domain/kind/id", Element::None;
        /// Its address, the least if it has several; null where not known.
        address: Option<IpAddr>, "RFC 5952", Element::None;
        /// MAC address of its interface; null where not known.
        mac: Option<Mac>, "aa:bb:cc:dd:ee:ff", Element::None;
        /// When it was seen to send last before, by the clock of the tap before; null where packets are
        /// not followed between taps, or too few were seen.
        last_seen_ns: Option<u64>, "ns", Element::None;
        /// When it was seen to send first after, by the clock of the tap after; null likewise.
        first_seen_ns: Option<u64>, "ns", Element::None;
        /// The silence between the two, the longest around the event: at least as long as the VM stood
        /// still; null likewise.
        blackout_ns: Option<u64>, "ns", Element::None;
        /// By how much the blackout may be off because of the two taps' clocks; null where the clocks were
        /// not compared, or no tap changed.
        blackout_clock_bound_ns: Option<u64>, "ns", Element::None;
        /// Endpoints that it sent to before and after, at most 64; null where traffic does not show the
        /// migration.
        peer_count: Option<u64>, "endpoints", Element::None;
        /// Share of packets whose times are known, 0–1 (`path.sample_one_in`).
        sampling_probability: f64, "", Element::Ie(&[311]);
        /// The blackout is an estimate, too long by a few times the distance between packets that are
        /// followed, because not all are.
        estimate: bool, "", Element::None;
    }
}
