//! Where a delay belongs: 64 equal steps in each power of two.
//!
//! In: ns. Out: the number of a bucket, and its middle.
//! Cost: a count of leading zeros, two shifts.
//! Invariants: a bucket is at most 1/64 of its values wide, so its middle is off by at most 0.8 %;
//! below 64 ns each value has its own; what is larger than [`VALUE_NS_MAX`] counts as that.
//! Source: the log-linear scheme of HdrHistogram.

/// Powers of two with steps of their own: 64 ns to 137 s.
const OCTAVES: u32 = 31;

/// Bits of the steps in one power of two.
const STEP_BITS: u32 = 6;

const STEPS: u32 = 1 << STEP_BITS;

/// Number of buckets.
pub const BUCKETS: usize = ((OCTAVES + 1) * STEPS) as usize;

/// The largest delay that is told apart, in ns: 137 s.
pub const VALUE_NS_MAX: u64 = (1 << (STEP_BITS + OCTAVES)) - 1;

/// A bucket, or with `level` above 0 two, four, eight … neighbours as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) number: u16,
    pub(super) level: u8,
}

/// The bucket of a delay.
#[inline]
pub(super) fn of(ns: u64) -> u16 {
    let ns = ns.min(VALUE_NS_MAX);
    let octave = (64 - (ns | u64::from(STEPS - 1)).leading_zeros()) - STEP_BITS;
    let step = ns >> octave.saturating_sub(1);
    let first = u64::from(octave.saturating_sub(1) * STEPS);
    // Below 64 · 32, as the largest value shows.
    u16::try_from(first + step).unwrap_or(u16::MAX)
}

/// The first value of a bucket; that of the number behind the last is the end of the last.
const fn begin_ns(number: u32) -> u64 {
    if number < 2 * STEPS {
        return number as u64;
    }
    let octave = number / STEPS - 1;
    ((STEPS + number % STEPS) as u64) << octave
}

impl Bucket {
    pub(super) fn middle_ns(self) -> u64 {
        let first = u32::from(self.number) << self.level;
        let begin = begin_ns(first);
        let last = begin_ns(first + (1 << self.level)) - 1;
        begin + (last - begin) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(number: u16) -> Bucket {
        Bucket { number, level: 0 }
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for number in 0..u32::try_from(BUCKETS).expect("small") {
            let (begin, end) = (begin_ns(number), begin_ns(number + 1) - 1);
            assert!(end >= begin, "{number}");
            assert_eq!(u32::from(of(begin)), number, "{begin}");
            assert_eq!(u32::from(of(end)), number, "{end}");
        }
        assert_eq!(usize::from(of(u64::MAX)), BUCKETS - 1);
        assert_eq!(usize::from(of(VALUE_NS_MAX)), BUCKETS - 1);
        assert_eq!(begin_ns(u32::try_from(BUCKETS).expect("small")), VALUE_NS_MAX + 1);
    }

    #[test]
    fn the_middle_is_off_by_less_than_one_percent() {
        for ns in (1..40_000).chain((0..51).map(|n| 1_000_003 * (n * n * n + 1))) {
            let middle = exact(of(ns)).middle_ns();
            assert!(middle.abs_diff(ns) * 125 <= ns, "{ns} {middle}");
        }
    }
}
