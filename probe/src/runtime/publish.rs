//! What the page shows and the log says of each window.
//!
//! In: views, records, totals of workers, ports and sinks. Out: [`LiveSnapshot`]s, log lines.
//! Cost: one snapshot a window; the page reads it without a lock.

mod migrations;
mod recent;
mod shares;
mod taps;

pub(super) use shares::Shares;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::aggregate::live::{
    ALERTS_MAX, HistoryPoint, LiveAlert, LiveCell, LiveHistory, LiveLedger, LiveMigration,
    LiveMode, LivePort, LiveSink, LiveSnapshot, LiveStore, LiveTap, LiveTotals, LiveWorker,
    MIGRATIONS_MAX,
};
use crate::aggregate::path::PathView;
use crate::aggregate::{Aggregator, TapView, WindowView};
use crate::counters::{DropCause, WorkerTotals};
use crate::export::{SinkCause, SinkHealth, SinkLedger, SinkReport};
use crate::record::{AlertRecord, MigrationRecord, RecordMaker, TapRecord};
use crate::store::StoreReport;
use crate::time::Timestamp;

use super::analysis::ClockOf;
use taps::{Taps, Ways};

/// What a worker is, beside its counts.
#[derive(Clone, Debug, Default)]
pub struct WorkerPlace {
    /// Core it is pinned to.
    pub core: Option<u16>,
    /// Port it reads.
    pub port: Option<String>,
    /// Queue of that port.
    pub queue: Option<u16>,
}

impl WorkerPlace {
    /// `port/queue`, or the worker's number where it reads none.
    fn name(&self, number: usize) -> String {
        match (&self.port, self.queue) {
            (Some(port), Some(queue)) => format!("{port}/{queue}"),
            _ => format!("worker-{number}"),
        }
    }
}

/// What stands beside a view: asked for once a window, so that all that is shown of it agrees.
pub struct Beside {
    /// Counters of the ports.
    pub ports: Vec<LivePort>,
    /// How the store does; `None` where no records are written.
    pub store: Option<StoreReport>,
    /// How the other sinks do.
    pub sinks: Vec<SinkReport>,
    /// Alerts opened so far.
    pub alerts_opened: u64,
}

/// Where the publisher asks for what is not in a view.
pub struct PublisherParts {
    /// The cell that page, API and metrics read.
    pub live: LiveCell,
    /// The snapshot's fixed part.
    pub base: LiveSnapshot,
    /// Live or replay.
    pub mode: LiveMode,
    /// Slots of each worker's flow table.
    pub flow_slots: u64,
    /// Where each worker stands.
    pub places: Vec<WorkerPlace>,
    /// Counters of the ports now.
    pub ports: Box<dyn Fn() -> Vec<LivePort> + Send>,
    /// Clock of a tap now.
    pub clock_of: ClockOf,
    /// Folder of the records.
    pub folder: Option<String>,
}

/// Makes snapshots and log lines.
pub struct Publisher {
    parts: PublisherParts,
    worker_names: Vec<String>,
    history: LiveHistory,
    alerts: VecDeque<LiveAlert>,
    alerts_opened: u64,
    migrations: VecDeque<LiveMigration>,
    workers_before: Vec<WorkerTotals>,
    taps: Taps,
    ways: Ways,
    /// Start of the last window.
    newest: Timestamp,
}

impl Publisher {
    /// With nothing seen yet.
    pub fn new(parts: PublisherParts) -> Self {
        let names = parts.places.iter().enumerate();
        let length_ms = parts.base.window_length_ms;
        Self {
            taps: Taps::new(length_ms),
            ways: Ways::new(length_ms),
            newest: Timestamp::ZERO,
            worker_names: names.map(|(number, place)| place.name(number)).collect(),
            parts,
            history: LiveHistory::default(),
            alerts: VecDeque::new(),
            alerts_opened: 0,
            migrations: VecDeque::new(),
            workers_before: Vec::new(),
        }
    }

    /// Counters of the ports now.
    pub fn ports(&self) -> Vec<LivePort> {
        (self.parts.ports)()
    }

    /// Names of the workers in records, by number.
    pub fn worker_names(&self) -> &[String] {
        &self.worker_names
    }

    /// One line a window: the account. In a replay only where something is missing, because its
    /// windows pass in no time.
    pub fn log_ledger(&self, view: &WindowView) {
        let ledger = &view.ledger;
        if ledger.unaccounted != 0 {
            tracing::error!(
                window = view.start.0,
                unaccounted = ledger.unaccounted,
                "the ledger does not add up: this is a bug"
            );
        }
        if self.parts.mode == LiveMode::Run {
            let causes: BTreeMap<_, _> =
                ledger.causes.iter().map(|(cause, packets)| (cause.name(), packets)).collect();
            tracing::info!(
                window = view.start.0,
                received = ledger.received,
                accounted = ledger.accounted,
                in_flight = ledger.in_flight,
                ?causes,
                unaccounted = ledger.unaccounted,
                "ledger"
            );
        }
    }

    /// One line a change of an alert.
    pub fn log_alert(&mut self, record: &AlertRecord) {
        if self.parts.mode == LiveMode::Run {
            tracing::warn!(
                id = &*record.alert_id,
                state = record.state,
                severity = record.severity,
                statistic = %format_args!("{:.2}", record.statistic),
                "{}",
                record.title
            );
        }
        self.alerts.retain(|alert| *alert.id != *record.alert_id);
        self.alerts.push_front(live_alert(record));
        self.alerts.truncate(ALERTS_MAX);
    }

    /// The taps in a window that is about to be shown; `records` are those of its taps.
    pub fn taps(&mut self, view: &WindowView, records: &[TapRecord]) {
        self.taps.window(view, records);
    }

    /// The packets between taps of a window have their verdicts; shown with the next window.
    pub fn paths(&mut self, view: &PathView) {
        self.ways.window(view);
    }

    /// A migration became known; shown with the next window.
    pub fn migration(&mut self, record: &MigrationRecord) {
        if self.parts.mode == LiveMode::Run {
            migrations::log(record);
        }
        self.migrations.push_front(migrations::live(record));
        self.migrations.truncate(MIGRATIONS_MAX);
    }

    /// A window was closed.
    pub fn window(
        &mut self,
        view: &WindowView,
        shares: Shares,
        aggregator: &Aggregator,
        beside: &Beside,
        maker: &mut RecordMaker,
    ) {
        let seconds = f64::from(self.parts.base.window_length_ms) / 1_000.0;
        let mut snapshot = self.parts.base.clone();
        snapshot.mode = self.parts.mode;
        snapshot.window_count = self.parts.live.load().window_count + 1;
        snapshot.window_start_ns = view.start.0;
        let Shares { packets, octets, flows, .. } = shares;
        let workers: Vec<WorkerTotals> = aggregator.workers().copied().collect();
        let created =
            |workers: &[WorkerTotals]| workers.iter().map(|it| it.flows_created).sum::<u64>();
        let begun = created(&workers).saturating_sub(created(&self.workers_before));
        snapshot.totals = LiveTotals {
            packets_per_s: float(packets) / seconds,
            octets_per_s: float(octets) / seconds,
            flows_live: workers.iter().map(|worker| worker.flows_live).sum(),
            flows_new_per_s: float(begun) / seconds,
        };
        self.history.push(HistoryPoint {
            window_start_ns: view.start.0,
            packets,
            octets,
            flows,
            alerts: beside.alerts_opened.saturating_sub(self.alerts_opened),
        });
        self.alerts_opened = beside.alerts_opened;
        snapshot.history = self.history.to_vec();
        snapshot.by_class = shares.by_class;
        snapshot.by_protocol = shares.by_protocol();
        snapshot.top_conversations = shares.top_conversations();
        snapshot.alerts = self.alerts.iter().cloned().collect();
        let store = beside.store.as_ref();
        let store = store.map(|store| live_store(&store.ledger, health_name(&store.health)));
        let sinks = store.into_iter().chain(beside.sinks.iter().map(SinkReport::live));
        snapshot.ledger = ledger(aggregator, beside.ports.clone(), sinks.collect());
        snapshot.workers = self.workers(&workers, seconds);
        snapshot.taps = self.live_taps(aggregator, maker);
        self.newest = self.newest.max(view.start);
        snapshot.paths = self.ways.live(self.newest, maker.names());
        snapshot.migrations = self.migrations.iter().cloned().collect();
        snapshot.store = self.store(beside.store.as_ref());
        self.workers_before = workers;
        self.parts.live.store(Arc::new(snapshot.bounded()));
    }

    /// After the last window: the final account.
    pub fn last(
        &mut self,
        aggregator: &Aggregator,
        maker: &mut RecordMaker,
        sink: Option<&SinkLedger>,
        sinks: &[SinkReport],
    ) {
        let mut snapshot = LiveSnapshot::clone(&self.parts.live.load());
        snapshot.ended = true;
        snapshot.paths = self.ways.live(self.newest, maker.names());
        snapshot.migrations = self.migrations.iter().cloned().collect();
        snapshot.alerts = self.alerts.iter().cloned().collect();
        if sink.is_some_and(|sink| sink.dropped(SinkCause::UndeliveredAtEnd) == 0) {
            "ok".clone_into(&mut snapshot.store.state);
        }
        let store = sink.map(|sink| live_store(sink, &snapshot.store.state));
        let sinks = store.into_iter().chain(sinks.iter().map(SinkReport::live));
        snapshot.ledger = ledger(aggregator, self.ports(), sinks.collect());
        self.parts.live.store(Arc::new(snapshot.bounded()));
    }

    fn workers(&self, workers: &[WorkerTotals], seconds: f64) -> Vec<LiveWorker> {
        let nothing = WorkerTotals::default();
        let somewhere = WorkerPlace::default();
        (0_u16..)
            .zip(workers)
            .map(|(number, worker)| {
                let before = self.workers_before.get(usize::from(number)).unwrap_or(&nothing);
                let place = self.parts.places.get(usize::from(number)).unwrap_or(&somewhere);
                let turns = worker.turns[0].saturating_sub(before.turns[0]).max(1);
                let busy = worker.turns[1].saturating_sub(before.turns[1]);
                let taken = worker.received_packets.saturating_sub(before.received_packets);
                LiveWorker {
                    worker: number,
                    core: place.core,
                    port: place.port.clone(),
                    queue: place.queue,
                    packets_per_s: float(taken) / seconds,
                    busy_percent: 100.0 * float(busy) / float(turns),
                    flows: worker.flows_live,
                    flow_slots: self.parts.flow_slots,
                    ring_fill_percent: worker.ring_fill_percent.map_or(0.0, f64::from),
                    spread_in: worker.spread_in_packets,
                    spread_out: worker.spread_out_packets,
                    shed_rate: 1.0 - f64::from(worker.sampling_rate),
                    late_packets: worker.late_packets,
                    fragments_unresolved: worker.fragments_unresolved,
                    flow_records_lost: worker.flow_records_lost,
                    flows_evicted: worker.flows_evicted.iter().sum(),
                    digests_evicted: worker.digests_evicted,
                    path_evicted: worker.path_evicted,
                    path_unwatched: worker.path_unwatched,
                    path_walks_cut: worker.path_walks_cut,
                }
            })
            .collect()
    }

    fn live_taps(&self, aggregator: &Aggregator, maker: &mut RecordMaker) -> Vec<LiveTap> {
        TapView::differences(&aggregator.taps(), &[])
            .iter()
            .map(|tap| self.taps.live(tap, (self.parts.clock_of)(tap), maker.names()))
            .collect()
    }

    fn store(&self, store: Option<&StoreReport>) -> LiveStore {
        let state = store.map_or("off", |store| health_name(&store.health));
        let query_example = self.parts.folder.as_ref().map(|folder| {
            format!(
                "vmprobe query --data {folder} 'SELECT source_virtual_station_name, \
                 sum(octet_delta_count) FROM windows GROUP BY 1 ORDER BY 2 DESC LIMIT 10'"
            )
        });
        let upkeep = store.map(|store| store.upkeep.clone()).unwrap_or_default();
        LiveStore {
            folder: self.parts.folder.clone(),
            state: state.to_owned(),
            query_example,
            stored_bytes: upkeep.stored_bytes,
            merged_files: upkeep.merged_files,
            removed_records: BTreeMap::from([
                ("age", upkeep.removed_by_age.records),
                ("size", upkeep.removed_by_size.records),
            ]),
        }
    }
}

fn ledger(aggregator: &Aggregator, nic: Vec<LivePort>, sinks: Vec<LiveSink>) -> LiveLedger {
    let totals = aggregator.ledger();
    let named = |(cause, packets): (DropCause, u64)| (cause.name().to_owned(), packets);
    LiveLedger {
        received: totals.received,
        accounted: totals.accounted,
        in_flight: totals.in_flight,
        late_rows: aggregator.late_rows_packets(),
        causes: totals.causes.iter().map(named).collect(),
        unaccounted: totals.unaccounted,
        nic,
        sinks,
    }
}

/// The short name of a protocol.
pub(super) fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        2 => "IGMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        47 => "GRE".to_owned(),
        50 => "ESP".to_owned(),
        58 => "ICMPv6".to_owned(),
        89 => "OSPF".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("IP {other}"),
    }
}

fn live_alert(record: &AlertRecord) -> LiveAlert {
    LiveAlert {
        id: record.alert_id.to_string(),
        detector: record.detector.to_string(),
        state: record.state.to_owned(),
        severity: record.severity.to_owned(),
        title: record.title.to_string(),
        source_address: record.source_address.map(|address| address.to_string()),
        source_virtual_station_name: record
            .source_virtual_station_name
            .as_deref()
            .map(ToOwned::to_owned),
        destination_address: record.destination_address.map(|address| address.to_string()),
        destination_virtual_station_name: record
            .destination_virtual_station_name
            .as_deref()
            .map(ToOwned::to_owned),
        first_seen_ns: record.first_seen_ns,
        last_seen_ns: record.last_seen_ns,
        statistic: record.statistic,
        threshold: record.threshold,
    }
}

fn live_store(ledger: &SinkLedger, state: &str) -> LiveSink {
    LiveSink { state: state.to_owned(), ..ledger.live("parquet", "parquet") }
}

fn health_name(health: &SinkHealth) -> &'static str {
    match health {
        SinkHealth::Ok => "ok",
        SinkHealth::Failing { full: true, .. } => "disk_full",
        SinkHealth::Failing { .. } => "not_writable",
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates for people; counts are far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}
