//! The aggregation thread: windows to views, detectors, records and the page.
//!
//! In: what workers hand over. Out: records to the store, snapshots to the page, a line in the
//! log each window, a [`RunSummary`] at the end.
//! Cost: one thread; sleeps a millisecond when there is nothing to do.
//! Invariants: with files it waits for the store. Live it never does while packets come, and counts
//! what it could not hand over; once the workers are told to end it waits [`END_WAIT_NS`] in all,
//! so that the end keeps its records and still comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::aggregate::live::LivePort;
use crate::aggregate::{Aggregator, LedgerTotals, TapView, WindowView};
use crate::counters::WorkerTotals;
use crate::detect::{Alert, Detectors};
use crate::export::{SinkLedger, SinkReport, Sinks};
use crate::record::{
    AlertRecord, AppRecord, FlowRecord, LedgerRecord, REST_BATCHES_MAX, RecordMaker, Rows,
    TapClock, WindowRecord, app_messages, migrations_lost, port_rows, sink_rows, workers_rows,
};
use crate::sources::learned::LearningInStep;
use crate::store::{Patience, StoreHandle};
use crate::time::{Timestamp, monotonic_ns, ms};

use super::publish::{Beside, Publisher, Shares};
use super::rest::Rest;
use super::summary::{LastAlerts, TopConversations, TopSums};

/// Flow records that wait for a window's rows at most; more go as a batch of their own.
const FLOWS_WAITING_MAX: usize = 8_192;

/// Conversations that become records in one go; live, the workers are heard between two: what they
/// hand over in the meantime must find room.
pub(super) const PART_CONVERSATIONS: usize = 4_096;

/// Records of conversations in a batch to the store: those of one group of rows in a file. A larger
/// window goes as several batches, so that no more of it is in memory than the store has room for.
pub(super) const BATCH_RECORDS: usize = 32_768;

/// How long the end of a live run waits for the store in all.
const END_WAIT_NS: u64 = ms(10_000);

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
    /// How the other sinks ended.
    pub sinks: Vec<SinkReport>,
    /// The last alerts as they stood last, in order of opening; [`RunSummary::alerts`] counts all.
    pub alert_records: Vec<AlertRecord>,
    /// The largest conversations over the whole run.
    pub top: TopConversations,
}

/// Where a tap's times come from, by what is known now.
pub type ClockOf = Arc<dyn Fn(&TapView) -> TapClock + Send + Sync>;

/// What the thread works with.
pub struct AnalysisParts {
    /// Takes from the workers.
    pub aggregator: Aggregator,
    /// Look at views.
    pub detectors: Detectors,
    /// Makes records.
    pub maker: RecordMaker,
    /// Takes records; `None` where none are written.
    pub store: Option<StoreHandle>,
    /// Take records too.
    pub sinks: Sinks,
    /// Shows.
    pub publisher: Publisher,
    /// Clock of a tap.
    pub clock_of: ClockOf,
    /// The sources are files, so the store is waited for.
    pub waits: bool,
    /// Set when the workers are told to end.
    pub ending: Arc<AtomicBool>,
    /// What packets of files show of who has which address.
    pub learning: Option<LearningInStep>,
}

impl AnalysisParts {
    /// Whether nobody takes records.
    fn takes_none(&self) -> bool {
        self.store.is_none() && self.sinks.is_empty()
    }
}

/// The thread's state.
pub struct Analysis {
    parts: AnalysisParts,
    /// Records of ended flows that go with the next window.
    flows: Vec<FlowRecord>,
    /// Records of older windows that go with the next one.
    late: Vec<WindowRecord>,
    /// Records of transactions that go with the next window.
    apps: Vec<AppRecord>,
    /// Messages that were lost, or were none.
    app_messages: [u64; 2],
    /// The clock at the last packet of any of them.
    flows_heard: Timestamp,
    alerts: LastAlerts,
    top: TopSums,
    windows: u64,
    latest: Timestamp,
    /// Until when the end of a live run waits; `None` before that.
    patient_until_ns: Option<u64>,
    ports_before: Vec<LivePort>,
    sink_before: SinkLedger,
    sinks_before: Vec<SinkReport>,
}

impl Analysis {
    /// With nothing seen yet.
    pub fn new(parts: AnalysisParts) -> Self {
        Self {
            parts,
            flows: Vec::new(),
            late: Vec::new(),
            apps: Vec::new(),
            app_messages: [0; 2],
            flows_heard: Timestamp::ZERO,
            alerts: LastAlerts::default(),
            top: TopSums::default(),
            windows: 0,
            latest: Timestamp::ZERO,
            patient_until_ns: None,
            ports_before: Vec::new(),
            sink_before: SinkLedger::default(),
            sinks_before: Vec::new(),
        }
    }

    /// Runs until all workers have ended and all is handed on.
    pub fn run(mut self) -> RunSummary {
        let mut rest = Rest::default();
        loop {
            let more = self.parts.aggregator.collect();
            self.learn();
            self.collect_flows();
            while let Some(view) = self.parts.aggregator.next_view() {
                self.window(&view);
                self.parts.aggregator.recycle(view);
                self.paths();
            }
            if self.parts.aggregator.has_ended() {
                break;
            }
            rest.after(more);
        }
        // The last ones came while a window was made into records.
        self.learn();
        self.collect_flows();
        self.paths();
        self.finish()
    }

    /// Before anything is named: what was shown up to the windows and flows that the workers have
    /// handed over is there by now.
    fn learn(&mut self) {
        if let Some(learning) = &mut self.parts.learning {
            learning.take();
            self.parts.maker.renew();
        }
    }

    /// Late rows wait likewise.
    fn collect_late(&mut self) {
        let late = self.parts.aggregator.take_late_rows();
        if late.is_empty() || self.parts.takes_none() {
            return;
        }
        let windows = self.parts.aggregator.windows();
        self.late.append(&mut self.parts.maker.late(&late, windows));
        if self.late.len() >= FLOWS_WAITING_MAX {
            let windows = std::mem::take(&mut self.late);
            self.hand_on(Rows { windows, ..Rows::default() });
        }
    }

    /// Transactions that were over before the end of the last window.
    fn collect_apps(&mut self) {
        let (transactions, [lost, malformed]) = self.parts.aggregator.take_transactions();
        self.app_messages[0] += lost;
        self.app_messages[1] += malformed;
        if transactions.is_empty() || self.parts.takes_none() {
            return;
        }
        self.apps.append(&mut self.parts.maker.apps(&transactions));
        if self.apps.len() >= FLOWS_WAITING_MAX {
            let apps = std::mem::take(&mut self.apps);
            self.hand_on(Rows { apps, ..Rows::default() });
        }
    }

    /// Ended flows wait for the next window: a batch for the few of one turn would fill the way to
    /// the store with batches.
    fn collect_flows(&mut self) {
        self.collect_late();
        let ended = self.parts.aggregator.take_ended_flows();
        if ended.is_empty() || self.parts.takes_none() {
            return;
        }
        self.flows.append(&mut self.parts.maker.flows(&ended).flows);
        let heard = ended.iter().map(|(ended, _)| ended.flow.heard).max().unwrap_or_default();
        self.flows_heard = self.flows_heard.max(heard);
        if self.flows.len() >= FLOWS_WAITING_MAX {
            let flows = std::mem::take(&mut self.flows);
            self.hand_on(Rows { flows, ..Rows::default() });
        }
    }

    fn window(&mut self, view: &WindowView) {
        self.latest = self.latest.max(view.end);
        self.parts.publisher.log_ledger(view);
        let crowded_out = self.parts.detectors.crowded_out();
        let AnalysisParts { detectors, aggregator, waits, .. } = &mut self.parts;
        let alerts = detectors.observe(view, || listen(aggregator, *waits));
        let findings = detectors.crowded_out() - crowded_out;
        if findings > 0 {
            tracing::warn!(findings, "more goes on than there may be alerts: these opened none");
        }
        if let Some(learning) = &mut self.parts.learning {
            learning.rows_before(view.end);
        }
        let mut rows = self.parts.maker.window(view, &*self.parts.clock_of);
        self.parts.publisher.taps(view, &rows.taps);
        rows.alerts = self.alert_records(&alerts);
        let beside = Beside {
            ports: self.parts.publisher.ports(),
            store: self.parts.store.as_ref().map(StoreHandle::report),
            sinks: self.parts.sinks.reports(),
            alerts_opened: self.parts.detectors.opened_alerts(),
        };
        if !self.parts.waits {
            self.add_account(view, &beside, &mut rows);
        }
        let shares = self.conversations(view, &mut rows);
        self.parts.maker.delays(view, &mut rows);
        self.windows += u64::from(!view.conversations.is_empty());
        let AnalysisParts { publisher, aggregator, maker, .. } = &mut self.parts;
        publisher.window(view, shares, aggregator, &beside, maker);
        self.collect_apps();
        rows.flows = std::mem::take(&mut self.flows);
        rows.apps = std::mem::take(&mut self.apps);
        rows.ledger.extend(app_messages(view.start, std::mem::take(&mut self.app_messages)));
        rows.windows.append(&mut self.late);
        self.hand_on(rows);
    }

    /// Delay and loss between taps, of windows in which every packet has its verdict by now.
    fn paths(&mut self) {
        while let Some(view) = self.parts.aggregator.next_paths() {
            self.parts.publisher.paths(&view);
            let rows = self.parts.maker.paths(&view);
            self.hand_on(rows);
        }
        self.migrations();
    }

    /// Who went to another host, of windows that may be told.
    fn migrations(&mut self) {
        let (found, lost) = self.parts.aggregator.take_migrations();
        let mut rows = self.parts.maker.migrations(&found);
        for record in &rows.migrations {
            self.parts.publisher.migration(record);
        }
        rows.ledger.extend((lost > 0).then(|| migrations_lost(self.latest, lost)));
        self.hand_on(rows);
    }

    /// Records of the window's conversations, part by part; batches that are full are handed on.
    fn conversations(&mut self, view: &WindowView, rows: &mut Rows) -> Shares {
        let mut shares = Shares::default();
        for part in view.conversations.parts(PART_CONVERSATIONS) {
            let before = rows.windows.len();
            self.parts.maker.conversations(view, &part, &mut rows.windows);
            let records = rows.windows.get(before..).unwrap_or_default();
            for ((key, conversation), record) in part.iter().zip(records) {
                self.top.note(key, conversation, record);
            }
            shares.add(records);
            if rows.windows.len() >= BATCH_RECORDS {
                self.hand_on(std::mem::take(rows));
            }
            if !self.parts.waits {
                self.parts.aggregator.listen();
                self.collect_flows();
            }
        }
        shares
    }

    /// Workers, ports and sinks. What stands in them depends on the secret of the run and on the
    /// wall clock, so a replay, which is repeatable, leaves them to its report.
    fn add_account(&mut self, view: &WindowView, beside: &Beside, rows: &mut Rows) {
        rows.ledger.extend(workers_rows(view, self.parts.publisher.worker_names()));
        rows.ledger.extend(port_rows(view.start, &beside.ports, &self.ports_before));
        self.ports_before.clone_from(&beside.ports);
        if let Some(store) = &beside.store {
            let (now, before) = (&store.ledger, &self.sink_before);
            rows.ledger.extend(sink_rows(view.start, "parquet", now, before));
            self.sink_before = store.ledger;
        }
        rows.ledger.extend(sinks_rows(view.start, &beside.sinks, &self.sinks_before));
        self.sinks_before.clone_from(&beside.sinks);
    }

    fn alert_records(&mut self, alerts: &[Alert]) -> Vec<AlertRecord> {
        let records = self.parts.maker.alerts(alerts).alerts;
        for record in &records {
            self.parts.publisher.log_alert(record);
            self.alerts.note(record);
        }
        records
    }

    fn hand_on(&mut self, rows: Rows) {
        if rows.is_empty() {
            return;
        }
        let patience = self.patience();
        // Flows of the first window may come before it.
        let before = self.latest == Timestamp::ZERO;
        let packets = if before { self.flows_heard } else { self.latest };
        self.parts.sinks.send(&rows, packets, patience.until_ns());
        if let Some(store) = &self.parts.store {
            store.send(rows, packets, patience);
        }
    }

    fn patience(&mut self) -> Patience {
        if self.parts.waits {
            return Patience::Endless;
        }
        if !self.parts.ending.load(Ordering::Relaxed) {
            return Patience::None;
        }
        let end = || monotonic_ns().saturating_add(END_WAIT_NS);
        Patience::UntilNs(*self.patient_until_ns.get_or_insert_with(end))
    }

    fn finish(mut self) -> RunSummary {
        let closed = self.parts.detectors.finish();
        let alerts = self.alert_records(&closed);
        self.collect_apps();
        let flows = std::mem::take(&mut self.flows);
        let windows = std::mem::take(&mut self.late);
        let apps = std::mem::take(&mut self.apps);
        let ledger = app_messages(self.latest, self.app_messages).collect();
        if let Some(learning) = &mut self.parts.learning {
            learning.finish(self.latest);
        }
        self.hand_on(Rows { windows, flows, apps, alerts, ledger, ..Rows::default() });
        self.hand_on_rest();
        let AnalysisParts { aggregator, detectors, store, sinks, mut publisher, mut maker, .. } =
            self.parts;
        let sink = store.map(StoreHandle::finish);
        let sinks = sinks.finish();
        publisher.last(&aggregator, &mut maker, sink.as_ref(), &sinks);
        RunSummary {
            windows: self.windows,
            flows: aggregator.workers().map(|worker| worker.flows_created).sum(),
            alerts: detectors.opened_alerts(),
            ledger: aggregator.ledger(),
            workers: aggregator.workers().copied().collect(),
            sink,
            sinks,
            alert_records: self.alerts.into_vec(),
            top: self.top.finish(),
        }
    }

    /// What sources said after the last window, however much it is.
    fn hand_on_rest(&mut self) {
        for _ in 0..REST_BATCHES_MAX {
            let rows = self.parts.maker.rest();
            if rows.is_empty() {
                break;
            }
            if self.latest.max(self.flows_heard) == Timestamp::ZERO {
                // Without a packet there is no other clock to file by.
                let newest = rows.vm_usage.iter().map(|record| record.sample_ns).max();
                self.flows_heard = newest.map_or(Timestamp::ZERO, Timestamp);
            }
            self.hand_on(rows);
        }
    }
}

/// Rows of all sinks, by name: it may be another one's as well, which was taken away and still delivers.
fn sinks_rows(start: Timestamp, now: &[SinkReport], before: &[SinkReport]) -> Vec<LedgerRecord> {
    let before = by_name(before);
    let rows = by_name(now).into_iter().flat_map(|(name, now)| {
        let before = before.get(name).copied().unwrap_or_default();
        sink_rows(start, name, &now, &before)
    });
    rows.collect()
}

fn by_name(reports: &[SinkReport]) -> BTreeMap<&str, SinkLedger> {
    let mut sums = BTreeMap::<&str, SinkLedger>::new();
    for report in reports {
        sums.entry(&report.name).or_default().add(&report.ledger);
    }
    sums
}

/// Takes what the workers have handed over in the meantime. Workers that read files wait instead.
fn listen(aggregator: &mut Aggregator, waits: bool) {
    if !waits {
        aggregator.listen();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::live::{LiveMode, LiveSnapshot, live_cell};
    use crate::capture::file::{FileSource, PcapWriter};
    use crate::capture::memory::Packets;
    use crate::config::{self, Plan};
    use crate::flow::{EndReason, Ending, FlowOutput};
    use crate::inventory::{InventoryCell, Uuid};
    use crate::record::{InventoryRows, Names};
    use crate::runtime::Build;
    use crate::runtime::publish::PublisherParts;
    use crate::sources::usage::{USAGE_QUEUE, UsageQueue, VmUsage};
    use crate::store;
    use crate::time::sleep_ms;
    use crate::window::{HandoffReceiver, WindowClock, handoff};
    use crate::worker::{PortNames, Turn, Worker};

    const WINDOWS: WindowClock = WindowClock::new(1_000, 0);

    /// Live, with the given way from the workers.
    fn parts(receivers: Vec<HandoffReceiver>, store: Option<StoreHandle>) -> AnalysisParts {
        let clock_of: ClockOf = Arc::new(|_| TapClock { source: "tsc", error_bound_ns: None });
        let plan = Plan::default();
        let publisher = Publisher::new(PublisherParts {
            live: live_cell(LiveSnapshot::default()),
            base: LiveSnapshot { window_length_ms: 1_000, ..LiveSnapshot::default() },
            mode: LiveMode::Replay,
            flow_slots: 1,
            places: Vec::new(),
            ports: Box::new(Vec::new),
            clock_of: Arc::clone(&clock_of),
            folder: None,
        });
        let names = Names::new(&plan, PortNames::default());
        AnalysisParts {
            aggregator: Aggregator::new(receivers, WINDOWS, 1 << 20),
            detectors: Detectors::new(&plan.detect),
            maker: RecordMaker::new(names, no_inventory(), InventoryRows::default()),
            store,
            sinks: Sinks::none(),
            publisher,
            clock_of,
            waits: false,
            ending: Arc::default(),
            learning: None,
        }
    }

    fn no_inventory() -> InventoryCell {
        InventoryCell::default()
    }

    /// The sum of a measure of a sink over all windows.
    fn sum(rows: &[LedgerRecord], measure: &str) -> u64 {
        let of = |row: &&LedgerRecord| &*row.measure == measure;
        rows.iter().filter(of).map(|row| row.packet_count).sum()
    }

    #[test]
    fn a_sink_that_is_put_back_and_the_one_taken_away_have_an_account_each() {
        let report = |made, delivered| {
            let mut ledger = SinkLedger::default();
            ledger.queue(made);
            ledger.deliver(delivered);
            SinkReport { name: "a".to_owned(), ledger, ..SinkReport::default() }
        };
        let windows = [
            vec![report(100, 70)],
            // Taken away and put back: the one that runs comes first.
            vec![report(5, 5), report(110, 80)],
            vec![report(9, 8), report(110, 110)],
            // Both taken away, and summed up.
            vec![report(119, 118)],
        ];
        let mut before = Vec::new();
        let mut all = Vec::new();
        for (place, now) in windows.into_iter().enumerate() {
            let rows = sinks_rows(Timestamp(place as u64), &now, &before);
            assert!(rows.iter().all(|row| row.packet_count <= 119), "{rows:?}");
            assert_eq!(rows.len(), 4, "one row of a name and measure");
            all.extend(rows);
            before = now;
        }
        assert_eq!((sum(&all, "made"), sum(&all, "delivered")), (119, 118));
        let last = all.iter().rfind(|row| &*row.measure == "queued");
        assert_eq!(last.map(|row| row.packet_count), Some(1));
    }

    #[test]
    fn many_small_blocks_of_flows_lose_nothing_to_a_slow_store() {
        let (mut sender, receiver) = handoff(256, 1, false);
        let analysis = Analysis::new(parts(vec![receiver], Some(store::slow(20))));
        let analysis = std::thread::spawn(move || analysis.run());
        for _ in 0..300 {
            let reason = EndReason::EndOfFlow;
            sender.ended(None, |ending| {
                *ending = Ending::default();
                ending.reason = reason;
            });
            sender.send_flows();
            sleep_ms(2);
        }
        sender.end(&mut WorkerTotals::default(), &[]);
        let sink = analysis.join().expect("it ends").sink.expect("there is a store");
        assert_eq!((sink.made, sink.delivered, sink.dropped_sum()), (300, 300, 0));
    }

    /// One packet each of `flows` flows, in one window.
    fn packets(flows: u32) -> Packets {
        let name = format!("vmprobe-many-flows-{}.pcap", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = std::fs::File::create(&path).expect("the temporary folder takes files");
        let mut writer = PcapWriter::new(std::io::BufWriter::new(file), 1, true).expect("room");
        let mut frame = Vec::new();
        for number in 0..flows {
            frame.clear();
            let [_, a, b, c] = number.to_be_bytes();
            let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4([10, a, b, c], [11, 0, 0, 1], 64)
                .udp(5_000, 9);
            builder.write(&mut frame, &[7; 20]).expect("a vector takes all");
            let octets = u32::try_from(frame.len()).expect("short");
            let stamp = Timestamp::from_parts(1_000, number.into());
            writer.write(stamp, octets, &frame).expect("room");
        }
        writer.finish().expect("room");
        let mut source = FileSource::open(&[&path], 256).expect("it was just written");
        let packets = Packets::load(&mut source, usize::MAX).expect("it fits");
        std::fs::remove_file(path).expect("it was there");
        packets
    }

    #[test]
    fn a_live_worker_with_many_flows_ends_without_loss() {
        const FLOWS: u32 = 110_000;
        let mut plan = config::replay_without_file();
        plan.flow.slots_per_worker = 1 << 17;
        let plan = Arc::new(plan);
        let build = Build::new(&plan, None, &["p".to_owned()], (1, 1), false);
        let seat = build.seats.into_iter().next().expect("one worker");
        let source = packets(FLOWS).source(256, 1);
        let worker = std::thread::spawn(move || {
            let mut worker = Worker::new(Some(source), seat.parts());
            while worker.turn() != Turn::Ended {}
            worker.finish();
        });
        let parts = parts(build.handoffs, Some(store::slow(1)));
        parts.ending.store(true, Ordering::Relaxed);
        let summary = Analysis::new(parts).run();
        worker.join().expect("it ends");
        assert_eq!(summary.flows, u64::from(FLOWS));
        assert_eq!(summary.workers[0].flow_records_lost, 0);
        assert_eq!((summary.ledger.accounted, summary.ledger.unaccounted), (FLOWS.into(), 0));
        let sink = summary.sink.expect("there is a store");
        assert!(sink.delivered >= u64::from(FLOWS) && sink.dropped_sum() == 0, "{sink:?}");
    }
    /// What a run without a single packet leaves, with so many samples of what VMs use.
    fn idle_run(samples: u64) -> SinkLedger {
        let (mut sender, receiver) = handoff(1, 1, false);
        sender.end(&mut WorkerTotals::default(), &[]);
        let usage = UsageQueue::default();
        for at in 1..=samples {
            usage.add(VmUsage {
                vm: Uuid(1),
                at: Timestamp::from_parts(1_700_000_000, 0) + at,
                cpu_ns: Some(at),
                vcpu_count: None,
                memory_bytes: None,
                resident_bytes: None,
                interfaces: Vec::new(),
            });
        }
        let mut parts = parts(vec![receiver], Some(store::slow(0)));
        parts.ending.store(true, Ordering::Relaxed);
        parts.maker = parts.maker.with_usage(usage);
        Analysis::new(parts).run().sink.expect("there is a store")
    }

    #[test]
    fn samples_after_the_last_window_are_recorded_all_of_them() {
        for samples in [0, 1, 5_000, USAGE_QUEUE as u64] {
            let sink = idle_run(samples);
            assert_eq!((sink.made, sink.delivered), (samples, samples), "{samples}: {sink:?}");
        }
    }
}
