//! Packets that are known in brief, of flows that are not settled: nobody reads their headers.
//!
//! In: [`Brief`]s, with their [`Fields`] where more than counts is wanted. Out: the same rows, counts and
//! measures that [`FlowStage::meter_frame`] gives.
//! Cost: some 250 instructions less than with headers, which nobody reads for it.
//! Invariants: such a packet is whole, stands in an Ethernet frame, and has no mark of what is rare; one that
//! is measured has no SACK blocks either.
//! Source: ARCHITECTURE.md, "Settled flows".

use crate::app::Speech;
use crate::decode::Brief;
use crate::decode::brief::Fields;
use crate::index::WindowNumber;

use super::super::output::FlowOutput;
use super::super::packet::BriefPacket;
use super::super::table::Guess;
use super::FlowStage;

impl FlowStage {
    /// Counts a packet where nothing else is wanted: `octets` are how it begins, from its IPv4 header on.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "called once, by who has nothing else to do")]
    pub fn meter_brief(
        &mut self,
        (brief, octets): (&Brief, &[u8]),
        guess: Guess,
        booking: (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        debug_assert!(!self.measures() && !self.recognises, "a brief is not enough");
        let packet = BriefPacket { brief, sequence: octets };
        let index = self.meter_packet(&packet, guess, booking, output);
        self.table.flow_mut(index).settle();
    }

    /// Counts a punctual packet and measures it: one that is no copy, and of which nobody but its flow has
    /// to know. `speech` tells its payload, where that is wanted.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "called once, where it is most of what is done")]
    pub fn meter_known<'a>(
        &mut self,
        guess: Guess,
        (brief, fields): (&Brief, &Fields),
        window: WindowNumber,
        output: &mut impl FlowOutput,
        speech: impl FnOnce() -> Speech<'a>,
    ) {
        let packet = BriefPacket { brief, sequence: fields };
        let index = self.meter_packet(&packet, guess, (window, false), output);
        let flow = self.table.flow_mut(index);
        flow.settle();
        if flow.listens_to(brief.sender) && brief.has_payload {
            self.hear_and_tell(index, &speech(), (true, window), output);
        }
        self.measure_known(index, (brief, fields), window, output);
    }
}
