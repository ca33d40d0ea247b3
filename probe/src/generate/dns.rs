//! DNS messages with one question.
//!
//! In: name, kind, address. Out: the message in a UDP datagram.
//! Source: RFC 1035 section 4.1; AAAA, RFC 3596.

use std::net::IpAddr;

const TYPE_A: u8 = 1;
const TYPE_AAAA: u8 = 28;
const CLASS_IN: u8 = 1;
/// Points at the name in the question (RFC 1035 section 4.1.4).
const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];
const TIME_TO_LIVE: [u8; 4] = [0, 0, 0, 60];

/// A query for an address of `name`, with recursion desired.
pub(super) fn query(id: u16, name: &str, version6: bool) -> Vec<u8> {
    message(id, [1, 0], 0, name, version6)
}

/// The answer to [`query`] with one address.
pub(super) fn answer(id: u16, name: &str, address: IpAddr) -> Vec<u8> {
    let mut message = message(id, [0x81, 0x80], 1, name, address.is_ipv6());
    message.extend(NAME_OF_QUESTION);
    message.extend([0, kind(address.is_ipv6()), 0, CLASS_IN]);
    message.extend(TIME_TO_LIVE);
    match address {
        IpAddr::V4(address) => {
            message.extend([0, 4]);
            message.extend(address.octets());
        }
        IpAddr::V6(address) => {
            message.extend([0, 16]);
            message.extend(address.octets());
        }
    }
    message
}

fn message(id: u16, flags: [u8; 2], answers: u8, name: &str, version6: bool) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    message.extend(id.to_be_bytes());
    message.extend(flags);
    message.extend([0, 1, 0, answers, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend([0, kind(version6), 0, CLASS_IN]);
    message
}

const fn kind(version6: bool) -> u8 {
    if version6 { TYPE_AAAA } else { TYPE_A }
}
