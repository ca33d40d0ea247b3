//! From the IP protocol number to the transport header or the tunnel.
//!
//! In: a protocol number and what follows. Out: the flow's protocol, ports and payload, or the
//! next header inside.
//! Cost: one match; TCP and UDP first.
//! Invariants: a protocol that the decoder does not know is a flow without ports, no error.
//! Source: IANA "Protocol Numbers".

use super::decoder::Rules;
use super::walk::{Next, Step, Walk};
use super::{Headers, Marks, gre, icmp, ipip, ipv6, protocol, sctp, tcp, udp};

/// MPLS in IP (RFC 4023).
const MPLS_IN_IP: u8 = 137;
/// NSH in IP (RFC 9491 section 7, IANA "Protocol Numbers").
const NSH_IN_IP: u8 = 145;
/// Authentication header, in IPv4 and IPv6 (RFC 4302).
const AUTHENTICATION: u8 = 51;

/// Goes where the protocol number says.
#[inline]
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers, rules: &Rules, number: u8) -> Step {
    if walk.ip_marks.has(Marks::LATER_FRAGMENT) {
        return without_ports(walk, out, number);
    }
    match number {
        protocol::TCP => tcp::step(walk, out),
        protocol::UDP => udp::step(walk, out, rules),
        _ => rare(walk, out, rules, number),
    }
}

fn rare(walk: &mut Walk<'_>, out: &mut Headers, rules: &Rules, number: u8) -> Step {
    match number {
        protocol::ICMP | protocol::ICMPV6 => icmp::step(walk, out, number),
        protocol::SCTP => sctp::step(walk, out),
        protocol::IPIP | protocol::IPV6 => ipip::step(walk, number),
        protocol::GRE => gre::step(walk, out, rules),
        MPLS_IN_IP => {
            walk.descend()?;
            Ok(Next::Mpls)
        }
        NSH_IN_IP => {
            walk.descend()?;
            Ok(Next::Nsh)
        }
        AUTHENTICATION => ipv6::extension_step(walk, out, number),
        _ if out.ip_version == 6 && ipv6::is_extension(number) => {
            ipv6::extension_step(walk, out, number)
        }
        _ => without_ports(walk, out, number),
    }
}

/// A flow that its addresses and protocol name: everything behind the IP header is payload.
pub(super) fn without_ports(walk: &mut Walk<'_>, out: &mut Headers, number: u8) -> Step {
    out.protocol = number;
    walk.write_payload(out);
    Ok(Next::Flow)
}

#[cfg(test)]
mod tests {
    use crate::decode::testing::{Outcome, decode, ethernet, every_shorter_length, ipv4, udp};

    #[test]
    fn other_protocols_are_flows_without_ports() {
        for number in [2, 50, 89, 112, 253] {
            let frame = ethernet(&ipv4(number, &[1, 2, 3, 4]));
            let headers = decode(&frame).expect("a flow");
            assert_eq!((headers.protocol, headers.source_port), (number, 0));
            assert_eq!((headers.payload_octets, headers.payload_offset), (4, 34));
        }
    }

    #[test]
    fn the_authentication_header_is_taken_off_in_ipv4_too() {
        let authentication =
            [17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let frame = ethernet(&ipv4(51, &[&authentication[..], &udp(7, 8, b"x")].concat()));
        let headers = decode(&frame).expect("UDP");
        assert_eq!((headers.protocol, headers.destination_port), (17, 8));
        every_shorter_length(&frame, |_, _| ());
    }

    #[test]
    fn groups_and_ciphers_are_flows_at_every_length() {
        // IGMP (RFC 9776 section 4.2) and ESP (RFC 4303 section 2): nothing in them has ports.
        for number in [2, 50] {
            let frame = ethernet(&ipv4(number, &[0x22, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9]));
            every_shorter_length(&frame, |at, outcome| {
                let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
                if at >= 34 {
                    let headers = result.expect("a flow");
                    assert_eq!((headers.protocol, headers.octets), (number, 32), "{at}");
                    assert_eq!((headers.source_port, headers.payload_octets), (0, 12));
                }
            });
        }
    }

    #[test]
    fn nsh_in_ip_is_taken_off() {
        let inner = [&[0, 2, 2, 1, 0, 0, 1, 255][..], &ipv4(17, &udp(7, 8, b"x"))].concat();
        let frame = ethernet(&ipv4(145, &inner));
        assert_eq!(decode(&frame).expect("UDP").destination_port, 8);
        every_shorter_length(&frame, |_, _| ());
    }

    #[test]
    fn mpls_in_ip_is_taken_off() {
        let inner = [&[0, 6, 0x41, 64][..], &ipv4(17, &udp(7, 8, b"x"))].concat();
        assert_eq!(decode(&ethernet(&ipv4(137, &inner))).expect("UDP").destination_port, 8);
    }
}
