//! `vmprobe correlate`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use vmprobe::config::{self, Mode};
use vmprobe::correlate::{self, CorrelateError, CorrelateReport, Counts, StatusCell};
use vmprobe::serve;

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
    let status = StatusCell::default();
    let listen = loaded.plan.correlate.listen;
    let started = listen.map(|listen| serve::start_member(listen, Arc::clone(&status)));
    let served = match started.transpose() {
        Ok(served) => served,
        Err(error) => return output::failed(&error),
    };
    let ended = correlate::correlate(&Arc::new(loaded.plan), &status, &stop);
    if let Some(served) = served {
        served.stop();
    }
    match ended {
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
        let counts = |counts: &Counts| -> serde_json::Map<String, serde_json::Value> {
            counts.iter().map(|(name, count)| (name.to_owned(), count.into())).collect()
        };
        let mut object = counts(&report.paths);
        object.insert("detect".to_owned(), counts(&report.detect).into());
        object.insert("sinks".to_owned(), sinks.into());
        output::line(serde_json::Value::Object(object));
    } else {
        let of_paths = |name| report.paths.count(name);
        let of_windows = |name| report.detect.count(name);
        output::line(format_args!(
            "{} messages, {} packets joined, {} added up, {} windows, {} records; of windows {} messages, \
             {} contacts, {} windows, {} records",
            of_paths("messages"),
            of_paths("joined"),
            of_paths("taken"),
            of_paths("windows"),
            of_paths("records"),
            of_windows("messages"),
            of_windows("taken"),
            of_windows("windows"),
            of_windows("records"),
        ));
    }
    if lost > 0 {
        return output::failed(&format!("{lost} records of sinks are lost"));
    }
    Outcome::Success
}
