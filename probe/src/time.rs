//! Time as a value.
//!
//! In: nothing. Out: `Timestamp` (nanoseconds since the epoch, UTC) and the only calls that
//! read a clock. Everything on the packet path takes its time as an argument.
//! Cost: plain integers.
//! Invariants: arithmetic saturates, so a hostile stamp in a file cannot overflow.
//! Source: record times are `…_ns` as Information Elements 156 and 157.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since 1970-01-01T00:00:00Z. Range: the years 1970 to 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The epoch; used where nothing has been seen yet.
    pub const ZERO: Self = Self(0);

    /// Builds from whole seconds and nanoseconds; saturates.
    pub const fn from_parts(seconds: u64, nanoseconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to here; 0 if `earlier` is later.
    pub const fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Timestamp {
    type Output = Self;
    fn add(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }
}

impl Sub<u64> for Timestamp {
    type Output = Self;
    fn sub(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_sub(nanoseconds))
    }
}

/// The wall clock (`CLOCK_REALTIME`). Never called once per packet.
pub fn wall_clock() -> Timestamp {
    clock(rustix::time::ClockId::Realtime)
}

/// A clock that never steps (`CLOCK_MONOTONIC`), in nanoseconds since some start.
pub fn monotonic_ns() -> u64 {
    clock(rustix::time::ClockId::Monotonic).0
}

/// CPU time that this thread has used, in nanoseconds. Reading it costs hundreds of ns.
pub fn thread_cpu_ns() -> u64 {
    clock(rustix::time::ClockId::ThreadCPUTime).0
}

/// Milliseconds as nanoseconds; saturates.
pub const fn ms(milliseconds: u64) -> u64 {
    milliseconds.saturating_mul(1_000_000)
}

/// Sleeps; only threads that are not workers do.
pub fn sleep_ms(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Sleeps; workers do only where their source waits as well.
pub fn sleep_us(microseconds: u64) {
    std::thread::sleep(Duration::from_micros(microseconds));
}

fn clock(id: rustix::time::ClockId) -> Timestamp {
    let now = rustix::time::clock_gettime(id);
    Timestamp::from_parts(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u64::try_from(now.tv_nsec).unwrap_or(0),
    )
}
