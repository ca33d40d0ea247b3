//! A segment that is not plain: first ones, repeated acknowledgements, gaps, closed windows.
//!
//! In: the segment and both endpoints' state. Out: events; what is in doubt goes into the trouble.
//! Cost: a few hundred instructions at most; loops over [`super::doubt::DOUBTS_MAX`] ranges.
//! Invariants: numbers that jump by more than [`LEAP_OCTETS`] move nothing.
//! Source: duplicate acknowledgement, RFC 5681 section 2; D-SACK, RFC 2883 section 4; keep-alives,
//! RFC 9293 section 3.8.4; window probes, section 3.8.6.1.

use crate::decode::tcp_flag;

use super::doubt::Doubt;
use super::flow::{acknowledged, forward, stamps};
use super::half::{Half, RoundTrip, mark};
use super::loss::Judge;
use super::orderly::completes;
use super::sequence::{Range, distance, later, reaches};
use super::trouble::{Trouble, state};
use super::{Event, Segment, Sink};

/// A hole, or an acknowledgement ahead of all data, that is larger than any window can be
/// (RFC 7323 section 2.3: 2³⁰) is no loss but another stream, or nonsense.
pub(super) const LEAP_OCTETS: i32 = 1 << 30;

/// One segment's turn.
pub(super) struct Turn<'a, S> {
    pub(super) segment: &'a Segment,
    /// Of the endpoint that sent it.
    pub(super) mine: &'a mut Half,
    /// Of the one that it was sent to.
    pub(super) theirs: &'a mut Half,
    pub(super) mine_trouble: &'a mut Trouble,
    pub(super) theirs_trouble: &'a mut Trouble,
    pub(super) trip: RoundTrip,
    /// What comes later than this after its place is no reordering.
    pub(super) reorder_ns: u64,
    /// Whether the trouble is remembered.
    pub(super) keeps: bool,
    pub(super) sink: &'a mut S,
}

impl<S: Sink> Turn<'_, S> {
    pub(super) fn take(&mut self) {
        let flags = self.segment.flags;
        if flags & tcp_flag::RST != 0 {
            return self.reset();
        }
        if flags & tcp_flag::SYN != 0 {
            return self.syn();
        }
        if flags & tcp_flag::ACK != 0 {
            self.acknowledgement();
        }
        stamps(self.mine, self.theirs, self.segment, self.segment.sender, self.sink);
        self.octets();
        if flags & tcp_flag::FIN != 0 {
            self.mine.marks |= mark::FIN;
        } else {
            self.window();
        }
    }

    /// Whether the segment has FIN.
    pub(super) const fn fin(&self) -> bool {
        self.segment.flags & tcp_flag::FIN != 0
    }

    pub(super) fn event(&mut self, event: Event) {
        self.sink.event(event, self.segment.sender);
    }

    /// What is judged of the octets of the segment's sender.
    pub(super) fn judge(&self) -> Judge {
        Judge::of(self.mine, self.segment.sender)
    }

    fn acknowledgement(&mut self) {
        let acknowledgement = self.segment.acknowledgement;
        if !self.mine.has(mark::ACKED) {
            return self.first_acknowledgement();
        }
        let advance = distance(self.mine.acked, acknowledgement);
        if !(0..LEAP_OCTETS).contains(&advance) {
            return;
        }
        if advance > 0 && self.is_ahead_of_all_data() {
            return;
        }
        self.sack();
        if advance == 0 {
            return self.repeated_acknowledgement();
        }
        self.mine.acked = acknowledgement;
        self.mine.ends_repeated_acks();
        acknowledged(self.mine, self.theirs, self.segment, self.segment.sender, self.sink);
        self.needless_repeats();
        self.theirs_trouble.doubts.acknowledged(acknowledgement, self.segment.at);
        self.theirs_trouble.acknowledged(acknowledgement);
    }

    /// An acknowledgement of octets that were not seen. Whether it is nonsense.
    fn is_ahead_of_all_data(&mut self) -> bool {
        let acknowledgement = self.segment.acknowledgement;
        if !self.theirs.has(mark::SEEN) {
            // That direction does not come by here: nothing can be said of it.
            self.theirs.next = acknowledgement;
            return false;
        }
        let ahead = distance(self.theirs.next, acknowledgement);
        if ahead <= 0 {
            return false;
        }
        if ahead == 1 && self.theirs.has(mark::PROBED) {
            // The octet of a window probe was taken.
            self.theirs.next = acknowledgement;
        } else if ahead >= LEAP_OCTETS {
            return true;
        } else if !self.theirs_trouble.has(state::BEYOND) {
            self.theirs_trouble.marks |= state::BEYOND;
            self.theirs_trouble.beyond_since = self.segment.at;
        }
        false
    }

    fn needless_repeats(&mut self) {
        let acknowledgement = self.segment.acknowledgement;
        let echo = self.segment.options.timestamps.map(|times| times.echo);
        // Half of the shortest time: that one is a sample like others, and may be long.
        let least_ns = u64::from(self.mine.rtt_least_us) * 500;
        let sooner_than = self.segment.at - least_ns;
        let doubts = &mut self.theirs_trouble.doubts;
        while doubts.take_needless(acknowledgement, echo, sooner_than).is_some() {
            self.sink.event(Event::Spurious, self.segment.sender.other());
        }
    }

    fn sack(&mut self) {
        if let Some(duplicate) = self.segment.options.duplicate
            && self.theirs_trouble.doubts.in_vain(duplicate)
        {
            self.sink.event(Event::Spurious, self.segment.sender.other());
        }
        let Some(sacked) = self.segment.options.sacked else { return };
        if !reaches(self.theirs.next, sacked.end) || reaches(self.mine.acked, sacked.end) {
            return;
        }
        let trouble = &mut *self.theirs_trouble;
        let until = if trouble.has(state::SACKED) { trouble.sacked_until } else { sacked.end };
        trouble.sacked_until = later(until, sacked.end);
        trouble.marks |= state::SACKED;
        trouble.doubts.sacked(sacked, self.segment.at);
    }

    /// RFC 5681: no payload, no SYN or FIN, the same acknowledgement and window, data on its way.
    fn repeated_acknowledgement(&mut self) {
        let is_pure = self.segment.payload_octets == 0
            && !self.fin()
            && self.segment.sequence == self.mine.next;
        let same_window =
            self.segment.window == self.mine.window && !self.mine.has(mark::WINDOW_PLAIN);
        let on_its_way =
            !self.theirs.has(mark::SEEN) || distance(self.mine.acked, self.theirs.next) > 0;
        if is_pure && same_window && on_its_way && self.segment.window != 0 {
            self.mine.repeats_ack();
            self.event(Event::DuplicateAck);
        }
    }

    fn octets(&mut self) {
        let Segment { sequence, payload_octets, .. } = *self.segment;
        let span = payload_octets.saturating_add(u32::from(self.fin()));
        if !self.mine.has(mark::SEEN) {
            return self.first_octets(span);
        }
        let step = distance(self.mine.next, sequence);
        if payload_octets <= 1 && !self.fin() && self.is_probe(step) {
            return;
        }
        self.mine.marks &= !mark::PROBED;
        if !self.mine.has(mark::SYN) && payload_octets != 0 {
            self.mine.takes_segment_octets(payload_octets);
        }
        if self.mine.has(mark::UNSEEN) {
            self.mine.marks &= !mark::UNSEEN;
            if step == 0 {
                self.event(Event::Gap);
            }
        }
        // What begins with the octet of a probe is new but for that.
        if step == -1 && payload_octets > 1 {
            return forward(self.mine, self.theirs, self.segment, span, self.sink);
        }
        if step > 0 {
            self.gap(step);
        }
        if span == 0 {
            return;
        }
        if step >= 0 {
            forward(self.mine, self.theirs, self.segment, span, self.sink);
        } else {
            self.old(span);
        }
    }

    fn first_octets(&mut self, span: u32) {
        self.mine.marks |= mark::SEEN;
        let Segment { sequence, at, tap, payload_octets, .. } = *self.segment;
        self.mine.moves_to(sequence.wrapping_add(span), (at, tap), payload_octets);
        self.mine.time(at);
        if self.segment.payload_octets != 0 {
            self.mine.marks |= mark::ASKED;
            self.theirs.marks &= !mark::ASKED;
        }
    }

    /// A keep-alive repeats the last octet, or none, one below the next; a window probe does the
    /// same, or sends the next one octet, against a window of 0.
    fn is_probe(&mut self, step: i32) -> bool {
        let closed = self.theirs.has(mark::CLOSED_WINDOW);
        let below = step == -1;
        let next_one = step == 0 && self.segment.payload_octets == 1 && closed;
        if below || next_one {
            self.mine.marks |= mark::PROBED;
            self.event(if closed { Event::WindowProbe } else { Event::KeepAlive });
        }
        below || next_one
    }

    /// Octets before the segment were not seen.
    fn gap(&mut self, step: i32) {
        let begin = self.mine.next;
        let end = self.segment.sequence;
        self.event(Event::Gap);
        self.mine.moves_to(end, (self.segment.at, self.segment.tap), 0);
        self.mine.marks &= !(mark::TIMED | mark::ASKED);
        self.theirs.marks &= !mark::ASKED;
        let mut from = begin;
        if self.mine_trouble.has(state::BEYOND) {
            self.mine_trouble.marks &= !state::BEYOND;
            // The receiver said before that it has the first part.
            let until = if reaches(end, self.theirs.acked) { self.theirs.acked } else { end };
            let range = Range { begin, end: until };
            let hole = Doubt::hole(range, self.mine_trouble.beyond_since);
            self.doubt(Doubt { acked: true, ..hole });
            from = later(begin, until);
        }
        if step < LEAP_OCTETS {
            self.doubt(Doubt::hole(Range { begin: from, end }, self.segment.at));
        }
    }

    /// Adds a hole; the one that makes room for it is decided.
    fn doubt(&mut self, doubt: Doubt) {
        if doubt.range.is_empty() {
            return;
        }
        let judge = self.judge();
        if let Some(oldest) = self.mine_trouble.doubts.push(doubt) {
            judge.decide(&oldest, self.sink);
        }
        if self.keeps {
            self.mine.marks |= mark::TROUBLE;
        }
    }

    /// A window of 0, or its end.
    fn window(&mut self) {
        let is_newest = self.mine.acked == self.segment.acknowledgement;
        if self.segment.window == 0 {
            self.event(Event::ZeroWindow);
            if is_newest && !self.mine.has(mark::CLOSED_WINDOW) {
                self.mine.marks |= mark::CLOSED_WINDOW;
                self.mine_trouble.closed_since = self.segment.at;
            }
        } else if self.mine.has(mark::CLOSED_WINDOW) && is_newest {
            self.mine.marks &= !mark::CLOSED_WINDOW;
            if self.keeps {
                let ns = self.segment.at.since_ns(self.mine_trouble.closed_since);
                self.sink.stalled(self.segment.sender, ns);
            }
        }
        if is_newest {
            self.mine.window = self.segment.window;
            self.mine.marks &= !mark::WINDOW_PLAIN;
        }
    }

    /// The first acknowledgement of an endpoint that sent no SYN-ACK: the third segment of a
    /// handshake, or the middle of something.
    fn first_acknowledgement(&mut self) {
        self.mine.marks |= mark::ACKED;
        self.mine.acked = self.segment.acknowledgement;
        if !self.theirs.has(mark::SEEN) {
            self.theirs.next = self.segment.acknowledgement;
            return;
        }
        completes(self.mine, self.theirs, self.segment, self.sink);
    }
}
