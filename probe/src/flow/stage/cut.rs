//! Rows of windows and records of flows, from the state of a flow.
//!
//! In: flows whose first packet of a window came, or whose life ends. Out: [`Row`]s and
//! [`Ending`]s.
//! Cost: one copy of a flow's lines.
//! Invariants: each packet is counted in one row and in one record.
//! Source: record of a biflow, RFC 5103 §2; flow expiration, RFC 5470 §5.1.1.

use crate::decode::Headers;
use crate::index::{FlowIndex, Sender, TapIndex, WindowNumber};
use crate::time::Timestamp;
use crate::window::{Ends, Row};

use super::super::output::{FlowOutput, Measured};
use super::super::sides::NOWHERE;
use super::super::state::second_of;
use super::super::table::Guess;
use super::super::{EndReason, TcpState};
use super::FlowStage;

/// A record is made when a direction has counted so many packets.
const RECORD_PACKETS_MAX: u32 = 1 << 31;

/// So long a silence is not told by seconds of 16 bits.
const SECONDS_MAX_NS: u64 = 30_000 * 1_000_000_000;

impl FlowStage {
    /// The ends of the row that was just begun, where the directions are apart.
    #[cold]
    pub(super) fn tell_ends(
        &self,
        index: FlowIndex,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        if let Some(row) = output.open_row(self.table.flow(index).row, window, index) {
            row.complete(self.ends_apart(index), row.tap);
        }
    }

    /// A row of the flow as it is, that counts nothing, not even the flow.
    pub(super) fn row_of_nothing(&self, index: FlowIndex) -> Row {
        let mut row = Row::default();
        row.begin(&self.table.flow(index).beginning(index));
        if self.table.flow(index).is_apart() {
            row.complete(self.ends_apart(index), row.tap);
        }
        row
    }

    /// A packet that `counted` was the first to show was seen nearer to its sender: what that tap is named
    /// for is this one's, in the row of `window` too, if it is open.
    #[cold]
    pub fn note_nearer_tap(
        &mut self,
        headers: &Headers,
        guess: Guess,
        (counted, window): (TapIndex, WindowNumber),
        output: &mut impl FlowOutput,
    ) {
        let Some(index) = self.table.find(headers, guess) else { return };
        let flow = self.table.flow_mut(index);
        let is_named = flow.has_seen(headers.sender);
        if !is_named || flow.identity.taps[headers.sender.place()] != counted {
            return;
        }
        flow.set_tap(headers.sender, headers.tap);
        if flow.may_be_in(window)
            && let Some(row) = output.open_row(flow.row, window, index)
        {
            row.tap = flow.tap();
        }
    }

    #[cold]
    pub(super) fn ends_apart(&self, index: FlowIndex) -> Ends {
        let sides = [self.side(index, Sender::Low), self.side(index, Sender::High)];
        Ends::of(&sides, self.table.flow(index).initiator())
    }

    /// Ends a flow: its record is made, and its place is free.
    pub(super) fn end(
        &mut self,
        index: FlowIndex,
        reason: EndReason,
        output: &mut impl FlowOutput,
    ) {
        self.end_in_place(index, reason, output);
        self.table.remove(index);
    }

    /// The same, but that the table still has it.
    pub(super) fn end_in_place(
        &mut self,
        index: FlowIndex,
        reason: EndReason,
        output: &mut impl FlowOutput,
    ) {
        if let Some(measures) = &mut self.measures {
            let (flow, rest) = self.table.both_mut(index);
            if flow.tcp != TcpState::NotTcp {
                measures.settle(index, &mut rest.beside, flow.last_seen);
            }
            self.tell_late(index, output);
        }
        self.give_record(index, reason, output);
        let (_, rest) = self.table.both_mut(index);
        if let Some(measures) = &mut self.measures {
            measures.end(&mut rest.beside);
        }
        self.apart.give_back(rest.apart);
    }

    fn give_record(&self, index: FlowIndex, reason: EndReason, output: &mut impl FlowOutput) {
        let (flow, rest) = (self.table.flow(index), self.table.rest(index));
        let totals = self.measures.as_ref().and_then(|measures| measures.totals(&rest.beside));
        // Each field is written where it stays.
        output.ended(totals.as_ref(), |ending| {
            (ending.flow, ending.rest) = (*flow, *rest);
            if rest.apart == NOWHERE {
                ending.apart = None;
            } else {
                ending.apart = self.apart.get(rest.apart).copied();
            }
            if let Some(measures) = &self.measures {
                let is_tcp = flow.tcp != TcpState::NotTcp;
                ending.measured = measures.measured(index, &rest.beside, is_tcp);
            } else {
                ending.measured = Measured::default();
            }
            (ending.reason, ending.sampling_rate) = (reason, self.sampling_rate);
        });
    }

    /// Makes the record of a flow that goes on, if it is time.
    #[inline]
    pub(super) fn record_long_lived(
        &mut self,
        index: FlowIndex,
        now: Timestamp,
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow(index);
        let lasted_s = second_of(now).wrapping_sub(flow.record_second);
        // Whole seconds tell too much by one at most. A stamp that went back looks like a long time.
        let may_be_long = u64::from(lasted_s) >= self.timeouts.active_s
            || now.since_ns(flow.last_seen) >= SECONDS_MAX_NS;
        let [low, high] = flow.packets;
        if may_be_long || low | high >= RECORD_PACKETS_MAX {
            self.make_record(index, now, output);
        }
    }

    #[cold]
    fn make_record(&mut self, index: FlowIndex, now: Timestamp, output: &mut impl FlowOutput) {
        let (flow, rest) = (self.table.flow(index), self.table.rest(index));
        let is_long = now.since_ns(rest.record_start) >= self.timeouts.active_ns;
        // The first packet of a record is not counted yet: there is nothing to tell.
        let is_empty = flow.packets == [0; 2];
        if is_empty
            || !(is_long || flow.packets.iter().any(|packets| *packets >= RECORD_PACKETS_MAX))
        {
            return;
        }
        self.give_record(index, EndReason::ActiveTimeout, output);
        let (flow, rest) = self.table.both_mut(index);
        rest.record_start = now;
        flow.record_second = second_of(now);
        (flow.packets, flow.octets, rest.octets_above) = ([0; 2], [0; 2], [0; 2]);
        if let Some(apart) = self.apart.get_mut(rest.apart) {
            apart.layer2_correction = [0; 2];
        }
        if let Some(measures) = &mut self.measures {
            measures.record_made(&mut rest.beside);
        }
    }
}
