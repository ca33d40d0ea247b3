//! The share of flows that shedding left in each window.
//!
//! In: the rate now, windows. Out: the rate that a row of a window states.
//! Cost: a compare each time the rate is set.
//! Invariants: a window's rate is the lowest that held while something could be booked in it: a flow
//! that is in the window all the time was kept at that rate.
//! Source: hash-based selection, RFC 5475 §5.2.

use crate::index::WindowNumber;

use super::touched::PHASES;

/// Rates of the windows that are open or closing.
pub(super) struct Sampling {
    now: f32,
    windows: [(WindowNumber, f32); PHASES],
}

impl Sampling {
    pub(super) const fn new() -> Self {
        Self { now: 1.0, windows: [(WindowNumber(u64::MAX), 1.0); PHASES] }
    }

    /// The rate now, while `window` is the newest.
    pub(super) fn set(&mut self, rate: f32, window: WindowNumber) {
        self.now = rate;
        for (_, lowest) in &mut self.windows {
            *lowest = lowest.min(rate);
        }
        self.begin(window);
    }

    /// Something may be booked in `window` from now on.
    #[inline]
    pub(super) fn begin(&mut self, window: WindowNumber) {
        let now = self.now;
        let entry = self.entry(window);
        if entry.0 != window {
            *entry = (window, now);
        }
    }

    /// The rate that holds for a row of `window`.
    pub(super) fn of(&mut self, window: WindowNumber) -> f32 {
        let now = self.now;
        match *self.entry(window) {
            (known, lowest) if known == window => lowest,
            _ => now,
        }
    }

    pub(super) const fn now(&self) -> f32 {
        self.now
    }

    #[expect(clippy::cast_possible_truncation, reason = "below PHASES")]
    fn entry(&mut self, window: WindowNumber) -> &mut (WindowNumber, f32) {
        &mut self.windows[(window.0 % PHASES as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f32, other: f32) -> bool {
        (one - other).abs() < 1e-6
    }

    #[test]
    fn a_window_states_its_lowest_rate() {
        let mut sampling = Sampling::new();
        let (first, second) = (WindowNumber(10), WindowNumber(11));
        sampling.begin(first);
        sampling.set(0.25, first);
        sampling.set(0.9, first);
        sampling.begin(second);
        assert!(near(sampling.of(first), 0.25) && near(sampling.of(second), 0.9));
        sampling.set(1.0, second);
        assert!(near(sampling.of(first), 0.25) && near(sampling.now(), 1.0));
        sampling.begin(WindowNumber(14));
        assert!(near(sampling.of(WindowNumber(14)), 1.0));
    }
}
