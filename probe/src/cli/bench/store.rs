//! `vmprobe bench --store`.

use std::path::{Path, PathBuf};

use clap::Args;
use vmprobe::config::{self, Mode, SinkKind, SinkPlan};
use vmprobe::runtime::bench::store::{self as measurement, Asked, StoreOptions, StoreReport};
use vmprobe::store::holds_records;

use super::super::output::{self, Outcome};
use super::told;

#[derive(Args)]
pub(crate) struct StoreArguments {
    /// Write the records of a cloud's day into this folder, merge them, and ask them; no capture is
    /// read. They stay there.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["pcap", "aggregator", "inventory"])]
    pub(super) store: Option<PathBuf>,
    /// Virtual machines, ten to a tenant.
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "store", value_parser = clap::value_parser!(u32).range(10..=50_000))]
    vms: u32,
    /// Conversations in each second.
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "store", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_second: u32,
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 24, requires = "store", value_parser = clap::value_parser!(u32).range(1..=240))]
    hours: u32,
    /// How often each question is asked.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "store", value_parser = clap::value_parser!(u32).range(2..=100))]
    times: u32,
    /// Send the same records to the [[sink.clickhouse]] of this configuration, whose tables are there, and
    /// ask it the same.
    #[arg(long, value_name = "FILE", requires = "store")]
    clickhouse: Option<PathBuf>,
    /// The records are there already, in DIR and on the server, from a run with the same numbers: only ask.
    #[arg(long, requires = "store")]
    written: bool,
    /// Process of that server on this machine: what it takes is told too.
    #[arg(long, value_name = "PID", requires = "clickhouse")]
    server_process: Option<u32>,
}

fn server(file: &Path) -> Result<SinkPlan, Outcome> {
    let plan = match config::load(file, Mode::Check) {
        Ok(loaded) => loaded.plan,
        Err(problems) => return Err(output::misused(&problems)),
    };
    let mut sinks = plan.sinks.into_iter();
    let found = sinks.find(|sink| matches!(sink.kind, SinkKind::Clickhouse(_)));
    found.ok_or_else(|| {
        output::misused(&format!("{}: there is no [[sink.clickhouse]]", file.display()))
    })
}

/// Measures; `json`: as one JSON object.
pub(super) fn bench(arguments: &StoreArguments, folder: &Path, json: bool) -> Outcome {
    if holds_records(folder) != arguments.written {
        let why =
            if arguments.written { "no records" } else { "records already; --written asks them" };
        return output::failed(&format!("{}: holds {why}", folder.display()));
    }
    let server = match arguments.clickhouse.as_deref().map(server).transpose() {
        Ok(server) => server,
        Err(outcome) => return outcome,
    };
    let options = StoreOptions {
        folder: folder.to_owned(),
        vms: arguments.vms,
        conversations: arguments.per_second,
        hours: arguments.hours,
        times: arguments.times,
        written: arguments.written,
        server,
        server_process: arguments.server_process,
    };
    let has_all = |report: &StoreReport| {
        let server = report.server.iter().flat_map(|server| &server.questions);
        report.questions.iter().chain(server).all(|asked| asked.failed.is_none())
    };
    told(measurement::measure(&options), json, print, has_all)
}

fn print(report: &StoreReport) {
    if report.records > 0 {
        print_written(report);
    }
    print_questions(&report.questions);
    if let Some(server) = &report.server {
        output::line(format_args!(
            "\nClickHouse: {} records delivered in {:.1} s; CPU and MiB are the program's and the server's",
            server.delivered, server.delivery_s
        ));
        print_questions(&server.questions);
    }
}

fn print_written(report: &StoreReport) {
    output::line(format_args!(
        "{} hours of {} VMs: {} conversations, {} flows, {} records in all",
        report.hours, report.vms, report.conversations, report.flows, report.records
    ));
    output::line(format_args!(
        "Written: {:.0} records a second of CPU time; {} files, {:.1} MiB",
        report.records_per_second,
        report.written.files,
        mib(report.written.bytes)
    ));
    output::line(format_args!(
        "Merged in {:.1} s of CPU time: {} files, {:.1} MiB; {:.1} MiB a million conversations; at \
         most {:.0} MiB of memory",
        report.merge_cpu_s,
        report.merged.files,
        mib(report.merged.bytes),
        report.bytes_per_million_conversations / f64::from(1 << 20),
        mib(report.peak_bytes)
    ));
    output::line(format_args!(
        "Added up in {:.1} s of CPU time: {} files, {:.1} MiB",
        report.roll_up_cpu_s,
        report.merged.rolled_files,
        mib(report.merged.rolled_bytes)
    ));
}

fn print_questions(questions: &[Asked]) {
    output::line(
        "\nQuestion                                      first ms  median ms  CPU ms  MiB  lines",
    );
    for asked in questions {
        if let Some(why) = &asked.failed {
            output::line(format_args!("{:<44} no answer: {why}", asked.name));
            continue;
        }
        output::line(format_args!(
            "{:<44}{:>10.0}{:>11.0}{:>8.0}{:>5.0}{:>7}",
            asked.name,
            asked.first_ms,
            asked.median_ms,
            asked.cpu_ms + asked.server_cpu_ms,
            mib(asked.peak_bytes + asked.server_bytes),
            asked.lines
        ));
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
