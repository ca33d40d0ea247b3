//! VLAN tags: 802.1Q, 802.1ad, and the older types 0x9100 and 0x9200.
//!
//! In: what follows the EtherType of a tag. Out: the VLAN id, which names a mirror (RSPAN) or a
//! part of the segment.
//! Cost: one length check a tag.
//! Invariants: at most [`TAGS_MAX`] tags after one Ethernet header.
//! Source: IEEE 802.1Q-2022 section 9.6.

use super::Marks;
use super::walk::{CutBy, Next, Step, Walk};
use crate::counters::DropCause;
use crate::decode::decoder::Rules;

/// Tags after one Ethernet header at most.
pub const TAGS_MAX: u8 = 4;

/// A tag behind its EtherType: tag control information and the next EtherType.
#[derive(Clone, Copy, Debug)]
pub struct VlanTag<'a>(pub &'a [u8; 4]);

impl VlanTag<'_> {
    /// Tag control information: priority (3 bits), DEI, VLAN id (12 bits).
    #[inline]
    pub const fn control(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// EtherType of what follows, or an 802.3 length.
    #[inline]
    pub const fn ether_type(self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }
}

/// Takes one tag.
#[inline]
pub(super) fn step(walk: &mut Walk<'_>, rules: &Rules) -> Step {
    if walk.vlans.tags >= TAGS_MAX {
        return Err(DropCause::MalformedVlan);
    }
    let tag = VlanTag(walk.take(DropCause::MalformedVlan)?);
    walk.vlans.tags += 1;
    tagged(walk, rules, tag.control());
    Ok(Next::EtherType(tag.ether_type()))
}

/// Notes a tag, read from the frame or stripped by the NIC. The outermost one of a frame may be
/// that of a mirror: then it names the tap and no segment.
#[inline]
pub(super) fn tagged(walk: &mut Walk<'_>, rules: &Rules, control: u16) {
    let id = control & 0xfff;
    if walk.outermost {
        walk.outermost = false;
        walk.outermost_vlan = Some(id);
        if walk.port.by_vlan && mirror_vlan(walk, rules, id) {
            return;
        }
    }
    walk.vlans.push(id);
}

fn mirror_vlan(walk: &mut Walk<'_>, rules: &Rules, id: u16) -> bool {
    let Some(tap) = rules.taps.of_vlan(walk.port.port, id) else { return false };
    walk.tap = tap;
    walk.marks.set(Marks::MIRROR_TUNNEL);
    walk.cut_by = CutBy::Mirror;
    true
}

#[cfg(test)]
mod tests {
    use crate::capture::StrippedVlan;
    use crate::config::{Plan, TapMatch, TapPlan};
    use crate::counters::DropCause;
    use crate::decode::Marks;
    use crate::decode::testing::{
        Outcome, decode, decode_with, decoder_of, ethernet, every_shorter_length, frame_of, ipv4,
        segment_text, tagged, udp,
    };
    use crate::index::TapIndex;
    use crate::inventory::Segment;

    fn packet() -> Vec<u8> {
        ethernet(&ipv4(17, &udp(1, 2, b"payload")))
    }

    #[test]
    fn tags_name_the_segment() {
        for (tags, segment) in [
            (&[][..], "default/none"),
            (&[(0x8100, 42)], "default/vlan/42"),
            (&[(0x8100, 0xe000)], "default/none"),
            (&[(0x8100, 0xe02a)], "default/vlan/42"),
            (&[(0x88a8, 10), (0x8100, 20)], "default/qinq/10.20"),
            (&[(0x9100, 10), (0x9200, 20)], "default/qinq/10.20"),
            (&[(0x88a8, 5), (0x88a8, 10), (0x8100, 20)], "default/qinq/10.20"),
            (&[(0x8100, 10), (0x8100, 0)], "default/vlan/10"),
        ] {
            let headers = decode(&tagged(&packet(), tags)).expect("whole");
            assert_eq!(segment_text(&headers), segment);
            assert_eq!((headers.octets, headers.layer2_octets), (35, 49), "tags do not count");
        }
    }

    #[test]
    fn too_many_tags_are_malformed() {
        let four = [(0x8100, 1); 4];
        assert!(decode(&tagged(&packet(), &four)).is_ok());
        let five = [(0x8100, 1); 5];
        assert_eq!(decode(&tagged(&packet(), &five)).err(), Some(DropCause::MalformedVlan));
    }

    #[test]
    fn the_stripped_tag_stands_outside() {
        let bytes = tagged(&packet(), &[(0x8100, 20)]);
        let mut frame = frame_of(&bytes);
        frame.stripped_vlan = Some(StrippedVlan { outer_tci: 0x600a, inner_tci: None });
        let decoder = decoder_of(&Plan::default());
        let headers = decode_with(&decoder, &frame).expect("whole");
        assert_eq!(segment_text(&headers), "default/qinq/10.20");
        let bytes = packet();
        let mut frame = frame_of(&bytes);
        frame.stripped_vlan = Some(StrippedVlan { outer_tci: 10, inner_tci: Some(20) });
        let headers = decode_with(&decoder, &frame).expect("whole");
        assert_eq!(segment_text(&headers), "default/qinq/10.20");
    }

    fn rspan(segment: Option<Segment>) -> Plan {
        let matches = TapMatch { vlan: Some(100), ..TapMatch::default() };
        Plan {
            taps: vec![TapPlan::default(), TapPlan { matches, segment, ..TapPlan::default() }],
            ..Plan::default()
        }
    }

    #[test]
    fn an_rspan_tag_names_the_tap_and_no_segment() {
        let decoder = decoder_of(&rspan(None));
        for (tags, segment, tap) in [
            (&[(0x8100, 100)][..], "default/none", 1),
            (&[(0x8100, 100), (0x8100, 7)], "default/vlan/7", 1),
            (&[(0x8100, 7), (0x8100, 100)], "default/qinq/7.100", 0),
            (&[(0x8100, 7)], "default/vlan/7", 0),
        ] {
            let bytes = tagged(&packet(), tags);
            let headers = decode_with(&decoder, &frame_of(&bytes)).expect("whole");
            assert_eq!((segment_text(&headers).as_str(), headers.tap), (segment, TapIndex(tap)));
            assert_eq!(headers.marks.has(Marks::MIRROR_TUNNEL), tap == 1);
        }
    }

    #[test]
    fn a_tap_gives_its_segment_to_what_names_none() {
        let decoder = decoder_of(&rspan(Segment::parse("default/vlan/9", &[])));
        for (tags, segment) in [
            (&[(0x8100, 100)][..], "default/vlan/9"),
            (&[(0x8100, 100), (0x8100, 7)], "default/vlan/7"),
            (&[], "default/none"),
        ] {
            let bytes = tagged(&packet(), tags);
            let headers = decode_with(&decoder, &frame_of(&bytes)).expect("whole");
            assert_eq!(segment_text(&headers), segment);
        }
    }

    #[test]
    fn every_shorter_frame_is_a_cause() {
        let frame = tagged(&packet(), &[(0x88a8, 10), (0x8100, 20)]);
        every_shorter_length(&frame, |length, outcome| {
            let cause = match (length, outcome) {
                (0..14, Outcome::WireShort(result)) => (result.err(), DropCause::MalformedLink),
                (14..22, Outcome::WireShort(result)) => (result.err(), DropCause::MalformedVlan),
                (22..42, Outcome::WireShort(result)) => (result.err(), DropCause::MalformedIpv4),
                (0..46, Outcome::Snapped(result) | Outcome::WireShort(result)) => {
                    (result.err(), DropCause::SnappedHeader)
                }
                (_, Outcome::Snapped(result) | Outcome::WireShort(result)) => {
                    assert!(result.expect("ports are there").marks.has(Marks::SNAPPED));
                    return;
                }
            };
            assert_eq!(cause.0, Some(cause.1), "{length}");
        });
    }
}
