//! `vmprobe bench --live-flows`.

use vmprobe::runtime::bench::{
    GapTable, Gaps, LiveFlowsOptions, LiveFlowsReport, LiveFlowsSize, RingReport, bench_live_flows,
};

use super::output::{self, Outcome};

/// Measures and prints.
pub(crate) fn bench(options: &LiveFlowsOptions, as_json: bool) -> Outcome {
    let report = match bench_live_flows(options) {
        Ok(report) => report,
        Err(error) => return output::failed(&error),
    };
    if as_json {
        output::json(&report);
    } else {
        print(&report);
    }
    let whole = report.sizes.iter().all(|size| size.unaccounted == 0);
    if whole { Outcome::Success } else { Outcome::Failure }
}

fn print(report: &LiveFlowsReport) {
    output::line(format_args!(
        "Packets of 60 octets, {} a second of each flow; a burst is {} packets\n\n{:>10}{:>10}{:>10}{:>14}{:>14}{:>14}{:>14}",
        report.packets_per_flow_and_second,
        report.burst_packets,
        "flows",
        "ns/packet",
        "x 10 k",
        "bytes/flow",
        "resident MiB",
        "side slab KiB",
        "rows lost %"
    ));
    for size in &report.sizes {
        let memory = &size.memory;
        output::line(format_args!(
            "{:>10}{:>10.1}{:>10}{:>14.0}{:>14}{:>14}{:>14.1}",
            size.flows,
            size.ns_per_packet,
            size.times_10k.map_or_else(|| "-".to_owned(), |times| format!("{times:.2}")),
            memory.bytes_per_flow,
            memory.resident_bytes >> 20,
            memory.side_slab_bytes >> 10,
            size.rows_lost_percent
        ));
    }
    report.sizes.iter().for_each(print_runs);
}

fn print_runs(size: &LiveFlowsSize) {
    if size.poll_gap_us.is_some() || size.ring.is_some() {
        output::line(format_args!("\n{} live flows that end after 64 packets each", size.flows));
    }
    if let Some(gaps) = &size.poll_gap_us {
        print_gaps(gaps);
    }
    if let Some(ring) = &size.ring {
        print_ring(ring);
    }
}

/// Gaps by what the worker did.
pub(crate) fn print_gaps(table: &GapTable) {
    output::line(format_args!(
        "\nFrom one poll to the next (µs of CPU time)\n{:>9}{:>9}{:>9}{:>9}{:>9}",
        "turns", "p50", "p99", "p99.99", "max"
    ));
    let line = |gaps: &Gaps, cause: &str| {
        let Gaps { turns, p50, p99, p9999, max } = gaps;
        output::line(format_args!("{turns:>9}{p50:>9.1}{p99:>9.1}{p9999:>9.1}{max:>9.1}  {cause}"));
    };
    line(&table.all, "all turns");
    table.causes.iter().for_each(|cause| line(&cause.gaps, &cause.cause));
    line(&table.machine, "the machine itself, in arithmetic of that length");
    // The descriptors of the largest rings that are common.
    output::line(format_args!(
        "The longest fills 4,096 descriptors at {:.1} million packets a second",
        4_096.0 / table.all.max.max(0.001)
    ));
}

fn print_ring(ring: &RingReport) {
    output::line(format_args!("\nA receive ring of {} descriptors", ring.descriptors));
    for rate in &ring.rates {
        output::line(format_args!(
            "{:>9.2} million packets a second: {} taken, {} missed, {} waiting at most",
            f64::from(u32::try_from(rate.rate_pps).unwrap_or(u32::MAX)) / 1e6,
            rate.taken_packets,
            rate.missed_packets,
            rate.most_waiting_packets
        ));
    }
}
