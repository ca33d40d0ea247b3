//! A value that changes over time: spans in order, apart, equal neighbours joined.
//!
//! In: values with the time for which they hold. Out: the value at a time, the spans.
//! Cost: a binary search to ask; a copy of the spans to change.
//! Invariants: no span is empty, none overlaps another, and two that touch differ in value, so equal
//! histories are equal timelines.

use super::Interval;
use crate::time::Timestamp;

/// Spans of one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline<V> {
    spans: Vec<(Interval, V)>,
}

impl<V> Default for Timeline<V> {
    fn default() -> Self {
        Self { spans: Vec::new() }
    }
}

impl<V: Clone + PartialEq> Timeline<V> {
    /// One value for a time.
    pub fn of(valid: Interval, value: V) -> Self {
        Self { spans: vec![(valid, value)] }
    }

    /// Puts a value, or none, in the place of what was said for that time.
    pub fn set(&mut self, over: Interval, value: Option<V>) {
        if over.from >= over.to {
            return;
        }
        let mut spans = Vec::with_capacity(self.spans.len() + 2);
        let before = Interval { from: Timestamp::ZERO, to: over.from };
        let after = Interval { from: over.to, to: Interval::ALWAYS.to };
        let part = |within: Interval| {
            self.spans
                .iter()
                .filter_map(move |(valid, value)| Some((valid.and(within)?, value.clone())))
        };
        spans.extend(part(before));
        spans.extend(value.map(|value| (over, value)));
        spans.extend(part(after));
        self.spans.clear();
        for (valid, value) in spans {
            self.append(valid, value);
        }
    }

    /// Adds a span behind all others.
    pub(super) fn append(&mut self, valid: Interval, value: V) {
        match self.spans.last_mut() {
            Some((before, same)) if before.to == valid.from && *same == value => {
                before.to = valid.to;
            }
            _ => self.spans.push((valid, value)),
        }
    }

    /// The value at a time.
    pub fn at(&self, at: Timestamp) -> Option<&V> {
        self.span_at(at).map(|(_, value)| value)
    }

    /// The span around a time.
    pub fn span_at(&self, at: Timestamp) -> Option<&(Interval, V)> {
        let after = self.spans.partition_point(|(valid, _)| valid.from <= at);
        let found = self.spans.get(after.checked_sub(1)?)?;
        found.0.holds(at).then_some(found)
    }

    /// The value at the beginning of a time, else the first one that begins within it.
    pub fn within(&self, time: Interval) -> Option<&V> {
        self.at(time.from).or_else(|| {
            let next = self.spans.partition_point(|(valid, _)| valid.from <= time.from);
            let (valid, value) = self.spans.get(next)?;
            (valid.from < time.to).then_some(value)
        })
    }

    /// Until when an event at `from` holds: to the end of what it replaces, else to the next span.
    pub fn until_next(&self, from: Timestamp) -> Timestamp {
        if let Some((valid, _)) = self.span_at(from) {
            return valid.to;
        }
        let next = self.spans.partition_point(|(valid, _)| valid.from <= from);
        self.spans.get(next).map_or(Interval::ALWAYS.to, |(valid, _)| valid.from)
    }

    /// All spans, in order.
    pub fn spans(&self) -> &[(Interval, V)] {
        &self.spans
    }

    /// Whether nothing was ever said.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Instants at which the value changes.
    pub fn edges(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.spans.iter().flat_map(|(valid, _)| [valid.from, valid.to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Interval {
        Interval { from: Timestamp(from), to: Timestamp(to) }
    }

    #[test]
    fn values_replace_others_for_their_time_only() {
        let mut line = Timeline::of(span(0, 100), 'a');
        line.set(span(10, 20), Some('b'));
        line.set(span(20, 30), Some('b'));
        line.set(span(50, 60), None);
        line.set(span(7, 7), Some('x'));
        let expected =
            [(span(0, 10), 'a'), (span(10, 30), 'b'), (span(30, 50), 'a'), (span(60, 100), 'a')];
        assert_eq!(line.spans(), expected);
        assert_eq!(
            [0, 10, 29, 30, 55, 99, 100].map(|at| line.at(Timestamp(at)).copied()),
            [Some('a'), Some('b'), Some('b'), Some('a'), None, Some('a'), None]
        );
        line.set(span(10, 30), Some('a'));
        assert_eq!(line.spans(), [(span(0, 50), 'a'), (span(60, 100), 'a')]);
    }

    #[test]
    fn an_event_holds_until_the_next_one() {
        let mut line = Timeline::of(span(10, 20), 'a');
        line.set(span(30, u64::MAX), Some('b'));
        let until = [5, 10, 15, 20, 29, 30, 99].map(|at| line.until_next(Timestamp(at)).0);
        assert_eq!(until, [10, 20, 20, 30, 30, u64::MAX, u64::MAX]);
    }

    #[test]
    fn what_begins_within_a_time_counts_where_nothing_was_before() {
        let mut line = Timeline::of(span(10, 20), 'a');
        line.set(span(20, 30), Some('b'));
        let within = |from, to| line.within(span(from, to)).copied();
        assert_eq!(within(5, 15), Some('a'));
        assert_eq!(within(5, 10), None);
        assert_eq!(within(15, 25), Some('a'));
        assert_eq!(within(30, 40), None);
    }
}
