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
use crate::window::Row;

use super::super::expiry::{Marks, Timeouts};
use super::super::output::FlowOutput;
use super::super::state::Flow;
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
        booking: (WindowNumber, bool),
        output: &mut impl FlowOutput,
        speech: impl FnOnce() -> Speech<'a>,
    ) {
        self.count_known(guess, brief, booking, output, Some(speech));
    }

    /// The same where no payload is listened to.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each packet of a settled flow goes this way")]
    pub fn count_settled_unheard(
        &mut self,
        guess: Guess,
        brief: &Brief,
        booking: (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        debug_assert!(!self.recognises && !self.transactions, "payload is to be listened to");
        self.count_known(guess, brief, booking, output, None::<fn() -> Speech<'static>>);
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "that nothing is heard is known where it is called")]
    fn count_known<'a>(
        &mut self,
        guess: Guess,
        brief: &Brief,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
        speech: Option<impl FnOnce() -> Speech<'a>>,
    ) {
        let share = Share::of_brief(brief);
        let index = guess.index();
        let Some(flow) = self.table.guessed_mut(guess) else { return };
        // Where its newest row is of another window, a row of this one may stand there by now, another
        // flow's: a line that nobody has fetched.
        let row =
            if flow.may_be_in(window) { output.open_row(flow.row, window, index) } else { None };
        let Some(row) = row.filter(|row| row.has_room(share.sender, share.octets)) else {
            self.begin_settled_row(index, brief, (window, late), output);
            if let Some(speech) = speech {
                self.hear_settled(index, brief, window, output, speech);
            }
            return;
        };
        row.count(share.sender, share.octets, late);
        let went_round = flow.count(share.sender, share.octets, (share.at, share.clock));
        // Each of these is seldom, so that the loop is spared what is done then.
        if tcp::changes_settled(flow, brief.sender, brief.tcp_flags) {
            change_settled((flow, row), brief, &mut self.marks, &self.timeouts);
        }
        let speech = speech.filter(|_| flow.listens_to(brief.sender) && brief.has_payload);
        if went_round {
            self.carry_octets(index, brief.sender);
        }
        if let Some(speech) = speech {
            self.hear_settled(index, brief, window, output, speech);
        }
    }

    /// What is more than counts of such a packet, after it was counted in its row. `went_round`: the octets of
    /// the flow did.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "most of its caller")]
    pub(super) fn look_at_counted<'a>(
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
        if tcp::changes_settled(flow, brief.sender, brief.tcp_flags)
            && let Some(row) = output.open_row(flow.row, window, index)
        {
            change_settled((flow, row), brief, &mut self.marks, &self.timeouts);
        }
        if speaks {
            self.hear_and_tell(index, &speech(), (true, window), output);
        }
    }

    /// Begins a row with such a packet.
    #[inline(never)]
    fn begin_settled_row(
        &mut self,
        index: FlowIndex,
        brief: &Brief,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let share = Share::of_brief(brief);
        self.begin_row(index, share, (window, late), output);
        self.count(index, share);
        let flow = self.table.flow_mut(index);
        if tcp::changes_settled(flow, brief.sender, brief.tcp_flags)
            && let Some(row) = output.open_row(flow.row, window, index)
        {
            change_settled((flow, row), brief, &mut self.marks, &self.timeouts);
        }
    }

    /// Listens to what such a packet carries, if its sender is listened to.
    #[inline(never)]
    fn hear_settled<'a>(
        &mut self,
        index: FlowIndex,
        brief: &Brief,
        window: WindowNumber,
        output: &mut impl FlowOutput,
        speech: impl FnOnce() -> Speech<'a>,
    ) {
        if self.table.flow(index).listens_to(brief.sender) && brief.has_payload {
            self.hear_and_tell(index, &speech(), (true, window), output);
        }
    }
}

/// A segment that ends its connection, or completes its handshake.
#[inline(never)]
fn change_settled(
    (flow, row): (&mut Flow, &mut Row),
    brief: &Brief,
    marks: &mut Marks,
    timeouts: &Timeouts,
) {
    let events = flow.events;
    tcp::settled_segment(flow, brief.sender, brief.tcp_flags);
    if flow.tcp.is_over() {
        marks.set(row.flow(), flow, timeouts, brief.clock);
    }
    row.tell(flow.events & !events, flow.application);
}
