//! Relates a tick counter (time stamp counter, NIC clock) to the wall clock.
//!
//! In: once a second a [`Sample`]: ticks and wall clock, read together. Out: a [`Conversion`] from
//! ticks to [`Timestamp`], published to readers without a lock.
//! Cost: for a reader one load a burst, and two multiplications a stamp.
//! Invariants: stamps never run backwards. The error bound is against this machine's wall clock:
//! how well that one is synchronised is not known here.

mod discipline;
mod shared;

pub use discipline::{BACK_SHARE, Change, Discipline, STEP_NS};
pub use shared::{ConversionReader, SharedConversion};

use super::STAMP_MAX;
use crate::time::Timestamp;

/// Rates are nanoseconds per tick in 32.32 fixed point.
const FRACTION_BITS: u32 = 32;

/// Ticks and wall clock at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The counter.
    pub ticks: u64,
    /// The wall clock.
    pub wall: Timestamp,
    /// How far the two readings may lie apart.
    pub uncertainty_ns: u64,
}

impl Sample {
    /// A counter read between two readings of the wall clock. A wall clock that was set back in
    /// between gives the second reading and an uncertainty of the step.
    pub fn between(before: Timestamp, ticks: u64, after: Timestamp) -> Self {
        let half = after.since_ns(before) / 2;
        let uncertainty_ns = (half + 1).max(before.since_ns(after));
        Self { ticks, wall: after - half, uncertainty_ns }
    }
}

/// From ticks to time: a line, bent for as long as an offset is worked off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    base_ticks: u64,
    base: Timestamp,
    /// Nanoseconds per tick, 32.32 fixed point.
    rate: u64,
    /// Added to the rate for the first `slew_ticks`, 32.32 fixed point, signed.
    slew: i64,
    slew_ticks: u64,
    /// Bound of the error against the wall clock at the base.
    error_ns: u64,
    /// How fast it may grow, parts per billion.
    drift_ppb: u64,
}

impl Conversion {
    /// The time at `ticks`; before the base the line goes on backwards. Beyond the ends of time it
    /// is the nearer end.
    #[inline]
    pub fn at(&self, ticks: u64) -> Timestamp {
        let delta = ticks.wrapping_sub(self.base_ticks).cast_signed();
        let slewed = delta.clamp(0, self.slew_ticks.cast_signed());
        let scaled =
            i128::from(delta) * i128::from(self.rate) + i128::from(slewed) * i128::from(self.slew);
        let farthest = if scaled < 0 { i64::MIN } else { i64::MAX };
        let nanoseconds = i64::try_from(scaled >> FRACTION_BITS).unwrap_or(farthest);
        Timestamp(self.base.0.saturating_add_signed(nanoseconds)).min(STAMP_MAX)
    }

    /// Bound of the error against the wall clock at `at`; grows with the time since the last
    /// sample.
    pub fn error_ns_at(&self, at: Timestamp) -> u64 {
        let age = at.since_ns(self.base);
        let drift = u128::from(age) * u128::from(self.drift_ppb) / 1_000_000_000;
        self.error_ns.saturating_add(u64::try_from(drift).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_lie_in_the_middle() {
        let sample = Sample::between(Timestamp(1_000), 7, Timestamp(1_101));
        assert_eq!((sample.wall, sample.uncertainty_ns), (Timestamp(1_051), 51));
        let back = Sample::between(Timestamp(5_000), 7, Timestamp(1_000));
        assert_eq!((back.wall, back.uncertainty_ns), (Timestamp(1_000), 4_000));
    }

    #[test]
    fn beyond_the_ends_of_time_is_the_nearer_end() {
        let base = Timestamp(1_700_000_000_000_000_000);
        let slow = Conversion { base, base_ticks: 1 << 62, rate: 1 << 40, ..Conversion::default() };
        assert_eq!(slow.at(0), Timestamp::ZERO);
        assert_eq!(slow.at((1 << 63) - 1), STAMP_MAX);
    }
}
