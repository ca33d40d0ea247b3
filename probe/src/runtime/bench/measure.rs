//! Workers with packets in memory, and their CPU time.
//!
//! In: packets of each worker. Out: [`Measured`] of each, with its packets back; the ledger.
//! Cost: where poll gaps are asked for, see `gaps`.
//! Invariants: all workers begin together; the clock of CPU time is read on the worker's own
//! thread, outside the loop where no gaps are asked for.

use std::sync::{Arc, Barrier};

use crate::aggregate::{Aggregator, LedgerTotals};
use crate::capture::memory::{MemorySource, Packets};
use crate::config::Plan;
use crate::cores;
use crate::time::{monotonic_ns, thread_cpu_ns};
use crate::worker::{Turn, Worker, WorkerParts};

use super::super::build::Seat;
use super::super::pipeline::{join, spawn};
use super::super::rest::Rest;
use super::super::{Build, RuntimeError};
use super::gaps::{GapRecorder, GapTable, take_turn};
use super::{BenchOptions, Features, machine};

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
    gaps: Option<GapRecorder>,
}

/// Poll gaps of all workers together, where they were asked for.
pub(super) fn gap_table(measured: &[Measured]) -> Option<GapTable> {
    let mut all: Option<GapRecorder> = None;
    for gaps in measured.iter().filter_map(|worker| worker.gaps.as_ref()) {
        all.get_or_insert_default().merge(gaps);
    }
    all.map(|all| all.table())
}

/// Runs a worker for each part, and the aggregator on what cores they leave.
pub(super) fn run(
    run: &Run<'_>,
    parts: Vec<Packets>,
) -> Result<(Vec<Measured>, Aggregated), RuntimeError> {
    let workers = parts.len();
    // Not waiting for the aggregator, as with a NIC.
    let build = Build::new(run.plan, None, run.ports, (workers, workers), false);
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
pub(in crate::runtime) fn parts_for(seat: Seat, features: Features) -> WorkerParts {
    let parts = seat.parts();
    match features {
        Features::All => parts,
        Features::Flow => {
            WorkerParts { copies: None, path: None, flows: parts.flows.without_measures(), ..parts }
        }
    }
}

fn measure(
    mut worker: Worker<MemorySource>,
    core: Option<u16>,
    start: &Barrier,
    poll_gaps: bool,
) -> Measured {
    let mut gaps = poll_gaps.then(GapRecorder::default);
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
    if let Some(gaps) = &mut gaps {
        gaps.time_the_machine(&[]);
    }
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

fn take_turns_with_gaps(worker: &mut Worker<MemorySource>, gaps: &mut GapRecorder) {
    loop {
        let (turn, gap) = take_turn(worker, || 0);
        if turn == Turn::Ended {
            return;
        }
        gaps.note(gap);
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
    let mut rest = Rest::default();
    loop {
        let more = aggregator.collect();
        while let Some(view) = aggregator.next_view() {
            rows += view.conversations.len() as u64;
            aggregator.recycle(view);
        }
        records += aggregator.take_ended_flows().len() as u64;
        aggregator.take_late_rows();
        if aggregator.has_ended() {
            records += aggregator.take_ended_flows().len() as u64;
            let cpu_ns = thread_cpu_ns() - begun_ns;
            return Aggregated { ledger: aggregator.ledger(), rows, records, cpu_ns };
        }
        rest.after(more);
    }
}
