//! What an answer lacks, and why.
//!
//! In: files that are no records, links, probes that do not tell what they have. Out: an error, or warnings on
//! standard error, kept for an answer that repeats them.
//! Invariants: of a list the first [`NAMED_MAX`] are named and the others counted; nothing is left out without
//! a warning.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::bail;

/// How many of a list of files are named.
const NAMED_MAX: usize = 20;

/// What was said so far.
#[derive(Debug)]
pub(crate) struct Warnings {
    skips_bad_files: bool,
    said: RefCell<Vec<String>>,
}

impl Warnings {
    /// Of an answer without the files that are no records, where it `skips_bad_files`; else they are an error.
    pub(crate) const fn new(skips_bad_files: bool) -> Self {
        Self { skips_bad_files, said: RefCell::new(Vec::new()) }
    }

    /// All of them, in order.
    pub(crate) fn into_said(self) -> Vec<String> {
        self.said.into_inner()
    }

    /// Refuses files that are no records, or warns of them.
    pub(crate) fn bad_files(&self, bad: &[String]) -> anyhow::Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let (count, list) = (bad.len(), listed(bad));
        if !self.skips_bad_files {
            bail!("not records of vmprobe ({count}; --skip-bad-files leaves them out):{list}");
        }
        self.say(format!("left out, not records of vmprobe ({count}):{list}"));
        Ok(())
    }

    /// Warns of links that are not followed.
    pub(crate) fn links(&self, links: &BTreeSet<String>) {
        if !links.is_empty() {
            let (count, list) = (links.len(), listed(links));
            self.say(format!("left out, links are not followed ({count}):{list}"));
        }
    }

    /// Warns that a probe's last rows are not in files.
    pub(crate) fn newest_missing(&self, socket: &str, problem: &str) {
        self.say(format!("the newest records are missing ({socket}: {problem})"));
    }

    /// Each once: several views may be over one file.
    fn say(&self, warning: String) {
        let mut said = self.said.borrow_mut();
        if !said.contains(&warning) {
            eprintln!("vmprobe-query: {warning}");
            said.push(warning);
        }
    }
}

/// The first of a list, a line each, and how many more there are.
fn listed<'a>(all: impl IntoIterator<Item = &'a String>) -> String {
    let mut all = all.into_iter();
    let mut lines = String::new();
    for name in all.by_ref().take(NAMED_MAX) {
        lines.extend(["\n  ", name]);
    }
    match all.count() {
        0 => lines,
        more => format!("{lines}\n  and {more} more"),
    }
}
