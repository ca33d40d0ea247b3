//! The aggregation thread: windows to views, detectors, records and the page.
//!
//! In: what workers hand over. Out: records to the store, snapshots to the page, a line in the
//! log each window, a [`RunSummary`] at the end.
//! Cost: one thread; sleeps a millisecond when there is nothing to do.
//! Invariants: with files it waits for the store, live it never does and counts what it could not
//! hand over.

use crate::aggregate::{Aggregator, LedgerTotals, TapView, WindowView};
use crate::counters::WorkerTotals;
use crate::detect::{Alert, Detectors};
use crate::export::SinkLedger;
use crate::record::{
    AlertRecord, RecordMaker, Rows, TapClock, WindowRecord, port_rows, sink_rows, workers_rows,
};
use crate::store::StoreHandle;
use crate::time::{Timestamp, sleep_ms};

use super::publish::Publisher;

/// Conversations kept for the summary.
const TOP_CONVERSATIONS: usize = 1_024;

/// What a run came to.
#[derive(Debug, Default)]
pub struct RunSummary {
    /// Windows with traffic.
    pub windows: u64,
    /// Biflows begun.
    pub flows: u64,
    /// Alerts opened.
    pub alerts: u64,
    /// The account at the end.
    pub ledger: LedgerTotals,
    /// Each worker's totals at the end.
    pub workers: Vec<WorkerTotals>,
    /// The account of the records; `None` where none are written.
    pub sink: Option<SinkLedger>,
    /// Every alert as it stood last, in order of opening.
    pub alert_records: Vec<AlertRecord>,
    /// Conversations over the whole run, the largest first: (source, destination, protocol, port)
    /// as texts, with octets of both directions.
    pub top: Vec<(String, u64)>,
}

/// The thread's state.
pub struct Analysis {
    aggregator: Aggregator,
    detectors: Detectors,
    maker: RecordMaker,
    store: Option<StoreHandle>,
    publisher: Publisher,
    clock_of: Box<dyn Fn(&TapView) -> TapClock + Send>,
    waits: bool,
    summary: RunSummary,
    top: std::collections::HashMap<String, u64>,
    latest: Timestamp,
}

impl Analysis {
    /// `waits`: the sources are files, so the store is waited for.
    pub fn new(
        aggregator: Aggregator,
        detectors: Detectors,
        maker: RecordMaker,
        store: Option<StoreHandle>,
        publisher: Publisher,
        clock_of: Box<dyn Fn(&TapView) -> TapClock + Send>,
        waits: bool,
    ) -> Self {
        Self {
            aggregator,
            detectors,
            maker,
            store,
            publisher,
            clock_of,
            waits,
            summary: RunSummary::default(),
            top: std::collections::HashMap::new(),
            latest: Timestamp::ZERO,
        }
    }

    /// Runs until all workers have ended and all is handed on.
    pub fn run(mut self) -> RunSummary {
        loop {
            let any = self.aggregator.collect();
            while let Some(view) = self.aggregator.next_view() {
                self.window(&view);
            }
            self.hand_on_flows();
            if self.aggregator.has_ended() {
                break;
            }
            if !any {
                sleep_ms(1);
            }
        }
        self.finish()
    }

    fn window(&mut self, view: &WindowView) {
        self.latest = self.latest.max(view.end);
        self.publisher.log_ledger(view);
        let alerts = self.detectors.observe(view);
        let mut rows = self.maker.window(view, &self.clock_of);
        rows.alerts = self.alert_records(&alerts);
        if !self.waits {
            // Ports and sinks count by the wall clock, so a replay, which is repeatable, leaves
            // them to its report.
            rows.ledger.extend(workers_rows(view));
            rows.ledger.extend(port_rows(view.start, &self.publisher.ports()));
            if let Some(store) = &self.store {
                rows.ledger.extend(sink_rows(view.start, "parquet", &store.report().ledger));
            }
        }
        if !view.conversations.is_empty() {
            self.summary.windows += 1;
        }
        self.note_top(&rows.windows);
        let (store, opened) = (self.store.as_ref(), self.detectors.opened_alerts());
        self.publisher.window(view, &rows, &self.aggregator, store, opened, &mut self.maker);
        self.hand_on(rows);
    }

    fn alert_records(&mut self, alerts: &[Alert]) -> Vec<AlertRecord> {
        let records = self.maker.alerts(alerts).alerts;
        for record in &records {
            self.publisher.log_alert(record);
            let known = &mut self.summary.alert_records;
            match known.iter_mut().find(|known| known.alert_id == record.alert_id) {
                Some(known) => *known = record.clone(),
                None => known.push(record.clone()),
            }
        }
        records
    }

    fn note_top(&mut self, conversations: &[WindowRecord]) {
        for record in conversations {
            let octets = record.octet_delta_count + record.reverse_octet_delta_count;
            let line = conversation_line(record);
            if let Some(sum) = self.top.get_mut(&line) {
                *sum += octets;
            } else if self.top.len() < 16 * TOP_CONVERSATIONS {
                self.top.insert(line, octets);
            }
        }
    }

    fn hand_on_flows(&mut self) {
        let flows = self.aggregator.take_ended_flows();
        if !flows.is_empty() && self.store.is_some() {
            let rows = self.maker.flows(&flows);
            self.hand_on(rows);
        }
    }

    fn hand_on(&self, rows: Rows) {
        let Some(store) = &self.store else { return };
        if self.waits {
            store.send_waiting(rows, self.latest);
        } else {
            store.send_or_count(rows, self.latest);
        }
    }

    fn finish(mut self) -> RunSummary {
        let closed = self.detectors.finish();
        let alerts = self.alert_records(&closed);
        self.hand_on(Rows { alerts, ..Rows::default() });
        self.summary.alerts = self.detectors.opened_alerts();
        self.summary.ledger = self.aggregator.ledger();
        self.summary.workers = self.aggregator.workers().copied().collect();
        self.summary.flows = self.aggregator.workers().map(|worker| worker.flows_created).sum();
        let mut top: Vec<_> = self.top.into_iter().collect();
        top.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        top.truncate(TOP_CONVERSATIONS);
        self.summary.top = top;
        if let Some(store) = self.store {
            let ledger = store.finish();
            self.publisher.last(&self.aggregator, &ledger);
            self.summary.sink = Some(ledger);
        } else {
            self.publisher.last(&self.aggregator, &SinkLedger::default());
        }
        self.summary
    }
}

/// `web-1 (10.0.0.5) → db-1 (10.0.0.9) tcp/5432`.
fn conversation_line(record: &WindowRecord) -> String {
    let who = |name: &Option<std::sync::Arc<str>>,
               tenant: &Option<std::sync::Arc<str>>,
               address| match (name, tenant) {
        (Some(name), Some(tenant)) => format!("{tenant}/{name} ({address})"),
        _ => format!("{address}"),
    };
    let source = who(
        &record.source_virtual_station_name,
        &record.source_virtual_station_tenant,
        record.source_address,
    );
    let destination = who(
        &record.destination_virtual_station_name,
        &record.destination_virtual_station_tenant,
        record.destination_address,
    );
    let protocol = super::publish::protocol_name(record.protocol_identifier);
    format!("{source} → {destination} {protocol}/{}", record.destination_port)
}
