//! State of one flow, and the way of a segment in order.
//!
//! In: segments, in the order of their receive times. Out: what a [`Sink`] takes.
//! Cost: 128 bytes a flow. A segment in order, or a new acknowledgement, takes [`TcpFlow::plain`]:
//! two cache lines, some 80 instructions, no loop.
//! Invariants: `plain` changes nothing unless it says that it took the segment.
//! Source: RFC 9293 section 3.4 (numbers), RFC 7323 (timestamps, window scale).

use crate::decode::tcp_flag;
use crate::index::Sender;
use crate::time::Timestamp;

use super::half::{Half, RoundTrip, mark};
use super::loss::{self, Judge};
use super::opening::OPENING;
use super::rare::Turn;
use super::sequence::{distance, reaches};
use super::trouble::Rare;
use super::{Event, Method, Segment, SegmentFields, Sink, Terms};

/// Flags of which a plain segment has ACK alone.
const PLAIN_FLAGS: u16 = tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST | tcp_flag::ACK;

/// What either endpoint may have on it without a segment's being plain no longer.
pub(super) const NOT_PLAIN_MINE: u16 =
    mark::TROUBLE | mark::PROBED | mark::CLOSED_WINDOW | mark::UNSEEN;
pub(super) const NOT_PLAIN_THEIRS: u16 = mark::TROUBLE | mark::CLOSED_WINDOW;

/// One TCP connection, as seen at one place.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TcpFlow {
    pub(super) halves: [Half; 2],
}

const _: () = assert!(size_of::<TcpFlow>() == 128, "two cache lines a flow");

impl TcpFlow {
    /// Takes a segment, whatever it is. `rare` lends the flow's rare state; it is asked for only
    /// where the flow has some, or needs some now (see [`TcpFlow::keeps_rare`]). A flow for which
    /// there is none is measured without: its losses are not stated.
    #[inline]
    pub fn segment<'r>(
        &mut self,
        segment: &Segment,
        rare: impl FnOnce() -> Option<&'r mut Rare>,
        terms: &Terms,
        sink: &mut impl Sink,
    ) {
        if !self.plain(segment, sink) && !self.orderly(segment, sink) {
            let rare = if self.asks_rare(segment) { rare() } else { None };
            self.not_plain(segment, rare, terms, sink);
        }
    }

    /// Takes the segment if it is data in order, or a new acknowledgement, in a flow without
    /// trouble. Otherwise nothing has changed.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see `take_plain`")]
    pub fn plain(&mut self, segment: &impl SegmentFields, sink: &mut impl Sink) -> bool {
        let is_plain = self.is_plain(segment);
        if is_plain {
            self.take_plain(segment, sink);
        }
        is_plain
    }

    /// Whether [`TcpFlow::plain`] would take the segment.
    #[inline]
    pub fn is_plain(&self, segment: &impl SegmentFields) -> bool {
        let [low, high] = &self.halves;
        let (mine, theirs) = match segment.sender() {
            Sender::Low => (low, high),
            Sender::High => (high, low),
        };
        let advance = distance(mine.acked, segment.acknowledgement());
        segment.flags() & PLAIN_FLAGS == tcp_flag::ACK
            && segment.sequence() == mine.next
            && mine.marks & (mark::SEEN | mark::ACKED | NOT_PLAIN_MINE)
                == (mark::SEEN | mark::ACKED)
            && theirs.marks & NOT_PLAIN_THEIRS == 0
            && (reaches(theirs.next, segment.acknowledgement()) || !theirs.has(mark::SEEN))
            && (advance > 0 || advance == 0 && segment.payload_octets() != 0)
            && segment.window() != 0
            && !segment.has_blocks()
    }

    /// Takes a segment for which [`TcpFlow::is_plain`] holds now.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "most segments go this way and no other")]
    pub fn take_plain(&mut self, segment: &impl SegmentFields, sink: &mut impl Sink) {
        let (mine, theirs) = pair(&mut self.halves, segment.sender());
        let advance = distance(mine.acked, segment.acknowledgement());
        let far = segment.sender();
        if advance > 0 {
            mine.acked = segment.acknowledgement();
            mine.ends_repeated_acks();
            if !theirs.has(mark::SEEN) {
                // That direction does not come by here: what it sent is known by this alone.
                theirs.next = segment.acknowledgement();
            }
            acknowledged(mine, theirs, segment, far, sink);
        }
        stamps(mine, theirs, segment, far, sink);
        if segment.payload_octets() != 0 {
            forward(mine, theirs, segment, segment.payload_octets(), sink);
        }
        mine.window = segment.window();
        mine.marks &= !mark::WINDOW_PLAIN;
    }

    /// Whether the flow has rare state, which the caller keeps for it. Where it has none any more
    /// the caller may give the entry to another flow, after [`Rare::default`].
    #[inline]
    pub const fn keeps_rare(&self) -> bool {
        (self.halves[0].marks | self.halves[1].marks) & mark::TROUBLE != 0
    }

    /// Whether this segment, which is not plain, needs rare state.
    pub fn asks_rare(&self, segment: &Segment) -> bool {
        let (mine, theirs) = match segment.sender {
            Sender::Low => (&self.halves[0], &self.halves[1]),
            Sender::High => (&self.halves[1], &self.halves[0]),
        };
        self.keeps_rare()
            || segment.flags & OPENING == 0
                && mine.has(mark::SEEN)
                && (segment.sequence != mine.next
                    || segment.window == 0
                    || segment.options.sacked.is_some()
                    || theirs.has(mark::SEEN) && !reaches(theirs.next, segment.acknowledgement))
    }

    /// Takes a segment that is not plain. Without `rare` nothing is remembered of its trouble.
    #[cold]
    #[inline(never)]
    pub fn not_plain(
        &mut self,
        segment: &Segment,
        rare: Option<&mut Rare>,
        terms: &Terms,
        sink: &mut impl Sink,
    ) {
        let mut none;
        let keeps = rare.is_some();
        let rare = match rare {
            Some(rare) if self.keeps_rare() => rare,
            Some(rare) => {
                *rare = Rare::NONE;
                rare
            }
            None => {
                none = Rare::NONE;
                &mut none
            }
        };
        self.settle(rare, segment.at, terms, sink);
        let (mine, theirs) = pair(&mut self.halves, segment.sender);
        let (mine_trouble, theirs_trouble) = rare.pair(segment.sender);
        let trip = RoundTrip::of(mine, theirs);
        let mut turn = Turn {
            segment,
            mine,
            theirs,
            mine_trouble,
            theirs_trouble,
            reorder_ns: trip.least_ns.unwrap_or(terms.reorder_ns),
            trip,
            keeps,
            sink,
        };
        turn.take();
        self.mark_trouble(rare, keeps);
    }

    fn mark_trouble(&mut self, rare: &mut Rare, keeps: bool) {
        for sender in [Sender::Low, Sender::High] {
            let (half, _) = pair(&mut self.halves, sender);
            let (trouble, _) = rare.pair(sender);
            if keeps && trouble.is_open(half) {
                half.marks |= mark::TROUBLE;
            } else {
                half.marks &= !mark::TROUBLE;
            }
        }
    }

    /// Decides what is due at `now`. To be called when a flow with rare state was silent for long,
    /// as when a window closes; each segment does it too.
    pub fn settle(&mut self, rare: &mut Rare, now: Timestamp, terms: &Terms, sink: &mut impl Sink) {
        if !self.keeps_rare() {
            return;
        }
        for sender in [Sender::Low, Sender::High] {
            let (half, acker) = pair(&mut self.halves, sender);
            let (trouble, _) = rare.pair(sender);
            let judge = Judge::of(half, sender);
            let reorder_ns = RoundTrip::of(half, acker).least_ns.unwrap_or(terms.reorder_ns);
            loss::settle(half, trouble, acker, judge, (now, reorder_ns, terms), sink);
        }
        self.mark_trouble(rare, true);
    }

    /// Decides everything that is open: the flow is over at `now`.
    pub fn end(&mut self, rare: &mut Rare, now: Timestamp, sink: &mut impl Sink) {
        if !self.keeps_rare() {
            return;
        }
        for sender in [Sender::Low, Sender::High] {
            let (half, acker) = pair(&mut self.halves, sender);
            let (trouble, _) = rare.pair(sender);
            if half.has(mark::CLOSED_WINDOW) {
                sink.stalled(sender, now.since_ns(trouble.closed_since));
                half.marks &= !mark::CLOSED_WINDOW;
            }
            loss::settle_all(half, trouble, acker, Judge::of(half, sender), sink);
            half.marks &= !mark::TROUBLE;
        }
    }
}

/// What is kept of `sender`, and of the other.
#[inline]
pub(super) const fn pair(halves: &mut [Half; 2], sender: Sender) -> (&mut Half, &mut Half) {
    let [low, high] = halves;
    match sender {
        Sender::Low => (low, high),
        Sender::High => (high, low),
    }
}

/// `mine` acknowledges more of what `theirs` sent.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a part of `TcpFlow::take_plain`")]
pub(super) fn acknowledged(
    mine: &mut Half,
    theirs: &mut Half,
    segment: &impl SegmentFields,
    far: Sender,
    sink: &mut impl Sink,
) {
    if let Some(ns) = theirs.timed(segment.acknowledgement(), segment.at()) {
        mine.round_trip(ns);
        sink.delay(Method::SequenceAck, far, ns);
    }
}

/// Timestamps: the echo of theirs, and our own clock.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a part of `TcpFlow::take_plain`")]
pub(super) fn stamps(
    mine: &mut Half,
    theirs: &mut Half,
    segment: &impl SegmentFields,
    far: Sender,
    sink: &mut impl Sink,
) {
    let Some(times) = segment.timestamps() else { return };
    if let Some(ns) = theirs.echoed(times.echo, segment.at()) {
        mine.round_trip(ns);
        sink.delay(Method::TcpTimestamp, far, ns);
    }
    let asks = segment.payload_octets() != 0 || segment.flags() & tcp_flag::FIN != 0;
    mine.stamp(times, asks, segment.at());
}

/// New octets: `span` of them, payload and FIN, from the next one expected on.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a part of `TcpFlow::take_plain`")]
pub(super) fn forward(
    mine: &mut Half,
    theirs: &mut Half,
    segment: &impl SegmentFields,
    span: u32,
    sink: &mut impl Sink,
) {
    let end = segment.sequence().wrapping_add(span);
    mine.moves_to(end, (segment.at(), segment.tap()), segment.payload_octets());
    mine.time(segment.at());
    if segment.payload_octets() == 0 {
        return;
    }
    if theirs.has(mark::ASKED) {
        theirs.marks &= !mark::ASKED;
        if segment.acknowledgement() == theirs.next && segment.at() >= theirs.next_at {
            let ns = segment.at().since_ns(theirs.next_at);
            sink.delay(Method::Response, segment.sender(), ns);
        }
    }
    mine.marks |= mark::ASKED;
    if theirs.window_edge() == Some(end) && segment.flags() & tcp_flag::FIN == 0 {
        sink.event(Event::WindowFull, segment.sender());
    }
}
