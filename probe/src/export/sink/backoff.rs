//! How long a sink waits between two attempts.

use std::hash::{BuildHasher as _, RandomState};

use crate::time::{monotonic_ns, ms};

/// The first wait, in milliseconds.
const FIRST_MS: u64 = 250;

/// Waits that double, each made shorter at random by up to a half, so that the sinks of many probes do
/// not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    random: RandomState,
    wait_ms: u64,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { random: RandomState::new(), wait_ms: FIRST_MS }
    }

    /// After a failure: the next wait, in nanoseconds.
    pub(super) fn next_ns(&mut self, max_ms: u64) -> u64 {
        let wait_ms = self.wait_ms.min(max_ms);
        self.wait_ms = self.wait_ms.saturating_mul(2).min(max_ms.max(FIRST_MS));
        let wait_ns = ms(wait_ms);
        wait_ns - self.random.hash_one(monotonic_ns()) % (wait_ns / 2 + 1)
    }

    /// After a success.
    pub(super) const fn reset(&mut self) {
        self.wait_ms = FIRST_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_differ() {
        let mut backoff = Backoff::new();
        for wait_ms in [250, 500, 1_000, 2_000, 2_000] {
            let wait_ns = backoff.next_ns(2_000);
            assert!((ms(wait_ms) / 2..=ms(wait_ms)).contains(&wait_ns), "{wait_ns}");
        }
        let waits: std::collections::BTreeSet<_> =
            (0..50).map(|_| backoff.next_ns(2_000)).collect();
        assert!(waits.len() > 10);
        backoff.reset();
        assert!(backoff.next_ns(2_000) <= ms(250));
    }
}
