//! Enhanced GRE of PPTP: PPP frames between two hosts.
//!
//! In: a GRE header of version 1. Out: the IP packet in the PPP frame.
//! Cost: one length check for each part; only PPTP comes here.
//! Invariants: the call id differs by direction and names no segment; acknowledgements alone, and
//! frames that are compressed, encrypted or carry no IP, are a flow of protocol 47.
//! Source: RFC 2637 section 4.1.

use super::walk::{Next, Step, Walk};
use super::{Headers, ppp, protocol, transport};
use crate::counters::DropCause;

const FLAG_SEQUENCE: u16 = 0x1000;
const FLAG_ACKNOWLEDGEMENT: u16 = 0x0080;
/// Key present, version 1; neither checksum, routing, strict source route nor recursion.
const FIXED_BITS: u16 = 0xef7f;
const KEY_AND_VERSION: u16 = 0x2001;
const PPP: u16 = 0x880b;
const HEADER_OCTETS: u32 = 8;

/// Goes into the frame, or leaves all as the payload of a flow of GRE.
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    let outside = *walk;
    match inside(walk)? {
        Some(next) => Ok(next),
        None => {
            *walk = outside;
            transport::without_ports(walk, out, protocol::GRE)
        }
    }
}

fn inside(walk: &mut Walk<'_>) -> Result<Option<Next>, DropCause> {
    let Some(&[a, b, c, d, high, low, ..]) = walk.peek::<8>(0)? else { return Ok(None) };
    let flags = u16::from_be_bytes([a, b]);
    let numbers =
        [FLAG_SEQUENCE, FLAG_ACKNOWLEDGEMENT].into_iter().filter(|flag| flags & flag != 0).count();
    let begin = HEADER_OCTETS + 4 * super::walk::octets(numbers);
    let payload = u32::from(u16::from_be_bytes([high, low]));
    if flags & FIXED_BITS != KEY_AND_VERSION
        || u16::from_be_bytes([c, d]) != PPP
        || payload == 0
        || begin + payload > walk.limit
    {
        return Ok(None);
    }
    walk.skip(begin, DropCause::MalformedGre)?;
    walk.narrow(payload);
    let next = ppp::step(walk, DropCause::MalformedGre)?;
    if next.is_some() {
        walk.descend()?;
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, segment_text, tagged, udp,
    };

    fn pptp(flags: [u8; 2], numbers: &[u8], frame: &[u8]) -> Vec<u8> {
        let length = u16::try_from(frame.len()).expect("short").to_be_bytes();
        let header = [flags[0], flags[1], 0x88, 0x0b, length[0], length[1], 0, 7];
        let packet = ipv4(47, &[&header[..], numbers, frame].concat());
        tagged(&ethernet(&packet), &[(0x8100, 42)])
    }

    #[test]
    fn ip_in_ppp_is_read() {
        let inner = ipv4(17, &udp(1, 2, b"payload"));
        for (flags, numbers, ppp) in [
            ([0x30, 0x81], &[0, 0, 0, 1, 0, 0, 0, 2][..], &[0xff, 3, 0, 0x21][..]),
            ([0x30, 0x01], &[0, 0, 0, 1], &[0, 0x21]),
            ([0x20, 0x01], &[], &[0x21]),
        ] {
            let frame = pptp(flags, numbers, &[ppp, &inner].concat());
            let headers = decode(&frame).expect("inner");
            assert_eq!((headers.destination_port, headers.octets), (2, 35));
            assert_eq!(segment_text(&headers), "default/vlan/42");
            let inner_at = frame.len() - inner.len();
            every_shorter_length(&frame, |at, outcome| match outcome {
                Outcome::Snapped(result) if (38..inner_at).contains(&at) => {
                    assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
                }
                Outcome::Snapped(_) | Outcome::WireShort(_) => {}
            });
        }
    }

    #[test]
    fn what_carries_no_ip_is_a_flow_of_gre() {
        let inner = [&[0, 0x21][..], &ipv4(17, &udp(1, 2, b"payload"))].concat();
        for frame in [
            pptp([0x20, 0x81], &[0, 0, 0, 2], &[]),
            pptp([0x30, 0x01], &[0, 0, 0, 1], &[0xff, 3, 0xc0, 0x21, 1, 1, 0, 4]),
            pptp([0x30, 0x01], &[0, 0, 0, 1], &[0, 0xfd, 1, 2, 3]),
            pptp([0x00, 0x01], &[], &inner),
            pptp([0xa0, 0x01], &[], &inner),
        ] {
            let headers = decode(&frame).expect("a flow");
            assert_eq!((headers.protocol, headers.source_port), (47, 0));
            assert_eq!(headers.payload_octets as usize, frame.len() - 38);
            assert!(headers.octets > 24);
        }
        let whole = pptp([0x20, 0x01], &[], &inner);
        for length in 38 + 4..whole.len() {
            let part = whole.get(38..length).expect("shorter");
            let headers = decode(&ethernet(&ipv4(47, part))).expect("a flow");
            assert_eq!((headers.protocol, headers.payload_octets as usize), (47, length - 38));
        }
    }
}
