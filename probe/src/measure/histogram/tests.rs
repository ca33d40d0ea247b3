//! Both forms against sorted samples, against each other, and against hdrhistogram.

use proptest::prelude::*;

use super::*;

/// Delays of all sizes: few or many octaves.
fn samples() -> impl Strategy<Value = Vec<u64>> {
    let one = (0_u32..40, any::<u64>()).prop_map(|(bits, noise)| noise & ((1 << bits) - 1));
    prop_oneof![
        prop::collection::vec(one, 1..2000),
        prop::collection::vec(90_000_u64..400_000, 1..500),
    ]
}

fn sparse(samples: &[u64]) -> Sparse {
    let mut histogram = Sparse::default();
    for ns in samples {
        histogram.record(*ns);
    }
    histogram
}

fn dense(samples: &[u64]) -> Dense {
    let mut histogram = Dense::default();
    for ns in samples {
        histogram.record(*ns);
    }
    histogram
}

fn true_percentile(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted[rank - 1].min(VALUE_NS_MAX)
}

const PER_MILLE: [u32; 5] = [0, 500, 900, 990, 1000];

proptest! {
    #[test]
    fn merging_is_as_if_one_had_taken_all(samples in samples(), cuts in any::<[u16; 3]>()) {
        let mut cuts = cuts.map(|cut| usize::from(cut) % (samples.len() + 1));
        cuts.sort_unstable();
        let [a, b, c] = cuts;
        let parts = [&samples[..a], &samples[a..b], &samples[b..c], &samples[c..]];
        let (mut few, mut many) = (Sparse::default(), Dense::default());
        for part in parts.iter().rev() {
            few.merge(&sparse(part));
            many.merge(&dense(part));
        }
        let whole = sparse(&samples);
        prop_assert_eq!(few.used(), whole.used());
        prop_assert_eq!(few.summary(), whole.summary());
        prop_assert_eq!(many, dense(&samples));
        prop_assert!(few.bytes() <= SPARSE_BYTES_MAX);
    }

    #[test]
    fn percentiles_are_within_their_bound(mut samples in samples()) {
        let (few, many) = (sparse(&samples), dense(&samples));
        samples.sort_unstable();
        let sum = samples.iter().sum::<u64>();
        prop_assert_eq!((few.summary().count, few.summary().sum_ns), (samples.len() as u64, sum));
        for per_mille in PER_MILLE {
            let wanted = true_percentile(&samples, per_mille as usize);
            let near = |ns: Option<u64>, bound: u32| {
                ns.is_some_and(|ns| ns.abs_diff(wanted) * 1000 <= u64::from(bound) * wanted.max(1))
            };
            let exact = many.percentile_ns(per_mille);
            prop_assert!(near(exact, 8), "{per_mille}: {wanted} {exact:?}");
            // Joined buckets of the lowest values may hold 0.
            let bound = few.error_per_mille();
            let ns = few.percentile_ns(per_mille);
            prop_assert!(near(ns, bound) || wanted < 1024, "{per_mille}: {wanted} {ns:?} {bound}");
        }
    }

    #[test]
    fn the_forms_agree_while_buckets_are_few(samples in prop::collection::vec(90_000_u64..400_000, 1..500)) {
        let (few, many) = (sparse(&samples), dense(&samples));
        let mut merged = Dense::default();
        merged.merge_sparse(&few);
        prop_assert_eq!(&merged, &many);
        prop_assert_eq!(few.error_per_mille(), 8);
        let mut other = hdrhistogram::Histogram::<u64>::new_with_max(VALUE_NS_MAX, 3).expect("bounds");
        for ns in &samples {
            other.record(*ns).expect("in bounds");
        }
        for per_mille in [500, 900, 990] {
            let theirs = other.value_at_quantile(f64::from(per_mille) / 1000.0);
            let ours = many.percentile_ns(per_mille).expect("samples");
            prop_assert!(ours.abs_diff(theirs) * 100 <= theirs, "{ours} {theirs}");
        }
    }
}

#[test]
fn nothing_has_no_percentile() {
    assert_eq!(Sparse::default().percentile_ns(500), None);
    assert_eq!(Dense::default().percentile_ns(500), None);
    assert_eq!(size_of::<Sparse>(), 64);
}
