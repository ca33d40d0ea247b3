//! A driver's counts, which may begin anew, as counts that never go back.
//!
//! In: what the driver says. Out: sums over all its beginnings.
//! Cost: a few loads and stores; nobody waits.
//! Invariants: a count never goes back. The driver's counts began anew where packets or octets went
//! back, as in a memif whose other side left and came again; then each count that went back is
//! added to what it was. Where packets and octets went on, a smaller count is the driver's
//! inaccuracy, and the larger one stays.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many counts; the first [`TRAFFIC`] are packets and octets.
const COUNTS: usize = 5;
const TRAFFIC: usize = 2;

/// The counts of one port.
#[derive(Debug, Default)]
pub(super) struct DriverCounts {
    /// A thread asks the driver; it alone writes the rest.
    asking: AtomicBool,
    counts: [Count; COUNTS],
}

#[derive(Debug, Default)]
struct Count {
    /// The largest that the driver said since it began anew.
    largest: AtomicU64,
    /// Sum of what it had counted whenever it began anew.
    base: AtomicU64,
    /// Their sum, for all threads.
    total: AtomicU64,
}

impl DriverCounts {
    /// All counts; `ask` is called unless another thread is just asking.
    pub(super) fn read(&self, ask: impl FnOnce() -> Option<[u64; COUNTS]>) -> [u64; COUNTS] {
        if !self.asking.swap(true, Ordering::Acquire) {
            if let Some(said) = ask() {
                self.take_in(said);
            }
            self.asking.store(false, Ordering::Release);
        }
        std::array::from_fn(|place| self.counts[place].total.load(Ordering::Relaxed))
    }

    fn take_in(&self, said: [u64; COUNTS]) {
        let mut traffic = self.counts.iter().zip(said).take(TRAFFIC);
        let anew = traffic.any(|(count, said)| said < count.largest.load(Ordering::Relaxed));
        for (count, said) in self.counts.iter().zip(said) {
            count.take_in(said, anew);
        }
    }
}

impl Count {
    fn take_in(&self, said: u64, anew: bool) {
        let before = self.largest.load(Ordering::Relaxed);
        let mut base = self.base.load(Ordering::Relaxed);
        let largest = if anew && said < before {
            base = base.saturating_add(before);
            self.base.store(base, Ordering::Relaxed);
            said
        } else {
            said.max(before)
        };
        self.largest.store(largest, Ordering::Relaxed);
        self.total.store(base.saturating_add(largest), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_where_the_driver_begins_anew() {
        let counts = DriverCounts::default();
        let read = |said| counts.read(|| Some(said));
        assert_eq!(read([100, 6_400, 7, 1, 3]), [100, 6_400, 7, 1, 3]);
        // The other side came again: what was lost since then is added, what went on stays.
        assert_eq!(read([10, 640, 2, 0, 3]), [110, 7_040, 9, 1, 3]);
        assert_eq!(read([50, 3_200, 5, 0, 4]), [150, 9_600, 12, 1, 4]);
        assert_eq!(read([0, 0, 0, 0, 4]), [150, 9_600, 12, 1, 4]);
        assert_eq!(read([1, 64, 1, 1, 4]), [151, 9_664, 13, 2, 4]);
    }

    #[test]
    fn a_count_that_wavers_is_not_added_twice() {
        let counts = DriverCounts::default();
        assert_eq!(counts.read(|| Some([100, 6_400, 70, 0, 0])), [100, 6_400, 70, 0, 0]);
        assert_eq!(counts.read(|| Some([120, 7_000, 69, 0, 0])), [120, 7_000, 70, 0, 0]);
        assert_eq!(counts.read(|| None), [120, 7_000, 70, 0, 0]);
    }

    #[test]
    fn one_thread_asks_at_a_time() {
        let counts = DriverCounts::default();
        counts.read(|| Some([5; 5]));
        let nested = counts.read(|| {
            let meanwhile = counts.read(|| unreachable!("the outer one asks"));
            assert_eq!(meanwhile, [5; 5]);
            Some([6; 5])
        });
        assert_eq!(nested, [6; 5]);
    }
}
