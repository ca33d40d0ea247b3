//! How long the aggregation thread waits before it looks at the hand-off again.
//!
//! In: whether a look found as much as it takes in one go, or a window that ends. Out: a pause.
//! Cost: where workers and this thread share a core, each look takes the caches from a worker; so few
//! looks that find much are better than many that find little.
//! Invariants: a pause is at most [`REST_US_MAX`]: rings hold far more than comes meanwhile.

use crate::time::sleep_us;

/// The shortest pause: a replay of an hour without traffic ends a window with every look.
const REST_US_MIN: u64 = 50;

/// The longest. At a million rows or ended flows a second of one worker its rings are half full then.
const REST_US_MAX: u64 = 8_000;

/// The pause that would be next.
pub(super) struct Rest {
    next_us: u64,
}

impl Default for Rest {
    fn default() -> Self {
        Self { next_us: REST_US_MIN }
    }
}

impl Rest {
    /// Waits after a look, unless there is `more` at once.
    pub(super) fn after(&mut self, more: bool) {
        if let Some(us) = self.pause_us(more) {
            sleep_us(us);
        }
    }

    /// The longer, the longer nothing was urgent.
    fn pause_us(&mut self, more: bool) -> Option<u64> {
        let us = self.next_us;
        self.next_us = if more { us / 4 } else { us * 2 }.clamp(REST_US_MIN, REST_US_MAX);
        (!more).then_some(us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_little_comes_and_are_short_when_much_does() {
        let mut rest = Rest::default();
        let quiet: Vec<_> = (0..9).map(|_| rest.pause_us(false)).collect();
        let expected = [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 8_000];
        assert_eq!(quiet, expected.map(Some));
        assert_eq!((rest.pause_us(true), rest.pause_us(false)), (None, Some(2_000)));
        for _ in 0..10 {
            assert_eq!(rest.pause_us(true), None);
        }
        assert_eq!(rest.pause_us(false), Some(REST_US_MIN));
    }
}
