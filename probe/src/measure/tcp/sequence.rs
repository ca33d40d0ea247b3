//! Sequence numbers: a circle of 2³² octets.
//!
//! In: two numbers. Out: their distance, or the part that two ranges share.
//! Cost: one subtraction a comparison.
//! Invariants: what is less than half the circle ahead is later.
//! Source: RFC 9293 section 3.4; serial numbers as in RFC 1982.

/// Octets from `from` forward to `to`; negative if `to` lies behind.
#[inline]
pub(super) const fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

/// Whether `sequence` is `limit` or later.
#[inline]
pub(super) const fn reaches(sequence: u32, limit: u32) -> bool {
    distance(limit, sequence) >= 0
}

/// The later of two numbers.
#[inline]
pub(super) const fn later(a: u32, b: u32) -> u32 {
    if reaches(a, b) { a } else { b }
}

/// Octets from `begin` up to `end`, not including it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First octet.
    pub begin: u32,
    /// The octet behind the last one.
    pub end: u32,
}

impl Range {
    /// Whether nothing is in it; so are ranges that end before they begin.
    #[inline]
    pub const fn is_empty(self) -> bool {
        distance(self.begin, self.end) <= 0
    }

    /// Octets in it.
    #[inline]
    pub const fn octets(self) -> u32 {
        if self.is_empty() { 0 } else { self.end.wrapping_sub(self.begin) }
    }

    /// What is in both.
    #[inline]
    #[must_use]
    pub const fn shared(self, other: Self) -> Self {
        let end = if reaches(self.end, other.end) { other.end } else { self.end };
        Self { begin: later(self.begin, other.begin), end }
    }

    /// Whether all of `other` is in it.
    #[inline]
    pub const fn holds(self, other: Self) -> bool {
        reaches(other.begin, self.begin) && reaches(self.end, other.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(begin: u32, end: u32) -> Range {
        Range { begin, end }
    }

    #[test]
    fn the_circle_closes() {
        assert_eq!(distance(u32::MAX, 1), 2);
        assert_eq!(distance(1, u32::MAX), -2);
        assert!(reaches(0, u32::MAX) && !reaches(u32::MAX, 0) && reaches(7, 7));
        assert_eq!(later(5, u32::MAX - 5), 5);
    }

    #[test]
    fn ranges_share_across_the_end() {
        let ring = range(u32::MAX - 9, 10);
        assert_eq!(ring.octets(), 20);
        assert_eq!(ring.shared(range(u32::MAX, 5)), range(u32::MAX, 5));
        assert!(ring.holds(range(0, 10)) && !ring.holds(range(0, 11)));
        assert_eq!(ring.shared(range(10, 20)).octets(), 0);
        assert!(range(3, 3).is_empty() && range(4, 3).is_empty());
    }
}
