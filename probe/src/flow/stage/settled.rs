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
use super::super::tcp;
use super::{FlowStage, Share};

impl FlowStage {
    /// Whether the flow that was guessed is the packet's, and settled.
    #[inline]
    pub fn is_settled(&self, brief: &Brief, guess: Guess) -> bool {
        self.table.guessed(guess).is_some_and(|flow| {
            flow.identity.key.is_of_brief(brief)
                && brief.goes_on()
                && flow.is_settled_for(brief.sender)
                && flow.stands_between(&brief.stations, brief.sender, brief.segment)
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
        let share = Share::of_brief(brief);
        let index = guess.index();
        let Some(flow) = self.table.guessed_mut(guess) else { return };
        let row = output.open_row(flow.row, window, index);
        let Some(row) = row.filter(|row| row.has_room(share.sender, share.octets)) else {
            self.begin_row(index, share, (window, late), output);
            self.count(index, share);
            self.look_at_settled((index, false), brief, window, output, speech);
            return;
        };
        row.count(share.sender, share.octets, late);
        let went_round = flow.count(share.sender, share.octets, (share.at, share.clock));
        // Each of these is seldom, so that the loop is spared what is done then.
        if went_round
            || tcp::changes_settled(flow, brief.sender, brief.tcp_flags)
            || (flow.listens_to(brief.sender) && brief.has_payload)
        {
            self.look_at_settled((index, went_round), brief, window, output, speech);
        }
    }

    /// The same once more for what is more than counts. `went_round`: the octets of the flow did.
    #[inline(never)]
    fn look_at_settled<'a>(
        &mut self,
        (index, went_round): (FlowIndex, bool),
        brief: &Brief,
        window: WindowNumber,
        output: &mut impl FlowOutput,
        speech: impl FnOnce() -> Speech<'a>,
    ) {
        if went_round {
            self.carry_octets(index, brief.sender);
        }
        let flow = self.table.flow_mut(index);
        let speaks = flow.listens_to(brief.sender) && brief.has_payload;
        if tcp::changes_settled(flow, brief.sender, brief.tcp_flags) {
            self.change_settled(index, brief, window, output);
        }
        if speaks {
            self.hear_and_tell(index, &speech(), (true, window), output);
        }
    }

    /// A segment that ends its connection, or completes its handshake.
    #[inline]
    fn change_settled(
        &mut self,
        index: FlowIndex,
        brief: &Brief,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow_mut(index);
        let events = flow.events;
        tcp::settled_segment(flow, brief.sender, brief.tcp_flags);
        if flow.tcp.is_over() {
            self.marks.set(index, flow, &self.timeouts, brief.clock);
        }
        if flow.events != events {
            self.tell_row(index, window, events, output);
        }
    }
}
