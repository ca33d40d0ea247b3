//! Health of taps and ways between them, as the page shows them.
//!
//! In: records of taps and views of ways, window by window. Out: what a snapshot holds of them.
//! Cost: sums of the last minutes for each tap and way.
//! Invariants: at most [`WAYS_MAX`] ways are known, those that came first; of others the records
//! alone tell. A way without packets for minutes is not shown, but keeps its sums since the start.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::aggregate::live::{LivePath, LivePathCounts, LiveTap, PATHS_MAX, TapCounts, TapHealth};
use crate::aggregate::path::{PathCounts, PathRow, PathView};
use crate::aggregate::{TapView, WindowView};
use crate::index::TapIndex;
use crate::record::{Names, TapClock, TapRecord};
use crate::time::{Timestamp, ms};

use super::recent::Recent;

/// Ways of which sums are kept.
const WAYS_MAX: usize = 4_096;

/// The health of each tap.
pub(super) struct Taps {
    window_ms: u64,
    window: BTreeMap<TapIndex, TapCounts>,
    recent: Recent<TapIndex, TapCounts>,
}

impl Taps {
    /// With nothing counted yet.
    pub(super) fn new(window_length_ms: u32) -> Self {
        Self {
            window_ms: window_length_ms.into(),
            window: BTreeMap::new(),
            recent: Recent::new(window_length_ms),
        }
    }

    /// A window was closed; `records` are those of its taps, in their order.
    pub(super) fn window(&mut self, view: &WindowView, records: &[TapRecord]) {
        let counts = view.taps.iter().zip(records);
        self.window = counts.map(|(tap, record)| (tap.tap, counts_of(tap, record))).collect();
        let counted = self.window.iter().map(|(tap, counts)| (*tap, *counts));
        self.recent.add((view.start, view.end), counted);
    }

    /// A tap with what it counted since the start.
    pub(super) fn live(&self, tap: &TapView, clock: TapClock, names: &mut Names) -> LiveTap {
        let window = self.window.get(&tap.tap).copied().unwrap_or_default();
        let recent = self.recent.sum(&tap.tap).unwrap_or_default();
        LiveTap {
            name: names.tap(tap.tap).to_string(),
            host: names.tap_host(tap.tap).map(ToOwned::to_owned),
            packets: tap.totals.packets,
            octets: tap.totals.octets,
            duplicates: tap.totals.duplicates,
            ambiguous: tap.totals.ambiguous,
            copies: tap.totals.copies_other_tap,
            snapped: tap.totals.snapped,
            segment_unmapped: tap.totals.segment_unmapped,
            mirror_gaps: tap.has_sequence.then_some(tap.totals.mirror_gaps),
            clock_source: clock.source.to_owned(),
            clock_error_bound_ns: clock.error_bound_ns,
            window: TapHealth::new(&window, self.window_ms),
            recent: TapHealth::new(&recent, self.recent.length_ms()),
        }
    }
}

fn counts_of(tap: &TapView, record: &TapRecord) -> TapCounts {
    TapCounts {
        totals: tap.totals,
        has_sequence: tap.has_sequence,
        segment_unknown: record.segment_unknown_packet_count,
        tcp_conversations: tap.tcp_conversations,
        tcp_one_way_conversations: tap.tcp_one_way_conversations,
    }
}

/// From one tap to another.
type Way = (TapIndex, TapIndex);

struct Known {
    /// The last window in which it had packets.
    start: Timestamp,
    row: PathRow,
    total: PathCounts,
}

/// The ways between taps.
pub(super) struct Ways {
    window_ms: u64,
    known: BTreeMap<Way, Known>,
    recent: Recent<Way, PathCounts>,
    began: Option<Timestamp>,
    end: Timestamp,
}

impl Ways {
    /// With nothing seen yet.
    pub(super) fn new(window_length_ms: u32) -> Self {
        Self {
            window_ms: window_length_ms.into(),
            known: BTreeMap::new(),
            recent: Recent::new(window_length_ms),
            began: None,
            end: Timestamp::ZERO,
        }
    }

    /// The packets of a window have their verdicts.
    pub(super) fn window(&mut self, view: &PathView) {
        self.began.get_or_insert(view.start);
        self.end = self.end.max(view.end);
        for row in view.rows.iter().filter(|row| row.ends.is_none()) {
            let way = (row.from, row.to);
            if self.known.len() >= WAYS_MAX && !self.known.contains_key(&way) {
                continue;
            }
            let fresh = Known { start: view.start, row: *row, total: PathCounts::default() };
            let known = self.known.entry(way).or_insert(fresh);
            (known.start, known.row) = (view.start, *row);
            known.total.add(&row.counts);
        }
        let rows = view
            .rows
            .iter()
            .filter(|row| row.ends.is_none() && self.known.contains_key(&(row.from, row.to)));
        let counts = rows.map(|row| ((row.from, row.to), row.counts));
        self.recent.add((view.start, view.end), counts);
    }

    /// The busiest ways of the last minutes in order of their taps, when the window that begins at
    /// `now` was closed.
    pub(super) fn live(&mut self, now: Timestamp, names: &mut Names) -> Vec<LivePath> {
        self.recent.go_on(now);
        let mut shown: Vec<(Way, PathCounts)> =
            self.known.keys().filter_map(|way| Some((*way, self.recent.sum(way)?))).collect();
        if shown.len() > PATHS_MAX {
            shown.sort_by_key(|(way, recent)| (Reverse(recent.total()), *way));
            shown.truncate(PATHS_MAX);
            shown.sort_by_key(|(way, _)| *way);
        }
        let paths = shown.iter().filter_map(|(way, recent)| {
            self.known.get(way).map(|known| self.path(known, recent, names))
        });
        paths.collect()
    }

    fn path(&self, known: &Known, recent: &PathCounts, names: &mut Names) -> LivePath {
        let Known { row, total, start } = known;
        let host = |names: &Names, tap| names.tap_host(tap).map(ToOwned::to_owned);
        let delay = row.delay.as_ref();
        let percentile = |place: usize| delay.map(|delay| delay.percentiles_ns[place]);
        let answers = row.answers.unwrap_or_default();
        let since_start_ns = self.began.map_or(0, |began| self.end.since_ns(began));
        LivePath {
            from_tap: names.tap(row.from).to_string(),
            to_tap: names.tap(row.to).to_string(),
            from_host: host(names, row.from),
            to_host: host(names, row.to),
            window_start_ns: start.0,
            delay_sample_count: delay.map_or(0, |delay| delay.count),
            delay_mean_ns: delay.map(|delay| delay.mean_ns),
            delay_min_ns: delay.map(|delay| delay.min_ns),
            delay_max_ns: delay.map(|delay| delay.max_ns),
            delay_p50_ns: percentile(0),
            delay_p90_ns: percentile(1),
            delay_p99_ns: percentile(2),
            delay_excess_mean_ns: delay.map(|delay| delay.mean_ns - delay.base_ns),
            clock_offset_ns: row.offset.map(|offset| offset.offset_ns),
            clock_offset_bound_ns: row.offset.map(|offset| offset.bound_ns),
            answered_pairs: answers.pairs,
            first_tap_one_way_pairs: answers.unseen_first,
            later_tap_one_way_pairs: answers.unseen_later,
            window: LivePathCounts::new(&row.counts, self.window_ms),
            recent: LivePathCounts::new(recent, self.recent.length_ms()),
            total: LivePathCounts::new(total, since_start_ns / ms(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::path::{Answers, ClockOffset, Forgotten, PathDelay};
    use crate::config::{Plan, TapPlan};
    use crate::worker::PortNames;

    fn names(taps: u16) -> Names {
        let tap = |number| TapPlan { name: format!("tap-{number:03}"), ..TapPlan::default() };
        let plan = Plan { taps: (0..taps).map(tap).collect(), ..Plan::default() };
        Names::new(&plan, PortNames::default())
    }

    fn row(from: u16, to: u16, matched: u64, network: u64) -> PathRow {
        let count = matched;
        let delay = PathDelay {
            count,
            mean_ns: 70,
            min_ns: 50,
            max_ns: 90,
            percentiles_ns: [60, 80, 90],
            base_ns: 40,
        };
        PathRow {
            ends: None,
            from: TapIndex(from),
            to: TapIndex(to),
            counts: PathCounts { matched, network, ..PathCounts::default() },
            answers: Some(Answers { pairs: 5, unseen_first: 0, unseen_later: 4 }),
            delay: (count > 0).then_some(delay),
            offset: Some(ClockOffset { offset_ns: -3, bound_ns: 8 }),
        }
    }

    fn view(second: u64, rows: Vec<PathRow>) -> PathView {
        let at = |second: u64| Timestamp(ms(second * 1_000));
        PathView {
            start: at(second),
            end: at(second + 1),
            rows,
            samples: Vec::new(),
            late_packets: 0,
            full_packets: 0,
            full_samples: 0,
            full_times: 0,
            moves: Vec::new(),
            forgotten: Forgotten::default(),
        }
    }

    #[test]
    fn a_way_shows_its_last_window_and_sums() {
        let (mut ways, mut names) = (Ways::new(1_000), names(2));
        ways.window(&view(100, vec![row(0, 1, 9, 1)]));
        ways.window(&view(101, vec![row(0, 1, 0, 2), row(1, 0, 5, 0)]));
        ways.window(&view(102, vec![]));
        let paths = ways.live(Timestamp(ms(103_000)), &mut names);
        let taps: Vec<_> = paths.iter().map(|path| (&*path.from_tap, &*path.to_tap)).collect();
        assert_eq!(taps, [("tap-000", "tap-001"), ("tap-001", "tap-000")]);
        let path = &paths[0];
        assert_eq!(path.window_start_ns, ms(101_000));
        assert_eq!((path.delay_sample_count, path.delay_mean_ns), (0, None));
        assert_eq!(path.window.loss_low_percent, Some(100.0));
        assert_eq!((path.recent.sampled, path.recent.loss_low_percent), (12, Some(25.0)));
        assert_eq!((path.recent.length_ms, path.total.length_ms), (3_000, 3_000));
        assert_eq!((path.clock_offset_ns, path.clock_offset_bound_ns), (Some(-3), Some(8)));
        let one_way = [path.first_tap_one_way_pairs, path.later_tap_one_way_pairs];
        assert_eq!((path.answered_pairs, one_way), (5, [0, 4]));
        let back = &paths[1];
        assert_eq!((back.delay_p99_ns, back.delay_excess_mean_ns), (Some(90), Some(30)));
    }

    #[test]
    fn a_way_that_is_silent_leaves_and_comes_back_with_its_sums() {
        let (mut ways, mut names) = (Ways::new(1_000), names(2));
        ways.window(&view(100, vec![row(0, 1, 9, 1)]));
        assert_eq!(ways.live(Timestamp(ms(390_000)), &mut names).len(), 1);
        assert!(ways.live(Timestamp(ms(400_000)), &mut names).is_empty());
        ways.window(&view(500, vec![row(0, 1, 10, 0)]));
        let paths = ways.live(Timestamp(ms(507_000)), &mut names);
        assert_eq!((paths[0].recent.sampled, paths[0].total.sampled), (10, 20));
    }

    #[test]
    fn the_busiest_are_shown() {
        const TAPS: u16 = 300;
        let (mut ways, mut names) = (Ways::new(1_000), names(TAPS + 1));
        let rows = (0..TAPS).map(|from| row(from, from + 1, u64::from(from) + 1, 0)).collect();
        ways.window(&view(100, rows));
        let paths = ways.live(Timestamp(ms(101_000)), &mut names);
        assert_eq!(paths.len(), PATHS_MAX);
        assert_eq!(paths[0].window.sampled, 45);
        assert!(paths.is_sorted_by_key(|path| path.from_tap.clone()));
    }
}
