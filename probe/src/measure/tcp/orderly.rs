//! Handshakes and endings as they should be: both SYN, the third segment, and FIN in order.
//!
//! In: segments of a flow without trouble that are not plain. Out: what [`super::rare`] would give.
//! Cost: some 100 instructions, a third of what a segment takes that may be anything.
//! Invariants: nothing has changed unless it says that it took the segment; what it takes changes
//! the flow as [`TcpFlow::not_plain`] does (a property test compares them).
//! Source: RFC 9293 sections 3.5 and 3.6.

use crate::decode::tcp_flag;

use super::flow::{NOT_PLAIN_MINE, NOT_PLAIN_THEIRS, TcpFlow, acknowledged, forward, pair, stamps};
use super::half::{Half, mark};
use super::opening::{OPENING, opens};
use super::rare::LEAP_OCTETS;
use super::sequence::{distance, reaches};
use super::{Method, SegmentFields, Sink};

impl TcpFlow {
    /// Takes the segment if it is the first SYN of its sender, the first acknowledgement of who sent
    /// one, or a FIN in order, in a flow without trouble. Otherwise nothing has changed.
    #[inline]
    pub fn orderly(&mut self, segment: &impl SegmentFields, sink: &mut impl Sink) -> bool {
        let (mine, theirs) = pair(&mut self.halves, segment.sender());
        if is_first_syn(mine, theirs, segment) {
            opens(mine, theirs, segment, sink);
            return true;
        }
        self.goes_on_orderly(segment, sink)
    }

    /// The same of a segment that is no SYN.
    #[inline]
    pub fn goes_on_orderly(&mut self, segment: &impl SegmentFields, sink: &mut impl Sink) -> bool {
        let (mine, theirs) = pair(&mut self.halves, segment.sender());
        let is_orderly = is_orderly(mine, theirs, segment);
        if is_orderly {
            take(mine, theirs, segment, sink);
        }
        is_orderly
    }
}

fn is_first_syn(mine: &Half, theirs: &Half, segment: &impl SegmentFields) -> bool {
    segment.flags() & OPENING == tcp_flag::SYN
        && !mine.has(mark::SEEN)
        && (mine.marks | theirs.marks) & NOT_PLAIN_THEIRS == 0
}

fn is_orderly(mine: &Half, theirs: &Half, segment: &impl SegmentFields) -> bool {
    let ends = segment.flags() & tcp_flag::FIN != 0;
    let advance = distance(mine.acked, segment.acknowledgement());
    segment.flags() & (OPENING | tcp_flag::ACK) == tcp_flag::ACK
        && segment.sequence() == mine.next
        && mine.marks & (mark::SEEN | NOT_PLAIN_MINE) == mark::SEEN
        && theirs.marks & (mark::SEEN | NOT_PLAIN_THEIRS) == mark::SEEN
        && reaches(theirs.next, segment.acknowledgement())
        && (!mine.has(mark::ACKED) || ends && (0..LEAP_OCTETS).contains(&advance))
        && segment.window() != 0
        && !segment.has_blocks()
}

#[inline]
fn take(mine: &mut Half, theirs: &mut Half, segment: &impl SegmentFields, sink: &mut impl Sink) {
    let ends = segment.flags() & tcp_flag::FIN != 0;
    if !mine.has(mark::ACKED) {
        mine.marks |= mark::ACKED;
        mine.acked = segment.acknowledgement();
        completes(mine, theirs, segment, sink);
    } else if segment.acknowledgement() != mine.acked {
        mine.acked = segment.acknowledgement();
        mine.ends_repeated_acks();
        acknowledged(mine, theirs, segment, segment.sender(), sink);
    }
    stamps(mine, theirs, segment, segment.sender(), sink);
    if !mine.has(mark::SYN) && segment.payload_octets() != 0 {
        mine.takes_segment_octets(segment.payload_octets());
    }
    let span = segment.payload_octets().saturating_add(u32::from(ends));
    if span != 0 {
        forward(mine, theirs, segment, span, sink);
    }
    if ends {
        mine.marks |= mark::FIN;
    } else {
        mine.window = segment.window();
        mine.marks &= !mark::WINDOW_PLAIN;
    }
}

/// The first acknowledgement of an endpoint: where it is the third segment of a handshake that
/// nothing was repeated of, it gives a time.
pub(super) fn completes(
    mine: &mut Half,
    theirs: &Half,
    segment: &impl SegmentFields,
    sink: &mut impl Sink,
) {
    let completes = theirs.has(mark::SYN | mark::RESPONDER)
        && mine.has(mark::SYN)
        && segment.acknowledgement() == theirs.next;
    if completes && !theirs.has(mark::SYN_AGAIN) && segment.at() >= theirs.next_at {
        let ns = segment.at().since_ns(theirs.next_at);
        mine.round_trip(ns);
        sink.delay(Method::HandshakeClient, segment.sender(), ns);
    }
}
