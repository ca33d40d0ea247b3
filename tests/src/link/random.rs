//! Chance as a function: what is drawn for a frame depends on its number and on nothing before it.
//!
//! In: seed, stream, number. Out: 64 bits.
//! Cost: a few multiplications.
//! Invariants: one stream says nothing of another, so a mirror's losses are apart from the link's.
//! Source: SplitMix64 (Steele, Lea and Flood 2014), its mixing step applied to each word.

/// What is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream(pub(super) u64);

/// 64 bits for the `number`-th draw of a stream.
pub(super) fn draw(seed: u64, stream: Stream, number: u64) -> u64 {
    let of_stream = mix(seed.wrapping_add(stream.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    mix(of_stream.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A number in `0..limit`; 0 where `limit` is 0.
pub(super) fn below(bits: u64, limit: u64) -> u64 {
    let wide = u128::from(bits) * u128::from(limit);
    u64::try_from(wide >> 64).unwrap_or(0)
}

const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_as_asked_and_streams_are_apart() {
        let hits = |stream| -> Vec<bool> {
            (0..100_000).map(|number| below(draw(7, stream, number), 100) < 10).collect()
        };
        let (one, other) = (hits(Stream(1)), hits(Stream(2)));
        let count = |hits: &[bool]| hits.iter().filter(|hit| **hit).count();
        // Ten percent of 100,000 within five standard deviations.
        assert!((9_500..=10_500).contains(&count(&one)), "{}", count(&one));
        assert!((9_500..=10_500).contains(&count(&other)), "{}", count(&other));
        let both = one.iter().zip(&other).filter(|(one, other)| **one && **other).count();
        assert!((840..=1_160).contains(&both), "{both} of 1,000 expected together");
        assert_eq!(below(u64::MAX, 0), 0);
    }
}
