//! PPPoE sessions.
//!
//! In: what follows EtherType 0x8864. Out: the IP packet in the PPP frame.
//! Cost: one length check; only PPPoE comes here.
//! Invariants: the session id names no segment.
//! Source: RFC 2516 section 4; PPP protocol numbers, RFC 1661 section 2.

use super::walk::{Next, Step, Walk};
use crate::counters::DropCause;

/// Version 1, type 1, code 0 (session data).
const SESSION: [u8; 2] = [0x11, 0];
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;

/// A PPPoE session header with the PPP protocol number behind it.
#[derive(Clone, Copy, Debug)]
pub struct Pppoe<'a>(pub &'a [u8; 8]);

impl Pppoe<'_> {
    /// Session id.
    pub const fn session(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Octets behind the first six, the PPP protocol number included.
    pub const fn length(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// PPP protocol number.
    pub const fn protocol(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }
}

/// Takes the header.
pub(super) fn step(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 8] = walk.take(DropCause::NotIpPppoe)?;
    if !header.starts_with(&SESSION) {
        return Err(DropCause::NotIpPppoe);
    }
    match Pppoe(header).protocol() {
        PPP_IPV4 => Ok(Next::Ipv4),
        PPP_IPV6 => Ok(Next::Ipv6),
        _ => Err(DropCause::NotIpPppoe),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{decode, every_shorter_length, ipv4, udp, with_ether_type};

    fn session(protocol: u16, inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + 2).expect("short");
        let mut bytes = vec![0x11, 0, 0, 7];
        bytes.extend(length.to_be_bytes());
        bytes.extend(protocol.to_be_bytes());
        bytes.extend(inner);
        with_ether_type(0x8864, &bytes)
    }

    #[test]
    fn ip_in_a_session_is_read() {
        let frame = session(PPP_IPV4, &ipv4(17, &udp(1, 2, b"payload")));
        assert_eq!(decode(&frame).expect("IP").destination_port, 2);
        every_shorter_length(&frame, |_, _| ());
    }

    #[test]
    fn control_protocols_are_counted() {
        assert_eq!(decode(&session(0xc021, &[1, 1, 0, 4])).err(), Some(DropCause::NotIpPppoe));
    }
}
