//! `vmprobe bench --live-flows`.

use vmprobe::runtime::bench::{
    GapTable, Gaps, LiveFlowsOptions, LiveFlowsReport, LiveFlowsSize, bench_live_flows,
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
    let Some(gaps) = &size.poll_gap_us else { return };
    output::line(format_args!(
        "\n{} live flows, each of which ends after 64 packets: {} runs",
        size.flows, gaps.runs
    ));
    print_gaps(&gaps.all_runs);
    output::line("\nOf each turn the shortest run");
    print_gaps(&gaps.shortest);
    let millions = |pps: u64| f64::from(u32::try_from(pps).unwrap_or(u32::MAX)) / 1e6;
    output::line(format_args!(
        "\nA receive ring of {} never overruns up to {:.2} million packets a second, by the shortest \
         turns {:.2} million",
        gaps.descriptors,
        millions(gaps.rate_pps),
        millions(gaps.rate_of_shortest_pps)
    ));
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
    if let Some(machine) = &table.machine {
        line(machine, "the machine itself, in arithmetic of that length");
    }
    if let Some(machine) = &table.machine_beside_another {
        line(machine, "the same while another core does arithmetic as well");
    }
}
