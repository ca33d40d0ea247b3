//! What a line of the flow table costs, by the size of what the flows touch.
//!
//! In: latencies of this machine at several sizes. Out: nanoseconds at any size.
//! Invariants: a larger table never costs less, whatever noise the measurement had; beyond the
//! largest size that was measured the cost stays.

use serde::Serialize;

use super::super::latency::{self, MemoryLatency};

/// Sizes measured beside that of the measured table: in a core's own cache, in the shared one,
/// beyond it.
const SIZES_BYTES: [u64; 4] = [1 << 20, 16 << 20, 64 << 20, latency::TABLE_BYTES_MAX];

/// Latencies in order of size.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Latencies(Vec<MemoryLatency>);

impl Latencies {
    /// Measures; `bytes` is a size that the plan will ask for.
    pub(super) fn measure(bytes: u64) -> Self {
        let mut sizes: Vec<_> = SIZES_BYTES.into_iter().chain([bytes]).collect();
        sizes.sort_unstable();
        sizes.dedup();
        Self(sizes.into_iter().map(latency::measure).collect())
    }

    /// Each size with its cost.
    pub fn sizes(&self) -> &[MemoryLatency] {
        &self.0
    }

    /// Nanoseconds of an update in a burst, in tables of so many bytes: between two sizes along the
    /// logarithm of the size.
    pub(super) fn update_ns(&self, bytes: f64) -> f64 {
        let mut below: Option<(f64, f64)> = None;
        for latency in &self.0 {
            let size = bytes_of(latency);
            let ns = below.map_or(latency.grouped_update_ns, |(_, least)| {
                least.max(latency.grouped_update_ns)
            });
            if bytes <= size {
                return below.map_or(ns, |(smaller, least)| {
                    let share = (bytes / smaller).ln() / (size / smaller).ln();
                    least + (ns - least) * share
                });
            }
            if below.is_none_or(|(smaller, _)| smaller < size) {
                below = Some((size, ns));
            }
        }
        below.map_or(0.0, |(_, ns)| ns)
    }

    #[cfg(test)]
    pub(super) fn of(points: &[(u64, f64)]) -> Self {
        let point = |&(table_bytes, grouped_update_ns)| MemoryLatency {
            table_bytes,
            dependent_load_ns: 2.0 * grouped_update_ns,
            grouped_update_ns,
        };
        Self(points.iter().map(point).collect())
    }
}

#[expect(clippy::cast_precision_loss, reason = "16 digits are enough for a size")]
fn bytes_of(latency: &MemoryLatency) -> f64 {
    latency.table_bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_tables_never_cost_less() {
        // Noise made the third smaller than the second.
        let latencies = Latencies::of(&[(1_000, 2.0), (100_000, 6.0), (1_000_000, 5.0)]);
        for (bytes, ns) in [(1.0, 2.0), (1_000.0, 2.0), (10_000.0, 4.0), (1e6, 6.0), (1e12, 6.0)] {
            let found = latencies.update_ns(bytes);
            assert!((found - ns).abs() < 1e-9, "{bytes}: {found}");
        }
        let same = Latencies::of(&[(1_000, 2.0), (1_000, 3.0), (1_000, 4.0)]);
        assert!(same.update_ns(500.0) <= same.update_ns(2_000.0));
        assert!((Latencies::of(&[]).update_ns(1.0)).abs() < f64::EPSILON);
    }
}
