//! `replay`: capture files through the same workers.
//!
//! In: plan and files. Out: [`Report`], records, problems of files.
//! Invariants: one reading worker, the others own flows; nothing is lost for lack of room, because
//! files wait. The same input gives the same records, whatever the number of workers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::aggregate::live::{LiveMode, LivePort};
use crate::capture::Source;
use crate::capture::file::{FileSource, Paced, Progress};
use crate::config::Plan;
use crate::export::SinksWanted;
use crate::record::TapClock;
use crate::sources::ReadAgain;
use crate::store;
use crate::worker::Worker;

use super::build::Seat;
use super::pipeline::{Prepared, Way, join, spawn};
use super::publish::WorkerPlace;
use super::{Report, RunSummary, RuntimeError};

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

/// What the files came to.
#[derive(Default)]
struct Read {
    ports: Vec<LivePort>,
    errors: Vec<String>,
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
    refuse_used(plan)?;
    // The inventory first: what is wrong with it is wrong with the configuration.
    let prepared = Prepared::new(plan, options.serve, true, &ReadAgain::default())?;
    let source = FileSource::open(&options.files, usize::from(plan.worker.burst_packets))?;
    watch(Arc::clone(source.progress()));
    let (pipeline, seats) = prepared.start(Way {
        mode: LiveMode::Replay,
        waits: true,
        ports: Vec::new(),
        receivers: 1,
        places: places(usize::from(plan.worker.count.max(1))),
        port_counts: Box::new(Vec::new),
        clock_of: Arc::new(|_| TapClock { source: "file", error_bound_ns: None }),
        ending: Arc::clone(stop),
        sinks: SinksWanted::default(),
    })?;
    if let Some(address) = pipeline.page_address() {
        tracing::info!("page at http://{address}/");
    }
    let mut seats = seats.into_iter();
    let reader = seats.next();
    let mut owners = Vec::new();
    for seat in seats {
        let stop = Arc::clone(stop);
        let name = format!("worker-{}", seat.place());
        owners.push(spawn(&name, move || run::<FileSource>(None, seat, &stop))?);
    }
    let read = match reader {
        Some(seat) => read(source, seat, options.pace, Arc::clone(stop))?,
        None => Read::default(),
    };
    for owner in owners {
        join(owner);
    }
    let (report, summary, page) = pipeline.finish(|| read.ports);
    if let Some(page) = page {
        page.stop();
    }
    Ok(Replay { report, summary, errors: read.errors })
}

/// The first worker reads the files, the others own flows only.
fn places(workers: usize) -> Vec<WorkerPlace> {
    let mut places = vec![WorkerPlace::default(); workers];
    if let Some(reader) = places.first_mut() {
        reader.port = Some("files".to_owned());
    }
    places
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

/// The reading worker, to its end.
fn read(
    source: FileSource,
    seat: Seat,
    pace: Option<f64>,
    stop: Arc<AtomicBool>,
) -> Result<Read, RuntimeError> {
    let reading = match pace {
        Some(times) => spawn("worker-0", move || {
            let worker = run(Some(Paced::new(source, times)), seat, &stop);
            worker.source().map_or_else(Read::default, |paced| what_was_read(paced.source()))
        })?,
        None => spawn("worker-0", move || {
            let worker = run(Some(source), seat, &stop);
            worker.source().map_or_else(Read::default, what_was_read)
        })?,
    };
    Ok(join(reading))
}

/// Runs one worker on this thread; its source comes back with it.
fn run<S: Source>(source: Option<S>, seat: Seat, stop: &AtomicBool) -> Worker<S> {
    let mut worker = Worker::new(source, seat.parts());
    worker.run(stop);
    worker
}

fn what_was_read(source: &FileSource) -> Read {
    let port = |(port, received): (&str, u64)| LivePort {
        port: port.to_owned(),
        received,
        ..LivePort::default()
    };
    Read {
        ports: source.received().map(port).collect(),
        errors: source.errors().iter().map(ToString::to_string).collect(),
    }
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
        let wanted = Options { scale: 1.0, duration_s: Some(2), ..Options::default() };
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
        let [port] = &*first.report.ports else { panic!("one file: {:?}", first.report.ports) };
        assert_eq!((&*port.port, port.received), ("tap-a", first.report.packets));
        let second = once();
        std::fs::remove_dir_all(&folder).expect("it was there");
        assert!(matches!(second, Err(RuntimeError::FolderInUse(_))), "{second:?}");
    }
}

#[cfg(test)]
mod hostile;
