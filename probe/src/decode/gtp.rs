//! GTP-U: user traffic of mobile networks.
//!
//! In: a UDP payload. Out: the IP packet or Ethernet frame inside; the tunnel endpoint id names the
//! segment only where the configuration says so, because each direction has its own.
//! Cost: one length check, and one more for each extension header.
//! Invariants: signalling (echo, error indication, end marker), GTP' and what does not carry what
//! looks like a packet are UDP flows like any other; at most [`EXTENSIONS_MAX`] extension headers.
//! Source: 3GPP TS 29.281 section 5.1 and 5.2; Ethernet inside, TS 29.561 section 9.

use super::decoder::Rules;
use super::walk::{Next, Walk};
use super::{ethernet, ipv4, ipv6};
use crate::counters::DropCause;
use crate::inventory::SegmentKind;

/// Extension headers in one message at most.
pub const EXTENSIONS_MAX: usize = 8;

/// Version 1, GTP and not GTP', the reserved bit 0; the rest says what is optional.
const FIXED_BITS: u8 = 0xf8;
const VERSION_1_GTP: u8 = 0x30;
const FLAG_EXTENSION: u8 = 4;
const OPTIONAL_FLAGS: u8 = 7;
/// A user's packet.
const G_PDU: u8 = 255;
const HEADER_OCTETS: u32 = 8;
/// Sequence number (2), N-PDU number (1), type of the next extension header (1).
const OPTIONAL_OCTETS: u32 = 4;

/// A GTP-U header without its optional part.
#[derive(Clone, Copy, Debug)]
pub struct Gtp<'a>(pub &'a [u8; 8]);

impl Gtp<'_> {
    /// Message type.
    pub const fn message(self) -> u8 {
        self.0[1]
    }

    /// Octets behind the first eight.
    pub const fn octets(self) -> u32 {
        u16::from_be_bytes([self.0[2], self.0[3]]) as u32
    }

    /// Tunnel endpoint identifier of the receiver.
    pub const fn endpoint(self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    const fn flags(self) -> u8 {
        self.0[0]
    }

    /// Whether it is a user's packet that fits in `limit` octets.
    const fn carries_packet(self, limit: u32) -> bool {
        self.flags() & FIXED_BITS == VERSION_1_GTP
            && self.message() == G_PDU
            && HEADER_OCTETS + self.octets() <= limit
    }
}

/// Takes the header; `None` where this is no user's packet.
pub(super) fn step(walk: &mut Walk<'_>, rules: &Rules) -> Result<Option<Next>, DropCause> {
    let Some(header) = walk.peek(0)?.map(Gtp) else { return Ok(None) };
    if !header.carries_packet(walk.limit) {
        return Ok(None);
    }
    let end = HEADER_OCTETS + header.octets();
    let Some(begin) = payload_begin(walk, header)?.filter(|begin| *begin < end) else {
        return Ok(None);
    };
    let Some(inner) = walk.peek::<6>(begin)? else { return Ok(None) };
    let next = if ipv4::fits(inner, end - begin) {
        Next::Ipv4
    } else if ipv6::fits(inner, end - begin) {
        Next::Ipv6
    } else if ethernet::plausible_at(walk, begin, end - begin)? {
        Next::Ethernet
    } else {
        return Ok(None);
    };
    walk.narrow(end);
    walk.skip(begin, DropCause::UnsupportedTunnel)?;
    if rules.gtp_segments {
        walk.enter_overlay(SegmentKind::Gtp, header.endpoint())?;
    } else {
        walk.descend()?;
    }
    if next == Next::Ethernet {
        walk.ethernet = None;
    }
    Ok(Some(next))
}

/// Where the packet begins, behind the optional part and the extension headers.
fn payload_begin(walk: &Walk<'_>, header: Gtp<'_>) -> Result<Option<u32>, DropCause> {
    if header.flags() & OPTIONAL_FLAGS == 0 {
        return Ok(Some(HEADER_OCTETS));
    }
    let mut begin = HEADER_OCTETS + OPTIONAL_OCTETS;
    let Some(&[mut next]) = walk.peek::<1>(begin - 1)? else { return Ok(None) };
    if header.flags() & FLAG_EXTENSION == 0 {
        return Ok(Some(begin));
    }
    for _ in 0..EXTENSIONS_MAX {
        if next == 0 {
            return Ok(Some(begin));
        }
        // Its length in words of four octets stands first, the type of the next one last.
        let Some(&[words]) = walk.peek::<1>(begin)? else { return Ok(None) };
        if words == 0 {
            return Ok(None);
        }
        begin += u32::from(words) * 4;
        let Some(&[following]) = walk.peek::<1>(begin - 1)? else { return Ok(None) };
        next = following;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DecodePlan, Plan};
    use crate::decode::testing::{
        Outcome, decode, decode_with, decoder_of, ethernet, every_shorter_length, frame_of, ipv4,
        ipv6, segment_text, tagged, udp,
    };

    fn gtp(flags: u8, message: u8, optional: &[u8], inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(optional.len() + inner.len()).expect("short").to_be_bytes();
        let header = [flags, message, length[0], length[1], 0, 0, 0x12, 0x34];
        let payload = [&header[..], optional, inner].concat();
        tagged(&ethernet(&ipv4(17, &udp(2152, 2152, &payload))), &[(0x8100, 42)])
    }

    #[test]
    fn packets_inside_are_read_and_what_is_around_stays() {
        let (four, six) = (ipv4(17, &udp(1, 2, b"x")), ipv6(17, &udp(1, 2, b"x")));
        let session = [0, 0, 0, 0x85, 1, 0x10, 9, 0];
        let two = [0, 0, 0, 0xc0, 1, 1, 2, 0x85, 2, 0, 0, 0, 0, 0, 0, 0];
        for (flags, optional, inner, layer2) in [
            (0x30, &[][..], &four, 43),
            (0x30, &[], &six, 63),
            (0x32, &[0, 1, 0, 0], &four, 43),
            (0x31, &[0, 1, 0, 0x85], &four, 43),
            (0x34, &session, &four, 43),
            (0x36, &two, &six, 63),
            (0x34, &session, &ethernet(&four), 43),
        ] {
            let frame = gtp(flags, 255, optional, inner);
            let headers = decode(&frame).expect("inner");
            assert_eq!((headers.source_port, headers.destination_port), (1, 2));
            assert_eq!((headers.layer2_octets, headers.payload_octets), (layer2, 1));
            assert_eq!(segment_text(&headers), "default/vlan/42");
            let inner_at = frame.len() - inner.len();
            every_shorter_length(&frame, |at, outcome| match outcome {
                Outcome::Snapped(result) if (46..inner_at).contains(&at) => {
                    assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
                }
                Outcome::Snapped(_) | Outcome::WireShort(_) => {}
            });
        }
    }

    #[test]
    fn a_frame_inside_that_the_capture_cut_is_snapped_and_no_flow_of_the_port() {
        let inner = ethernet(&ipv4(17, &udp(1, 2, b"x")));
        let frame = gtp(0x30, 255, &[], &inner);
        let begin = frame.len() - inner.len();
        every_shorter_length(&frame, |at, outcome| match outcome {
            Outcome::Snapped(result) if (begin - 8..begin + 15).contains(&at) => {
                assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
            }
            Outcome::Snapped(_) | Outcome::WireShort(_) => {}
        });
    }

    #[test]
    fn what_stands_behind_a_message_is_not_taken_for_its_frame() {
        let behind = ethernet(&ipv4(17, &udp(1, 2, b"x")));
        for inside in 0..15_u8 {
            let header = [0x30, 255, 0, inside, 0, 0, 0x12, 0x34];
            let payload = [&header[..], &behind].concat();
            let headers = decode(&ethernet(&ipv4(17, &udp(9, 2152, &payload)))).expect("a flow");
            assert_eq!(headers.destination_port, 2152, "{inside} octets inside");
        }
    }

    #[test]
    fn every_shorter_message_is_a_flow_of_its_port() {
        let inner = ipv4(17, &udp(1, 2, b"x"));
        let whole = gtp(0x34, 255, &[0, 0, 0, 0x85, 1, 0x10, 9, 0], &inner);
        let payload = whole.get(46..).expect("the payload");
        for length in 0..payload.len() {
            let part = payload.get(..length).expect("shorter");
            let headers = decode(&ethernet(&ipv4(17, &udp(9, 2152, part)))).expect("a flow");
            assert_eq!((headers.destination_port, headers.source_port), (2152, 9), "{length}");
        }
    }

    #[test]
    fn what_carries_no_packet_is_a_flow_of_its_port() {
        let inner = ipv4(17, &udp(1, 2, b"x"));
        let endless: Vec<u8> = [&[0, 0, 0, 1][..], &[1, 0, 0, 1].repeat(20)].concat();
        for frame in [
            gtp(0x30, 1, &[], &inner),
            gtp(0x20, 255, &[], &inner),
            gtp(0x48, 255, &[], &inner),
            gtp(0x38, 255, &[], &inner),
            gtp(0x30, 255, &[], b"no packet"),
            gtp(0x30, 255, &[], &[]),
            gtp(0x34, 255, &[0, 0, 0, 0x85, 0, 0, 0, 0], &inner),
            gtp(0x34, 255, &endless, &inner),
        ] {
            assert_eq!(decode(&frame).expect("a flow").destination_port, 2152);
        }
    }

    #[test]
    fn endpoints_name_segments_where_configured() {
        let plan = DecodePlan { gtp_segments: true, ..DecodePlan::default() };
        let decoder = decoder_of(&Plan { decode: plan, ..Plan::default() });
        let frame = gtp(0x30, 255, &[], &ipv4(17, &udp(1, 2, b"x")));
        let headers = decode_with(&decoder, &frame_of(&frame)).expect("inner");
        assert_eq!(segment_text(&headers), "default/gtp/4660");
    }
}
