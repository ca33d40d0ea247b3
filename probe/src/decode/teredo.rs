//! Teredo: IPv6 in UDP through network address translation.
//!
//! In: a UDP payload with the port of a Teredo server at either end. Out: the IPv6 packet comes
//! next.
//! Cost: a length check for each part.
//! Invariants: the payload is an IPv6 packet that fits and has an address that Teredo gives, behind
//! an authentication and an origin indication at most, or it is a UDP flow like any other; names no
//! segment.
//! Source: RFC 4380 section 5.1.1; addresses, section 2.6 and 4; trailers behind the packet, RFC 6081
//! section 4.

use super::ipv6::{self, Ipv6};
use super::walk::{Next, Walk};
use crate::counters::DropCause;

const ORIGIN: [u8; 2] = [0, 0];
const ORIGIN_OCTETS: u32 = 8;
const AUTHENTICATION: [u8; 2] = [0, 1];
/// Type, both lengths, nonce and confirmation.
const AUTHENTICATION_OCTETS: u32 = 13;

/// Takes what stands before the packet; `None` where there is no packet.
pub(super) fn step(walk: &mut Walk<'_>) -> Result<Option<Next>, DropCause> {
    let Some(begin) = packet_begin(walk)? else { return Ok(None) };
    let Some(header) = walk.peek::<6>(begin)? else { return Ok(None) };
    if !ipv6::fits(header, walk.limit - begin) {
        return Ok(None);
    }
    let is_of_teredo = walk.peek(begin)?.map(Ipv6).is_some_and(has_address_of_teredo);
    if !is_of_teredo {
        return Ok(None);
    }
    let [.., high, low] = *header;
    let octets = ipv6::HEADER_OCTETS + u32::from(u16::from_be_bytes([high, low]));
    walk.skip(begin, DropCause::UnsupportedTunnel)?;
    walk.narrow(octets);
    walk.descend()?;
    Ok(Some(Next::Ipv6))
}

/// Whether a client is at either end (section 2.6), or one that asks for its address by a link-local
/// one (section 5.2.1). Version and length alone are in many a payload, and whoever sends it chose the
/// port.
fn has_address_of_teredo(header: Ipv6<'_>) -> bool {
    [header.source().0, header.destination().0].into_iter().any(|address| match address {
        [0x20, 0x01, 0, 0, ..] => true,
        [first, second, ..] => first == 0xfe && second & 0xc0 == 0x80,
    })
}

fn packet_begin(walk: &Walk<'_>) -> Result<Option<u32>, DropCause> {
    let mut begin = 0;
    if walk.peek(begin)? == Some(&AUTHENTICATION) {
        let Some(&[_, _, identifier, value]) = walk.peek::<4>(begin)? else { return Ok(None) };
        begin += AUTHENTICATION_OCTETS + u32::from(identifier) + u32::from(value);
    }
    if walk.peek(begin)? == Some(&ORIGIN) {
        begin += ORIGIN_OCTETS;
    }
    Ok((begin < walk.limit).then_some(begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, ipv6, udp,
    };

    const AUTHENTICATED: [u8; 15] = [0, 1, 1, 1, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0];

    const CLIENT: [u8; 4] = [0x20, 1, 0, 0];
    const LINK_LOCAL: [u8; 4] = [0xfe, 0xbf, 0xff, 0xff];
    const SOURCE_AT: usize = 8;
    const DESTINATION_AT: usize = 24;

    /// From a client's address, or to one.
    fn packet(at: usize, prefix: [u8; 4], next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = ipv6(next, payload);
        packet.get_mut(at..at + 4).expect("an address").copy_from_slice(&prefix);
        packet
    }

    fn teredo(ports: (u16, u16), before: &[&[u8]], inner: &[u8]) -> Vec<u8> {
        ethernet(&ipv4(17, &udp(ports.0, ports.1, &[&before.concat(), inner].concat())))
    }

    #[test]
    fn packets_are_found_behind_indications_and_in_both_directions() {
        let inner = packet(SOURCE_AT, CLIENT, 17, &udp(1, 2, b"x"));
        for ports in [(50_000, 3544), (3544, 50_000)] {
            for before in [
                &[][..],
                &[&[0, 0, 1, 2, 3, 4, 5, 6][..]],
                &[&AUTHENTICATED[..]],
                &[&AUTHENTICATED[..], &[0, 0, 1, 2, 3, 4, 5, 6]],
            ] {
                let frame = teredo(ports, before, &inner);
                let headers = decode(&frame).expect("inner");
                assert_eq!((headers.ip_version, headers.destination_port), (6, 2));
                assert_eq!(headers.octets, 49);
                let inner_at = frame.len() - inner.len();
                every_shorter_length(&frame, |at, outcome| match outcome {
                    Outcome::Snapped(result) if (42..inner_at).contains(&at) => {
                        assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
                    }
                    Outcome::Snapped(_) | Outcome::WireShort(_) => {}
                });
            }
        }
    }

    #[test]
    fn a_bubble_is_a_packet_and_a_trailer_is_none() {
        let bubble = teredo((1, 3544), &[], &packet(DESTINATION_AT, LINK_LOCAL, 59, &[]));
        assert_eq!(decode(&bubble).expect("a bubble").protocol, 59);
        let bare = packet(SOURCE_AT, CLIENT, 59, &[]);
        let trailer = teredo((1, 3544), &[], &[&bare[..], &[4, 4, 0, 0, 0, 9]].concat());
        assert_eq!(decode(&trailer).expect("a bubble").octets, 40);
    }

    #[test]
    fn others_are_flows_of_the_port() {
        let inner = packet(SOURCE_AT, CLIENT, 17, &udp(1, 2, b"x"));
        let whole = [&AUTHENTICATED[..], &inner].concat();
        for length in 0..whole.len() {
            let part = whole.get(..length).expect("shorter");
            let headers = decode(&teredo((7, 3544), &[], part)).expect("a flow");
            assert_eq!((headers.ip_version, headers.destination_port), (4, 3544), "{length}");
        }
        let four = ipv4(17, &udp(1, 2, b"x"));
        assert_eq!(decode(&teredo((7, 3544), &[], &four)).expect("a flow").source_port, 7);
    }

    #[test]
    fn a_client_is_at_either_end_or_it_is_a_flow_of_the_port() {
        let ports_of = |inner: &[u8]| {
            let headers = decode(&teredo((3544, 7), &[], inner)).expect("a flow");
            (headers.ip_version, headers.source_port)
        };
        let payload = udp(1, 2, b"x");
        for at in [SOURCE_AT, DESTINATION_AT] {
            for prefix in [CLIENT, [0xfe, 0x80, 0, 0], LINK_LOCAL] {
                assert_eq!(ports_of(&packet(at, prefix, 17, &payload)), (6, 1), "{prefix:x?}");
            }
            for prefix in [[0x20, 1, 0, 1], [0x20, 2, 0, 0], [0xfe, 0xc0, 0, 0], [0; 4]] {
                assert_eq!(ports_of(&packet(at, prefix, 17, &payload)), (4, 3544), "{prefix:x?}");
            }
        }
    }

    #[test]
    fn an_answer_of_a_name_server_to_that_port_is_its_flow() {
        // Its identification begins with 6, and its count of questions is a length that fits.
        let mut answer = vec![0x6a, 0x12, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        answer.extend(b"\x07example\x03com\x00\x00\x01\x00\x01");
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0x2c, 0, 4, 192, 0, 2, 1]);
        let headers = decode(&teredo((53, 3544), &[], &answer)).expect("a flow");
        assert_eq!((headers.ip_version, headers.source_port), (4, 53));
    }
}
