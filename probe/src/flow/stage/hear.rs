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
use super::FlowStage;

impl FlowStage {
    /// Looks at payload. `counts`: the packet is no copy.
    #[inline(never)]
    pub(super) fn hear(
        &mut self,
        index: FlowIndex,
        speech: &Speech<'_>,
        counts: bool,
        output: &mut impl FlowOutput,
    ) {
        let transactions = self.transactions;
        let flow = self.table.flow_mut(index);
        if flow.application == Application::Unknown {
            flow.note_looked_at();
            flow.application = app::classify(&speech.words);
        }
        let looked_at = flow.looked_at_packets();
        let next = app::listen(flow.application, &speech.words, looked_at, transactions);
        flow.set_listening(speech.sender, next.goes_on);
        if let Some(listens) = next.to_other {
            flow.set_listening(speech.sender.other(), listens);
        }
        if next.takes && counts {
            output.said(&self.excerpt(index, speech), speech.payload);
        }
    }

    /// The same for a packet of a settled flow.
    #[inline(never)]
    pub(super) fn hear_settled(
        &mut self,
        index: FlowIndex,
        speech: &Speech<'_>,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow(index);
        let (events, application) = (flow.events, flow.application);
        self.hear(index, speech, true, output);
        if self.table.flow(index).application != application {
            self.tell_row(index, window, events, output);
        }
    }

    fn excerpt(&self, index: FlowIndex, speech: &Speech<'_>) -> Excerpt {
        let flow = self.table.flow(index);
        let initiator = flow.initiator();
        let both = [self.side(index, Sender::Low), self.side(index, Sender::High)];
        let (there, _) = sides(&both, initiator);
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
}
