//! What marks of packets say of their tap.
//!
//! In: packets with a mark. Out: counts of the tap.
//! Cost: none for packets without.
//! Invariants: a count never goes down: a number that a mirror passed over is a gap when it has not come
//! after all while [`HELD_NUMBERS`] later ones did.
//! Source: sequence numbers, draft-foschiano-erspan-03 section 4.1; RFC 2890 section 2.2.

use crate::capture::Source;
use crate::counters::TapTotals;
use crate::decode::{Brief, Headers, Marks};
use crate::index::TapIndex;

use super::Worker;

/// Marks that are counted on the tap.
pub(super) const NOTED_MARKS: u16 = Marks::SNAPPED.0
    | Marks::SEGMENT_UNMAPPED.0
    | Marks::MIRROR_SEQUENCE.0
    | Marks::ICMP_ERROR.0
    | Marks::TAP_OPTIONS.0;

/// Steps of a mirror's sequence, forwards or back, that are loss or reordering; beyond, the mirror
/// was started again.
const SEQUENCE_STEP_MAX: u32 = 1 << 16;

/// Numbers behind the last one that may still come.
const HELD_NUMBERS: u32 = u64::BITS;

/// How far the numbers of a mirror have come.
#[derive(Clone, Copy, Debug)]
pub(super) struct MirrorSequence {
    last: u32,
    /// Of the numbers before the last one, from the lowest bit backwards, those that did not come yet.
    missing: u64,
}

impl<S: Source> Worker<S> {
    #[cold]
    pub(super) fn note_marks(&mut self, headers: &Headers) {
        self.tell_quoted(headers);
        if let Some(tap) = self.taps.get_mut(usize::from(headers.tap.0)) {
            note_marks(tap, headers);
        }
        if headers.marks.has(Marks::MIRROR_SEQUENCE) {
            self.note_number(headers.tap, headers.mirror_sequence);
        }
    }

    /// Notes the number that its mirror gave a packet in brief.
    #[inline]
    pub(super) fn note_sequence(&mut self, brief: &Brief) {
        if let Some(number) = brief.sequence() {
            self.note_number(brief.tap, number);
        }
    }

    /// Notes that a mirror gave this number to a packet of a tap.
    #[inline]
    fn note_number(&mut self, tap: TapIndex, number: u32) {
        let place = usize::from(tap.0);
        if let (Some(tap), Some(sequence)) =
            (self.taps.get_mut(place), self.mirror_sequences.get_mut(place))
        {
            tap.sequenced += 1;
            let known = sequence.get_or_insert(MirrorSequence { last: number, missing: 0 });
            tap.mirror_gaps += known.note(number);
        }
    }

    /// Nothing will come any more: numbers that did not come are gaps.
    pub(super) fn end_mirror_sequences(&mut self) {
        for (tap, sequence) in self.taps.iter_mut().zip(&mut self.mirror_sequences) {
            if let Some(sequence) = sequence.take() {
                tap.mirror_gaps += sequence.end();
            }
        }
    }
}

fn note_marks(tap: &mut TapTotals, headers: &Headers) {
    tap.snapped += u64::from(headers.marks.has(Marks::SNAPPED));
    tap.segment_unmapped += u64::from(headers.marks.has(Marks::SEGMENT_UNMAPPED));
    if let Some(options) = headers.tap_options() {
        tap.cloud_packets += 1;
        tap.cloud_endpoint = options.endpoint;
        tap.cloud_attachment = options.attachment;
    }
}

impl MirrorSequence {
    /// A number has come; how many of those before it are gaps by that.
    fn note(&mut self, number: u32) -> u64 {
        let (ahead, behind) = (number.wrapping_sub(self.last), self.last.wrapping_sub(number));
        if ahead == 1 && self.missing == 0 {
            self.last = number;
            return 0;
        }
        if (1..SEQUENCE_STEP_MAX).contains(&behind) {
            let bit = 1_u64.checked_shl(behind - 1).unwrap_or(0);
            self.missing &= !bit;
            return 0;
        }
        if ahead >= SEQUENCE_STEP_MAX {
            return std::mem::replace(self, Self { last: number, missing: 0 }).end();
        }
        if ahead == 0 {
            return 0;
        }
        let passed_over = ahead - 1;
        let held = passed_over.min(HELD_NUMBERS);
        let before = self.missing.count_ones();
        let kept = self.missing.checked_shl(ahead).unwrap_or(0);
        let fresh = u64::MAX.checked_shr(HELD_NUMBERS - held).unwrap_or(0);
        *self = Self { last: number, missing: kept | fresh };
        u64::from(before - kept.count_ones() + passed_over - held)
    }

    /// Those that did not come, when nothing will any more.
    fn end(self) -> u64 {
        self.missing.count_ones().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gaps after each number, and at the end.
    fn gaps(numbers: &[u32]) -> (Vec<u64>, u64) {
        let mut sequence = MirrorSequence { last: numbers[0], missing: 0 };
        let mut sum = 0;
        let mut so_far = |number: &u32| {
            sum += sequence.note(*number);
            sum
        };
        let after_each = numbers.iter().map(&mut so_far).collect();
        (after_each, sum + sequence.end())
    }

    #[test]
    fn gaps_of_a_mirror_sequence() {
        for (numbers, expected) in [
            (&[1, 2, 3][..], 0),
            (&[1, 4, 5], 2),
            (&[4, 6, 5, 7], 0),
            (&[3_000_000_000, 0, 1], 0),
            (&[1, 4, 3_000_000_000, 3_000_000_002], 3),
            (&[u32::MAX, 0, 2], 1),
            (&[5, 5], 0),
            (&[1, 66], 64),
            (&[1, 67, 2], 65),
            (&[1, 67, 3], 64),
            (&[1, 300, 301], 298),
        ] {
            assert_eq!(gaps(numbers).1, expected, "{numbers:?}");
        }
    }

    /// Windows tell differences: what was told as a gap must not be taken back.
    #[test]
    fn a_number_that_comes_late_is_no_gap_that_is_taken_back() {
        let mut numbers: Vec<u32> = (0..1_000).filter(|number| number % 97 != 5).collect();
        let lost = 1_000 - numbers.len() as u64;
        for part in numbers[1..].chunks_mut(30) {
            part.reverse();
        }
        let (after_each, at_end) = gaps(&numbers);
        assert!(after_each.is_sorted(), "{after_each:?}");
        assert_eq!(at_end, lost);
    }
}
