//! Conversations without a connection: DNS, ICMP echo, ARP.
//!
//! In: who asks whom. Out: packets; answers come when the question has arrived.
//! Invariants: every message differs from all others in its first payload octets, because IPv6
//! has no identification: DNS by message id and port, echo by a counter.

use std::net::IpAddr;

use super::cloud::{Endpoint, NodeIndex};
use super::dns;
use super::event::Delivery;
use super::frame::{self, Echo};
use super::network::{Network, Packet, Receiver};
use super::random::low16;
use super::truth::FlowKey;

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const DNS_PORT: u16 = 53;
const BROADCAST: [u8; 6] = [0xff; 6];
/// Payload of an echo request, as `ping` has it.
const ECHO_OCTETS: usize = 56;

/// Sends a query. Every attempt has a message id of its own.
pub(super) fn ask(
    network: &mut Network,
    lookup: u64,
    (client, port): (Endpoint, u16),
    server: Endpoint,
    name: &str,
) {
    let id = low16(network.random.bits());
    let message = dns::query(id, name, client.address.is_ipv6());
    let delivery = Delivery::Query { lookup, port, id };
    let packet = datagram(network, (client, port), (server, DNS_PORT), &message, delivery);
    network.send(packet);
}

/// Sends the answer to a query.
pub(super) fn tell(
    network: &mut Network,
    lookup: u64,
    id: u16,
    server: Endpoint,
    client: (Endpoint, u16),
    (name, address): (&str, IpAddr),
) {
    let message = dns::answer(id, name, address);
    let delivery = Delivery::Answer { lookup };
    let packet = datagram(network, (server, DNS_PORT), client, &message, delivery);
    let work_us = network.random.between(60, 250);
    network.send_after(packet, work_us);
}

/// Sends an echo request.
pub(super) fn ping(network: &mut Network, from: Endpoint, to: Endpoint, counter: u64) {
    let (id, sequence) = (low16(from.node.0 as u64 + 1), low16(counter));
    let delivery = Delivery::Echo { id, sequence, counter };
    let message = Echo { reply: false, id, sequence };
    echo(network, from, to, message, counter, delivery);
}

/// Answers an echo request.
pub(super) fn pong(
    network: &mut Network,
    from: Endpoint,
    to: Endpoint,
    id: u16,
    sequence: u16,
    counter: u64,
) {
    let message = Echo { reply: true, id, sequence };
    echo(network, from, to, message, counter, Delivery::Nothing);
}

/// Every interface of a VM asks for its gateway, which answers.
pub(super) fn ask_gateway(network: &mut Network, vm: usize, gateway: NodeIndex) {
    for end in ipv4_ends(network, vm) {
        let IpAddr::V4(own) = end.address else { continue };
        let [a, b, c, _] = own.octets();
        let router = network.cloud.outside(gateway, IpAddr::from([a, b, c, 1]), end.segment);
        broadcast(network, end, [a, b, c, 1]);
        let inner = frame::arp(&router, false, (end.mac, own.octets()), end.mac);
        network.send(Packet::new(router, end, inner, Delivery::Nothing));
    }
}

/// Every interface of a VM says where it is now (RFC 5227 section 1.2: ARP announcement).
pub(super) fn announce(network: &mut Network, vm: usize) {
    for end in ipv4_ends(network, vm) {
        if let IpAddr::V4(own) = end.address {
            broadcast(network, end, own.octets());
        }
    }
}

fn ipv4_ends(network: &Network, vm: usize) -> Vec<Endpoint> {
    let interfaces = network.cloud.vms[vm].interfaces.len();
    (0..interfaces).filter_map(|number| network.cloud.endpoint(vm, number, false)).collect()
}

fn broadcast(network: &mut Network, end: Endpoint, target: [u8; 4]) {
    let inner = frame::arp(&end, true, ([0; 6], target), BROADCAST);
    let mut packet = Packet::new(end, end, inner, Delivery::Nothing);
    packet.receiver = Receiver::Everybody;
    network.send(packet);
}

fn datagram(
    network: &mut Network,
    (from, from_port): (Endpoint, u16),
    (to, to_port): (Endpoint, u16),
    payload: &[u8],
    delivery: Delivery,
) -> Packet {
    let ip = network.ip_fields(&from);
    let inner = frame::udp((&from, from_port), (&to, to_port), ip, payload);
    let mut packet = Packet::new(from, to, inner, delivery);
    let (one, other) = ((from.address, from_port), (to.address, to_port));
    packet.flow = Some(FlowKey::new(from.space, UDP, one, other));
    packet
}

fn echo(
    network: &mut Network,
    from: Endpoint,
    to: Endpoint,
    message: Echo,
    counter: u64,
    delivery: Delivery,
) {
    let mut payload = [0x2e; ECHO_OCTETS];
    payload[..8].copy_from_slice(&counter.to_be_bytes());
    let ip = network.ip_fields(&from);
    let inner = frame::echo(&from, &to, ip, message, &payload);
    let mut packet = Packet::new(from, to, inner, delivery);
    let protocol = if from.address.is_ipv6() { ICMPV6 } else { ICMP };
    packet.flow = Some(FlowKey::new(from.space, protocol, (from.address, 0), (to.address, 0)));
    network.send(packet);
}
