//! What marks of packets say of their tap: cut, in a segment that is not known, missing from the
//! mirror's own numbers.
//!
//! In: headers. Out: counts of the tap.
//! Cost: only packets with such a mark come here.
//! Invariants: a number that comes after all was no gap.

use crate::counters::TapTotals;
use crate::decode::{Headers, Marks};

/// Steps of a mirror's sequence, forwards or back, that are loss or reordering; beyond, the mirror
/// was started again.
const SEQUENCE_STEP_MAX: u32 = 1 << 16;

/// Counts what a packet's marks say on its tap.
pub(super) fn note(tap: &mut TapTotals, last_sequence: &mut Option<u32>, headers: &Headers) {
    tap.snapped += u64::from(headers.marks.has(Marks::SNAPPED));
    tap.segment_unmapped += u64::from(headers.marks.has(Marks::SEGMENT_UNMAPPED));
    if headers.marks.has(Marks::MIRROR_SEQUENCE) {
        tap.sequenced += 1;
        note_sequence(tap, last_sequence, headers.mirror_sequence);
    }
}

/// Numbers that are passed over are gaps, until they come after all.
fn note_sequence(tap: &mut TapTotals, last_sequence: &mut Option<u32>, sequence: u32) {
    let last = *last_sequence.get_or_insert(sequence);
    let (ahead, behind) = (sequence.wrapping_sub(last), last.wrapping_sub(sequence));
    if (1..SEQUENCE_STEP_MAX).contains(&behind) {
        tap.mirror_gaps = tap.mirror_gaps.saturating_sub(1);
        return;
    }
    if (1..SEQUENCE_STEP_MAX).contains(&ahead) {
        tap.mirror_gaps += u64::from(ahead - 1);
    }
    *last_sequence = Some(sequence);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_a_mirror_sequence() {
        for (sequences, gaps) in [
            (&[1, 2, 3][..], 0),
            (&[1, 4, 5], 2),
            (&[4, 6, 5, 7], 0),
            (&[3_000_000_000, 0, 1], 0),
            (&[u32::MAX, 0, 2], 1),
            (&[5, 5], 0),
        ] {
            let (mut tap, mut last) = (TapTotals::default(), None);
            for sequence in sequences {
                note_sequence(&mut tap, &mut last, *sequence);
            }
            assert_eq!(tap.mirror_gaps, gaps, "{sequences:?}");
        }
    }
}
