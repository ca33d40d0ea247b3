//! How connections begin and break off.
//!
//! In: SYN, SYN-ACK, RST. Out: handshake times, refused and reset connections, [`Opening`].
//! Cost: a SYN is not plain: some hundred instructions.
//! Invariants: a repeated SYN or SYN-ACK gives no time; a SYN with another number is another
//! connection, and begins anew.
//! Source: RFC 9293 section 3.5; RFC 7323 section 2 (the scale holds only if both SYNs have it);
//! Karn and Partridge 1987.

use crate::decode::tcp_flag;
use crate::index::Sender;

use super::flow::{TcpFlow, pair};
use super::half::{Half, SCALE_REFUSED, mark};
use super::loss;
use super::rare::Turn;
use super::{Event, Method, SegmentFields, Sink};

/// Flags of segments that begin a connection, or break it off.
pub(super) const OPENING: u16 = tcp_flag::SYN | tcp_flag::RST;

/// Octets that may have followed a SYN before it comes again; one with a number further off is
/// another connection's.
const BEHIND_OCTETS_MAX: u32 = 65_535;

/// A SYN is given up after that long: 127 s for six repeats (Linux `tcp_syn_retries`), rounded up.
const OPENING_NS_MAX: u64 = 130_000_000_000;

/// How far the opening of a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// No SYN was seen.
    Unseen,
    /// SYN, and no answer.
    Unanswered,
    /// SYN, answered by RST.
    Refused,
    /// SYN-ACK, and nothing more from the initiator.
    HalfOpen,
    /// All three.
    Open,
}

impl Opening {
    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::Unanswered => "unanswered",
            Self::Refused => "refused",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

impl TcpFlow {
    /// How far the opening came up to now.
    pub fn opening(&self) -> Opening {
        let responder = self.halves.iter().any(|half| half.has(mark::SYN | mark::RESPONDER));
        let initiator =
            self.halves.iter().find(|half| half.has(mark::SYN) && !half.has(mark::RESPONDER));
        let reset = self.halves.iter().any(|half| half.has(mark::RESET));
        match (initiator, responder) {
            (Some(initiator), _) if initiator.has(mark::ACKED) => Opening::Open,
            (_, true) => Opening::HalfOpen,
            (Some(_), false) if reset => Opening::Refused,
            (Some(_), false) => Opening::Unanswered,
            (None, false) => Opening::Unseen,
        }
    }

    /// Who sent the SYN that opened the connection, if that was seen.
    pub fn initiator(&mut self) -> Option<Sender> {
        [Sender::Low, Sender::High].into_iter().find(|sender| {
            let (mine, theirs) = pair(&mut self.halves, *sender);
            mine.has(mark::SYN) && !mine.has(mark::RESPONDER)
                || theirs.has(mark::SYN | mark::RESPONDER)
        })
    }
}

impl<S: Sink> Turn<'_, S> {
    pub(super) fn reset(&mut self) {
        self.event(Event::Reset);
        let asked = self.theirs.has(mark::SYN) && !self.theirs.has(mark::RESPONDER);
        let refuses = asked && !self.theirs.has(mark::ACKED) && !self.mine.has(mark::SEEN);
        if refuses && !self.mine.has(mark::RESET) {
            self.event(Event::Refused);
        }
        self.mine.marks |= mark::RESET;
    }

    pub(super) fn syn(&mut self) {
        if self.mine.has(mark::SEEN) {
            let end = end_of(self.segment);
            if self.is_again(end) {
                return self.syn_again(end);
            }
            self.begin_anew();
        }
        opens(self.mine, self.theirs, self.segment, self.sink);
    }

    /// Whether a SYN that ends at `end` is the one that came before. Who keeps no state (SYN
    /// cookies, RFC 4987 section 3.6) answers the same SYN again with another number.
    fn is_again(&self, end: u32) -> bool {
        if !self.mine.has(mark::SYN) {
            return false;
        }
        let is_answer = self.segment.flags & tcp_flag::ACK != 0;
        let same_answer = is_answer
            && self.mine.has(mark::RESPONDER)
            && self.mine.acked == self.segment.acknowledgement
            && self.segment.at.since_ns(self.mine.next_at) < OPENING_NS_MAX;
        same_answer || self.mine.next.wrapping_sub(end) <= BEHIND_OCTETS_MAX
    }

    fn syn_again(&mut self, end: u32) {
        if self.mine.next.wrapping_sub(end) > BEHIND_OCTETS_MAX {
            self.mine.next = end;
        }
        self.mine.marks |= mark::SYN_AGAIN;
        self.event(Event::Retransmission);
        self.event(Event::Timeout);
    }

    /// Another connection between the same ports: nothing of the one before holds.
    fn begin_anew(&mut self) {
        let judge = self.judge();
        loss::settle_all(self.mine, self.mine_trouble, self.theirs, judge, self.sink);
        *self.mine = Half::default();
        if self.segment.flags & tcp_flag::ACK == 0 {
            let judge = loss::Judge::of(self.theirs, self.segment.sender.other());
            loss::settle_all(self.theirs, self.theirs_trouble, self.mine, judge, self.sink);
            *self.theirs = Half::default();
        }
    }
}

/// The number behind a SYN and its payload.
fn end_of(segment: &impl SegmentFields) -> u32 {
    segment.sequence().wrapping_add(segment.payload_octets().saturating_add(1))
}

/// The first segment of an endpoint, a SYN.
pub(super) fn opens(
    mine: &mut Half,
    theirs: &mut Half,
    segment: &impl SegmentFields,
    sink: &mut impl Sink,
) {
    mine.marks |= mark::SEEN | mark::SYN | mark::WINDOW_PLAIN;
    mine.moves_to(end_of(segment), (segment.at(), segment.tap()), 0);
    mine.window = segment.window();
    options(mine, theirs, segment);
    if let Some(times) = segment.timestamps() {
        mine.stamp(times, false, segment.at());
    }
    if segment.flags() & tcp_flag::ACK != 0 {
        syn_ack(mine, theirs, segment, sink);
    }
}

fn syn_ack(mine: &mut Half, theirs: &mut Half, segment: &impl SegmentFields, sink: &mut impl Sink) {
    mine.marks |= mark::RESPONDER | mark::ACKED;
    mine.acked = segment.acknowledgement();
    let answers = theirs.has(mark::SYN) && segment.acknowledgement() == theirs.next;
    if !answers {
        if !theirs.has(mark::SEEN) {
            theirs.next = segment.acknowledgement();
        }
        return;
    }
    if !theirs.has(mark::SYN_AGAIN) && segment.at() >= theirs.next_at {
        let ns = segment.at().since_ns(theirs.next_at);
        mine.round_trip(ns);
        sink.delay(Method::HandshakeServer, segment.sender(), ns);
    }
}

/// What the SYN says of windows and segments.
fn options(mine: &mut Half, theirs: &mut Half, segment: &impl SegmentFields) {
    mine.set_window_scale(segment.window_scale().unwrap_or(SCALE_REFUSED));
    let both = [mine.window_scale(), theirs.window_scale()];
    if theirs.has(mark::SYN) && both.contains(&SCALE_REFUSED) {
        mine.set_window_scale(SCALE_REFUSED);
        theirs.set_window_scale(SCALE_REFUSED);
    }
    let said = segment.segment_octets_max();
    if said != 0 {
        for half in [mine, theirs] {
            let before = half.segment_octets_max;
            half.segment_octets_max = if before == 0 { said } else { before.min(said) };
        }
    }
}
