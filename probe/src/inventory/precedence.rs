//! Which of several sources is heard, attribute by attribute and instant by instant.
//!
//! In: facts that are known at one time, the ranks of their sources. Out: one timeline an attribute.
//! Cost: quadratic in the facts of an attribute where several sources speak of it, else linear.
//! Invariants: the result depends on the facts alone, not on the order in which they came: the source of
//! the lower rank is heard; of two of one rank the value whose time began later; then the one that became
//! known later; then the source with the lower number.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Interval;
use super::change::Value;
use super::fact::Fact;
use super::source::{SourceId, SourceKind};
use super::timeline::Timeline;
use crate::time::Timestamp;

/// A source as the inventory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    /// Kind.
    pub kind: SourceKind,
    /// Unique name.
    pub name: Arc<str>,
    /// Place in the order of precedence; 0 is heard first.
    pub rank: u8,
}

/// What is heard, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard<V> {
    pub(super) value: V,
    pub(super) source: SourceId,
    pub(super) known: Timestamp,
}

/// The rank of a source; one that nobody registered is heard last.
pub(super) fn rank(sources: &[SourceName], source: SourceId) -> u8 {
    sources.get(usize::from(source.0)).map_or(u8::MAX, |source| source.rank)
}

/// One timeline out of what all sources say of one attribute; facts whose value has another form than
/// `read` wants are left out.
pub(super) fn heard<V: Clone + PartialEq>(
    facts: &[&Fact],
    sources: &[SourceName],
    read: impl Fn(&Value) -> Option<V>,
) -> Timeline<Heard<V>> {
    let order = |fact: &Fact| {
        let later = (Reverse(fact.valid.from), Reverse(fact.known.from));
        (rank(sources, fact.source), later, fact.source)
    };
    let mut timeline = Timeline::default();
    let mut put = |valid: Interval, fact: &Fact| {
        if let Some(value) = read(&fact.value) {
            let heard = Heard { value, source: fact.source, known: fact.known.from };
            timeline.append(valid, heard);
        }
    };
    let mut sorted = facts.to_vec();
    sorted.sort_by_key(|fact| (fact.valid.from, order(fact)));
    let apart = sorted.windows(2).all(|pair| pair[0].valid.to <= pair[1].valid.from);
    if apart {
        for fact in sorted {
            put(fact.valid, fact);
        }
        return timeline;
    }
    for time in between(sorted.iter().map(|fact| fact.valid)) {
        let there = sorted.iter().filter(|fact| fact.valid.and(time).is_some());
        if let Some(fact) = there.min_by_key(|fact| order(fact)) {
            put(time, fact);
        }
    }
    timeline
}

/// The times between all instants at which any of the spans begins or ends, in order.
pub(super) fn between(spans: impl Iterator<Item = Interval>) -> Vec<Interval> {
    let mut edges: Vec<Timestamp> = spans.flat_map(|span| [span.from, span.to]).collect();
    edges.sort_unstable();
    edges.dedup();
    edges.windows(2).map(|pair| Interval { from: pair[0], to: pair[1] }).collect()
}
