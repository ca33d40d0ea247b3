//! NSH, the service function chaining header.
//!
//! In: what follows EtherType 0x894f or a tunnel that names NSH. Out: what it carries.
//! Cost: one length check; only NSH comes here.
//! Invariants: the service path names no segment; a header counts as one level of depth.
//! Source: RFC 8300 section 2.

use super::walk::{Next, Step, Walk};
use crate::counters::DropCause;

/// Base header and service path header.
#[derive(Clone, Copy, Debug)]
pub struct Nsh<'a>(pub &'a [u8; 8]);

impl Nsh<'_> {
    /// Version; 0 is the only one.
    pub const fn version(self) -> u8 {
        self.0[0] >> 6
    }

    /// Length of the whole header in octets, context included.
    pub const fn header_octets(self) -> u32 {
        ((self.0[1] & 0x3f) as u32) * 4
    }

    /// What follows: 1 IPv4, 2 IPv6, 3 Ethernet, 4 NSH, 5 MPLS.
    pub const fn next_protocol(self) -> u8 {
        self.0[3]
    }

    /// Service path identifier, 24 bits.
    pub const fn service_path(self) -> u32 {
        u32::from_be_bytes([0, self.0[4], self.0[5], self.0[6]])
    }
}

/// Takes the header.
pub(super) fn step(walk: &mut Walk<'_>) -> Step {
    let header = Nsh(walk.take(DropCause::UnsupportedTunnel)?);
    let Some(context) = header.header_octets().checked_sub(8).filter(|_| header.version() == 0)
    else {
        return Err(DropCause::UnsupportedTunnel);
    };
    walk.skip(context, DropCause::UnsupportedTunnel)?;
    match header.next_protocol() {
        1 => Ok(Next::Ipv4),
        2 => Ok(Next::Ipv6),
        3 => {
            walk.descend()?;
            walk.ethernet = None;
            Ok(Next::Ethernet)
        }
        4 => {
            walk.descend()?;
            Ok(Next::Nsh)
        }
        5 => Ok(Next::Mpls),
        _ => Err(DropCause::UnsupportedTunnel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::{
        decode, ethernet, every_shorter_length, ipv4, udp, with_ether_type,
    };

    fn nsh(next: u8, context: &[u8], inner: &[u8]) -> Vec<u8> {
        let words = u8::try_from(2 + context.len() / 4).expect("short");
        [&[0, words, 2, next, 0, 0, 1, 255][..], context, inner].concat()
    }

    #[test]
    fn ip_and_ethernet_inside_are_read() {
        let packet = ipv4(17, &udp(1, 2, b"payload"));
        for bytes in [nsh(1, &[0; 16], &packet), nsh(3, &[], &ethernet(&packet))] {
            let frame = with_ether_type(0x894f, &bytes);
            assert_eq!(decode(&frame).expect("IP").octets, 35);
            every_shorter_length(&frame, |_, _| ());
        }
    }

    #[test]
    fn other_contents_and_endless_chains_are_causes() {
        let other = with_ether_type(0x894f, &nsh(9, &[], &[0; 40]));
        assert_eq!(decode(&other).err(), Some(DropCause::UnsupportedTunnel));
        let chain: Vec<u8> = nsh(4, &[], &[]).repeat(30);
        let chain = with_ether_type(0x894f, &chain);
        assert_eq!(decode(&chain).err(), Some(DropCause::TooDeep));
    }
}
