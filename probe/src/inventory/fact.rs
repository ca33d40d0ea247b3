//! What was said of one subject, by whom, for which time, and when the probe knew it.
//!
//! In: changes of sources. Out: [`Fact`]s; none is ever changed but for the end of the time in which it
//! was known.
//! Cost: a change costs a pass over the facts of its subject.
//! Invariants: the facts of one source and attribute that are known at one time do not overlap. At most
//! `facts_max` are kept of a subject: beyond it those that were known to be otherwise longest ago are
//! forgotten first, which is counted; the `inventory` table keeps them.

use std::collections::{BTreeMap, BTreeSet};

use super::Interval;
use super::change::{Attribute, Change, Until, Value};
use super::delta::{Delta, FactKey};
use super::source::SourceId;
use super::timeline::Timeline;
use crate::time::Timestamp;

/// One value, of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Of what.
    pub attribute: Attribute,
    /// What.
    pub value: Value,
    /// For which time it holds.
    pub valid: Interval,
    /// From when to when the probe knew it; the largest end: still.
    pub known: Interval,
    /// Who says it.
    pub source: SourceId,
}

impl Fact {
    /// Whether the probe has not learnt otherwise.
    pub fn is_current(&self) -> bool {
        self.known.to == Interval::ALWAYS.to
    }
}

/// What became of some changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Attributes whose history is another one now.
    pub changed: u64,
    /// Attributes of which nothing new was said.
    pub unchanged: u64,
    /// Old facts that were forgotten for lack of room.
    pub forgotten: u64,
}

/// The facts of one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// In the order in which they became known.
    facts: Vec<Fact>,
}

impl Facts {
    /// All of them.
    pub fn all(&self) -> &[Fact] {
        &self.facts
    }

    /// What has become of them since an earlier state of the same subject.
    pub(super) fn since(&self, before: &Self) -> Delta {
        let mut delta = Delta::default();
        let mut now = self.facts.iter().peekable();
        for old in &before.facts {
            // What is kept stays in its order.
            match now.next_if(|fact| FactKey::of(fact) == FactKey::of(old)) {
                Some(fact) if fact == old => {}
                Some(fact) => delta.said.push(fact.clone()),
                None => delta.gone.push(FactKey::of(old)),
            }
        }
        delta.said.extend(now.cloned());
        delta
    }

    /// Does again what became of them; see [`Facts::since`].
    pub(super) fn redo(&mut self, delta: Delta) {
        if !delta.gone.is_empty() {
            self.facts.retain(|fact| !delta.gone.contains(&FactKey::of(fact)));
        }
        for said in delta.said {
            let key = FactKey::of(&said);
            match self.facts.iter_mut().rev().find(|fact| FactKey::of(fact) == key) {
                Some(fact) => *fact = said,
                None => self.facts.push(said),
            }
        }
    }

    /// Where several of one source and attribute hold at once, because changes between were lost, the one that
    /// became known last counts, since `known`.
    pub(super) fn mend(&mut self, known: Timestamp) {
        let known = self.facts.iter().map(|fact| fact.known.from).fold(known, Timestamp::max);
        let said = self.current().map(|fact| (fact.source, fact.attribute.clone()));
        let said: BTreeSet<(SourceId, Attribute)> = said.collect();
        for (source, attribute) in said {
            let timeline = self.timeline(source, &attribute);
            self.replace(source, &attribute, &timeline, known);
        }
    }

    /// What became known after `latest` counts as known since `now`. Gives the number of facts.
    pub(super) fn bound_known(&mut self, now: Timestamp, latest: Timestamp) -> u64 {
        let mut bounded = 0;
        for fact in &mut self.facts {
            let (from, to) = (fact.known.from, fact.known.to);
            if from > latest {
                fact.known.from = now;
            }
            if to > latest && !fact.is_current() {
                fact.known.to = now;
            }
            bounded += u64::from((from, to) != (fact.known.from, fact.known.to));
        }
        // What was corrected after that was never known.
        self.facts.retain(|fact| fact.known.from < fact.known.to);
        bounded
    }

    /// Those that the probe holds true.
    pub fn current(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(|fact| fact.is_current())
    }

    /// As the probe knew them at a time.
    #[must_use]
    pub fn known_at(&self, known: Timestamp) -> Self {
        let then = self.facts.iter().filter(|fact| fact.known.holds(known));
        let then = then.map(|fact| Fact {
            known: Interval { to: Interval::ALWAYS.to, ..fact.known },
            ..fact.clone()
        });
        Self { facts: then.collect() }
    }

    /// What one source says of one attribute.
    pub fn timeline(&self, source: SourceId, attribute: &Attribute) -> Timeline<Value> {
        let said =
            self.current().filter(|fact| fact.source == source && fact.attribute == *attribute);
        let mut timeline = Timeline::default();
        for fact in said {
            timeline.set(fact.valid, Some(fact.value.clone()));
        }
        timeline
    }

    /// Takes over what a source says of this subject, known since `known`.
    pub fn apply(
        &mut self,
        source: SourceId,
        changes: &[Change],
        known: Timestamp,
        facts_max: usize,
    ) -> Applied {
        let mut timelines: BTreeMap<&Attribute, Timeline<Value>> = BTreeMap::new();
        for change in changes {
            let timeline = timelines
                .entry(&change.attribute)
                .or_insert_with(|| self.timeline(source, &change.attribute));
            let to = match change.until {
                Until::Next => timeline.until_next(change.from),
                Until::At(to) => to,
            };
            timeline.set(Interval { from: change.from, to }, change.value.clone());
        }
        let mut applied = Applied::default();
        for (attribute, timeline) in timelines {
            if self.replace(source, attribute, &timeline, known) {
                applied.changed += 1;
            } else {
                applied.unchanged += 1;
            }
        }
        applied.forgotten = self.forget(facts_max);
        applied
    }

    /// Closes the facts that are not in the timeline, and adds those that are new in it.
    fn replace(
        &mut self,
        source: SourceId,
        attribute: &Attribute,
        timeline: &Timeline<Value>,
        known: Timestamp,
    ) -> bool {
        let mut wanted: Vec<Option<&(Interval, Value)>> =
            timeline.spans().iter().map(Some).collect();
        let mut closed = false;
        for fact in &mut self.facts {
            if !fact.is_current() || fact.source != source || fact.attribute != *attribute {
                continue;
            }
            let same = wanted.iter_mut().find(|span| {
                span.is_some_and(|(valid, value)| *valid == fact.valid && *value == fact.value)
            });
            match same {
                Some(span) => *span = None,
                None => (fact.known.to, closed) = (known, true),
            }
        }
        // What was corrected at the instant at which it became known was never known.
        if closed {
            self.facts.retain(|fact| fact.known.from < fact.known.to);
        }
        let mut opened = false;
        for (valid, value) in wanted.into_iter().flatten() {
            opened = true;
            self.facts.push(Fact {
                attribute: attribute.clone(),
                value: value.clone(),
                valid: *valid,
                known: Interval { from: known, to: Interval::ALWAYS.to },
                source,
            });
        }
        closed || opened
    }

    /// Makes room: first what was known to be otherwise longest ago, then what ended longest ago.
    pub(super) fn forget(&mut self, facts_max: usize) -> u64 {
        let excess = self.facts.len().saturating_sub(facts_max);
        if excess == 0 {
            return 0;
        }
        // A quarter at once, so that it is not done for each change.
        let excess = (excess + facts_max / 4).min(self.facts.len());
        let age = |fact: &Fact| (fact.is_current(), fact.known.to, fact.valid.to, fact.valid.from);
        let mut ages: Vec<_> = self.facts.iter().map(age).collect();
        ages.sort_unstable();
        let Some(limit) = ages.get(excess.saturating_sub(1)).copied() else { return 0 };
        let before = self.facts.len();
        // What still holds is never forgotten.
        let holds = |fact: &Fact| fact.is_current() && fact.valid.to == Interval::ALWAYS.to;
        self.facts.retain(|fact| age(fact) > limit || holds(fact));
        (before - self.facts.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Statement, Uuid};

    const SOURCE: SourceId = SourceId(0);

    fn host(at: u64, host: &str) -> Vec<Change> {
        Statement::new(Uuid(1), Timestamp(at)).host(host).changes()
    }

    fn hosts(facts: &Facts) -> Vec<(u64, u64, String)> {
        let timeline = facts.timeline(SOURCE, &Attribute::Host);
        let text = |value: &Value| match value {
            Value::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        };
        timeline
            .spans()
            .iter()
            .map(|(valid, value)| (valid.from.0, valid.to.0, text(value)))
            .collect()
    }

    #[test]
    fn a_late_event_takes_its_place_and_nothing_is_overwritten() {
        let mut facts = Facts::default();
        let mut say = |at, name, known| facts.apply(SOURCE, &host(at, name), Timestamp(known), 100);
        assert_eq!(say(10, "a", 1_000).changed, 1);
        assert_eq!(say(30, "c", 1_001).changed, 1);
        assert_eq!(say(20, "b", 1_002).changed, 1);
        assert_eq!(say(25, "b", 1_003), Applied { unchanged: 1, ..Applied::default() });
        let max = u64::MAX;
        let now = [(10, 20, "a"), (20, 30, "b"), (30, max, "c")];
        let now = now.map(|(from, to, host)| (from, to, host.to_owned()));
        assert_eq!(hosts(&facts), now);
        let then = [(10, 30, "a".to_owned()), (30, max, "c".to_owned())];
        assert_eq!(hosts(&facts.known_at(Timestamp(1_001))), then);
        assert_eq!(hosts(&facts.known_at(Timestamp(1_000))), [(10, max, "a".to_owned())]);
        assert!(hosts(&facts.known_at(Timestamp(999))).is_empty());
    }

    #[test]
    fn of_facts_that_hold_at_once_the_last_one_counts() {
        let mut facts = Facts::default();
        let mut between = Facts::default();
        for (at, name) in [(10, "a"), (20, "b"), (30, "c")] {
            let before = between.clone();
            between.apply(SOURCE, &host(at, name), Timestamp(1_000 + at), 100);
            if name != "b" {
                facts.redo(between.since(&before));
            }
        }
        let current = |facts: &Facts| -> Vec<_> {
            facts.current().map(|fact| (fact.valid.from.0, fact.valid.to.0)).collect()
        };
        let max = u64::MAX;
        assert_eq!(current(&facts), [(10, max), (20, 30), (30, max)], "a for ever, b and c");
        facts.mend(Timestamp(1_040));
        assert_eq!(current(&facts), [(20, 30), (30, max), (10, 20)]);
        let now = [(10, 20, "a"), (20, 30, "b"), (30, max, "c")];
        assert_eq!(hosts(&facts), now.map(|(from, to, host)| (from, to, host.to_owned())));
        // What was not damaged stays as it is.
        let before = between.clone();
        between.mend(Timestamp(1_040));
        assert_eq!(between, before);
    }

    #[test]
    fn room_is_made_without_forgetting_what_holds() {
        let mut facts = Facts::default();
        let mut forgotten = 0;
        for at in 0..1_000 {
            let name = if at % 2 == 0 { "a" } else { "b" };
            forgotten += facts.apply(SOURCE, &host(at, name), Timestamp(at), 40).forgotten;
            assert!(facts.all().len() <= 40);
        }
        assert!(forgotten > 900, "{forgotten}");
        assert_eq!(hosts(&facts).last(), Some(&(999, u64::MAX, "b".to_owned())));
    }
}
