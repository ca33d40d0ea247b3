//! Readings of a tick counter beside the wall clock.
//!
//! In: the time stamp counter, or a device's clock. Out: [`Reading`]s for the clock discipline.
//! Cost: microseconds; taken once a second, never on a worker.
//! Invariants: a reading lies between two of the wall clock; of several the closest is kept, so
//! that an interruption does no harm.

use super::port::Port;
use crate::time::{Timestamp, wall_clock};

/// Readings of which the closest is kept.
const READINGS: u32 = 8;

/// A counter read between two looks at the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Wall clock before.
    pub before: Timestamp,
    /// The counter.
    pub ticks: u64,
    /// Wall clock after.
    pub after: Timestamp,
}

/// The time stamp counter beside the wall clock.
pub fn read_tsc() -> Option<Reading> {
    closest(|| Some(tsc()))
}

/// A device's clock beside the wall clock; `None` where it cannot be read.
pub fn read_device_clock(port: &Port) -> Option<Reading> {
    closest(|| port.read_clock())
}

fn tsc() -> u64 {
    // SAFETY: reads a counter.
    unsafe { dpdk_sys::vmprobe_tsc() }
}

fn closest(read: impl Fn() -> Option<u64>) -> Option<Reading> {
    (0..READINGS)
        .filter_map(|_| {
            let before = wall_clock();
            let ticks = read()?;
            Some(Reading { before, ticks, after: wall_clock() })
        })
        .min_by_key(|reading| reading.after.since_ns(reading.before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_runs_and_is_read_closely() {
        let first = read_tsc().expect("every machine has one");
        let second = read_tsc().expect("every machine has one");
        assert!(second.ticks > first.ticks && second.before >= first.after);
        assert!(first.after.since_ns(first.before) < 1_000_000, "{first:?}");
    }
}
