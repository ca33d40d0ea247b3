//! What ends because a source that says everything does not say it again.
//!
//! In: facts of a subject, and what its source says of it now. Out: [`Change`]s that end the rest.
//! Cost: one pass over the facts.

use std::collections::BTreeSet;

use super::Interval;
use super::change::{Attribute, Change, Missing, Subject, Until, Value};
use super::fact::Facts;
use super::source::SourceId;
use crate::time::Timestamp;

/// One source, at one instant.
pub(super) struct Ends {
    pub(super) source: SourceId,
    pub(super) at: Timestamp,
    pub(super) missing: Missing,
    pub(super) subject: Subject,
}

impl Ends {
    /// Of one subject.
    pub(super) fn of_vm(&self, facts: &Facts, said: &[Change]) -> Vec<Change> {
        let before = facts
            .current()
            .filter(|fact| fact.source == self.source && fact.valid.to > self.at)
            .map(|fact| &fact.attribute);
        let before: BTreeSet<&Attribute> = before.collect();
        if before.is_empty() {
            return Vec::new();
        }
        let again: BTreeSet<&Attribute> = said.iter().map(|change| &change.attribute).collect();
        let ends = self.missing == Missing::Ended;
        if ends && again.is_empty() {
            return vec![self.change(Attribute::Exists, Some(Value::Flag(false)))];
        }
        let interfaces: BTreeSet<_> =
            again.iter().filter_map(|attribute| attribute.interface()).collect();
        let mut changes = Vec::new();
        let mut detached = BTreeSet::new();
        for attribute in before.difference(&again) {
            match attribute.interface() {
                Some(id) if ends && !interfaces.contains(&id) => {
                    if detached.insert(id) {
                        changes
                            .push(self.change(Attribute::Attached(id), Some(Value::Flag(false))));
                    }
                }
                _ => changes.push(self.change((*attribute).clone(), None)),
            }
        }
        changes
    }

    fn change(&self, attribute: Attribute, value: Option<Value>) -> Change {
        let until = Until::At(Interval::ALWAYS.to);
        Change { subject: self.subject, attribute, value, from: self.at, until }
    }
}
