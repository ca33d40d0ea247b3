//! Linux cooked captures, versions 1 and 2.
//!
//! In: a frame of link type 113 or 276. Out: what its protocol type names.
//! Cost: one length check.
//! Invariants: no Ethernet header, so no MAC addresses and no layer-2 octets.
//! Source: tcpdump.org, LINKTYPE_LINUX_SLL and LINKTYPE_LINUX_SLL2; ARP hardware types,
//! Linux `if_arp.h`.

use super::walk::{Next, Step, Walk};
use crate::counters::DropCause;

/// Not EtherTypes: 802.3 without LLC, 802.2 LLC, and CAN among others (Linux `if_ether.h`).
const PROTOCOL_LLC_MAX: u16 = 4;

/// Hardware types whose protocol field is no EtherType: netlink, radiotap and Frame Relay.
const HARDWARE_WITHOUT_TYPE: [u16; 3] = [770, 803, 824];

/// Takes a version 1 header: packet type, hardware type, address, protocol.
pub(super) fn step_v1(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 16] = walk.take(DropCause::MalformedLink)?;
    let [_, _, hardware @ .., _, _, _, _, _, _, _, _, _, _, high, low] = *header;
    next(u16::from_be_bytes(hardware), u16::from_be_bytes([high, low]))
}

/// Takes a version 2 header: protocol, interface, hardware type, packet type, address.
pub(super) fn step_v2(walk: &mut Walk<'_>) -> Step {
    let header: &[u8; 20] = walk.take(DropCause::MalformedLink)?;
    let [high, low, _, _, _, _, _, _, hardware @ .., _, _, _, _, _, _, _, _, _, _] = *header;
    next(u16::from_be_bytes(hardware), u16::from_be_bytes([high, low]))
}

fn next(hardware: u16, protocol: u16) -> Step {
    if HARDWARE_WITHOUT_TYPE.contains(&hardware) {
        return Err(DropCause::NotIpOther);
    }
    match protocol {
        ..=PROTOCOL_LLC_MAX => Err(DropCause::NotIpLlc),
        ether_type => Ok(Next::EtherType(ether_type)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::LinkType;
    use crate::config::Plan;
    use crate::decode::testing::{decode_with, decoder_of, frame_of, ipv4, segment_text, udp};

    fn cooked(version: u8, hardware: u16, protocol: u16, inner: &[u8]) -> Vec<u8> {
        let (hardware, protocol) = (hardware.to_be_bytes(), protocol.to_be_bytes());
        match version {
            1 => [&[0, 0][..], &hardware, &[0, 6], &[2; 8], &protocol, inner].concat(),
            _ => [&protocol[..], &[0; 6], &hardware, &[0, 6], &[2; 8], inner].concat(),
        }
    }

    fn decode(version: u8, bytes: &[u8]) -> Result<crate::decode::Headers, DropCause> {
        let mut frame = frame_of(bytes);
        frame.link = if version == 1 { LinkType::LinuxSll } else { LinkType::LinuxSll2 };
        decode_with(&decoder_of(&Plan::default()), &frame)
    }

    #[test]
    fn both_versions_are_read() {
        let packet = ipv4(17, &udp(1, 2, b"x"));
        let tag = [&[0, 42, 8, 0][..], &packet].concat();
        for version in [1, 2] {
            let headers = decode(version, &cooked(version, 1, 0x0800, &packet)).expect("IP");
            assert_eq!((headers.destination_port, headers.layer2_octets), (2, 29));
            let headers = decode(version, &cooked(version, 1, 0x8100, &tag)).expect("IP");
            assert_eq!(segment_text(&headers), "default/vlan/42");
        }
    }

    #[test]
    fn what_is_not_ip_is_a_cause() {
        for version in [1, 2] {
            for (hardware, protocol, cause) in [
                (1, 4, DropCause::NotIpLlc),
                (1, 0x0806, DropCause::NotIpArp),
                (824, 0x0800, DropCause::NotIpOther),
            ] {
                let bytes = cooked(version, hardware, protocol, &[0; 40]);
                assert_eq!(decode(version, &bytes).err(), Some(cause));
            }
            let bytes = cooked(version, 1, 0x0800, &[]);
            for length in 0..bytes.len() {
                let short = bytes.get(..length).expect("shorter");
                assert_eq!(decode(version, short).err(), Some(DropCause::MalformedLink));
            }
        }
    }
}
