//! What all commands share: exit codes, the log, signals, the printed summary.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use tracing_subscriber::EnvFilter;
use vmprobe::runtime::{Report, ReportLedger, RunSummary};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything worked.
    Success,
    /// Something failed on the way.
    Failure,
    /// The command line or the configuration is wrong.
    Usage,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::SUCCESS,
            Outcome::Failure => Self::FAILURE,
            Outcome::Usage => Self::from(2),
        }
    }
}

/// What is logged unless `VMPROBE_LOG` says otherwise. The AMQP client logs each connection that ends; here it
/// is logged when a broker begins to fail, and when that is over.
const LOGGED: &str = "info,lapin=off";

/// The log goes to standard error; `VMPROBE_LOG` sets the level (default `info`).
pub(crate) fn start_log() {
    let filter = EnvFilter::try_from_env("VMPROBE_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Prints a line; a reader that has gone away is no error of ours.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints one JSON object on a line of its own.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(text),
        Err(error) => tracing::error!("cannot write JSON: {error}"),
    }
}

/// Prints an error to standard error.
pub(crate) fn failed(error: &dyn Display) -> Outcome {
    let _ = writeln!(std::io::stderr(), "vmprobe: {error}");
    Outcome::Failure
}

/// The same for a wrong command line or configuration.
pub(crate) fn misused(error: &dyn Display) -> Outcome {
    let _ = writeln!(std::io::stderr(), "{error}");
    Outcome::Usage
}

/// A flag that SIGINT and SIGTERM set; a second signal ends the program at once.
pub(crate) fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// What a run came to, for people.
pub(crate) fn summary(report: &Report, summary: &RunSummary, top: usize) {
    line(format_args!(
        "{} packets, {} octets, {} flows, {} windows in {:.2} s",
        report.packets, report.octets, report.flows, report.windows, report.elapsed_s
    ));
    if !summary.top.lines.is_empty() {
        let estimate = if summary.top.is_estimate { ", an estimate, never too high" } else { "" };
        line(format_args!("\nTop conversations (IP octets, both directions{estimate})"));
        for (conversation, octets) in summary.top.lines.iter().take(top) {
            line(format_args!("  {octets:>14}  {conversation}"));
        }
    }
    let shown = summary.alert_records.len() as u64;
    let last = if shown < report.alerts { format!(", the last {shown}") } else { String::new() };
    line(format_args!("\nAlerts: {}{last}", report.alerts));
    for alert in &summary.alert_records {
        line(format_args!(
            "  [{}] {}: {} ({} events)",
            alert.severity, alert.detector, alert.title, alert.event_count
        ));
    }
    ledger(&report.ledger);
    for sink in report.sinks.iter().filter(|sink| sink.dropped_sum() > 0) {
        line(format_args!(
            "\nRecords lost: {} of {} ({:?})",
            sink.dropped_sum(),
            sink.made,
            sink.dropped
        ));
    }
}

/// The account, for people.
pub(crate) fn ledger(ledger: &ReportLedger) {
    line("\nLedger (packets)");
    line(format_args!("  {:<28}{:>14}", "received", ledger.received));
    line(format_args!("  {:<28}{:>14}", "accounted", ledger.accounted));
    for (cause, packets) in &ledger.causes {
        line(format_args!("  {cause:<28}{packets:>14}"));
    }
    line(format_args!("  unaccounted: {}", ledger.unaccounted));
    if !ledger.beside.is_empty() {
        line("\nBeside the balance");
        for (what, count) in &ledger.beside {
            line(format_args!("  {what:<28}{count:>14}"));
        }
    }
}
