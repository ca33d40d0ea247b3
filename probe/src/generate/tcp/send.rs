//! Segments of a connection, as they are sent.
//!
//! In: offsets in a side's stream. Out: packets with payload, options and clock.
//! Source: RFC 9293 section 3.1; timestamps and window scale, RFC 7323.

use etherparse::{TcpHeader, TcpOptionElement};

use super::half::Half;
use super::{Connection, HEADER_OCTETS, PROTOCOL, Segment, WINDOW_SCALE};
use crate::generate::event::{Action, Delivery, TcpTimer};
use crate::generate::frame;
use crate::generate::network::{Loss, Network, Packet};
use crate::generate::random::low32;
use crate::generate::talk::{Filler, Side};
use crate::generate::truth::FlowKey;

impl Connection {
    /// Sends the first unacknowledged segment again.
    pub(super) fn retransmit(&mut self, network: &mut Network, filler: &Filler, side: Side) {
        let half = &self.halves[side as usize];
        let from = half.unacknowledged;
        if from == 0 {
            self.transmit_syn(network, side);
            return;
        }
        let sent = half.said.min(half.next);
        let octets = half.segment_octets().min(sent.saturating_sub(from));
        self.transmit(network, filler, side, from, octets);
    }

    /// Sends a range, or the FIN where the range is empty.
    pub(super) fn transmit(
        &mut self,
        network: &mut Network,
        filler: &Filler,
        side: Side,
        from: u64,
        octets: u64,
    ) {
        let mut payload = Vec::with_capacity(usize::try_from(octets).unwrap_or(0));
        for (place, start) in self.starts.iter().enumerate() {
            let message = &self.script.messages[place];
            let end = start + message.octets();
            if message.side == side && *start < from + octets && end > from {
                let (low, high) = (from.max(*start), (from + octets).min(end));
                message.copy(low - start, high - start, filler, &mut payload);
            }
        }
        let half = &self.halves[side as usize];
        let flags =
            Flags { fin: octets == 0, push: from + octets == half.said, ..Flags::default() };
        self.send(network, side, from, flags, &payload);
        self.arm(network, side);
    }

    pub(super) fn transmit_syn(&mut self, network: &mut Network, side: Side) {
        let half = &mut self.halves[side as usize];
        half.next = half.next.max(1);
        self.send(network, side, 0, Flags { syn: true, ..Flags::default() }, &[]);
        self.arm(network, side);
    }

    pub(super) fn transmit_ack(&mut self, network: &mut Network, side: Side) {
        let from = self.halves[side as usize].next;
        self.send(network, side, from, Flags::default(), &[]);
    }

    /// Starts the retransmission timer anew.
    pub(super) fn arm(&mut self, network: &mut Network, side: Side) {
        let half = &mut self.halves[side as usize];
        let at_us = network.now_us + half.timeout_us;
        half.timeout_at_us = Some(at_us);
        if !half.timer_set {
            half.timer_set = true;
            network.schedule(at_us, Action::Tcp(self.index, side, TcpTimer::Retransmit));
        }
    }

    fn send(&mut self, network: &mut Network, side: Side, from: u64, flags: Flags, payload: &[u8]) {
        let other = &self.halves[side.other() as usize];
        let (to, to_port, other_isn) = (other.end, other.port, other.isn);
        let half = &mut self.halves[side as usize];
        let timestamp = half.timestamp(network);
        half.owes_acks = 0;
        let acknowledges = (half.expected > 0).then_some(half.expected);
        // A SYN's window is not scaled (RFC 7323 section 2.2).
        let window = if flags.syn { 64_240 } else { 64_240 >> WINDOW_SCALE };
        let mut header = TcpHeader::new(half.port, to_port, wire(half.isn, from), window);
        header.syn = flags.syn;
        header.fin = flags.fin;
        header.psh = flags.push && !payload.is_empty();
        header.ack = acknowledges.is_some();
        header.acknowledgment_number = acknowledges.map_or(0, |offset| wire(other_isn, offset));
        let echo = if header.ack { half.echo } else { 0 };
        set_options(&mut header, half, flags.syn, (timestamp, echo));
        let ip = network.ip_fields(&half.end);
        let inner = frame::tcp(&half.end, &to, ip, header, payload);
        let octets = payload.len() as u64;
        let Flags { syn, fin, .. } = flags;
        let segment = Segment { from, octets, syn, fin, acknowledges, timestamp };
        let delivery = Delivery::Tcp(self.index, side.other(), segment);
        let mut packet = Packet::new(half.end, to, inner, delivery);
        let ends = ((half.end.address, half.port), (to.address, to_port));
        packet.flow = Some(FlowKey::new(half.end.space, PROTOCOL, ends.0, ends.1));
        network.send(packet);
        self.repeat(network, side, &segment);
    }

    /// Tells the truth which losses this segment repeats.
    fn repeat(&mut self, network: &mut Network, side: Side, segment: &Segment) {
        let covers = |loss: &Loss| {
            loss.side == side && segment.from <= loss.from && loss.from < segment.end()
        };
        for loss in self.losses.extract_if(.., |loss| covers(loss)) {
            network.truth.repeated(loss.path);
        }
    }
}

/// Flags of a segment beside ACK.
#[derive(Clone, Copy, Default)]
struct Flags {
    syn: bool,
    fin: bool,
    push: bool,
}

fn wire(isn: u32, offset: u64) -> u32 {
    isn.wrapping_add(low32(offset))
}

fn set_options(header: &mut TcpHeader, half: &Half, syn: bool, stamps: (u32, u32)) {
    use TcpOptionElement::{MaximumSegmentSize, Noop, Timestamp, WindowScale};
    let stamps = Timestamp(stamps.0, stamps.1);
    let mss = low32(half.segment_octets() + HEADER_OCTETS - 20).try_into().unwrap_or(u16::MAX);
    let set = if syn {
        let scale = WindowScale(WINDOW_SCALE);
        header.set_options(&[MaximumSegmentSize(mss), Noop, scale, Noop, Noop, stamps])
    } else {
        header.set_options(&[Noop, Noop, stamps])
    };
    set.expect("these options are 20 and 12 octets long");
}
