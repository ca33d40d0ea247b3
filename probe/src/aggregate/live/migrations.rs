//! What the probe shows of migrations.
//!
//! In: records. Out: a part of a [`super::LiveSnapshot`].
//! Invariants: what is not known or not measured is `None`, never 0.
//! Source: the definitions, docs/measures.md.

use serde::Serialize;

/// A VM went to another host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LiveMigration {
    /// When: as reported, else that of the first packet at the new tap; nanoseconds since the epoch.
    pub time_ns: u64,
    /// UUID of the VM, where the inventory knows it.
    pub virtual_station_uuid: Option<String>,
    /// Its name.
    pub virtual_station_name: Option<String>,
    /// Its tenant.
    pub virtual_station_tenant: Option<String>,
    /// The source that reports it; `None` where only traffic shows it.
    pub reported_by: Option<String>,
    /// Traffic shows it: the VM sends at another tap than before.
    pub detected: bool,
    /// Host before.
    pub from_host: Option<String>,
    /// Host after.
    pub to_host: Option<String>,
    /// Tap before, where traffic shows it.
    pub from_tap: Option<String>,
    /// Tap after.
    pub to_tap: Option<String>,
    /// Segment of its address, `domain/kind/id`.
    pub segment: Option<String>,
    /// Its address, the least if it has several.
    pub address: Option<String>,
    /// MAC address of that interface.
    pub mac: Option<String>,
    /// When it was seen to send last before.
    pub last_seen_ns: Option<u64>,
    /// When it was seen to send first after.
    pub first_seen_ns: Option<u64>,
    /// The silence between the two.
    pub blackout_ns: Option<u64>,
    /// By how much that may be off because of the two taps' clocks.
    pub blackout_clock_bound_ns: Option<u64>,
    /// Endpoints that it sent to before and after.
    pub peer_count: Option<u64>,
    /// The blackout is an estimate, because not all packets are followed.
    pub estimate: bool,
}
