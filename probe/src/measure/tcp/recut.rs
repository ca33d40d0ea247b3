//! Segments that hold again what another tap showed, in other pieces (GRO, TSO, a middlebox).
//!
//! In: a segment that no digest knows, before it counts. Out: whether it is a copy.
//! Cost: one byte an endpoint; a comparison of two numbers and one of taps, and a walk over
//! [`super::doubt::DOUBTS_MAX`] ranges for what passes these.
//! Invariants: what the tap that leads shows is never a copy, nor is a segment that fits a frame of 1,500
//! octets where nothing larger was seen; nothing is changed.
//! Source: docs/measures.md, copies; sequence numbers of one stream name its octets, RFC 9293
//! section 3.4; a repetition has a newer time stamp, RFC 7323 section 3.

use crate::index::{Sender, TapIndex};

use super::Segment;
use super::flow::TcpFlow;
use super::half::{FRAME_PAYLOAD_OCTETS_MAX, mark};
use super::opening::OPENING;
use super::rare::LEAP_OCTETS;
use super::sequence::{Range, distance};
use super::trouble::Rare;

impl TcpFlow {
    /// Whether a segment of `sender` at `tap` may be what [`TcpFlow::was_shown_in_other_pieces`]
    /// asks. Hardly any is.
    #[inline]
    pub fn may_be_recut(&self, sender: Sender, tap: TapIndex, sequence: u32) -> bool {
        let mine = &self.halves[sender.place()];
        mine.is_led_by_another(tap) && mine.has(mark::SEEN) && distance(sequence, mine.next) > 0
    }

    /// Whether most octets of the segment are such as another tap showed no more than `within_ns`
    /// ago, and nothing says that they were sent again. Never of a segment that the tap that leads
    /// would have shown as it is: what its digest does not find there, the mirror of that tap lost.
    /// `rare` is the flow's rare state, where it keeps some (see [`TcpFlow::keeps_rare`]).
    pub fn was_shown_in_other_pieces(
        &self,
        segment: &Segment,
        rare: Option<&Rare>,
        within_ns: u64,
    ) -> bool {
        let mine = &self.halves[segment.sender.place()];
        let begin = segment.sequence;
        let behind = distance(begin, mine.next);
        let is_recut_maybe = self.may_be_recut(segment.sender, segment.tap, begin)
            && segment.payload_octets != 0
            && segment.flags & OPENING == 0
            && behind < LEAP_OCTETS
            && (segment.payload_octets > FRAME_PAYLOAD_OCTETS_MAX || mine.is_cuttable())
            && segment.at.as_ns().abs_diff(mine.next_at.as_ns()) <= within_ns;
        if !is_recut_maybe || self.is_stamped_anew(segment) {
            return false;
        }
        let octets = behind.unsigned_abs().min(segment.payload_octets);
        let due = Range { begin, end: begin.wrapping_add(octets) };
        let unseen = rare.map_or(0, |rare| rare.of(segment.sender).doubts.unseen_octets(due));
        // A part that the other tap's mirror lost comes with it; the rest decides.
        octets.saturating_sub(unseen) > segment.payload_octets / 2
    }

    /// Whether the segment has a newer time stamp than any of its sender before.
    fn is_stamped_anew(&self, segment: &Segment) -> bool {
        let mine = &self.halves[segment.sender.place()];
        mine.has(mark::STAMP_SEEN)
            && segment
                .options
                .timestamps
                .is_some_and(|times| distance(mine.stamp_last, times.value) > 0)
    }
}
