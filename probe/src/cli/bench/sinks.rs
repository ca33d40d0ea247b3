//! `vmprobe bench --sinks`.

use std::path::{Path, PathBuf};

use clap::Args;
use vmprobe::config::{self, Mode};
use vmprobe::runtime::bench::sinks::{self as measurement, SinksOptions, SinksReport};

use super::super::output::{self, Outcome};
use super::told;

#[derive(Args)]
pub(crate) struct SinksArguments {
    /// Send the conversations of a cloud to all sinks of this configuration, and measure until they
    /// are delivered; no capture is read. They stay there.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pcap", "aggregator", "inventory", "store"])]
    pub(super) sinks: Option<PathBuf>,
    /// Conversations in each window.
    #[arg(long, value_name = "N", default_value_t = 50_000, requires = "sinks", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    per_window: u32,
    /// Windows, one after the other.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "sinks", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batches: u32,
    /// Encode all rows first, then deliver them: what the probe takes and what the destination takes, each by
    /// itself.
    #[arg(long, requires = "sinks")]
    apart: bool,
}

/// Measures; `json`: as one JSON object.
pub(super) fn bench(arguments: &SinksArguments, file: &Path, json: bool) -> Outcome {
    let plan = match config::load(file, Mode::Check) {
        Ok(loaded) => loaded.plan,
        Err(problems) => return output::misused(&problems),
    };
    if plan.sinks.is_empty() {
        return output::misused(&format!("{}: there is no [[sink.…]]", file.display()));
    }
    let options = SinksOptions {
        plans: plan.sinks,
        vms: 1_000,
        conversations: arguments.per_window,
        windows: arguments.batches,
        apart: arguments.apart,
    };
    let has_all = |report: &SinksReport| {
        report.sinks.iter().all(|sink| sink.dropped == 0 && sink.problem.is_none())
    };
    told(measurement::measure(&options), json, print, has_all)
}

fn print(report: &SinksReport) {
    output::line(format_args!(
        "{} conversations in {:.2} s, {:.2} s of CPU time",
        report.rows, report.elapsed_s, report.cpu_s
    ));
    for sink in &report.sinks {
        let problem = sink.problem.as_ref().map(|what| format!("; {what}")).unwrap_or_default();
        output::line(format_args!(
            "{} ({}): {} delivered, {} not; {:.2} s, {:.0} a second{problem}",
            sink.name,
            sink.kind,
            sink.delivered,
            sink.dropped,
            sink.elapsed_s,
            sink.rows_per_second
        ));
        if let Some(cpu_s) = sink.encode_cpu_s {
            output::line(format_args!("{}: encoded in {cpu_s:.2} s of CPU time before", sink.name));
        }
    }
}
