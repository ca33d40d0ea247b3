//! IEEE 802.2 LLC behind an 802.3 length, with SNAP.
//!
//! In: what follows the length field. Out: IP where SNAP names it, else the cause
//! [`DropCause::NotIpLlc`].
//! Cost: one length check; only frames with a length come here.
//! Invariants: padding behind the length is left out.
//! Source: IEEE 802.2 section 3.2; SNAP, RFC 1042.

use super::ethernet::ether_type;
use super::walk::{Next, Step, Walk};
use crate::counters::DropCause;

/// DSAP and SSAP 0xaa, control 3 (unnumbered), organisation 0: an EtherType follows (RFC 1042).
const SNAP_ETHERNET: [u8; 6] = [0xaa, 0xaa, 3, 0, 0, 0];

/// Reads LLC and SNAP in a frame whose length field says `length`.
pub(super) fn step(walk: &mut Walk<'_>, length: u32) -> Step {
    if length <= walk.limit {
        walk.narrow(length);
    }
    let Some((header, _)) = walk.rest.split_first_chunk::<8>() else {
        return Err(DropCause::NotIpLlc);
    };
    let [snap @ .., high, low] = *header;
    let next = match u16::from_be_bytes([high, low]) {
        ether_type::IPV4 => Next::Ipv4,
        ether_type::IPV6 => Next::Ipv6,
        _ => return Err(DropCause::NotIpLlc),
    };
    if snap != SNAP_ETHERNET {
        return Err(DropCause::NotIpLlc);
    }
    walk.take::<8>(DropCause::NotIpLlc)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{decode, ipv4, udp, with_ether_type};

    #[test]
    fn llc_is_not_ip_and_snap_may_be() {
        let stp = with_ether_type(39, &[0x42, 0x42, 3, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(decode(&stp).err(), Some(DropCause::NotIpLlc));
        let mut snap = SNAP_ETHERNET.to_vec();
        snap.extend([8, 0]);
        snap.extend(ipv4(17, &udp(1, 2, b"payload")));
        let length = u16::try_from(snap.len()).expect("short");
        let headers = decode(&with_ether_type(length, &snap)).expect("IP in SNAP");
        assert_eq!((headers.source_port, headers.octets), (1, 35));
        let short = decode(&with_ether_type(length - 1, &snap)).expect("cut");
        assert_eq!(short.payload_captured_octets, 6, "the length field ends the frame");
        let cdp = with_ether_type(30, &[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0, 1, 2, 3]);
        assert_eq!(decode(&cdp).err(), Some(DropCause::NotIpLlc));
        assert_eq!(decode(&with_ether_type(3, &[0xaa])).err(), Some(DropCause::NotIpLlc));
    }
}
