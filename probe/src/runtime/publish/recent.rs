//! Sums over the last minutes, by key.
//!
//! In: counts of windows, in order. Out: their sum over the last [`RECENT_NS`].
//! Cost: a map for each of [`STEPS`] steps; to ask is a look at each.
//! Invariants: memory is bounded by the keys, whatever the length of a window; a sum says which time
//! it is over, because steps leave as a whole.

use std::collections::{BTreeMap, VecDeque};

use crate::aggregate::live::TapCounts;
use crate::aggregate::path::PathCounts;
use crate::time::{Timestamp, ms};

/// How far back sums reach, one step less at most.
const RECENT_NS: u64 = ms(300_000);

/// Windows that they are over at least, where windows are long.
const WINDOWS_MIN: u64 = 4;

/// Parts that leave as a whole.
const STEPS: u64 = 30;

/// What can be summed up.
pub(super) trait Sum: Default {
    /// Adds another.
    fn add(&mut self, other: &Self);
}

impl Sum for TapCounts {
    fn add(&mut self, other: &Self) {
        Self::add(self, other);
    }
}

impl Sum for PathCounts {
    fn add(&mut self, other: &Self) {
        Self::add(self, other);
    }
}

struct Step<K, V> {
    number: u64,
    /// Start of the first window in it.
    begin: Timestamp,
    sums: BTreeMap<K, V>,
}

/// The last minutes.
pub(super) struct Recent<K, V> {
    step_ns: u64,
    steps: VecDeque<Step<K, V>>,
    end: Timestamp,
}

impl<K: Ord, V: Sum> Recent<K, V> {
    /// With windows of this length.
    pub(super) fn new(window_length_ms: u32) -> Self {
        let windows_ns = WINDOWS_MIN * ms(window_length_ms.into());
        Self {
            step_ns: RECENT_NS.max(windows_ns) / STEPS,
            steps: VecDeque::new(),
            end: Timestamp::ZERO,
        }
    }

    /// A window begins here: steps that lie too far back leave.
    pub(super) fn go_on(&mut self, start: Timestamp) {
        let number = start.0 / self.step_ns;
        while self.steps.front().is_some_and(|step| step.number + STEPS <= number) {
            self.steps.pop_front();
        }
    }

    /// Adds counts of a window; windows come in order.
    pub(super) fn add(
        &mut self,
        (start, end): (Timestamp, Timestamp),
        counts: impl IntoIterator<Item = (K, V)>,
    ) {
        self.go_on(start);
        self.end = self.end.max(end);
        let number = start.0 / self.step_ns;
        if self.steps.back().is_none_or(|step| step.number < number) {
            self.steps.push_back(Step { number, begin: start, sums: BTreeMap::new() });
        }
        let Some(step) = self.steps.back_mut() else { return };
        for (key, value) in counts {
            step.sums.entry(key).or_default().add(&value);
        }
    }

    /// The time that sums are over, in milliseconds.
    pub(super) fn length_ms(&self) -> u64 {
        self.steps.front().map_or(0, |step| self.end.since_ns(step.begin) / ms(1))
    }

    /// The sum of a key; `None` where it had no counts.
    pub(super) fn sum(&self, key: &K) -> Option<V> {
        let mut sums = self.steps.iter().filter_map(|step| step.sums.get(key));
        let mut sum = V::default();
        sum.add(sums.next()?);
        sums.for_each(|other| sum.add(other));
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::TapTotals;

    fn counted(packets: u64) -> TapCounts {
        let totals = TapTotals { packets, ..TapTotals::default() };
        TapCounts { totals, ..TapCounts::default() }
    }

    fn window(second: u64, length: u64) -> (Timestamp, Timestamp) {
        (Timestamp(ms(second * 1_000)), Timestamp(ms((second + length) * 1_000)))
    }

    #[test]
    fn the_sum_is_of_the_last_minutes_and_says_of_which() {
        let mut recent = Recent::new(1_000);
        for second in 0..1_000_u64 {
            recent.add(window(second, 1), [('a', counted(second))]);
            let begin = (second / 10).saturating_sub(29) * 10;
            let sum = recent.sum(&'a').map(|sum| sum.totals.packets);
            assert_eq!(sum, Some((begin..=second).sum()), "{second}");
            assert_eq!(recent.length_ms(), (second + 1 - begin) * 1_000);
            assert!(recent.steps.len() <= 30);
        }
        assert_eq!(recent.sum(&'b'), None);
    }

    #[test]
    fn what_has_no_packets_any_more_is_forgotten() {
        let mut recent = Recent::new(1_000);
        recent.add(window(0, 1), [('a', counted(1))]);
        recent.go_on(window(299, 1).0);
        assert!(recent.sum(&'a').is_some());
        recent.go_on(window(300, 1).0);
        assert_eq!((recent.sum(&'a'), recent.length_ms()), (None, 0));
    }

    #[test]
    fn long_windows_are_there_for_some_windows() {
        let mut recent = Recent::new(3_600_000);
        recent.add(window(0, 3_600), [('a', counted(1))]);
        recent.add(window(3_600, 3_600), [('a', counted(2))]);
        recent.go_on(window(3 * 3_600, 3_600).0);
        assert_eq!(recent.sum(&'a').map(|sum| sum.totals.packets), Some(3));
        assert_eq!(recent.length_ms(), 7_200_000);
    }
}
