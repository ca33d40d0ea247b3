//! The packet path with a given number of live flows.
//!
//! In: how many flows. Out: [`LiveFlowsReport`]: CPU time per packet, memory, how long a worker does
//! not look at its source, and the rate that a receive ring holds meanwhile.
//! Cost: packets are made in memory while they are needed; that is timed apart and left out.
//! Invariants: only the number of flows differs from size to size. Every flow sends a packet in each
//! quarter of a second of the packets' own time, in an order that no cache can foresee; so packets
//! for each row, rows for each window and steps of expiry for each packet are the same at every
//! size. What is measured begins after all flows have begun and the first window has closed, and
//! lasts for whole windows.

use serde::Serialize;

use crate::config;
use crate::cores;
use crate::counters::DropCause;

use super::super::RuntimeError;
use super::super::pipeline::{join, spawn};
use super::gaps::{self, GapRecorder, GapTable};
use super::pattern::FLOWS_MAX;
use super::ring::DESCRIPTORS;
use super::steady::{Bench, ROUNDS_PER_SECOND, Run};
use super::{Features, ratio};

/// The size that others are held against.
const REFERENCE_FLOWS: u32 = 10_000;

/// Runs of which each turn's shortest is taken.
const GAP_RUNS: usize = 3;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct LiveFlowsOptions {
    /// Live flows of each size, 1 to [`LiveFlowsOptions::FLOWS_MAX`].
    pub flows: Vec<u32>,
    /// Slots of the table; without, the next power of two, twice that where flows end.
    pub slots: Option<u32>,
    /// What is measured.
    pub features: Features,
    /// Measure poll gaps, in a run of their own.
    pub poll_gaps: bool,
}

impl LiveFlowsOptions {
    /// Live flows at most.
    pub const FLOWS_MAX: u32 = FLOWS_MAX;
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct LiveFlowsReport {
    /// What was measured.
    pub features: Features,
    /// Packets of a burst.
    pub burst_packets: u16,
    /// Packets of a flow in a second of the packets' own time.
    pub packets_per_flow_and_second: u64,
    /// In the order asked for.
    pub sizes: Vec<LiveFlowsSize>,
}

/// Figures for one number of flows.
#[derive(Clone, Debug, Serialize)]
pub struct LiveFlowsSize {
    /// Live flows all the time.
    pub flows: u32,
    /// Flows in the table when it was measured; fewer only if it has no room.
    pub flows_in_table: u64,
    /// Slots of the table.
    pub slots_per_worker: u32,
    /// Packets that were measured.
    pub packets: u64,
    /// CPU time of the worker's thread per packet, without making the packets.
    pub ns_per_packet: f64,
    /// As a multiple of that with 10,000 flows, where that was measured as well.
    pub times_10k: Option<f64>,
    /// CPU time of making a packet, which is left out.
    pub making_ns: f64,
    /// Of all booked packets, those in rows that the aggregator had no time for, in percent.
    pub rows_lost_percent: f64,
    /// Packets that are missing in the account; not 0 is a bug.
    pub unaccounted: i64,
    /// Memory.
    pub memory: LiveFlowsMemory,
    /// CPU time from one poll to the next, with flows that end.
    pub poll_gap_us: Option<LiveFlowsGaps>,
}

/// How long a worker does not look at its source.
#[derive(Clone, Debug, Serialize)]
pub struct LiveFlowsGaps {
    /// Runs over the same packets.
    pub runs: usize,
    /// All turns of all runs.
    pub all_runs: GapTable,
    /// Of each turn the shortest of all runs: what the worker itself needs, without what the machine
    /// adds now here, now there.
    pub shortest: GapTable,
    /// Page faults of the worker in all runs.
    pub page_faults: u64,
    /// Packets that a receive ring holds.
    pub descriptors: usize,
    /// Packets a second at which such a ring never overruns, by the turns of the first run.
    pub rate_pps: u64,
    /// The same by the shortest turns.
    pub rate_of_shortest_pps: u64,
}

/// Memory with all flows live.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LiveFlowsMemory {
    /// Resident memory of the whole process; of packets it holds one ring only.
    pub resident_bytes: u64,
    /// Of that, the tables of the worker: flows, rows, copies.
    pub worker_bytes: usize,
    /// Bytes a slot of the table, with its share of the index and all that is kept for each flow.
    pub bytes_per_slot: usize,
    /// The same for each flow that is live.
    pub bytes_per_flow: f64,
    /// The slab for flows whose directions are apart: all it will ever take.
    pub side_slab_bytes: usize,
    /// Flows that found no place in it.
    pub side_slab_refused: u64,
}

/// Measures each size.
///
/// # Errors
/// [`RuntimeError`] where no thread can be had.
pub fn bench_live_flows(options: &LiveFlowsOptions) -> Result<LiveFlowsReport, RuntimeError> {
    let mut sizes = Vec::new();
    for &flows in &options.flows {
        sizes.push(measure(options, flows.clamp(1, FLOWS_MAX))?);
    }
    let reference = sizes.iter().find(|size| size.flows == REFERENCE_FLOWS);
    if let Some(reference_ns) = reference.map(|size| size.ns_per_packet) {
        for size in &mut sizes {
            size.times_10k = Some(size.ns_per_packet / reference_ns);
        }
    }
    Ok(LiveFlowsReport {
        features: options.features,
        burst_packets: burst_packets(),
        packets_per_flow_and_second: ROUNDS_PER_SECOND,
        sizes,
    })
}

fn measure(options: &LiveFlowsOptions, flows: u32) -> Result<LiveFlowsSize, RuntimeError> {
    let steady = Run { options, flows, flows_end: false };
    let (mut size, ledger) = steady.start(Bench::flat)?;
    let lost = [DropCause::WindowRingFull, DropCause::WindowRowsFull];
    let lost = lost.map(|cause| ledger.causes.of(cause)).iter().sum::<u64>();
    size.rows_lost_percent = 100.0 * ratio(lost, lost + ledger.accounted);
    size.unaccounted = ledger.unaccounted;
    if options.poll_gaps {
        size.poll_gap_us = Some(gaps(Run { flows_end: true, ..steady })?);
    }
    Ok(size)
}

fn gaps(run: Run<'_>) -> Result<LiveFlowsGaps, RuntimeError> {
    let (mut runs, mut page_faults) = (Vec::new(), 0);
    let mut recorder = GapRecorder::default();
    for _ in 0..GAP_RUNS {
        let ((gaps, faults), _) = run.start(Bench::gaps)?;
        runs.push(gaps);
        page_faults += faults;
    }
    runs.iter().flatten().for_each(|gap| recorder.note(*gap));
    // Where the worker was.
    let recorder = join(spawn("machine", move || {
        let cores = cores::allowed();
        let (first, others) = cores.split_at(cores.len().min(1));
        let _ = cores::stay_on(first);
        recorder.time_the_machine(others);
        recorder
    })?);
    let shortest = gaps::shortest(&runs);
    let mut of_shortest = GapRecorder::default();
    for gap in &shortest {
        of_shortest.note(*gap);
    }
    let rate = |gaps| gaps::rate_without_overrun(gaps, burst_packets(), DESCRIPTORS);
    Ok(LiveFlowsGaps {
        runs: runs.len(),
        all_runs: recorder.table(),
        shortest: of_shortest.table(),
        page_faults,
        descriptors: DESCRIPTORS,
        rate_pps: runs.first().map_or(0, |run| rate(run)),
        rate_of_shortest_pps: rate(&shortest),
    })
}

fn burst_packets() -> u16 {
    config::replay_without_file().worker.burst_packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_measured_with_all_flows_live_and_held_against_ten_thousand() {
        let options = LiveFlowsOptions {
            flows: vec![10_000, 1_000],
            slots: None,
            features: Features::All,
            poll_gaps: false,
        };
        let report = bench_live_flows(&options).expect("threads can be had");
        let [large, small] = &report.sizes[..] else { panic!("{report:?}") };
        assert_eq!((large.flows_in_table, large.slots_per_worker), (10_000, 10_240));
        assert_eq!((small.flows_in_table, small.slots_per_worker), (1_000, 1_024));
        for size in [large, small] {
            assert!(size.ns_per_packet > 0.0 && size.making_ns > 0.0 && size.unaccounted == 0);
            assert_eq!(size.packets % (4 * u64::from(size.flows)), 0);
            assert!(size.memory.resident_bytes > 1 << 20 && size.memory.side_slab_refused == 0);
        }
        assert_eq!(large.times_10k, Some(1.0));
        assert!(small.times_10k.is_some_and(|times| times > 0.0));
    }

    #[test]
    fn gaps_of_flows_that_end_name_every_chore() {
        let options = LiveFlowsOptions {
            flows: vec![1_500],
            slots: None,
            features: Features::Flow,
            poll_gaps: true,
        };
        let report = bench_live_flows(&options).expect("threads can be had");
        let gaps = report.sizes[0].poll_gap_us.as_ref().expect("asked for");
        let turns = |table: &GapTable| table.causes.iter().map(|line| line.gaps.turns).sum::<u64>();
        assert_eq!(turns(&gaps.all_runs), 3 * turns(&gaps.shortest));
        assert!(gaps.all_runs.machine.is_some() && gaps.shortest.all.max <= gaps.all_runs.all.max);
        assert!(gaps.rate_pps > 0 && gaps.rate_pps <= gaps.rate_of_shortest_pps);
        for chore in ["a window ends", "is told", "expiry", "flows end"] {
            let named = |line: &super::super::CauseGaps| line.cause.contains(chore);
            assert!(gaps.all_runs.causes.iter().any(named), "{chore}: {gaps:?}");
        }
    }
}
