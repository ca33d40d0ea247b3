//! Packets that go on with what their flow has done before.
//!
//! In: [`Brief`]s. Out: the same rows and counts that [`FlowStage::meter`] would give.
//! Cost: the flow's two lines and its row's first; some 80 instructions.
//! Invariants: what is counted here `meter` would have counted in the same way; a flow is settled
//! for a sender only as `meter` left it, and what is not settled is not touched.
//! Source: ARCHITECTURE.md, "Settled flows".

use crate::app::Speech;
use crate::decode::Brief;
use crate::index::{FlowIndex, WindowNumber};

use super::super::output::FlowOutput;
use super::super::table::Guess;
use super::super::{TcpState, tcp};
use super::{FlowStage, Share};

impl FlowStage {
    /// Whether the flow that was guessed is the packet's, and settled.
    #[inline]
    pub fn is_settled(&self, brief: &Brief, guess: Guess) -> bool {
        self.table.guessed(guess).is_some_and(|flow| {
            flow.identity.key.is_of_brief(brief)
                && brief.goes_on()
                && flow.is_settled_for(brief.sender)
                && flow.stands_between(brief.stations, brief.sender, brief.segment)
                && !self.timeouts.may_be_over(flow, brief.clock)
        })
    }

    /// Counts a logical packet of the flow that was guessed in `window`, after
    /// [`FlowStage::is_settled`] with nothing in between. `speech` tells its payload, where that is
    /// wanted.
    #[inline]
    pub fn count_settled<'a>(
        &mut self,
        guess: Guess,
        brief: &Brief,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
        speech: impl FnOnce() -> Speech<'a>,
    ) {
        let share = Share {
            sender: brief.sender,
            octets: u32::from(brief.octets),
            at: brief.timestamp,
            clock: brief.clock,
        };
        let index = guess.index();
        self.add(index, share, (window, late), output);
        let flow = self.table.flow_mut(index);
        let changes = flow.tcp != TcpState::NotTcp
            && !tcp::is_plain(flow, brief.sender, u16::from(brief.tcp_flags));
        let speaks = brief.has_payload && flow.listens_to(brief.sender);
        if changes {
            self.change_settled(index, brief, window, output);
        }
        if speaks {
            self.hear_settled(index, &speech(), window, output);
        }
    }

    /// A segment that ends its connection, or completes its handshake.
    #[inline(never)]
    fn change_settled(
        &mut self,
        index: FlowIndex,
        brief: &Brief,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let events = self.table.flow(index).events;
        // Of a sender whose first segment was seen the number is known.
        let segment =
            tcp::Segment { flags: u16::from(brief.tcp_flags), sequence: 0, sender: brief.sender };
        self.segment(index, segment, brief.clock);
        if self.table.flow(index).events != events {
            self.tell_row(index, window, events, output);
        }
    }
}
