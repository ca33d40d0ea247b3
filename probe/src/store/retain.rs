//! Which hours go.
//!
//! In: what is stored, the rules. Out: the hours whose files are to be removed, the oldest first.
//! Invariants: hours ahead of the clock, which a wrong one has left, go before any other by size, so that
//! good ones do not go for them; the open hours never go, nor what the inventory needs: facts say who had an address
//! for as long as the run that learnt them lasts, so they go by age only, and only those of earlier
//! runs, once the present one covers all that is kept. Pure: the same in gives the same out.

use std::collections::BTreeSet;

use super::scan::{Hours, Place, Stored};
use crate::record::Table;

/// Hours of a day.
const DAY_HOURS: u64 = 24;

/// What is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// The hour that the clock of the packets stands in.
    pub(super) hour: u64,
    /// The hour in which this run of the probe began.
    pub(super) run_hour: u64,
    /// Records are kept for so long.
    pub(super) keep_days: Option<u32>,
    /// All files together may take this much.
    pub(super) size_max_bytes: Option<u64>,
}

/// Hours that go by either rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Going {
    /// Older than is kept.
    pub(super) by_age: Vec<Place>,
    /// Of the others those ahead of the clock, then the oldest, where all together take too much.
    pub(super) by_size: Vec<Place>,
    /// Bytes of those that stay.
    pub(super) left_bytes: u64,
}

impl Rules {
    /// The first hour that may still get rows, which never goes.
    pub(super) const fn first_open(&self) -> u64 {
        self.hour.saturating_sub(1)
    }

    /// Whether an hour gets no more rows.
    const fn is_over(&self, hour: u64) -> bool {
        hour < self.first_open()
    }

    /// Whether an hour is later than any that rows of now are filed in.
    pub(super) const fn is_ahead(&self, hour: u64) -> bool {
        hour > self.hour.saturating_add(1)
    }

    /// Chooses.
    pub(super) fn choose(&self, hours: &Hours) -> Going {
        let first_kept = self.first_kept();
        let is_old = |&(hour, table): &Place| {
            let first =
                if table == Table::Inventory { self.first_fact(first_kept) } else { first_kept };
            hour < first.min(self.first_open())
        };
        let by_age: Vec<_> = hours.keys().filter(|place| is_old(place)).copied().collect();
        let gone: BTreeSet<_> = by_age.iter().collect();
        let stays = |(place, _): &(&Place, &Vec<Stored>)| !gone.contains(place);
        let mut left_bytes = hours.iter().filter(stays).map(|(_, files)| bytes(files)).sum();
        let mut by_size = Vec::new();
        let goes = |wanted: fn(&Self, u64) -> bool| {
            hours.iter().filter(stays).filter(move |((hour, _), _)| wanted(self, *hour))
        };
        for (place, files) in goes(Self::is_ahead).chain(goes(Self::is_over)) {
            if self.size_max_bytes.is_none_or(|max| left_bytes <= max) {
                break;
            }
            if place.1 != Table::Inventory {
                by_size.push(*place);
                left_bytes -= bytes(files);
            }
        }
        Going { by_age, by_size, left_bytes }
    }

    /// The first hour that is young enough.
    fn first_kept(&self) -> u64 {
        let keep_hours = self.keep_days.map(|days| u64::from(days) * DAY_HOURS);
        keep_hours.map_or(0, |hours| self.hour.saturating_sub(hours))
    }

    /// The same for facts of the inventory.
    fn first_fact(&self, first_kept: u64) -> u64 {
        // An hour before it, because the first facts of a run may be filed there.
        if self.run_hour <= first_kept { self.run_hour.saturating_sub(1) } else { 0 }
    }
}

fn bytes(files: &[Stored]) -> u64 {
    files.iter().map(|stored| stored.bytes + stored.rolled_bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(places: &[(u64, Table, u64)]) -> Hours {
        let stored = |bytes| vec![Stored { start_ns: 0, number: 0, bytes, rolled_bytes: 0 }];
        places.iter().map(|(hour, table, bytes)| ((*hour, *table), stored(*bytes))).collect()
    }

    #[test]
    fn what_is_older_than_is_kept_goes() {
        let rules = Rules { hour: 100, run_hour: 90, keep_days: Some(1), ..Rules::default() };
        let stored = hours(&[
            (75, Table::Flows, 1),
            (75, Table::Windows, 1),
            (76, Table::Flows, 1),
            (100, Table::Flows, 1),
        ]);
        let going = rules.choose(&stored);
        assert_eq!(going.by_age, [(75, Table::Windows), (75, Table::Flows)]);
        assert_eq!((going.by_size, going.left_bytes), (vec![], 2));
        assert_eq!(Rules { keep_days: None, ..rules }.choose(&stored).by_age, []);
    }

    #[test]
    fn the_oldest_go_first_until_the_rest_fits() {
        let stored = hours(&[(1, Table::Flows, 10), (2, Table::Flows, 10), (3, Table::Flows, 10)]);
        let rules = |max| Rules { hour: 100, size_max_bytes: Some(max), ..Rules::default() };
        let first = |count| (1..=count).map(|hour| (hour, Table::Flows)).collect::<Vec<_>>();
        for (max, gone) in [(30, 0), (29, 1), (20, 1), (19, 2), (0, 3)] {
            let going = rules(max).choose(&stored);
            assert_eq!((going.by_size, going.left_bytes), (first(gone), 30 - 10 * gone), "{max}");
        }
    }

    #[test]
    fn the_open_hours_stay_whatever_the_rules() {
        let stored = hours(&[(98, Table::Flows, 9), (99, Table::Flows, 9), (101, Table::Flows, 9)]);
        let rules = Rules { hour: 100, run_hour: 100, keep_days: Some(0), size_max_bytes: Some(0) };
        let going = rules.choose(&stored);
        assert_eq!((going.by_age, going.by_size), (vec![(98, Table::Flows)], vec![]));
        assert_eq!(going.left_bytes, 18);
    }

    /// A run whose clock was years ahead has left hours that no clock comes to for years.
    #[test]
    fn hours_ahead_of_the_clock_go_before_good_ones() {
        let stored = hours(&[
            (97, Table::Flows, 10),
            (98, Table::Flows, 10),
            (100, Table::Flows, 10),
            (101, Table::Flows, 10),
            (900, Table::Inventory, 1),
            (900, Table::Flows, 10),
            (901, Table::Flows, 10),
        ]);
        let rules = |max| Rules { hour: 100, size_max_bytes: Some(max), ..Rules::default() };
        let order = [900, 901, 97, 98].map(|hour| (hour, Table::Flows));
        for (max, gone) in [(61, 0), (60, 1), (51, 1), (50, 2), (41, 2), (40, 3), (0, 4)] {
            let going = rules(max).choose(&stored);
            assert_eq!(going.by_size, order[..gone], "{max}");
            assert_eq!(going.left_bytes, 61 - 10 * gone as u64, "{max}");
        }
    }

    /// Facts of a run hold until the next one begins.
    #[test]
    fn facts_stay_as_long_as_anything_may_need_them() {
        let stored = hours(&[(1, Table::Inventory, 1), (50, Table::Inventory, 1)]);
        let rules =
            |run_hour| Rules { hour: 100, run_hour, keep_days: Some(1), size_max_bytes: Some(0) };
        // This run has known everything since before the first record that is kept.
        let going = rules(50).choose(&stored);
        assert_eq!((going.by_age, going.by_size), (vec![(1, Table::Inventory)], vec![]));
        // The run before it told who is who in hours that are kept.
        assert_eq!(rules(80).choose(&stored).by_age, []);
    }
}
