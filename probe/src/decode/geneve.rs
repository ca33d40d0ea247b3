//! GENEVE with options.
//!
//! In: a UDP payload. Out: the inner packet that the protocol type names; the VNI names the
//! segment. Options are skipped by their total length; those of a cloud's own tunnel are kept.
//! Cost: two length checks.
//! Invariants: another version or set reserved bits with an unknown protocol type cannot be
//! GENEVE, and the packet is a UDP flow like any other.
//! Source: RFC 8926 section 3.4.

use super::ethernet::ether_type;
use super::walk::{Next, Walk};
use crate::counters::DropCause;
use crate::inventory::SegmentKind;

/// A GENEVE header without its options.
#[derive(Clone, Copy, Debug)]
pub struct Geneve<'a>(pub &'a [u8; 8]);

impl Geneve<'_> {
    /// Version; 0 is the only one.
    #[inline]
    pub const fn version(self) -> u8 {
        self.0[0] >> 6
    }

    /// Octets of options behind the header, 0–252.
    #[inline]
    pub const fn options_octets(self) -> u32 {
        ((self.0[0] & 0x3f) as u32) * 4
    }

    /// EtherType of what is inside.
    #[inline]
    pub const fn protocol_type(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Virtual network identifier, 24 bits.
    #[inline]
    pub const fn vni(self) -> u32 {
        u32::from_be_bytes([0, self.0[4], self.0[5], self.0[6]])
    }

    /// Whether a bit is set that senders must leave 0.
    const fn has_reserved_bits(self) -> bool {
        self.0[1] & 0x3f != 0 || self.0[7] != 0
    }
}

/// Takes the header; `None` where this is no GENEVE.
#[inline]
pub(super) fn step(walk: &mut Walk<'_>) -> Result<Option<Next>, DropCause> {
    if walk.limit == 0 {
        return Ok(None);
    }
    let Some((header, _)) = walk.rest.split_first_chunk() else {
        return Err(walk.short(8, DropCause::MalformedGeneve));
    };
    let header = Geneve(header);
    if header.version() != 0 {
        return Ok(None);
    }
    let next = match header.protocol_type() {
        ether_type::TRANSPARENT_ETHERNET => Next::Ethernet,
        ether_type::IPV4 => Next::Ipv4,
        ether_type::IPV6 => Next::Ipv6,
        ether_type::MPLS | ether_type::MPLS_UPSTREAM => Next::Mpls,
        ether_type::NSH => Next::Nsh,
        _ if header.has_reserved_bits() => return Ok(None),
        _ => return Err(DropCause::UnsupportedTunnel),
    };
    walk.take::<8>(DropCause::MalformedGeneve)?;
    let options = walk.skip(header.options_octets(), DropCause::MalformedGeneve)?;
    if walk.may_be_mirror() {
        walk.tap_options = options;
    }
    walk.enter_overlay(SegmentKind::Geneve, header.vni())?;
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        decode, ethernet, every_shorter_length, ipv4, ipv6, segment_text, tagged, udp,
    };

    fn geneve(first: [u8; 4], options: &[u8], inner: &[u8]) -> Vec<u8> {
        let payload = [&first[..], &[0, 0x12, 0x34, 0], options, inner].concat();
        ethernet(&ipv4(17, &udp(5, 6081, &payload)))
    }

    #[test]
    fn options_are_skipped_and_the_vni_names_the_segment() {
        let (four, six) = (ipv4(17, &udp(1, 2, b"x")), ipv6(17, &udp(1, 2, b"x")));
        let frame = tagged(&ethernet(&four), &[(0x8100, 10)]);
        for (first, options, inner, segment) in [
            ([0, 0, 0x65, 0x58], &[][..], &frame, "default/geneve/4660.10"),
            (
                [3, 0x40, 8, 0],
                &[1, 2, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0],
                &four,
                "default/geneve/4660",
            ),
            ([1, 0x80, 0x86, 0xdd], &[1, 2, 3, 0], &six, "default/geneve/4660"),
        ] {
            let bytes = geneve(first, options, inner);
            let headers = decode(&bytes).expect("inner");
            assert_eq!(segment_text(&headers), segment);
            assert_eq!(headers.destination_port, 2);
            every_shorter_length(&bytes, |_, _| ());
        }
    }

    #[test]
    fn others_are_flows_or_causes() {
        let inner = ipv4(17, &udp(1, 2, b"x"));
        for first in [[0x40, 0, 8, 0], [0xc0, 0, 8, 0], [0, 0x3f, 1, 2]] {
            let headers = decode(&geneve(first, &[], &inner)).expect("a flow");
            assert_eq!(headers.destination_port, 6081);
        }
        let unknown = geneve([0, 0, 1, 2], &[], &inner);
        assert_eq!(decode(&unknown).err(), Some(DropCause::UnsupportedTunnel));
        let short = ethernet(&ipv4(17, &udp(1, 6081, &[0, 0, 8])));
        assert_eq!(decode(&short).err(), Some(DropCause::MalformedGeneve));
        let options = geneve([0x3f, 0, 8, 0], &[0; 8], &[]);
        assert_eq!(decode(&options).err(), Some(DropCause::MalformedGeneve));
    }
}
