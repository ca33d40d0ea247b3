//! `run`: NIC ports through the workers until told to stop.
//!
//! In: plan. Out: records, page, log; a [`Report`] at the end.
//! Invariants: one worker for each receive queue, pinned; the further ones own flows only. The
//! threads beside the workers start before DPDK pins anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::aggregate::live::{LiveMode, LivePort, live_cell};
use crate::aggregate::{Aggregator, TapView};
use crate::capture::Source;
use crate::capture::nic::{NicError, NicSource, Nics};
use crate::config::Plan;
use crate::detect::Detectors;
use crate::dpdk::{self, Eal, Port, WorkerThread, allowed_cores};
use crate::export::ParquetSink;
use crate::record::{Names, RecordMaker, TapClock};
use crate::store::{self, StoreClock};
use crate::time::{monotonic_ns, ms, sleep_ms};
use crate::worker::Worker;

use super::build::{Seat, empty_snapshot};
use super::publish::{Publisher, PublisherParts, WorkerPlace};
use super::replay::{join, spawn};
use super::{
    Analysis, AnalysisParts, Build, ClockOf, Report, ReportLedger, RunSummary, RuntimeError,
    load_inventory,
};

/// How often the end of a run is looked for.
const WAIT_MS: u64 = 50;

/// What came of a run.
#[derive(Debug)]
pub struct Live {
    /// The figures.
    pub report: Report,
    /// What detectors and conversations came to.
    pub summary: RunSummary,
    /// Counters of the ports at the end.
    pub ports: Vec<LivePort>,
}

/// Where the clocks of a port stand.
#[derive(Clone, Copy)]
struct PortClock {
    source: &'static str,
    error_bound_ns: Option<u64>,
}

/// What a run is asked to do beside its plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Stop after so many seconds.
    pub seconds: Option<u64>,
    /// Stop when packets have come and then none for so many seconds.
    pub idle_seconds: Option<u64>,
}

/// Receives until `stop` is set or the options say so. `ready` is told the page's address once
/// packets can come; `ended` gets the result while the page still shows it.
///
/// # Errors
/// [`RuntimeError`] where it cannot start.
pub fn run(
    plan: &Arc<Plan>,
    options: RunOptions,
    stop: &Arc<AtomicBool>,
    ready: impl FnOnce(Option<std::net::SocketAddr>),
    ended: impl FnOnce(&Live),
) -> Result<Live, RuntimeError> {
    let begun_ns = monotonic_ns();
    let inventory = Arc::new(load_inventory(plan)?);
    let names: Vec<String> = plan.ports.iter().map(|port| port.name.clone()).collect();
    let live = live_cell(empty_snapshot(plan));
    let page = if plan.serve.enabled {
        Some(crate::serve::start(&plan.serve, live.clone())?)
    } else {
        None
    };
    let nics = Nics::open(plan)?;
    // After DPDK's lock: a second start must not touch the folder of the first.
    let store = match ParquetSink::new(&plan.store, &plan.probe.id, &plan.probe.domain) {
        Some(sink) => Some(
            store::start(sink, StoreClock::Wall)
                .map_err(|source| RuntimeError::Thread { name: "store".to_owned(), source })?,
        ),
        None => None,
    };
    for (port, warning) in &nics.warnings {
        tracing::warn!(
            port = names.get(usize::from(port.0)).map_or("", String::as_str),
            "{warning}"
        );
    }
    let clocks: Arc<Vec<PortClock>> = Arc::new(port_clocks(&nics.sources, names.len()));
    let receivers = nics.sources.len();
    let workers = usize::from(plan.worker.count).max(receivers);
    let cores = worker_cores(plan, workers)?;
    let places = worker_places(&nics.sources, &names, &cores);
    // Ports that play files back lose nothing while they wait.
    let waits = nics.sources.iter().all(|source| !source.is_live());
    let build = Build::new(plan, &inventory, &names, (receivers, workers), waits);
    let (ports, port_names) = (nics.ports.clone(), names.clone());
    let configured = plan.taps.len();
    let tap_ports = tap_ports(plan, &names);
    let clock_of: ClockOf = Arc::new(move |tap: &TapView| {
        let place = usize::from(tap.tap.0);
        let port = tap_ports.get(place).copied().unwrap_or(place.saturating_sub(configured));
        let clock = clocks.get(port);
        TapClock {
            source: clock.map_or("tsc", |clock| clock.source),
            error_bound_ns: clock.and_then(|clock| clock.error_bound_ns),
        }
    });
    let publisher = Publisher::new(PublisherParts {
        live,
        base: empty_snapshot(plan),
        mode: LiveMode::Run,
        flow_slots: plan.flow.slots_per_worker.into(),
        places,
        ports: Box::new(move || live_ports(&ports, &port_names)),
        clock_of: Arc::clone(&clock_of),
        folder: plan.store.folder.as_ref().map(|folder| folder.display().to_string()),
    });
    // The flag that workers see is not the caller's: it may be waited for again.
    let workers_stop = Arc::new(AtomicBool::new(false));
    let analysis = Analysis::new(AnalysisParts {
        aggregator: Aggregator::new(build.handoffs, build.windows, plan.window.rows_max),
        detectors: Detectors::new(&plan.detect),
        maker: RecordMaker::new(Names::new(plan, build.port_names), inventory),
        store,
        publisher,
        clock_of,
        waits,
        ending: Arc::clone(&workers_stop),
    });
    let analysis = spawn("aggregator", move || analysis.run())?;
    ready(page.as_ref().map(crate::serve::ServeHandle::address));
    let mut sources = nics.sources.into_iter();
    let mut threads = Vec::new();
    for (seat, core) in build.seats.into_iter().zip(cores) {
        let (source, eal, stop) = (sources.next(), nics.eal.clone(), Arc::clone(&workers_stop));
        let name = format!("worker-{}", seat.place());
        threads.push(spawn(&name, move || work(source, seat, &eal, core, &stop))?);
    }
    wait(&nics.ports, options, stop);
    workers_stop.store(true, Ordering::Relaxed);
    for thread in threads {
        join(thread);
    }
    let summary = join(analysis);
    let ports = live_ports(&nics.ports, &names);
    let elapsed_ns = monotonic_ns().saturating_sub(begun_ns);
    let report = Report {
        packets: summary.ledger.received,
        octets: summary.ledger.octets,
        flows: summary.flows,
        windows: summary.windows,
        alerts: summary.alerts,
        elapsed_s: std::time::Duration::from_nanos(elapsed_ns).as_secs_f64(),
        ledger: ReportLedger::new(&summary.ledger, &summary.workers),
        sinks: summary.sink.iter().map(Into::into).collect(),
    };
    let live = Live { report, summary, ports };
    ended(&live);
    if let Some(page) = page {
        page.stop();
    }
    Ok(live)
}

/// Until it is time to stop.
fn wait(ports: &[Port], options: RunOptions, stop: &AtomicBool) {
    let begun_ns = monotonic_ns();
    let (mut received, mut changed_ns) = (0, begun_ns);
    let past = |since_ns: u64, seconds: Option<u64>| {
        seconds
            .is_some_and(|seconds| monotonic_ns().saturating_sub(since_ns) >= ms(seconds * 1_000))
    };
    while !stop.load(Ordering::Relaxed) && !past(begun_ns, options.seconds) {
        let now: u64 = ports.iter().map(|port| port.stats().received).sum();
        if now != received {
            (received, changed_ns) = (now, monotonic_ns());
        }
        if received > 0 && past(changed_ns, options.idle_seconds) {
            return;
        }
        sleep_ms(WAIT_MS);
    }
}

/// One worker's thread: pinned, known to DPDK, then its loop.
fn work(source: Option<NicSource>, seat: Seat, eal: &Eal, core: Option<u16>, stop: &AtomicBool) {
    let _registered = core.and_then(|core| match WorkerThread::register(eal, core) {
        Ok(registered) => Some(registered),
        Err(error) => {
            tracing::warn!(core, "worker is not pinned: {error}");
            None
        }
    });
    Worker::new(source, seat.parts()).run(stop);
}

/// The core of each worker: as configured, else the cores that this process may use, the last of
/// which is left to the other threads where there are enough. Workers beyond them share cores.
fn worker_cores(plan: &Plan, workers: usize) -> Result<Vec<Option<u16>>, RuntimeError> {
    let mut cores = allowed_cores();
    if !plan.eal.cores.is_empty() {
        cores = dpdk::worker_cores(&plan.eal, workers, &cores).map_err(NicError::from)?;
    } else if cores.len() > workers {
        cores.pop();
    } else if cores.len() < workers {
        let cores = cores.len();
        tracing::warn!(workers, cores, "workers share cores, so packets are missed earlier");
    }
    Ok((0..workers).map(|place| cores.get(place).copied()).collect())
}

fn worker_places(
    sources: &[NicSource],
    names: &[String],
    cores: &[Option<u16>],
) -> Vec<WorkerPlace> {
    let place = |(place, core): (usize, &Option<u16>)| {
        let source = sources.get(place);
        WorkerPlace {
            core: *core,
            port: source.and_then(|source| names.get(usize::from(source.port().0)).cloned()),
            queue: source.map(NicSource::queue),
        }
    };
    cores.iter().enumerate().map(place).collect()
}

fn port_clocks(sources: &[NicSource], ports: usize) -> Vec<PortClock> {
    let mut clocks = vec![PortClock { source: "tsc", error_bound_ns: None }; ports];
    for source in sources {
        if let Some(clock) = clocks.get_mut(usize::from(source.port().0)) {
            clock.source = source.clock_source().name();
            clock.error_bound_ns = source.clock_error_ns();
        }
    }
    clocks
}

/// The port of each configured tap; the first one for a tap of all ports.
fn tap_ports(plan: &Plan, names: &[String]) -> Vec<usize> {
    let place = |name: &String| names.iter().position(|port| port == name);
    plan.taps.iter().map(|tap| tap.matches.port.as_ref().and_then(place).unwrap_or(0)).collect()
}

fn live_ports(ports: &[Port], names: &[String]) -> Vec<LivePort> {
    ports
        .iter()
        .zip(names)
        .map(|(port, name)| {
            let stats = port.stats();
            LivePort {
                port: name.clone(),
                received: stats.received,
                missed: stats.missed,
                errors: stats.errors,
                no_mbuf: stats.no_mbuf,
            }
        })
        .collect()
}
