//! What it costs that workers pass packets on by software.
//!
//! In: all packets. Out: [`SpreadCost`]: CPU time of several workers who pass packets to the owners
//! of their flows through the rings of `run`, beside that of one worker who owns all.
//! Cost: two runs over the packets, the second with tables for each worker, and a run of a ring.
//! Invariants: what is compared are the same packets, features and burst size. Waiting is not
//! counted: a worker with nothing to take waits until there is a stretch of work, a sender stops
//! before a ring is full, and both read their clock around it. All that is passed is taken; no wait
//! is longer than [`WAIT_MS_MAX`], so a run ends whatever happens.
//! Source: CPU time of a thread, `CLOCK_THREAD_CPUTIME_ID` (POSIX.1-2008).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use crossbeam::utils::CachePadded;
use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregator;
use crate::capture::memory::{MemorySource, Packets};
use crate::config::{Plan, Spread};
use crate::cores;
use crate::index::WorkerIndex;
use crate::time::{monotonic_ns, ms, thread_cpu_ns};
use crate::worker::{Turn, Worker, WorkerParts};

use super::super::pipeline::{join, spawn};
use super::super::{Build, RuntimeError};
use super::{BenchOptions, measure, ratio, rings};

/// Packets that a sender may be ahead of those who take, far less than a ring holds.
const AHEAD_BURSTS: u64 = 16;

/// An owner that waits goes on when so many bursts are there, so that it reads its clock seldom.
const STRETCH_BURSTS: u64 = 6;

/// Longest wait.
const WAIT_MS_MAX: u64 = 50;

/// Looks at the others between two yields of the core.
const SPINS: u32 = 64;

/// Who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpreadFrom {
    /// One worker receives all packets; the others own flows only.
    One,
    /// Each worker receives every N-th packet, whatever its flow.
    Each,
}

/// Nanoseconds of CPU time, waiting left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpreadCost {
    /// Who receives.
    pub from: SpreadFrom,
    /// Workers.
    pub workers: u16,
    /// Packets that went through a ring, over all passes.
    pub passed_packets: u64,
    /// One worker that owns all flows, a packet.
    pub alone_ns_per_packet: f64,
    /// All workers together, a packet.
    pub together_ns_per_packet: f64,
    /// What spreading adds to each packet received: the difference of the two. Tables that are cut
    /// up over workers work the other way.
    pub added_ns_per_packet: f64,
    /// What a ring by itself costs its sender, a packet passed.
    pub sending_ns_per_packet: f64,
    /// What a ring by itself costs its receiver, a packet passed.
    pub taking_ns_per_packet: f64,
}

/// Measures; the packets come back.
pub(super) fn measure(
    packets: Packets,
    plan: &Plan,
    ports: &[String],
    options: &BenchOptions,
    from: SpreadFrom,
) -> Result<(SpreadCost, Packets), RuntimeError> {
    let run = |count: u16, spread, parts| {
        let mut plan = plan.clone();
        plan.worker.count = count;
        plan.worker.spread = spread;
        together(&Arc::new(plan), ports, options, parts)
    };
    let (alone, mut packets) = run(1, Spread::Never, vec![packets])?;
    let workers = options.workers.max(2);
    let whole = packets.pop().unwrap_or_default();
    let (spread, packets) = match from {
        SpreadFrom::One => {
            let (spread, mut parts) = run(workers, Spread::Auto, vec![whole])?;
            (spread, parts.pop().unwrap_or_default())
        }
        SpreadFrom::Each => {
            let mut turn = 0;
            let parts = whole.split(workers, |_| {
                turn = (turn + 1) % workers;
                WorkerIndex(turn)
            });
            (run(workers, Spread::Auto, parts)?.0, whole)
        }
    };
    let [sending_ns_per_packet, taking_ns_per_packet] = rings::measure(plan, workers)?;
    let (alone_ns_per_packet, together_ns_per_packet) =
        (ratio(alone.cpu_ns, alone.received), ratio(spread.cpu_ns, spread.received));
    let cost = SpreadCost {
        from,
        workers,
        passed_packets: spread.taken,
        alone_ns_per_packet,
        together_ns_per_packet,
        added_ns_per_packet: together_ns_per_packet - alone_ns_per_packet,
        sending_ns_per_packet,
        taking_ns_per_packet,
    };
    Ok((cost, packets))
}

/// Sums of one worker, or of all.
#[derive(Clone, Copy, Default)]
struct Sums {
    received: u64,
    taken: u64,
    cpu_ns: u64,
}

/// Runs `plan.worker.count` workers, the first of which have the parts; gives the parts back.
fn together(
    plan: &Arc<Plan>,
    ports: &[String],
    options: &BenchOptions,
    parts: Vec<Packets>,
) -> Result<(Sums, Vec<Packets>), RuntimeError> {
    let workers = usize::from(plan.worker.count);
    let receivers = parts.len();
    let build = Build::new(plan, None, ports, (receivers, workers), false);
    let aggregator = Aggregator::new(build.handoffs, build.windows, plan.window.rows_max);
    let cores = cores::allowed();
    let rest: Vec<u16> = cores.iter().skip(workers).copied().collect();
    let aggregation = spawn("aggregator", move || {
        // Where no core is left it shares them.
        let _ = cores::stay_on(&rest);
        measure::aggregate(aggregator)
    })?;
    let progress = Arc::new(Progress::new(&parts, workers, plan, options));
    let start = Arc::new(Barrier::new(workers));
    let mut parts = parts.into_iter();
    let mut threads = Vec::new();
    for seat in build.seats {
        let place = seat.place();
        let core = cores.get(place % cores.len().max(1)).copied();
        let (start, progress, options) =
            (Arc::clone(&start), Arc::clone(&progress), options.clone());
        let source =
            parts.next().map(|part| part.source(seat.burst_packets().into(), options.passes));
        threads.push(spawn(&format!("worker-{place}"), move || {
            // Elsewhere it measures as well, only less steadily.
            let _ = cores::stay_on(core.as_slice());
            // What is passed is waited for; the aggregator is not.
            let parts = WorkerParts { waits: true, ..measure::parts_for(seat, options.features) };
            work(Worker::new(source, parts), place, &progress, &start)
        })?);
    }
    let mut all = Sums::default();
    let mut parts = Vec::new();
    for (sums, packets) in threads.into_iter().map(join) {
        all.received += sums.received;
        all.taken += sums.taken;
        all.cpu_ns += sums.cpu_ns;
        parts.extend(packets);
    }
    join(aggregation);
    Ok((all, parts))
}

fn work(
    mut worker: Worker<MemorySource>,
    place: usize,
    progress: &Progress,
    start: &Barrier,
) -> (Sums, Option<Packets>) {
    start.wait();
    let begun_ns = thread_cpu_ns();
    let mut waited_ns = 0;
    loop {
        let turn = worker.turn();
        progress.note(place, &worker);
        match turn {
            Turn::Ended => break,
            Turn::Busy if !progress.is_ahead(place) => {}
            Turn::Busy => waited_ns += wait_until(|| !progress.is_ahead(place)),
            Turn::Idle => waited_ns += wait_until(|| progress.has_a_stretch()),
        }
    }
    worker.finish();
    let cpu_ns = (thread_cpu_ns() - begun_ns).saturating_sub(waited_ns);
    let totals = worker.totals();
    let sums = Sums { received: totals.received_packets, taken: totals.spread_in_packets, cpu_ns };
    (sums, worker.into_source().map(MemorySource::into_packets))
}

/// Waits within bounds; gives the CPU time that it took.
pub(super) fn wait_until(condition: impl Fn() -> bool) -> u64 {
    let begun_cpu_ns = thread_cpu_ns();
    let end_ns = monotonic_ns() + ms(WAIT_MS_MAX);
    'waiting: loop {
        for _ in 0..SPINS {
            if condition() {
                break 'waiting;
            }
            std::hint::spin_loop();
        }
        if monotonic_ns() >= end_ns {
            break;
        }
        std::thread::yield_now();
    }
    thread_cpu_ns() - begun_cpu_ns
}

/// How far each worker is, for the others to see.
struct Progress {
    workers: Vec<CachePadded<Counts>>,
    receivers: usize,
    /// Packets that each source gives.
    expected: Vec<u64>,
    ahead_packets: u64,
    stretch_packets: u64,
}

#[derive(Default)]
struct Counts {
    received: AtomicU64,
    passed: AtomicU64,
    taken: AtomicU64,
}

impl Progress {
    fn new(parts: &[Packets], workers: usize, plan: &Plan, options: &BenchOptions) -> Self {
        let burst = u64::from(plan.worker.burst_packets);
        Self {
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
            receivers: parts.len(),
            expected: parts
                .iter()
                .map(|part| part.len() as u64 * u64::from(options.passes))
                .collect(),
            ahead_packets: AHEAD_BURSTS * burst,
            stretch_packets: STRETCH_BURSTS * burst,
        }
    }

    fn note(&self, place: usize, worker: &Worker<MemorySource>) {
        let totals = worker.totals();
        let counts = &self.workers[place];
        counts.received.store(totals.received_packets, Ordering::Relaxed);
        counts.passed.store(totals.spread_out_packets, Ordering::Relaxed);
        counts.taken.store(totals.spread_in_packets, Ordering::Release);
    }

    /// Whether a worker with a source would only fill rings. The one that is furthest behind is
    /// never ahead, so not all wait.
    fn is_ahead(&self, place: usize) -> bool {
        if place >= self.receivers || self.is_through(place) {
            return false;
        }
        if self.receivers == 1 {
            return self.under_way() > self.ahead_packets;
        }
        let others = (0..self.receivers).filter(|&other| other != place && !self.is_through(other));
        let slowest = others.map(|other| self.received(other)).min();
        slowest.is_some_and(|slowest| self.received(place) > slowest + self.ahead_packets)
    }

    /// Whether there is enough to go on with, or nothing to wait for.
    fn has_a_stretch(&self) -> bool {
        self.under_way() >= self.stretch_packets
            || (0..self.receivers).all(|place| self.is_through(place))
    }

    fn received(&self, place: usize) -> u64 {
        self.workers[place].received.load(Ordering::Relaxed)
    }

    fn is_through(&self, place: usize) -> bool {
        self.received(place) >= self.expected[place]
    }

    fn under_way(&self) -> u64 {
        let sum = |of: fn(&Counts) -> &AtomicU64, order| {
            self.workers.iter().map(|counts| of(counts).load(order)).sum::<u64>()
        };
        let taken = sum(|counts| &counts.taken, Ordering::Acquire);
        sum(|counts| &counts.passed, Ordering::Relaxed).saturating_sub(taken)
    }
}
