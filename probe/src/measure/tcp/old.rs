//! Octets below the next one expected: late, repeated, or both.
//!
//! In: a segment that begins before what was seen last ends. Out: out-of-order or retransmission,
//! its class, holes filled, repeats in doubt.
//! Cost: loops over [`super::doubt::DOUBTS_MAX`] ranges.
//! Invariants: each such segment with payload or FIN is counted once, as one or the other; a hole
//! that is filled within a round trip is no loss.
//! Source: RFC 5681 section 3.2 and RFC 6675 section 4 (fast), RFC 6298 section 5 (timeout), RFC
//! 8985 section 7 (tail), RFC 2883 and 3522 (spurious).

use super::doubt::{Doubt, Kind};
use super::flow::forward;
use super::half::mark;
use super::rare::Turn;
use super::sequence::{Range, distance, reaches};
use super::trouble::state;
use super::{Cause, Event, Segment, Sink};

/// Duplicate acknowledgements after which a sender repeats (RFC 5681 section 3.2).
const DUPLICATES_MIN: u8 = 3;

/// Segments' worth of octets that must be SACKed above one for it to count as lost (RFC 6675).
const SACKED_SEGMENTS: u32 = 2;

impl<S: Sink> Turn<'_, S> {
    /// A segment with `span` octets, some or all of which were due before.
    pub(super) fn old(&mut self, span: u32) {
        let begin = self.segment.sequence;
        let end = begin.wrapping_add(span);
        let next = self.mine.next;
        let adds = distance(next, end) > 0;
        let due = Range { begin, end: if adds { next } else { end } };
        let unseen_octets = self.mine_trouble.doubts.unseen_octets(due);
        let in_time = self.is_in_time(due);
        if unseen_octets == due.octets() && in_time {
            self.event(Event::OutOfOrder);
            self.fill(due, None);
        } else if !self.remembers() && self.looks_late(end) {
            self.event(Event::OutOfOrder);
        } else {
            self.repeated(due, unseen_octets);
            self.fill(due, (!in_time).then_some(Cause::NetworkUpstream));
        }
        if adds {
            forward(self.mine, self.theirs, self.segment, span, self.sink);
            // Its acknowledgement may be that of the octets that came before.
            self.mine.marks &= !mark::TIMED;
        }
    }

    /// Whether holes are remembered, and all octets so far can be: without a SYN what came before
    /// the first segment seen is not known.
    fn remembers(&self) -> bool {
        self.keeps && (self.mine.has(mark::SYN) || self.trip.least_ns.is_some())
    }

    /// Whether the holes in `due` are so new that nobody can have noticed and repeated them. Where
    /// the round trip is only guessed, that it was asked for counts more.
    fn is_in_time(&self, due: Range) -> bool {
        if self.trip.least_ns.is_none() && self.is_asked_for(due) {
            return false;
        }
        let noticed = self.mine_trouble.doubts.noticed(due);
        noticed.is_some_and(|noticed| self.segment.at.since_ns(noticed) < self.reorder_ns)
    }

    /// The same guess without memory of holes, as tshark makes it: soon after the latest segment,
    /// and not that one again.
    fn looks_late(&self, end: u32) -> bool {
        let soon = self.segment.at.since_ns(self.mine.next_at) < self.reorder_ns;
        soon && end != self.mine.next && self.theirs.duplicate_acks() < DUPLICATES_MIN
    }

    /// Closes holes; with a cause their octets were lost.
    fn fill(&mut self, due: Range, cause: Option<Cause>) {
        let judge = self.judge();
        while let Some((cut, no_room)) = self.mine_trouble.doubts.fill(due) {
            match cause {
                // The receiver had it before: its copy was lost, and now it came once more.
                Some(_) if cut.acked => judge.lost(Cause::Mirror, &cut, 1, self.sink),
                Some(cause) => judge.lost(cause, &cut, 1, self.sink),
                None => {}
            }
            if let Some(hole) = no_room {
                judge.decide(&hole, self.sink);
            }
        }
    }

    /// A retransmission: counts it, names its class, and doubts what it repeats.
    fn repeated(&mut self, due: Range, unseen_octets: u32) {
        self.event(Event::Retransmission);
        let class = self.class(due);
        if let Some(class) = class {
            self.event(class);
        }
        let seen = unseen_octets < due.octets();
        let has_all = self.theirs.has(mark::ACKED) && reaches(self.theirs.acked, due.end);
        if seen && has_all {
            self.event(Event::Spurious);
        } else if seen && self.has_reason(class) {
            self.doubt_repeat(due);
        }
        self.begin_episode(class);
        self.mine_trouble.repeated_at = self.segment.at;
        self.mine.marks &= !(mark::TIMED | mark::ASKED);
    }

    /// Whether the receiver asked for just this by duplicate acknowledgements.
    fn is_asked_for(&self, due: Range) -> bool {
        self.theirs.duplicate_acks() >= DUPLICATES_MIN && due.begin == self.theirs.acked
    }

    fn class(&self, due: Range) -> Option<Event> {
        let trouble = &*self.mine_trouble;
        let last = self.mine.next_at.max(trouble.repeated_at);
        let silent_ns = self.segment.at.since_ns(last);
        if silent_ns >= self.trip.timeout_ns {
            return Some(Event::Timeout);
        }
        let above = distance(due.begin, trouble.sacked_until);
        let enough = SACKED_SEGMENTS * self.mine.segment_octets();
        let holed = trouble.has(state::SACKED) && above > 0 && above.cast_unsigned() > enough;
        if self.is_asked_for(due) || holed || trouble.has(state::EPISODE | state::FAST) {
            return Some(Event::Fast);
        }
        if trouble.has(state::EPISODE | state::TIMER) {
            return Some(Event::Timeout);
        }
        let is_tail = due.end == self.mine.next && silent_ns >= self.reorder_ns;
        (is_tail && self.theirs.duplicate_acks() == 0).then_some(Event::Tail)
    }

    /// Whether the sender can have had a reason to repeat. What comes twice without any is a
    /// duplicate that the network or the mirror made, and no sign of a loss.
    fn has_reason(&self, class: Option<Event>) -> bool {
        let waited = self.segment.at.since_ns(self.mine.next_at) >= self.reorder_ns;
        class.is_some() || waited || !self.theirs.has(mark::SEEN)
    }

    fn doubt_repeat(&mut self, due: Range) {
        let Segment { at, options, .. } = *self.segment;
        let repeat = Doubt {
            // When it was sent before is not kept for each octet: a round trip ago, at least.
            at: (at - self.reorder_ns).min(self.mine.next_at),
            since: at,
            range: due,
            stamp: options.timestamps.map_or(0, |times| times.value),
            kind: Kind::Repeat,
            acked: false,
            times: 1,
        };
        let judge = self.judge();
        if let Some(oldest) = self.mine_trouble.doubts.repeated(repeat) {
            judge.decide(&oldest, self.sink);
        }
    }

    fn begin_episode(&mut self, class: Option<Event>) {
        let trouble = &mut *self.mine_trouble;
        if !trouble.has(state::EPISODE) {
            trouble.marks |= state::EPISODE;
            trouble.recover = self.mine.next;
            self.sink.event(Event::Episode, self.segment.sender);
        }
        match class {
            Some(Event::Fast) => trouble.marks |= state::FAST,
            Some(Event::Timeout) => {
                trouble.marks = trouble.marks & !state::FAST | state::TIMER;
            }
            _ => {}
        }
    }
}
