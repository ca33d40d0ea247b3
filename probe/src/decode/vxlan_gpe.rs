//! VXLAN-GPE, the generic protocol extension of VXLAN.
//!
//! In: a UDP payload. Out: the inner packet that the next protocol names; the VNI names the
//! segment.
//! Cost: one length check.
//! Invariants: without the I flag, or of another version, it is a UDP flow like any other.
//! Source: draft-ietf-nvo3-vxlan-gpe-13 section 3.

use super::vxlan::Vxlan;
use super::walk::{Next, Walk};
use crate::counters::DropCause;
use crate::inventory::SegmentKind;

const FLAG_NEXT_PROTOCOL: u8 = 0x04;
const VERSION_MASK: u8 = 0x30;

/// Takes the header; `None` where this is no VXLAN-GPE.
pub(super) fn step(walk: &mut Walk<'_>) -> Result<Option<Next>, DropCause> {
    if walk.limit == 0 {
        return Ok(None);
    }
    let Some((header, _)) = walk.rest.split_first_chunk::<8>() else {
        return Err(walk.short(8, DropCause::MalformedVxlan));
    };
    let [flags, _, _, next_protocol, ..] = *header;
    if !Vxlan(header).has_vni() || flags & VERSION_MASK != 0 {
        return Ok(None);
    }
    let next = match next_protocol {
        _ if flags & FLAG_NEXT_PROTOCOL == 0 => Next::Ethernet,
        1 => Next::Ipv4,
        2 => Next::Ipv6,
        3 => Next::Ethernet,
        4 => Next::Nsh,
        5 => Next::Mpls,
        _ => return Err(DropCause::UnsupportedTunnel),
    };
    walk.take::<8>(DropCause::MalformedVxlan)?;
    walk.enter_overlay(SegmentKind::Vxlan, Vxlan(header).vni())?;
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        decode, ethernet, every_shorter_length, ipv4, ipv6, segment_text, udp,
    };

    fn gpe(flags: u8, next: u8, inner: &[u8]) -> Vec<u8> {
        let payload = [&[flags, 0, 0, next, 0, 0, 9, 0][..], inner].concat();
        ethernet(&ipv4(17, &udp(5, 4790, &payload)))
    }

    #[test]
    fn each_next_protocol_is_read() {
        let (four, six) = (ipv4(17, &udp(1, 2, b"x")), ipv6(17, &udp(1, 2, b"x")));
        let nsh = [&[0, 2, 2, 1, 0, 0, 1, 255][..], &four].concat();
        let mpls = [&[0, 6, 0x41, 64][..], &four].concat();
        for (flags, next, inner, layer2) in [
            (0x0c, 1, &four, 29),
            (0x0c, 2, &six, 49),
            (0x0c, 3, &ethernet(&four), 43),
            (0x08, 0, &ethernet(&four), 43),
            (0x0c, 4, &nsh, 29),
            (0x0c, 5, &mpls, 29),
        ] {
            let frame = gpe(flags, next, inner);
            let headers = decode(&frame).expect("inner");
            assert_eq!(segment_text(&headers), "default/vxlan/9");
            assert_eq!(headers.layer2_octets, layer2, "{next}");
            every_shorter_length(&frame, |_, _| ());
        }
    }

    #[test]
    fn others_are_flows_or_unsupported() {
        let inner = ipv4(17, &udp(1, 2, b"x"));
        assert_eq!(decode(&gpe(0x0c, 77, &inner)).err(), Some(DropCause::UnsupportedTunnel));
        for flags in [0, 0x04, 0x1c] {
            assert_eq!(decode(&gpe(flags, 1, &inner)).expect("a flow").destination_port, 4790);
        }
        let short = ethernet(&ipv4(17, &udp(1, 4790, &[8])));
        assert_eq!(decode(&short).err(), Some(DropCause::MalformedVxlan));
    }
}
