//! Hours that could not be added up, and when they are tried again.
//!
//! In: what failed and what did not, the monotonic clock. Out: the hours to leave for now.
//! Invariants: at most [`HOURS_MAX`] names; each failure doubles the wait, to a bound, and nothing is left
//! for ever: a disk gets room, a program its library, an hour that is too large for the memory is removed.
//! Pure: the same in gives the same out.

use std::collections::BTreeMap;

use crate::time::ms;

/// Names that are kept. With more of them the one that would be tried first is tried earlier still.
const HOURS_MAX: usize = 1_024;
/// Wait of an hour at first, and at most: a try may take a quarter of an hour.
const HOUR_WAIT_MS: (u64, u64) = (3_600_000, 7 * 24 * 3_600_000);
/// The same where no hour can be added up, which is soon seen.
const ALL_WAIT_MS: (u64, u64) = (600_000, 3_600_000);

/// See above.
#[derive(Debug, Default)]
pub(super) struct Held {
    hours: BTreeMap<String, Wait>,
    all: Wait,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    failures: u32,
    until_ns: u64,
}

impl Wait {
    fn failed(&mut self, now_ns: u64, (first_ms, most_ms): (u64, u64)) {
        let wait_ms = first_ms.saturating_mul(1 << self.failures.min(31)).min(most_ms);
        self.failures = self.failures.saturating_add(1);
        self.until_ns = now_ns.saturating_add(ms(wait_ms));
    }
}

impl Held {
    /// An hour failed.
    pub(super) fn hour_failed(&mut self, hour: String, now_ns: u64) {
        self.hours.entry(hour).or_default().failed(now_ns, HOUR_WAIT_MS);
        while self.hours.len() > HOURS_MAX {
            let first = self.hours.iter().min_by_key(|(_, wait)| wait.until_ns);
            let Some(first) = first.map(|(hour, _)| hour.clone()) else { return };
            self.hours.remove(&first);
        }
    }

    /// No hour can be added up just now.
    pub(super) fn all_failed(&mut self, now_ns: u64) {
        self.all.failed(now_ns, ALL_WAIT_MS);
    }

    /// An hour was added up.
    pub(super) fn succeeded(&mut self, hour: &str) {
        self.hours.remove(hour);
        self.all = Wait::default();
    }

    /// Whether there is any sense in trying.
    pub(super) const fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.all.until_ns
    }

    /// Hours to leave for now.
    pub(super) fn left(&self, now_ns: u64) -> Vec<String> {
        let waits = self.hours.iter().filter(|(_, wait)| now_ns < wait.until_ns);
        waits.map(|(hour, _)| hour.clone()).collect()
    }

    /// Forgets hours that are not there any more.
    pub(super) fn forget_but(&mut self, is_there: impl Fn(&str) -> bool) {
        self.hours.retain(|hour, _| is_there(hour));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    #[test]
    fn a_failure_is_tried_again_later_each_time_but_for_ever() {
        let mut held = Held::default();
        let mut now_ns = 5;
        for wait_hours in [1, 2, 4, 8, 16, 32, 64, 128, 168, 168] {
            held.hour_failed("w/1".to_owned(), now_ns);
            let until_ns = now_ns + wait_hours * HOUR_NS;
            assert_eq!(held.left(until_ns - 1), ["w/1"]);
            assert_eq!(held.left(until_ns), [""; 0]);
            now_ns = until_ns;
        }
        held.succeeded("w/1");
        held.hour_failed("w/1".to_owned(), now_ns);
        assert_eq!(held.left(now_ns + HOUR_NS), [""; 0], "from the beginning");
    }

    #[test]
    fn what_fails_for_all_holds_no_hour() {
        let mut held = Held::default();
        assert!(held.is_due(0));
        held.all_failed(0);
        assert!(!held.is_due(HOUR_NS / 6 - 1) && held.is_due(HOUR_NS / 6));
        for _ in 0..100 {
            held.all_failed(0);
        }
        assert!(!held.is_due(HOUR_NS - 1) && held.is_due(HOUR_NS));
        assert_eq!(held.left(0), [""; 0]);
        held.succeeded("w/1");
        assert!(held.is_due(0));
    }

    #[test]
    fn names_are_bounded_and_go_with_their_hours() {
        let mut held = Held::default();
        for hour in 0..3_000 {
            held.hour_failed(format!("w/{hour:04}"), hour);
        }
        let left = held.left(3_000);
        assert_eq!((left.len(), left[0].as_str()), (HOURS_MAX, "w/1976"));
        held.forget_but(|hour| hour == "w/2000");
        assert_eq!(held.left(3_000), ["w/2000"]);
    }
}
