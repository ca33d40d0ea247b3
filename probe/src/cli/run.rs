//! `vmprobe run`.

use std::path::PathBuf;

use clap::Args;

use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct RunArguments {
    /// Configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Stop by itself after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// Without DPDK there is no NIC to receive from.
#[cfg(not(feature = "dpdk"))]
pub(crate) fn run(arguments: &RunArguments) -> Outcome {
    let _ = (&arguments.config, arguments.seconds, arguments.json);
    output::failed(&"this program was built without DPDK; use `vmprobe replay` for capture files")
}

/// Receives until SIGINT or SIGTERM.
#[cfg(feature = "dpdk")]
pub(crate) fn run(arguments: &RunArguments) -> Outcome {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use vmprobe::config::{self, Mode};
    use vmprobe::runtime::{RuntimeError, live};

    let loaded = match config::load(&arguments.config, Mode::Run) {
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
    if let Some(seconds) = arguments.seconds {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            vmprobe::time::sleep_ms(seconds.saturating_mul(1_000));
            stop.store(true, Ordering::Relaxed);
        });
    }
    let outcome = live::run(&Arc::new(loaded.plan), &stop, |address| match address {
        Some(address) => tracing::info!("receiving; page at http://{address}/"),
        None => tracing::info!("receiving"),
    });
    match outcome {
        Ok(run) => {
            for port in &run.ports {
                tracing::info!(
                    port = port.port,
                    received = port.received,
                    missed = port.missed,
                    errors = port.errors,
                    no_mbuf = port.no_mbuf,
                    "port"
                );
            }
            if arguments.json {
                output::json(&serde_json::json!({
                    "packets": run.report.packets,
                    "octets": run.report.octets,
                    "flows": run.report.flows,
                    "windows": run.report.windows,
                    "alerts": run.report.alerts,
                    "elapsed_s": run.report.elapsed_s,
                    "ledger": run.report.ledger,
                    "ports": run.ports,
                }));
            } else {
                output::summary(&run.report, &run.summary, 10);
            }
            if run.report.ledger.unaccounted == 0 { Outcome::Success } else { Outcome::Failure }
        }
        Err(error @ RuntimeError::Inventory(_)) => output::misused(&error),
        Err(error) => output::failed(&error),
    }
}
