//! `vmprobe run`.

use std::path::PathBuf;

use clap::Args;

use super::bench::FeatureSet;
use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct RunArguments {
    /// Configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Stop by itself after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Stop by itself when packets have come and then none for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    idle_seconds: Option<u64>,
    /// Keep the page open after the end until SIGINT or SIGTERM.
    #[arg(long)]
    keep_page: bool,
    /// Leave out what `bench --features` leaves out; for measuring only, so no records are written.
    #[arg(long, value_enum, default_value_t = FeatureSet::All)]
    features: FeatureSet,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// Without DPDK there is no NIC to receive from.
#[cfg(not(feature = "dpdk"))]
pub(crate) fn run(arguments: &RunArguments) -> Outcome {
    let RunArguments { config: _, seconds: _, idle_seconds: _, keep_page: _, features: _, json: _ } =
        arguments;
    output::failed(&"this program was built without DPDK; use `vmprobe replay` for capture files")
}

#[cfg(feature = "dpdk")]
pub(crate) use with_dpdk::run;

#[cfg(feature = "dpdk")]
mod with_dpdk {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use vmprobe::config::{self, Mode};
    use vmprobe::export::SinksWanted;
    use vmprobe::runtime::RuntimeError;
    use vmprobe::runtime::bench::Features;
    use vmprobe::runtime::live::{self, Live, Ready, RunOptions};
    use vmprobe::sources::ReadAgain;

    use super::{Outcome, RunArguments, output};

    /// Conversations in the printed summary.
    const TOP: usize = 10;

    /// How often SIGHUP is looked for.
    const RELOAD_POLL_MS: u64 = 200;

    /// Receives until SIGINT or SIGTERM.
    pub(crate) fn run(arguments: &RunArguments) -> Outcome {
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
        let read_again = ReadAgain::default();
        let sinks = SinksWanted::default();
        // What was not measured would stand in records as 0, so none are sent.
        let reloaded =
            (Features::from(arguments.features) == Features::All).then(|| Arc::clone(&sinks));
        if let Err(error) = watch_reload(&arguments.config, &read_again, reloaded) {
            return output::failed(&error);
        }
        let options = RunOptions {
            read_again,
            sinks,
            seconds: arguments.seconds,
            idle_seconds: arguments.idle_seconds,
            features: arguments.features.into(),
        };
        let ready = |ready: Ready<'_>| match ready.page {
            Some(address) => tracing::info!("receiving; page at http://{address}/"),
            None => tracing::info!("receiving"),
        };
        let mut plan = loaded.plan;
        if options.features != Features::All {
            // What was not measured would stand in them as 0.
            plan.store.folder = None;
            plan.sinks.clear();
        }
        let plan = Arc::new(plan);
        let ended = |run: &Live| {
            print(arguments, run);
            keep_page(arguments, &plan, &stop);
        };
        match live::run(&plan, &options, &stop, ready, ended) {
            Ok(run) if run.report.is_whole() => Outcome::Success,
            Ok(_) => Outcome::Failure,
            Err(error @ RuntimeError::Inventory(_)) => output::misused(&error),
            Err(error) => output::failed(&error),
        }
    }

    /// SIGHUP: the inventory is read again, and sinks are as the configuration says now. Nothing else of
    /// it changes while packets come in; that is said, so that nobody waits for it.
    fn watch_reload(
        config: &std::path::Path,
        read_again: &ReadAgain,
        sinks: Option<SinksWanted>,
    ) -> std::io::Result<()> {
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&asked))?;
        let (config, read_again) = (config.to_owned(), Arc::clone(read_again));
        let watch = move || {
            loop {
                vmprobe::time::sleep_ms(RELOAD_POLL_MS);
                if !asked.swap(false, Ordering::Relaxed) {
                    continue;
                }
                read_again.store(true, Ordering::Relaxed);
                match config::load(&config, Mode::Run) {
                    Ok(loaded) => {
                        if let Some(sinks) = &sinks {
                            sinks.store(Some(Arc::new(loaded.plan.sinks)));
                        }
                        tracing::warn!(
                            "SIGHUP: the inventory is read again and sinks are as the configuration \
                             says; no other key of it can change while the probe runs; restart it to \
                             use the new one"
                        );
                    }
                    Err(problems) => {
                        tracing::error!("SIGHUP: the new configuration is wrong:\n{problems}");
                    }
                }
            }
        };
        std::thread::Builder::new().name("reload".to_owned()).spawn(watch)?;
        Ok(())
    }

    fn print(arguments: &RunArguments, run: &Live) {
        for port in &run.report.ports {
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
            output::json(&run.report);
        } else {
            output::summary(&run.report, &run.summary, TOP);
        }
    }

    fn keep_page(arguments: &RunArguments, plan: &config::Plan, stop: &AtomicBool) {
        if !arguments.keep_page || !plan.serve.enabled {
            return;
        }
        tracing::info!("the page stays open until Ctrl-C");
        while !stop.load(Ordering::Relaxed) {
            vmprobe::time::sleep_ms(100);
        }
    }
}
