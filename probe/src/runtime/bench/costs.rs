//! What each thread of a measurement came to.
//!
//! In: a worker's account, the aggregation thread's. Out: [`WorkerCost`], [`AggregatorCost`], and how
//! the work scales.
//! Invariants: CPU time only, so that what shares the cores does not stand in it.

use serde::{Deserialize, Serialize};

use super::measure::{Aggregated, Measured};
use super::ratio;

/// One worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct WorkerCost {
    /// Packets that it received.
    pub packets: u64,
    /// CPU time from the first poll until all flows are ended, in nanoseconds.
    pub cpu_ns: u64,
    /// The same a packet.
    pub ns_per_packet: f64,
}

impl WorkerCost {
    pub(super) fn of(measured: &Measured) -> Self {
        let packets = measured.received_packets;
        let cpu_ns = measured.turns_ns + measured.ending_ns;
        Self { packets, cpu_ns, ns_per_packet: ratio(cpu_ns, packets) }
    }
}

/// Packets of all workers in a second of the CPU time of the slowest; 0 of nothing.
pub(super) fn scaling(workers: &[WorkerCost]) -> f64 {
    let packets = workers.iter().map(|worker| worker.packets).sum();
    let largest_ns = workers.iter().map(|worker| worker.cpu_ns).max().unwrap_or(0);
    1e9 * ratio(packets, largest_ns)
}

/// The aggregation thread, which joins windows and lets them go: no records are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AggregatorCost {
    /// Conversations of all windows.
    pub rows: u64,
    /// Records of ended flows.
    pub records: u64,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
}

impl AggregatorCost {
    pub(super) fn of(aggregated: &Aggregated) -> Self {
        Self { rows: aggregated.rows, records: aggregated.records, cpu_ns: aggregated.cpu_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_worker_decides() {
        let worker = |packets, cpu_ns| WorkerCost { packets, cpu_ns, ns_per_packet: 0.0 };
        let one = scaling(&[worker(1_000, 100_000)]);
        let even = scaling(&[worker(500, 50_000), worker(500, 50_000)]);
        let uneven = scaling(&[worker(900, 90_000), worker(100, 10_000)]);
        assert!((one - 1e7).abs() < 1.0 && (even / one - 2.0).abs() < 1e-9, "{one} {even}");
        assert!((uneven / one - 1.0 / 0.9).abs() < 1e-9, "{uneven}");
        assert!(scaling(&[]).abs() < f64::EPSILON);
    }
}
