//! Workers with packets in memory, and their CPU time.
//!
//! In: packets of each worker. Out: [`Measured`] of each, with its packets back; the ledger.
//! Cost: poll gaps read a clock each turn, which costs hundreds of ns and stands in them.
//! Invariants: all workers begin together; the clock of CPU time is read on the worker's own
//! thread, outside the loop where no gaps are asked for.

use std::sync::{Arc, Barrier};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::aggregate::{Aggregator, LedgerTotals};
use crate::capture::memory::{MemorySource, Packets};
use crate::config::Plan;
use crate::cores;
use crate::inventory::{Inventory, InventoryData};
use crate::time::{monotonic_ns, sleep_ms, thread_cpu_ns};
use crate::worker::{Turn, Worker, WorkerParts};

use super::super::build::Seat;
use super::super::pipeline::{join, spawn};
use super::super::{Build, RuntimeError};
use super::{BenchOptions, Features, machine, ratio};

/// Longer gaps count as this long.
const GAP_MAX_NS: u64 = 60_000_000_000;

/// Digits of a gap that are kept.
const GAP_DIGITS: u8 = 3;

/// What one run needs.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Arc<Plan>,
    pub(super) ports: &'a [String],
    pub(super) options: &'a BenchOptions,
    pub(super) poll_gaps: bool,
}

/// What one worker came to.
pub(super) struct Measured {
    pub(super) packets: Packets,
    pub(super) core: Option<u16>,
    pub(super) received_packets: u64,
    pub(super) flows: u64,
    /// CPU time of the turns.
    pub(super) turns_ns: u64,
    /// CPU time of ending all flows after them.
    pub(super) ending_ns: u64,
    pub(super) begun_ns: u64,
    pub(super) ended_ns: u64,
    pub(super) bytes_per_flow: usize,
    pub(super) resident_bytes: u64,
    gaps: Option<Histogram<u64>>,
}

/// CPU time from one poll to the next in microseconds: what a receive ring must hold.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Gaps {
    /// Half of the gaps are at most so long.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
}

impl Gaps {
    /// Of all workers together.
    pub(super) fn of(measured: &[Measured]) -> Option<Self> {
        let mut all = empty_gaps()?;
        for gaps in measured.iter().filter_map(|worker| worker.gaps.as_ref()) {
            // Both have the same bounds, so it cannot fail.
            let _ = all.add(gaps);
        }
        let microseconds = |quantile: f64| ratio(all.value_at_quantile(quantile), 1_000);
        Some(Self {
            p50: microseconds(0.5),
            p99: microseconds(0.99),
            p9999: microseconds(0.9999),
            max: ratio(all.max(), 1_000),
        })
    }
}

fn empty_gaps() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, GAP_MAX_NS, GAP_DIGITS).ok()
}

/// Runs a worker for each part, and the aggregator on what cores they leave.
pub(super) fn run(
    run: &Run<'_>,
    parts: Vec<Packets>,
) -> Result<(Vec<Measured>, Aggregated), RuntimeError> {
    let workers = parts.len();
    let inventory = Inventory::new(InventoryData::default(), &[]);
    // Not waiting for the aggregator, as with a NIC.
    let build = Build::new(run.plan, &inventory, run.ports, (workers, workers), false);
    let cores = cores::allowed();
    let aggregator = Aggregator::new(build.handoffs, build.windows, run.plan.window.rows_max);
    let rest: Vec<u16> = cores.iter().skip(workers).copied().collect();
    let aggregation = spawn("aggregator", move || {
        // Where no core is left it shares them.
        let _ = cores::stay_on(&rest);
        aggregate(aggregator)
    })?;
    let start = Arc::new(Barrier::new(workers));
    let mut threads = Vec::new();
    for (seat, packets) in build.seats.into_iter().zip(parts) {
        let core = cores.get(seat.place() % cores.len().max(1)).copied();
        let (start, options, poll_gaps) = (Arc::clone(&start), run.options.clone(), run.poll_gaps);
        threads.push(spawn(&format!("worker-{}", seat.place()), move || {
            let core = core.filter(|&core| cores::stay_on(&[core]).is_ok());
            let burst_packets = usize::from(seat.burst_packets());
            let source = packets.source(burst_packets, options.passes);
            let worker = Worker::new(Some(source), parts_for(seat, options.features));
            measure(worker, core, &start, poll_gaps)
        })?);
    }
    let measured = threads.into_iter().map(join).collect();
    Ok((measured, join(aggregation)))
}

/// The parts of a worker without what is not asked for.
pub(super) fn parts_for(seat: Seat, features: Features) -> WorkerParts {
    let parts = seat.parts();
    match features {
        Features::All => parts,
        Features::Flow => {
            WorkerParts { copies: None, flows: parts.flows.without_measures(), ..parts }
        }
    }
}

fn measure(
    mut worker: Worker<MemorySource>,
    core: Option<u16>,
    start: &Barrier,
    poll_gaps: bool,
) -> Measured {
    let mut gaps = if poll_gaps { empty_gaps() } else { None };
    start.wait();
    let begun_ns = monotonic_ns();
    let begun_cpu_ns = thread_cpu_ns();
    match &mut gaps {
        Some(gaps) => take_turns_with_gaps(&mut worker, gaps),
        None => take_turns(&mut worker),
    }
    let turned_cpu_ns = thread_cpu_ns();
    end_flows(&mut worker);
    let ended_cpu_ns = thread_cpu_ns();
    let ended_ns = monotonic_ns();
    let resident_bytes = machine::resident_bytes();
    let totals = *worker.totals();
    let bytes_per_flow = worker.flows().bytes_per_flow();
    Measured {
        packets: worker.into_source().map(MemorySource::into_packets).unwrap_or_default(),
        core,
        received_packets: totals.received_packets,
        flows: totals.flows_created,
        turns_ns: turned_cpu_ns - begun_cpu_ns,
        ending_ns: ended_cpu_ns - turned_cpu_ns,
        begun_ns,
        ended_ns,
        bytes_per_flow,
        resident_bytes,
        gaps,
    }
}

/// What is measured; a function of its own, so that tools which count instructions find it.
#[inline(never)]
fn take_turns(worker: &mut Worker<MemorySource>) {
    while worker.turn() != Turn::Ended {}
}

/// The other part of what is measured.
#[inline(never)]
fn end_flows(worker: &mut Worker<MemorySource>) {
    worker.finish();
}

fn take_turns_with_gaps(worker: &mut Worker<MemorySource>, gaps: &mut Histogram<u64>) {
    let mut before_ns = thread_cpu_ns();
    while worker.turn() != Turn::Ended {
        let now_ns = thread_cpu_ns();
        gaps.saturating_record(now_ns - before_ns);
        before_ns = now_ns;
    }
}

/// What the aggregation thread came to.
pub(super) struct Aggregated {
    pub(super) ledger: LedgerTotals,
    /// Conversations of all windows.
    pub(super) rows: u64,
    /// Records of ended flows.
    pub(super) records: u64,
    /// CPU time of joining them and letting them go.
    pub(super) cpu_ns: u64,
}

/// Takes everything and lets it go.
pub(super) fn aggregate(mut aggregator: Aggregator) -> Aggregated {
    let begun_ns = thread_cpu_ns();
    let (mut rows, mut records) = (0, 0);
    loop {
        let any = aggregator.collect();
        while let Some(view) = aggregator.next_view() {
            rows += view.conversations.len() as u64;
        }
        records += aggregator.take_ended_flows().len() as u64;
        if aggregator.has_ended() {
            let cpu_ns = thread_cpu_ns() - begun_ns;
            return Aggregated { ledger: aggregator.ledger(), rows, records, cpu_ns };
        }
        if !any {
            sleep_ms(1);
        }
    }
}
