//! PPPoE sessions.
//!
//! In: what follows EtherType 0x8864. Out: the IP packet in the PPP frame.
//! Cost: one length check, and PPP's; only PPPoE comes here.
//! Invariants: the session id names no segment; padding behind the length is left out.
//! Source: RFC 2516 section 4 and 7.

use super::ppp;
use super::walk::{Step, Walk};
use crate::counters::DropCause;

/// Version 1, type 1, code 0 (session data).
const SESSION: [u8; 2] = [0x11, 0];

/// A PPPoE session header.
#[derive(Clone, Copy, Debug)]
pub struct Pppoe<'a>(pub &'a [u8; 6]);

impl Pppoe<'_> {
    /// Session id.
    pub const fn session(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Octets behind the header, the PPP protocol number included.
    pub const fn length(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    fn is_session(self) -> bool {
        self.0.starts_with(&SESSION)
    }
}

/// Takes the header.
pub(super) fn step(walk: &mut Walk<'_>) -> Step {
    let header = Pppoe(walk.take(DropCause::NotIpPppoe)?);
    if !header.is_session() {
        return Err(DropCause::NotIpPppoe);
    }
    let length = u32::from(header.length());
    // A length beyond the frame: it was cut, as an IP packet would be.
    if length <= walk.limit {
        walk.narrow(length);
    }
    ppp::step(walk, DropCause::NotIpPppoe)?.ok_or(DropCause::NotIpPppoe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, every_shorter_length, ipv4, ipv6, udp, with_ether_type,
    };

    fn session(protocol: &[u8], inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + protocol.len()).expect("short");
        let mut bytes = vec![0x11, 0, 0, 7];
        bytes.extend(length.to_be_bytes());
        bytes.extend(protocol);
        bytes.extend(inner);
        with_ether_type(0x8864, &bytes)
    }

    #[test]
    fn ip_in_a_session_is_read() {
        let (four, six) = (ipv4(17, &udp(1, 2, b"payload")), ipv6(17, &udp(1, 2, b"payload")));
        let mpls = [&[0, 6, 0x41, 64][..], &four].concat();
        for (protocol, inner, octets) in [
            (&[0, 0x21][..], &four, 35),
            (&[0x21], &four, 35),
            (&[0, 0x57], &six, 55),
            (&[2, 0x81], &mpls, 35),
        ] {
            let mut frame = session(protocol, inner);
            let headers = decode(&frame).expect("IP");
            assert_eq!((headers.destination_port, headers.octets), (2, octets));
            every_shorter_length(&frame, |at, outcome| match outcome {
                Outcome::WireShort(result) if (14..20).contains(&at) => {
                    assert_eq!(result.err(), Some(DropCause::NotIpPppoe), "{at}");
                }
                Outcome::Snapped(result) if at < frame.len() - 11 => {
                    assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
                }
                Outcome::Snapped(_) | Outcome::WireShort(_) => {}
            });
            frame.extend([0xee; 20]);
            assert_eq!(decode(&frame).expect("padded").octets, octets);
        }
    }

    #[test]
    fn control_protocols_and_other_codes_are_counted() {
        let control = session(&[0xc0, 0x21], &[1, 1, 0, 4]);
        assert_eq!(decode(&control).err(), Some(DropCause::NotIpPppoe));
        for first in [[0x11, 9], [0x12, 0], [0x21, 0]] {
            let mut frame = session(&[0, 0x21], &ipv4(17, &udp(1, 2, b"x")));
            frame.splice(14..16, first);
            assert_eq!(decode(&frame).err(), Some(DropCause::NotIpPppoe));
        }
    }
}
