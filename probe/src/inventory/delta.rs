//! What became of the store of facts, so that it can be done again after a restart.
//!
//! In: facts before and after a change. Out: [`SubjectDelta`]s; [`Restored`], which puts them together
//! again.
//! Cost: one pass over the facts of a subject that changed.
//! Invariants: the same deltas in the same order give the same facts in the same order; they are facts, not
//! what sources said, so that they mean the same to another version of the store.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::change::{Attribute, Subject};
use super::fact::{Fact, Facts};
use super::source::SourceId;
use super::{Segment, Uuid};
use crate::time::Timestamp;

/// Which fact of a subject: no two agree in all of it, for what a source says of an attribute does not
/// overlap while it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactKey {
    /// Who says it.
    pub source: SourceId,
    /// Of what.
    pub attribute: Attribute,
    /// First instant for which it holds.
    pub valid_from: Timestamp,
    /// Since when it is known.
    pub known_from: Timestamp,
}

impl FactKey {
    /// Of a fact.
    pub fn of(fact: &Fact) -> Self {
        Self {
            source: fact.source,
            attribute: fact.attribute.clone(),
            valid_from: fact.valid.from,
            known_from: fact.known.from,
        }
    }
}

/// What became of the facts of one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Facts that are gone: forgotten, or corrected at the instant at which they became known.
    pub gone: Vec<FactKey>,
    /// Facts that are new, or are known to be otherwise since, as they are now.
    pub said: Vec<Fact>,
}

/// What became of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectDelta {
    /// Of its facts.
    Facts(Subject, Delta),
    /// A VM was forgotten for lack of room.
    Forgotten(Uuid),
}

impl SubjectDelta {
    /// All that is known of a subject, of which nothing was known.
    pub fn whole(subject: Subject, facts: &Facts) -> Self {
        Self::Facts(subject, Delta { gone: Vec::new(), said: facts.all().to_vec() })
    }
}

/// Facts that are put together again.
#[derive(Debug, Default)]
pub struct Restored {
    /// Since when the newest of them is known.
    pub known: Timestamp,
    /// VMs in the order in which they came; a place is free once its VM was forgotten.
    vms: Vec<Option<(Uuid, Facts)>>,
    places: BTreeMap<Uuid, usize>,
    free: Vec<usize>,
    segments: BTreeMap<Segment, Facts>,
}

impl Restored {
    /// Does one change again.
    pub fn redo(&mut self, delta: SubjectDelta) {
        match delta {
            SubjectDelta::Facts(Subject::Vm(uuid), delta) => self.vm(uuid).redo(delta),
            SubjectDelta::Facts(Subject::Segment(segment), delta) => {
                self.segments.entry(segment).or_default().redo(delta);
            }
            SubjectDelta::Forgotten(uuid) => {
                if let Some(place) = self.places.remove(&uuid) {
                    self.vms[place] = None;
                    self.free.push(place);
                }
            }
        }
    }

    /// To be called where changes between were lost: of what a source said of one attribute for one time, what
    /// became known last counts, as it would have when it was said.
    pub fn mend(&mut self) {
        let vms = self.vms.iter_mut().flatten().map(|(_, facts)| facts);
        for facts in vms.chain(self.segments.values_mut()) {
            facts.mend(self.known);
        }
    }

    /// What became known later than `skew_max_ns` after now counts as known now: the clock of an earlier run
    /// was ahead, and nothing could become known before that time again. Gives the number of facts.
    pub fn bound_known(&mut self, now: Timestamp, skew_max_ns: u64) -> u64 {
        let latest = now + skew_max_ns;
        self.known = self.known.min(latest);
        let vms = self.vms.iter_mut().flatten().map(|(_, facts)| facts);
        let all = vms.chain(self.segments.values_mut());
        all.map(|facts| facts.bound_known(now, latest)).sum()
    }

    fn vm(&mut self, uuid: Uuid) -> &mut Facts {
        let place = match self.places.entry(uuid) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(new) => {
                let place = self.free.pop().unwrap_or(self.vms.len());
                if place == self.vms.len() {
                    self.vms.push(None);
                }
                *new.insert(place)
            }
        };
        &mut self.vms[place].get_or_insert_with(|| (uuid, Facts::default())).1
    }

    /// VMs and segments.
    pub(super) fn into_parts(self) -> (Vec<(Uuid, Facts)>, BTreeMap<Segment, Facts>) {
        (self.vms.into_iter().flatten().collect(), self.segments)
    }

    /// VMs, and facts in all.
    pub fn counts(&self) -> (u64, u64) {
        let facts = self.vms.iter().flatten().map(|(_, facts)| facts).chain(self.segments.values());
        let facts: usize = facts.map(|facts| facts.all().len()).sum();
        (self.places.len() as u64, facts as u64)
    }

    /// Whether a source has said anything of it.
    pub fn speaks(&self, source: SourceId) -> bool {
        let facts = self.vms.iter().flatten().map(|(_, facts)| facts).chain(self.segments.values());
        facts.flat_map(Facts::all).any(|fact| fact.source == source)
    }
}
