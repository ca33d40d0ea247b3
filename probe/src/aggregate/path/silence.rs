//! How long somebody was silent around an instant.
//!
//! In: when each packet of the last windows was seen, and by whom it was sent. Out: the longest silence.
//! Cost: a pass over the packets of the last windows for each question; 16 bytes a packet.
//! Invariants: at most [`SHOWN_MAX`] packets, the oldest windows leave first; nothing depends on the order
//! in which packets came.

use std::collections::VecDeque;

use crate::hash::{KeyedMap, KeyedSet};
use crate::path::Ends;
use crate::time::{Timestamp, ms};

use super::window::{Counts, Shown};

/// Packets of all windows that are remembered.
const SHOWN_MAX: usize = 1 << 20;

/// How far from the instant a silence may begin or end.
const AROUND_NS: u64 = ms(1_000);

/// The packets of a window.
struct Past {
    end: Timestamp,
    ends: Vec<(u32, Ends)>,
    shown: Vec<Shown>,
}

/// Packets of the last windows.
pub(super) struct Pasts {
    windows: VecDeque<Past>,
    packets: usize,
    span_ns: u64,
}

impl Pasts {
    /// Of so much time.
    pub(super) fn new(span_ns: u64) -> Self {
        Self { windows: VecDeque::new(), packets: 0, span_ns }
    }

    /// Adds the next window.
    pub(super) fn add(&mut self, end: Timestamp, ends: &KeyedMap<Ends, Counts>, shown: Vec<Shown>) {
        self.packets += shown.len();
        let ends = ends.iter().map(|(ends, counts)| (counts.number, *ends)).collect();
        self.windows.push_back(Past { end, ends, shown });
        while let Some(oldest) = self.windows.front() {
            if self.packets <= SHOWN_MAX && end.since_ns(oldest.end) <= self.span_ns {
                break;
            }
            self.packets -= oldest.shown.len();
            self.windows.pop_front();
        }
    }

    /// The last packet before and the first one after the longest silence around an instant, of the
    /// packets that these senders sent; `None` if it has no end in what is remembered.
    pub(super) fn silence(
        &self,
        at: Timestamp,
        sends: impl Fn(&Ends) -> bool,
    ) -> Option<(Timestamp, Timestamp)> {
        let mut times = Vec::new();
        for window in &self.windows {
            let its = window.ends.iter().filter(|(_, ends)| sends(ends));
            let its: KeyedSet<u32> = its.map(|(number, _)| *number).collect();
            if !its.is_empty() {
                let shown = window.shown.iter().filter(|shown| its.contains(&shown.ends));
                times.extend(shown.map(|shown| shown.at));
            }
        }
        times.sort_unstable();
        longest(&times, at)
    }
}

/// Of instants in order. One that has not ended, or of which the beginning is not known, may be longer
/// than all that is known.
fn longest(times: &[Timestamp], at: Timestamp) -> Option<(Timestamp, Timestamp)> {
    if times.first().is_none_or(|first| *first > at) || times.last().is_none_or(|last| *last < at) {
        return None;
    }
    let silences = times.windows(2).filter_map(|pair| match pair {
        [last, first] => Some((*last, *first)),
        _ => None,
    });
    let is_around = |(last, first): &(Timestamp, Timestamp)| {
        last.since_ns(at) <= AROUND_NS && at.since_ns(*first) <= AROUND_NS
    };
    let around = silences.filter(is_around);
    around.max_by_key(|(last, first)| (first.since_ns(*last), u64::MAX - last.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Address;

    const MS: u64 = 1_000_000;

    fn ends(last: u8) -> Ends {
        Ends { source: Address::v4([10, 0, 0, last]), ..Ends::default() }
    }

    fn shown(times: &[(u64, u32)]) -> Vec<Shown> {
        times
            .iter()
            .map(|(at_ms, ends)| Shown { at: Timestamp(at_ms * MS), ends: *ends, span: 0 })
            .collect()
    }

    fn both() -> KeyedMap<Ends, Counts> {
        let number = |number| Counts { number, ..Counts::default() };
        [(ends(1), number(0)), (ends(2), number(1))].into_iter().collect()
    }

    #[test]
    fn the_longest_silence_around_an_instant_goes_over_windows() {
        let mut pasts = Pasts::new(10_000 * MS);
        pasts.add(Timestamp(1_000 * MS), &both(), shown(&[(900, 0), (100, 0), (950, 1), (850, 0)]));
        pasts.add(Timestamp(2_000 * MS), &both(), shown(&[(1_999, 0), (1_150, 0), (1_000, 1)]));
        let of = |at: u64, last| {
            let found = pasts.silence(Timestamp(at * MS), |sender| *sender == ends(last));
            found.map(|(last, first)| (last.0 / MS, first.0 / MS))
        };
        assert_eq!(of(1_000, 1), Some((1_150, 1_999)), "within a second");
        assert_eq!(of(120, 1), Some((100, 850)), "what begins a second later is another one");
        assert_eq!(of(1_000, 2), Some((950, 1_000)));
        assert_eq!(of(9_000, 2), None, "too far from it");
        assert_eq!((of(2_500, 1), of(50, 1)), (None, None), "nobody knows how long");
        assert_eq!(of(1_000, 3), None, "nobody sent");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut pasts = Pasts::new(2 * MS);
        for window in 1..6 {
            pasts.add(Timestamp(window * MS), &both(), shown(&[(window, 0)]));
        }
        assert_eq!((pasts.windows.len(), pasts.packets), (3, 3));
        pasts.add(Timestamp(6 * MS), &both(), vec![shown(&[(6, 0)])[0]; SHOWN_MAX + 1]);
        assert_eq!((pasts.windows.len(), pasts.packets), (0, 0), "too many at once");
        assert_eq!(pasts.silence(Timestamp(6 * MS), |_| true), None);
    }
}
