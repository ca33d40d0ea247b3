//! TCP between two nodes, as far as a tap can tell.
//!
//! In: a script of messages, arriving segments, timers. Out: segments with handshake,
//! timestamps, delayed acknowledgements, fast and timeout retransmission, FIN.
//! Cost: what is out of order or unsent; nothing is copied before it is sent.
//! Invariants: a range is only sent again when a segment of it may be lost; offset 0 is the SYN,
//! the script's octets begin at 1, the FIN follows the last of them.
//! Source: RFC 9293 (TCP), RFC 5681 (congestion control), RFC 6298 (timeout), RFC 6582 (partial
//! acknowledgements), RFC 7323 (timestamps). No selective acknowledgements.

mod half;
mod send;

use super::cloud::Endpoint;
use super::event::{Action, ConnectionIndex, TcpTimer};
use super::network::{Loss, Network};
use super::talk::{Filler, Script, Side};
use half::Half;

/// TCP in the IP header.
pub(super) const PROTOCOL: u8 = 6;
/// Inner MTU: what VXLAN leaves of 1,500 octets.
const MTU: u64 = 1_450;
/// TCP header with the timestamps option.
const HEADER_OCTETS: u64 = 32;
const WINDOW_SEGMENTS_FIRST: u64 = 10;
const WINDOW_SEGMENTS_MAX: u64 = 40;
const WINDOW_SCALE: u8 = 7;
const DUPLICATE_ACKS: u8 = 3;
const SYN_TIMEOUT_US: u64 = 1_000_000;
const TIMEOUT_US: u64 = 250_000;
const TIMEOUTS_MAX: u32 = 8;
const ACK_DELAY_US: u64 = 40_000;

/// What a segment says to the side that gets it. Numbers are offsets in the stream.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    from: u64,
    /// Octets of payload.
    octets: u64,
    syn: bool,
    fin: bool,
    acknowledges: Option<u64>,
    timestamp: u32,
}

impl Segment {
    /// First offset, if it takes any of the stream's: payload, SYN or FIN.
    pub(super) fn range_start(&self) -> Option<u64> {
        (self.end() > self.from).then_some(self.from)
    }

    /// The offset after it.
    fn end(&self) -> u64 {
        self.from + self.octets + u64::from(self.syn) + u64::from(self.fin)
    }
}

/// One connection.
pub(super) struct Connection {
    index: ConnectionIndex,
    halves: [Half; 2],
    script: Script,
    /// Start of each message in its side's stream; as many as were said.
    starts: Vec<u64>,
    /// What was lost between taps and not repeated yet.
    losses: Vec<Loss>,
    /// The other side must have this message before the next one.
    waits_for: Option<usize>,
    is_over: bool,
}

impl Connection {
    /// Begins with the client's SYN.
    pub(super) fn open(
        network: &mut Network,
        index: ConnectionIndex,
        client: Endpoint,
        server: Endpoint,
        script: Script,
    ) -> Self {
        let port = network.ephemeral_port(client.node);
        let halves = [
            Half::new(client, port, network.random.bits32()),
            Half::new(server, script.port, network.random.bits32()),
        ];
        let starts = Vec::with_capacity(script.messages.len());
        let mut connection = Self {
            index,
            halves,
            script,
            starts,
            losses: Vec::new(),
            waits_for: None,
            is_over: false,
        };
        connection.transmit_syn(network, Side::Client);
        connection
    }

    /// Whether both sides have closed and know it.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
            || self.halves.iter().all(|half| half.closing && half.unacknowledged == half.said + 1)
    }

    /// Its place.
    pub(super) fn index(&self) -> ConnectionIndex {
        self.index
    }

    /// The end of a side.
    pub(super) fn end(&self, side: Side) -> Endpoint {
        self.halves[side as usize].end
    }

    /// A segment was lost between taps.
    pub(super) fn lost(&mut self, loss: Loss) {
        self.losses.push(loss);
    }

    /// A segment has arrived at `side`.
    pub(super) fn receive(
        &mut self,
        network: &mut Network,
        filler: &Filler,
        side: Side,
        segment: Segment,
    ) {
        let half = &mut self.halves[side as usize];
        if segment.from <= half.expected {
            half.echo = segment.timestamp;
        }
        if segment.syn {
            self.receive_syn(network, side, &segment);
            return;
        }
        if half.expected == 0 {
            return;
        }
        if let Some(offset) = segment.acknowledges {
            self.acknowledged(network, filler, side, offset, &segment);
        }
        let urgent = self.take(network, side, &segment);
        self.go_on(network, side);
        self.pump(network, filler, side);
        self.answer(network, side, urgent);
    }

    /// A timer of `side` has run out.
    pub(super) fn timer(
        &mut self,
        network: &mut Network,
        filler: &Filler,
        side: Side,
        timer: TcpTimer,
    ) {
        match timer {
            TcpTimer::Speak => self.speak(network, filler, side),
            TcpTimer::Acknowledge => {
                let half = &mut self.halves[side as usize];
                half.ack_timer_set = false;
                if half.owes_acks > 0 {
                    self.transmit_ack(network, side);
                }
            }
            TcpTimer::Retransmit => self.timed_out(network, filler, side),
        }
    }

    fn receive_syn(&mut self, network: &mut Network, side: Side, segment: &Segment) {
        let half = &mut self.halves[side as usize];
        let first = half.expected == 0;
        half.expected = half.expected.max(1);
        match (side, segment.acknowledges) {
            (Side::Server, None) => self.transmit_syn(network, side),
            (Side::Client, Some(_)) => {
                half.unacknowledged = half.unacknowledged.max(1);
                half.rest();
                self.transmit_ack(network, side);
                if first {
                    self.plan_message(network, 0);
                }
            }
            _ => {}
        }
    }

    /// Takes note of what the other side has.
    fn acknowledged(
        &mut self,
        network: &mut Network,
        filler: &Filler,
        side: Side,
        offset: u64,
        segment: &Segment,
    ) {
        let half = &mut self.halves[side as usize];
        if offset > half.unacknowledged {
            half.unacknowledged = offset;
            half.rest();
            if half.next > offset {
                self.arm(network, side);
            }
            let half = &mut self.halves[side as usize];
            match half.recovery {
                Some(end) if offset < end => self.retransmit(network, filler, side),
                Some(_) => half.recovery = None,
                None => half.window_segments = (half.window_segments + 1).min(WINDOW_SEGMENTS_MAX),
            }
        } else if offset == half.unacknowledged
            && half.next > offset
            && segment.octets == 0
            && !segment.fin
        {
            half.duplicate_acks = half.duplicate_acks.saturating_add(1);
            if half.duplicate_acks == DUPLICATE_ACKS && half.recovery.is_none() {
                half.recovery = Some(half.next);
                half.window_segments = (half.window_segments / 2).max(2);
                self.retransmit(network, filler, side);
            }
        }
    }

    /// Takes payload and FIN. Gives whether they must be acknowledged at once.
    fn take(&mut self, network: &mut Network, side: Side, segment: &Segment) -> bool {
        if segment.end() == segment.from {
            return false;
        }
        let half = &mut self.halves[side as usize];
        if segment.fin {
            half.got_fin = Some(segment.end());
        }
        half.owes_acks = half.owes_acks.saturating_add(1);
        if segment.from > half.expected {
            half.beyond.push((segment.from, segment.end()));
            return true;
        }
        let had_gap = !half.beyond.is_empty();
        let repeated = segment.end() <= half.expected;
        half.expected = half.expected.max(segment.end());
        half.join();
        if half.got_fin == Some(half.expected) && !half.closing {
            let think_us = network.random.between(50, 400);
            let at_us = network.now_us + think_us;
            network.schedule(at_us, Action::Tcp(self.index, side, TcpTimer::Speak));
        }
        let half = &self.halves[side as usize];
        had_gap || repeated || half.got_fin == Some(half.expected)
    }

    /// Plans the next turn when `side` has all of the last message.
    fn go_on(&mut self, network: &mut Network, side: Side) {
        let Some(place) = self.waits_for else { return };
        let message = &self.script.messages[place];
        let end = self.starts[place] + message.octets();
        if message.side.other() == side && self.halves[side as usize].expected >= end {
            self.waits_for = None;
            self.plan_message(network, place + 1);
        }
    }

    /// Lets the side whose turn it is think; after the last message the client closes.
    fn plan_message(&mut self, network: &mut Network, place: usize) {
        let (side, think_us) = match self.script.messages.get(place) {
            Some(message) => (message.side, message.think_us),
            None => (Side::Client, 50),
        };
        let at_us = network.now_us + think_us;
        network.schedule(at_us, Action::Tcp(self.index, side, TcpTimer::Speak));
    }

    /// Says the next message, or closes where there is none or the other side has closed.
    fn speak(&mut self, network: &mut Network, filler: &Filler, side: Side) {
        let place = self.starts.len();
        let half = &mut self.halves[side as usize];
        match self.script.messages.get(place) {
            Some(message) if message.side == side && half.got_fin.is_none() => {
                self.starts.push(half.said);
                half.said += message.octets();
                match self.script.messages.get(place + 1) {
                    Some(next) if next.side == side => self.plan_message(network, place + 1),
                    _ => self.waits_for = Some(place),
                }
            }
            _ => half.closing = true,
        }
        self.pump(network, filler, side);
    }

    /// Sends what the window lets through.
    fn pump(&mut self, network: &mut Network, filler: &Filler, side: Side) {
        loop {
            let half = &self.halves[side as usize];
            let window = half.window_segments * half.segment_octets();
            let left = window.saturating_sub(half.next - half.unacknowledged);
            let octets = half.segment_octets().min(half.said.saturating_sub(half.next));
            let has_fin = half.closing && half.next == half.said;
            if half.expected == 0 || !(has_fin || octets > 0 && octets <= left) {
                return;
            }
            let from = half.next;
            self.halves[side as usize].next += octets + u64::from(has_fin);
            self.transmit(network, filler, side, from, octets);
        }
    }

    /// Acknowledges: at once, with the second segment, or later.
    fn answer(&mut self, network: &mut Network, side: Side, urgent: bool) {
        let half = &mut self.halves[side as usize];
        if half.owes_acks == 0 {
            return;
        }
        if urgent || half.owes_acks >= 2 {
            self.transmit_ack(network, side);
        } else if !half.ack_timer_set {
            half.ack_timer_set = true;
            let at_us = network.now_us + ACK_DELAY_US;
            network.schedule(at_us, Action::Tcp(self.index, side, TcpTimer::Acknowledge));
        }
    }

    fn timed_out(&mut self, network: &mut Network, filler: &Filler, side: Side) {
        let half = &mut self.halves[side as usize];
        half.timer_set = false;
        let Some(at_us) = half.timeout_at_us else { return };
        if at_us > network.now_us {
            half.timer_set = true;
            network.schedule(at_us, Action::Tcp(self.index, side, TcpTimer::Retransmit));
            return;
        }
        half.timeouts += 1;
        if half.timeouts > TIMEOUTS_MAX {
            self.is_over = true;
            return;
        }
        half.timeout_us *= 2;
        half.window_segments = 2;
        half.recovery = Some(half.next);
        half.duplicate_acks = 0;
        half.timeout_at_us = None;
        self.retransmit(network, filler, side);
    }
}
