//! Rows of windows and records of flows, cut from the state of a flow.
//!
//! In: flows whose window or life ends. Out: [`Row`]s and [`EndedFlow`]s.
//! Cost: one copy of a flow's lines.
//! Invariants: what is cut into a row is taken over into the record in the same step.
//! Source: record of a biflow, RFC 5103 §2; flow expiration, RFC 5470 §5.1.1.

use crate::index::{FlowIndex, Sender, WindowNumber};
use crate::time::Timestamp;
use crate::window::{Ends, Row, RowFacts};

use super::super::measures::Measures;
use super::super::output::{Biflow, EndedFlow, FlowOutput};
use super::super::sides::NOWHERE;
use super::super::state::{Flow, Rest};
use super::super::{EndReason, event};
use super::FlowStage;

/// A record is made when a direction has counted so many packets.
const RECORD_PACKETS_MAX: u32 = 1 << 31;

impl FlowStage {
    pub(super) fn cut_row(&mut self, index: FlowIndex, output: &mut impl FlowOutput) {
        let flow = self.table.flow(index);
        if !flow.has_window() {
            return;
        }
        let window = flow.window_number(self.newest_window);
        let row = self.row(index, window);
        let (flow, rest) = self.table.both_mut(index);
        flow.note_counted_in(window);
        fold_window(flow, rest);
        output.row(row);
    }

    fn row(&mut self, index: FlowIndex, window: WindowNumber) -> Row {
        let sampling_rate = self.sampling.of(window);
        let flow = self.table.flow(index);
        let answered_now = flow.window_events & event::SYN_ACK != 0;
        let measures = self.measures.as_ref().filter(|_| answered_now);
        let server_rtt =
            measures.and_then(|measures| measures[index.0 as usize].handshake_server_rtt_ns());
        let initiator = flow.initiator();
        let tap_of = if flow.has_seen(initiator) { initiator } else { initiator.other() };
        Row::of(&RowFacts {
            window,
            key: &flow.key,
            initiator,
            ends: self.ends(index),
            tap: flow.taps[tap_of.place()],
            application: flow.application,
            events: flow.window_events,
            counts_flow: !flow.was_counted_in(window),
            late_packets: flow.window_late_packets,
            packets: flow.window_packets,
            octets: flow.window_octets,
            handshake_server_rtt_ns: server_rtt.unwrap_or(0),
            sampling_rate,
        })
    }

    #[inline]
    fn ends(&self, index: FlowIndex) -> Ends {
        let flow = self.table.flow(index);
        if flow.is_apart() {
            let sides = [self.side(index, Sender::Low), self.side(index, Sender::High)];
            Ends::of(&sides, flow.initiator())
        } else {
            flow.ends()
        }
    }

    pub(super) fn end(
        &mut self,
        index: FlowIndex,
        reason: EndReason,
        output: &mut impl FlowOutput,
    ) {
        self.cut_row(index, output);
        output.ended(self.ended(index, reason));
        self.apart.give_back(self.table.rest(index).apart);
        self.table.remove(index);
    }

    fn ended(&self, index: FlowIndex, reason: EndReason) -> EndedFlow {
        EndedFlow { flow: self.biflow(index), reason, sampling_rate: self.sampling.now() }
    }

    fn biflow(&self, index: FlowIndex) -> Biflow {
        let (flow, rest) = (self.table.flow(index), self.table.rest(index));
        let sides = [self.side(index, Sender::Low), self.side(index, Sender::High)];
        let apart = if rest.apart == NOWHERE { None } else { self.apart.get(rest.apart) };
        let correction = apart.map_or([0; 2], |apart| apart.layer2_correction);
        let (packets, octets) = ({ rest.packets }.map(u64::from), rest.octets);
        let layer2_octets = [0, 1].map(|place: usize| {
            let header = u64::from(sides[place].layer2_header_octets);
            (octets[place] + packets[place] * header).saturating_add_signed(correction[place])
        });
        let measures = self.measures.as_ref().map(|measures| &measures[index.0 as usize]);
        Biflow {
            key: flow.key,
            initiator: flow.initiator(),
            initiator_method: flow.initiator_method(),
            tcp: flow.tcp,
            tcp_control_bits: flow.tcp_control_bits,
            application: flow.application,
            sides,
            taps: flow.taps,
            first_seen: rest.first_seen,
            record_start: rest.record_start,
            last_seen: flow.last_seen,
            heard: flow.heard,
            packets,
            octets,
            layer2_octets,
            duplicates: measures.map_or([0; 2], |measures| measures.duplicates),
            fragments: measures.map_or(0, |measures| measures.fragments),
            snapped: measures.map_or(0, |measures| measures.snapped),
            handshake_server_rtt_ns: measures.and_then(Measures::handshake_server_rtt_ns),
            handshake_client_rtt_ns: measures.and_then(Measures::handshake_client_rtt_ns),
        }
    }

    /// Makes the record of a flow that goes on, if it is time.
    pub(super) fn record_long_lived(
        &mut self,
        index: FlowIndex,
        now: Timestamp,
        output: &mut impl FlowOutput,
    ) {
        let rest = self.table.rest(index);
        let is_long = now.since_ns(rest.record_start) >= self.timeouts.active_ns;
        if !is_long && { rest.packets }.iter().all(|packets| *packets < RECORD_PACKETS_MAX) {
            return;
        }
        output.ended(self.ended(index, EndReason::ActiveTimeout));
        let (_, rest) = self.table.both_mut(index);
        rest.record_start = now;
        (rest.packets, rest.octets) = ([0; 2], [0; 2]);
        if let Some(apart) = self.apart.get_mut(rest.apart) {
            apart.layer2_correction = [0; 2];
        }
        if let Some(measures) = &mut self.measures {
            measures[index.0 as usize].record_made();
        }
    }
}

/// Counts of the open window are taken over into the record and set to 0.
fn fold_window(flow: &mut Flow, rest: &mut Rest) {
    for sender in 0..2 {
        rest.packets[sender] = { rest.packets }[sender].saturating_add(flow.window_packets[sender]);
        rest.octets[sender] += u64::from(flow.window_octets[sender]);
    }
    (flow.window_packets, flow.window_octets) = ([0; 2], [0; 2]);
    (flow.window_late_packets, flow.window_events) = (0, 0);
}
