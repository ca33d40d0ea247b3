//! `vmprobe bench --aggregator`, with a flood by `--flood`.

use clap::Args;
use vmprobe::runtime::bench::aggregator::AggregatorReport;
use vmprobe::runtime::bench::aggregator::flood::{self, FloodOptions, FloodReport};
use vmprobe::runtime::bench::aggregator::{self as measurement, AggregatorOptions};

use super::super::output::{self, Outcome};
use super::told;

#[derive(Args)]
pub(crate) struct AggregatorArguments {
    /// Measure the aggregation thread instead, on rows made in memory; no capture is read.
    #[arg(long, conflicts_with = "pcap")]
    pub(super) aggregator: bool,
    /// Conversations in a window.
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "aggregator", value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    conversations: u32,
    /// Flows of each conversation in a window: each gives a row.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "aggregator", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    flows_per_conversation: u32,
    /// Windows; in a flood each lasts a second.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "aggregator", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    windows: u32,
    /// Send that many new flows a second, each of one SYN, as fast as the clock says and no faster,
    /// and show what gives way.
    #[arg(long, value_name = "FLOWS", requires = "aggregator", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    flood: Option<u32>,
}

/// Measures; `json`: as one JSON object.
pub(super) fn bench(arguments: &AggregatorArguments, workers: u16, json: bool) -> Outcome {
    if let Some(flows_per_second) = arguments.flood {
        let seconds = arguments.windows;
        return flood(&FloodOptions { flows_per_second, seconds, workers, rows_max: None }, json);
    }
    let report = measurement::measure(&AggregatorOptions {
        conversations: arguments.conversations,
        flows_per_conversation: arguments.flows_per_conversation,
        windows: arguments.windows,
        workers,
    });
    if json {
        output::json(&report);
    } else {
        print(&report);
    }
    if report.ledger.unaccounted == 0 { Outcome::Success } else { Outcome::Failure }
}

fn flood(options: &FloodOptions, json: bool) -> Outcome {
    told(flood::flood(options), json, print_flood, |report| report.ledger.unaccounted == 0)
}

fn print(report: &AggregatorReport) {
    output::line(format_args!(
        "{} rows of {} conversations in each of {} windows, from {} workers",
        report.rows, report.conversations_per_window, report.windows, report.workers
    ));
    output::line("\nThe aggregation thread up to each step (million rows a second of CPU time)");
    for step in &report.steps {
        output::line(format_args!(
            "  {:<14}{:>8.2}   ({:.1} ns a row more)",
            step.name,
            step.rows_per_second / 1e6,
            step.ns_per_row
        ));
    }
    output::line(format_args!(
        "\n{:.2} million conversations a second; the store's thread takes {:.2} million records a \
         second; {} MiB resident",
        report.conversations_per_second / 1e6,
        report.stored_records_per_second / 1e6,
        report.resident_bytes >> 20
    ));
    output::ledger(&report.ledger);
}

fn print_flood(report: &FloodReport) {
    output::line(format_args!(
        "{} new flows in {:.2} s; {} windows, {} alerts; the aggregation thread was busy {:.0} % of \
         the time",
        report.flows,
        report.elapsed_s,
        report.windows,
        report.alerts,
        100.0 * report.aggregation_busy
    ));
    let mebibytes: Vec<_> = report.resident_bytes.iter().map(|bytes| bytes >> 20).collect();
    output::line(format_args!("Resident memory second by second (MiB): {mebibytes:?}"));
    output::ledger(&report.ledger);
    for sink in &report.sinks {
        output::line(format_args!(
            "\nRecords: {} made, {} delivered, lost {:?}",
            sink.made, sink.delivered, sink.dropped
        ));
    }
}
