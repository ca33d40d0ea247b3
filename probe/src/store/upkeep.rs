//! The thread that has the folder tidied.
//!
//! In: the rules, the clock of the packets. Out: an [`UpkeepReport`], lines in the log.
//! Cost: it sleeps; the work is a child's (`tidy.rs`), one at a time, at the lowest priority and off
//! the workers' cores, because a child stays where the thread that starts it may be.
//! Invariants: a round ends after [`ROUND_MS_MAX`] at the latest; an hour in which a child died is
//! not tried again; the end of the run waits for no round.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;

use super::tidy::{Removed, Round, Tidied};
use crate::config::StorePlan;
use crate::time::{monotonic_ns, ms, sleep_ms, wall_clock};

/// Command of the program that runs a round.
pub const COMMAND: &str = "tidy-store";

/// Between the end of a round and the next.
const REST_MS: u64 = 30_000;
/// The same before the first packet.
const START_MS: u64 = 1_000;
/// Every so many rounds all hours are looked at; and in the first of an hour.
const WHOLE_EVERY: u64 = 10;
/// Longest round: an hour's rows are merged in seconds.
const ROUND_MS_MAX: u64 = 1_800_000;
/// How often the end of a round, or of the run, is looked for.
const LOOK_MS: u64 = 50;
/// Hours that are left alone because of what is in them; with more of them, nothing is merged.
const LEAVE_MAX: usize = 256;
/// What is read of a child: names of hours and the result.
const OCTETS_MAX: u64 = 4 << 20;
const HOUR_NS: u64 = 3_600_000_000_000;

/// What tidying came to so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpkeepReport {
    /// Small files that were merged into larger ones.
    pub merged_files: u64,
    /// Removed because of its age.
    pub removed_by_age: Removed,
    /// Removed because all together was too large.
    pub removed_by_size: Removed,
    /// Bytes of this probe's files when they were last counted.
    pub stored_bytes: Option<u64>,
}

/// What the thread needs.
pub struct UpkeepPlan {
    /// The rules.
    pub store: StorePlan,
    /// Whose files.
    pub probe_id: String,
    /// This program.
    pub program: PathBuf,
}

impl UpkeepPlan {
    /// For this process. The link is there also when the program on disk was replaced.
    pub fn new(store: &StorePlan, probe_id: &str) -> Self {
        let program = PathBuf::from("/proc/self/exe");
        Self { store: store.clone(), probe_id: probe_id.to_owned(), program }
    }
}

/// The thread.
pub(super) struct Upkeep {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Upkeep {
    /// Starts it. `packets_ns` is the time that the packets have come to; 0 as long as none has.
    pub(super) fn start(
        plan: UpkeepPlan,
        packets_ns: Arc<AtomicU64>,
        report: Arc<ArcSwap<UpkeepReport>>,
    ) -> io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            plan,
            packets_ns,
            report,
            ending: Arc::clone(&ending),
            run_hour: None,
            last_hour: None,
            rounds: 0,
            leave: BTreeSet::new(),
            can_compact: true,
            told: BTreeSet::new(),
        };
        let thread =
            std::thread::Builder::new().name("upkeep".to_owned()).spawn(move || keeper.run())?;
        Ok(Self { ending, thread })
    }

    /// Ends it, and a round that is under way.
    pub(super) fn stop(self) {
        self.ending.store(true, Ordering::Relaxed);
        // It does nothing that could panic; if it did, the records are stored all the same.
        let _ = self.thread.join();
    }
}

struct Keeper {
    plan: UpkeepPlan,
    packets_ns: Arc<AtomicU64>,
    report: Arc<ArcSwap<UpkeepReport>>,
    ending: Arc<AtomicBool>,
    run_hour: Option<u64>,
    last_hour: Option<u64>,
    rounds: u64,
    leave: BTreeSet<String>,
    can_compact: bool,
    /// Problems that stand in the log already.
    told: BTreeSet<String>,
}

impl Keeper {
    fn run(mut self) {
        loop {
            let round = self.next_round();
            if let Some(round) = &round {
                self.do_round(round);
            }
            let rest_ms = if round.is_some() { REST_MS } else { START_MS };
            let rest_until_ns = monotonic_ns().saturating_add(ms(rest_ms));
            while monotonic_ns() < rest_until_ns {
                if self.is_ending() {
                    return;
                }
                sleep_ms(LOOK_MS);
            }
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// `None` before the first packet: the clock is not known.
    fn next_round(&mut self) -> Option<Round> {
        let packets_ns = self.packets_ns.load(Ordering::Relaxed);
        let store = &self.plan.store;
        let folder = store.folder.clone().filter(|_| packets_ns > 0)?;
        // A stamp from the far future must not make all records old.
        let hour = packets_ns.min(wall_clock().as_ns()) / HOUR_NS;
        let whole = self.last_hour != Some(hour) || self.rounds.is_multiple_of(WHOLE_EVERY);
        self.last_hour = Some(hour);
        self.rounds += 1;
        Some(Round {
            folder,
            probe_id: self.plan.probe_id.clone(),
            hour,
            run_hour: *self.run_hour.get_or_insert(hour),
            keep_days: store.keep_days,
            size_mib_max: store.size_mib_max,
            free_mib_min: store.free_mib_min,
            compact: store.compact && self.can_compact && self.leave.len() <= LEAVE_MAX,
            whole,
            leave: self.leave.iter().cloned().collect(),
        })
    }

    fn do_round(&mut self, round: &Round) {
        let outcome = self.start_child(round).and_then(|child| self.attend(child));
        match outcome {
            Ok(Some(tidied)) => self.book(&tidied),
            Ok(None) => {}
            Err(error) => self.tell(format!("the store is not tidied: {error}")),
        }
    }

    fn start_child(&self, round: &Round) -> io::Result<Child> {
        let round = serde_json::to_string(round)?;
        Command::new(&self.plan.program)
            .arg(COMMAND)
            .arg(round)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    }

    /// Waits for its end; `None` where it was ended early.
    fn attend(&mut self, mut child: Child) -> io::Result<Option<Tidied>> {
        // It says little, and whoever says too much is not waited for.
        let out = child.stdout.take();
        let reader =
            std::thread::Builder::new().name("upkeep-out".to_owned()).spawn(move || {
                let mut said = String::new();
                if let Some(out) = out {
                    let _ = out.take(OCTETS_MAX).read_to_string(&mut said);
                }
                said
            })?;
        let until_ns = monotonic_ns().saturating_add(ms(ROUND_MS_MAX));
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            let too_long = monotonic_ns() >= until_ns;
            if too_long || self.is_ending() {
                child.kill()?;
                break child.wait()?;
            }
            sleep_ms(LOOK_MS);
        };
        let said = reader.join().unwrap_or_default();
        if status.success() {
            let last = said.lines().next_back().unwrap_or_default();
            return Ok(Some(serde_json::from_str(last)?));
        }
        if self.is_ending() {
            return Ok(None);
        }
        let at = said.lines().next_back().unwrap_or("the start");
        self.leave.insert(at.to_owned());
        Err(io::Error::other(format!("{status} at {at}, which is left as it is from now on")))
    }

    fn book(&mut self, tidied: &Tidied) {
        let mut report = UpkeepReport::clone(&self.report.load());
        report.merged_files += tidied.merged_files;
        report.removed_by_age.add(&tidied.by_age);
        report.removed_by_size.add(&tidied.by_size);
        report.stored_bytes = tidied.stored_bytes.or(report.stored_bytes);
        self.report.store(Arc::new(report));
        for (why, removed) in [("age", tidied.by_age), ("size", tidied.by_size)] {
            let Removed { files, records, bytes } = removed;
            if files > 0 {
                tracing::info!(why, files, records, bytes, "stored records removed");
            }
        }
        if tidied.merged_files > 0 {
            let (merged, made) = (tidied.merged_files, tidied.made_files);
            tracing::info!(merged, made, "small files of the store merged");
        }
        if tidied.rolled_hours > 0 {
            tracing::info!(hours = tidied.rolled_hours, "hours of the store added up");
        }
        self.can_compact &= !tidied.cannot_compact;
        self.leave.extend(tidied.leave.iter().cloned());
        for problem in &tidied.problems {
            self.tell(problem.clone());
        }
    }

    /// Each problem once.
    fn tell(&mut self, problem: String) {
        if self.told.len() >= LEAVE_MAX {
            self.told.clear();
        }
        if !self.told.contains(&problem) {
            tracing::warn!(problem, "upkeep of the store");
            self.told.insert(problem);
        }
    }
}
