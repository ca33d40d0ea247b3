//! VXLAN.
//!
//! In: a UDP payload. Out: the inner Ethernet frame; the VNI names the segment, or the tap where
//! one claims it as its mirror.
//! Cost: one length check.
//! Invariants: without the I flag there is no VNI, and the packet is a UDP flow like any other.
//! Source: RFC 7348 section 5; group policy bit, draft-smith-vxlan-group-policy-05 section 2.1.

use super::decoder::Rules;
use super::tap::MirrorTunnel;
use super::walk::{Next, Walk};
use super::{Headers, ethernet};
use crate::counters::DropCause;
use crate::inventory::SegmentKind;

const FLAG_VNI: u8 = 0x08;
const FLAG_GROUP_POLICY: u8 = 0x80;

/// A VXLAN header.
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a>(pub &'a [u8; 8]);

impl Vxlan<'_> {
    /// Whether the VNI is valid (I flag).
    #[inline]
    pub const fn has_vni(self) -> bool {
        self.0[0] & FLAG_VNI != 0
    }

    /// VXLAN network identifier, 24 bits.
    #[inline]
    pub const fn vni(self) -> u32 {
        u32::from_be_bytes([0, self.0[4], self.0[5], self.0[6]])
    }

    /// Whether the flags say nothing but that the VNI is valid.
    #[inline]
    pub(super) const fn is_plain(self) -> bool {
        self.0[0] == FLAG_VNI
    }

    /// Whether flags are set that neither RFC 7348 nor the group policy defines.
    const fn has_reserved_flags(self) -> bool {
        self.0[0] & !(FLAG_VNI | FLAG_GROUP_POLICY) != 0
    }
}

/// Takes the header; `None` where this is no VXLAN (an answer to a client whose port happens to
/// be the tunnel's).
#[inline]
pub(super) fn step(
    walk: &mut Walk<'_>,
    out: &Headers,
    rules: &Rules,
) -> Result<Option<Next>, DropCause> {
    if walk.limit == 0 {
        return Ok(None);
    }
    let Some((header, inner)) = walk.rest.split_first_chunk() else {
        return Err(walk.short(8, DropCause::MalformedVxlan));
    };
    let header = Vxlan(header);
    // RFC 7348 has reserved flags ignored; where some are set, the inner frame decides.
    if !header.has_vni() || (header.has_reserved_flags() && !ethernet::plausible(inner)) {
        return Ok(None);
    }
    walk.take::<8>(DropCause::MalformedVxlan)?;
    let tap = rules.claim(walk, out, MirrorTunnel::Vxlan(header.vni()));
    if tap.is_some() {
        walk.enter_mirror(tap)?;
    } else {
        walk.enter_overlay(SegmentKind::Vxlan, header.vni())?;
    }
    Ok(Some(Next::Ethernet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Plan, TapMatch, TapPlan};
    use crate::decode::Marks;
    use crate::decode::testing::{
        Outcome, decode, decode_with, decoder_of, ethernet, every_shorter_length, frame_of, ipv4,
        segment_text, tagged, udp, vxlan,
    };
    use crate::index::TapIndex;

    fn inner() -> Vec<u8> {
        ethernet(&ipv4(17, &udp(1, 2, b"payload")))
    }

    #[test]
    fn the_vni_and_inner_tags_name_the_segment() {
        for (tags, segment) in [
            (&[][..], "default/vxlan/4242"),
            (&[(0x8100, 10)], "default/vxlan/4242.10"),
            (&[(0x88a8, 10), (0x8100, 20)], "default/vxlan/4242.10.20"),
        ] {
            let frame = tagged(&vxlan(4242, &tagged(&inner(), tags)), &[(0x8100, 7)]);
            let headers = decode(&frame).expect("inner");
            assert_eq!(segment_text(&headers), segment, "the outer tag is underlay");
            assert_eq!((headers.source_port, headers.destination_port), (1, 2));
            assert_eq!((headers.octets, headers.layer2_octets), (35, 49));
        }
    }

    #[test]
    fn the_innermost_vni_counts() {
        let frame = vxlan(1, &vxlan(2, &vxlan(3, &inner())));
        assert_eq!(segment_text(&decode(&frame).expect("inner")), "default/vxlan/3");
        let five = vxlan(1, &vxlan(2, &vxlan(3, &vxlan(4, &vxlan(5, &inner())))));
        assert_eq!(decode(&five).err(), Some(DropCause::TooDeep));
    }

    #[test]
    fn what_cannot_be_vxlan_is_a_udp_flow() {
        let mut no_vni = vxlan(1, &inner());
        let mut odd_flags = vxlan(1, &[0x55; 40]);
        for (bytes, flags) in [(&mut no_vni, 0), (&mut odd_flags, 0x4b)] {
            if let Some(place) = bytes.get_mut(42) {
                *place = flags;
            }
            let headers = decode(bytes).expect("a flow");
            assert_eq!((headers.destination_port, headers.protocol), (4789, 17));
        }
        let empty = ethernet(&ipv4(17, &udp(1, 4789, &[])));
        assert_eq!(decode(&empty).expect("a flow").destination_port, 4789);
        let short = ethernet(&ipv4(17, &udp(1, 4789, &[8, 0, 0])));
        assert_eq!(decode(&short).err(), Some(DropCause::MalformedVxlan));
    }

    #[test]
    fn reserved_flags_are_ignored_where_the_frame_is_plausible() {
        let mut bytes = vxlan(9, &inner());
        if let Some(flags) = bytes.get_mut(42) {
            *flags = 0x4b;
        }
        assert_eq!(segment_text(&decode(&bytes).expect("inner")), "default/vxlan/9");
    }

    #[test]
    fn a_claimed_vni_is_a_mirror() {
        let matches = TapMatch { vxlan_vni: Some(77), ..TapMatch::default() };
        let tap = TapPlan { matches, ..TapPlan::default() };
        let decoder = decoder_of(&Plan { taps: vec![tap], ..Plan::default() });
        for (frame, tap, segment) in [
            (vxlan(77, &inner()), 0, "default/none"),
            (vxlan(77, &tagged(&inner(), &[(0x8100, 5)])), 0, "default/vlan/5"),
            (vxlan(77, &vxlan(4242, &inner())), 0, "default/vxlan/4242"),
            (vxlan(78, &inner()), 1, "default/vxlan/78"),
            (vxlan(78, &vxlan(77, &inner())), 1, "default/vxlan/77"),
        ] {
            let headers = decode_with(&decoder, &frame_of(&frame)).expect("inner");
            assert_eq!((headers.tap, segment_text(&headers).as_str()), (TapIndex(tap), segment));
            assert_eq!(headers.marks.has(Marks::MIRROR_TUNNEL), tap == 0);
        }
    }

    #[test]
    fn every_shorter_frame_is_a_cause() {
        every_shorter_length(&vxlan(1, &inner()), |at, outcome| match outcome {
            Outcome::Snapped(result) | Outcome::WireShort(result) if (42..88).contains(&at) => {
                assert_eq!(result.err(), Some(DropCause::SnappedHeader), "{at}");
            }
            Outcome::Snapped(result) | Outcome::WireShort(result) if at >= 88 => {
                assert_eq!(result.expect("ports are there").octets, 35);
            }
            Outcome::Snapped(_) | Outcome::WireShort(_) => {}
        });
    }
}
