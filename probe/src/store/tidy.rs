//! One round of tidying, in a process of its own.
//!
//! In: a [`Round`] as JSON. Out: a [`Tidied`] as JSON, and before each hour that is worked on a line
//! that names it.
//! Cost: as `scan.rs` and `compact.rs`; the lowest priority there is.
//! Invariants: it may be killed at any instant; a file that is no good stays and is named.
//!
//! A process of its own, because reading a file that went bad on the disk may fail in any way, and
//! must not end the probe; and because its memory goes back in full.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::compact::{CompactError, Compacted, Compactor, small};
use super::merge::Input;
use super::query;
use super::retain::Rules;
use super::scan::{self, Hours, Place, Stored};
use crate::export::parquet::folder;
use crate::record::Table;

/// Problems that are told of one round.
const PROBLEMS_MAX: usize = 16;
/// Hours back from that of the clock that are looked at in every round: files of the last hour but
/// one may still have been open in the round before.
const RECENT_HOURS: u64 = 4;
/// Hours that are added up in one round: an older store has many.
const ROLLED_HOURS_MAX: u64 = 24;
/// The lowest priority.
const NICE: i32 = 19;

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
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
    /// Hours that came to grief before, by name.
    pub leave: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tidied {
    /// Small files that are gone, and larger ones in their place.
    pub merged_files: u64,
    /// See there.
    pub made_files: u64,
    /// Hours of windows that were added up for questions about days.
    #[serde(default)]
    pub rolled_hours: u64,
    /// Removed because of their age.
    pub by_age: Removed,
    /// Removed because all together were too large.
    pub by_size: Removed,
    /// Bytes of all files after a whole round.
    pub stored_bytes: Option<u64>,
    /// What went wrong, for people.
    pub problems: Vec<String>,
    /// Hours that are not to be tried again, by name.
    pub leave: Vec<String>,
    /// The file system cannot do what merging needs.
    pub cannot_compact: bool,
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
    /// Does it. The name of each hour goes to `progress` before that hour is worked on.
    pub fn run(&self, progress: &mut impl Write) -> Tidied {
        let safe_id = folder::safe_id(&self.probe_id);
        let mut round = Doing { round: self, safe_id, done: Tidied::default() };
        let mut hours = if self.whole {
            scan::all(&self.folder, &round.safe_id)
        } else {
            let first = self.hour.saturating_sub(RECENT_HOURS);
            scan::between(&self.folder, &round.safe_id, first, self.hour + 1)
        };
        if self.whole {
            round.retain(&mut hours);
        }
        if self.compact {
            round.compact(&hours, progress);
            if self.whole {
                round.roll_up(&hours, progress);
            }
        }
        round.done
    }

    const fn rules(&self) -> Rules {
        let size_max_bytes = match self.size_mib_max {
            Some(mib) => Some((mib as u64) << 20),
            None => None,
        };
        let Self { hour, run_hour, keep_days, .. } = *self;
        Rules { hour, run_hour, keep_days, size_max_bytes }
    }
}

/// A round under way.
struct Doing<'a> {
    round: &'a Round,
    safe_id: String,
    done: Tidied,
}

impl Doing<'_> {
    fn retain(&mut self, hours: &mut Hours) {
        let going = self.round.rules().choose(hours);
        for place in going.by_age {
            let removed = self.remove(place, hours.remove(&place));
            self.done.by_age.add(&removed);
        }
        for place in going.by_size {
            let removed = self.remove(place, hours.remove(&place));
            self.done.by_size.add(&removed);
        }
        if let Some(max) = self.round.rules().size_max_bytes
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

    fn compact(&mut self, hours: &Hours, progress: &mut impl Write) {
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
            // Whoever reads it may have gone; the work goes on.
            let _ = writeln!(progress, "{name}").and_then(|()| progress.flush());
            match compactor.compact(place, files, &small) {
                Ok(compacted) => self.compacted(name, compacted),
                Err(error @ CompactError::Unsupported { .. }) => {
                    self.done.cannot_compact = true;
                    self.problem(error.to_string());
                    return;
                }
                Err(error) => self.problem(error.to_string()),
            }
        }
    }

    /// Has hours of windows that are over added up, by the program that asks for it. Where that is not
    /// there nobody does.
    fn roll_up(&mut self, hours: &Hours, progress: &mut impl Write) {
        let Ok(program) = query::program() else { return };
        let root = &self.round.folder;
        let first_open = self.round.rules().first_open();
        // The newest are asked first.
        for &place in hours.keys().rev() {
            if self.done.rolled_hours >= ROLLED_HOURS_MAX {
                return;
            }
            let name = name(place);
            let is_left = self.round.leave.contains(&name) || self.done.leave.contains(&name);
            if place.1 != Table::Windows || place.0 >= first_open || is_left {
                continue;
            }
            let Some((_, files)) = scan::files(root, &self.safe_id, place) else { continue };
            if scan::has_rolled(root, &self.safe_id, place, &files) {
                continue;
            }
            let _ = writeln!(progress, "{name}").and_then(|()| progress.flush());
            let mut command = Command::new(&program);
            command.arg("roll-up").arg("--hour").arg(folder::hour_folder(root, place.1, place.0));
            command.arg("--work").arg(folder::hidden(root, &self.safe_id));
            command.args(["--probe", &self.safe_id]);
            command.arg(format!("--free-mib-min={}", self.round.free_mib_min));
            let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
            let problem = match ended {
                Ok(ended) if ended.status.success() => {
                    self.done.rolled_hours += 1;
                    continue;
                }
                Ok(ended) => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
                Err(error) => error.to_string(),
            };
            // It is asked window by window, which takes longer.
            self.problem(format!("{name} is not added up: {problem}"));
            self.done.leave.push(name);
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

    fn problem(&mut self, problem: String) {
        if self.done.problems.len() < PROBLEMS_MAX {
            self.done.problems.push(problem);
        }
    }
}

/// An hour of a table as `flows/2026-01-01/05`.
fn name((hour, table): Place) -> String {
    folder::hour_folder("".as_ref(), table, hour).display().to_string()
}

#[cfg(test)]
mod tests;
