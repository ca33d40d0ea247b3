//! Bytes of frames: tenant packets, and the overlay around them.
//!
//! In: ends, header fields, payload. Out: Ethernet frames with right lengths and checksums.
//! Cost: one allocation a tenant packet; the overlay is written into a buffer that is kept.
//! Source: VXLAN, RFC 7348 section 5.

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv4Type, Icmpv6Type,
    IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep, TcpHeader,
    UdpHeader, VlanId,
};
use std::net::IpAddr;

use super::cloud::{Endpoint, GATEWAY_VTEP, HOSTS, Place, gateway_mac, vlan_of};
use super::random::low16;

const FITS: &str = "generated packets are shorter than the MTU";
const VXLAN_PORT: u16 = 4789;
/// Outer TTL at the sender's host; the fabric takes two hops off.
const OUTER_TTL: u8 = 64;
const FABRIC_HOPS: u8 = 2;
/// Where the IP header begins in an untagged tenant frame.
const IP_OFFSET: usize = 14;

/// What the IP header of a packet says beside its addresses.
#[derive(Clone, Copy)]
pub(super) struct IpFields {
    /// IPv4 identification; IPv6 has none.
    pub(super) identification: u16,
    pub(super) ttl: u8,
}

/// A TCP segment from `from` to `to`.
pub(super) fn tcp(
    from: &Endpoint,
    to: &Endpoint,
    ip: IpFields,
    header: TcpHeader,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(128 + payload.len());
    ip_step(from, to, ip).tcp_header(header).write_to_vec(&mut frame, payload).expect(FITS);
    frame
}

/// A UDP datagram.
pub(super) fn udp(
    (from, from_port): (&Endpoint, u16),
    (to, to_port): (&Endpoint, u16),
    ip: IpFields,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96 + payload.len());
    ip_step(from, to, ip).udp(from_port, to_port).write_to_vec(&mut frame, payload).expect(FITS);
    frame
}

/// An ICMP or ICMPv6 echo request or reply.
pub(super) fn echo(
    from: &Endpoint,
    to: &Endpoint,
    ip: IpFields,
    message: Echo,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96 + payload.len());
    let Echo { reply, id, sequence } = message;
    let header = etherparse::IcmpEchoHeader { id, seq: sequence };
    let step = ip_step(from, to, ip);
    let written = match (from.address.is_ipv6(), reply) {
        (false, false) => {
            step.icmpv4(Icmpv4Type::EchoRequest(header)).write_to_vec(&mut frame, payload)
        }
        (false, true) => {
            step.icmpv4(Icmpv4Type::EchoReply(header)).write_to_vec(&mut frame, payload)
        }
        (true, false) => {
            step.icmpv6(Icmpv6Type::EchoRequest(header)).write_to_vec(&mut frame, payload)
        }
        (true, true) => {
            step.icmpv6(Icmpv6Type::EchoReply(header)).write_to_vec(&mut frame, payload)
        }
    };
    written.expect(FITS);
    frame
}

/// Which echo message.
#[derive(Clone, Copy)]
pub(super) struct Echo {
    pub(super) reply: bool,
    pub(super) id: u16,
    pub(super) sequence: u16,
}

/// An ARP packet for IPv4 over Ethernet (RFC 826): `sender` says who it is, or asks for
/// `target`. `to_mac` is the frame's destination.
pub(super) fn arp(
    sender: &Endpoint,
    request: bool,
    target: ([u8; 6], [u8; 4]),
    to_mac: [u8; 6],
) -> Vec<u8> {
    let operation = if request { ArpOperation::REQUEST } else { ArpOperation::REPLY };
    let address = match sender.address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &sender.mac,
        &address,
        &target.0,
        &target.1,
    )
    .expect(FITS);
    let mut frame = Vec::with_capacity(64);
    let ethernet = PacketBuilder::ethernet2(sender.mac, to_mac);
    let step = match vlan_of(sender.segment).and_then(|id| VlanId::try_new(id).ok()) {
        Some(id) => ethernet.single_vlan(id).arp(packet),
        None => ethernet.arp(packet),
    };
    step.write_to_vec(&mut frame).expect(FITS);
    frame
}

/// IP octets of a tenant frame (Information Element 1).
pub(super) fn ip_octets(frame: &[u8], from: &Endpoint) -> u64 {
    let tag = if vlan_of(from.segment).is_some() { 4 } else { 0 };
    (frame.len().saturating_sub(IP_OFFSET + tag)) as u64
}

/// Turns an untagged tenant frame into what a router sends on: its own MAC address as source,
/// one hop less (RFC 1812 section 5.3.1, checksum by RFC 1624 equation 3).
pub(super) fn route(frame: &mut [u8], to: &Endpoint) {
    frame[..6].copy_from_slice(&to.mac);
    frame[6..12].copy_from_slice(&gateway_mac(to.segment));
    if to.address.is_ipv6() {
        frame[IP_OFFSET + 7] -= 1;
        return;
    }
    let word = |at: usize, frame: &[u8]| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (ttl_at, checksum_at) = (IP_OFFSET + 8, IP_OFFSET + 10);
    let before = word(ttl_at, frame);
    frame[ttl_at] -= 1;
    let after = word(ttl_at, frame);
    let sum = u32::from(!word(checksum_at, frame)) + u32::from(!before) + u32::from(after);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = low16(u64::from((folded & 0xffff) + (folded >> 16)));
    frame[checksum_at..checksum_at + 2].copy_from_slice(&(!folded).to_be_bytes());
}

/// The overlay around one tenant frame.
#[derive(Clone, Copy)]
pub(super) struct Overlay {
    /// Tunnel ends: where the packet comes from and goes to.
    pub(super) from: Place,
    pub(super) to: Place,
    /// The host whose tap sees it.
    pub(super) at: usize,
    pub(super) vni: u32,
    /// Outer IPv4 identification.
    pub(super) identification: u16,
    /// UDP source port, which stands for the inner flow (RFC 7348 section 5).
    pub(super) source_port: u16,
}

impl Overlay {
    /// Writes outer headers and the tenant frame into `out`.
    pub(super) fn write(&self, inner: &[u8], out: &mut Vec<u8>) {
        let sent_here = self.from == Place::Host(self.at);
        let (source, mut destination) = (vtep(self.from), vtep(self.to));
        if source == destination {
            destination = HOSTS[self.at].local_vtep;
        }
        let ttl = if sent_here { OUTER_TTL } else { OUTER_TTL - FABRIC_HOPS };
        let udp_octets = low16(16 + inner.len() as u64);
        let mut ip =
            Ipv4Header::new(udp_octets, ttl, IpNumber::UDP, source, destination).expect(FITS);
        ip.identification = self.identification;
        ip.header_checksum = ip.calc_header_checksum();
        let udp = UdpHeader {
            source_port: self.source_port,
            destination_port: VXLAN_PORT,
            length: udp_octets,
            // RFC 7348 section 5: transmitted as zero.
            checksum: 0,
        };
        let (host, leaf) = (HOSTS[self.at].mac, HOSTS[self.at].leaf_mac);
        let ethernet = Ethernet2Header {
            source: if sent_here { host } else { leaf },
            destination: if sent_here { leaf } else { host },
            ether_type: EtherType::IPV4,
        };
        let [_, high, middle, low] = self.vni.to_be_bytes();
        out.clear();
        out.extend_from_slice(&ethernet.to_bytes());
        out.extend_from_slice(&ip.to_bytes());
        out.extend_from_slice(&udp.to_bytes());
        out.extend_from_slice(&[0x08, 0, 0, 0, high, middle, low, 0]);
        out.extend_from_slice(inner);
    }
}

fn vtep(place: Place) -> [u8; 4] {
    match place {
        Place::Host(host) => HOSTS[host].vtep,
        Place::Outside => GATEWAY_VTEP,
    }
}

/// Ethernet and IP headers between two ends. Where the segments differ the frame goes to the
/// router of the sender's.
fn ip_step(from: &Endpoint, to: &Endpoint, ip: IpFields) -> PacketBuilderStep<IpHeaders> {
    let routed = from.segment != to.segment;
    let next_hop = if routed { gateway_mac(from.segment) } else { to.mac };
    let headers = match (from.address, to.address) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let header = Ipv4Header::new(0, ip.ttl, IpNumber::TCP, source, destination);
            let mut header = header.expect(FITS);
            header.identification = ip.identification;
            IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
        }
        (source, destination) => {
            let octets = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let header = Ipv6Header {
                hop_limit: ip.ttl,
                source: octets(source),
                destination: octets(destination),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
        }
    };
    let ethernet = PacketBuilder::ethernet2(from.mac, next_hop);
    match vlan_of(from.segment).and_then(|id| VlanId::try_new(id).ok()) {
        Some(id) => ethernet.single_vlan(id).ip(headers),
        None => ethernet.ip(headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::cloud::{Cloud, NodeIndex};
    use crate::inventory::{Segment, SegmentKind};
    use etherparse::{NetSlice, SlicedPacket};

    fn end(address: &str, vni: u32) -> Endpoint {
        let segment = Segment::new(0, SegmentKind::Vxlan, vni);
        let address = address.parse().expect("address");
        Cloud::default().outside(NodeIndex(0), address, segment)
    }

    #[test]
    fn routing_takes_a_hop_off_and_keeps_the_checksum_right() {
        for identification in 1..=u16::MAX {
            let (from, to) = (end("10.0.0.1", 1), end("10.1.0.1", 2));
            let ip = IpFields { identification, ttl: 64 };
            let mut frame = udp((&from, 1), (&to, 2), ip, &[]);
            route(&mut frame, &to);
            let packet = SlicedPacket::from_ethernet(&frame).expect("a packet");
            let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("IPv4") };
            let header = ip.header().to_header();
            assert_eq!(
                (header.time_to_live, header.header_checksum),
                (63, header.calc_header_checksum())
            );
        }
        let (from, to) = (end("fd00::1", 1), end("fd00::2", 2));
        let mut frame = udp((&from, 1), (&to, 2), IpFields { identification: 0, ttl: 64 }, &[]);
        route(&mut frame, &to);
        let packet = SlicedPacket::from_ethernet(&frame).expect("a packet");
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("IPv6") };
        assert_eq!(ip.header().hop_limit(), 63);
        assert_eq!(frame[..6], to.mac);
    }
}
