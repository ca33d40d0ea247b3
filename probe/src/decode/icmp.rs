//! ICMP and ICMPv6 messages.
//!
//! In: the payload of an IP packet. Out: type and code; what follows the first eight octets is
//! the payload.
//! Cost: one length check.
//! Invariants: ports stay 0; the packet quoted in an error is payload, not a packet, and names the
//! flow that the error is about (`quote`).
//! Source: RFC 792; RFC 4443 section 2.1.

use super::walk::{Next, Step, Walk, octets};
use super::{Headers, Marks, quote};
use crate::counters::DropCause;

/// Type, code and checksum: the least that every message has.
const HEADER_OCTETS_MIN: u32 = 4;

/// With the four octets that depend on the type (identifier, sequence, MTU, pointer).
const HEADER_OCTETS: u32 = 8;

/// Takes the header.
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers, number: u8) -> Step {
    out.protocol = number;
    if walk.limit < HEADER_OCTETS_MIN {
        return Err(DropCause::MalformedIcmp);
    }
    let Some(type_code) = walk.rest.first_chunk() else { return Err(DropCause::SnappedHeader) };
    out.icmp_type_code = u16::from_be_bytes(*type_code);
    let header = HEADER_OCTETS.min(walk.limit);
    let captured = header.min(octets(walk.rest.len())) as usize;
    walk.rest = walk.rest.get(captured..).unwrap_or(&[]);
    walk.limit -= header;
    walk.write_payload(out);
    let [kind, _] = *type_code;
    if !walk.ip_marks.has(Marks::FRAGMENT) && quote::note(walk.rest, kind, out) {
        walk.ip_marks.set(Marks::ICMP_ERROR);
    }
    Ok(Next::Flow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, ipv6, with_ether_type,
    };

    const ECHO: [u8; 12] = [8, 1, 0, 0, 0, 7, 0, 1, 0xaa, 0xbb, 0xcc, 0xdd];

    #[test]
    fn type_and_code_are_read() {
        let six = with_ether_type(0x86dd, &ipv6(58, &ECHO));
        for (frame, number) in [(ethernet(&ipv4(1, &ECHO)), 1), (six, 58)] {
            let headers = decode(&frame).expect("whole");
            assert_eq!((headers.protocol, headers.icmp_type_code), (number, 0x0801));
            assert_eq!((headers.source_port, headers.payload_octets), (0, 4));
            assert_eq!(headers.payload_head.first(), Some(&0xaa));
        }
    }

    #[test]
    fn short_messages_are_malformed_and_cut_ones_snapped() {
        for length in 0..4 {
            let part = ECHO.get(..length).expect("shorter");
            assert_eq!(decode(&ethernet(&ipv4(1, part))).err(), Some(DropCause::MalformedIcmp));
        }
        let part = ECHO.get(..6).expect("shorter");
        assert_eq!(decode(&ethernet(&ipv4(1, part))).expect("enough").payload_octets, 0);
        every_shorter_length(&ethernet(&ipv4(1, &ECHO)), |at, outcome| match outcome {
            Outcome::Snapped(result) | Outcome::WireShort(result) if at >= 36 => {
                let headers = result.expect("the type is there");
                assert_eq!((headers.payload_octets, headers.icmp_type_code), (4, 0x0801));
            }
            Outcome::Snapped(result) => assert_eq!(result.err(), Some(DropCause::SnappedHeader)),
            Outcome::WireShort(result) => assert!(result.is_err()),
        });
    }
}
