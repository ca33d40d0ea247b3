//! IEEE 802.2 LLC behind an 802.3 length, with SNAP.
//!
//! In: what follows the length field. Out: what SNAP's EtherType names, IP where the service access
//! points name it, else the cause [`DropCause::NotIpLlc`].
//! Cost: one length check; only frames with a length come here.
//! Invariants: padding behind the length is left out; LLC does not stand in LLC.
//! Source: IEEE 802.2 section 3.2; SNAP, RFC 1042; bridged, IEEE 802.1H; IP alone, RFC 948.

use super::ethernet::{LENGTH_MAX, ether_type};
use super::walk::{Next, Step, Walk};
use crate::counters::DropCause;

/// LLC and SNAP.
pub(super) const SNAP_OCTETS: u32 = 8;

/// DSAP and SSAP 0xaa, control 3 (unnumbered), organisation 0: an EtherType follows (RFC 1042).
const SNAP_ETHERNET: [u8; 6] = [0xaa, 0xaa, 3, 0, 0, 0];

/// The same from a bridge that had an EtherType to translate (IEEE 802.1H).
const SNAP_BRIDGED: [u8; 6] = [0xaa, 0xaa, 3, 0, 0, 0xf8];

/// Both access points are IP's.
const IP: [u8; 3] = [6, 6, 3];

/// The EtherType in LLC and SNAP, if there is one.
pub(super) fn ether_type(header: [u8; 8]) -> Option<u16> {
    let [snap @ .., high, low] = header;
    let ether_type = u16::from_be_bytes([high, low]);
    let is_type = ether_type > LENGTH_MAX && ether_type != ether_type::JUMBO_LLC;
    (is_type && (snap == SNAP_ETHERNET || snap == SNAP_BRIDGED)).then_some(ether_type)
}

/// Reads LLC and SNAP in a frame whose length field says `length`.
pub(super) fn step(walk: &mut Walk<'_>, length: u32) -> Step {
    if length <= walk.limit {
        walk.narrow(length);
    }
    if walk.rest.starts_with(&IP) {
        walk.take::<3>(DropCause::NotIpLlc)?;
        return Ok(Next::Ipv4);
    }
    let Some(ether_type) = walk.rest.first_chunk().copied().and_then(ether_type) else {
        return Err(DropCause::NotIpLlc);
    };
    walk.take::<{ SNAP_OCTETS as usize }>(DropCause::NotIpLlc)?;
    Ok(Next::EtherType(ether_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        Outcome, decode, every_shorter_length, ipv4, ipv6, segment_text, udp, with_ether_type,
    };

    fn snap(ether_type: u16, inner: &[u8]) -> Vec<u8> {
        [&SNAP_ETHERNET[..], &ether_type.to_be_bytes(), inner].concat()
    }

    fn with_length(payload: &[u8]) -> Vec<u8> {
        with_ether_type(u16::try_from(payload.len()).expect("short"), payload)
    }

    #[test]
    fn llc_is_not_ip_and_snap_may_be() {
        let stp = with_ether_type(39, &[0x42, 0x42, 3, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(decode(&stp).err(), Some(DropCause::NotIpLlc));
        let snap = snap(0x0800, &ipv4(17, &udp(1, 2, b"payload")));
        let length = u16::try_from(snap.len()).expect("short");
        let headers = decode(&with_ether_type(length, &snap)).expect("IP in SNAP");
        assert_eq!((headers.source_port, headers.octets), (1, 35));
        let short = decode(&with_ether_type(length - 1, &snap)).expect("cut");
        assert_eq!(short.payload_captured_octets, 6, "the length field ends the frame");
        let cdp = with_ether_type(30, &[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0, 1, 2, 3]);
        assert_eq!(decode(&cdp).err(), Some(DropCause::NotIpLlc));
        assert_eq!(decode(&with_ether_type(3, &[0xaa])).err(), Some(DropCause::NotIpLlc));
    }

    #[test]
    fn what_snap_names_is_read_as_behind_a_type() {
        let packet = ipv4(17, &udp(1, 2, b"payload"));
        let tag = [&[0, 42, 8, 0][..], &packet].concat();
        let mpls = [&[0, 6, 0x41, 64][..], &packet].concat();
        let bridged = [&SNAP_BRIDGED[..], &[8, 0], &packet].concat();
        for (payload, segment) in [
            (snap(0x86dd, &ipv6(17, &udp(1, 2, b"payload"))), "default/none"),
            (snap(0x8100, &tag), "default/vlan/42"),
            (snap(0x8847, &mpls), "default/none"),
            (bridged, "default/none"),
            ([&IP[..], &packet].concat(), "default/none"),
        ] {
            let frame = with_length(&payload);
            let headers = decode(&frame).expect("IP");
            assert_eq!((headers.destination_port, segment_text(&headers).as_str()), (2, segment));
            every_shorter_length(&frame, |at, outcome| {
                let (Outcome::Snapped(result) | Outcome::WireShort(result)) = outcome;
                assert!(at >= frame.len() - 11 || result.is_err(), "{at}");
            });
            let jumbo = with_ether_type(0x8870, &payload);
            assert_eq!(decode(&jumbo).expect("IP").destination_port, 2);
        }
        let arp = with_length(&snap(0x0806, &[0; 28]));
        assert_eq!(decode(&arp).err(), Some(DropCause::NotIpArp));
        for again in [0x8870, 100] {
            let nested = with_length(&snap(again, &snap(0x0800, &packet)));
            assert_eq!(decode(&nested).err(), Some(DropCause::NotIpLlc));
        }
    }
}
