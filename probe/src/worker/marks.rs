//! What marks of packets say of their tap.
//!
//! In: packets with a mark. Out: counts of the tap.
//! Cost: none for packets without.
//! Invariants: numbers of a mirror that are passed over are gaps until they come after all.
//! Source: sequence numbers, draft-foschiano-erspan-03 section 4.1; RFC 2890 section 2.2.

use crate::capture::Source;
use crate::counters::TapTotals;
use crate::decode::{Headers, Marks};

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

impl<S: Source> Worker<S> {
    #[cold]
    pub(super) fn note_marks(&mut self, headers: &Headers) {
        self.tell_quoted(headers);
        let place = usize::from(headers.tap.0);
        if let (Some(tap), Some(last)) =
            (self.taps.get_mut(place), self.mirror_sequences.get_mut(place))
        {
            note_marks(tap, last, headers);
        }
    }
}

fn note_marks(tap: &mut TapTotals, last_sequence: &mut Option<u32>, headers: &Headers) {
    tap.snapped += u64::from(headers.marks.has(Marks::SNAPPED));
    tap.segment_unmapped += u64::from(headers.marks.has(Marks::SEGMENT_UNMAPPED));
    if let Some(options) = headers.tap_options() {
        tap.cloud_packets += 1;
        tap.cloud_endpoint = options.endpoint;
        tap.cloud_attachment = options.attachment;
    }
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
