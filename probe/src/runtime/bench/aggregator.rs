//! `bench --aggregator`: the aggregation thread on rows in memory.
//!
//! In: how many conversations, flows, windows and workers. Out: [`AggregatorReport`]: rows a second
//! of CPU time of the one thread, step by step.
//! Cost: rows are made outside of what is measured; memory is that of a window.
//! Invariants: the steps are those of the aggregation thread, in its order; each figure is of its
//! step and all before it. Rows come through the hand-off of each worker, in blocks, as many at
//! once as it holds. Parquet is encoded on a thread of its own in `run`, so it stands beside the sum
//! and not in it.
//! Source: CPU time of a thread, `CLOCK_THREAD_CPUTIME_ID` (POSIX.1-2008).

pub mod flood;
mod traffic;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::aggregate::live::{LiveMode, LiveSnapshot, live_cell};
use crate::aggregate::{Aggregator, WindowView};
use crate::config::Plan;
use crate::counters::WorkerTotals;
use crate::detect::Detectors;
use crate::export::ParquetSink;
use crate::flow::FlowOutput;
use crate::index::WindowNumber;
use crate::record::{InventoryRows, Names, RecordMaker, Rows, TapClock};
use crate::time::{Timestamp, thread_cpu_ns};
use crate::window::{HandoffSender, Row, WindowClock, handoff};
use crate::worker::PortNames;

use super::super::ReportLedger;
use super::super::analysis::{BATCH_RECORDS, ClockOf, PART_CONVERSATIONS};
use super::super::publish::{Beside, Publisher, PublisherParts, Shares, WorkerPlace};
use super::super::summary::TopSums;
use super::{machine, ratio};
use traffic::Traffic;

/// Blocks between each worker and the aggregator, as in `run`.
const HANDOFF_BLOCKS: usize = 256;

/// Rows that are made before the aggregator takes them: a part of what the hand-off holds.
const ROWS_AT_ONCE: u64 = 8_192;

/// The first window, somewhere in the year 2025.
const FIRST_WINDOW: u64 = 1_750_000_000;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct AggregatorOptions {
    /// Conversations in a window, at least 1.
    pub conversations: u32,
    /// Rows of each conversation in a window, at least 1: one a flow.
    pub flows_per_conversation: u32,
    /// Windows, at least 1.
    pub windows: u32,
    /// Workers that hand rows over.
    pub workers: u16,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct AggregatorReport {
    /// Rows handed over.
    pub rows: u64,
    /// Conversations in a window.
    pub conversations_per_window: u32,
    /// Windows.
    pub windows: u32,
    /// Workers that handed them over.
    pub workers: u16,
    /// The steps of the thread in order; each figure is of its step and all before it.
    pub steps: Vec<Step>,
    /// Rows a second of the whole thread: the last step's figure.
    pub rows_per_second: f64,
    /// Conversations a second of the whole thread.
    pub conversations_per_second: f64,
    /// Records a second that the store's thread encodes and writes.
    pub stored_records_per_second: f64,
    /// Resident memory of the process, the largest at the end of a window.
    pub resident_bytes: u64,
    /// The account.
    pub ledger: ReportLedger,
}

/// The thread up to one step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// CPU time a row of this step alone.
    pub ns_per_row: f64,
    /// Rows a second of this step and all before it.
    pub rows_per_second: f64,
}

/// CPU time of each step in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    aggregate: u64,
    detect: u64,
    name: u64,
    show: u64,
    recycle: u64,
    store: u64,
}

/// What the thread works with, but for the hand-off.
struct Bench {
    aggregator: Aggregator,
    maker: RecordMaker,
    detectors: Detectors,
    publisher: Publisher,
    top: TopSums,
    sink: Option<ParquetSink>,
    times: Times,
    resident_bytes: u64,
}

/// Measures; records go to a folder below the temporary one, which is removed again.
pub fn measure(options: &AggregatorOptions) -> AggregatorReport {
    let folder = folder("bench");
    let report = measure_into(options, &folder);
    // What is left there is below the temporary folder.
    let _ = std::fs::remove_dir_all(folder);
    report
}

fn measure_into(options: &AggregatorOptions, folder: &Path) -> AggregatorReport {
    let traffic = Traffic {
        conversations: options.conversations,
        flows: options.flows_per_conversation,
        tenants: 100.min(options.conversations.div_ceil(100)),
    };
    let plan = plan_of(folder);
    let ways = (0..options.workers).map(|_| handoff(HANDOFF_BLOCKS, HANDOFF_BLOCKS, true));
    let (mut senders, receivers): (Vec<_>, Vec<_>) = ways.unzip();
    let windows = WindowClock::new(plan.window.length_ms, plan.window.grace_ms);
    let mut bench = Bench {
        aggregator: Aggregator::new(receivers, windows, plan.window.rows_max),
        maker: RecordMaker::new(
            Names::new(&plan, PortNames::default()),
            traffic.inventory().into_cell(),
            InventoryRows::default(),
        ),
        detectors: Detectors::new(&plan.detect),
        publisher: publisher(&plan, options.workers),
        top: TopSums::default(),
        sink: ParquetSink::new(&plan.store, &plan.probe.id, &plan.probe.domain),
        times: Times::default(),
        resident_bytes: 0,
    };
    let mut totals = vec![WorkerTotals::default(); senders.len()];
    for number in 0..u64::from(options.windows) {
        bench.window(traffic, WindowNumber(FIRST_WINDOW + number), &mut senders, &mut totals);
    }
    for (sender, totals) in senders.iter_mut().zip(&mut totals) {
        sender.end(totals, &[]);
    }
    bench.collect();
    bench.aggregator.has_ended();
    bench.report(options, traffic.rows() * u64::from(options.windows))
}

impl Bench {
    fn window(
        &mut self,
        traffic: Traffic,
        window: WindowNumber,
        senders: &mut [HandoffSender],
        totals: &mut [WorkerTotals],
    ) {
        let workers = senders.len() as u64;
        for number in 0..traffic.rows() {
            let place = usize::try_from(number % workers).unwrap_or(0);
            hand_over(&mut senders[place], &mut totals[place], window, &traffic.row(number));
            if (number + 1).is_multiple_of(ROWS_AT_ONCE * workers) {
                for sender in senders.iter_mut() {
                    sender.send_window(window, usize::MAX);
                }
                self.collect();
            }
        }
        for (sender, totals) in senders.iter_mut().zip(totals) {
            sender.send_window(window, usize::MAX);
            sender.close(window, totals, &[]);
        }
        self.collect();
        let view = timed(&mut self.times.aggregate, || self.aggregator.next_view());
        if let Some(view) = view {
            self.hand_on(view);
        }
    }

    fn collect(&mut self) {
        timed(&mut self.times.aggregate, || while self.aggregator.collect() {});
    }

    /// What the aggregation thread does with a view.
    fn hand_on(&mut self, view: WindowView) {
        let Self { aggregator, maker, detectors, publisher, top, sink, times, .. } = self;
        let alerts = timed(&mut times.detect, || detectors.observe(&view, || ()));
        let clock = |_: &_| TapClock { source: "tsc", error_bound_ns: None };
        let mut rows = timed(&mut times.name, || {
            let mut rows = maker.window(&view, clock);
            rows.alerts = maker.alerts(&alerts).alerts;
            rows
        });
        let mut shares = Shares::default();
        for part in view.conversations.parts(PART_CONVERSATIONS) {
            let before = rows.windows.len();
            timed(&mut times.name, || maker.conversations(&view, &part, &mut rows.windows));
            timed(&mut times.show, || {
                let records = rows.windows.get(before..).unwrap_or_default();
                for ((key, conversation), record) in part.iter().zip(records) {
                    top.note(key, conversation, record);
                }
                shares.add(records);
            });
            if rows.windows.len() >= BATCH_RECORDS {
                timed(&mut times.store, || store(sink, std::mem::take(&mut rows), view.end));
            }
        }
        timed(&mut times.name, || maker.delays(&view, &mut rows));
        timed(&mut times.show, || {
            let beside =
                Beside { ports: Vec::new(), store: None, sinks: Vec::new(), alerts_opened: 0 };
            publisher.taps(&view, &rows.taps);
            publisher.window(&view, shares, aggregator, &beside, maker);
        });
        timed(&mut times.store, || store(sink, rows, view.end));
        self.resident_bytes = self.resident_bytes.max(machine::resident_bytes());
        timed(&mut times.recycle, || aggregator.recycle(view));
    }

    fn report(mut self, options: &AggregatorOptions, rows: u64) -> AggregatorReport {
        let stored = timed(&mut self.times.store, || self.sink.take().map(ParquetSink::give_up));
        let stored = stored.map_or(0, |ledger| ledger.made);
        let Times { aggregate, detect, name, show, recycle, store } = self.times;
        let mut sum_ns = 0;
        let steps = [
            ("aggregate", aggregate + recycle),
            ("name", name),
            ("live_view", show),
            ("detect", detect),
        ];
        let step = |(name, ns)| {
            sum_ns += ns;
            Step { name, ns_per_row: ratio(ns, rows), rows_per_second: per_second(rows, sum_ns) }
        };
        let steps: Vec<Step> = steps.into_iter().map(step).collect();
        let conversations = u64::from(options.conversations) * u64::from(options.windows);
        AggregatorReport {
            rows,
            conversations_per_window: options.conversations,
            windows: options.windows,
            workers: options.workers,
            steps,
            rows_per_second: per_second(rows, sum_ns),
            conversations_per_second: per_second(conversations, sum_ns),
            stored_records_per_second: per_second(stored, store),
            resident_bytes: self.resident_bytes,
            ledger: ReportLedger::new(&self.aggregator.ledger(), &[]),
        }
    }
}

/// As a worker does with a packet that begins a row, and those that go on with it.
fn hand_over(
    sender: &mut HandoffSender,
    totals: &mut WorkerTotals,
    window: WindowNumber,
    row: &Row,
) {
    let packets = row.packets_sum();
    totals.received_packets += packets;
    totals.booked_packets += packets;
    sender.count(window, packets);
    *sender.begin_row(window).1 = *row;
}

fn store(sink: &mut Option<ParquetSink>, rows: Rows, at: Timestamp) {
    if let Some(sink) = sink {
        sink.write(rows, at);
    }
}

fn per_second(count: u64, ns: u64) -> f64 {
    1e9 * ratio(count, ns)
}

/// Adds the CPU time of `work` to `sum_ns`.
fn timed<T>(sum_ns: &mut u64, work: impl FnOnce() -> T) -> T {
    let begun_ns = thread_cpu_ns();
    let result = work();
    *sum_ns += thread_cpu_ns() - begun_ns;
    result
}

/// As by default, with records.
fn plan_of(folder: &Path) -> Plan {
    let mut plan = Plan { domains: vec!["default".to_owned()], ..Plan::default() };
    plan.store.folder = Some(folder.to_owned());
    plan
}

fn publisher(plan: &Plan, workers: u16) -> Publisher {
    let clock_of: ClockOf = Arc::new(|_| TapClock { source: "tsc", error_bound_ns: None });
    let length_ms = plan.window.length_ms;
    Publisher::new(PublisherParts {
        live: live_cell(LiveSnapshot::default()),
        base: LiveSnapshot { window_length_ms: length_ms, ..LiveSnapshot::default() },
        mode: LiveMode::Replay,
        flow_slots: plan.flow.slots_per_worker.into(),
        places: vec![WorkerPlace::default(); usize::from(workers)],
        ports: Box::new(Vec::new),
        clock_of,
        folder: None,
    })
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("vmprobe-aggregator-{}-{name}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_the_account_and_every_step_has_a_figure() {
        let options = AggregatorOptions {
            conversations: 3_000,
            flows_per_conversation: 4,
            windows: 3,
            workers: 2,
        };
        let report = measure(&options);
        assert_eq!(report.rows, 36_000);
        assert_eq!((report.ledger.received, report.ledger.unaccounted), (36_000 * 11, 0));
        assert_eq!(report.ledger.accounted, report.ledger.received);
        let names: Vec<_> = report.steps.iter().map(|step| step.name).collect();
        assert_eq!(names, ["aggregate", "name", "live_view", "detect"]);
        assert!(report.steps.iter().all(|step| step.ns_per_row > 0.0), "{report:?}");
        let falls = |pair: &[Step]| pair[1].rows_per_second <= pair[0].rows_per_second;
        assert!(report.steps.windows(2).all(falls), "{report:?}");
        assert!(report.stored_records_per_second > 0.0 && report.resident_bytes > 0);
    }
}
