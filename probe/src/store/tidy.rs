//! One round of tidying, in a process of its own.
//!
//! In: a [`Round`] as JSON. Out: a [`Step`] as JSON on each line, as soon as it is done.
//! Cost: as `scan.rs` and `compact.rs`; the lowest priority there is.
//! Invariants: it may be killed at any instant, and what it did until then is told, but for the hour
//! that it was at; a file that is no good stays and is named.
//!
//! A process of its own, because reading a file that went bad on the disk may fail in any way, and
//! must not end the probe; and because its memory goes back in full.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compact::{CompactError, Compacted, Compactor, small};
use super::merge::Input;
use super::query;
use super::retain::Rules;
use super::scan::{self, Hours, Place, Stored};
use crate::export::parquet::folder;
use crate::time::{monotonic_ns, ms};

/// Problems that are told of one round.
const PROBLEMS_MAX: usize = 16;
/// Characters of one.
const PROBLEM_CHARS_MAX: usize = 1_000;
/// Hours back from that of the clock that are looked at in every round: files of the last hour but
/// one may still have been open in the round before.
const RECENT_HOURS: u64 = 4;
/// After this time no other hour is merged: what is kept has to be looked at again.
const MERGE_MS_MAX: u64 = 60_000;
/// The lowest priority.
const NICE: i32 = 19;

/// What a round is for. They get into no one's way, so one of each may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Old hours are removed, then small files merged.
    Tidy,
    /// Hours that are over are added up.
    RollUp,
}

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// What for.
    pub work: Work,
    /// The folder of the records.
    pub folder: PathBuf,
    /// Whose files.
    pub probe_id: String,
    /// The hour since the epoch that the clock of the packets stands in.
    pub hour: u64,
    /// The hour in which this run of the probe began.
    pub run_hour: u64,
    /// Days that records are kept for.
    pub keep_days: Option<u32>,
    /// Mebibytes that all files together may take.
    pub size_mib_max: Option<u32>,
    /// Mebibytes that stay free on the disk.
    pub free_mib_min: u32,
    /// Whether small files are merged.
    pub compact: bool,
    /// Every hour, not the last ones only; the rules of what goes are for these rounds.
    pub whole: bool,
    /// Hours that came to grief in this work before, by name.
    pub leave: Vec<String>,
}

/// What a round tells while it is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// An hour, by its name, is merged or added up from now.
    At(String),
    /// What was done since the step before.
    Done(Tidied),
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tidied {
    /// Small files that are gone, and larger ones in their place.
    pub merged_files: u64,
    /// See there.
    pub made_files: u64,
    /// Hours of windows that were added up for questions about days.
    pub rolled_hours: u64,
    /// Removed because of their age.
    pub by_age: Removed,
    /// Removed because all together were too large.
    pub by_size: Removed,
    /// Bytes of all files, once those that go are removed.
    pub stored_bytes: Option<u64>,
    /// What went wrong, for people.
    pub problems: Vec<String>,
    /// Hours that came to grief, by name.
    pub leave: Vec<String>,
    /// The file system cannot do what merging needs.
    pub cannot_compact: bool,
    /// Hours cannot be added up just now, whichever it is.
    pub cannot_roll_up: bool,
    /// There was no time for all hours that are to be merged.
    pub unfinished: bool,
}

impl Tidied {
    /// Adds what came later.
    pub fn add(&mut self, later: Self) {
        self.merged_files += later.merged_files;
        self.made_files += later.made_files;
        self.rolled_hours += later.rolled_hours;
        self.by_age.add(&later.by_age);
        self.by_size.add(&later.by_size);
        self.stored_bytes = later.stored_bytes.or(self.stored_bytes);
        self.problems.extend(later.problems);
        self.leave.extend(later.leave);
        self.cannot_compact |= later.cannot_compact;
        self.cannot_roll_up |= later.cannot_roll_up;
        self.unfinished |= later.unfinished;
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Files.
    pub files: u64,
    /// Their rows, as far as they could still be read.
    pub records: u64,
    /// Their size.
    pub bytes: u64,
}

impl Removed {
    /// Adds what another round removed.
    pub const fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// Gives way to all others, and ends with the process that started it.
pub fn stand_back() {
    use rustix::process::{Signal, set_parent_process_death_signal, setpriority_process};
    // Where it is not granted the work is done all the same.
    let _ = setpriority_process(None, NICE);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

impl Round {
    /// Of all hours; nothing is old or too much. `hour`: that of the clock, in which the run began.
    pub fn of_all(work: Work, folder: &Path, probe_id: &str, hour: u64) -> Self {
        Self {
            work,
            folder: folder.to_owned(),
            probe_id: probe_id.to_owned(),
            hour,
            run_hour: hour,
            keep_days: None,
            size_mib_max: None,
            free_mib_min: 0,
            compact: true,
            whole: true,
            leave: Vec::new(),
        }
    }

    /// Does it, and tells each step as soon as it is done.
    pub fn run(&self, tell: &mut dyn FnMut(Step)) {
        let mut doing = Doing::new(self, tell);
        match self.work {
            Work::Tidy => doing.tidy(),
            // Where the program that asks for added up hours is not there, nobody asks.
            Work::RollUp => {
                if let Ok(program) = query::program() {
                    doing.roll_up(&program);
                }
            }
        }
    }

    /// Does it, and tells all at once.
    pub fn run_through(&self) -> Tidied {
        let mut sum = Tidied::default();
        self.run(&mut |step| {
            if let Step::Done(done) = step {
                sum.add(done);
            }
        });
        sum
    }

    pub(super) const fn rules(&self) -> Rules {
        let size_max_bytes = match self.size_mib_max {
            Some(mib) => Some((mib as u64) << 20),
            None => None,
        };
        let Self { hour, run_hour, keep_days, .. } = *self;
        Rules { hour, run_hour, keep_days, size_max_bytes }
    }
}

/// A round under way.
pub(super) struct Doing<'a> {
    pub(super) round: &'a Round,
    pub(super) safe_id: String,
    tell: &'a mut dyn FnMut(Step),
    /// What is not told yet.
    pub(super) done: Tidied,
    /// Problems of the whole round.
    problems: usize,
    /// When merging ends, by the monotonic clock.
    merge_until_ns: u64,
}

impl<'a> Doing<'a> {
    pub(super) fn new(round: &'a Round, tell: &'a mut dyn FnMut(Step)) -> Self {
        let safe_id = folder::safe_id(&round.probe_id);
        let merge_until_ns = monotonic_ns().saturating_add(ms(MERGE_MS_MAX));
        Self { round, safe_id, tell, done: Tidied::default(), problems: 0, merge_until_ns }
    }

    fn tidy(&mut self) {
        let Round { ref folder, hour, .. } = *self.round;
        let mut hours = if self.round.whole {
            scan::all(folder, &self.safe_id)
        } else {
            let first = hour.saturating_sub(RECENT_HOURS);
            scan::between(folder, &self.safe_id, first, hour + 1)
        };
        if self.round.whole {
            self.retain(&mut hours);
            self.tell();
        }
        if self.round.compact {
            self.compact(&hours);
            self.tell();
        }
    }

    /// Tells which hour comes next.
    pub(super) fn at(&mut self, name: &str) {
        (self.tell)(Step::At(name.to_owned()));
    }

    /// Tells what was done since the step before.
    pub(super) fn tell(&mut self) {
        (self.tell)(Step::Done(std::mem::take(&mut self.done)));
    }

    fn retain(&mut self, hours: &mut Hours) {
        let rules = self.round.rules();
        let going = rules.choose(hours);
        if let Some(ahead) = going.by_size.iter().find(|(hour, _)| rules.is_ahead(*hour)) {
            let hour = name(*ahead);
            self.problem(format!("{hour} is ahead of the clock: it goes first, by its size"));
        }
        for place in going.by_age {
            let removed = self.remove(place, hours.remove(&place));
            self.done.by_age.add(&removed);
            // At once: the records are gone, and whatever comes may end this process.
            self.tell();
        }
        for place in going.by_size {
            let removed = self.remove(place, hours.remove(&place));
            self.done.by_size.add(&removed);
            self.tell();
        }
        if let Some(max) = rules.size_max_bytes
            && going.left_bytes > max
        {
            let problem = format!(
                "the open hours and the inventory alone take {} MiB, more than store.size_mib_max",
                going.left_bytes >> 20
            );
            self.problem(problem);
        }
        self.done.stored_bytes = Some(going.left_bytes);
    }

    /// Removes the files of an hour, and the folders that are empty then. Their rows are counted before
    /// the folder is held alone: that reads the end of each, and who adds files would wait for it.
    fn remove(&mut self, place: Place, files: Option<Vec<Stored>>) -> Removed {
        let mut removed = Removed::default();
        let root = &self.round.folder;
        let counted = |stored: Stored| {
            let path = scan::path(root, &self.safe_id, place, &stored);
            let records = Input::open(path.clone()).map_or(0, |input| input.rows());
            (path, Removed { files: 1, records, bytes: stored.bytes })
        };
        let counted: Vec<_> = files.into_iter().flatten().map(counted).collect();
        let lock = folder::lock_alone(root);
        if let Err(error) = &lock {
            self.problem(format!("{}: cannot lock: {error}", root.display()));
            return removed;
        }
        for (path, file) in counted {
            match fs::remove_file(&path) {
                Ok(()) => removed.add(&file),
                Err(error) => self.problem(format!("{}: cannot remove: {error}", path.display())),
            }
        }
        for (path, bytes) in scan::rolled(root, &self.safe_id, place) {
            match fs::remove_file(&path) {
                Ok(()) => removed.bytes += bytes,
                Err(error) => self.problem(format!("{}: cannot remove: {error}", path.display())),
            }
        }
        let hour = folder::hour_folder(root, place.1, place.0);
        // Files of other probes keep them.
        let _ = fs::remove_dir(&hour);
        let _ = hour.parent().map(fs::remove_dir);
        removed
    }

    fn compact(&mut self, hours: &Hours) {
        let rules = self.round.rules();
        let root = self.round.folder.clone();
        let safe_id = self.safe_id.clone();
        let compactor =
            Compactor { root: &root, safe_id: &safe_id, free_mib_min: self.round.free_mib_min };
        if let Err(error) = compactor.clean() {
            self.problem(format!("{}: leftovers cannot be removed: {error}", root.display()));
            return;
        }
        for (&place, files) in hours {
            let small = small(files, place.0 >= rules.first_open());
            let name = name(place);
            if small.is_empty() || self.round.leave.contains(&name) {
                continue;
            }
            if monotonic_ns() >= self.merge_until_ns {
                self.done.unfinished = true;
                return;
            }
            self.at(&name);
            match compactor.compact(place, files, &small) {
                Ok(compacted) => self.compacted(name, compacted),
                Err(error @ CompactError::Unsupported { .. }) => {
                    self.done.cannot_compact = true;
                    self.problem(error.to_string());
                    return;
                }
                Err(error) => self.problem(error.to_string()),
            }
            self.tell();
        }
    }

    fn compacted(&mut self, name: String, compacted: Compacted) {
        self.done.merged_files += compacted.merged;
        self.done.made_files += compacted.made;
        if !compacted.bad.is_empty() {
            self.done.leave.push(name);
        }
        for problem in compacted.bad {
            self.problem(problem);
        }
    }

    pub(super) fn problem(&mut self, mut problem: String) {
        if let Some((end, _)) = problem.char_indices().nth(PROBLEM_CHARS_MAX) {
            problem.truncate(end);
        }
        if self.problems < PROBLEMS_MAX {
            self.problems += 1;
            self.done.problems.push(problem);
        }
    }
}

/// An hour of a table as `flows/2026-01-01/05`.
pub(super) fn name((hour, table): Place) -> String {
    folder::hour_folder("".as_ref(), table, hour).display().to_string()
}

#[cfg(test)]
mod tests;
