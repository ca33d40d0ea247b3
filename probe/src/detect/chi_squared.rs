//! Tail of the χ² distribution with one degree of freedom, and its inverse.
//!
//! In: a statistic. Out: the probability of one at least as large; and back.
//! Cost: an exponential and a polynomial, for the inverse a hundred of them.
//! Invariants: relative error below 2·10⁻⁷ (of erfc); 1 at 0, falling.
//! Source: P(χ²₁ ≥ x) = erfc(√(x/2)); erfc by the Chebyshev fit of Press et al., "Numerical
//! Recipes", §6.2.

/// Statistic whose tail is below every positive `f64` that is not subnormal.
const STATISTIC_MAX: f64 = 1_420.0;

/// Probability that χ² with one degree of freedom is at least `statistic`.
pub(super) fn tail_one_degree(statistic: f64) -> f64 {
    if statistic <= 0.0 { 1.0 } else { erfc((statistic / 2.0).sqrt()) }
}

/// The statistic that χ² with one degree of freedom exceeds with `probability`, which lies between
/// 0 and 1; at most [`STATISTIC_MAX`].
pub(super) fn quantile_one_degree(probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, STATISTIC_MAX);
    // Halved until the distance is below what an `f64` of this size can tell.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if tail_one_degree(middle) > probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Complementary error function for `x` ≥ 0.
fn erfc(x: f64) -> f64 {
    const FIT: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial =
        FIT.iter().rev().fold(0.0_f64, |sum, coefficient| sum.mul_add(t, *coefficient));
    t * (-x * x + polynomial).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles of χ² with one degree of freedom.
    const TABLE: [(f64, f64); 5] =
        [(0.0, 1.0), (0.454_936, 0.5), (3.841_459, 0.05), (6.634_897, 0.01), (23.928_127, 1e-6)];

    #[test]
    fn agrees_with_tables() {
        for (statistic, probability) in TABLE {
            let relative = tail_one_degree(statistic) / probability - 1.0;
            assert!(relative.abs() < 1e-5, "{statistic}: {relative}");
        }
    }

    #[test]
    fn the_inverse_agrees_with_tables_and_ends() {
        for (statistic, probability) in TABLE {
            let quantile = quantile_one_degree(probability);
            assert!((quantile - statistic).abs() < 1e-4, "{probability}: {quantile}");
        }
        assert!(quantile_one_degree(1e-300) > 1_300.0);
        assert!(quantile_one_degree(0.0) <= STATISTIC_MAX);
    }
}
