//! What the probe shows of itself: one immutable snapshot a window.
//!
//! In: the aggregator's closed window, the counters of workers, ports and sinks. Out:
//! [`LiveSnapshot`], swapped into a [`LiveCell`] from which API, page and metrics read.
//! Cost: some 100 kB a window, a kilobyte more for each tap and way; a reader loads one pointer.
//! Invariants: every list has a bound, applied by [`LiveSnapshot::bounded`]; a published
//! snapshot is never changed; nobody who reads can make the aggregator wait.
//! Source: field names, IPFIX Information Elements in snake case where one exists; the ledger,
//! ARCHITECTURE.md.

mod migrations;
mod taps;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

pub use migrations::LiveMigration;
pub use taps::{LivePath, LivePathCounts, LiveTap, TapCounts, TapHealth};

/// Windows of totals that the page can draw.
pub const HISTORY_WINDOWS_MAX: usize = 300;
/// Conversations in a snapshot, the largest first.
pub const CONVERSATIONS_MAX: usize = 50;
/// Alerts in a snapshot, the newest first.
pub const ALERTS_MAX: usize = 200;
/// Protocols in a snapshot, the largest first.
pub const PROTOCOLS_MAX: usize = 16;
/// Workers, taps, ports and sinks in a snapshot, each.
pub const PARTS_MAX: usize = 256;
/// Ways between taps in a snapshot, those with most packets.
pub const PATHS_MAX: usize = 256;
/// Migrations in a snapshot, the latest first.
pub const MIGRATIONS_MAX: usize = 100;

/// Where the aggregator leaves the newest snapshot and the server side finds it.
pub type LiveCell = Arc<ArcSwap<LiveSnapshot>>;

/// A cell that holds `snapshot` until the first window is published.
pub fn live_cell(snapshot: LiveSnapshot) -> LiveCell {
    Arc::new(ArcSwap::from_pointee(snapshot))
}

/// Where the packets come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveMode {
    /// NIC ports; time is the clock's.
    #[default]
    Run,
    /// Capture files; time moves by packets alone.
    Replay,
}

/// All that API, page and metrics know of the probe, as of the last closed window. Counts are of
/// that window where not said otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveSnapshot {
    /// Probe id, as in every record.
    pub probe_id: String,
    /// Domain of the probe.
    pub domain: String,
    /// Version of the program.
    pub version: String,
    /// Live or replay.
    pub mode: LiveMode,
    /// Nothing comes any more: what stands here is final.
    pub ended: bool,
    /// Windows closed since the start; 0 before the first one.
    pub window_count: u64,
    /// Start of the last closed window, nanoseconds since the epoch; 0 before the first one.
    pub window_start_ns: u64,
    /// Length of a window in milliseconds.
    pub window_length_ms: u32,
    /// Sums over all traffic.
    pub totals: LiveTotals,
    /// The last windows, oldest first, at most [`HISTORY_WINDOWS_MAX`].
    pub history: Vec<HistoryPoint>,
    /// Traffic by class.
    pub by_class: ByClass,
    /// Traffic by protocol, the largest first, at most [`PROTOCOLS_MAX`].
    pub by_protocol: Vec<ProtocolShare>,
    /// The conversations with most octets, the largest first, at most [`CONVERSATIONS_MAX`].
    pub top_conversations: Vec<LiveConversation>,
    /// Alerts, the newest first, at most [`ALERTS_MAX`].
    pub alerts: Vec<LiveAlert>,
    /// The account of every packet since the start.
    pub ledger: LiveLedger,
    /// Load of each worker.
    pub workers: Vec<LiveWorker>,
    /// Health of each tap.
    pub taps: Vec<LiveTap>,
    /// One packet in so many is followed from tap to tap; `None` where none is: one tap, or
    /// `path.enabled` is off.
    pub path_sample_one_in: Option<u32>,
    /// Ways between taps that had packets in the last minutes, at most [`PATHS_MAX`].
    pub paths: Vec<LivePath>,
    /// Migrations, those that became known last first, at most [`MIGRATIONS_MAX`].
    pub migrations: Vec<LiveMigration>,
    /// Records on disk.
    pub store: LiveStore,
}

/// Sums of one window over all traffic. Rates are logical packets, duplicates taken out.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LiveTotals {
    /// Packets per second.
    pub packets_per_s: f64,
    /// IP octets per second.
    pub octets_per_s: f64,
    /// Flows in the tables of all workers at the window's end.
    pub flows_live: u64,
    /// Flows that began in the window, per second.
    pub flows_new_per_s: f64,
}

/// One window of totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HistoryPoint {
    /// Start of the window, nanoseconds since the epoch.
    pub window_start_ns: u64,
    /// Logical packets.
    pub packets: u64,
    /// IP octets.
    pub octets: u64,
    /// Flows that had a packet.
    pub flows: u64,
    /// Alerts opened.
    pub alerts: u64,
}

/// Packets and octets of a part of the traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Logical packets.
    pub packets: u64,
    /// IP octets.
    pub octets: u64,
}

/// Traffic by class, as ARCHITECTURE.md defines the classes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ByClass {
    /// Both ends in the inventory, same tenant.
    pub east_west: Volume,
    /// Both ends in the inventory, tenants differ.
    pub inter_tenant: Volume,
    /// One end outside.
    pub north_south: Volume,
    /// No end in the inventory.
    pub transit: Volume,
}

/// One protocol's part.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProtocolShare {
    /// Name of the protocol: `TCP`, `UDP`, `ICMP` …
    pub name: String,
    /// Logical packets.
    pub packets: u64,
    /// IP octets.
    pub octets: u64,
}

/// One conversation of the last window. Source is the initiator.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveConversation {
    /// Source address as text (RFC 5952).
    pub source_address: String,
    /// Destination address as text.
    pub destination_address: String,
    /// Name of the source VM, where the inventory knows it.
    pub source_virtual_station_name: Option<String>,
    /// Tenant of the source VM.
    pub source_virtual_station_tenant: Option<String>,
    /// UUID of the source VM.
    pub source_virtual_station_uuid: Option<String>,
    /// Name of the destination VM.
    pub destination_virtual_station_name: Option<String>,
    /// Tenant of the destination VM.
    pub destination_virtual_station_tenant: Option<String>,
    /// UUID of the destination VM.
    pub destination_virtual_station_uuid: Option<String>,
    /// Segment of the forward direction, `domain/kind/id`.
    pub segment: String,
    /// IANA protocol number.
    pub protocol_identifier: u8,
    /// Name of the protocol.
    pub protocol: String,
    /// Port of the responder; 0 where the protocol has none.
    pub destination_port: u16,
    /// Application, where it was recognised.
    pub application_name: Option<String>,
    /// `east_west`, `inter_tenant`, `north_south` or `transit`.
    pub traffic_class: String,
    /// Flows in the conversation.
    pub flows: u64,
    /// Logical packets from source to destination.
    pub packet_delta_count: u64,
    /// IP octets from source to destination.
    pub octet_delta_count: u64,
    /// Logical packets from destination to source.
    pub reverse_packet_delta_count: u64,
    /// IP octets from destination to source.
    pub reverse_octet_delta_count: u64,
}

/// One alert.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveAlert {
    /// Id, derived from what the alert is about.
    pub id: String,
    /// Name of the detector: `port_scan`, `syn_flood` …
    pub detector: String,
    /// `open`, `updated` or `closed`.
    pub state: String,
    /// `info`, `low`, `medium`, `high` or `critical`.
    pub severity: String,
    /// One line that says what was found.
    pub title: String,
    /// Address of the source (a scanner, an attacker), where there is one.
    pub source_address: Option<String>,
    /// Name of the source VM.
    pub source_virtual_station_name: Option<String>,
    /// Address of the destination (a victim), where there is one.
    pub destination_address: Option<String>,
    /// Name of the destination VM.
    pub destination_virtual_station_name: Option<String>,
    /// First packet of what was found, nanoseconds since the epoch.
    pub first_seen_ns: u64,
    /// Last packet of what was found.
    pub last_seen_ns: u64,
    /// The detector's statistic, in its own unit.
    pub statistic: f64,
    /// What the statistic had to pass.
    pub threshold: f64,
}

/// The account of every packet since the start:
/// `received = accounted + in_flight + Σ causes + unaccounted`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveLedger {
    /// Packets that the workers took from their sources.
    pub received: u64,
    /// Packets booked in a window.
    pub accounted: u64,
    /// Packets on their way: in open windows, held back, or in rings. Goes up and down.
    pub in_flight: u64,
    /// Accounted packets of rows that came after their window was given out.
    pub late_rows: u64,
    /// Packets that ended otherwise, by the name of the cause. See
    /// [`crate::counters::DropCause`].
    pub causes: BTreeMap<String, u64>,
    /// What is missing. Anything but 0 is a bug of the probe.
    pub unaccounted: i64,
    /// What stands before `received`: each port.
    pub nic: Vec<LivePort>,
    /// What stands after the windows: each sink of records.
    pub sinks: Vec<LiveSink>,
}

/// Packets of one port since the start, as its driver or file reader counts them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LivePort {
    /// Name of the port.
    pub port: String,
    /// Packets handed to the probe.
    pub received: u64,
    /// Packets that found the receive ring full.
    pub missed: u64,
    /// Packets with receive errors.
    pub errors: u64,
    /// Packets for which no buffer was free.
    pub no_mbuf: u64,
}

/// Records of one sink since the start: `made = delivered + queued + dropped`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveSink {
    /// Name of the sink.
    pub name: String,
    /// What it is: `parquet` for the store, else the kind of the configuration.
    pub kind: String,
    /// Records made for it.
    pub made: u64,
    /// Records it has taken.
    pub delivered: u64,
    /// Records that wait.
    pub queued: u64,
    /// Of these, those that wait on disk and outlive the program.
    pub spooled: u64,
    /// Records lost.
    pub dropped: u64,
    /// `ok`, or in one word what is wrong: `disk_full`, `not_writable`, `failing`; `retired` where it was
    /// taken away while the probe runs, however it did.
    pub state: String,
    /// What is wrong, for people; `None` where nothing is, and for the store.
    pub problem: Option<String>,
}

/// One worker. Counts are since the start, rates of the last window.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveWorker {
    /// Number of the worker.
    pub worker: u16,
    /// CPU core it is pinned to, if it is.
    pub core: Option<u16>,
    /// Port it reads; `None` where it only owns flows.
    pub port: Option<String>,
    /// Queue of that port.
    pub queue: Option<u16>,
    /// Packets taken per second, before any is sorted out.
    pub packets_per_s: f64,
    /// Share of its turns that had packets, 0–100.
    pub busy_percent: f64,
    /// Flows in its table.
    pub flows: u64,
    /// Flows that its table can hold.
    pub flow_slots: u64,
    /// Fill of its receive ring, the highest of the window, 0–100.
    pub ring_fill_percent: f64,
    /// Packets that other workers passed to it.
    pub spread_in: u64,
    /// Packets that it passed to other workers.
    pub spread_out: u64,
    /// Share of flows left out because of overload, 0–1.
    pub shed_rate: f64,
    /// Packets that came after their own window was closed.
    pub late_packets: u64,
    /// Fragments that went on without ports.
    pub fragments_unresolved: u64,
    /// Records of ended flows lost because the aggregator did not keep up.
    pub flow_records_lost: u64,
    /// Flows that left for lack of room.
    pub flows_evicted: u64,
    /// Digests forgotten before their time, so that a copy may count twice.
    pub digests_evicted: u64,
    /// Packets no longer followed between taps, because their place was needed.
    pub path_evicted: u64,
    /// Packets followed without looking for evidence, and flows forgotten too early for it.
    pub path_unwatched: u64,
    /// Segments that were not compared with all packets of their flow that wait for evidence.
    pub path_walks_cut: u64,
}

/// The records on disk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveStore {
    /// Folder; `None` where nothing is written.
    pub folder: Option<String>,
    /// `ok`, `off`, or in one word what is wrong: `disk_full`, `not_writable` …
    pub state: String,
    /// A command that reads the records.
    pub query_example: Option<String>,
    /// Bytes of this probe's files when they were last counted, every five minutes; `None` before.
    pub stored_bytes: Option<u64>,
    /// Small files that were merged into larger ones.
    pub merged_files: u64,
    /// Records removed by retention, by why.
    pub removed_records: BTreeMap<&'static str, u64>,
}

impl LiveSnapshot {
    /// Cuts every list to its bound; the aggregator calls it before it publishes. Lists are
    /// expected in the order that their fields state.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let surplus = self.history.len().saturating_sub(HISTORY_WINDOWS_MAX);
        self.history.drain(..surplus);
        self.by_protocol.truncate(PROTOCOLS_MAX);
        self.top_conversations.truncate(CONVERSATIONS_MAX);
        self.alerts.truncate(ALERTS_MAX);
        self.workers.truncate(PARTS_MAX);
        self.taps.truncate(PARTS_MAX);
        self.paths.truncate(PATHS_MAX);
        self.migrations.truncate(MIGRATIONS_MAX);
        self.ledger.nic.truncate(PARTS_MAX);
        self.ledger.sinks.truncate(PARTS_MAX);
        self
    }
}

/// The last windows of totals, kept by the aggregator.
#[derive(Clone, Debug)]
pub struct LiveHistory {
    points: VecDeque<HistoryPoint>,
}

impl Default for LiveHistory {
    fn default() -> Self {
        Self { points: VecDeque::with_capacity(HISTORY_WINDOWS_MAX) }
    }
}

impl LiveHistory {
    /// Adds the window just closed; beyond [`HISTORY_WINDOWS_MAX`] the oldest leaves. A window
    /// that is there already gets the new totals; one older than all is left out.
    pub fn push(&mut self, point: HistoryPoint) {
        let place = self.points.partition_point(|old| old.window_start_ns < point.window_start_ns);
        let full = self.points.len() == HISTORY_WINDOWS_MAX;
        match self.points.get_mut(place) {
            Some(old) if old.window_start_ns == point.window_start_ns => *old = point,
            _ if full && place == 0 => {}
            _ if full => {
                self.points.pop_front();
                self.points.insert(place - 1, point);
            }
            _ => self.points.insert(place, point),
        }
    }

    /// The windows, oldest first.
    pub fn to_vec(&self) -> Vec<HistoryPoint> {
        self.points.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(window_start_ns: u64) -> HistoryPoint {
        HistoryPoint { window_start_ns, packets: window_start_ns, ..HistoryPoint::default() }
    }

    #[test]
    fn history_keeps_the_newest_in_order() {
        let mut history = LiveHistory::default();
        for start in (10..).take(HISTORY_WINDOWS_MAX + 5) {
            history.push(at(start));
        }
        let points = history.to_vec();
        assert_eq!(points.len(), HISTORY_WINDOWS_MAX);
        assert_eq!(points.first().map(|point| point.window_start_ns), Some(15));
        assert!(points.is_sorted_by_key(|point| point.window_start_ns));
    }

    #[test]
    fn history_books_a_late_window_in_its_place() {
        let mut history = LiveHistory::default();
        for start in [1, 3, 2, 3] {
            history.push(HistoryPoint { flows: 7, ..at(start) });
        }
        let starts: Vec<_> = history.to_vec().iter().map(|point| point.window_start_ns).collect();
        assert_eq!(starts, [1, 2, 3]);
    }

    #[test]
    fn full_history_refuses_what_is_older_than_all() {
        let mut history = LiveHistory::default();
        for start in (10..).take(HISTORY_WINDOWS_MAX) {
            history.push(at(start));
        }
        history.push(at(1));
        assert_eq!(history.to_vec().first().map(|point| point.window_start_ns), Some(10));
    }

    #[test]
    fn lists_are_cut_to_their_bounds() {
        let snapshot = LiveSnapshot {
            history: (0..).map(at).take(HISTORY_WINDOWS_MAX + 1).collect(),
            top_conversations: vec![LiveConversation::default(); CONVERSATIONS_MAX + 1],
            alerts: vec![LiveAlert::default(); ALERTS_MAX + 1],
            migrations: vec![LiveMigration::default(); MIGRATIONS_MAX + 1],
            workers: vec![LiveWorker::default(); PARTS_MAX + 1],
            ..LiveSnapshot::default()
        }
        .bounded();
        assert_eq!(snapshot.history.first().map(|point| point.window_start_ns), Some(1));
        assert_eq!(snapshot.top_conversations.len(), CONVERSATIONS_MAX);
        assert_eq!(snapshot.alerts.len(), ALERTS_MAX);
        assert_eq!(snapshot.migrations.len(), MIGRATIONS_MAX);
        assert_eq!(snapshot.workers.len(), PARTS_MAX);
    }
}
