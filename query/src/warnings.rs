//! What an answer lacks, and why.
//!
//! In: files that are no records, links, probes that do not tell what they have. Out: an error, or warnings on
//! standard error, kept for an answer that repeats them.
//! Invariants: of a list the first [`NAMED_MAX`] are named and the others counted; a file is told of once,
//! however many tables are made of it; a name adds no line and at most [`NAME_CHARS_MAX`] characters.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::bail;

use crate::output::printable;

/// How many of a list of files are named.
const NAMED_MAX: usize = 20;
/// How much of each name and its problem.
const NAME_CHARS_MAX: usize = 400;
/// What is kept of a longer one, beside a mark.
const BEFORE_CUT_CHARS: usize = 99;
const BEHIND_CUT_CHARS: usize = NAME_CHARS_MAX - BEFORE_CUT_CHARS - 1;
/// Warnings that an answer repeats at most; the others are counted.
const REPEATED_MAX: usize = 32;

/// What was told so far.
#[derive(Debug)]
pub(crate) struct Warnings {
    skips_bad_files: bool,
    told: RefCell<Told>,
}

#[derive(Debug, Default)]
struct Told {
    warnings: Vec<String>,
    more: usize,
    bad_files: BTreeSet<String>,
}

impl Warnings {
    /// Of an answer without the files that are no records, where it `skips_bad_files`; else they are an error.
    pub(crate) fn new(skips_bad_files: bool) -> Self {
        Self { skips_bad_files, told: RefCell::default() }
    }

    /// All of them, in order.
    pub(crate) fn into_told(self) -> Vec<String> {
        let Told { mut warnings, more, .. } = self.told.into_inner();
        if more > 0 {
            warnings.push(format!("and {more} more"));
        }
        warnings
    }

    /// Refuses files that are no records, or warns of those that it has not told of.
    pub(crate) fn tell_bad_files(&self, bad: &[String]) -> anyhow::Result<()> {
        let told = &mut self.told.borrow_mut();
        let new: Vec<_> =
            bad.iter().filter(|file| told.bad_files.insert((*file).clone())).collect();
        if new.is_empty() {
            return Ok(());
        }
        let (count, list) = (new.len(), listed(new));
        if !self.skips_bad_files {
            bail!("not records of vmprobe ({count}; --skip-bad-files leaves them out):{list}");
        }
        told.add(format!("left out, not records of vmprobe ({count}):{list}"));
        Ok(())
    }

    /// Warns of links that are not followed.
    pub(crate) fn tell_links(&self, links: &BTreeSet<String>) {
        if !links.is_empty() {
            let (count, list) = (links.len(), listed(links));
            let warning = format!("left out, links are not followed ({count}):{list}");
            self.told.borrow_mut().add(warning);
        }
    }

    /// Warns that a probe's last rows are not in files; `socket` is its.
    pub(crate) fn tell_newest_missing(&self, socket: &str, problem: &str) {
        let problem = shown(&format!("{socket}: {problem}"));
        self.told.borrow_mut().add(format!("the newest records are missing ({problem})"));
    }

    /// Warns that nobody could ask whether a probe runs.
    pub(crate) fn tell_newest_unknown(&self, socket: &str, problem: &str) {
        let problem = shown(&format!("{socket}: {problem}"));
        let warning =
            format!("the newest records may be missing, no probe can be asked ({problem})");
        self.told.borrow_mut().add(warning);
    }
}

impl Told {
    fn add(&mut self, warning: String) {
        eprintln!("vmprobe-query: {warning}");
        if self.warnings.len() < REPEATED_MAX {
            self.warnings.push(warning);
        } else {
            self.more += 1;
        }
    }
}

/// The first of a list, a line each, and how many more there are.
fn listed<'a>(all: impl IntoIterator<Item = &'a String>) -> String {
    let mut all = all.into_iter();
    let mut lines = String::new();
    for name in all.by_ref().take(NAMED_MAX) {
        lines.push_str("\n  ");
        lines.push_str(&shown(name));
    }
    match all.count() {
        0 => lines,
        more => format!("{lines}\n  and {more} more"),
    }
}

/// On one line, and not too long. The end says what is wrong, and before that the name, so it is the middle
/// that is cut out.
fn shown(name: &str) -> String {
    let name = printable(name);
    let chars: Vec<_> = name.chars().collect();
    if chars.len() <= NAME_CHARS_MAX {
        return name;
    }
    let (head, tail) = (&chars[..BEFORE_CUT_CHARS], &chars[chars.len() - BEHIND_CUT_CHARS..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_of_once() {
        let warnings = Warnings::new(true);
        let files = ["a: torn", "b: torn", "c: torn"].map(str::to_owned);
        for some in [&files[..2], &files[1..2], &files[..], &files[..]] {
            assert!(warnings.tell_bad_files(some).is_ok());
        }
        let told = ["(2):\n  a: torn\n  b: torn", "(1):\n  c: torn"];
        let told = told.map(|it| format!("left out, not records of vmprobe {it}"));
        assert_eq!(warnings.into_told(), told);
    }

    #[test]
    fn no_name_adds_a_line_or_has_no_end() {
        let name = "\u{1b}[2J\n  and 5 more".to_owned();
        assert_eq!(listed([&name]), "\n  \u{fffd}[2J\u{fffd}  and 5 more");
        let (longest, longer) = ("é".repeat(NAME_CHARS_MAX), "é".repeat(NAME_CHARS_MAX + 1));
        assert_eq!(shown(&longest), longest);
        let (before, behind) = ("é".repeat(BEFORE_CUT_CHARS), "é".repeat(BEHIND_CUT_CHARS));
        assert_eq!(shown(&longer), format!("{before}…{behind}"));
        let torn = format!("{longest}/a.parquet: torn");
        assert!(shown(&torn).ends_with("/a.parquet: torn"));
        assert_eq!(shown(&torn).chars().count(), NAME_CHARS_MAX);
    }

    #[test]
    fn beyond_some_they_are_counted() {
        let warnings = Warnings::new(false);
        for _ in 0..REPEATED_MAX + 2 {
            warnings.tell_newest_missing(".live-p1.sock", "it is silent");
        }
        let told = warnings.into_told();
        assert_eq!(told.len(), REPEATED_MAX + 1);
        assert_eq!(told[0], "the newest records are missing (.live-p1.sock: it is silent)");
        assert_eq!(told[REPEATED_MAX], "and 2 more");
    }
}
