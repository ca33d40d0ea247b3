//! The little of a frame that the link must know: who sends to whom, TTL, labels, TCP segments.
//!
//! In: octets of an Ethernet frame. Out: [`Headers`] with the places of what may be rewritten.
//! Cost: no allocation.
//! Invariants: knows nothing of the probe's decoder, so that the truth does not share its faults;
//! never reads past the end.
//! Source: Ethernet and VLAN tags, IEEE 802.1Q; IPv4, RFC 791; IPv6, RFC 8200; TCP, RFC 9293; VXLAN,
//! RFC 7348.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
const TCP: u8 = 6;
const UDP: u8 = 17;
const VXLAN_PORT: u16 = 4789;
/// Tunnels inside one another at most.
const DEPTH_MAX: usize = 4;

/// TCP flags.
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// The innermost IP packet of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Who sends.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Protocol number.
    pub protocol: u8,
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Destination port; 0 where there is none.
    pub destination_port: u16,
    /// Octets of the IP packet, header included, as it says.
    pub ip_octets: u32,
    /// IPv4 identification; 0 for IPv6.
    pub identification: u16,
    /// The segment, if it is one and its header is there.
    pub tcp: Option<Tcp>,
    pub(super) ip_at: usize,
    pub(super) tunnels: usize,
    pub(super) vlan_at: Option<usize>,
    pub(super) vni_at: Option<usize>,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number of its first octet.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags, without those above CWR.
    pub flags: u8,
    /// Octets of payload.
    pub payload_octets: u32,
    pub(super) at: usize,
    pub(super) payload_at: usize,
}

/// What is inside of a frame; `None`: no IP, or no IP in its tunnel.
pub fn parse(frame: &[u8]) -> Option<Headers> {
    let mut found = None;
    let mut labels = (None, None);
    let mut at = 0;
    for tunnels in 0..DEPTH_MAX {
        let Some(ethernet) = ethernet(frame, at) else { break };
        labels.0 = ethernet.vlan_at.or(labels.0);
        if ![TYPE_IPV4, TYPE_IPV6].contains(&ethernet.kind) {
            return None;
        }
        let Some(mut headers) = ip(frame, ethernet.payload_at, ethernet.kind) else { break };
        headers.tunnels = tunnels;
        (headers.vlan_at, headers.vni_at) = labels;
        found = Some(headers);
        let Some(vxlan_at) = vxlan(frame, &headers) else { break };
        labels.1 = Some(vxlan_at + 4);
        at = vxlan_at + 8;
    }
    found
}

struct Ethernet {
    kind: u16,
    payload_at: usize,
    vlan_at: Option<usize>,
}

fn ethernet(frame: &[u8], at: usize) -> Option<Ethernet> {
    let mut type_at = at + 12;
    let mut vlan_at = None;
    let mut kind = word(frame, type_at)?;
    while TYPES_VLAN.contains(&kind) {
        vlan_at = Some(type_at + 2);
        type_at += 4;
        kind = word(frame, type_at)?;
    }
    Some(Ethernet { kind, payload_at: type_at + 2, vlan_at })
}

/// Where a VXLAN header begins behind the UDP header.
fn vxlan(frame: &[u8], headers: &Headers) -> Option<usize> {
    let is_it = headers.protocol == UDP && headers.destination_port == VXLAN_PORT;
    let header_octets = if headers.source.is_ipv4() { ihl(frame, headers.ip_at)? } else { 40 };
    let at = headers.ip_at + header_octets + 8;
    // The flag that says that there is a VNI.
    (is_it && frame.get(at)? & 8 != 0).then_some(at)
}

pub(super) fn ihl(frame: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(frame.get(at)? & 15) * 4)
}

fn ip(frame: &[u8], at: usize, kind: u16) -> Option<Headers> {
    let (source, destination, protocol, header_octets, ip_octets, identification, is_whole);
    if kind == TYPE_IPV4 {
        let fixed = frame.get(at..at + 20)?;
        header_octets = ihl(frame, at)?;
        ip_octets = u32::from(word(frame, at + 2)?);
        identification = word(frame, at + 4)?;
        protocol = fixed[9];
        source = IpAddr::V4(Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]));
        destination = IpAddr::V4(Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]));
        // Neither more fragments nor an offset, whatever the two flags above say.
        is_whole = word(frame, at + 6)? << 2 == 0;
    } else if kind == TYPE_IPV6 {
        let fixed = frame.get(at..at + 40)?;
        header_octets = 40;
        ip_octets = 40 + u32::from(word(frame, at + 4)?);
        identification = 0;
        protocol = fixed[6];
        let address = |at: usize| {
            let octets: [u8; 16] = fixed[at..at + 16].try_into().unwrap_or_default();
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        (source, destination) = (address(8), address(24));
        is_whole = true;
    } else {
        return None;
    }
    let transport_at = at + header_octets;
    let has_ports = is_whole && (protocol == TCP || protocol == UDP);
    let port = |at| if has_ports { word(frame, at).unwrap_or(0) } else { 0 };
    let mut headers = Headers {
        source,
        destination,
        protocol,
        source_port: port(transport_at),
        destination_port: port(transport_at + 2),
        ip_octets,
        identification,
        tcp: None,
        ip_at: at,
        tunnels: 0,
        vlan_at: None,
        vni_at: None,
    };
    if is_whole && protocol == TCP {
        headers.tcp = tcp(frame, transport_at, header_octets, ip_octets);
    }
    Some(headers)
}

fn tcp(frame: &[u8], at: usize, ip_header_octets: usize, ip_octets: u32) -> Option<Tcp> {
    let fixed = frame.get(at..at + 20)?;
    let header_octets = usize::from(fixed[12] >> 4) * 4;
    let headers_octets = u32::try_from(ip_header_octets + header_octets).ok()?;
    Some(Tcp {
        sequence: long(frame, at + 4)?,
        acknowledgement: long(frame, at + 8)?,
        flags: fixed[13],
        payload_octets: ip_octets.checked_sub(headers_octets)?,
        at,
        payload_at: at + header_octets,
    })
}

/// Takes `hops` off TTL or hop limit of the innermost IP header.
pub(super) fn decrement_ttl(frame: &mut [u8], headers: &Headers, hops: u8) {
    if headers.source.is_ipv4() {
        if let Some(ttl) = frame.get_mut(headers.ip_at + 8) {
            *ttl = ttl.saturating_sub(hops);
        }
        correct_ipv4(frame, headers.ip_at);
    } else if let Some(limit) = frame.get_mut(headers.ip_at + 7) {
        *limit = limit.saturating_sub(hops);
    }
}

/// Sets the id in the innermost VLAN tag and leaves priority and DEI.
pub(super) fn set_vlan(frame: &mut [u8], headers: &Headers, vlan: u16) {
    let Some(at) = headers.vlan_at else { return };
    let Some(tci) = word(frame, at) else { return };
    frame[at..at + 2].copy_from_slice(&((tci & 0xf000) | (vlan & 0x0fff)).to_be_bytes());
}

/// Sets the VNI of the innermost VXLAN header.
pub(super) fn set_vni(frame: &mut [u8], headers: &Headers, vni: u32) {
    let octets = vni.to_be_bytes();
    if let Some(place) = headers.vni_at.and_then(|at| frame.get_mut(at..at + 3)) {
        place.copy_from_slice(&octets[1..]);
    }
}

/// Puts a VLAN tag (802.1Q) behind the MAC addresses.
pub(super) fn push_vlan(frame: &[u8], vlan: u16) -> Vec<u8> {
    let cut = frame.len().min(12);
    let [high, low] = vlan.to_be_bytes();
    [&frame[..cut], &[0x81, 0x00, high, low], &frame[cut..]].concat()
}

/// Writes length and checksums of an IP packet with a TCP segment anew.
pub(super) fn correct_tcp(frame: &mut [u8], headers: &Headers, tcp_at: usize) {
    let ip_at = headers.ip_at;
    let octets = frame.len() - ip_at;
    let segment = tcp_at..frame.len();
    let addresses = if headers.source.is_ipv4() {
        frame[ip_at + 2..ip_at + 4].copy_from_slice(&low16(octets).to_be_bytes());
        correct_ipv4(frame, ip_at);
        ip_at + 12..ip_at + 20
    } else {
        frame[ip_at + 4..ip_at + 6].copy_from_slice(&low16(octets - 40).to_be_bytes());
        ip_at + 8..ip_at + 40
    };
    frame[tcp_at + 16..tcp_at + 18].fill(0);
    let pseudo = sum(&frame[addresses]) + u64::from(TCP) + segment.len() as u64;
    let checksum = fold(pseudo + sum(&frame[segment]));
    frame[tcp_at + 16..tcp_at + 18].copy_from_slice(&checksum.to_be_bytes());
}

fn correct_ipv4(frame: &mut [u8], at: usize) {
    let Some(end) = ihl(frame, at).map(|octets| at + octets) else { return };
    if frame.get(at..end).is_none_or(|header| header.len() < 20) {
        return;
    }
    frame[at + 10..at + 12].fill(0);
    let checksum = fold(sum(&frame[at..end]));
    frame[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// Sum of 16-bit words (RFC 1071); an odd octet counts as the high half.
fn sum(octets: &[u8]) -> u64 {
    let mut pairs = octets.chunks_exact(2);
    let whole: u64 =
        pairs.by_ref().map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    whole + pairs.remainder().first().map_or(0, |octet| u64::from(*octet) << 8)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn low16(octets: usize) -> u16 {
    u16::try_from(octets).unwrap_or(u16::MAX)
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..at + 2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
}

fn long(frame: &[u8], at: usize) -> Option<u32> {
    let octets = frame.get(at..at + 4)?;
    Some(u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]))
}

#[cfg(test)]
pub(super) mod tests {
    use etherparse::{PacketBuilder, SlicedPacket};

    use super::*;

    /// A TCP segment with a timestamp option.
    pub(in super::super) fn segment(sequence: u32, payload: &[u8], flags: u8) -> Vec<u8> {
        let mut builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(40_000, 80, sequence, 1_000)
            .ack(7)
            .options(&[etherparse::TcpOptionElement::Timestamp(11, 12)])
            .expect("room for a timestamp");
        if flags & PSH != 0 {
            builder = builder.psh();
        }
        if flags & FIN != 0 {
            builder = builder.fin();
        }
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).expect("memory");
        frame
    }

    /// Whether the checksums in an untagged frame of TCP over IPv4 hold.
    pub(in super::super) fn checksums_hold(frame: &[u8]) -> bool {
        let sliced = SlicedPacket::from_ethernet(frame).expect("a good frame");
        let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { return false };
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { return false };
        let header = ip.header().to_header();
        let sum = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload());
        header.calc_header_checksum() == header.header_checksum && sum == Ok(tcp.checksum())
    }

    #[test]
    fn a_segment_is_read_and_rewritten() {
        let mut frame = segment(100, b"hello", PSH);
        let headers = parse(&frame).expect("IP");
        let tcp = headers.tcp.expect("TCP");
        assert_eq!(
            (headers.source_port, headers.destination_port, headers.tunnels),
            (40_000, 80, 0)
        );
        assert_eq!((tcp.sequence, tcp.acknowledgement, tcp.payload_octets), (100, 7, 5));
        assert_eq!(tcp.flags, PSH | ACK);
        assert_eq!(&frame[tcp.payload_at..], b"hello");
        assert_eq!(headers.ip_octets as usize, frame.len() - 14);

        decrement_ttl(&mut frame, &headers, 3);
        assert_eq!(frame[14 + 8], 61);
        assert!(checksums_hold(&frame));
        frame.extend_from_slice(b", world");
        correct_tcp(&mut frame, &headers, tcp.at);
        assert!(checksums_hold(&frame));
        assert_eq!(
            parse(&frame).and_then(|headers| headers.tcp).map(|tcp| tcp.payload_octets),
            Some(12)
        );
    }

    #[test]
    fn labels_are_read_and_rewritten() {
        let inner = push_vlan(&segment(1, b"x", 0), 42);
        let vxlan = [&[8, 0, 0, 0, 0, 0x10, 0x92, 0][..], &inner].concat();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .udp(50_000, VXLAN_PORT)
            .write(&mut frame, &vxlan)
            .expect("memory");
        let headers = parse(&frame).expect("IP");
        assert_eq!((headers.source.to_string().as_str(), headers.tunnels), ("10.0.0.1", 1));
        set_vlan(&mut frame, &headers, 43);
        set_vni(&mut frame, &headers, 4_243);
        let (vlan_at, vni_at) = (headers.vlan_at.expect("a tag"), headers.vni_at.expect("a VNI"));
        assert_eq!(frame[vlan_at..vlan_at + 2], [0, 43]);
        assert_eq!(frame[vni_at..vni_at + 3], [0, 0x10, 0x93]);
        assert_eq!(parse(&frame), Some(headers));
    }

    #[test]
    fn short_frames_are_no_harm() {
        let frame = push_vlan(&segment(100, b"hello", PSH), 7);
        for octets in 0..frame.len() {
            let mut short = frame[..octets].to_vec();
            let Some(headers) = parse(&short) else { continue };
            decrement_ttl(&mut short, &headers, 1);
            set_vlan(&mut short, &headers, 9);
            set_vni(&mut short, &headers, 9);
        }
        assert_eq!(parse(&[]), None);
        assert_eq!(push_vlan(&[], 1).len(), 4);
    }
}
