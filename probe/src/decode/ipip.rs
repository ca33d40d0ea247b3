//! IP in IP: 4in4, 6in4, 4in6, 6in6.
//!
//! In: IP protocol 4 or 41. Out: the inner IP header comes next.
//! Cost: nothing but the inner header.
//! Invariants: no header of its own, so it names no segment: tags and tunnel around it stay.
//! Source: RFC 2003; RFC 4213 section 3; RFC 2473.

use super::protocol;
use super::walk::{Next, Step, Walk};

/// Goes to the inner header.
pub(super) fn step(walk: &mut Walk<'_>, number: u8) -> Step {
    walk.descend()?;
    Ok(if number == protocol::IPIP { Next::Ipv4 } else { Next::Ipv6 })
}

#[cfg(test)]
mod tests {
    use crate::counters::DropCause;
    use crate::decode::Marks;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, ipv6, segment_text, set_u16, tagged,
        udp, with_ether_type,
    };

    #[test]
    fn all_four_pairs_are_taken_off() {
        let (inner4, inner6) = (ipv4(17, &udp(1, 2, b"x")), ipv6(17, &udp(1, 2, b"x")));
        for (frame, version, octets) in [
            (ethernet(&ipv4(4, &inner4)), 4, 29),
            (ethernet(&ipv4(41, &inner6)), 6, 49),
            (with_ether_type(0x86dd, &ipv6(4, &inner4)), 4, 29),
            (with_ether_type(0x86dd, &ipv6(41, &inner6)), 6, 49),
        ] {
            let headers = decode(&tagged(&frame, &[(0x8100, 42)])).expect("UDP");
            assert_eq!((headers.ip_version, headers.octets), (version, octets));
            assert_eq!((headers.source_port, headers.layer2_octets), (1, octets + 14));
            assert_eq!(segment_text(&headers), "default/vlan/42");
            every_shorter_length(&frame, |at, outcome| {
                let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
                if let Ok(headers) = result {
                    assert_eq!((headers.octets, headers.ip_version), (octets, version), "{at}");
                    assert!(headers.marks.has(Marks::SNAPPED));
                }
            });
        }
    }

    #[test]
    fn the_depth_is_bounded() {
        let mut packet = ipv4(17, &udp(1, 2, b"x"));
        for depth in 1..=5 {
            packet = ipv4(4, &packet);
            let result = decode(&ethernet(&packet));
            assert_eq!(result.err(), (depth > 4).then_some(DropCause::TooDeep));
        }
    }

    #[test]
    fn a_fragmented_tunnel_shows_its_first_packet() {
        let mut outer = ethernet(&ipv4(4, &ipv4(17, &udp(1, 2, b"payload"))));
        // 3 octets of the inner packet are in the next fragment.
        outer.truncate(outer.len() - 3);
        let total = u16::try_from(outer.len() - 14).expect("short");
        set_u16(&mut outer, 16, total);
        for (flags, mirror) in [(0, true), (0x2000, false)] {
            set_u16(&mut outer, 20, flags);
            let headers = decode(&outer).expect("inner");
            assert_eq!((headers.octets, headers.payload_octets), (35, 7));
            assert!(headers.marks.has(Marks::SNAPPED) && !headers.marks.has(Marks::FRAGMENT));
            assert_eq!(headers.marks.has(Marks::MIRROR_TRUNCATED), mirror);
        }
        set_u16(&mut outer, 20, 0x0010);
        let headers = decode(&outer).expect("outer");
        assert_eq!((headers.protocol, headers.fragment_offset), (4, 128));
    }
}
