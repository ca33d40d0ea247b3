//! A flood of new flows through the aggregation thread and the store, as in `run`.
//!
//! In: rows a second, windows, bounds. Out: [`FloodReport`]: what was kept, what gave way under
//! which name, and what memory came to.
//! Cost: as long as the flood lasts; the workers only cut rows.
//! Invariants: the sources are live: nothing waits for the aggregation thread, nor that for the
//! store. Every packet stands in the ledger and every record in the store's account, kept or lost.
//! Source: ARCHITECTURE.md, "Under a flood".

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::aggregate::Aggregator;
use crate::config::Plan;
use crate::counters::WorkerTotals;
use crate::detect::Detectors;
use crate::export::{ParquetSink, Sinks};
use crate::flow::{Ending, FlowOutput};
use crate::index::WindowNumber;
use crate::record::{InventoryRows, Names, RecordMaker, TapClock};
use crate::spread::FlowKey;
use crate::store::{self, StoreClock};
use crate::time::{monotonic_ns, sleep_ms, thread_cpu_ns};
use crate::window::{HandoffSender, ROWS_PER_BLOCK, Row, WindowClock, handoff};
use crate::worker::PortNames;

use super::super::super::pipeline::{join, spawn};
use super::super::super::{
    Analysis, AnalysisParts, ReportLedger, ReportSink, RunSummary, RuntimeError,
};
use super::super::machine;
use super::traffic::{Traffic, flood_row};
use super::{FIRST_WINDOW, HANDOFF_BLOCKS, folder, hand_over, plan_of, publisher};

const WINDOW_NS: u64 = 1_000_000_000;

/// How often a worker looks whether it is ahead of its rate, in rows.
const PACE_ROWS: u64 = 1_024;

/// Blocks of a closing window that are handed over between two looks at the pace.
const STEP_BLOCKS: usize = 8;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct FloodOptions {
    /// New flows a second of all workers together, at least 1.
    pub flows_per_second: u32,
    /// Seconds, which are windows, at least 1.
    pub seconds: u32,
    /// Workers that hand rows over.
    pub workers: u16,
    /// Conversations of a window at most; as configured by default without.
    pub rows_max: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct FloodReport {
    /// New flows, each of one packet, one row and one record.
    pub flows: u64,
    /// Seconds that it took.
    pub elapsed_s: f64,
    /// CPU time of the aggregation thread as a share of that.
    pub aggregation_busy: f64,
    /// Windows given out.
    pub windows: u64,
    /// Alerts opened.
    pub alerts: u64,
    /// Resident memory at the end of each second; `resident_bytes[0]` is before the first.
    pub resident_bytes: Vec<u64>,
    /// The account of the packets.
    pub ledger: ReportLedger,
    /// The account of the records.
    pub sinks: Vec<ReportSink>,
}

/// Sends the flood: SYNs of random sources to eight services. Records go to a folder below the
/// temporary one, which is removed again.
///
/// # Errors
/// The system's, when it has no thread to give.
pub fn flood(options: &FloodOptions) -> Result<FloodReport, RuntimeError> {
    let folder = folder("flood");
    let report = flood_into(options, &folder);
    // What is left there is below the temporary folder.
    let _ = std::fs::remove_dir_all(folder);
    report
}

fn flood_into(options: &FloodOptions, folder: &Path) -> Result<FloodReport, RuntimeError> {
    let mut plan = plan_of(folder);
    if let Some(rows_max) = options.rows_max {
        plan.window.rows_max = rows_max;
        plan.flow.slots_per_worker = rows_max.next_power_of_two();
    }
    let mut resident_bytes = vec![machine::resident_bytes()];
    let open_blocks = (plan.open_rows() as usize).div_ceil(ROWS_PER_BLOCK);
    let ways = (0..options.workers).map(|_| handoff(HANDOFF_BLOCKS, open_blocks, false));
    let (senders, receivers): (Vec<_>, Vec<_>) = ways.unzip();
    let windows = WindowClock::new(plan.window.length_ms, plan.window.grace_ms);
    let aggregator = Aggregator::new(receivers, windows, plan.window.rows_max);
    let parts = parts(&plan, aggregator, options.workers)?;
    let begun_ns = monotonic_ns();
    let analysis = spawn("aggregator", move || {
        let summary = Analysis::new(parts).run();
        (summary, thread_cpu_ns())
    })?;
    let mut workers = Vec::new();
    for (place, sender) in (0..u64::from(options.workers)).zip(senders) {
        let options = options.clone();
        workers.push(spawn("flood", move || send(sender, &options, place, begun_ns))?);
    }
    while workers.iter().any(|worker| !worker.is_finished()) {
        let next_ns = begun_ns + resident_bytes.len() as u64 * WINDOW_NS;
        sleep_ms(next_ns.saturating_sub(monotonic_ns()).div_ceil(1_000_000).clamp(1, 1_000));
        if monotonic_ns() >= next_ns {
            resident_bytes.push(machine::resident_bytes());
        }
    }
    workers.into_iter().for_each(join);
    let elapsed_ns = monotonic_ns() - begun_ns;
    let (summary, busy_ns) = join(analysis);
    resident_bytes.push(machine::resident_bytes());
    Ok(report(options, &summary, resident_bytes, (busy_ns, elapsed_ns)))
}

fn parts(plan: &Plan, aggregator: Aggregator, workers: u16) -> Result<AnalysisParts, RuntimeError> {
    let traffic = Traffic { conversations: 1, flows: 1, tenants: 1 };
    let sink = ParquetSink::new(&plan.store, &plan.probe.id, &plan.probe.domain);
    let store = sink.map(|sink| store::start(sink, StoreClock::Wall)).transpose();
    let no_thread = |source| RuntimeError::Thread { name: "store".to_owned(), source };
    Ok(AnalysisParts {
        aggregator,
        detectors: Detectors::new(&plan.detect),
        maker: RecordMaker::new(
            Names::new(plan, PortNames::default()),
            traffic.inventory().into_cell(),
            InventoryRows::default(),
        ),
        store: store.map_err(no_thread)?,
        sinks: Sinks::none(),
        publisher: publisher(plan, workers),
        clock_of: Arc::new(|_| TapClock { source: "tsc", error_bound_ns: None }),
        waits: false,
        ending: Arc::default(),
        learning: None,
    })
}

/// What a worker does whose every packet is a new flow. While a window fills the one before is handed
/// over in steps.
fn send(mut sender: HandoffSender, options: &FloodOptions, place: u64, begun_ns: u64) {
    let workers = u64::from(options.workers);
    let rate = u64::from(options.flows_per_second);
    let mut totals = WorkerTotals::default();
    let mut closing = WindowNumber(FIRST_WINDOW);
    for second in 0..u64::from(options.seconds) {
        let window = WindowNumber(FIRST_WINDOW + second);
        let own = (place..rate).step_by(usize::from(options.workers));
        for number in own {
            if (number / workers).is_multiple_of(PACE_ROWS) {
                wait_until(begun_ns + second * WINDOW_NS + number * WINDOW_NS / rate);
                if closing < window && close(&mut sender, &mut totals, closing) {
                    closing = closing.next();
                }
            }
            totals.flows_created += 1;
            let (row, key) = flood_row(window, number);
            sender.ended(None, |ending| *ending = ended(&row, key, window));
            hand_over(&mut sender, &mut totals, window, &row);
        }
        wait_until(begun_ns + (second + 1) * WINDOW_NS);
    }
    sender.drain();
    while closing.0 < FIRST_WINDOW + u64::from(options.seconds) {
        if close(&mut sender, &mut totals, closing) {
            closing = closing.next();
        }
    }
    sender.end(&mut totals, &[]);
}

/// Hands over a step of a window; whether it is closed.
fn close(sender: &mut HandoffSender, totals: &mut WorkerTotals, window: WindowNumber) -> bool {
    sender.send_window(window, STEP_BLOCKS) && sender.close(window, totals, &[])
}

/// The record of the flow whose only packet the row is of; it comes when the flow times out, as many
/// a second as begin.
fn ended(row: &Row, key: FlowKey, window: WindowNumber) -> Ending {
    let few = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Ending::of_instant(key, window.start(WINDOW_NS), row.packets().map(few), row.octets().map(few))
}

fn wait_until(instant_ns: u64) {
    let left_ns = instant_ns.saturating_sub(monotonic_ns());
    if left_ns >= 1_000_000 {
        sleep_ms(left_ns / 1_000_000);
    }
}

fn report(
    options: &FloodOptions,
    summary: &RunSummary,
    resident_bytes: Vec<u64>,
    (busy_ns, elapsed_ns): (u64, u64),
) -> FloodReport {
    FloodReport {
        flows: u64::from(options.flows_per_second) * u64::from(options.seconds),
        elapsed_s: std::time::Duration::from_nanos(elapsed_ns).as_secs_f64(),
        aggregation_busy: super::ratio(busy_ns, elapsed_ns),
        windows: summary.windows,
        alerts: summary.alerts,
        resident_bytes,
        ledger: ReportLedger::new(&summary.ledger, &summary.workers),
        sinks: crate::runtime::report_sinks(summary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all of it may take: the tables of so few conversations, and records on their way. Other
    /// tests of the same process take memory meanwhile, where each has no process of its own.
    const GROWTH_BYTES_MAX: u64 = 160 << 20;

    #[test]
    fn a_flood_gives_way_by_name_and_in_bounds() {
        const ROWS_MAX: u32 = 1_024;
        let options = FloodOptions {
            flows_per_second: 8_000,
            seconds: 2,
            workers: 2,
            rows_max: Some(ROWS_MAX),
        };
        let report = flood(&options).expect("there are threads");
        assert_eq!((report.flows, report.ledger.received, report.windows), (16_000, 16_000, 2));
        // More than has room in the windows is lost under a name, and nothing without one.
        let named: u64 = report.ledger.causes.values().sum();
        assert_eq!(report.ledger.accounted + named, report.ledger.received);
        assert_eq!(report.ledger.unaccounted, 0);
        assert!(report.ledger.accounted <= 2 * u64::from(ROWS_MAX), "{report:?}");
        let names = ["window_rows_full", "window_ring_full"];
        assert!(report.ledger.causes.keys().all(|name| names.contains(name)), "{report:?}");
        // One alert a service, not one a source.
        assert!((1..=8).contains(&report.alerts), "{report:?}");
        let sink = &report.sinks[0];
        assert_eq!(sink.made, sink.delivered + sink.dropped_sum());
        let lost: u64 = report.ledger.workers.iter().map(|it| it.flow_records_lost).sum();
        assert!(sink.made + lost >= 16_000, "each flow has a record, kept or lost: {report:?}");
        let [before, .., after] = report.resident_bytes[..] else { panic!("{report:?}") };
        assert!(after < before + GROWTH_BYTES_MAX, "{:?}", report.resident_bytes);
    }
}
