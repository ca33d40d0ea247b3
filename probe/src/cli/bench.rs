//! `vmprobe bench`.

mod aggregator;
mod beside_query;
mod inventory;
mod plan;
mod sinks;
mod store;

use std::fmt::Display;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use vmprobe::config::FlowPlan;
use vmprobe::runtime::bench::{
    self as measurement, BenchOptions, BenchReport, Features, LiveFlowsOptions, SpreadFrom,
};

use super::live_flows;
use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct BenchArguments {
    /// The capture (pcap or pcapng, plain, gzip or zstd); it is loaded into memory first.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["aggregator", "beside_query", "inventory", "live_flows", "plan", "sinks", "store"])]
    pcap: Option<PathBuf>,
    /// Instead of a capture, packets of so many live flows, made in memory; several numbers,
    /// separated by commas, are measured one after the other.
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with_all = ["pcap", "workers", "passes", "aggregator"], value_parser = clap::value_parser!(u32).range(1..=i64::from(LiveFlowsOptions::FLOWS_MAX)))]
    live_flows: Vec<u32>,
    /// Workers, each on a core and with packets of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// How often the packets are given; stamps of each pass follow those of the pass before.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    passes: u32,
    /// Flows a worker at most. Default: that of the configuration.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(i64::from(FlowPlan::SLOTS_MIN)..=i64::from(FlowPlan::SLOTS_MAX)))]
    slots: Option<u32>,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = FeatureSet::All)]
    features: FeatureSet,
    /// Measure how long a worker does not look at its source, in a run of its own.
    #[arg(long)]
    poll_gaps: bool,
    #[command(flatten)]
    aggregator: aggregator::AggregatorArguments,
    #[command(flatten)]
    inventory: inventory::InventoryArguments,
    #[command(flatten)]
    sinks: sinks::SinksArguments,
    #[command(flatten)]
    store: store::StoreArguments,
    #[command(flatten)]
    beside: beside_query::BesideQueryArguments,
    /// Measure what passing packets to the owners of their flows costs, in runs of their own with
    /// `--workers` workers, at least two.
    #[arg(long, value_enum, value_name = "FROM", num_args = 0..=1, default_missing_value = "one")]
    spread: Option<SpreadSource>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    plan: plan::PlanArguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum SpreadSource {
    /// One worker receives all packets; the others own flows only.
    One,
    /// Each worker receives every N-th packet, whatever its flow.
    Each,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum FeatureSet {
    /// Decoding, flows and windows.
    Flow,
    /// Also copies and applications: all that `run` does.
    All,
}

impl From<FeatureSet> for Features {
    fn from(set: FeatureSet) -> Self {
        match set {
            FeatureSet::Flow => Self::Flow,
            FeatureSet::All => Self::All,
        }
    }
}

pub(crate) fn bench(arguments: &BenchArguments) -> Outcome {
    if let Some(folder) = &arguments.beside.beside_query {
        let features = arguments.features.into();
        return beside_query::bench(folder, &arguments.live_flows, features, arguments.json);
    }
    if !arguments.live_flows.is_empty() {
        let options = LiveFlowsOptions {
            flows: arguments.live_flows.clone(),
            slots: arguments.slots,
            features: arguments.features.into(),
            poll_gaps: arguments.poll_gaps,
        };
        return live_flows::bench(&options, arguments.json);
    }
    if arguments.inventory.inventory {
        return inventory::bench(&arguments.inventory, arguments.json);
    }
    if let Some(folder) = &arguments.store.store {
        return store::bench(&arguments.store, folder, arguments.json);
    }
    if let Some(file) = &arguments.sinks.sinks {
        return sinks::bench(&arguments.sinks, file, arguments.json);
    }
    let options = options(arguments);
    if arguments.plan.is_asked() {
        return plan::plan(&arguments.plan, &options, arguments.json);
    }
    if arguments.pcap.is_none() {
        return aggregator::bench(&arguments.aggregator, arguments.workers, arguments.json);
    }
    let report = match measurement::bench(&options) {
        Ok(report) => report,
        Err(error) => return output::failed(&error),
    };
    for error in &report.errors {
        output::failed(error);
    }
    if arguments.json {
        output::json(&report);
    } else {
        print(&report);
    }
    let whole = report.errors.is_empty() && report.ledger.unaccounted == 0;
    if whole { Outcome::Success } else { Outcome::Failure }
}

/// Tells what was measured, as one JSON object or as `print` does. Where it `is_whole` all went well.
fn told<R: Serialize, E: Display>(
    measured: Result<R, E>,
    json: bool,
    print: impl FnOnce(&R),
    is_whole: impl FnOnce(&R) -> bool,
) -> Outcome {
    let report = match measured {
        Ok(report) => report,
        Err(error) => return output::failed(&error),
    };
    if json {
        output::json(&report);
    } else {
        print(&report);
    }
    if is_whole(&report) { Outcome::Success } else { Outcome::Failure }
}

fn options(arguments: &BenchArguments) -> BenchOptions {
    BenchOptions {
        file: arguments.pcap.clone().unwrap_or_default(),
        workers: arguments.workers,
        passes: arguments.passes,
        slots: arguments.slots,
        features: arguments.features.into(),
        poll_gaps: arguments.poll_gaps,
        spread: arguments.spread.map(|from| match from {
            SpreadSource::One => SpreadFrom::One,
            SpreadSource::Each => SpreadFrom::Each,
        }),
    }
}

fn print(report: &BenchReport) {
    output::line(format_args!(
        "{} packets, {} octets, {} flows; {} workers on cores {:?}, {} passes",
        report.packets, report.octets, report.flows, report.workers, report.cores, report.passes
    ));
    let cycles = report.cycles_per_packet.map_or_else(String::new, |cycles| {
        format!(" ({cycles:.0} ticks of the time stamp counter)")
    });
    output::line(format_args!(
        "{:.1} ns of CPU time per packet{cycles}; {:.2} million packets a second in all",
        report.ns_per_packet,
        report.packets_per_second / 1e6
    ));
    for (place, worker) in report.per_worker.iter().enumerate() {
        output::line(format_args!(
            "  worker {place}: {} packets, {:.1} ms of CPU time, {:.1} ns a packet",
            worker.packets,
            std::time::Duration::from_nanos(worker.cpu_ns).as_secs_f64() * 1e3,
            worker.ns_per_packet
        ));
    }
    output::line(format_args!(
        "Scaling: {:.2} million packets in a second of the slowest worker's CPU time",
        report.scaling / 1e6
    ));
    if let Some(spread) = &report.spread {
        output::line(format_args!(
            "\nSpreading over {} workers (ns of CPU time): alone {:.1} a packet, together {:.1}, \
             added {:.1}; the ring by itself: sending {:.1}, taking {:.1} a packet passed ({} passed)",
            spread.workers,
            spread.alone_ns_per_packet,
            spread.together_ns_per_packet,
            spread.added_ns_per_packet,
            spread.sending_ns_per_packet,
            spread.taking_ns_per_packet,
            spread.passed_packets
        ));
    }
    let stages = &report.stages;
    output::line("\nWhere the time goes (ns per packet)");
    let rows = [
        ("read", Some(stages.read_ns)),
        ("decode", Some(stages.decode_ns)),
        ("hash", Some(stages.hash_ns)),
        ("copies", stages.copies_ns),
        ("flows, windows, loop", Some(stages.flow_ns)),
        ("ending flows at the end", Some(stages.ending_ns)),
    ];
    for (name, ns) in rows.iter().filter_map(|(name, ns)| ns.map(|ns| (name, ns))) {
        output::line(format_args!("  {name:<28}{ns:>8.1}"));
    }
    if let Some(gaps) = &report.poll_gap_us {
        live_flows::print_gaps(gaps);
    }
    output::line(format_args!(
        "\nMemory: {} bytes per flow, {} MiB resident, of which {} MiB packets",
        report.bytes_per_flow,
        report.resident_bytes >> 20,
        report.packet_bytes >> 20
    ));
    output::ledger(&report.ledger);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Whole {
        #[command(flatten)]
        bench: BenchArguments,
    }

    #[test]
    fn a_plan_needs_no_capture_and_its_options_need_a_plan() {
        let parse = |text: &str| {
            <Whole as clap::Parser>::try_parse_from(text.split(' '))
                .map(|whole| whole.bench.plan.is_asked())
                .map_err(|error| error.to_string())
        };
        assert_eq!(parse("bench --plan"), Ok(true));
        assert_eq!(parse("bench --plan --measured r.json --mix 64 --cores 4,8"), Ok(true));
        assert_eq!(parse("bench --pcap p --spread each --json"), Ok(false));
        assert_eq!(parse("bench --pcap p --spread"), Ok(false));
        assert_eq!(parse("bench --pcap p --slots 5000"), Ok(false));
        for wrong in [
            "bench",
            "bench --pcap p --mix imix",
            "bench --pcap p --cores 4",
            "bench --plan --pcap p --measured r.json",
            "bench --plan --mix 63",
            "bench --plan --mix big",
            "bench --plan --cores 4,x",
            "bench --plan --cores -1",
            "bench --plan --encap qinq",
            "bench --plan --nic-gbps fast",
            "bench --pcap p --spread none",
            "bench --pcap p --slots 512",
            "bench --pcap p --slots 134217728",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
