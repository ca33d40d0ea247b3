//! What the first packet of a flow tells: who began, and whether it asks for something.
//!
//! In: headers. Out: the initiator and how it is known, events.
//! Cost: a few compares, once a flow.
//! Invariants: decided by the packet alone.
//! Source: initiator and responder, RFC 5103 §2; system ports, RFC 6335 §6.

use crate::decode::{Headers, Marks, protocol, tcp_flag};
use crate::index::Sender;

use super::{InitiatorMethod, event};

pub(super) fn is_later_fragment(headers: &Headers) -> bool {
    headers.marks.has(Marks::LATER_FRAGMENT)
}

pub(super) fn is_tcp(headers: &Headers) -> bool {
    headers.protocol == protocol::TCP && !is_later_fragment(headers)
}

/// Ports below this are services' by convention (RFC 6335 §6, system ports).
const SYSTEM_PORTS: u16 = 1_024;

/// Who began, told by the first packet.
pub(super) fn initiator_of(headers: &Headers) -> (Sender, InitiatorMethod) {
    let sender = headers.sender;
    let handshake = headers.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK);
    let (from, to) = (headers.source_port, headers.destination_port);
    let is_echo_reply = match headers.protocol {
        protocol::ICMP => headers.icmp_type_code >> 8 == 0,
        protocol::ICMPV6 => headers.icmp_type_code >> 8 == 129,
        _ => false,
    };
    if is_tcp(headers) && handshake == tcp_flag::SYN {
        (sender, InitiatorMethod::Syn)
    } else if is_tcp(headers) && handshake == tcp_flag::SYN | tcp_flag::ACK {
        (sender.other(), InitiatorMethod::Syn)
    } else if is_echo_reply || (from != 0 && from < SYSTEM_PORTS && to >= SYSTEM_PORTS) {
        (sender.other(), InitiatorMethod::FirstPacketAndPort)
    } else {
        (sender, InitiatorMethod::FirstPacket)
    }
}

/// Events of a flow's first packet: whether it asks for something.
pub(super) fn first_events(headers: &Headers, by_initiator: bool) -> u8 {
    let silent = headers.tcp_flags & (tcp_flag::ACK | tcp_flag::RST) == 0;
    let asks = match headers.protocol {
        protocol::TCP => silent && !is_later_fragment(headers),
        protocol::UDP => true,
        _ => false,
    };
    if asks && by_initiator { event::STARTED | event::CONTACT } else { event::STARTED }
}
