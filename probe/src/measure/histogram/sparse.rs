//! A histogram of the buckets in use only.
//!
//! In: delays in ns, or histograms. Out: percentiles, and the buckets for a record's column.
//! Cost: [`SPARSE_BYTES_MAX`] bytes at most; recording is a binary search
//! and, for a new bucket, a move of those behind it.
//! Invariants: the level is the finest at which all samples fit, so it depends on the samples
//! alone, neither on their order nor on how they were merged.
//! Source: docs/measures.md, percentiles.

use super::Summary;
use super::bucket::{self, Bucket};

/// Buckets in use at most. With more, neighbours are joined in pairs, again and again: 256 of 64
/// to a power of two cover four whole ones (100 µs to 1.6 ms) with 0.8 % error, eight with 1.6 %,
/// sixteen with 3.1 %, and all delays there can be with 6.3 %.
pub const SPARSE_BUCKETS_MAX: usize = 256;

/// Bytes that a histogram takes at most: merging may hold twice the buckets for a moment.
pub const SPARSE_BYTES_MAX: usize = size_of::<Sparse>() + 2 * SPARSE_BUCKETS_MAX * 8;

/// For conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    summary: Summary,
    /// Number at `level`, samples; by number.
    used: Vec<(u16, u32)>,
    level: u8,
}

impl Sparse {
    /// Adds one sample.
    pub fn record(&mut self, ns: u64) {
        self.summary.record(ns);
        self.add(bucket::of(ns) >> self.level, 1);
        self.coarsen();
    }

    /// Adds all samples of another.
    pub fn merge(&mut self, other: &Self) {
        self.summary.merge(&other.summary);
        while self.level < other.level {
            self.join_pairs();
        }
        let above = self.level - other.level;
        for (number, count) in &other.used {
            self.add(number >> above, *count);
        }
        self.coarsen();
    }

    fn add(&mut self, number: u16, count: u32) {
        match self.used.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => {
                if let Some((_, known)) = self.used.get_mut(place) {
                    *known = known.saturating_add(count);
                }
            }
            Err(place) => self.used.insert(place, (number, count)),
        }
    }

    fn coarsen(&mut self) {
        while self.used.len() > SPARSE_BUCKETS_MAX {
            self.join_pairs();
        }
    }

    /// Joins neighbours in pairs.
    fn join_pairs(&mut self) {
        self.level += 1;
        for (number, _) in &mut self.used {
            *number >>= 1;
        }
        self.used.dedup_by(|next, kept| {
            let joined = next.0 == kept.0;
            if joined {
                kept.1 = kept.1.saturating_add(next.1);
            }
            joined
        });
    }

    /// Count, sum and extremes: exact.
    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// Buckets in use.
    pub const fn buckets_used(&self) -> usize {
        self.used.len()
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.used.capacity() * size_of::<(u16, u32)>()
    }

    /// Largest error of a percentile, in parts of 1,000.
    pub const fn error_per_mille(&self) -> u32 {
        (1000_u32 << self.level).div_ceil(128)
    }

    /// The value at `per_mille` (500: median); `None` without samples.
    pub fn percentile_ns(&self, per_mille: u32) -> Option<u64> {
        self.summary.percentile(per_mille, self.buckets())
    }

    /// The value of the sample with this rank, from the shortest, which has 1.
    pub fn at_rank_ns(&self, rank: u64) -> Option<u64> {
        self.summary.at_rank(rank, self.buckets())
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> (&[(u16, u32)], u8) {
        (&self.used, self.level)
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (Bucket, u64)> {
        let level = self.level;
        self.used
            .iter()
            .map(move |(number, count)| (Bucket { number: *number, level }, u64::from(*count)))
    }
}
