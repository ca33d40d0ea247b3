//! `vmprobe correlate`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use vmprobe::config::{self, Mode};
use vmprobe::correlate::{self, CorrelateError, CorrelateReport};

use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct CorrelateArguments {
    /// Configuration file with [correlate], the taps of all probes as [[tap]], and sinks.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// Runs a member until SIGINT or SIGTERM.
pub(crate) fn correlate(arguments: &CorrelateArguments) -> Outcome {
    let loaded = match config::load(&arguments.config, Mode::Check) {
        Ok(loaded) => loaded,
        Err(problems) => return output::misused(&problems),
    };
    for warning in loaded.warnings.to_string().lines() {
        tracing::warn!("{warning}");
    }
    let stop = match output::stop_flag() {
        Ok(stop) => stop,
        Err(error) => return output::failed(&error),
    };
    match correlate::correlate(&Arc::new(loaded.plan), &stop) {
        Ok(report) => told(&report, arguments.json),
        Err(error @ (CorrelateError::NoBrokers | CorrelateError::NoTaps)) => {
            output::misused(&format!("{}: {error}", arguments.config.display()))
        }
        Err(error) => output::failed(&error),
    }
}

fn told(report: &CorrelateReport, as_json: bool) -> Outcome {
    let lost: u64 = report.sinks.iter().map(|sink| sink.ledger.dropped_sum()).sum();
    if as_json {
        let sinks: Vec<_> = report
            .sinks
            .iter()
            .map(|sink| {
                json!({
                    "name": sink.name,
                    "made": sink.ledger.made,
                    "delivered": sink.ledger.delivered,
                    "spooled": sink.ledger.spooled,
                    "dropped": sink.ledger.dropped_sum(),
                })
            })
            .collect();
        output::line(json!({
            "messages": report.messages,
            "malformed": report.malformed,
            "unknown_tap": report.unknown_tap,
            "unknown_space": report.unknown_space,
            "joined": report.joined,
            "evicted": report.evicted,
            "left_out": report.left_out,
            "taken": report.taken,
            "repeated": report.repeated,
            "unremembered": report.unremembered,
            "late": report.late,
            "clock_ahead": report.clock_ahead,
            "windows": report.windows,
            "records": report.records,
            "sinks": sinks,
        }));
    } else {
        output::line(format_args!(
            "{} messages, {} packets joined, {} added up, {} windows, {} records",
            report.messages, report.joined, report.taken, report.windows, report.records
        ));
    }
    if lost > 0 {
        return output::failed(&format!("{lost} records of sinks are lost"));
    }
    Outcome::Success
}
