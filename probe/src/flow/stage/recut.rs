//! Segments that another tap showed before in other pieces, and that no digest knows for that.
//!
//! In: packets that are the first of their digest, before they count. Out: whether they are copies.
//! Cost: a packet that is known in brief two comparisons in lines that it needs anyway; payload of a flow
//! that is not settled a look-up more.
//! Invariants: nothing is changed; the answer hangs on the flow's packets alone.
//! Source: docs/measures.md, copies.

use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers, Marks, protocol};

use super::super::packet::BriefPacket;
use super::super::table::Guess;
use super::FlowStage;

impl FlowStage {
    /// Whether a packet of the settled flow that was guessed is to be asked about by
    /// [`FlowStage::is_recut`]. Hardly any is.
    #[inline]
    pub fn may_be_recut(&self, guess: Guess, brief: &Brief, fields: &Fields) -> bool {
        // What most packets are told by stands first.
        if !brief.has_payload || brief.protocol != protocol::TCP {
            return false;
        }
        let way = (brief.sender, brief.tap);
        self.measures.as_ref().is_some_and(|measures| {
            measures.may_be_recut(guess.index(), way, fields.tcp_sequence())
        })
    }

    /// The same of a packet of any flow, which may be another one than was guessed.
    #[inline]
    pub fn may_hold_shown(&self, guess: Guess, brief: &Brief, fields: &Fields) -> bool {
        if !brief.has_payload || brief.protocol != protocol::TCP {
            return false;
        }
        let Some(measures) = &self.measures else { return false };
        let packet = BriefPacket { brief, sequence: fields };
        let way = (brief.sender, brief.tap);
        let flow = self.table.find(&packet, guess);
        flow.is_some_and(|index| measures.may_be_recut(index, way, fields.tcp_sequence()))
    }

    /// Whether the packet is a TCP segment that holds what another tap showed in other pieces.
    #[inline]
    pub fn is_recut(&self, headers: &Headers, guess: Guess) -> bool {
        headers.protocol == protocol::TCP
            && headers.payload_octets != 0
            && !headers.marks.has(Marks::FRAGMENT)
            && self.holds_what_was_shown(headers, guess)
    }

    fn holds_what_was_shown(&self, headers: &Headers, guess: Guess) -> bool {
        let Some(measures) = &self.measures else { return false };
        let Some(index) = self.table.find(headers, guess) else { return false };
        let way = (headers.sender, headers.tap);
        measures.may_be_recut(index, way, headers.tcp_sequence)
            && self.timeouts.over(self.table.flow(index), headers.clock).is_none()
            && measures.is_recut(index, &self.table.rest(index).beside, headers)
    }
}
