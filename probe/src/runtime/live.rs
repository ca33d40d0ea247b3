//! `run`: NIC ports through the workers until told to stop.
//!
//! In: plan. Out: records, page, log; a [`Report`] at the end.
//! Invariants: one worker for each receive queue, pinned; the further ones own flows only. Page,
//! store and aggregation stay off the workers' cores where there are others, because a worker that
//! is interrupted for milliseconds misses packets. DPDK's own threads and the clocks, which sleep
//! nearly always, may run anywhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::aggregate::TapView;
use crate::aggregate::live::{LiveMode, LivePort};
use crate::capture::Source;
use crate::capture::nic::{NicError, NicSource, Nics, PortClock};
use crate::config::Plan;
use crate::cores;
use crate::dpdk::{self, Eal, Port, PortWarning, WorkerThread};
use crate::export::SinksWanted;
use crate::index::PortIndex;
use crate::record::TapClock;
use crate::sources::ReadAgain;
use crate::time::{Timestamp, monotonic_ns, ms, sleep_ms, wall_clock};
use crate::worker::Worker;

use super::analysis::ClockOf;
use super::bench::{Features, parts_for};
use super::build::Seat;
use super::pipeline::{Prepared, Way, join, spawn};
use super::publish::WorkerPlace;
use super::{Report, RunSummary, RuntimeError};

/// How often the end of a run is looked for.
const WAIT_MS: u64 = 50;

/// What came of a run.
#[derive(Debug)]
pub struct Live {
    /// The figures.
    pub report: Report,
    /// What detectors and conversations came to.
    pub summary: RunSummary,
}

/// What a run is asked to do beside its plan.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Stop after so many seconds.
    pub seconds: Option<u64>,
    /// Stop when packets have come and then none for so many seconds.
    pub idle_seconds: Option<u64>,
    /// What is done with packets; less than all is for measuring only.
    pub features: Features,
    /// Set by SIGHUP: the inventory is read again.
    pub read_again: ReadAgain,
    /// Other sinks than the plan's, by SIGHUP.
    pub sinks: SinksWanted,
}

/// A run that packets can come to.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    /// Where the page is, if it is served.
    pub page: Option<SocketAddr>,
    /// The ports, in order of configuration.
    pub ports: &'a [Port],
    /// DPDK.
    pub eal: &'a Eal,
}

/// Receives until `stop` is set or the options say so. `ready` is told once packets can come;
/// `ended` gets the result while the page still shows it.
///
/// # Errors
/// [`RuntimeError`] where it cannot start.
pub fn run(
    plan: &Arc<Plan>,
    options: &RunOptions,
    stop: &Arc<AtomicBool>,
    ready: impl FnOnce(Ready<'_>),
    ended: impl FnOnce(&Live),
) -> Result<Live, RuntimeError> {
    let queues: u16 = plan.ports.iter().map(|port| port.queues).sum();
    let cores = worker_cores(plan, plan.worker.count.max(queues).into())?;
    let taken: Vec<u16> = cores.iter().flatten().copied().collect();
    let prepared = {
        let _off = cores::keep_off(&taken);
        Prepared::new(plan, plan.serve.enabled, false, &options.read_again)?
    };
    let names: Vec<String> = plan.ports.iter().map(|port| port.name.clone()).collect();
    // On all cores again: those that DPDK sees decide which node its memory is on.
    let nics = Nics::open(plan)?;
    warn(&nics.warnings, &names);
    let receivers = nics.sources.len();
    let _off = cores::keep_off(&taken);
    // The flag that workers see is not the caller's: that one may be waited for again.
    let workers_stop = Arc::new(AtomicBool::new(false));
    let (ports, port_names) = (nics.ports.clone(), names.clone());
    // The store is opened after DPDK's lock: a second start must not touch the folder of the first.
    let (pipeline, seats) = prepared.start(Way {
        mode: LiveMode::Run,
        // Ports that play files back lose nothing while they wait.
        waits: nics.sources.iter().all(|source| !source.is_live()),
        ports: names.clone(),
        receivers,
        places: worker_places(&nics.sources, &names, &cores),
        port_counts: Box::new(move || live_ports(&ports, &port_names)),
        clock_of: clock_of(plan, &names, &nics.sources),
        ending: Arc::clone(&workers_stop),
        sinks: Arc::clone(&options.sinks),
    })?;
    ready(Ready { page: pipeline.page_address(), ports: &nics.ports, eal: &nics.eal });
    let mut sources = nics.sources.into_iter();
    let mut threads = Vec::new();
    for (seat, core) in seats.into_iter().zip(cores) {
        let (source, eal, stop) = (sources.next(), nics.eal.clone(), Arc::clone(&workers_stop));
        let name = format!("worker-{}", seat.place());
        let features = options.features;
        threads.push(spawn(&name, move || work(source, seat, features, &eal, core, &stop))?);
    }
    wait(&nics.ports, options, stop);
    workers_stop.store(true, Ordering::Relaxed);
    for thread in threads {
        join(thread);
    }
    let (report, summary, page) = pipeline.finish(|| live_ports(&nics.ports, &names));
    let live = Live { report, summary };
    ended(&live);
    if let Some(page) = page {
        page.stop();
    }
    Ok(live)
}

fn warn(warnings: &[(PortIndex, PortWarning)], names: &[String]) {
    for (port, warning) in warnings {
        let port = names.get(usize::from(port.0)).map_or("", String::as_str);
        tracing::warn!(port, "{warning}");
    }
}

/// Until it is time to stop.
fn wait(ports: &[Port], options: &RunOptions, stop: &AtomicBool) {
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
fn work(
    source: Option<NicSource>,
    seat: Seat,
    features: Features,
    eal: &Eal,
    core: Option<u16>,
    stop: &AtomicBool,
) {
    let _registered = core.and_then(|core| match WorkerThread::register(eal, core) {
        Ok(registered) => Some(registered),
        Err(error) => {
            tracing::warn!(core, "worker is not pinned: {error}");
            None
        }
    });
    Worker::new(source, parts_for(seat, features)).run(stop);
}

/// The core of each worker: as configured, else the cores that this process may use, the last of
/// which is left to the other threads where there are enough. Workers beyond them share cores.
fn worker_cores(plan: &Plan, workers: usize) -> Result<Vec<Option<u16>>, RuntimeError> {
    let mut cores = cores::allowed();
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

/// Asks the port's clock each time: a bound from before the first packet would say nothing of now.
fn clock_of(plan: &Plan, names: &[String], sources: &[NicSource]) -> ClockOf {
    let clocks: Vec<PortClock> = (0..)
        .map(PortIndex)
        .zip(names)
        .filter_map(|(port, _)| sources.iter().find(|source| source.port() == port))
        .map(NicSource::clock)
        .collect();
    let configured = tap_ports(plan, names);
    Arc::new(move |tap: &TapView| {
        let place = usize::from(tap.tap.0);
        // Behind the configured taps stands one for each port.
        let port = match configured.get(place) {
            Some(port) => *port,
            None => Some(place - configured.len()),
        };
        tap_clock(&clocks, port, wall_clock())
    })
}

/// The clock of a port at `now`; without a port the least certain of all.
fn tap_clock(clocks: &[PortClock], port: Option<usize>, now: Timestamp) -> TapClock {
    let known = |clock: &PortClock| TapClock {
        source: clock.source().name(),
        error_bound_ns: clock.error_ns(now),
    };
    let one = port.and_then(|port| clocks.get(port)).map(known);
    let worst = || {
        let doubt = |clock: &TapClock| clock.error_bound_ns.unwrap_or(u64::MAX);
        clocks.iter().map(known).max_by_key(doubt)
    };
    one.or_else(worst).unwrap_or(TapClock { source: "tsc", error_bound_ns: None })
}

/// The port of each configured tap; `None` for a tap of all ports.
fn tap_ports(plan: &Plan, names: &[String]) -> Vec<Option<usize>> {
    let place = |name: &String| names.iter().position(|port| port == name);
    plan.taps.iter().map(|tap| tap.matches.port.as_ref().and_then(place)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::clock::{Discipline, Sample, SharedConversion};

    const SECOND: u64 = 1_000_000_000;

    /// A clock whose last two readings were `uncertainty_ns` apart from the wall clock.
    fn publish(to: &SharedConversion, at: u64, uncertainty_ns: u64) {
        let sample = |ticks| Sample { ticks, wall: Timestamp(ticks), uncertainty_ns };
        let discipline = Discipline::new(sample(at - SECOND), sample(at)).expect("both move");
        to.publish(&discipline.conversion());
    }

    #[test]
    fn the_bound_is_that_of_now_and_of_the_least_certain_port() {
        let shared = [Arc::<SharedConversion>::default(), Arc::default()];
        publish(&shared[0], 10 * SECOND, 40);
        publish(&shared[1], 10 * SECOND, 9_000);
        let clocks = shared.clone().map(PortClock::of_counter);
        let now = Timestamp(10 * SECOND);
        let bound = |port, now| tap_clock(&clocks, port, now).error_bound_ns.expect("known");
        assert_eq!((bound(Some(0), now), bound(Some(1), now)), (40, 9_000));
        assert_eq!(bound(None, now), 9_000);
        // It grows while the clock is not read, and follows what is published later.
        assert!(bound(Some(0), now + 100 * SECOND) > 1_000);
        publish(&shared[0], 11 * SECOND, 70_000);
        assert_eq!(bound(None, Timestamp(11 * SECOND)), 70_000);
    }
}
