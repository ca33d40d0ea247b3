//! Mergeable histograms of delays.
//!
//! In: delays in ns. Out: count, sum, extremes, percentiles.
//! Cost: [`Sparse`] 64 bytes and 8 to 16 for each bucket in use, for conversations; [`Dense`] 16 KiB, for
//! tap pairs, tenants and methods.
//! Invariants: buckets are the same everywhere, so adding histograms up gives exactly what one
//! histogram of all samples would have given, in any order and grouping; a percentile is off by
//! at most half a bucket, 0.8 % (see [`Sparse`] for what very many buckets cost).
//! Source: log-linear buckets as in HdrHistogram.

mod bucket;
mod dense;
mod sparse;
#[cfg(test)]
mod tests;

pub use bucket::{BUCKETS, VALUE_NS_MAX};
pub use dense::Dense;
pub use sparse::{SPARSE_BUCKETS_MAX, SPARSE_BYTES_MAX, Sparse};

use bucket::Bucket;

/// What is exact in a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Samples.
    pub count: u64,
    /// Their sum in ns; saturates.
    pub sum_ns: u64,
    /// The shortest in ns; 0 without samples.
    pub min_ns: u64,
    /// The longest in ns.
    pub max_ns: u64,
}

impl Summary {
    fn record(&mut self, ns: u64) {
        self.merge(&Self { count: 1, sum_ns: ns, min_ns: ns, max_ns: ns });
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min_ns = if self.count == 0 { other.min_ns } else { self.min_ns.min(other.min_ns) };
        self.max_ns = self.max_ns.max(other.max_ns);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.count += other.count;
    }

    /// The value below which `per_mille` of 1,000 samples lie: the middle of the bucket of the
    /// sample with that rank (nearest rank), but never outside what was measured.
    fn percentile(
        &self,
        per_mille: u32,
        buckets: impl Iterator<Item = (Bucket, u64)>,
    ) -> Option<u64> {
        self.at_rank(rank(self.count, per_mille), buckets)
    }

    /// The same for the sample with this rank, from 1.
    fn at_rank(&self, rank: u64, buckets: impl Iterator<Item = (Bucket, u64)>) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let mut below = 0;
        for (bucket, count) in buckets {
            below += count;
            if below >= rank {
                return Some(bucket.middle_ns().clamp(self.min_ns, self.max_ns));
            }
        }
        Some(self.max_ns)
    }
}

/// Rank, from 1, of the sample at `per_mille` of `count` (nearest rank).
pub fn rank(count: u64, per_mille: u32) -> u64 {
    count.saturating_mul(u64::from(per_mille.min(1000))).div_ceil(1000).max(1)
}
