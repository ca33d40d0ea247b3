//! Hours of windows that are over are added up.
//!
//! In: a [`Round`](super::tidy::Round), the query program. Out: four files beside the windows of an hour,
//! made by that program (`rollup` there), and a step each.
//! Cost: a process an hour, one at a time, which bounds its memory and its time.
//! Invariants: at most [`HOURS_MAX`] hours are tried in one round, whatever becomes of them, and it ends
//! where others would fail alike.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::scan::{self, Place};
use super::tidy::{Doing, name};
use crate::export::parquet::folder;
use crate::record::Table;
use crate::time::{monotonic_ns, ms};

/// Hours that are tried in one round: an older store has many.
const HOURS_MAX: u32 = 24;
/// After this time no other hour is begun.
const BEGIN_MS_MAX: u64 = 1_800_000;
/// So many hours fail one after the other, and the next would too.
const ALIKE_MAX: u32 = 3;
/// How the query program ends where an hour is not at fault: it was called wrongly, because it is of
/// another version; the disk has no room; the system cannot start it, or does not find its library.
const EXITS_OF_ALL: [i32; 4] = [2, 5, 126, 127];

/// Why an hour is not added up.
struct Failure {
    why: String,
    /// The hour is not at fault.
    is_of_all: bool,
}

impl Doing<'_> {
    /// Has hours added up by `program`, the newest first: they are asked first.
    pub(super) fn roll_up(&mut self, program: &Path) {
        let root = &self.round.folder;
        let first_open = self.round.rules().first_open();
        // What a crash left.
        let _ = fs::remove_dir_all(folder::hidden_roll_ups(root, &self.safe_id));
        let until_ns = monotonic_ns().saturating_add(ms(BEGIN_MS_MAX));
        let (mut tried, mut failed_alike) = (0, 0);
        let hours = scan::all(root, &self.safe_id);
        for &place in hours.keys().rev() {
            if tried >= HOURS_MAX || monotonic_ns() >= until_ns {
                return;
            }
            let name = name(place);
            let is_over = place.1 == Table::Windows && place.0 < first_open;
            if !is_over || self.round.leave.contains(&name) || !self.is_to_do(place) {
                continue;
            }
            tried += 1;
            self.at(&name);
            match self.add_up(program, place) {
                Ok(()) => {
                    failed_alike = 0;
                    self.done.rolled_hours += 1;
                }
                Err(Failure { why, is_of_all }) => {
                    failed_alike += 1;
                    // It is asked window by window, which takes longer.
                    self.problem(format!("{name} is not added up: {why}"));
                    if !is_of_all {
                        self.done.leave.push(name);
                    }
                    self.done.cannot_roll_up = is_of_all || failed_alike >= ALIKE_MAX;
                }
            }
            let goes_on = !self.done.cannot_roll_up;
            self.tell();
            if !goes_on {
                return;
            }
        }
    }

    /// Whether an hour has windows that are added up nowhere, now: rounds of the other kind go on.
    fn is_to_do(&self, place: Place) -> bool {
        let root = &self.round.folder;
        scan::files(root, &self.safe_id, place).is_some_and(|(_, files)| {
            !files.is_empty() && !scan::has_rolled(root, &self.safe_id, place, &files)
        })
    }

    fn add_up(&self, program: &Path, (hour, table): Place) -> Result<(), Failure> {
        let root = &self.round.folder;
        let mut command = Command::new(program);
        command.arg("roll-up").arg("--hour").arg(folder::hour_folder(root, table, hour));
        command.arg("--work").arg(folder::hidden_roll_ups(root, &self.safe_id));
        command.args(["--probe", &self.safe_id]);
        command.arg(format!("--free-mib-min={}", self.round.free_mib_min));
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
        match ended {
            Ok(Output { status, .. }) if status.success() => Ok(()),
            Ok(Output { status, stderr, .. }) => {
                let said = String::from_utf8_lossy(&stderr).trim().to_owned();
                let why = if said.is_empty() { status.to_string() } else { said };
                let is_of_all = status.code().is_some_and(|code| EXITS_OF_ALL.contains(&code));
                Err(Failure { why, is_of_all })
            }
            Err(error) => Err(Failure { why: error.to_string(), is_of_all: true }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;
    use crate::export::parquet::test_folder::Folder;
    use crate::store::tidy::{Round, Step, Tidied, Work};

    const HOUR: u64 = 480_000;

    /// Hours with windows as far as names say, and a program.
    fn store(name: &str, hours: u64, script: &str) -> (Folder, PathBuf) {
        let folder = Folder::new(name);
        for hour in HOUR - hours..HOUR {
            let of_hour = folder::hour_folder(&folder.0, Table::Windows, hour);
            fs::create_dir_all(&of_hour).expect("a folder");
            fs::write(of_hour.join("windows-p1-7-0.parquet"), "rows").expect("a file");
        }
        let program = folder.0.join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a file");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        (folder, program)
    }

    /// How many hours were tried, and what came of it.
    fn roll_up(folder: &Folder, program: &Path, leave: &[String]) -> (usize, Tidied) {
        let round = Round {
            leave: leave.to_vec(),
            ..Round::of_all(Work::RollUp, &folder.0, "p1", HOUR + 1)
        };
        let (mut tried, mut sum) = (0, Tidied::default());
        let mut tell = |step| match step {
            Step::At(_) => tried += 1,
            Step::Done(done) => sum.add(done),
        };
        Doing::new(&round, &mut tell).roll_up(program);
        (tried, sum)
    }

    #[test]
    fn what_is_no_hours_fault_ends_the_round_and_names_none() {
        for script in ["exit 127", "exit 2", "echo no room >&2; exit 5"] {
            let (folder, program) = store("of-all", 9, script);
            let (tried, done) = roll_up(&folder, &program, &[]);
            assert_eq!((tried, done.cannot_roll_up, done.leave.len()), (1, true, 0), "{script}");
            assert_eq!(done.problems.len(), 1, "{script}: {:?}", done.problems);
            let missing = roll_up(&folder, &folder.0.join("nowhere"), &[]).1;
            assert!(missing.cannot_roll_up && missing.leave.is_empty(), "{missing:?}");
        }
    }

    #[test]
    fn hours_that_fail_alike_end_the_round_and_the_next_goes_on_behind_them() {
        let (folder, program) = store("alike", 9, "echo Out of Memory >&2; exit 1");
        let (tried, first) = roll_up(&folder, &program, &[]);
        assert_eq!((tried, first.cannot_roll_up, first.leave.len()), (3, true, 3));
        assert!(first.problems[0].ends_with("is not added up: Out of Memory"), "{first:?}");
        let (tried, next) = roll_up(&folder, &program, &first.leave);
        assert_eq!((tried, next.leave.len()), (3, 3));
        assert!(next.leave.iter().all(|hour| !first.leave.contains(hour)), "{next:?}");
    }

    #[test]
    fn a_bad_hour_among_good_ones_costs_itself_and_a_round_is_bounded() {
        let bad = folder::hour_folder("".as_ref(), Table::Windows, HOUR - 2);
        let script = format!("case \"$*\" in *{}*) exit 1;; esac", bad.display());
        let (folder, program) = store("bad-hour", 40, &script);
        let (tried, done) = roll_up(&folder, &program, &[]);
        assert_eq!((tried, done.rolled_hours, done.cannot_roll_up), (24, 23, false));
        assert_eq!(done.leave, [name((HOUR - 2, Table::Windows))]);
    }
}
