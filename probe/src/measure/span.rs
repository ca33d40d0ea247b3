//! Times in 32 bits.
//!
//! In: spans in ns. Out: the same, in four bytes.
//! Cost: one compare; a division above 2.1 s.
//! Invariants: exact below 2³¹ ns (2.1 s); above it off by half a microsecond at most; above 2³¹ µs
//! (36 minutes) all are the largest.
//! Source: none.

/// Spans from here on are kept in microseconds.
const MICROSECONDS: u32 = 1 << 31;

/// No span.
const NONE: u32 = u32::MAX;

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(u32);

impl Span {
    /// No span.
    pub const NONE: Self = Self(NONE);

    /// Of so many nanoseconds.
    #[inline]
    pub fn of_ns(ns: u64) -> Self {
        match u32::try_from(ns) {
            Ok(ns) if ns < MICROSECONDS => Self(ns),
            _ => Self::long(ns),
        }
    }

    #[cold]
    fn long(ns: u64) -> Self {
        let us = (ns.saturating_add(500) / 1000).min(u64::from(NONE - 1 - MICROSECONDS));
        Self(u32::try_from(us).map_or(NONE - 1, |us| us | MICROSECONDS))
    }

    /// In nanoseconds; `None` for none.
    #[inline]
    pub const fn ns(self) -> Option<u64> {
        match self.0 {
            NONE => None,
            ns if ns < MICROSECONDS => Some(ns as u64),
            us => Some((us & !MICROSECONDS) as u64 * 1000),
        }
    }

    /// As a number, for [`Span::of_bits`].
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From [`Span::bits`].
    #[inline]
    pub const fn of_bits(bits: u32) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_spans_are_exact_and_long_ones_to_half_a_microsecond() {
        for ns in [0, 1, (1 << 31) - 1] {
            assert_eq!(Span::of_ns(ns).ns(), Some(ns));
        }
        for ns in [1 << 31, 3_000_000_499, 3_000_000_500, 2_000_000_000_000] {
            let kept = Span::of_ns(ns).ns().expect("a span");
            assert!(kept.abs_diff(ns) <= 500, "{ns} {kept}");
        }
        let most = Span::of_ns(u64::MAX).ns().expect("a span");
        assert!(most > 2_147_000_000_000 && Span::NONE.ns().is_none());
    }
}
