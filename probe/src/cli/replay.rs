//! `vmprobe replay`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use vmprobe::capture::file::Progress;
use vmprobe::config::{self, Mode, Plan};
use vmprobe::runtime::RuntimeError;
use vmprobe::runtime::replay::{ReplayOptions, replay as run_replay};

use super::output::{self, Outcome};

/// Conversations in the printed summary.
const TOP: usize = 10;

#[derive(Args)]
pub(crate) struct ReplayArguments {
    /// Configuration file; without it the defaults hold, and copies are only marked.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for the records; without it, that of the configuration file, if any.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replay at N times the original speed instead of as fast as possible.
    #[arg(long, value_name = "N", value_parser = pace)]
    pace: Option<f64>,
    /// Workers; the first one reads, the others own flows. Default: as configured, else 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Packets of a burst.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    burst: Option<u16>,
    /// Serve the page while replaying.
    #[arg(long)]
    serve: bool,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Captures: pcap or pcapng, plain, gzip or zstd; several are merged by time.
    #[arg(required = true, value_name = "PCAP")]
    files: Vec<PathBuf>,
}

pub(crate) fn replay(arguments: &ReplayArguments) -> Outcome {
    let plan = match plan_of(arguments) {
        Ok(plan) => Arc::new(plan),
        Err(problems) => return output::misused(&problems),
    };
    let stop = match output::stop_flag() {
        Ok(stop) => stop,
        Err(error) => return output::failed(&error),
    };
    let options = ReplayOptions {
        files: arguments.files.clone(),
        pace: arguments.pace,
        serve: arguments.serve,
    };
    let bar = Bar::default();
    let outcome = run_replay(&plan, &options, &stop, |progress| bar.follow(progress));
    bar.finish();
    let replay = match outcome {
        Ok(replay) => replay,
        Err(error @ RuntimeError::Inventory(_)) => return output::misused(&error),
        Err(error) => return output::failed(&error),
    };
    for error in &replay.errors {
        output::failed(error);
    }
    if arguments.json {
        output::json(&replay.report);
    } else {
        output::summary(&replay.report, &replay.summary, TOP);
    }
    let whole = replay.errors.is_empty() && replay.report.is_whole();
    if whole && !stop.load(Ordering::Relaxed) { Outcome::Success } else { Outcome::Failure }
}

fn plan_of(arguments: &ReplayArguments) -> Result<Plan, config::Problems> {
    let mut plan = match &arguments.config {
        Some(path) => {
            let loaded = config::load(path, Mode::Replay)?;
            for warning in loaded.warnings.to_string().lines() {
                tracing::warn!("{warning}");
            }
            loaded.plan
        }
        None => config::replay_without_file(),
    };
    if let Some(folder) = &arguments.out {
        plan.store.folder = Some(folder.clone());
    } else if arguments.config.is_none() {
        plan.store.folder = None;
    }
    if let Some(workers) = arguments.workers {
        plan.worker.count = workers;
    }
    if let Some(burst) = arguments.burst {
        plan.worker.burst_packets = burst;
    }
    Ok(plan)
}

fn pace(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(times) if times.is_finite() && times > 0.0 => Ok(times),
        _ => Err("a number above 0 is allowed".to_owned()),
    }
}

/// A progress bar on a terminal, nothing elsewhere.
#[derive(Default)]
struct Bar {
    ended: Arc<AtomicBool>,
}

impl Bar {
    fn follow(&self, progress: Arc<Progress>) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let ended = Arc::clone(&self.ended);
        let style =
            ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {msg} packets {eta}");
        std::thread::spawn(move || {
            let bar = ProgressBar::new(progress.bytes_total.load());
            if let Ok(style) = style {
                bar.set_style(style);
            }
            while !ended.load(Ordering::Relaxed) {
                bar.set_position(progress.bytes_read.load());
                bar.set_message(progress.packets.load().to_string());
                vmprobe::time::sleep_ms(100);
            }
            bar.finish_and_clear();
        });
    }

    fn finish(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
