//! What a member counts, by name.
//!
//! In: counts of what is there now, and of what has gone. Out: [`Counts`], for reports and metrics.
//! Invariants: a count that is listed is there from the start, as 0.

use std::collections::BTreeMap;

/// Counts by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// All of them 0.
    pub(super) fn of(lists: &[&[&'static str]]) -> Self {
        Self(lists.iter().flat_map(|names| names.iter()).map(|name| (*name, 0)).collect())
    }

    /// Adds so many to one that is listed.
    pub(super) fn add(&mut self, name: &'static str, count: u64) {
        debug_assert!(self.0.contains_key(name), "{name} is not listed");
        *self.0.entry(name).or_default() += count;
    }

    /// So many of this name; 0 of one that is not listed.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}
