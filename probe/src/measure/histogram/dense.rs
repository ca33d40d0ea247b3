//! A histogram with room for every bucket.
//!
//! In: delays in ns, or histograms. Out: percentiles.
//! Cost: 16 KiB, taken at once; recording is one addition, merging 2,048.
//! Invariants: as its module; counts do not overflow within 2⁶⁴ samples.
//! Source: docs/measures.md, percentiles.

use super::bucket::{self, BUCKETS, Bucket};
use super::{Sparse, Summary};

/// For tap pairs, tenants and methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dense {
    summary: Summary,
    counts: Box<[u64]>,
}

const _: () = assert!(BUCKETS * size_of::<u64>() == 16 << 10, "bytes as the documents state them");

impl Default for Dense {
    fn default() -> Self {
        Self { summary: Summary::default(), counts: vec![0; BUCKETS].into() }
    }
}

impl Dense {
    /// Adds one sample.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.summary.record(ns);
        if let Some(count) = self.counts.get_mut(usize::from(bucket::of(ns))) {
            *count += 1;
        }
    }

    /// Adds all samples of another.
    pub fn merge(&mut self, other: &Self) {
        self.summary.merge(&other.summary);
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
    }

    /// Adds all samples of a conversation. Exact as long as that has its finest buckets; else its
    /// samples lie in the middle of theirs.
    pub fn merge_sparse(&mut self, other: &Sparse) {
        self.summary.merge(&other.summary());
        for (bucket, count) in other.buckets() {
            if let Some(mine) = self.counts.get_mut(usize::from(bucket::of(bucket.middle_ns()))) {
                *mine += count;
            }
        }
    }

    /// Count, sum and extremes: exact.
    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// The value at `per_mille` (500: median), off by at most 0.8 %; `None` without samples.
    pub fn percentile_ns(&self, per_mille: u32) -> Option<u64> {
        self.summary.percentile(per_mille, self.buckets())
    }

    /// The value of the sample with this rank, from the shortest, which has 1.
    pub fn at_rank_ns(&self, rank: u64) -> Option<u64> {
        self.summary.at_rank(rank, self.buckets())
    }

    fn buckets(&self) -> impl Iterator<Item = (Bucket, u64)> {
        let buckets = (0_u16..).zip(&self.counts);
        buckets.map(|(number, count)| (Bucket { number, level: 0 }, *count))
    }
}
