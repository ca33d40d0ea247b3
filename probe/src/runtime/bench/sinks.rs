//! `bench --sinks`: how fast the sinks of a configuration take the conversations of a cloud.
//!
//! In: sinks, how many rows. Out: [`SinksReport`]: rows a second of each, until all are delivered; or, with
//! `apart`, what encoding them costs, and then how fast the destination takes what is made already.
//! Cost: all rows in memory, some 500 octets each; they are made before the clock starts.
//! Invariants: the sinks are those of `run`, and are waited for; what a sink did not deliver is told; rows of
//! a window come in the order that they are stored in, as the aggregation thread gives them.

use std::sync::Arc;

use serde::Serialize;

use super::day::{BEGIN_S, Day};
use super::machine;
use crate::config::SinkPlan;
use crate::export::sink::{Apart, Delivered, Failure};
use crate::export::{SinkHealth, SinkReport, Sinks, SinksWanted};
use crate::record::{Group, Origin, Rows, Table, WindowMeasures, WindowRecord};
use crate::time::{Timestamp, monotonic_ns, sleep_ms, wall_clock};

/// Whose records they are.
const PROBE: &str = "bench";

/// So long nothing may be delivered before it is given up, in ns.
const SILENCE_NS_MAX: u64 = 60_000_000_000;

/// How often it is looked whether all is delivered, in milliseconds.
const LOOK_MS: u64 = 2;

/// What is measured.
#[derive(Clone, Debug)]
pub struct SinksOptions {
    /// The sinks. Each gets all rows; they share the machine.
    pub plans: Vec<SinkPlan>,
    /// Virtual machines, ten to a tenant.
    pub vms: u32,
    /// Conversations in each window of a second.
    pub conversations: u32,
    /// Windows.
    pub windows: u32,
    /// Encode all, then deliver all, on one thread.
    pub apart: bool,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SinksReport {
    /// Rows of `windows` that were made; of other tables none are.
    pub rows: u64,
    /// From the first row until the last was delivered, in s.
    pub elapsed_s: f64,
    /// CPU time of the process meanwhile, in s.
    pub cpu_s: f64,
    /// Each sink.
    pub sinks: Vec<SinkSpeed>,
}

/// One sink.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SinkSpeed {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Rows that are at their destination.
    pub delivered: u64,
    /// Rows that are not, and why, if anything is wrong.
    pub dropped: u64,
    /// See there.
    pub problem: Option<String>,
    /// From the first row until the last was delivered, in s.
    pub elapsed_s: f64,
    /// Rows delivered a second of that time.
    pub rows_per_second: f64,
    /// With `apart`: CPU time of making the batches, in s; the time above is of their delivery alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode_cpu_s: Option<f64>,
}

/// Measures.
///
/// # Errors
/// What went wrong, for people.
pub fn measure(options: &SinksOptions) -> Result<SinksReport, String> {
    let all = make(options);
    let rows: u64 = all.iter().map(|(rows, _)| rows.windows.len() as u64).sum();
    if options.apart {
        return Ok(measure_apart(options, &all, rows));
    }
    let origin = Origin::new(PROBE, "default");
    let sinks = Sinks::start(&options.plans, origin, true, SinksWanted::default());
    let mut sinks = sinks.map_err(|error| format!("no thread for the sinks: {error}"))?;
    let (begun_ns, cpu_before_ms) = (monotonic_ns(), machine::cpu_ms());
    for (rows, end) in &all {
        sinks.send(rows, *end, monotonic_ns() + SILENCE_NS_MAX);
    }
    let ended_ns = wait(&sinks);
    let cpu_s = (machine::cpu_ms() - cpu_before_ms) / 1e3;
    let last_ns = ended_ns.iter().copied().max().unwrap_or(begun_ns);
    let seconds = |ns: u64| super::ratio(ns - begun_ns, 1_000_000_000);
    let reports = sinks.finish();
    let sinks = reports.iter().zip(&ended_ns).map(|(report, ns)| speed(report, seconds(*ns)));
    Ok(SinksReport { rows, elapsed_s: seconds(last_ns), cpu_s, sinks: sinks.collect() })
}

/// One sink after the other, each in two steps.
fn measure_apart(options: &SinksOptions, all: &[(Rows, Timestamp)], rows: u64) -> SinksReport {
    let (begun_ns, cpu_before_ms) = (monotonic_ns(), machine::cpu_ms());
    let sinks = options.plans.iter().map(|plan| one_apart(plan, all)).collect();
    let elapsed_s = super::ratio(monotonic_ns() - begun_ns, 1_000_000_000);
    SinksReport { rows, elapsed_s, cpu_s: (machine::cpu_ms() - cpu_before_ms) / 1e3, sinks }
}

fn one_apart(plan: &SinkPlan, all: &[(Rows, Timestamp)]) -> SinkSpeed {
    let cpu_before_ms = machine::cpu_ms();
    let mut apart = Apart::new(plan, Origin::new(PROBE, "default"), wall_clock().as_ns());
    for (rows, end) in all {
        apart.encode(Table::Windows, rows, *end);
    }
    let (batches, mut driver) = apart.finish();
    let encode_cpu_s = (machine::cpu_ms() - cpu_before_ms) / 1e3;
    let begun_ns = monotonic_ns();
    let mut it = SinkSpeed {
        name: plan.name.clone(),
        kind: plan.kind.name(),
        encode_cpu_s: Some(encode_cpu_s),
        ..SinkSpeed::default()
    };
    for batch in &batches {
        match driver.deliver(batch) {
            Ok(Delivered { refused }) => {
                it.delivered += batch.records - refused;
                it.dropped += refused;
            }
            Err(Failure { what, .. }) => {
                it.dropped += batch.records;
                it.problem = Some(what);
            }
        }
    }
    it.elapsed_s = super::ratio(monotonic_ns() - begun_ns, 1_000_000_000);
    it.rows_per_second = super::ratio(it.delivered, 1) / it.elapsed_s.max(1e-9);
    it
}

/// All rows, with the time that each window ends.
fn make(options: &SinksOptions) -> Vec<(Rows, Timestamp)> {
    let mut day = Day::new(options.vms);
    let seconds = 0..u64::from(options.windows);
    let window = |second| {
        let start = Timestamp::from_parts(BEGIN_S + second, 0);
        let windows = day.second(start, options.conversations).windows;
        let mut rows = Rows { windows, ..Rows::default() };
        rows.sort();
        rows.windows = rows.windows.iter().map(anew).collect();
        (rows, Timestamp::from_parts(BEGIN_S + second + 1, 0))
    };
    seconds.map(window).collect()
}

/// A row with what belongs to it beside it in memory, as a run has it that makes the rows in their order.
fn anew(row: &WindowRecord) -> WindowRecord {
    let measures = match &row.measures {
        Group::Own(own) => Group::Own(Arc::new(WindowMeasures::clone(own))),
        other => other.clone(),
    };
    WindowRecord { measures, ..row.clone() }
}

/// Waits until nothing is on its way; when each sink delivered last.
fn wait(sinks: &Sinks) -> Vec<u64> {
    let mut seen: Vec<(u64, u64)> = vec![(0, monotonic_ns()); sinks.reports().len()];
    loop {
        let is_settled = sinks.is_settled();
        let now_ns = monotonic_ns();
        for (report, seen) in sinks.reports().iter().zip(&mut seen) {
            if report.ledger.delivered != seen.0 {
                *seen = (report.ledger.delivered, now_ns);
            }
        }
        let is_silent = seen.iter().all(|(_, at_ns)| now_ns - at_ns > SILENCE_NS_MAX);
        if is_settled || is_silent {
            return seen.into_iter().map(|(_, at_ns)| at_ns).collect();
        }
        sleep_ms(LOOK_MS);
    }
}

fn speed(report: &SinkReport, elapsed_s: f64) -> SinkSpeed {
    let delivered = report.ledger.delivered;
    let problem = match &report.health {
        SinkHealth::Failing { what, .. } => Some(what.clone()),
        SinkHealth::Ok => None,
    };
    SinkSpeed {
        name: report.name.clone(),
        kind: report.kind,
        delivered,
        dropped: report.ledger.dropped_sum() + report.ledger.queued,
        problem,
        elapsed_s,
        rows_per_second: super::ratio(delivered, 1) / elapsed_s.max(1e-9),
        encode_cpu_s: None,
    }
}
