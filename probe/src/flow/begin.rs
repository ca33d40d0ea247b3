//! What the first packet of a flow tells: who began, and whether it asks for something.
//!
//! In: the packet. Out: the initiator and how it is known, events.
//! Cost: a few compares, once a flow.
//! Invariants: decided by the packet alone.
//! Source: initiator and responder, RFC 5103 §2; system ports, RFC 6335 §6.

use crate::decode::{protocol, tcp_flag};
use crate::index::Sender;

use super::packet::Packet;
use super::{InitiatorMethod, event};

/// Ports below this are services' by convention (RFC 6335 §6, system ports).
const SYSTEM_PORTS: u16 = 1_024;

/// Who began, told by the first packet.
#[inline]
pub(super) fn initiator_of(packet: &impl Packet) -> (Sender, InitiatorMethod) {
    let sender = packet.sender();
    let handshake = u16::from(packet.tcp_flags()) & (tcp_flag::SYN | tcp_flag::ACK);
    let [from, to] = packet.ports();
    if packet.is_tcp() && handshake == tcp_flag::SYN {
        (sender, InitiatorMethod::Syn)
    } else if packet.is_tcp() && handshake == tcp_flag::SYN | tcp_flag::ACK {
        (sender.other(), InitiatorMethod::Syn)
    } else if packet.is_echo_reply() || (from != 0 && from < SYSTEM_PORTS && to >= SYSTEM_PORTS) {
        (sender.other(), InitiatorMethod::FirstPacketAndPort)
    } else {
        (sender, InitiatorMethod::FirstPacket)
    }
}

/// Events of a flow's first packet: whether it asks for something.
#[inline]
pub(super) fn first_events(packet: &impl Packet, by_initiator: bool) -> u8 {
    let silent = u16::from(packet.tcp_flags()) & (tcp_flag::ACK | tcp_flag::RST) == 0;
    let asks = match packet.protocol() {
        protocol::TCP => silent && !packet.is_later_fragment(),
        protocol::UDP => true,
        _ => false,
    };
    if asks && by_initiator { event::STARTED | event::CONTACT } else { event::STARTED }
}
