//! `bench --plan`: what a machine must have for a given line.
//!
//! In: what a packet costs here (measured now, or a report of before), the memory's latency here,
//! NIC, packet mix, cores. Out: [`SizingReport`]: packets a second, what each core may take, workers
//! needed, highest rate, memory, rings, records, and what runs short first.
//! Cost: a measurement, unless a report is given; the model itself is arithmetic.
//! Invariants: every number that was not measured is an [`Assumptions`] field or a sentence of
//! [`ASSUMED`], and stands in the report; input that makes no sense is an error, never a figure.
//! Source: docs/sizing.md has the formulas.

mod costs;
mod memory;
mod model;
mod traffic;

use std::path::PathBuf;

use serde::Serialize;

use super::{BenchError, BenchOptions};
use crate::generate::GenerateError;
use crate::runtime::table_sizes;
pub use costs::{Costs, Origin};
pub use memory::Latencies;
pub use model::{Assumptions, Bottleneck, Sizing};
pub use traffic::{Encapsulation, Mix, Traffic};

/// What holds for every plan, beside the numbers in [`Assumptions`].
pub const ASSUMED: [&str; 8] = [
    "a packet costs what it cost in the measurement, whatever its size on the wire",
    "a copy costs as much as a first packet, and makes no row",
    "flows are equally busy, so a window has flows x (1 - exp(-packets / flows)) rows, an upper bound",
    "the index and the flow itself miss the caches as random lines of all live flows do; the rest of \
     a packet's lines is in the measurement",
    "the aggregation thread's cost is that of joining windows; making records and files of them is \
     on the same other cores",
    "each worker polls one queue, and the NIC has as many queues",
    "the NIC, PCIe and the driver deliver the line rate of the mix",
    "all cores and all memory are on one NUMA node with the NIC",
];

/// What is asked.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Traffic.
    pub traffic: Traffic,
    /// Cores of the machine, each to be planned for.
    pub cores: Vec<u16>,
    /// A report of `bench --json` with one worker, instead of a measurement.
    pub measured: Option<PathBuf>,
    /// Numbers that are not measured.
    pub assumptions: Assumptions,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nothing could be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// No traffic could be made to measure with.
    #[error("no packets to measure with: {0}")]
    Generate(#[from] GenerateError),
    /// The report cannot be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// The report.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The report is none of one worker.
    #[error("{}: {why}", file.display())]
    NotAReport {
        /// The report.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A number is out of its range.
    #[error("{name}: {value} is not within {least} to {most}")]
    OutOfRange {
        /// What it is.
        name: &'static str,
        /// What was asked for.
        value: f64,
        /// Smallest.
        least: f64,
        /// Largest.
        most: f64,
    },
    /// No core is left for a worker.
    #[error("{cores} cores, of which {other_cores} are for other threads, leave none for a worker")]
    NoWorker {
        /// Cores of the machine.
        cores: u16,
        /// Of these, for other threads.
        other_cores: u16,
    },
}

/// The plan.
#[derive(Clone, Debug, Serialize)]
pub struct SizingReport {
    /// What comes.
    pub traffic: Traffic,
    /// Octets of a frame on the wire on average, with preamble, gap and FCS.
    pub wire_octets_mean: f64,
    /// Packets a second when the line is full.
    pub line_packets_per_second: f64,
    /// What a packet costs here.
    pub costs: Costs,
    /// What memory costs here.
    pub memory: Latencies,
    /// Numbers that are not measured.
    pub assumptions: Assumptions,
    /// What else is assumed.
    pub assumed: [&'static str; 8],
    /// A plan for each number of cores.
    pub plans: Vec<Sizing>,
}

/// Measures, or reads what was measured, and plans.
///
/// # Errors
/// [`PlanError`], before anything is measured where the options make no sense.
pub fn plan(options: &PlanOptions, bench: &BenchOptions) -> Result<SizingReport, PlanError> {
    options.traffic.check()?;
    options.assumptions.check(&options.cores)?;
    let costs = costs::gather(options, bench)?;
    let memory = Latencies::measure(costs.flow_table_bytes());
    let model = model::Model {
        traffic: &options.traffic,
        costs: &costs,
        memory: &memory,
        assumptions: &options.assumptions,
        sizes: &table_sizes(),
    };
    let plans = options.cores.iter().map(|&cores| model.size(cores)).collect();
    Ok(SizingReport {
        traffic: options.traffic.clone(),
        wire_octets_mean: options.traffic.wire_octets_mean(),
        line_packets_per_second: options.traffic.line_packets_per_second(),
        assumptions: options.assumptions.clone(),
        assumed: ASSUMED,
        costs,
        memory,
        plans,
    })
}

/// `value` if it is a number within the range.
fn within(name: &'static str, value: f64, least: f64, most: f64) -> Result<(), PlanError> {
    // A value that is no number is within nothing.
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(PlanError::OutOfRange { name, value, least, most })
}
