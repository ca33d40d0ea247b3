//! BSD loopback and raw IP captures.
//!
//! In: a frame of link type 0, 108, 101, 228 or 229. Out: the IP header comes next.
//! Cost: one length check.
//! Invariants: no Ethernet header, so no MAC addresses and no layer-2 octets.
//! Source: tcpdump.org, LINKTYPE_NULL, LINKTYPE_LOOP and LINKTYPE_RAW.

use super::walk::{Next, Step, Walk};
use crate::counters::DropCause;

/// `AF_INET` everywhere.
const FAMILY_IPV4: u32 = 2;
/// `AF_INET6` of Linux, NetBSD, FreeBSD and Darwin.
const FAMILIES_IPV6: [u32; 4] = [10, 24, 28, 30];

/// Takes the address family, in the byte order of the host that captured.
pub(super) fn step(walk: &mut Walk<'_>) -> Step {
    let octets = *walk.take(DropCause::MalformedLink)?;
    let is = |family: u32| family.to_be_bytes() == octets || family.to_le_bytes() == octets;
    if is(FAMILY_IPV4) {
        Ok(Next::Ipv4)
    } else if FAMILIES_IPV6.into_iter().any(is) {
        Ok(Next::Ipv6)
    } else {
        Err(DropCause::NotIpOther)
    }
}

/// Looks at the version of a frame that begins with its IP header.
pub(super) fn step_raw(walk: &mut Walk<'_>) -> Step {
    match walk.rest.first().map(|first| first >> 4) {
        Some(6) => Ok(Next::Ipv6),
        // Any other version is malformed IPv4, as the header's own check finds.
        Some(_) => Ok(Next::Ipv4),
        None => Err(walk.short(1, DropCause::MalformedLink)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::LinkType;
    use crate::config::Plan;
    use crate::decode::Headers;
    use crate::decode::testing::{decode_with, decoder_of, frame_of, ipv4, ipv6, udp};

    fn decode(link: LinkType, bytes: &[u8]) -> Result<Headers, DropCause> {
        let mut frame = frame_of(bytes);
        frame.link = link;
        decode_with(&decoder_of(&Plan::default()), &frame)
    }

    #[test]
    fn both_byte_orders_of_the_family_are_read() {
        let (four, six) = (ipv4(17, &udp(1, 2, b"x")), ipv6(17, &udp(1, 2, b"x")));
        for (family, packet, version) in
            [([2, 0, 0, 0], &four, 4), ([0, 0, 0, 2], &four, 4), ([30, 0, 0, 0], &six, 6)]
        {
            let headers = decode(LinkType::Loopback, &[&family[..], packet].concat()).expect("IP");
            assert_eq!((headers.ip_version, headers.destination_port), (version, 2));
            assert_eq!(headers.layer2_octets, headers.octets);
        }
        let other = decode(LinkType::Loopback, &[7, 0, 0, 0]);
        assert_eq!(other.err(), Some(DropCause::NotIpOther));
        let short = decode(LinkType::Loopback, &[2, 0, 0]);
        assert_eq!(short.err(), Some(DropCause::MalformedLink));
    }

    #[test]
    fn raw_packets_go_by_their_version() {
        let (four, six) = (ipv4(17, &udp(1, 2, b"x")), ipv6(17, &udp(1, 2, b"x")));
        assert_eq!(decode(LinkType::RawIp, &four).expect("IP").ip_version, 4);
        assert_eq!(decode(LinkType::RawIp, &six).expect("IP").ip_version, 6);
        assert_eq!(decode(LinkType::RawIp, &[0x50; 40]).err(), Some(DropCause::MalformedIpv4));
        assert_eq!(decode(LinkType::RawIp, &[]).err(), Some(DropCause::MalformedLink));
    }

    #[test]
    fn other_link_types_are_counted() {
        let result = decode(LinkType::Unsupported(195), &[0; 60]);
        assert_eq!(result.err(), Some(DropCause::UnsupportedLinkType));
    }
}
