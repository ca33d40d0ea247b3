//! SCTP common headers.
//!
//! In: the payload of an IP packet. Out: ports; the chunks are the payload.
//! Cost: one length check.
//! Invariants: a header cut behind its ports is enough; the checksum is not verified.
//! Source: RFC 9260 section 3.1.

use super::udp::ports_alone;
use super::walk::{Next, Step, Walk};
use super::{Headers, protocol};
use crate::counters::DropCause;

const HEADER_OCTETS: u32 = 12;

/// An SCTP common header.
#[derive(Clone, Copy, Debug)]
pub struct Sctp<'a>(pub &'a [u8; 12]);

impl Sctp<'_> {
    /// Source port.
    pub const fn source_port(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Destination port.
    pub const fn destination_port(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Verification tag of the association.
    pub const fn verification_tag(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }
}

/// Takes the header.
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    out.protocol = protocol::SCTP;
    if walk.limit < HEADER_OCTETS {
        return Err(DropCause::MalformedSctp);
    }
    let Some((header, payload)) = walk.rest.split_first_chunk() else {
        return ports_alone(walk, out, HEADER_OCTETS);
    };
    out.source_port = Sctp(header).source_port();
    out.destination_port = Sctp(header).destination_port();
    walk.rest = payload;
    walk.limit -= HEADER_OCTETS;
    walk.write_payload(out);
    Ok(Next::Flow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{Outcome, decode, ethernet, every_shorter_length, ipv4};

    const PACKET: [u8; 16] = [0x0b, 0x59, 0x0b, 0x5a, 1, 2, 3, 4, 0, 0, 0, 0, 3, 0, 0, 4];

    #[test]
    fn fields_are_read() {
        let headers = decode(&ethernet(&ipv4(132, &PACKET))).expect("whole");
        assert_eq!((headers.source_port, headers.destination_port), (2905, 2906));
        assert_eq!((headers.protocol, headers.payload_octets), (132, 4));
        let header = PACKET.first_chunk().expect("12 octets");
        assert_eq!(Sctp(header).verification_tag(), 0x0102_0304);
    }

    #[test]
    fn a_short_header_is_malformed_and_a_cut_one_has_ports() {
        for length in 0..12 {
            let part = PACKET.get(..length).expect("shorter");
            let result = decode(&ethernet(&ipv4(132, part)));
            assert_eq!(result.err(), Some(DropCause::MalformedSctp), "{length}");
        }
        every_shorter_length(&ethernet(&ipv4(132, &PACKET)), |at, outcome| match outcome {
            Outcome::Snapped(result) if at >= 38 => {
                assert_eq!(result.expect("ports are there").destination_port, 2906);
            }
            Outcome::Snapped(result) => assert_eq!(result.err(), Some(DropCause::SnappedHeader)),
            Outcome::WireShort(_) => {}
        });
    }
}
