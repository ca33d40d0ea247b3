//! GRE with key, checksum and sequence number; NVGRE; the way to ERSPAN.
//!
//! In: the payload of an IP packet. Out: what the protocol type names; the key names the segment,
//! or the tap where one claims it as its mirror.
//! Cost: one length check for each part.
//! Invariants: source routing is not looked into: a flow of protocol 47. In UDP what cannot be GRE is
//! a flow of its port; version 1 is PPTP's.
//! Source: RFC 2784 section 2; RFC 2890 section 2; NVGRE, RFC 7637 section 3.2; version 1,
//! RFC 2637 section 4.1; in UDP, RFC 8086 section 3.

use super::decoder::Rules;
use super::ethernet::ether_type;
use super::tap::MirrorTunnel;
use super::transport::without_ports;
use super::walk::{Next, Step, Walk};
use super::{Headers, Marks, erspan, pptp, protocol};
use crate::counters::DropCause;
use crate::inventory::SegmentKind;

const FLAG_CHECKSUM: u16 = 0x8000;
const FLAG_ROUTING: u16 = 0x4000;
const FLAG_KEY: u16 = 0x2000;
const FLAG_SEQUENCE: u16 = 0x1000;
const VERSION_MASK: u16 = 7;

/// The first four octets of a GRE header.
#[derive(Clone, Copy, Debug)]
pub struct Gre<'a>(pub &'a [u8; 4]);

impl Gre<'_> {
    /// Flags and version.
    pub const fn flags(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// EtherType of what is inside.
    pub const fn protocol_type(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }
}

/// What a header of version 0 says, in one go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) protocol_type: u16,
    pub(super) key: Option<u32>,
    pub(super) sequence: Option<u32>,
    /// Length of the header.
    pub(super) octets: u32,
}

impl Parts {
    /// `None` where it is of another version, has source routes, or is not all there.
    #[inline]
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        let header = Gre(payload.first_chunk()?);
        let flags = header.flags();
        if flags & (FLAG_ROUTING | VERSION_MASK) != 0 {
            return None;
        }
        let mut octets = if flags & FLAG_CHECKSUM == 0 { 4 } else { 8 };
        let mut parts =
            Self { protocol_type: header.protocol_type(), key: None, sequence: None, octets };
        for (flag, part) in [(FLAG_KEY, &mut parts.key), (FLAG_SEQUENCE, &mut parts.sequence)] {
            if flags & flag != 0 {
                let part_octets = payload.get(octets as usize..)?.first_chunk()?;
                *part = Some(u32::from_be_bytes(*part_octets));
                octets += 4;
            }
        }
        Some(Self { octets, ..parts })
    }
}

/// Takes the header with its optional parts.
pub(super) fn step(walk: &mut Walk<'_>, out: &mut Headers, rules: &Rules) -> Step {
    let Some((header, _)) = walk.rest.split_first_chunk() else {
        return Err(walk.short(4, DropCause::MalformedGre));
    };
    let header = Gre(header);
    let flags = header.flags();
    match flags & VERSION_MASK {
        0 if flags & FLAG_ROUTING == 0 => {}
        1 => return pptp::step(walk, out),
        0 => return without_ports(walk, out, protocol::GRE),
        _ => return Err(DropCause::MalformedGre),
    }
    walk.take::<4>(DropCause::MalformedGre)?;
    if flags & FLAG_CHECKSUM != 0 {
        walk.take::<4>(DropCause::MalformedGre)?;
    }
    let key = optional(walk, flags & FLAG_KEY)?;
    let sequence = optional(walk, flags & FLAG_SEQUENCE)?;
    let next = match header.protocol_type() {
        ether_type::TRANSPARENT_ETHERNET => Next::Ethernet,
        ether_type::IPV4 => Next::Ipv4,
        ether_type::IPV6 => Next::Ipv6,
        ether_type::MPLS | ether_type::MPLS_UPSTREAM => Next::Mpls,
        ether_type::NSH => Next::Nsh,
        kind @ (erspan::PROTOCOL_TYPE_I_II | erspan::PROTOCOL_TYPE_III) => {
            return erspan::step(walk, out, rules, kind, sequence);
        }
        _ => return Err(DropCause::UnsupportedTunnel),
    };
    if let Some(tap) = rules.claim(walk, out, MirrorTunnel::Gre(key)) {
        mirror_sequence(walk, out, sequence);
        walk.enter_mirror(Some(tap))?;
    } else if next == Next::Ethernet && rules.nvgre {
        // Virtual subnet id (24 bits), then the flow id.
        walk.enter_overlay(SegmentKind::Nvgre, key.unwrap_or(0) >> 8)?;
    } else {
        walk.enter_overlay(SegmentKind::Gre, key.unwrap_or(0))?;
    }
    Ok(next)
}

/// The same in UDP; `None` where the payload cannot be GRE.
pub(super) fn step_in_udp(
    walk: &mut Walk<'_>,
    out: &mut Headers,
    rules: &Rules,
) -> Result<Option<Next>, DropCause> {
    let Some(header) = walk.peek(0)?.map(Gre) else { return Ok(None) };
    let flags = header.flags();
    let parts = [FLAG_CHECKSUM, FLAG_KEY, FLAG_SEQUENCE];
    let parts_octets = 4 * parts.into_iter().filter(|part| flags & part != 0).count();
    let has_room = (4 + parts_octets) < walk.limit as usize;
    if flags & !(FLAG_CHECKSUM | FLAG_KEY | FLAG_SEQUENCE) != 0 || !has_room {
        return Ok(None);
    }
    match header.protocol_type() {
        ether_type::TRANSPARENT_ETHERNET
        | ether_type::IPV4
        | ether_type::IPV6
        | ether_type::MPLS
        | ether_type::MPLS_UPSTREAM
        | ether_type::NSH
        | erspan::PROTOCOL_TYPE_I_II
        | erspan::PROTOCOL_TYPE_III => step(walk, out, rules).map(Some),
        _ => Ok(None),
    }
}

fn optional(walk: &mut Walk<'_>, flag: u16) -> Result<Option<u32>, DropCause> {
    if flag == 0 {
        return Ok(None);
    }
    Ok(Some(u32::from_be_bytes(*walk.take(DropCause::MalformedGre)?)))
}

/// Notes the sequence number of a mirror, which shows its losses.
pub(super) fn mirror_sequence(walk: &mut Walk<'_>, out: &mut Headers, sequence: Option<u32>) {
    if let Some(sequence) = sequence {
        out.mirror_sequence = sequence;
        walk.marks.set(Marks::MIRROR_SEQUENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DecodePlan, Plan, TapMatch, TapPlan};
    use crate::decode::testing::{
        Outcome, decode, decode_with, decoder_of, ethernet, every_shorter_length, frame_of, gre,
        ipv4, ipv6, segment_text, tagged, udp,
    };
    use crate::index::TapIndex;

    fn inner() -> Vec<u8> {
        ethernet(&ipv4(17, &udp(1, 2, b"payload")))
    }

    #[test]
    fn the_key_names_the_segment() {
        let (four, six) = (ipv4(17, &udp(1, 2, b"x")), ipv6(17, &udp(1, 2, b"x")));
        let tag = tagged(&inner(), &[(0x8100, 10)]);
        for (flags, kind, inner, segment) in [
            (0, 0x0800, &four, "default/gre/0"),
            (FLAG_KEY, 0x86dd, &six, "default/gre/305419896"),
            (FLAG_KEY | FLAG_CHECKSUM | FLAG_SEQUENCE, 0x6558, &inner(), "default/gre/305419896"),
            (FLAG_KEY, 0x6558, &tag, "default/gre/305419896.10"),
        ] {
            let frame = gre(flags, kind, 0x1234_5678, inner);
            let headers = decode(&frame).expect("inner");
            assert_eq!(segment_text(&headers), segment);
            assert_eq!(headers.marks.has(Marks::ETHERNET), kind == 0x6558);
            assert!(!headers.marks.has(Marks::MIRROR_SEQUENCE), "overlay, no mirror");
            every_shorter_length(&frame, |at, outcome| {
                let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
                if let Ok(headers) = result {
                    assert_eq!(segment_text(&headers), segment, "{at}");
                    assert!(headers.marks.has(Marks::SNAPPED));
                }
            });
        }
    }

    #[test]
    fn two_tags_do_not_fit_beside_a_key() {
        let two = tagged(&inner(), &[(0x88a8, 10), (0x8100, 20)]);
        let frame = gre(FLAG_KEY, 0x6558, 1, &two);
        assert_eq!(decode(&frame).err(), Some(DropCause::UnsupportedTunnel));
    }

    #[test]
    fn nvgre_reads_the_key_in_two_parts() {
        let decode_plan = DecodePlan { nvgre: true, ..DecodePlan::default() };
        let decoder = decoder_of(&Plan { decode: decode_plan, ..Plan::default() });
        let frame = gre(FLAG_KEY, 0x6558, 0x0012_34ff, &inner());
        let headers = decode_with(&decoder, &frame_of(&frame)).expect("inner");
        assert_eq!(segment_text(&headers), "default/nvgre/4660");
    }

    #[test]
    fn a_claimed_key_is_a_mirror_with_a_sequence() {
        let matches = TapMatch { gre_key: Some(7), ..TapMatch::default() };
        let tap = TapPlan { matches, domain: 1, ..TapPlan::default() };
        let domains = vec!["default".to_owned(), "east".to_owned()];
        let decoder = decoder_of(&Plan { taps: vec![tap], domains, ..Plan::default() });
        let frame = gre(FLAG_KEY | FLAG_SEQUENCE, 0x6558, 7, &inner());
        let headers = decode_with(&decoder, &frame_of(&frame)).expect("inner");
        assert_eq!((headers.tap, headers.segment.domain()), (TapIndex(0), 1));
        assert_eq!(headers.segment.kind(), SegmentKind::None);
        assert!(headers.marks.has(Marks::MIRROR_SEQUENCE));
        assert_eq!(headers.mirror_sequence, 0xabcd);
        let cut = gre(FLAG_KEY, 0x6558, 7, inner().get(..44).expect("shorter"));
        let headers = decode_with(&decoder, &frame_of(&cut)).expect("cut by the mirror");
        assert!(headers.marks.has(Marks::SNAPPED) && headers.marks.has(Marks::MIRROR_TRUNCATED));
        assert_eq!((headers.octets, headers.payload_captured_octets), (35, 2));
    }

    #[test]
    fn in_udp_it_is_gre_or_a_flow_of_the_port() {
        let in_udp = |payload: &[u8]| ethernet(&ipv4(17, &udp(9, 4754, payload)));
        let whole = [&[0x20, 0, 0x65, 0x58, 0, 0, 0, 7][..], &inner()].concat();
        let frame = in_udp(&whole);
        let headers = decode(&frame).expect("inner");
        assert_eq!((headers.source_port, headers.octets), (1, 35));
        assert_eq!(segment_text(&headers), "default/gre/7");
        every_shorter_length(&frame, |at, outcome| match outcome {
            Outcome::Snapped(result) if (42..88).contains(&at) => {
                assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
            }
            Outcome::Snapped(_) | Outcome::WireShort(_) => {}
        });
        for length in 0..=8 {
            let headers = decode(&in_udp(whole.get(..length).expect("shorter"))).expect("a flow");
            assert_eq!((headers.source_port, headers.destination_port), (9, 4754), "{length}");
        }
        for first in [[0x30, 1, 0x88, 0x0b], [0x40, 0, 8, 0], [0, 1, 8, 0], [0, 0, 0x88, 0x3e]] {
            let payload = [&first[..], &ipv4(17, &udp(1, 2, b"x"))].concat();
            assert_eq!(decode(&in_udp(&payload)).expect("a flow").destination_port, 4754);
        }
    }

    #[test]
    fn pptp_and_source_routes_are_flows_of_gre() {
        for first in [[0x30, 0x81, 0x88, 0x0b], [0x40, 0, 8, 0]] {
            let payload = [&first[..], &[0; 12]].concat();
            let headers = decode(&ethernet(&ipv4(47, &payload))).expect("a flow");
            assert_eq!((headers.protocol, headers.payload_octets), (47, 16));
        }
        let version_2 = ethernet(&ipv4(47, &[0, 2, 8, 0]));
        assert_eq!(decode(&version_2).err(), Some(DropCause::MalformedGre));
        let keep_alive = ethernet(&ipv4(47, &[0, 0, 0, 0]));
        assert_eq!(decode(&keep_alive).err(), Some(DropCause::UnsupportedTunnel));
        for length in 0..4 {
            let short = ethernet(&ipv4(47, [0; 4].get(..length).expect("shorter")));
            assert_eq!(decode(&short).err(), Some(DropCause::MalformedGre), "{length}");
        }
    }
}
