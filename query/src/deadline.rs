//! The time that the whole command may take.
//!
//! In: seconds. Out: what is left of them.
//! Invariants: all that a command does shares one; so what it does first leaves less for what comes after.

use std::time::{Duration, Instant};

/// From when on, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    begun: Instant,
    time: Duration,
}

impl Deadline {
    /// Begins now.
    #[expect(clippy::disallowed_methods, reason = "a limit of real time; no record depends on it")]
    pub(crate) fn in_s(seconds: u32) -> Self {
        Self { begun: Instant::now(), time: Duration::from_secs(seconds.into()) }
    }

    /// What is left; zero when it is over.
    pub(crate) fn left(&self) -> Duration {
        self.time.saturating_sub(self.begun.elapsed())
    }

    /// The limit, in seconds.
    pub(crate) fn seconds(&self) -> u64 {
        self.time.as_secs()
    }
}
