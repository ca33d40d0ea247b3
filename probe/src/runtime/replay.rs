//! `replay`: capture files through the same workers.
//!
//! In: plan and files. Out: [`Report`], records, problems of files.
//! Invariants: one reading worker, the others own flows; nothing is lost for lack of room, because
//! files wait. The same input gives the same records, whatever the number of workers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::aggregate::Aggregator;
use crate::aggregate::live::{LiveMode, live_cell};
use crate::capture::Source;
use crate::capture::file::{FileError, FileSource, Paced, Progress};
use crate::config::Plan;
use crate::detect::Detectors;
use crate::export::ParquetSink;
use crate::record::{Names, RecordMaker, TapClock};
use crate::store::{self, StoreClock};
use crate::time::monotonic_ns;
use crate::worker::Worker;

use super::build::{Seat, empty_snapshot};
use super::publish::{Publisher, PublisherParts, WorkerPlace};
use super::{
    Analysis, AnalysisParts, Build, ClockOf, Report, ReportLedger, RunSummary, RuntimeError,
    load_inventory,
};

/// What a replay is asked to do.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// Capture files.
    pub files: Vec<PathBuf>,
    /// Times the original speed; as fast as possible without.
    pub pace: Option<f64>,
    /// Serve the page meanwhile.
    pub serve: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Replay {
    /// The figures.
    pub report: Report,
    /// What detectors and conversations came to.
    pub summary: RunSummary,
    /// What is wrong with files that ended before their end.
    pub errors: Vec<String>,
}

/// Reads the files through workers. `watch` is told the progress once, when reading begins; `stop`
/// ends it early.
///
/// # Errors
/// [`RuntimeError`] where it cannot start; broken files are in the result.
pub fn replay(
    plan: &Arc<Plan>,
    options: &ReplayOptions,
    stop: &Arc<AtomicBool>,
    watch: impl FnOnce(Arc<Progress>),
) -> Result<Replay, RuntimeError> {
    let begun_ns = monotonic_ns();
    let inventory = Arc::new(load_inventory(plan)?);
    refuse_used(plan)?;
    let source = FileSource::open(&options.files, usize::from(plan.worker.burst_packets))?;
    let progress = Arc::clone(source.progress());
    watch(Arc::clone(&progress));
    let workers = usize::from(plan.worker.count.max(1));
    let build = Build::new(plan, &inventory, &[], (1, workers), true);
    let live = live_cell(empty_snapshot(plan));
    let page =
        if options.serve { Some(crate::serve::start(&plan.serve, live.clone())?) } else { None };
    let store = match ParquetSink::new(&plan.store, &plan.probe.id, &plan.probe.domain) {
        Some(sink) => Some(store::start(sink, StoreClock::Batches).map_err(thread_error("store"))?),
        None => None,
    };
    let clock_of: ClockOf = Arc::new(|_| TapClock { source: "file", error_bound_ns: None });
    let publisher = Publisher::new(PublisherParts {
        live,
        base: empty_snapshot(plan),
        mode: LiveMode::Replay,
        flow_slots: plan.flow.slots_per_worker.into(),
        places: vec![WorkerPlace::default(); workers],
        ports: Box::new(Vec::new),
        clock_of: Arc::clone(&clock_of),
        folder: plan.store.folder.as_ref().map(|folder| folder.display().to_string()),
    });
    let analysis = Analysis::new(AnalysisParts {
        aggregator: Aggregator::new(build.handoffs, build.windows, plan.window.rows_max),
        detectors: Detectors::new(&plan.detect),
        maker: RecordMaker::new(Names::new(plan, build.port_names), inventory),
        store,
        publisher,
        clock_of,
        waits: true,
        ending: Arc::clone(stop),
    });
    let analysis = spawn("aggregator", move || analysis.run())?;
    let mut seats = build.seats.into_iter();
    let reader = seats.next();
    let mut threads = Vec::new();
    for seat in seats {
        let stop = Arc::clone(stop);
        let name = format!("worker-{}", seat.place());
        threads.push(spawn(&name, move || run::<FileSource>(None, seat, &stop))?);
    }
    let mut errors = Vec::new();
    if let Some(seat) = reader {
        let stop = Arc::clone(stop);
        let reading = match options.pace {
            Some(times) => spawn("worker-0", move || {
                let worker = run(Some(Paced::new(source, times)), seat, &stop);
                worker.source().map_or_else(Vec::new, |paced| texts(paced.source().errors()))
            })?,
            None => spawn("worker-0", move || {
                let worker = run(Some(source), seat, &stop);
                worker.source().map_or_else(Vec::new, |source| texts(source.errors()))
            })?,
        };
        errors = join(reading);
    }
    for thread in threads {
        join(thread);
    }
    let summary = join(analysis);
    if let Some(page) = page {
        page.stop();
    }
    let elapsed_ns = monotonic_ns().saturating_sub(begun_ns);
    let report = Report {
        packets: progress.packets.load(),
        octets: progress.octets.load(),
        flows: summary.flows,
        windows: summary.windows,
        alerts: summary.alerts,
        elapsed_s: std::time::Duration::from_nanos(elapsed_ns).as_secs_f64(),
        ledger: ReportLedger::new(&summary.ledger, &summary.workers),
        sinks: summary.sink.iter().map(Into::into).collect(),
    };
    Ok(Replay { report, summary, errors })
}

/// Records of a second replay would stand beside those of the first, and every sum over the folder
/// would be twice the truth.
fn refuse_used(plan: &Plan) -> Result<(), RuntimeError> {
    match &plan.store.folder {
        Some(folder) if store::holds_records(folder) => {
            Err(RuntimeError::FolderInUse(folder.clone()))
        }
        _ => Ok(()),
    }
}

/// Runs one worker on this thread; its source comes back with it.
fn run<S: Source>(source: Option<S>, seat: Seat, stop: &AtomicBool) -> Worker<S> {
    let mut worker = Worker::new(source, seat.parts());
    worker.run(stop);
    worker
}

fn texts(errors: &[FileError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, RuntimeError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(thread_error(name))
}

pub(super) fn join<T>(thread: std::thread::JoinHandle<T>) -> T {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn thread_error(name: &str) -> impl FnOnce(std::io::Error) -> RuntimeError {
    let name = name.to_owned();
    move |source| RuntimeError::Thread { name, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::generate::{Options, Scenario, generate};

    #[test]
    fn a_second_replay_into_the_same_folder_is_refused() {
        let folder = std::env::temp_dir().join(format!("vmprobe-twice-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let wanted = Options { scale: 1.0, duration_s: Some(2) };
        generate(Scenario::PortScan, 1, &folder, wanted).expect("generated");
        let mut plan = config::replay_without_file();
        plan.flow.slots_per_worker = 1 << 12;
        plan.store.folder = Some(folder.join("records"));
        plan.store.free_mib_min = 0;
        let plan = Arc::new(plan);
        let options =
            ReplayOptions { files: vec![folder.join("tap-a.pcap")], ..ReplayOptions::default() };
        let once = || replay(&plan, &options, &Arc::new(AtomicBool::new(false)), |_| ());
        let first = once().expect("the folder is new");
        assert!(first.report.is_whole() && first.report.windows > 0, "{:?}", first.report);
        let second = once();
        std::fs::remove_dir_all(&folder).expect("it was there");
        assert!(matches!(second, Err(RuntimeError::FolderInUse(_))), "{second:?}");
    }
}
