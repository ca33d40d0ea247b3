//! The common shape in one go: Ethernet II, at most one VLAN tag, IPv4 without options and not a
//! fragment, TCP or UDP; and the same once more inside VXLAN.
//!
//! In: octets that begin with an Ethernet header, and how many there were on the wire. Out: [`Plain`],
//! whose headers are in one piece, or nothing where the shape is another one.
//! Cost: two length checks and a few compares; several times less than the walk, which this saves.
//! Invariants: what it accepts, the walk accepts with the same result (a property test compares
//! them); all that is wrong, cut, rare or another tunnel is left to the walk.
//! Source: as in `ethernet`, `vlan`, `ipv4`, `tcp` and `udp`.

use super::ethernet::{Ethernet, ether_type};
use super::ipv4::Ipv4;
use super::tcp::Tcp;
use super::udp::{TunnelPorts, Udp, UdpTunnel};
use super::vlan::VlanTag;
use super::vxlan::Vxlan;
use super::walk::octets;
use super::{Address, Headers, Marks, PAYLOAD_HEAD_OCTETS, protocol, tcp, tcp_flag};

const ETHERNET_OCTETS: usize = 14;
const TAG_OCTETS: usize = 4;
const IPV4_OCTETS: usize = 20;
const TCP_OCTETS: u32 = 20;
const UDP_OCTETS: u32 = 8;
const VXLAN_OCTETS: u32 = 8;

/// Version 4, five words: no options.
const VERSION_AND_LENGTH: u8 = 0x45;

/// Don't-fragment bit, and the one before it, which is reserved and ignored.
const NOT_FRAGMENT_BITS: u16 = 0xc000;
const DONT_FRAGMENT: u16 = 0x4000;

/// A frame inside VXLAN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inside<'a> {
    /// VXLAN network identifier.
    pub(super) vni: u32,
    /// The frame, as far as captured.
    pub(super) bytes: &'a [u8],
    /// Its length on the wire.
    pub(super) limit: u32,
    /// Octets of the whole frame before it.
    pub(super) before: usize,
}

/// The headers of a packet of the common shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain<'a> {
    pub(super) ethernet: &'a [u8; ETHERNET_OCTETS],
    /// VLAN id of the tag; 0 without one and with a priority tag.
    pub(super) vlan: u16,
    /// Place of the IPv4 header.
    at: usize,
    ip: &'a [u8; IPV4_OCTETS],
    /// IPv4 header and payload, as far as captured.
    packet: &'a [u8],
    /// Octets behind the IPv4 header.
    payload_octets: u32,
}

impl<'a> Plain<'a> {
    /// Looks at the link layer and IPv4; `limit` is the length on the wire.
    #[inline]
    pub(super) fn of(bytes: &'a [u8], limit: u32) -> Option<Self> {
        let ethernet = bytes.first_chunk()?;
        let (mut at, mut vlan) = (ETHERNET_OCTETS, 0);
        let mut ether_type = Ethernet(ethernet).ether_type();
        if ether_type == ether_type::VLAN {
            let tag = VlanTag(bytes.get(at..)?.first_chunk()?);
            vlan = tag.control() & 0xfff;
            ether_type = tag.ether_type();
            at += TAG_OCTETS;
        }
        let from_ip = bytes.get(at..)?;
        let ip: &[u8; IPV4_OCTETS] = from_ip.first_chunk()?;
        let header = Ipv4(ip);
        let total = usize::from(header.total_octets());
        let is_plain = ether_type == ether_type::IPV4
            && ip[0] == VERSION_AND_LENGTH
            && header.flags_offset() & !NOT_FRAGMENT_BITS == 0
            && total >= IPV4_OCTETS
            && octets(at + total) <= limit;
        if !is_plain {
            return None;
        }
        let packet = from_ip.get(..total).unwrap_or(from_ip);
        Some(Self { ethernet, vlan, at, ip, packet, payload_octets: octets(total - IPV4_OCTETS) })
    }

    /// Whether there is a VLAN tag, a priority tag included.
    #[inline]
    pub(super) const fn is_tagged(&self) -> bool {
        self.at != ETHERNET_OCTETS
    }

    /// The frame inside, where this is a datagram to a port of VXLAN with a header whose flags say
    /// nothing but that there is a VNI.
    #[inline]
    pub(super) fn inside_vxlan(&self, tunnels: &TunnelPorts) -> Option<Inside<'a>> {
        if Ipv4(self.ip).protocol() != protocol::UDP {
            return None;
        }
        let (header, datagram) = self.packet.get(IPV4_OCTETS..)?.split_first_chunk()?;
        let header = Udp(header);
        let claimed = u32::from(header.octets());
        let limit = claimed.checked_sub(UDP_OCTETS + VXLAN_OCTETS)?;
        if claimed > self.payload_octets
            || tunnels.of(header.destination_port()) != Some(UdpTunnel::Vxlan)
        {
            return None;
        }
        let (header, rest) = datagram.split_first_chunk()?;
        let header = Vxlan(header);
        let bytes = rest.get(..limit as usize).unwrap_or(rest);
        let before = self.at + IPV4_OCTETS + (UDP_OCTETS + VXLAN_OCTETS) as usize;
        header.is_plain().then_some(Inside { vni: header.vni(), bytes, limit, before })
    }

    /// Writes IP and transport fields, and gives the marks of the packet. `None`, with nothing
    /// written, where the transport header is not of the common shape. `before` octets of the frame
    /// stand before the ones that this was made of.
    #[inline]
    pub(super) fn write(
        &self,
        tunnels: &TunnelPorts,
        before: usize,
        out: &mut Headers,
    ) -> Option<Marks> {
        let mut marks = Marks::default();
        let header = Ipv4(self.ip);
        let transport_octets = match header.protocol() {
            protocol::TCP => self.write_tcp(&mut marks, out)?,
            protocol::UDP => self.write_udp(tunnels, out)?,
            _ => return None,
        };
        if header.flags_offset() & DONT_FRAGMENT != 0 {
            marks.set(Marks::DONT_FRAGMENT);
        }
        out.protocol = header.protocol();
        out.ip_version = 4;
        out.source = Address::v4(header.source());
        out.destination = Address::v4(header.destination());
        out.octets = octets(IPV4_OCTETS) + self.payload_octets;
        out.ttl = header.ttl();
        out.traffic_class = header.traffic_class();
        out.ip_identification = u32::from(header.identification());
        out.fragment_offset = 0;
        if self.packet.len() < out.octets as usize {
            marks.set(Marks::SNAPPED);
        }
        self.write_payload(transport_octets, before, out);
        Some(marks)
    }

    #[inline]
    fn write_tcp(&self, marks: &mut Marks, out: &mut Headers) -> Option<u32> {
        let header = Tcp(self.packet.get(IPV4_OCTETS..)?.first_chunk()?);
        let header_octets = header.header_octets();
        if header_octets < TCP_OCTETS || header_octets > self.payload_octets {
            return None;
        }
        if header_octets > TCP_OCTETS {
            let begin = IPV4_OCTETS + TCP_OCTETS as usize;
            let options = self.packet.get(begin..IPV4_OCTETS + header_octets as usize)?;
            tcp::read_options(options, marks, out);
        }
        out.source_port = header.source_port();
        out.destination_port = header.destination_port();
        out.tcp_sequence = header.sequence();
        out.tcp_flags = header.flags();
        out.tcp_window = header.window();
        let acknowledges = out.tcp_flags & tcp_flag::ACK != 0;
        out.tcp_acknowledgement = if acknowledges { header.acknowledgement() } else { 0 };
        out.payload_octets = self.payload_octets - header_octets;
        Some(header_octets)
    }

    #[inline]
    fn write_udp(&self, tunnels: &TunnelPorts, out: &mut Headers) -> Option<u32> {
        let header = Udp(self.packet.get(IPV4_OCTETS..)?.first_chunk()?);
        let claimed = u32::from(header.octets());
        if claimed < UDP_OCTETS || claimed > self.payload_octets {
            return None;
        }
        if tunnels.between(header.source_port(), header.destination_port()).is_some() {
            return None;
        }
        out.source_port = header.source_port();
        out.destination_port = header.destination_port();
        out.payload_octets = claimed - UDP_OCTETS;
        Some(UDP_OCTETS)
    }

    /// `out.payload_octets` is written already.
    #[inline]
    fn write_payload(&self, transport_octets: u32, before: usize, out: &mut Headers) {
        let begin = IPV4_OCTETS + transport_octets as usize;
        let behind = self.packet.len().saturating_sub(begin);
        let captured = behind.min(out.payload_octets as usize);
        out.payload_captured_octets = octets(captured);
        out.payload_offset = octets(before + self.at + begin);
        out.payload_head = self.payload_head(begin, captured);
    }

    /// The first octets of the payload; what is missing reads as 0.
    #[inline]
    fn payload_head(&self, begin: usize, captured: usize) -> [u8; PAYLOAD_HEAD_OCTETS] {
        let valid = captured.min(PAYLOAD_HEAD_OCTETS);
        if valid == 0 {
            return [0; PAYLOAD_HEAD_OCTETS];
        }
        // The sixteen octets that end where the valid ones do: headers stand before them.
        let end = begin + valid;
        let Some(window) = self.packet.get(..end).and_then(|octets| octets.last_chunk()) else {
            return [0; PAYLOAD_HEAD_OCTETS];
        };
        (u128::from_le_bytes(*window) >> (8 * (PAYLOAD_HEAD_OCTETS - valid))).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::Frame;
    use crate::config::Plan;
    use crate::counters::DropCause;
    use crate::decode::testing::{
        decoder_of, ethernet, frame_of, ipv4, ipv6, tagged, tcp, udp, vxlan,
    };
    use crate::decode::{Decoder, Headers};
    use crate::time::Timestamp;

    const TIMES: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
    const BLOCKS: [u8; 12] = [1, 1, 5, 10, 0, 0, 0, 7, 0, 0, 0, 9];

    /// A tunnel's header and a small packet in a datagram.
    fn in_udp((source, destination): (u16, u16), header: &[u8]) -> Vec<u8> {
        let inner = ipv4(17, &udp(1, 2, &[7]));
        let inner = if source == 3_544 { ipv6(17, &udp(1, 2, &[7])) } else { inner };
        let wlan = [&[8, 1][..], &[0; 22], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat();
        let wlan = if source == 5_247 { wlan } else { Vec::new() };
        ethernet(&ipv4(17, &udp(source, destination, &[header, &wlan, &inner].concat())))
    }

    fn frames() -> Vec<Vec<u8>> {
        let payload: Vec<u8> = (1..40).collect();
        let inner = [
            ethernet(&ipv4(6, &tcp(0x10, &[], &payload))),
            ethernet(&ipv4(6, &tcp(0x18, &TIMES, &payload[..9]))),
            ethernet(&ipv4(6, &tcp(0x02, &BLOCKS, &[]))),
            ethernet(&ipv4(17, &udp(1_000, 53, &payload[..16]))),
            ethernet(&ipv4(17, &udp(1_000, 4_789, &payload[..3]))),
            ethernet(&ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 2])),
            in_udp((2_152, 2_152), &[0x30, 255, 0, 29, 0, 0, 0, 1]),
            in_udp((1_000, 6_635), &[0, 6, 0x41, 64]),
            in_udp((1_000, 4_754), &[0, 0, 8, 0]),
            in_udp((3_544, 1_000), &[]),
            in_udp((5_247, 1_000), &[0, 0x10, 3, 0x20, 0, 0, 0, 0]),
        ];
        let tags: [&[(u16, u16)]; 4] =
            [&[(0x8100, 7)], &[(0x8100, 0)], &[(0x88a8, 7)], &[(0x8100, 7), (0x8100, 8)]];
        let mut frames: Vec<Vec<u8>> = inner.to_vec();
        for frame in &inner {
            frames.push(vxlan(4_242, frame));
            frames.push(vxlan(4_242, &tagged(frame, &[(0x8100, 0)])));
            frames.push(tagged(&vxlan(7, frame), &[(0x8100, 5)]));
            frames.push(vxlan(1, &vxlan(2, frame)));
            frames.push(vxlan(4_242, &tagged(frame, &[(0x8100, 9)])));
            frames.extend(tags.iter().map(|tags| tagged(frame, tags)));
        }
        frames
    }

    fn both(decoder: &Decoder, frame: &Frame<'_>) -> [(Result<(), DropCause>, String); 2] {
        let (mut one_go, mut steps) = (Headers::default(), Headers::default());
        let results = [
            decoder.decode(frame, Timestamp(5), &mut one_go),
            decoder.decode_step_by_step(frame, Timestamp(5), &mut steps),
        ];
        let [first, second] = results;
        [(first, format!("{one_go:?}")), (second, format!("{steps:?}"))]
    }

    /// A change of one octet: where, as a share of the frame, and to what.
    fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_walk_says_the_same(
            which in any::<prop::sample::Index>(),
            changes in changes(),
            padding in 0_usize..20,
            captured in 0_usize..200,
            beyond in 0_u32..40,
        ) {
            let all = frames();
            let mut bytes = which.get(&all).clone();
            for (place, value) in changes {
                // Mostly in the headers.
                let places = bytes.len().min(80);
                bytes[place.index(places)] = value;
            }
            bytes.resize(bytes.len() + padding, 0);
            let whole = frame_of(&bytes).wire_octets;
            let part = &bytes[..bytes.len().min(captured.max(20))];
            let decoder = decoder_of(&Plan::default());
            for frame in [
                frame_of(&bytes),
                Frame { wire_octets: whole + beyond, ..frame_of(part) },
                frame_of(part),
            ] {
                let [one_go, steps] = both(&decoder, &frame);
                prop_assert_eq!(one_go, steps);
            }
        }
    }

    #[test]
    fn the_common_shape_is_read_in_one_go() {
        let tunnels = TunnelPorts::new(&Plan::default().decode);
        let read = frames()
            .iter()
            .filter(|frame| {
                Plain::of(frame, frame_of(frame).wire_octets).is_some_and(|plain| {
                    plain.write(&tunnels, 0, &mut Headers::default()).is_some()
                })
            })
            .count();
        // Of each TCP and UDP packet: untagged, and with one or a priority tag of type 0x8100.
        assert_eq!(read, 4 * 3);
    }
}
