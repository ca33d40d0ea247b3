//! The packet that an ICMP error quotes, as the key of its flow.
//!
//! In: what follows the first eight octets of an ICMP error. Out: the quoted addresses, ports and
//! protocol in [`Headers`]; [`Headers::quoted`] names the flow that they are of.
//! Cost: two length checks; only ICMP errors come here.
//! Invariants: the ICMP packet stays one of its own flow. A quote names a flow only if it was sent by
//! whom the error is sent to, is no later fragment and has ports where its protocol has some.
//! Source: RFC 792 (errors quote the header and 64 bits); RFC 4443 section 3.

use super::{Address, Headers, Marks, ipv4::Ipv4, ipv6::Ipv6, protocol};

const OFFSET_MASK: u16 = 0x1fff;

/// Types of errors: destination unreachable, source quench, redirect, time exceeded, parameter
/// problem.
const ERRORS_V4: [u8; 5] = [3, 4, 5, 11, 12];
/// The largest type of an ICMPv6 error is 127; those in use are 1 to 4.
const ERRORS_V6: core::ops::RangeInclusive<u8> = 1..=4;

/// A quoted packet.
struct Quote {
    source: Address,
    destination: Address,
    protocol: u8,
    ports: [u16; 2],
}

/// Notes the flow that an error of type `kind` is about; `false` where it names none.
pub(super) fn note(quoted: &[u8], kind: u8, out: &mut Headers) -> bool {
    let quote = match out.protocol {
        protocol::ICMP if ERRORS_V4.contains(&kind) => of_ipv4(quoted),
        protocol::ICMPV6 if ERRORS_V6.contains(&kind) => of_ipv6(quoted),
        _ => None,
    };
    let Some(quote) = quote.filter(|quote| quote.source == out.destination) else { return false };
    let [a, b, c, d] = words(quote.destination);
    // Fields that ICMP has no use for.
    (out.tcp_sequence, out.tcp_acknowledgement) = (a, b);
    (out.tcp_timestamp_value, out.tcp_timestamp_echo) = (c, d);
    [out.quoted_source_port, out.tcp_window] = quote.ports;
    out.quoted_protocol = quote.protocol;
    true
}

impl Headers {
    /// The quoted packet of an ICMP error: its key, from its sender to its receiver, and what tells
    /// copies of the error apart. It is no packet and is not to be booked.
    #[cold]
    pub fn quoted(&self) -> Option<Self> {
        if !self.marks.has(Marks::ICMP_ERROR) || self.quoted_protocol == 0 {
            return None;
        }
        let destination = [
            self.tcp_sequence,
            self.tcp_acknowledgement,
            self.tcp_timestamp_value,
            self.tcp_timestamp_echo,
        ];
        Some(Self {
            source: self.destination,
            destination: address(destination),
            source_port: self.quoted_source_port,
            destination_port: self.tcp_window,
            protocol: self.quoted_protocol,
            tcp_sequence: 0,
            tcp_acknowledgement: 0,
            tcp_timestamp_value: 0,
            tcp_timestamp_echo: 0,
            tcp_window: 0,
            quoted_source_port: 0,
            quoted_protocol: 0,
            ..*self
        })
    }

    /// Whether this is what [`Headers::quoted`] gave, and no packet.
    #[inline]
    pub const fn is_quote(&self) -> bool {
        self.marks.has(Marks::ICMP_ERROR) && self.quoted_protocol == 0
    }
}

fn of_ipv4(quoted: &[u8]) -> Option<Quote> {
    let header = Ipv4(quoted.first_chunk()?);
    let transport = quoted.get(header.header_octets() as usize..)?;
    if header.version() != 4
        || header.header_octets() < 20
        || header.flags_offset() & OFFSET_MASK != 0
    {
        return None;
    }
    Some(Quote {
        source: Address::v4(header.source()),
        destination: Address::v4(header.destination()),
        protocol: header.protocol(),
        ports: ports(header.protocol(), transport)?,
    })
}

/// Without extension headers: a quote is cut at the least MTU, and few flows have any.
fn of_ipv6(quoted: &[u8]) -> Option<Quote> {
    let (header, transport) = quoted.split_first_chunk()?;
    let header = Ipv6(header);
    if header.version() != 6 || super::ipv6::is_extension(header.next_header()) {
        return None;
    }
    Some(Quote {
        source: header.source(),
        destination: header.destination(),
        protocol: header.next_header(),
        ports: ports(header.next_header(), transport)?,
    })
}

fn ports(number: u8, transport: &[u8]) -> Option<[u16; 2]> {
    match number {
        // Hop-by-hop options stand for no quote at all.
        0 => None,
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let &[a, b, c, d] = transport.first_chunk()?;
            Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
        }
        _ => Some([0; 2]),
    }
}

const fn words(Address(octets): Address) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
        u32::from_be_bytes([i, j, k, l]),
        u32::from_be_bytes([m, n, o, p]),
    ]
}

fn address(words: [u32; 4]) -> Address {
    let mut octets = [0; 16];
    for (place, word) in octets.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    Address(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, ethernet, every_shorter_length, ipv4, ipv6, set_u16, tcp, udp,
        with_ether_type,
    };

    /// An error of a router to who sent `quoted`, which is from 10.0.0.1 or fd00::1.
    fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], quoted].concat();
        let mut frame = ethernet(&ipv4(1, &message));
        // To the sender of what is quoted, from another.
        frame.splice(26..34, [10, 0, 0, 9, 10, 0, 0, 1]);
        frame
    }

    fn error6(kind: u8, quoted: &[u8]) -> Vec<u8> {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], quoted].concat();
        let mut frame = with_ether_type(0x86dd, &ipv6(58, &message));
        // fd00::2 to fd00::1.
        frame.splice(37..38, [2]);
        frame.splice(53..54, [1]);
        frame
    }

    #[test]
    fn the_quoted_flow_is_named_and_the_error_stays_its_own() {
        for (frame, number, ports) in [
            (error(3, &ipv4(17, &udp(1000, 53, b"question"))), 17, (1000, 53)),
            (error(11, &ipv4(6, &tcp(2, &[], &[])[..8])), 6, (40000, 443)),
            (error(3, &ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1])), 1, (0, 0)),
            (error6(1, &ipv6(17, &udp(1000, 53, b"question"))), 17, (1000, 53)),
            (error6(3, &ipv6(6, &tcp(2, &[], &[]))), 6, (40000, 443)),
        ] {
            let headers = decode(&frame).expect("ICMP");
            assert!(headers.marks.has(Marks::ICMP_ERROR) && !headers.is_quote());
            assert!(matches!(headers.protocol, 1 | 58) && headers.source_port == 0);
            let quoted = headers.quoted().expect("a flow");
            assert!(quoted.is_quote() && quoted.quoted().is_none());
            assert_eq!((quoted.source_port, quoted.destination_port), ports);
            assert_eq!((quoted.protocol, quoted.source), (number, headers.destination));
            let far = quoted.destination.to_ip(quoted.ip_version).to_string();
            assert_eq!(far, if quoted.ip_version == 4 { "10.0.0.2" } else { "fd00::2" });
        }
    }

    #[test]
    fn every_shorter_quote_names_the_flow_or_none() {
        let frame = error(3, &ipv4(17, &udp(1000, 53, b"question")));
        every_shorter_length(&frame, |at, outcome| {
            let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
            if let Ok(headers) = result {
                let named = headers.quoted().map(|quoted| quoted.destination_port);
                assert_eq!(named, (at >= 42 + 24).then_some(53), "{at}");
            }
        });
    }

    #[test]
    fn what_is_no_error_or_no_answer_names_nothing() {
        let question = ipv4(17, &udp(1000, 53, b"question"));
        let mut later = question.clone();
        set_u16(&mut later, 6, 0x0010);
        let mut of_another = question.clone();
        of_another.splice(12..16, [10, 0, 0, 7]);
        for frame in [
            error(0, &question),
            error(8, &question),
            error(3, &later),
            error(3, &of_another),
            error(3, &ipv6(17, &udp(1000, 53, b"question"))),
            error6(128, &ipv6(17, &udp(1000, 53, b"question"))),
            error6(1, &ipv6(44, &[17, 0, 0, 0, 0, 0, 0, 1])),
        ] {
            let headers = decode(&frame).expect("ICMP");
            assert!(headers.quoted().is_none() && !headers.marks.has(Marks::ICMP_ERROR));
        }
    }
}
