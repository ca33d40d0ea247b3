//! How far the times between two taps scatter: what tells an order of taps from chance.
//!
//! In: windows. Out: for each pair of taps the variance of times around the mean of their endpoints
//! and direction, over the last windows.
//! Cost: a few additions for each pair of endpoints in a window.
//! Invariants: nothing depends on the order in which endpoints come; at most one entry a pair of taps.
//! Source: pooled variance, as in Student's test.

use std::collections::BTreeMap;

use crate::index::TapIndex;

use super::window::{Pair, Window};

/// Degrees of freedom without which a variance says nothing.
const DEGREES_MIN: u64 = 16;

/// Of times between two taps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scatter {
    /// Squares of what times differ from their mean, in ns².
    squares: u128,
    degrees: u64,
}

/// Of all pairs of taps.
#[derive(Clone, Debug, Default)]
pub(super) struct Noise {
    taps: BTreeMap<(TapIndex, TapIndex), Scatter>,
}

impl Noise {
    /// Takes the next window. Each counts half as much as the one after it.
    pub(super) fn window(&mut self, window: &Window) {
        for scatter in self.taps.values_mut() {
            (scatter.squares, scatter.degrees) = (scatter.squares / 2, scatter.degrees / 2);
        }
        self.taps.retain(|_, scatter| scatter.degrees > 0);
        for pair in window.ends.values().flat_map(|counts| &counts.pairs) {
            self.add(pair);
        }
    }

    pub(super) fn add(&mut self, pair: &Pair) {
        let Some(degrees) = pair.delays.count.checked_sub(1).filter(|degrees| *degrees > 0) else {
            return;
        };
        let scatter = self.taps.entry((pair.lower, pair.higher)).or_default();
        scatter.squares = scatter.squares.saturating_add(pair.scatter_ns2());
        scatter.degrees += degrees;
    }

    /// The variance of a time between two taps, in ns²; `None` if too little is known of it.
    pub(super) fn variance_ns2(&self, lower: TapIndex, higher: TapIndex) -> Option<f64> {
        let scatter = self.taps.get(&(lower, higher))?;
        #[expect(clippy::cast_precision_loss, reason = "compared with what is off by far more")]
        let variance = scatter.squares as f64 / scatter.degrees as f64;
        (scatter.degrees >= DEGREES_MIN).then_some(variance)
    }
}
