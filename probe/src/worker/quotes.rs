//! What ICMP errors say of other flows, to the worker that owns them.
//!
//! In: ICMP errors as they are received. Out: a count on the flow that is quoted.
//! Cost: none for other packets; for an error one look-up more, and a place in a ring.
//! Invariants: a quote is no packet: it is in no count of the ledger. Copies of an error count once,
//! by the rule of copies; an error that is filtered or shed tells nothing. What finds no room in a
//! ring is counted.
//! Source: RFC 792; RFC 4443 section 2.4.

use crate::capture::Source;
use crate::copies::Verdict;
use crate::decode::Headers;
use crate::spread::{name_flow, owner};

use super::Worker;

impl<S: Source> Worker<S> {
    /// Tells the owner of the flow that an ICMP error quotes, if the packet is one.
    pub(super) fn tell_quoted(&mut self, headers: &Headers) {
        let Some(mut quoted) = headers.quoted() else { return };
        let left_out =
            self.parts.filters.matches(headers) || !self.parts.shedder.keeps(headers.hash);
        if left_out {
            return;
        }
        name_flow(&mut quoted, self.parts.seed);
        let to = owner(quoted.hash, self.parts.workers);
        if self.outgoing_closed || (to == self.parts.place && self.parts.receivers == 1) {
            self.take_quote(&quoted);
        } else {
            self.pass_quote(to, &quoted);
        }
    }

    /// Counts the error on the flow, unless it is a copy of one before.
    pub(super) fn take_quote(&mut self, quoted: &Headers) {
        let ahead = self.look_ahead(quoted);
        let copies = self.parts.copies.as_mut();
        let verdict = copies.map_or(Verdict::First, |copies| {
            copies.classify((quoted.tap, quoted.timestamp), &ahead.digest)
        });
        let is_copy = matches!(verdict, Verdict::Duplicate | Verdict::OtherTap { .. });
        if !(is_copy && self.parts.remove_copies) {
            self.parts.flows.note_icmp_error(quoted, ahead.guess);
        }
    }

    fn pass_quote(&mut self, to: usize, quoted: &Headers) {
        while !self.parts.outgoing[to].push(quoted) {
            if !self.parts.waits || self.blocked {
                self.totals.icmp_quotes_lost += 1;
                return;
            }
            self.publish(quoted.clock);
            self.in_hand_packets += 1;
            self.wait_for_room();
            self.in_hand_packets -= 1;
        }
    }
}
