//! What is wrong with a file, all of it at once.
//!
//! In: byte offsets into the text and what is wrong there. Out: [`Problems`], one line each as
//! `FILE:LINE: key: what is wrong and what is allowed`.
//! Invariants: sorted by line; at most [`PROBLEMS_MAX`] are kept, the rest is counted; a line that
//! is not TOML has no further problem, because what was read of it is a guess.

use std::collections::BTreeSet;
use std::fmt;

/// Problems that are kept of one file; further ones are only counted.
pub const PROBLEMS_MAX: usize = 1_000;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// The key, as `table.key`; empty where no key is meant.
    pub key: String,
    /// What is wrong and what is allowed.
    pub what: String,
}

/// All problems of one file. As an error of reading it there is at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// Name of the file, as the user gave it.
    pub file: String,
    /// In order of lines.
    pub list: Vec<Problem>,
    /// Further problems, beyond [`PROBLEMS_MAX`].
    pub further: usize,
}

impl Problems {
    /// One problem of the file as a whole.
    pub fn of_file(file: &str, what: impl Into<String>) -> Self {
        let problem = Problem { line: None, key: String::new(), what: what.into() };
        Self { file: file.to_owned(), list: vec![problem], further: 0 }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.list.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(out, "{separator}{}:", self.file)?;
            if let Some(line) = problem.line {
                write!(out, "{line}:")?;
            }
            if !problem.key.is_empty() {
                write!(out, " {}:", problem.key)?;
            }
            write!(out, " {}", problem.what)?;
        }
        if self.further > 0 {
            write!(out, "\n{}: {} further problems", self.file, self.further)?;
        }
        Ok(())
    }
}

/// Collects the problems of one text while it is read.
#[derive(Debug)]
pub(crate) struct Report {
    line_ends: Vec<usize>,
    broken_lines: BTreeSet<usize>,
    problems: Problems,
    warnings: Problems,
}

impl Report {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let line_ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        let empty = Problems { file: file.to_owned(), ..Problems::default() };
        Self {
            line_ends: line_ends.map(|(at, _)| at).collect(),
            broken_lines: BTreeSet::new(),
            problems: empty.clone(),
            warnings: empty,
        }
    }

    /// The line, from 1, of the octet at `at`.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.line_ends.partition_point(|end| *end < at) + 1
    }

    /// Whether the text is no TOML, so that what is missing may only be unreadable.
    pub(crate) fn is_broken(&self) -> bool {
        !self.broken_lines.is_empty()
    }

    /// Whether further problems are only counted, so that no effort should go into their text.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.list.len() >= PROBLEMS_MAX
    }

    /// Notes that the text is no TOML at `at`. Only the first of a line is kept.
    pub(crate) fn broken(&mut self, at: usize, what: &str) {
        let line = self.line(at);
        if self.broken_lines.insert(line) {
            note(&mut self.problems, line, String::new(), what.to_owned());
        }
    }

    /// Notes what has to be mended.
    pub(crate) fn problem(&mut self, at: usize, key: impl Into<String>, what: impl Into<String>) {
        let line = self.line(at);
        if !self.broken_lines.contains(&line) {
            note(&mut self.problems, line, key.into(), what.into());
        }
    }

    /// Notes what is allowed but may surprise.
    pub(crate) fn warning(&mut self, at: usize, key: impl Into<String>, what: impl Into<String>) {
        let line = self.line(at);
        note(&mut self.warnings, line, key.into(), what.into());
    }

    /// The warnings, or the problems if there are any.
    pub(crate) fn finish(mut self) -> Result<Problems, Problems> {
        self.problems.list.sort_by_key(|problem| problem.line);
        self.warnings.list.sort_by_key(|problem| problem.line);
        if self.problems.list.is_empty() { Ok(self.warnings) } else { Err(self.problems) }
    }
}

fn note(to: &mut Problems, line: usize, key: String, what: String) {
    if to.list.len() < PROBLEMS_MAX {
        to.list.push(Problem { line: Some(line), key, what });
    } else {
        to.further += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stand_in_order_of_lines() {
        let mut report = Report::new("x.toml", "a = 1\nb = 2\n");
        report.problem(6, "b", "second");
        report.problem(5, "a", "first");
        let problems = report.finish().expect_err("two problems");
        assert_eq!(problems.to_string(), "x.toml:1: a: first\nx.toml:2: b: second");
    }

    #[test]
    fn a_broken_line_has_one_problem() {
        let mut report = Report::new("x.toml", "a = \nb = 2\n");
        report.broken(4, "no value");
        report.broken(4, "again");
        report.problem(0, "a", "a guess");
        assert_eq!(report.finish().expect_err("one").to_string(), "x.toml:1: no value");
    }

    #[test]
    fn too_many_problems_are_counted() {
        let mut report = Report::new("x.toml", "");
        for _ in 0..PROBLEMS_MAX + 3 {
            report.problem(0, "a", "wrong");
        }
        let problems = report.finish().expect_err("many");
        assert_eq!((problems.list.len(), problems.further), (PROBLEMS_MAX, 3));
        assert!(problems.to_string().ends_with("x.toml: 3 further problems"));
    }
}
