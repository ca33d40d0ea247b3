//! A worker at work while records are asked.
//!
//! In: a folder with records, how many live flows. Out: [`BesideQueryReport`]: how long the worker does
//! not look at its source, alone and while one heavy query after the other runs.
//! Cost: the rows of the folder are grouped over and over; a worker as in `live_flows`.
//! Invariants: the store's thread and its door are those of `run`, off the worker's core; the query is a
//! process as users start it, which finds the door and goes where it says. Runs alone and beside take
//! turns, so that what the machine does meanwhile meets both.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::config::StorePlan;
use crate::cores;
use crate::export::ParquetSink;
use crate::store::{StoreHandle, UpkeepPlan, query, start_live};
use crate::time::sleep_ms;

use super::gaps::{BothRecorder, ByBothClocks};
use super::live_flows::LiveFlowsOptions;
use super::steady::{Bench, Run};
use super::{Features, ratio};

/// Runs of each kind.
const RUNS: usize = if cfg!(test) { 1 } else { 3 };
/// Whose store it is, so far as names go.
const PROBE: &str = "beside-query";
/// Groups all rows by text, which needs memory and both of the query's threads.
const HEAVY: &str = "SELECT source_address, destination_address, application_name, tap, \
    count(*), sum(octet_delta_count), max(window_start_ns) FROM windows GROUP BY ALL \
    ORDER BY 6 DESC LIMIT 10";
/// Between two looks at a query.
const LOOK_MS: u64 = 5;

/// What is measured.
#[derive(Clone, Debug)]
pub struct BesideQueryOptions {
    /// Folder with records, as `bench --store` leaves it.
    pub folder: PathBuf,
    /// Live flows of the worker.
    pub flows: u32,
    /// What the worker does.
    pub features: Features,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct BesideQueryReport {
    /// Live flows of the worker.
    pub flows: u32,
    /// Runs of each kind.
    pub runs: usize,
    /// The worker's core.
    pub worker_cores: Vec<u16>,
    /// Cores that the queries kept to.
    pub query_cores: Vec<u16>,
    /// Queries that came to their end while the worker was at work, all runs together.
    pub queries: u64,
    /// Queries that were under way when the worker was done, at most one a run.
    pub queries_cut: u64,
    /// Seconds of such a query, on average.
    pub query_s: f64,
    /// The worker alone.
    pub alone: ByBothClocks,
    /// Beside a query.
    pub beside: ByBothClocks,
}

/// Measures.
///
/// # Errors
/// What went wrong, for people.
pub fn bench_beside_query(options: &BesideQueryOptions) -> Result<BesideQueryReport, String> {
    let program = query::program().map_err(|error| error.to_string())?;
    let allowed = cores::allowed();
    let worker_cores: Vec<_> = allowed.iter().take(1).copied().collect();
    let store = {
        // As in `run`: the store and its door are where no worker is.
        let _kept_off = cores::keep_off(&worker_cores);
        open(&options.folder)?
    };
    let asked = Asked { program: &program, folder: &options.folder };
    let (mut alone, mut beside) = (BothRecorder::default(), BothRecorder::default());
    let mut queries = Queries::default();
    for _ in 0..RUNS {
        alone.merge(&work(options)?);
        let ending = AtomicBool::new(false);
        let (gaps, more) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| asked.until(&ending));
            let gaps = work(options);
            ending.store(true, Ordering::Relaxed);
            (gaps, asking.join())
        });
        beside.merge(&gaps?);
        queries.add(more.unwrap_or_else(|_| Err("the thread that asks died".to_owned()))?);
    }
    store.finish();
    Ok(BesideQueryReport {
        flows: options.flows,
        runs: RUNS,
        worker_cores,
        query_cores: queries.cores,
        queries: queries.ended,
        queries_cut: queries.cut,
        query_s: ratio(queries.ms, queries.ended.max(1) * 1_000),
        alone: alone.gaps(),
        beside: beside.gaps(),
    })
}

fn open(folder: &Path) -> Result<StoreHandle, String> {
    let plan = StorePlan {
        folder: Some(folder.to_owned()),
        free_mib_min: 0,
        compact: false,
        ..StorePlan::default()
    };
    let sink = ParquetSink::new(&plan, PROBE, "default").ok_or("no folder")?;
    start_live(sink, UpkeepPlan::new(&plan, PROBE)).map_err(|error| error.to_string())
}

fn work(options: &BesideQueryOptions) -> Result<BothRecorder, String> {
    let flows = options.flows;
    let live = LiveFlowsOptions {
        flows: vec![flows],
        slots: None,
        features: options.features,
        poll_gaps: true,
    };
    let run = Run { options: &live, flows, flows_end: true };
    let (gaps, _) = run.start(Bench::gaps_by_both).map_err(|error| error.to_string())?;
    Ok(gaps)
}

/// Whom and what is asked.
struct Asked<'a> {
    program: &'a Path,
    folder: &'a Path,
}

/// What came of the queries.
#[derive(Default)]
struct Queries {
    ended: u64,
    cut: u64,
    ms: u64,
    cores: Vec<u16>,
}

impl Queries {
    fn add(&mut self, more: Self) {
        self.ended += more.ended;
        self.cut += more.cut;
        self.ms += more.ms;
        self.cores.extend(more.cores);
        self.cores.sort_unstable();
        self.cores.dedup();
    }
}

impl Asked<'_> {
    /// One after the other.
    fn until(&self, ending: &AtomicBool) -> Result<Queries, String> {
        let mut queries = Queries::default();
        while !ending.load(Ordering::Relaxed) {
            let begun_ns = crate::time::monotonic_ns();
            let mut child = self.start()?;
            let mut cores = Vec::new();
            let status = loop {
                // Where it is by now: it moves once it has asked.
                cores = Some(cores_of(&child)).filter(|now| !now.is_empty()).unwrap_or(cores);
                match child.try_wait() {
                    Ok(Some(status)) => break status,
                    Ok(None) if ending.load(Ordering::Relaxed) => {
                        let _ = child.kill();
                        let _ = child.wait();
                        queries.add(Queries { cut: 1, cores, ..Queries::default() });
                        return Ok(queries);
                    }
                    Ok(None) => sleep_ms(LOOK_MS),
                    Err(error) => return Err(error.to_string()),
                }
            };
            if !status.success() {
                return Err(format!("a query failed: {status}"));
            }
            let ms = (crate::time::monotonic_ns() - begun_ns) / 1_000_000;
            queries.add(Queries { ended: 1, ms, cores, ..Queries::default() });
        }
        Ok(queries)
    }

    fn start(&self) -> Result<Child, String> {
        let mut command = Command::new(self.program);
        command.arg("--data").arg(self.folder).arg(HEAVY);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))
    }
}

/// The cores that a process may use, by the system's account.
fn cores_of(child: &Child) -> Vec<u16> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let status = status.unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    parse_cores(list.unwrap_or_default())
}

/// `0-2,5`.
fn parse_cores(list: &str) -> Vec<u16> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_cores("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_cores("1"), [1]);
        assert!(parse_cores("").is_empty());
    }
}
