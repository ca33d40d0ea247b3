//! The thread that has the folder tidied.
//!
//! In: the rules, the clock of the packets. Out: an [`UpkeepReport`], lines in the log.
//! Cost: it sleeps; the work is children's (`tidy.rs`), one that tidies and one that adds hours up, at
//! the lowest priority and off the workers' cores, because a child stays where the thread that starts it
//! may be.
//! Invariants: what a child did is booked as it tells, whatever becomes of it; a round ends after its
//! time at the latest; an hour in which a child died is not merged again, and added up later if at all;
//! what is kept does not wait for hours that are added up; the end of the run waits for no round.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;

use super::child::{Ended, Running};
use super::held::Held;
use super::tidy::{Removed, Round, Tidied, Work};
use crate::config::StorePlan;
use crate::time::{monotonic_ns, ms, sleep_ms, wall_clock};

/// Between the end of a round and the next.
const REST_MS: u64 = 30_000;
/// From one look at all hours to the next, a round or a rest more; and in the first round of an hour.
const WHOLE_MS: u64 = 240_000;
/// Longest round: an hour's rows are merged in seconds.
const TIDY_MS_MAX: u64 = 1_800_000;
/// Longest time that hours are added up: it begins none in the second half, and gives each a quarter of
/// an hour.
const ROLL_UP_MS_MAX: u64 = 3_600_000;
/// How often the end of a round, or of the run, is looked for.
const LOOK_MS: u64 = 50;
/// Hours that are left alone because of what is in them; with more of them, nothing is merged.
const LEAVE_MAX: usize = 256;
/// Problems that are known to stand in the log.
const TOLD_MAX: usize = 256;
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
        let keeper = Keeper::new(plan, packets_ns, report, Arc::clone(&ending));
        let thread =
            std::thread::Builder::new().name("upkeep".to_owned()).spawn(move || keeper.run())?;
        Ok(Self { ending, thread })
    }

    /// Ends it, and the rounds that are under way.
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
    /// Of the last round.
    hour: Option<u64>,
    /// When all hours are looked at again.
    whole_due_ns: u64,
    tidying: Option<Tidying>,
    rolling: Option<Running>,
    /// Hours of which not all can be merged.
    leave: BTreeSet<String>,
    can_compact: bool,
    held: Held,
    /// Problems that stand in the log already.
    told: BTreeSet<String>,
}

/// A round of tidying under way.
struct Tidying {
    running: Running,
    round: Round,
    /// What it did that is not in the log yet.
    unlogged: Tidied,
    unfinished: bool,
}

impl Keeper {
    fn new(
        plan: UpkeepPlan,
        packets_ns: Arc<AtomicU64>,
        report: Arc<ArcSwap<UpkeepReport>>,
        ending: Arc<AtomicBool>,
    ) -> Self {
        Self {
            plan,
            packets_ns,
            report,
            ending,
            run_hour: None,
            hour: None,
            whole_due_ns: 0,
            tidying: None,
            rolling: None,
            leave: BTreeSet::new(),
            can_compact: true,
            held: Held::default(),
            told: BTreeSet::new(),
        }
    }

    fn run(mut self) {
        let mut next_ns = 0;
        while !self.ending.load(Ordering::Relaxed) {
            if self.tidying.is_some() || (monotonic_ns() >= next_ns && self.start_tidying()) {
                next_ns = monotonic_ns().saturating_add(ms(REST_MS));
            }
            self.look_at_tidying();
            self.look_at_rolling();
            sleep_ms(LOOK_MS);
        }
        if let Some(mut tidying) = self.tidying.take() {
            tidying.running.kill();
            let done = tidying.running.look().done;
            self.hear(&mut tidying, done);
            log(&tidying.unlogged);
        }
    }

    /// Not before the first packet: the clock is not known.
    fn start_tidying(&mut self) -> bool {
        let Some(round) = self.round() else { return false };
        match Running::start(&self.plan.program, &round, TIDY_MS_MAX) {
            Ok(running) => {
                let unlogged = Tidied::default();
                self.tidying = Some(Tidying { running, round, unlogged, unfinished: false });
            }
            Err(error) => {
                self.whole_due_ns = 0;
                self.tell(format!("the store is not tidied: {error}"));
            }
        }
        true
    }

    fn round(&mut self) -> Option<Round> {
        let packets_ns = self.packets_ns.load(Ordering::Relaxed);
        let folder = self.plan.store.folder.clone().filter(|_| packets_ns > 0)?;
        // A stamp from the far future must not make all records old.
        let hour = packets_ns.min(wall_clock().as_ns()) / HOUR_NS;
        let now_ns = monotonic_ns();
        let whole = self.hour != Some(hour) || now_ns >= self.whole_due_ns;
        self.hour = Some(hour);
        if whole {
            self.whole_due_ns = now_ns.saturating_add(ms(WHOLE_MS));
            let is_there = |hour: &str| folder.join(hour).is_dir();
            self.leave.retain(|hour| is_there(hour));
            self.held.forget_but(is_there);
        }
        let store = &self.plan.store;
        let wanted = store.compact && self.can_compact;
        let compact = wanted && self.leave.len() <= LEAVE_MAX;
        let round = Round {
            work: Work::Tidy,
            folder,
            probe_id: self.plan.probe_id.clone(),
            hour,
            run_hour: *self.run_hour.get_or_insert(hour),
            keep_days: store.keep_days,
            size_mib_max: store.size_mib_max,
            free_mib_min: store.free_mib_min,
            compact,
            whole,
            leave: if compact { self.leave.iter().cloned().collect() } else { Vec::new() },
        };
        if wanted && !compact {
            self.tell(format!(
                "no small files are merged any more: more than {LEAVE_MAX} hours have files that \
                 cannot be read"
            ));
        }
        Some(round)
    }

    fn look_at_tidying(&mut self) {
        let Some(mut tidying) = self.tidying.take() else { return };
        let news = tidying.running.look();
        self.hear(&mut tidying, news.done);
        let Some(ended) = news.ended else {
            self.tidying = Some(tidying);
            return;
        };
        log(&tidying.unlogged);
        match ended {
            // The rest of the hours comes next, once what is kept was looked at again.
            Ended::Well if tidying.unfinished => self.whole_due_ns = 0,
            Ended::Well if tidying.round.whole => self.start_rolling(tidying.round),
            Ended::Well => {}
            Ended::Badly(why, None) => self.tell(format!("the store is not tidied: {why}")),
            Ended::Badly(why, Some(hour)) => {
                self.tell(format!(
                    "the store is not tidied: {why} at {hour}, which is left as it is from now on"
                ));
                self.leave.insert(hour);
            }
        }
    }

    /// Books what was done.
    fn hear(&mut self, tidying: &mut Tidying, news: Vec<(Option<String>, Tidied)>) {
        for (_, done) in news {
            self.leave.extend(done.leave.iter().cloned());
            tidying.unfinished |= done.unfinished;
            self.book(&done);
            // With it all is removed that goes.
            let is_retained = done.stored_bytes.is_some();
            tidying.unlogged.add(done);
            if is_retained {
                log(&std::mem::take(&mut tidying.unlogged));
            }
        }
    }

    /// Hours are added up behind a round that has merged them.
    fn start_rolling(&mut self, tidied: Round) {
        let now_ns = monotonic_ns();
        if !self.plan.store.compact || self.rolling.is_some() || !self.held.is_due(now_ns) {
            return;
        }
        let round = Round { work: Work::RollUp, leave: self.held.left(now_ns), ..tidied };
        match Running::start(&self.plan.program, &round, ROLL_UP_MS_MAX) {
            Ok(running) => self.rolling = Some(running),
            Err(error) => self.not_rolled(&error.to_string()),
        }
    }

    fn look_at_rolling(&mut self) {
        let Some(mut rolling) = self.rolling.take() else { return };
        let news = rolling.look();
        let now_ns = monotonic_ns();
        for (hour, done) in news.done {
            if let Some(hour) = hour.filter(|_| done.rolled_hours > 0) {
                self.held.succeeded(&hour);
                tracing::info!(hour, "an hour of the store added up");
            }
            for hour in &done.leave {
                self.held.hour_failed(hour.clone(), now_ns);
            }
            if done.cannot_roll_up {
                self.held.all_failed(now_ns);
            }
            self.book(&done);
        }
        match news.ended {
            None => self.rolling = Some(rolling),
            Some(Ended::Well) => {}
            Some(Ended::Badly(why, None)) => self.not_rolled(&why),
            Some(Ended::Badly(why, Some(hour))) => {
                self.tell(format!("{hour} is not added up: {why}"));
                self.held.hour_failed(hour, now_ns);
            }
        }
    }

    fn not_rolled(&mut self, why: &str) {
        self.held.all_failed(monotonic_ns());
        self.tell(format!("hours are not added up: {why}"));
    }

    fn book(&mut self, done: &Tidied) {
        let mut report = UpkeepReport::clone(&self.report.load());
        report.merged_files += done.merged_files;
        report.removed_by_age.add(&done.by_age);
        report.removed_by_size.add(&done.by_size);
        report.stored_bytes = done.stored_bytes.or(report.stored_bytes);
        self.report.store(Arc::new(report));
        self.can_compact &= !done.cannot_compact;
        for problem in &done.problems {
            self.tell(problem.clone());
        }
    }

    /// Each problem once.
    fn tell(&mut self, problem: String) {
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        if !self.told.contains(&problem) {
            tracing::warn!(problem, "upkeep of the store");
            self.told.insert(problem);
        }
    }
}

/// A round has many steps: together they are a line or two.
fn log(done: &Tidied) {
    for (why, removed) in [("age", done.by_age), ("size", done.by_size)] {
        let Removed { files, records, bytes } = removed;
        if files > 0 {
            tracing::info!(why, files, records, bytes, "stored records removed");
        }
    }
    let (merged, made) = (done.merged_files, done.made_files);
    if merged > 0 {
        tracing::info!(merged, made, "small files of the store merged");
    }
}

#[cfg(test)]
mod tests;
