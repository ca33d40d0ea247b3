//! Payload of flows that are listened to.
//!
//! In: what a packet says, on a flow that listens to its sender. Out: the flow's application; excerpts of
//! messages that transactions are told by.
//! Cost: nothing for flows that listen to nobody; some comparisons for others, and a copy of what is taken.
//! Invariants: what is not logically sent (a copy) is recognised, but never taken.
//! Source: none.

use crate::app::{self, Application, Excerpt, Speech};
use crate::index::{FlowIndex, Sender, WindowNumber};
use crate::window::sides;

use super::super::output::FlowOutput;
use super::super::sides::Side;
use super::FlowStage;

impl FlowStage {
    /// Looks at payload. `counts`: the packet is no copy. Whether the application is known by it.
    #[inline]
    fn hear(
        &mut self,
        index: FlowIndex,
        speech: &Speech<'_>,
        counts: bool,
        output: &mut impl FlowOutput,
    ) -> bool {
        let transactions = self.transactions;
        let flow = self.table.flow_mut(index);
        let was_unknown = flow.application == Application::Unknown;
        if was_unknown {
            flow.note_looked_at();
            flow.application = app::classify(&speech.words);
            // Then its sender is listened to as before.
            let goes_on = flow.looked_at_packets() < app::PACKETS_MAX;
            if flow.application == Application::Unknown && goes_on {
                return false;
            }
        }
        let looked_at = flow.looked_at_packets();
        let next = app::listen(flow.application, &speech.words, looked_at, transactions);
        flow.set_listening(speech.sender, next.goes_on);
        if let Some(listens) = next.to_other {
            flow.set_listening(speech.sender.other(), listens);
        }
        let is_recognised = was_unknown && flow.application != Application::Unknown;
        if next.takes && counts {
            self.take(index, speech, output);
        }
        is_recognised
    }

    /// The same, and what was recognised is told in the row of `window`.
    #[inline(never)]
    pub(super) fn hear_and_tell(
        &mut self,
        index: FlowIndex,
        speech: &Speech<'_>,
        (counts, window): (bool, WindowNumber),
        output: &mut impl FlowOutput,
    ) {
        if self.hear(index, speech, counts, output) {
            self.tell_application(index, window, output);
        }
    }

    /// Writes into the row that the application is known.
    #[cold]
    fn tell_application(
        &mut self,
        index: FlowIndex,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow(index);
        if let Some(row) = output.open_row(flow.row, window, index) {
            row.application = flow.application;
        }
    }

    #[inline(never)]
    fn take(&self, index: FlowIndex, speech: &Speech<'_>, output: &mut impl FlowOutput) {
        output.said(&self.excerpt(index, speech), speech.payload);
    }

    #[inline]
    fn excerpt(&self, index: FlowIndex, speech: &Speech<'_>) -> Excerpt {
        let flow = self.table.flow(index);
        let initiator = flow.initiator();
        // Where the directions are not apart, each is the other turned, seen or not.
        let there = if flow.is_apart() { self.there_apart(index) } else { flow.side(initiator) };
        Excerpt {
            key: flow.identity.key,
            initiator,
            first_seen: self.table.rest(index).first_seen,
            segment: there.segment,
            stations: [there.source_mac, there.destination_mac],
            tap: flow.tap(),
            application: flow.application,
            sender: speech.sender,
            at: speech.at,
            sequence: speech.sequence,
            payload_octets: speech.words.payload_octets,
            octets: 0,
        }
    }

    /// The initiator's side.
    #[cold]
    fn there_apart(&self, index: FlowIndex) -> Side {
        let both = [self.side(index, Sender::Low), self.side(index, Sender::High)];
        let (there, _) = sides(&both, self.table.flow(index).initiator());
        there
    }
}
