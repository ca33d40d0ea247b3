//! `bench`: the packet path on packets in memory.
//!
//! In: a capture, which is loaded first. Out: [`BenchReport`]: CPU time per packet, where it goes,
//! and how long a worker does not look at its source.
//! Cost: the capture in memory, twice while it is dealt out to several workers.
//! Invariants: the workers are those of `run`, with the same behaviour towards the aggregator: it is
//! never waited for, and what it could not take stands in the ledger. Each worker is pinned and has
//! packets of its own in which both directions of a flow meet, so nothing is passed between them.
//! Every run begins with cold tables.
//! Source: CPU time of a thread, `CLOCK_THREAD_CPUTIME_ID` (POSIX.1-2008).

pub mod aggregator;
mod beside_query;
mod costs;
mod day;
mod gaps;
pub mod inventory;
mod latency;
mod live_flows;
mod machine;
mod measure;
mod pattern;
pub mod plan;
mod ring;
mod rings;
pub mod sinks;
mod spread;
mod stages;
mod steady;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::capture::file::{FileSource, OpenError};
use crate::capture::memory::{MemoryError, Packets};
use crate::config::{self, Plan, Spread};
use crate::decode::{DecodeContext, Decoder, Headers};
use crate::index::WorkerIndex;
use crate::spread::{FlowKey, HashSeed, owner};

use super::{ReportLedger, RuntimeError};
pub use beside_query::{BesideQueryOptions, BesideQueryReport, bench_beside_query};
pub use costs::{AggregatorCost, WorkerCost};
pub use gaps::{ByBothClocks, CauseGaps, GapTable, Gaps};
pub use live_flows::{
    LiveFlowsGaps, LiveFlowsMemory, LiveFlowsOptions, LiveFlowsReport, LiveFlowsSize,
    bench_live_flows,
};
#[cfg(feature = "dpdk")]
pub(super) use measure::parts_for;
use measure::{Measured, Run};
pub use spread::{SpreadCost, SpreadFrom};
pub use stages::Stages;

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Features {
    /// Decoding, flows and windows, without copies and applications.
    Flow,
    /// All that `run` does.
    #[default]
    All,
}

/// What a measurement is asked to do.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The capture.
    pub file: PathBuf,
    /// Workers, each on a core of its own, 1–64.
    pub workers: u16,
    /// How often the packets are given, at least 1.
    pub passes: u32,
    /// Flows a worker at most, a power of two; as configured by default without.
    pub slots: Option<u32>,
    /// What is measured.
    pub features: Features,
    /// Measure poll gaps, in a run of their own.
    pub poll_gaps: bool,
    /// Measure what passing packets between workers costs, in runs of their own with at least two.
    pub spread: Option<SpreadFrom>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The packet path could not start.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The capture does not fit.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The capture cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing to measure.
    #[error("{} holds no packets", .0.display())]
    Empty(PathBuf),
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Packets given to all workers, over all passes.
    pub packets: u64,
    /// Their original lengths in octets.
    pub octets: u64,
    /// Biflows begun.
    pub flows: u64,
    /// Workers.
    pub workers: u16,
    /// Times the packets were given.
    pub passes: u32,
    /// Packets of a burst.
    pub burst_packets: u16,
    /// Flows a worker at most.
    pub slots_per_worker: u32,
    /// What was measured.
    pub features: Features,
    /// Core of each worker; shorter than `workers` where no core could be had.
    pub cores: Vec<u16>,
    /// CPU time of all workers from their first poll until all flows are ended and handed over,
    /// divided by `packets`.
    pub ns_per_packet: f64,
    /// The same in ticks of the time stamp counter, where its rate is known.
    pub cycles_per_packet: Option<f64>,
    /// Packets of all workers in a second of wall time, from the first start to the last end.
    pub packets_per_second: f64,
    /// Each worker's packets and CPU time.
    pub per_worker: Vec<WorkerCost>,
    /// Packets of all workers by the largest CPU time of one of them, a second: what so many cores
    /// of their own would do, whoever shares the cores of this run.
    pub scaling: f64,
    /// What the aggregation thread did meanwhile.
    pub aggregator: AggregatorCost,
    /// What passing packets between workers costs.
    pub spread: Option<SpreadCost>,
    /// Where the time goes.
    pub stages: Stages,
    /// CPU time of a worker from one poll to the next, by what it did.
    pub poll_gap_us: Option<GapTable>,
    /// Bytes of memory a flow with its share of the index, when the table is full.
    pub bytes_per_flow: usize,
    /// Resident memory of the process with all packets at the end of the run.
    pub resident_bytes: u64,
    /// Of that, the packets.
    pub packet_bytes: u64,
    /// The account; what the aggregator could not take is a cause in it.
    pub ledger: ReportLedger,
    /// What is wrong with a capture that ended before its end.
    pub errors: Vec<String>,
}

/// Loads the capture and measures.
///
/// # Errors
/// [`BenchError`] where there is nothing to measure with.
pub fn bench(options: &BenchOptions) -> Result<BenchReport, BenchError> {
    let plan = Arc::new(plan_of(options));
    let (packets, ports, errors) = load(options, &plan)?;
    let packet_bytes = packets.bytes() as u64;
    let octets = packets.octets() * u64::from(options.passes);
    let (spread, packets) = match options.spread {
        None => (None, packets),
        Some(from) => {
            let (cost, packets) = spread::measure(packets, &plan, &ports, options, from)?;
            (Some(cost), packets)
        }
    };
    let parts = deal_out(packets, &plan, &ports, options.workers);
    let run = |parts, poll_gaps| {
        measure::run(&Run { plan: &plan, ports: &ports, options, poll_gaps }, parts)
    };
    let (measured, aggregated) = run(parts, false)?;
    let mut report = report(options, &plan, &measured);
    report.octets = octets;
    report.packet_bytes = packet_bytes;
    report.ledger = ReportLedger::new(&aggregated.ledger, &[]);
    report.aggregator = AggregatorCost::of(&aggregated);
    report.spread = spread;
    report.errors = errors;
    let mut parts = packets_of(measured);
    if options.poll_gaps {
        let (measured, _) = run(parts, true)?;
        report.poll_gap_us = measure::gap_table(&measured);
        parts = packets_of(measured);
    }
    let cumulative_ns = stages::measure(&plan, &ports, options, parts)?;
    report.stages.fill(cumulative_ns, report.ns_per_packet, options.features);
    Ok(report)
}

/// The defaults of a replay: every packet is traffic, so passes do not look like copies.
fn plan_of(options: &BenchOptions) -> Plan {
    let mut plan = config::replay_without_file();
    plan.worker.count = options.workers;
    plan.worker.spread = Spread::Never;
    if let Some(slots) = options.slots {
        plan.flow.slots_per_worker = slots;
    }
    plan
}

/// The packets, the names of their ports, and what is wrong with the file.
fn load(
    options: &BenchOptions,
    plan: &Plan,
) -> Result<(Packets, Vec<String>, Vec<String>), BenchError> {
    let mut source = FileSource::open(&[&options.file], usize::from(plan.worker.burst_packets))?;
    // Dealing out holds them twice for a while.
    let share = if options.workers == 1 { 1 } else { 2 };
    let bytes_max = usize::try_from(machine::available_bytes() / share).unwrap_or(usize::MAX);
    let packets = Packets::load(&mut source, bytes_max)?;
    if packets.is_empty() {
        return Err(BenchError::Empty(options.file.clone()));
    }
    let errors = source.errors().iter().map(ToString::to_string).collect();
    Ok((packets, source.ports().to_vec(), errors))
}

/// One part for each worker, by a hash of segment, addresses and protocol: both directions of a
/// flow meet, and so do fragments, which have no ports. What cannot be decoded goes to the first.
fn deal_out(packets: Packets, plan: &Plan, ports: &[String], workers: u16) -> Vec<Packets> {
    if workers == 1 {
        return vec![packets];
    }
    let decoder = Decoder::new(&DecodeContext::new(plan, ports));
    let mut headers = Headers::default();
    let seed = HashSeed::fixed();
    packets.split(workers, |frame| {
        if decoder.decode(frame, frame.timestamp, &mut headers).is_err() {
            return WorkerIndex(0);
        }
        let key = FlowKey { low_port: 0, high_port: 0, ..FlowKey::of(&headers).0 };
        WorkerIndex(u16::try_from(owner(key.hash(seed), workers.into())).unwrap_or(0))
    })
}

fn packets_of(measured: Vec<Measured>) -> Vec<Packets> {
    measured.into_iter().map(|worker| worker.packets).collect()
}

fn report(options: &BenchOptions, plan: &Plan, measured: &[Measured]) -> BenchReport {
    let sum = |of: fn(&Measured) -> u64| measured.iter().map(of).sum::<u64>();
    let packets = sum(|worker| worker.received_packets);
    let per_packet = |ns: u64| ratio(ns, packets);
    let ns_per_packet = per_packet(sum(|worker| worker.turns_ns) + sum(|worker| worker.ending_ns));
    let begun_ns = measured.iter().map(|worker| worker.begun_ns).min().unwrap_or(0);
    let ended_ns = measured.iter().map(|worker| worker.ended_ns).max().unwrap_or(0);
    let per_worker: Vec<_> = measured.iter().map(WorkerCost::of).collect();
    BenchReport {
        packets,
        octets: 0,
        flows: sum(|worker| worker.flows),
        workers: options.workers,
        passes: options.passes,
        burst_packets: plan.worker.burst_packets,
        slots_per_worker: plan.flow.slots_per_worker,
        features: options.features,
        cores: measured.iter().filter_map(|worker| worker.core).collect(),
        ns_per_packet,
        cycles_per_packet: machine::ticks_per_ns().map(|rate| ns_per_packet * rate),
        packets_per_second: 1e9 * ratio(packets, ended_ns.saturating_sub(begun_ns)),
        scaling: costs::scaling(&per_worker),
        per_worker,
        aggregator: AggregatorCost::default(),
        spread: None,
        stages: Stages {
            ending_ns: per_packet(sum(|worker| worker.ending_ns)),
            ..Stages::default()
        },
        poll_gap_us: None,
        bytes_per_flow: measured.first().map_or(0, |worker| worker.bytes_per_flow),
        resident_bytes: measured.iter().map(|worker| worker.resident_bytes).max().unwrap_or(0),
        packet_bytes: 0,
        ledger: ReportLedger::default(),
        errors: Vec::new(),
    }
}

/// `part / whole`, 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "16 digits are enough for figures that are read")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::file::PcapWriter;
    use crate::time::Timestamp;

    /// UDP between ten pairs, there and back.
    fn capture(name: &str, packets: u16) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("vmprobe-bench-{}-{name}.pcap", std::process::id()));
        let file = std::fs::File::create(&path).expect("the temporary folder takes files");
        let mut writer = PcapWriter::new(file, 1, true).expect("a file takes all");
        for number in 0..packets {
            let [_, pair] = (number / 2 % 10).to_be_bytes();
            let back = number % 2 == 1;
            let ends = [[10, 0, 0, pair], [10, 0, 1, pair]];
            let (from, to) = if back { (ends[1], ends[0]) } else { (ends[0], ends[1]) };
            let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4(from, to, 64)
                .udp(if back { 9 } else { 5_000 }, if back { 5_000 } else { 9 });
            let mut frame = Vec::new();
            builder.write(&mut frame, &[7; 20]).expect("a vector takes all");
            let stamp = Timestamp::from_parts(1_000, u64::from(number) * 10_000_000);
            let octets = u32::try_from(frame.len()).expect("short");
            writer.write(stamp, octets, &frame).expect("a file takes all");
        }
        writer.finish().expect("a file takes all");
        path
    }

    fn options(file: PathBuf) -> BenchOptions {
        BenchOptions {
            file,
            workers: 1,
            passes: 1,
            slots: Some(1_024),
            features: Features::All,
            poll_gaps: false,
            spread: None,
        }
    }

    #[test]
    fn every_packet_is_accounted_for() {
        let file = capture("one", 600);
        let report = bench(&options(file.clone())).expect("it can be read");
        std::fs::remove_file(file).expect("it was there");
        assert_eq!((report.packets, report.flows, report.ledger.unaccounted), (600, 10, 0));
        assert_eq!(report.ledger.received, 600);
        assert!(report.ns_per_packet > 0.0 && report.stages.decode_ns > 0.0, "{report:?}");
        assert!(report.stages.copies_ns.is_some() && report.poll_gap_us.is_none());
        assert!(report.resident_bytes > report.packet_bytes);
        let stages = &report.stages;
        let sum = stages.read_ns
            + stages.decode_ns
            + stages.hash_ns
            + stages.flow_ns
            + stages.ending_ns
            + stages.copies_ns.unwrap_or(0.0);
        assert!((sum - report.ns_per_packet).abs() < 0.01, "{report:?}");
    }

    #[test]
    fn workers_and_passes_multiply_packets_and_keep_flows_together() {
        let file = capture("two", 600);
        let options = BenchOptions {
            workers: 2,
            passes: 3,
            features: Features::Flow,
            poll_gaps: true,
            ..options(file.clone())
        };
        let report = bench(&options).expect("it can be read");
        std::fs::remove_file(file).expect("it was there");
        // A pass lasts 6 s, less than any timeout, so the flows of the first go on.
        assert_eq!((report.packets, report.flows, report.ledger.unaccounted), (1_800, 10, 0));
        assert!(report.stages.copies_ns.is_none());
        let gaps = report.poll_gap_us.expect("asked for");
        let all = gaps.all;
        assert!(all.p50 > 0.0 && all.p50 <= all.p99 && all.p9999 <= all.max, "{gaps:?}");
        assert_eq!(gaps.causes.iter().map(|line| line.gaps.turns).sum::<u64>(), all.turns);
    }

    #[test]
    fn all_that_is_passed_on_is_taken() {
        let file = capture("spread", 600);
        for (from, passed) in [(SpreadFrom::One, 0..601), (SpreadFrom::Each, 600..601)] {
            let options = BenchOptions { workers: 2, spread: Some(from), ..options(file.clone()) };
            let report = bench(&options).expect("it can be read");
            let cost = report.spread.expect("asked for");
            assert!(passed.contains(&cost.passed_packets), "{cost:?}");
            assert!(cost.alone_ns_per_packet > 0.0 && cost.together_ns_per_packet > 0.0);
            assert!(cost.sending_ns_per_packet > 0.0 && cost.taking_ns_per_packet > 0.0);
            let packets: u64 = report.per_worker.iter().map(|worker| worker.packets).sum();
            assert_eq!((report.per_worker.len(), packets, report.packets), (2, 600, 600));
            assert!(report.scaling > 0.0);
        }
        std::fs::remove_file(file).expect("it was there");
    }

    #[test]
    fn nothing_to_measure_is_an_error() {
        let file = capture("none", 0);
        let outcome = bench(&options(file.clone()));
        std::fs::remove_file(file).expect("it was there");
        assert!(matches!(outcome, Err(BenchError::Empty(_))));
    }
}
