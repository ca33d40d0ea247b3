//! Attacks, packet by packet.
//!
//! In: who attacks what. Out: SYNs, and what the attacked answer.
//! Invariants: an attacker's packets carry the attack's place in the truth, answers do not.
//! Source: half-open connections, RFC 4987 section 2; scans, Jung et al. 2004.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{TcpHeader, TcpOptionElement};

use super::cloud::{Endpoint, Flood, NodeIndex, Scan, gateway_mac};
use super::event::{Action, Delivery};
use super::frame;
use super::network::{Network, Packet, Receiver};
use super::random::{low16, low32};
use super::tcp::PROTOCOL;
use super::truth::FlowKey;

/// One in so many SYNs of a flood is answered: the rest finds the backlog full.
const FLOOD_ANSWERS_OF: u64 = 4;
/// First of the 2^17 addresses of 198.18.0.0/15 (RFC 2544), from which the flood pretends to come.
const SPOOFED_FIRST: u32 = 0xc612_0000;
const SPOOFED_COUNT: u64 = 1 << 17;

/// TCP fields of a packet without connection.
#[derive(Clone, Copy)]
struct Bare {
    from_port: u16,
    to_port: u16,
    sequence: u32,
    acknowledges: Option<u32>,
    syn: bool,
    rst: bool,
}

/// Knocks at the `number`-th target, and plans the next.
pub(super) fn probe(network: &mut Network, scan: &Scan, (place, number): (usize, usize)) {
    let Some((address, end, to_port)) = scan.targets.get(number).copied() else { return };
    let from = scan.source;
    let from_port = network.ephemeral_port(from.node);
    let sequence = network.random.bits32();
    // Where nobody has the address, the router's proxy ARP takes the packet.
    let nobody = Endpoint { mac: gateway_mac(from.segment), address, ..from };
    let delivery = Delivery::Probe { scan: place, from_port, to_port, sequence };
    let bare = Bare { from_port, to_port, sequence, acknowledges: None, syn: true, rst: false };
    let mut packet = bare.packet(network, from, end.unwrap_or(nobody), delivery);
    if end.is_none() {
        packet.receiver = Receiver::Nobody;
    }
    packet.attack = Some(place);
    network.send(packet);
    let spread_us = network.random.below(scan.interval_us / 4);
    let next_us = scan.at_us + (number as u64 + 1) * scan.interval_us + spread_us;
    network.schedule(next_us, Action::Probe(place, number + 1));
}

/// The VM that was knocked at says yes or no.
pub(super) fn answer_probe(
    network: &mut Network,
    packet: &Packet,
    (scan, sequence): (usize, u32),
    ports: (u16, u16),
) {
    let (from_port, to_port) = ports;
    let vm = network.cloud.node(packet.to.node).vm;
    let is_open = vm.is_some_and(|vm| network.cloud.vms[vm].open_ports.contains(&to_port));
    let acknowledges = Some(sequence.wrapping_add(1));
    let own = if is_open { network.random.bits32() } else { 0 };
    let answer = Bare {
        from_port: to_port,
        to_port: from_port,
        sequence: own,
        acknowledges,
        syn: is_open,
        rst: !is_open,
    };
    let caught = Delivery::Caught { scan, from_port, to_port, sequence: sequence.wrapping_add(1) };
    let delivery = if is_open { caught } else { Delivery::Nothing };
    let answer = answer.packet(network, packet.to, packet.from, delivery);
    network.send(answer);
}

/// The scanner has found an open port and hangs up.
pub(super) fn hang_up(
    network: &mut Network,
    packet: &Packet,
    (scan, sequence): (usize, u32),
    ports: (u16, u16),
) {
    let (from_port, to_port) = ports;
    let reset = Bare { from_port, to_port, sequence, acknowledges: None, syn: false, rst: true };
    let mut reset = reset.packet(network, packet.to, packet.from, Delivery::Nothing);
    reset.attack = Some(scan);
    network.send(reset);
}

/// Sends one SYN of a flood, and plans the next while some are left.
pub(super) fn flood(
    network: &mut Network,
    flood: &Flood,
    (place, in_truth): (usize, usize),
    left: u64,
) {
    let address = SPOOFED_FIRST + low32(network.random.below(SPOOFED_COUNT));
    let from = spoofed(network, flood.origin, Ipv4Addr::from_bits(address), &flood.target);
    let from_port = low16(network.random.between(1_024, 65_535));
    let (to_port, sequence) = (flood.port, network.random.bits32());
    let delivery = Delivery::Flood { from_port, to_port, sequence };
    let bare = Bare { from_port, to_port, sequence, acknowledges: None, syn: true, rst: false };
    let mut packet = bare.packet(network, from, flood.target, delivery);
    packet.attack = Some(in_truth);
    network.send(packet);
    if left > 1 {
        let sent = flood.packets - left + 1;
        let at_us = flood.at_us + sent * flood.interval_us;
        network.schedule(at_us, Action::Flood(place, left - 1));
    }
}

/// The flooded server answers while its backlog has room.
pub(super) fn answer_flood(
    network: &mut Network,
    packet: &Packet,
    sequence: u32,
    ports: (u16, u16),
) {
    if !network.random.chance(1, FLOOD_ANSWERS_OF) {
        return;
    }
    let (from_port, to_port) = ports;
    let answer = Bare {
        from_port: to_port,
        to_port: from_port,
        sequence: network.random.bits32(),
        acknowledges: Some(sequence.wrapping_add(1)),
        syn: true,
        rst: false,
    };
    let answer = answer.packet(network, packet.to, packet.from, Delivery::Nothing);
    network.send(answer);
}

fn spoofed(network: &Network, origin: NodeIndex, address: Ipv4Addr, target: &Endpoint) -> Endpoint {
    network.cloud.outside(origin, IpAddr::V4(address), target.segment)
}

impl Bare {
    fn packet(
        self,
        network: &mut Network,
        from: Endpoint,
        to: Endpoint,
        delivery: Delivery,
    ) -> Packet {
        let window = if self.rst { 0 } else { 1_024 };
        let mut header = TcpHeader::new(self.from_port, self.to_port, self.sequence, window);
        (header.syn, header.rst, header.ack) = (self.syn, self.rst, self.acknowledges.is_some());
        header.acknowledgment_number = self.acknowledges.unwrap_or(0);
        if self.syn {
            let options = [TcpOptionElement::MaximumSegmentSize(1_410)];
            header.set_options(&options).expect("the option is 4 octets long");
        }
        let ip = network.ip_fields(&from);
        let inner = frame::tcp(&from, &to, ip, header, &[]);
        let mut packet = Packet::new(from, to, inner, delivery);
        let (one, other) = ((from.address, self.from_port), (to.address, self.to_port));
        packet.flow = Some(FlowKey::new(from.space, PROTOCOL, one, other));
        packet
    }
}
