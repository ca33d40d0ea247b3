//! What the last windows showed: which way packets of whom take, and the shortest time of it.
//!
//! In: ways and their shortest time, window by window. Out: the same over the last [`SPAN_NS`].
//! Cost: some hundred bytes a way.
//! Invariants: at most [`ENDS_MAX`] endpoints; what was not seen for [`SPAN_NS`] is forgotten.

use std::collections::VecDeque;

use crate::hash::KeyedMap;
use crate::index::TapIndex;
use crate::path::Ends;
use crate::time::{Timestamp, ms};

/// How far back a minimum reaches, and how long a way is known.
pub(super) const SPAN_NS: u64 = ms(60_000);

/// Pairs of endpoints of which the way is known.
const ENDS_MAX: usize = 1 << 16;

/// Minima are kept for each second.
const STEP_NS: u64 = ms(1_000);

/// From one tap to another.
pub(super) type Way = (TapIndex, TapIndex);

/// The least of the last [`SPAN_NS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Least {
    /// Instant and value; both grow.
    kept: VecDeque<(Timestamp, i64)>,
}

impl Least {
    /// Adds a value of an instant that is not before those that came.
    pub(super) fn add(&mut self, at: Timestamp, value: i64) {
        let at = Timestamp(at.0 - at.0 % STEP_NS);
        while self.kept.back().is_some_and(|(_, kept)| *kept >= value) {
            self.kept.pop_back();
        }
        self.kept.push_back((at, value));
        while self.kept.front().is_some_and(|(kept, _)| at.since_ns(*kept) >= SPAN_NS) {
            self.kept.pop_front();
        }
        // A second's later values say nothing beside its least.
        if let [.., before, last] = self.kept.make_contiguous()
            && before.0 == last.0
        {
            self.kept.pop_back();
        }
    }

    /// The least at an instant.
    pub(super) fn at(&self, at: Timestamp) -> Option<i64> {
        let is_recent = |(kept, _): &&(Timestamp, i64)| at.since_ns(*kept) < SPAN_NS;
        self.kept.iter().find(is_recent).map(|(_, value)| *value)
    }
}

#[derive(Clone, Debug)]
struct Known {
    way: Way,
    /// Time of the last packet that took it.
    last: Timestamp,
    least: Least,
}

/// Of all endpoints.
#[derive(Default)]
pub(super) struct History {
    ends: KeyedMap<Ends, Vec<Known>>,
    tidied: Timestamp,
    /// Ways that found no room, since somebody asked.
    full: u64,
}

impl History {
    /// Ways that packets of these endpoints took lately.
    pub(super) fn ways(
        &self,
        ends: &Ends,
        at: Timestamp,
    ) -> impl Iterator<Item = (Way, Timestamp)> {
        let known = self.ends.get(ends).map_or(&[][..], Vec::as_slice);
        let is_recent = move |known: &&Known| at.since_ns(known.last) < SPAN_NS;
        known.iter().filter(is_recent).map(|known| (known.way, known.last))
    }

    /// A way was taken, for the last time at `last`; the least time of the last [`SPAN_NS`] on it.
    pub(super) fn add(
        &mut self,
        ends: &Ends,
        way: Way,
        (at, last): (Timestamp, Timestamp),
        least: Option<i64>,
    ) -> Option<i64> {
        self.tidy(at);
        if self.ends.len() >= ENDS_MAX && !self.ends.contains_key(ends) {
            self.full += 1;
            return least;
        }
        let ways = self.ends.entry(*ends).or_default();
        let place = ways.iter().position(|known| known.way == way).unwrap_or_else(|| {
            ways.push(Known { way, last, least: Least::default() });
            ways.len() - 1
        });
        let known = &mut ways[place];
        known.last = known.last.max(last);
        if let Some(least) = least {
            known.least.add(at, least);
        }
        known.least.at(at)
    }

    /// Ways that found no room since the last call.
    pub(super) fn take_full(&mut self) -> u64 {
        std::mem::take(&mut self.full)
    }

    fn tidy(&mut self, at: Timestamp) {
        let often = if self.ends.len() < ENDS_MAX { SPAN_NS } else { STEP_NS };
        if at.since_ns(self.tidied) < often {
            return;
        }
        self.tidied = at;
        self.ends.retain(|_, ways| {
            ways.retain(|known| at.since_ns(known.last) < SPAN_NS);
            !ways.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_least_is_that_of_a_minute() {
        let mut least = Least::default();
        let values = [5, 3, 9, 7, 8, 8, 2, 6];
        for (second, value) in (0_u64..).zip(values.iter().cycle().take(300)) {
            least.add(Timestamp(second * SECOND), *value + second.cast_signed());
            let from = second.saturating_sub(59);
            let truth = (from..=second)
                .map(|at| values[usize::try_from(at % 8).expect("small")] + at.cast_signed())
                .min();
            assert_eq!(least.at(Timestamp(second * SECOND)), truth, "{second}");
            assert!(least.kept.len() <= 60);
        }
        assert_eq!(least.at(Timestamp(400 * SECOND)), None);
        for part in 0..1_000 {
            least.add(Timestamp(500 * SECOND + part), part.cast_signed());
        }
        assert_eq!(least.kept.len(), 1, "one for a second");
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut history = History::default();
        let way = (TapIndex(0), TapIndex(1));
        for number in 0..=u32::try_from(ENDS_MAX).expect("few") {
            let ends = Ends {
                source: crate::decode::Address::v4(number.to_be_bytes()),
                ..Ends::default()
            };
            history.add(&ends, way, (Timestamp(0), Timestamp(0)), None);
        }
        assert_eq!(
            (history.ends.len(), history.take_full(), history.take_full()),
            (ENDS_MAX, 1, 0)
        );
    }

    #[test]
    fn a_way_is_forgotten_after_a_minute() {
        let mut history = History::default();
        let (ends, way) = (Ends::default(), (TapIndex(0), TapIndex(1)));
        assert_eq!(history.add(&ends, way, (Timestamp(0), Timestamp(9)), Some(7)), Some(7));
        assert_eq!(history.add(&ends, way, (Timestamp(SECOND), Timestamp(SECOND)), None), Some(7));
        assert_eq!(history.ways(&ends, Timestamp(60 * SECOND)).count(), 1);
        assert_eq!(history.ways(&ends, Timestamp(61 * SECOND)).count(), 0);
        history.tidy(Timestamp(200 * SECOND));
        assert!(history.ends.is_empty());
    }
}
