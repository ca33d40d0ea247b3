//! IPv6 headers and their extension headers.
//!
//! In: an IPv6 packet, perhaps with padding behind it. Out: addresses, lengths, fragment fields,
//! and the protocol behind the extension headers.
//! Cost: one length check, and one more for each extension header.
//! Invariants: at most [`EXTENSIONS_MAX`] extension headers in a frame, so a chain of them ends.
//! Source: RFC 8200 sections 3 and 4; jumbograms, RFC 2675; authentication header, RFC 4302.

use super::walk::{Next, Step, Walk};
use super::{Address, Headers, Marks};
use crate::counters::DropCause;

/// Extension headers in one frame at most; senders use two or three.
pub const EXTENSIONS_MAX: u8 = 10;

/// Header octets, which the payload length does not count.
pub const HEADER_OCTETS: u32 = 40;

/// Numbers of the extension headers (IANA "IPv6 Extension Header Types").
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const NO_NEXT_HEADER: u8 = 59;
    pub(super) const DESTINATION_OPTIONS: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// An IPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a>(pub &'a [u8; 40]);

impl Ipv6<'_> {
    /// Version; 6.
    #[inline]
    pub const fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(self) -> u8 {
        (self.0[0] << 4) | (self.0[1] >> 4)
    }

    /// Octets behind this header; 0 in a jumbogram.
    #[inline]
    pub const fn payload_octets(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Number of the next header (IANA protocol number).
    #[inline]
    pub const fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[inline]
    pub const fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// Source address.
    #[inline]
    pub fn source(self) -> Address {
        let [_, _, _, _, _, _, _, _, address @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            *self.0;
        Address(address)
    }

    /// Destination address.
    #[inline]
    pub fn destination(self) -> Address {
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, address @ ..] =
            *self.0;
        Address(address)
    }
}

/// A fragment header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6Fragment<'a>(pub &'a [u8; 8]);

impl Ipv6Fragment<'_> {
    /// Number of the first header of the fragmentable part.
    pub const fn next_header(self) -> u8 {
        self.0[0]
    }

    /// Offset in octets.
    pub const fn offset_octets(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]]) & 0xfff8
    }

    /// Whether more fragments follow.
    pub const fn more(self) -> bool {
        self.0[3] & 1 == 1
    }

    /// Identification of the packet, the same in all its fragments.
    pub const fn identification(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }
}

/// Whether an IPv6 packet that fits in `limit` octets may begin here. Used where a format does not
/// say what it carries.
pub(super) fn fits(octets: &[u8], limit: u32) -> bool {
    octets.first_chunk().is_some_and(|[first, _, _, _, high, low]: &[u8; 6]| {
        first >> 4 == 6 && u32::from(u16::from_be_bytes([*high, *low])) + HEADER_OCTETS <= limit
    })
}

/// Takes the header and leaves out what stands behind the packet.
#[inline]
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    let header = Ipv6(walk.take(DropCause::MalformedIpv6)?);
    if header.version() != 6 {
        return Err(DropCause::MalformedIpv6);
    }
    // Payload length 0 is a jumbogram, or left to the sender's NIC, unless nothing follows.
    let payload = match (header.payload_octets(), header.next_header()) {
        (0, next) if next != extension::NO_NEXT_HEADER => walk.limit,
        (octets, _) => u32::from(octets),
    };
    walk.enter_ip(payload);
    out.ip_version = 6;
    out.source = header.source();
    out.destination = header.destination();
    out.octets = payload.saturating_add(HEADER_OCTETS);
    out.ttl = header.hop_limit();
    out.traffic_class = header.traffic_class();
    out.ip_identification = 0;
    out.fragment_offset = 0;
    Ok(Next::Protocol(header.next_header()))
}

/// Whether `protocol` is an extension header that [`extension_step`] takes.
#[inline]
pub(super) const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::FRAGMENT
            | extension::AUTHENTICATION
            | extension::DESTINATION_OPTIONS
            | extension::MOBILITY
            | extension::HIP
            | extension::SHIM6
    )
}

/// Takes one extension header. The authentication header stands in IPv4 too, the others are
/// protocols like any other there.
pub(super) fn extension_step(walk: &mut Walk<'_>, out: &mut Headers, protocol: u8) -> Step {
    let malformed =
        if out.ip_version == 4 { DropCause::MalformedIpv4 } else { DropCause::MalformedIpv6 };
    walk.extensions_left = walk.extensions_left.checked_sub(1).ok_or(malformed)?;
    match protocol {
        extension::FRAGMENT => fragment(walk, out),
        // RFC 4302 section 2.2: in words of four octets, minus two.
        extension::AUTHENTICATION => skip(walk, malformed, |length| (length + 2) * 4),
        extension::MOBILITY | extension::HIP | extension::SHIM6 if is_last(walk) => {
            super::transport::without_ports(walk, out, protocol)
        }
        // RFC 8200 section 4.3: in units of eight octets, without the first.
        _ => skip(walk, malformed, |length| (length + 1) * 8),
    }
}

/// Signalling that carries no packet is what the flow is about, not a header before it.
fn is_last(walk: &Walk<'_>) -> bool {
    walk.rest.first() == Some(&extension::NO_NEXT_HEADER)
}

fn skip(walk: &mut Walk<'_>, malformed: DropCause, octets_of: impl Fn(u32) -> u32) -> Step {
    let Some(&[next, length]) = walk.rest.first_chunk() else {
        return Err(walk.short(2, malformed));
    };
    walk.skip(octets_of(u32::from(length)), malformed)?;
    Ok(Next::Protocol(next))
}

fn fragment(walk: &mut Walk<'_>, out: &mut Headers) -> Step {
    let header = Ipv6Fragment(walk.take(DropCause::MalformedIpv6)?);
    out.ip_identification = header.identification();
    out.fragment_offset = header.offset_octets();
    // An atomic fragment (RFC 6946) is whole.
    if header.more() || header.offset_octets() != 0 {
        walk.ip_marks.set(Marks::FRAGMENT);
    }
    if header.more() {
        walk.ip_marks.set(Marks::MORE_FRAGMENTS);
    }
    if header.offset_octets() != 0 {
        walk.ip_marks.set(Marks::LATER_FRAGMENT);
    }
    Ok(Next::Protocol(header.next_header()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::with_ether_type;
    use crate::decode::testing::{Outcome, decode, every_shorter_length, ipv6, set_u16, udp};

    fn frame(next: u8, payload: &[u8]) -> Vec<u8> {
        with_ether_type(0x86dd, &ipv6(next, payload))
    }

    fn payload() -> Vec<u8> {
        udp(1000, 53, b"payload")
    }

    #[test]
    fn fields_are_read() {
        let headers = decode(&frame(17, &payload())).expect("whole");
        assert_eq!(headers.source.to_ip(6).to_string(), "fd00::1");
        assert_eq!(headers.destination.to_ip(6).to_string(), "fd00::2");
        assert_eq!((headers.ip_version, headers.protocol, headers.ttl), (6, 17, 64));
        assert_eq!((headers.octets, headers.layer2_octets), (55, 69));
        assert_eq!((headers.traffic_class, headers.ip_identification), (0xb8, 0));
        assert_eq!((headers.source_port, headers.payload_octets), (1000, 7));
    }

    #[test]
    fn extension_headers_are_skipped_and_counted() {
        let chain = [
            &[43, 0, 1, 4, 0, 0, 0, 0][..],
            &[60, 0, 0, 0, 0, 0, 0, 0],
            &[51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &payload(),
        ]
        .concat();
        let bytes = frame(0, &chain);
        let headers = decode(&bytes).expect("whole");
        assert_eq!((headers.protocol, headers.source_port), (17, 1000));
        assert_eq!((headers.octets, headers.payload_octets), (40 + 56 + 15, 7));
        every_shorter_length(&bytes, |length, outcome| {
            let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
            assert_eq!(result.is_ok(), length >= 14 + 40 + 56 + 4, "{length}");
        });
    }

    #[test]
    fn an_endless_chain_is_malformed() {
        let chain: Vec<u8> = [60, 0, 0, 0, 0, 0, 0, 0].repeat(usize::from(EXTENSIONS_MAX) + 1);
        assert_eq!(decode(&frame(60, &chain)).err(), Some(DropCause::MalformedIpv6));
    }

    #[test]
    fn fragments_are_marked() {
        let first = [&[17, 0, 0, 1, 0, 0, 0, 9][..], &payload()].concat();
        let headers = decode(&frame(44, &first)).expect("first");
        assert_eq!((headers.source_port, headers.ip_identification), (1000, 9));
        assert!(headers.marks.has(Marks::FRAGMENT) && headers.marks.has(Marks::MORE_FRAGMENTS));
        let later = [&[17, 0, 0, 16, 0, 0, 0, 9][..], &payload()].concat();
        let headers = decode(&frame(44, &later)).expect("later");
        assert_eq!((headers.source_port, headers.fragment_offset), (0, 16));
        assert!(headers.marks.has(Marks::LATER_FRAGMENT));
        let atomic = [&[17, 0, 0, 0, 0, 0, 0, 9][..], &payload()].concat();
        let headers = decode(&frame(44, &atomic)).expect("atomic");
        assert_eq!(headers.source_port, 1000);
        assert!(!headers.marks.has(Marks::FRAGMENT));
    }

    #[test]
    fn signalling_and_nothing_have_no_ports() {
        let mobility = [59, 0, 5, 0, 0, 0, 0, 0];
        let headers = decode(&frame(135, &mobility)).expect("mobility");
        assert_eq!((headers.protocol, headers.payload_octets), (135, 8));
        let headers = decode(&frame(59, &[])).expect("nothing");
        assert_eq!((headers.protocol, headers.octets), (59, 40));
    }

    #[test]
    fn a_payload_length_of_zero_takes_the_frames() {
        let mut bytes = frame(17, &payload());
        set_u16(&mut bytes, 18, 0);
        assert_eq!(decode(&bytes).expect("jumbo").octets, 55);
    }

    #[test]
    fn wrong_versions_are_malformed_and_longer_packets_cut() {
        let mut bytes = frame(17, &payload());
        set_u16(&mut bytes, 18, 1000);
        let headers = decode(&bytes).expect("cut by a mirror");
        assert_eq!((headers.octets, headers.payload_captured_octets), (1040, 7));
        assert!(headers.marks.has(Marks::MIRROR_TRUNCATED));
        set_u16(&mut bytes, 14, 0x4000);
        assert_eq!(decode(&bytes).err(), Some(DropCause::MalformedIpv6));
        set_u16(&mut bytes, 14, 0x6000);
        for length in 14..54 {
            let short = decode(bytes.get(..length).expect("shorter"));
            assert_eq!(short.err(), Some(DropCause::MalformedIpv6), "{length}");
        }
    }
}
