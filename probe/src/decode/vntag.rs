//! VN-tag and E-tag: tags between a port extender and its controlling bridge.
//!
//! In: what follows EtherType 0x8926 or 0x893f. Out: the EtherType behind the tag.
//! Cost: one length check.
//! Invariants: interface ids differ by direction and name no segment.
//! Source: VN-tag, Cisco VNTag specification 1.0 section 2; E-tag, IEEE 802.1BR section 7.5.

use super::walk::{Next, Step, Walk};
use crate::counters::DropCause;

/// Takes a VN-tag: four octets and the next EtherType.
pub(super) fn step_vn_tag(walk: &mut Walk<'_>) -> Step {
    let [.., high, low] = *walk.take::<6>(DropCause::MalformedVlan)?;
    tagged(walk, u16::from_be_bytes([high, low]))
}

/// Takes an E-tag: six octets and the next EtherType.
pub(super) fn step_e_tag(walk: &mut Walk<'_>) -> Step {
    let [.., high, low] = *walk.take::<8>(DropCause::MalformedVlan)?;
    tagged(walk, u16::from_be_bytes([high, low]))
}

/// Counts towards the tags of the frame, so that a frame of nothing but tags ends.
fn tagged(walk: &mut Walk<'_>, ether_type: u16) -> Step {
    if walk.vlans.tags >= super::vlan::TAGS_MAX {
        return Err(DropCause::MalformedVlan);
    }
    walk.vlans.tags += 1;
    Ok(Next::EtherType(ether_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        decode, every_shorter_length, ipv4, segment_text, udp, with_ether_type,
    };

    #[test]
    fn both_tags_are_taken_off() {
        let packet = ipv4(17, &udp(1, 2, b"payload"));
        let vn_tag = [&[0x80, 1, 0, 2, 0x81, 0, 0, 42, 8, 0][..], &packet].concat();
        let e_tag = [&[0, 0, 0x10, 1, 0, 0, 0x81, 0, 0, 42, 8, 0][..], &packet].concat();
        for (ether_type, bytes) in [(0x8926, vn_tag), (0x893f, e_tag)] {
            let frame = with_ether_type(ether_type, &bytes);
            assert_eq!(segment_text(&decode(&frame).expect("IP")), "default/vlan/42");
            every_shorter_length(&frame, |_, _| ());
        }
    }

    #[test]
    fn a_frame_of_tags_is_malformed() {
        let tags: Vec<u8> = [0, 0, 0, 0, 0x89, 0x26].repeat(20);
        let frame = with_ether_type(0x8926, &tags);
        assert_eq!(decode(&frame).err(), Some(DropCause::MalformedVlan));
    }
}
