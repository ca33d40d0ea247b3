//! The common shape in one go: Ethernet II, at most one VLAN tag, IPv4 without options and not a
//! fragment, TCP or UDP. What it takes to find the same behind tags and in tunnels is in `enclosed`.
//!
//! In: octets that begin with an Ethernet header, and how many there were on the wire. Out: [`Plain`],
//! whose headers are in one piece, or nothing where the shape is another one.
//! Cost: one length check, after which no place can be outside, and a few compares; several times
//! less than the walk, which this saves.
//! Invariants: what it accepts, the walk accepts with the same result (a property test compares
//! them); all that is wrong, cut, rare or a tunnel is left to the walk, or to `enclosed` first.
//! Source: as in `ethernet`, `vlan`, `ipv4`, `tcp` and `udp`.

use std::net::IpAddr;

use super::brief::Brief;
use super::ethernet::{Ethernet, ether_type};
use super::ipv4::Ipv4;
use super::tcp::{self, ALIGNED_TIMESTAMP, Tcp};
use super::udp::{TunnelPorts, Udp, UdpTunnel};
use super::vlan::VlanTag;
use super::vxlan::Vxlan;
use super::walk::octets;
use super::{Address, Headers, Marks, PAYLOAD_HEAD_OCTETS, protocol, tcp_flag};
use crate::index::{Sender, TapIndex};
use crate::inventory::{AddressSpace, Segment};
use crate::time::Timestamp;

const ETHERNET_OCTETS: usize = 14;
const TAG_OCTETS: usize = 4;
const IPV4_OCTETS: usize = 20;
const TCP_OCTETS: u32 = 20;
const UDP_OCTETS: u32 = 8;
const VXLAN_OCTETS: u32 = 8;

/// An IPv4 header and what a TCP header has without options. Shorter ones are padded to a minimal
/// frame; where the capture has no padding the walk takes them.
const HEAD_OCTETS: usize = 40;

/// TCP header whose only option is the timestamps, laid out as nearly every sender does.
const STAMPED_TCP_OCTETS: u32 = 32;

/// Version 4, five words: no options.
const VERSION_AND_LENGTH: u8 = 0x45;

/// Don't-fragment bit, and the one before it, which is reserved and ignored.
const NOT_FRAGMENT_BITS: u16 = 0xc000;
const DONT_FRAGMENT: u16 = 0x4000;

/// A frame inside a tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inside<'a> {
    /// The frame, as far as captured.
    pub(super) bytes: &'a [u8],
    /// Its length on the wire.
    pub(super) limit: u32,
    /// Octets before it, from where the outer frame begins.
    pub(super) before: usize,
}

/// What the headers do not say of their packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    pub(super) timestamp: Timestamp,
    pub(super) clock: Timestamp,
    pub(super) tap: TapIndex,
    pub(super) segment: Segment,
    pub(super) space: AddressSpace,
    pub(super) mirror: MirrorNote,
    /// Octets of the whole frame before the ones that were looked at.
    pub(super) before: usize,
}

/// What a mirror says of a packet that it copied: nothing of most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MirrorNote {
    /// Of [`Marks::MIRROR`].
    pub(super) marks: Marks,
    /// Valid with [`Marks::MIRROR_SEQUENCE`], else 0.
    pub(super) sequence: u32,
}

/// The headers of a packet of the common shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain<'a> {
    pub(super) ethernet: &'a [u8; ETHERNET_OCTETS],
    /// VLAN id of the tag; 0 without one and with a priority tag.
    pub(super) vlan: u16,
    /// Place of the IPv4 header.
    at: usize,
    head: &'a [u8; HEAD_OCTETS],
    /// IPv4 header and payload, as far as captured; of a packet that was passed on its beginning.
    packet: &'a [u8],
    /// Octets of the packet that were captured.
    captured: usize,
    /// Octets behind the IPv4 header.
    payload_octets: u32,
}

/// What TCP and UDP say, each in the same fields.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transport {
    header_octets: u32,
    payload_octets: u32,
    sequence: u32,
    acknowledgement: u32,
    flags: u16,
    window: u16,
    timestamp_value: u32,
    timestamp_echo: u32,
    marks: Marks,
    /// There are options that are yet to be read.
    has_other_options: bool,
}

impl<'a> Plain<'a> {
    /// Looks at the link layer and IPv4; `limit` is the length on the wire.
    #[inline]
    pub(super) fn of(bytes: &'a [u8], limit: u32) -> Option<Self> {
        let (ethernet, behind) = bytes.split_first_chunk()?;
        let ether_type = Ethernet(ethernet).ether_type();
        if ether_type == ether_type::IPV4 {
            return Self::of_ipv4(ethernet, ETHERNET_OCTETS, behind, limit);
        }
        if ether_type == ether_type::VLAN {
            return Self::of_tagged(ethernet, behind, limit);
        }
        None
    }

    /// The same behind a tag. Apart, so that untagged frames keep the registers.
    #[inline(never)]
    fn of_tagged(
        ethernet: &'a [u8; ETHERNET_OCTETS],
        behind: &'a [u8],
        limit: u32,
    ) -> Option<Self> {
        let (tag, behind) = behind.split_first_chunk::<TAG_OCTETS>()?;
        let tag = VlanTag(tag);
        if tag.ether_type() != ether_type::IPV4 {
            return None;
        }
        let plain = Self::of_ipv4(ethernet, ETHERNET_OCTETS + TAG_OCTETS, behind, limit)?;
        Some(Self { vlan: tag.control() & 0xfff, ..plain })
    }

    #[inline]
    fn of_ipv4(
        ethernet: &'a [u8; ETHERNET_OCTETS],
        at: usize,
        from_ip: &'a [u8],
        limit: u32,
    ) -> Option<Self> {
        let head: &[u8; HEAD_OCTETS] = from_ip.first_chunk()?;
        let ip = Self::ipv4(head);
        let total = usize::from(ip.total_octets());
        let is_plain = head[0] == VERSION_AND_LENGTH
            && ip.flags_offset() & !NOT_FRAGMENT_BITS == 0
            && total >= IPV4_OCTETS
            && octets(at + total) <= limit;
        if !is_plain {
            return None;
        }
        let packet = from_ip.get(..total).unwrap_or(from_ip);
        let payload_octets = octets(total - IPV4_OCTETS);
        Some(Self { ethernet, vlan: 0, at, head, packet, captured: packet.len(), payload_octets })
    }

    /// Of a packet of which a [`Brief`] was made, from its IPv4 header on; `ethernet` has its stations.
    #[inline]
    pub(super) fn of_brief(
        ethernet: &'a [u8; ETHERNET_OCTETS],
        from_ip: &'a [u8],
        brief: &Brief,
    ) -> Option<Self> {
        let at = usize::from(brief.ip_at);
        // All of it was captured: else there were no brief.
        let captured = usize::from(brief.octets);
        let packet = from_ip.get(..captured).unwrap_or(from_ip);
        let payload_octets = u32::from(brief.octets).checked_sub(octets(IPV4_OCTETS))?;
        let head = from_ip.first_chunk()?;
        Some(Self { ethernet, vlan: 0, at, head, packet, captured, payload_octets })
    }

    #[inline]
    fn ipv4(head: &[u8; HEAD_OCTETS]) -> Ipv4<'_> {
        Ipv4(head.first_chunk().expect("40 octets begin with 20"))
    }

    /// IPv4 header and the octets behind it, and their place in what was looked at; `None` where the
    /// capture cut the packet.
    #[inline]
    pub(super) fn whole(&self) -> Option<(&'a [u8; HEAD_OCTETS], usize)> {
        let total = IPV4_OCTETS + self.payload_octets as usize;
        (self.captured == total).then_some((self.head, self.at))
    }

    /// Whether there is a VLAN tag, a priority tag included.
    #[inline]
    pub(super) const fn is_tagged(&self) -> bool {
        self.at != ETHERNET_OCTETS
    }

    /// Protocol number (IANA) of what is behind the IPv4 header.
    #[inline]
    pub(super) fn protocol(&self) -> u8 {
        Self::ipv4(self.head).protocol()
    }

    /// Source address.
    pub(super) fn source(&self) -> IpAddr {
        IpAddr::from(Self::ipv4(self.head).source())
    }

    /// What is behind the IPv4 header, as far as captured.
    #[inline]
    pub(super) fn payload(&self) -> &'a [u8] {
        self.packet.get(IPV4_OCTETS..).unwrap_or_default()
    }

    /// The frame that begins so many octets behind the IPv4 header, and takes what is left.
    #[inline]
    pub(super) fn inside(&self, header_octets: u32) -> Option<Inside<'a>> {
        let limit = self.payload_octets.checked_sub(header_octets)?;
        let bytes = self.payload().get(header_octets as usize..)?;
        let before = self.at + IPV4_OCTETS + header_octets as usize;
        Some(Inside { bytes, limit, before })
    }

    /// The frame inside and its VNI, where this is a datagram to a port of VXLAN with a header whose
    /// flags say nothing but that there is one.
    #[inline]
    pub(super) fn inside_vxlan(&self, tunnels: &TunnelPorts) -> Option<(u32, Inside<'a>)> {
        if self.protocol() != protocol::UDP {
            return None;
        }
        let (header, datagram) = self.payload().split_first_chunk()?;
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
        header.is_plain().then_some((header.vni(), Inside { bytes, limit, before }))
    }

    /// Looks at the transport header; `None` where it is not of the common shape.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see `Plain::write`")]
    pub(super) fn transport(&self, tunnels: &TunnelPorts) -> Option<Transport> {
        match Self::ipv4(self.head).protocol() {
            protocol::TCP => self.tcp(),
            protocol::UDP => self.udp(tunnels),
            _ => None,
        }
    }

    #[inline]
    fn tcp(&self) -> Option<Transport> {
        let header = Tcp(self.head.last_chunk().expect("40 octets end with 20"));
        let header_octets = header.header_octets();
        let flags = header.flags();
        let mut transport = Transport {
            header_octets,
            payload_octets: self.payload_octets.checked_sub(header_octets)?,
            sequence: header.sequence(),
            acknowledgement: if flags & tcp_flag::ACK != 0 { header.acknowledgement() } else { 0 },
            flags,
            window: header.window(),
            ..Transport::default()
        };
        if header_octets == TCP_OCTETS {
            return Some(transport);
        }
        let options = self.options(header_octets)?;
        if header_octets == STAMPED_TCP_OCTETS
            && let Some((&ALIGNED_TIMESTAMP, times)) = options.split_first_chunk()
            && let Some((value, echo)) = times.split_first_chunk()
            && let Some(echo) = echo.first_chunk()
        {
            transport.timestamp_value = u32::from_be_bytes(*value);
            transport.timestamp_echo = u32::from_be_bytes(*echo);
            transport.marks = Marks::TCP_TIMESTAMP;
        } else {
            transport.has_other_options = true;
        }
        Some(transport)
    }

    /// The options of a TCP header so long; `None` where it is too short, or the capture cut it.
    #[inline]
    fn options(&self, header_octets: u32) -> Option<&'a [u8]> {
        self.packet.get(HEAD_OCTETS..IPV4_OCTETS + header_octets as usize)
    }

    #[inline]
    fn udp(&self, tunnels: &TunnelPorts) -> Option<Transport> {
        let header = self.udp_header();
        let is_tunnel = tunnels.between(header.source_port(), header.destination_port()).is_some();
        if is_tunnel { None } else { self.datagram() }
    }

    #[inline]
    fn udp_header(&self) -> Udp<'_> {
        Udp(self.head[IPV4_OCTETS..].first_chunk().expect("20 octets begin with 8"))
    }

    #[inline]
    fn datagram(&self) -> Option<Transport> {
        let claimed = u32::from(self.udp_header().octets());
        let payload_octets = claimed.checked_sub(UDP_OCTETS)?;
        (claimed <= self.payload_octets).then_some(Transport {
            header_octets: UDP_OCTETS,
            payload_octets,
            ..Transport::default()
        })
    }

    /// Writes all of a packet of which a [`Brief`] was made: it is TCP or UDP, and no tunnel.
    #[inline]
    pub(super) fn write_known(&self, around: &Around, out: &mut Headers) {
        let is_tcp = Self::ipv4(self.head).protocol() == protocol::TCP;
        if let Some(transport) = if is_tcp { self.tcp() } else { self.datagram() } {
            self.write(&transport, around, out);
        }
    }

    /// Writes all of the packet, every field, one after another: a whole `Headers` made at once would
    /// not fit the registers.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "three structures stay in registers")]
    pub(super) fn write(&self, transport: &Transport, around: &Around, out: &mut Headers) {
        let ip = Self::ipv4(self.head);
        let ethernet = Ethernet(self.ethernet);
        out.timestamp = around.timestamp;
        out.clock = around.clock;
        out.space = around.space;
        out.segment = around.segment;
        out.tap = around.tap;
        out.mirror_sequence = around.mirror.sequence;
        out.source_mac = ethernet.source();
        out.destination_mac = ethernet.destination();
        out.source = Address::v4(ip.source());
        out.destination = Address::v4(ip.destination());
        // The ports: the same place in TCP and UDP.
        let ports = [20, 21, 22, 23].map(|place: usize| self.head[place]);
        out.source_port = u16::from_be_bytes([ports[0], ports[1]]);
        out.destination_port = u16::from_be_bytes([ports[2], ports[3]]);
        out.protocol = ip.protocol();
        out.ip_version = 4;
        out.ttl = ip.ttl();
        out.traffic_class = ip.traffic_class();
        out.octets = octets(IPV4_OCTETS) + self.payload_octets;
        out.layer2_octets = out.octets + octets(ETHERNET_OCTETS);
        out.ip_identification = u32::from(ip.identification());
        out.fragment_offset = 0;
        out.icmp_type_code = 0;
        out.tcp_flags = transport.flags;
        out.tcp_sequence = transport.sequence;
        out.tcp_acknowledgement = transport.acknowledgement;
        out.tcp_timestamp_value = transport.timestamp_value;
        out.tcp_timestamp_echo = transport.timestamp_echo;
        out.tcp_window = transport.window;
        out.marks = Marks(self.marks(transport, out.octets).0 | around.mirror.marks.0);
        out.payload_octets = transport.payload_octets;
        let begin = IPV4_OCTETS + transport.header_octets as usize;
        let captured = self.captured.saturating_sub(begin).min(transport.payload_octets as usize);
        out.payload_captured_octets = octets(captured);
        out.payload_offset = octets(around.before + self.at + begin);
        out.payload_head = self.payload_head(begin, captured);
        out.tcp_syn_options = 0;
        out.hash = 0;
        out.sender = Sender::Low;
        (out.quoted_protocol, out.quoted_source_port) = (0, 0);
        (out.tap_flow_cookie, out.tap_endpoint, out.tap_attachment) = (0, 0, 0);
        if transport.has_other_options
            && let Some(options) = self.options(transport.header_octets)
        {
            write_options(options, out);
        }
    }

    #[inline]
    fn marks(&self, transport: &Transport, octets_in_all: u32) -> Marks {
        let mut marks = Marks(Marks::ETHERNET.0 | transport.marks.0);
        if Self::ipv4(self.head).flags_offset() & DONT_FRAGMENT != 0 {
            marks.set(Marks::DONT_FRAGMENT);
        }
        if self.captured < octets_in_all as usize {
            marks.set(Marks::SNAPPED);
        }
        marks
    }

    /// The first octets of the payload; what is missing reads as 0.
    #[inline]
    fn payload_head(&self, begin: usize, captured: usize) -> [u8; PAYLOAD_HEAD_OCTETS] {
        if captured == 0 {
            return [0; PAYLOAD_HEAD_OCTETS];
        }
        if captured >= PAYLOAD_HEAD_OCTETS
            && let Some(head) = self.packet.get(begin..).and_then(|payload| payload.first_chunk())
        {
            return *head;
        }
        self.short_payload_head(begin, captured)
    }

    #[inline(never)]
    fn short_payload_head(&self, begin: usize, captured: usize) -> [u8; PAYLOAD_HEAD_OCTETS] {
        let valid = captured.min(PAYLOAD_HEAD_OCTETS);
        // The sixteen octets that end where the valid ones do: headers stand before them.
        let end = begin + valid;
        let Some(window) = self.packet.get(..end).and_then(|octets| octets.last_chunk()) else {
            return [0; PAYLOAD_HEAD_OCTETS];
        };
        (u128::from_le_bytes(*window) >> (8 * (PAYLOAD_HEAD_OCTETS - valid))).to_le_bytes()
    }
}

/// Writes what TCP options say. They alone are given on, so that all else of the packet stays in
/// registers.
#[inline(never)]
fn write_options(options: &[u8], out: &mut Headers) {
    let mut marks = out.marks;
    tcp::read_options(options, &mut marks, out);
    out.marks = marks;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::Frame;
    use crate::config::Plan;
    use crate::counters::DropCause;
    use crate::decode::testing::{
        DECODERS, decoder_of, decoders, ethernet, frame_of, ipv4, ipv6, mirror_plans, mirrored,
        tagged, tcp, udp, vxlan,
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
        for frame in &inner[..6] {
            frames.extend(mirrored(frame));
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
            by in 0..DECODERS,
        ) {
            let all = frames();
            let mut bytes = which.get(&all).clone();
            for (place, value) in changes {
                // Mostly in the headers.
                let places = bytes.len().min(170);
                bytes[place.index(places)] = value;
            }
            bytes.resize(bytes.len() + padding, 0);
            let whole = frame_of(&bytes).wire_octets;
            let part = &bytes[..bytes.len().min(captured.max(20))];
            let decoder = &decoders(by);
            for frame in [
                frame_of(&bytes),
                Frame { wire_octets: whole + beyond, ..frame_of(part) },
                frame_of(part),
            ] {
                let [one_go, steps] = both(decoder, &frame);
                prop_assert_eq!(one_go, steps);
            }
        }
    }

    #[test]
    fn the_common_shape_is_read_in_one_go() {
        let tunnels = TunnelPorts::new(&Plan::default().decode);
        let is_plain = |frame: &&Vec<u8>| {
            Plain::of(frame, frame_of(frame).wire_octets)
                .is_some_and(|plain| plain.transport(&tunnels).is_some())
        };
        // Of each TCP and UDP packet: untagged, with one or a priority tag of type 0x8100, and with an
        // RSPAN mirror's.
        assert_eq!(frames().iter().filter(is_plain).count(), 4 * 4);
    }

    #[test]
    fn what_mirrors_send_is_read_in_one_go() {
        let inner = ethernet(&ipv4(6, &tcp(0x10, &TIMES, &[7; 20])));
        let read = |plan: &Plan| -> String {
            let decoder = decoder_of(plan);
            let is_read = |frame: &Vec<u8>| {
                let frame = frame_of(frame);
                let mut brief = Brief::default();
                decoder.brief_of_enclosed(&frame, Timestamp(5), &mut brief).is_some()
            };
            mirrored(&inner).iter().map(|frame| if is_read(frame) { '1' } else { '0' }).collect()
        };
        let read: Vec<String> = mirror_plans().iter().map(read).collect();
        // For the walk are two tags, GRE in a tunnel, and VXLAN in an overlay.
        let without_taps = "11011110111101111111011100";
        // A key that a tap claims is a mirror's, and no overlay.
        let with_taps = "11011110111101111111011110";
        // Two tunnels are too many.
        let shallow = "11011110010001111111011100";
        assert_eq!(read, [without_taps, without_taps, with_taps, shallow]);
    }
}
