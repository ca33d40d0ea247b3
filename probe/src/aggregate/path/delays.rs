//! Times from tap to tap: with two clocks they may be negative.
//!
//! In: nanoseconds with sign. Out: count, sum, extremes, percentiles.
//! Cost: a histogram for what is not negative, and another from the first negative one on.
//! Invariants: as the histograms: merging gives what one would have given.

use crate::measure::histogram::{Dense, Sparse, rank};

/// A histogram that can be asked by rank.
pub trait Ranks: Default {
    /// Samples.
    fn count(&self) -> u64;
    /// The value of the sample with this rank, from 1.
    fn at_rank_ns(&self, rank: u64) -> Option<u64>;
}

impl Ranks for Sparse {
    fn count(&self) -> u64 {
        self.summary().count
    }

    fn at_rank_ns(&self, rank: u64) -> Option<u64> {
        Self::at_rank_ns(self, rank)
    }
}

impl Ranks for Dense {
    fn count(&self) -> u64 {
        self.summary().count
    }

    fn at_rank_ns(&self, rank: u64) -> Option<u64> {
        Self::at_rank_ns(self, rank)
    }
}

/// Times with sign.
#[derive(Clone, Debug, Default)]
pub struct Delays<H> {
    /// Samples.
    pub count: u64,
    /// Their sum; saturates.
    pub sum_ns: i64,
    /// The least; 0 without samples.
    pub min_ns: i64,
    /// The largest; 0 without samples.
    pub max_ns: i64,
    ahead: H,
    /// Of the negative ones, without sign.
    behind: Option<Box<H>>,
}

impl<H: Ranks> Delays<H> {
    fn note(&mut self, count: u64, sum_ns: i64, min_ns: i64, max_ns: i64) {
        let first = self.count == 0;
        self.min_ns = if first { min_ns } else { self.min_ns.min(min_ns) };
        self.max_ns = if first { max_ns } else { self.max_ns.max(max_ns) };
        self.count += count;
        self.sum_ns = self.sum_ns.saturating_add(sum_ns);
    }

    /// Their mean, to the nearest nanosecond.
    pub fn mean_ns(&self) -> Option<i64> {
        let count = i64::try_from(self.count).ok().filter(|count| *count > 0)?;
        Some((self.sum_ns + (count / 2) * self.sum_ns.signum()) / count)
    }

    /// The value at `per_mille` (500: median), off by at most 0.8 %; `None` without samples.
    pub fn percentile_ns(&self, per_mille: u32) -> Option<i64> {
        let rank = rank(self.count, per_mille);
        let negative = self.behind.as_ref().map_or(0, |behind| behind.count());
        let found = if rank <= negative {
            let from_zero = negative - rank + 1;
            self.behind.as_ref()?.at_rank_ns(from_zero).map(|ns| -ns.cast_signed())
        } else {
            self.ahead.at_rank_ns(rank - negative).map(u64::cast_signed)
        };
        found.map(|ns| ns.clamp(self.min_ns, self.max_ns))
    }
}

impl Delays<Sparse> {
    /// Adds one.
    pub fn record(&mut self, ns: i64) {
        self.note(1, ns, ns, ns);
        if ns < 0 {
            self.behind.get_or_insert_default().record(ns.unsigned_abs());
        } else {
            self.ahead.record(ns.unsigned_abs());
        }
    }

    /// As seen from the other end.
    #[must_use]
    pub fn turned(self) -> Self {
        let behind = Some(Box::new(self.ahead)).filter(|ahead| ahead.count() > 0);
        Self {
            count: self.count,
            sum_ns: -self.sum_ns,
            min_ns: -self.max_ns,
            max_ns: -self.min_ns,
            ahead: self.behind.map_or_else(Sparse::default, |behind| *behind),
            behind,
        }
    }
}

impl Delays<Dense> {
    /// Adds all of a conversation.
    pub fn merge(&mut self, other: &Delays<Sparse>) {
        if other.count == 0 {
            return;
        }
        self.note(other.count, other.sum_ns, other.min_ns, other.max_ns);
        self.ahead.merge_sparse(&other.ahead);
        if let Some(behind) = &other.behind {
            self.behind.get_or_insert_default().merge_sparse(behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_kept() {
        let mut delays = Delays::<Sparse>::default();
        for ns in [-30, -20, -10, 0, 10, 20, 30, 40, 50] {
            delays.record(ns);
        }
        let at = |delays: &Delays<Sparse>| {
            [0, 333, 500, 1000].map(|per_mille| delays.percentile_ns(per_mille))
        };
        assert_eq!(at(&delays), [Some(-30), Some(-10), Some(10), Some(50)]);
        assert_eq!((delays.mean_ns(), delays.min_ns, delays.max_ns), (Some(10), -30, 50));
        let mut dense = Delays::<Dense>::default();
        dense.merge(&delays);
        assert_eq!((dense.percentile_ns(0), dense.percentile_ns(500)), (Some(-30), Some(10)));
        let turned = delays.turned();
        assert_eq!(at(&turned), [Some(-50), Some(-30), Some(-10), Some(30)]);
        assert_eq!(turned.mean_ns(), Some(-10));
        assert_eq!(Delays::<Dense>::default().mean_ns(), None);
    }
}
