//! A frame of the common shape in the tunnel headers that nearly all have: VXLAN, and ERSPAN type II with a
//! sequence number and nothing else. Both take fifty octets with the Ethernet and IPv4 headers around, so
//! that all there is to look at stands at places that are known.
//!
//! In: a frame. Out: the tunnel, and where the headers inside are; nothing for any other.
//! Cost: one check of the length and some 30 instructions.
//! Invariants: what is found here the walk finds (a property test compares them).
//! Source: VXLAN, RFC 7348 section 5; GRE, RFC 2890 section 2; ERSPAN, draft-foschiano-erspan-03
//! section 4.2.

use super::{
    ETHERNET_OCTETS, FRAGMENT_BITS, HEAD_OCTETS, IPV4_OCTETS, IPV4_WITHOUT_OPTIONS, UDP_OCTETS,
    WITHOUT_TRAFFIC_CLASS, long, octets_at, short,
};
use crate::capture::Frame;
use crate::decode::erspan::{Erspan, PROTOCOL_TYPE_I_II, TAG_IN_HEADER, VERSION_II};
use crate::decode::protocol;
use crate::decode::udp::{TunnelPorts, UdpTunnel};
use crate::decode::vxlan::Vxlan;

/// Places of the outer headers: total length, protocol and source of IPv4, what is behind it.
const TOTAL_AT: usize = 16;
const PROTOCOL_AT: usize = 23;
const SOURCE_AT: usize = 26;
const BEHIND_AT: usize = 34;
/// Destination port and length of UDP.
const UDP_PORT_AT: usize = BEHIND_AT + 2;
const UDP_OCTETS_AT: usize = BEHIND_AT + 4;
/// Sequence number of GRE, behind flags and protocol type.
const SEQUENCE_AT: usize = BEHIND_AT + 4;
/// VXLAN or ERSPAN.
const TUNNEL_AT: usize = BEHIND_AT + 8;

/// Octets before the frame inside.
const TUNNEL_OCTETS: usize = TUNNEL_AT + 8;
/// What is looked at.
const START_OCTETS: usize = TUNNEL_OCTETS + ETHERNET_OCTETS + HEAD_OCTETS;
/// Where the inner IPv4 header begins.
const IP_AT: usize = TUNNEL_OCTETS + ETHERNET_OCTETS;

const VXLAN_OCTETS: u32 = 8;
/// GRE with a sequence number, and the ERSPAN header behind it.
const ERSPAN_OCTETS: u32 = 16;

/// GRE: a sequence number and nothing else; ERSPAN type II, if the version says so.
const SEQUENCED_ERSPAN: u32 = 0x1000_0000 | PROTOCOL_TYPE_I_II as u32;

/// A tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Tunnel {
    /// VXLAN with this VNI.
    Vxlan(u32),
    /// ERSPAN of this session.
    Erspan {
        /// Session id, 10 bits.
        session: u16,
        /// Of GRE.
        sequence: u32,
    },
}

/// A frame in a tunnel.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) struct Tunnelled<'a> {
    pub(in crate::decode) tunnel: Tunnel,
    /// Source of the outer packet.
    pub(in crate::decode) outer_source: [u8; 4],
    pub(in crate::decode) stations: &'a [u8; 12],
    pub(in crate::decode) head: &'a [u8; HEAD_OCTETS],
}

impl<'a> Tunnelled<'a> {
    /// Where the inner IPv4 header begins.
    #[expect(clippy::cast_possible_truncation, reason = "64")]
    pub(in crate::decode) const IP_AT: u16 = IP_AT as u16;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see `Brief::write`")]
    pub(in crate::decode) fn of(frame: &Frame<'a>, tunnels: &TunnelPorts) -> Option<Self> {
        let start: &[u8; START_OCTETS] = frame.bytes.first_chunk()?;
        if !is_plain::<0>(start) || !is_plain::<TUNNEL_OCTETS>(start) {
            return None;
        }
        let outer_octets = u32::from(short(start, TOTAL_AT));
        let (tunnel, inside_octets) = if start[PROTOCOL_AT] == protocol::GRE {
            erspan(start, outer_octets.checked_sub(IPV4_OCTETS + ERSPAN_OCTETS)?)?
        } else {
            vxlan(start, outer_octets.checked_sub(IPV4_OCTETS)?, tunnels)?
        };
        let inner_octets = usize::from(short(start, IP_AT + 2));
        let is_whole = inner_octets + ETHERNET_OCTETS <= inside_octets as usize
            && inner_octets + IP_AT <= frame.bytes.len()
            && outer_octets as usize + ETHERNET_OCTETS
                <= frame.bytes.len().max(frame.wire_octets as usize);
        let inner = start.get(TUNNEL_OCTETS..)?;
        is_whole.then_some(Self {
            tunnel,
            outer_source: octets_at(start, SOURCE_AT),
            stations: inner.first_chunk()?,
            head: inner.get(ETHERNET_OCTETS..)?.first_chunk()?,
        })
    }
}

/// Whether untagged IPv4 without options, and no fragment, begins there.
#[inline]
fn is_plain<const AT: usize>(start: &[u8; START_OCTETS]) -> bool {
    let kind = u32::from_ne_bytes(octets_at(start, AT + 12));
    kind & WITHOUT_TRAFFIC_CLASS == IPV4_WITHOUT_OPTIONS
        && u16::from_ne_bytes(octets_at(start, AT + ETHERNET_OCTETS + 6)) & FRAGMENT_BITS == 0
}

/// The tunnel and the octets inside, of so many behind the outer IPv4 header.
#[inline]
fn vxlan(start: &[u8; START_OCTETS], octets: u32, tunnels: &TunnelPorts) -> Option<(Tunnel, u32)> {
    let claimed = u32::from(short(start, UDP_OCTETS_AT));
    let header = Vxlan(start.get(TUNNEL_AT..)?.first_chunk()?);
    let is_plain = start[PROTOCOL_AT] == protocol::UDP
        && claimed <= octets
        && header.is_plain()
        && tunnels.of(short(start, UDP_PORT_AT)) == Some(UdpTunnel::Vxlan);
    let inside_octets = claimed.checked_sub(UDP_OCTETS + VXLAN_OCTETS)?;
    is_plain.then_some((Tunnel::Vxlan(header.vni()), inside_octets))
}

/// The same, of so many inside.
#[inline]
fn erspan(start: &[u8; START_OCTETS], octets: u32) -> Option<(Tunnel, u32)> {
    let header = Erspan(start.get(TUNNEL_AT..)?.first_chunk()?);
    let is_plain = long(start, BEHIND_AT) == SEQUENCED_ERSPAN
        && header.version() == VERSION_II
        && header.encapsulation() != TAG_IN_HEADER
        && !header.truncated();
    let sequence = long(start, SEQUENCE_AT);
    is_plain.then_some((Tunnel::Erspan { session: header.session(), sequence }, octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Plan;
    use crate::decode::testing::{
        erspan_ii, erspan_iii, ethernet, frame_of, gre, ipv4, tagged, tcp, vxlan,
    };

    #[test]
    fn the_headers_that_nearly_all_have_are_known() {
        let inner = ethernet(&ipv4(6, &tcp(0x10, &[], b"payload")));
        let tunnels = TunnelPorts::new(&Plan::default().decode);
        let of = |bytes: &[u8]| Tunnelled::of(&frame_of(bytes), &tunnels).map(|found| found.tunnel);
        let erspan = Some(Tunnel::Erspan { session: 5, sequence: 0xabcd });
        assert_eq!(of(&vxlan(4_242, &inner)), Some(Tunnel::Vxlan(4_242)));
        assert_eq!(of(&erspan_ii(0, &inner)), erspan);
        assert_eq!(of(&erspan_ii(3 << 3, &inner)), erspan, "the tag is where it was");
        for other in [
            inner.clone(),
            erspan_ii(2 << 3, &inner),
            erspan_ii(4, &inner),
            erspan_ii(0, &tagged(&inner, &[(0x8100, 7)])),
            tagged(&erspan_ii(0, &inner), &[(0x8100, 7)]),
            erspan_iii(0, &[], &inner),
            gre(0, 0x88be, 0, &inner),
            gre(0x3000, 0x6558, 7, &inner),
        ] {
            assert_eq!(of(&other), None, "{other:x?}");
        }
    }
}
