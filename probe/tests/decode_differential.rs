//! The decoder against two others: etherparse on generated packets, tshark on real captures.
//!
//! The captures lie in the folder that `VMPROBE_TEST_DATA` names, or in `../shared/data` beside
//! the workspace; where neither exists the tests on them say so and pass. The measurement beside
//! etherparse is ignored by default:
//! `VMPROBE_BENCH_PCAP=imix.pcap cargo test --release --test decode_differential -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options,
    Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions,
    LaxSlicedPacket, LinkExtSlice, NetSlice, PacketBuilder, SlicedPacket, TcpHeader,
    TcpOptionElement, TransportSlice, VlanId,
};
use proptest::prelude::*;

use vmprobe::capture::{Frame, LinkType};
use vmprobe::config::Plan;
use vmprobe::counters::DropCause;
use vmprobe::decode::{DecodeContext, Decoder, Headers, Marks};
use vmprobe::index::PortIndex;
use vmprobe::inventory::SegmentKind;
use vmprobe::time::{Timestamp, thread_cpu_ns};

// One file for all packages' tests.
#[path = "../../tests/src/skips.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is part of a library too")]
mod skips;

// --- etherparse -------------------------------------------------------------------------------

/// What both decoders say of a packet.
/// Sequence, acknowledgement, flags, window, and the timestamps if there are any.
type TcpFields = (u32, u32, u16, u16, Option<(u32, u32)>);

#[derive(Debug, PartialEq, Eq, Default)]
struct Seen {
    addresses: Option<(IpAddr, IpAddr)>,
    vlans: Vec<u16>,
    protocol: u8,
    ttl: u8,
    fragment: bool,
    ports: (u16, u16),
    tcp: Option<TcpFields>,
    icmp: Option<(u8, u8)>,
    octets: u32,
    payload: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp {
        ports: (u16, u16),
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        window: u16,
        options: Vec<TcpOption>,
    },
    Udp {
        ports: (u16, u16),
    },
    IcmpV4 {
        kind: u8,
        code: u8,
    },
    IcmpV6 {
        kind: u8,
        code: u8,
    },
}

#[derive(Clone, Debug)]
enum TcpOption {
    Noop,
    SegmentSize(u16),
    Scale(u8),
    Sack(u32, u32),
    Times(u32, u32),
}

#[derive(Clone, Debug)]
enum Network {
    V4 { source: [u8; 4], destination: [u8; 4], ttl: u8, options: usize, authentication: bool },
    V6 { source: [u8; 16], destination: [u8; 16], ttl: u8, extensions: [bool; 6] },
}

#[derive(Clone, Debug)]
struct Packet {
    vlans: Vec<u16>,
    network: Network,
    transport: Transport,
    payload: Vec<u8>,
    padding: usize,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let vlan = |id: &u16| VlanId::try_new(*id).expect("12 bits");
        let ip = match self.vlans.as_slice() {
            [] => ethernet.ip(self.ip()),
            [one] => ethernet.single_vlan(vlan(one)).ip(self.ip()),
            [outer, inner, ..] => ethernet.double_vlan(vlan(outer), vlan(inner)).ip(self.ip()),
        };
        let mut bytes = Vec::new();
        let written = match &self.transport {
            Transport::Tcp { .. } => ip.tcp_header(self.tcp()).write(&mut bytes, &self.payload),
            Transport::Udp { ports: (source, destination) } => {
                ip.udp(*source, *destination).write(&mut bytes, &self.payload)
            }
            Transport::IcmpV4 { kind, code } => {
                ip.icmpv4_raw(*kind, *code, [1, 2, 3, 4]).write(&mut bytes, &self.payload)
            }
            Transport::IcmpV6 { kind, code } => {
                ip.icmpv6_raw(*kind, *code, [1, 2, 3, 4]).write(&mut bytes, &self.payload)
            }
        };
        written.expect("a packet");
        bytes.resize(bytes.len() + self.padding, 0xee);
        bytes
    }

    fn ip(&self) -> IpHeaders {
        match &self.network {
            Network::V4 { source, destination, ttl, options, authentication } => {
                let mut header = Ipv4Header::new(0, *ttl, IpNumber::UDP, *source, *destination)
                    .expect("a header");
                header.options = Ipv4Options::try_from(&[1; 40][..options * 4]).expect("options");
                let auth = authentication.then(authentication_header);
                IpHeaders::Ipv4(header, Ipv4Extensions { auth })
            }
            Network::V6 { source, destination, ttl, extensions } => {
                let header = Ipv6Header {
                    hop_limit: *ttl,
                    source: *source,
                    destination: *destination,
                    ..Ipv6Header::default()
                };
                IpHeaders::Ipv6(header, extension_headers(*extensions))
            }
        }
    }

    fn tcp(&self) -> TcpHeader {
        let Transport::Tcp { ports, sequence, acknowledgement, flags, window, options } =
            &self.transport
        else {
            return TcpHeader::default();
        };
        let mut header = TcpHeader::new(ports.0, ports.1, *sequence, *window);
        header.acknowledgment_number = *acknowledgement;
        header.fin = flags & 1 != 0;
        header.syn = flags & 2 != 0;
        header.rst = flags & 4 != 0;
        header.psh = flags & 8 != 0;
        header.ack = flags & 16 != 0;
        header.urg = flags & 32 != 0;
        header.ece = flags & 64 != 0;
        header.cwr = flags & 128 != 0;
        let options: Vec<_> = options
            .iter()
            .map(|option| match option {
                TcpOption::Noop => TcpOptionElement::Noop,
                TcpOption::SegmentSize(octets) => TcpOptionElement::MaximumSegmentSize(*octets),
                TcpOption::Scale(shift) => TcpOptionElement::WindowScale(*shift),
                TcpOption::Sack(from, to) => {
                    TcpOptionElement::SelectiveAcknowledgement((*from, *to), [None; 3])
                }
                TcpOption::Times(value, echo) => TcpOptionElement::Timestamp(*value, *echo),
            })
            .collect();
        // More options than fit: the packet has none.
        header.set_options(&options).ok();
        header
    }
}

fn authentication_header() -> IpAuthHeader {
    IpAuthHeader::new(IpNumber::UDP, 1, 2, &[7; 12]).expect("a header")
}

fn extension_headers([hop, before, routing, after, fragment, auth]: [bool; 6]) -> Ipv6Extensions {
    let raw =
        |octets| Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[0; 30][..octets]).expect("a header");
    Ipv6Extensions {
        hop_by_hop_options: hop.then(|| raw(6)),
        destination_options: before.then(|| raw(14)),
        routing: routing.then(|| Ipv6RoutingExtensions {
            routing: raw(22),
            final_destination_options: after.then(|| raw(6)),
        }),
        fragment: fragment.then(|| {
            Ipv6FragmentHeader::new(IpNumber::UDP, IpFragOffset::try_new(0).expect("0"), true, 9)
        }),
        auth: auth.then(authentication_header),
    }
}

fn of_etherparse(bytes: &[u8]) -> Option<Seen> {
    let packet = SlicedPacket::from_ethernet(bytes).ok()?;
    let mut seen = Seen::default();
    for extension in &packet.link_exts {
        match extension {
            LinkExtSlice::Vlan(tag) => seen.vlans.push(tag.vlan_identifier().value()),
            LinkExtSlice::Macsec(_) => return None,
        }
    }
    let payload = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            seen.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
            seen.octets = u32::from(header.total_len());
            seen.ttl = header.ttl();
            ip.payload()
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            seen.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
            seen.octets = u32::from(header.payload_length()) + 40;
            seen.ttl = header.hop_limit();
            ip.payload()
        }
        NetSlice::Arp(_) => return None,
    };
    seen.protocol = payload.ip_number.0;
    seen.fragment = payload.fragmented;
    seen.payload = payload.payload.to_vec();
    match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            seen.ports = (tcp.source_port(), tcp.destination_port());
            let mut flags = u16::from(tcp.slice()[13]);
            flags |= u16::from(tcp.ns()) << 8;
            let acknowledgement = if tcp.ack() { tcp.acknowledgment_number() } else { 0 };
            // The option may not be repeated; where it is, the probe takes the last one.
            let times =
                tcp.options_iterator().filter_map(Result::ok).fold(None, |times, option| {
                    if let TcpOptionElement::Timestamp(value, echo) = option {
                        Some((value, echo))
                    } else {
                        times
                    }
                });
            seen.tcp =
                Some((tcp.sequence_number(), acknowledgement, flags, tcp.window_size(), times));
            seen.payload = tcp.payload().to_vec();
        }
        Some(TransportSlice::Udp(udp)) => {
            seen.ports = (udp.source_port(), udp.destination_port());
            seen.payload = udp.payload().to_vec();
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            seen.icmp = Some((icmp.type_u8(), icmp.code_u8()));
            seen.payload = icmp.slice().get(8..)?.to_vec();
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            seen.icmp = Some((icmp.type_u8(), icmp.code_u8()));
            seen.payload = icmp.slice().get(8..)?.to_vec();
        }
        Some(TransportSlice::Igmp(_)) | None => {}
    }
    Some(seen)
}

fn of_vmprobe(bytes: &[u8], headers: &Headers) -> Seen {
    let vlans = match headers.segment.kind() {
        SegmentKind::Vlan => vec![headers.segment.id()],
        SegmentKind::Qinq => vec![headers.segment.id() >> 12, headers.segment.id() & 0xfff],
        _ => Vec::new(),
    };
    let version = headers.ip_version;
    let begin = headers.payload_offset as usize;
    let end = begin + headers.payload_captured_octets as usize;
    let times = headers
        .marks
        .has(Marks::TCP_TIMESTAMP)
        .then_some((headers.tcp_timestamp_value, headers.tcp_timestamp_echo));
    let later = headers.marks.has(Marks::LATER_FRAGMENT);
    let [kind, code] = headers.icmp_type_code.to_be_bytes();
    Seen {
        addresses: Some((headers.source.to_ip(version), headers.destination.to_ip(version))),
        vlans: vlans.into_iter().map(|id| u16::try_from(id).expect("12 bits")).collect(),
        protocol: headers.protocol,
        ttl: headers.ttl,
        fragment: headers.marks.has(Marks::FRAGMENT),
        ports: (headers.source_port, headers.destination_port),
        tcp: (headers.protocol == 6 && !later).then_some((
            headers.tcp_sequence,
            headers.tcp_acknowledgement,
            headers.tcp_flags,
            headers.tcp_window,
            times,
        )),
        icmp: (matches!(headers.protocol, 1 | 58) && !later).then_some((kind, code)),
        octets: headers.octets,
        payload: bytes.get(begin..end).expect("inside the frame").to_vec(),
    }
}

fn frame_of(bytes: &[u8]) -> Frame<'_> {
    Frame {
        bytes,
        wire_octets: u32::try_from(bytes.len()).expect("short"),
        timestamp: Timestamp::ZERO,
        link: LinkType::Ethernet,
        port: PortIndex(0),
        stripped_vlan: None,
    }
}

fn decoder() -> Decoder {
    Decoder::new(&DecodeContext::new(&Plan::default(), ["port"]))
}

fn decode(decoder: &Decoder, frame: &Frame<'_>) -> Result<Headers, DropCause> {
    let mut out = Headers::default();
    decoder.decode(frame, frame.timestamp, &mut out).map(|()| out)
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    // Also those of tunnels that must look like one; not of those that need little to be one, for
    // etherparse looks into none.
    let known = prop::sample::select(vec![2152, 6635, 4754, 3544, 5247]);
    let any = any::<u16>();
    let any = any.prop_map(|p| if [4789, 8472, 4790, 6081].contains(&p) { 80 } else { p });
    let port = prop_oneof![9 => any, 1 => known];
    (port.clone(), port)
}

fn transport() -> impl Strategy<Value = Transport> {
    let option = prop_oneof![
        Just(TcpOption::Noop),
        any::<u16>().prop_map(TcpOption::SegmentSize),
        any::<u8>().prop_map(TcpOption::Scale),
        any::<(u32, u32)>().prop_map(|(from, to)| TcpOption::Sack(from, to)),
        any::<(u32, u32)>().prop_map(|(value, echo)| TcpOption::Times(value, echo)),
    ];
    let options = prop::collection::vec(option, 0..5);
    let numbers = any::<(u32, u32, u8, u16)>();
    prop_oneof![
        (ports(), numbers, options).prop_map(
            |(ports, (sequence, acknowledgement, flags, window), options)| Transport::Tcp {
                ports,
                sequence,
                acknowledgement,
                flags,
                window,
                options,
            }
        ),
        ports().prop_map(|ports| Transport::Udp { ports }),
        // Timestamps (13, 14) have a length that etherparse insists on.
        any::<(u8, u8)>()
            .prop_map(|(kind, code)| (if matches!(kind, 13 | 14) { 8 } else { kind }, code))
            .prop_map(|(kind, code)| Transport::IcmpV4 { kind, code }),
        any::<(u8, u8)>().prop_map(|(kind, code)| Transport::IcmpV6 { kind, code }),
    ]
}

fn network() -> impl Strategy<Value = Network> {
    prop_oneof![
        (any::<([u8; 4], [u8; 4], u8)>(), 0..=10_usize, prop::bool::weighted(0.2)).prop_map(
            |((source, destination, ttl), options, authentication)| Network::V4 {
                source,
                destination,
                ttl,
                options,
                authentication,
            }
        ),
        (any::<([u8; 16], [u8; 16], u8)>(), any::<[bool; 6]>()).prop_map(
            |((source, destination, ttl), extensions)| Network::V6 {
                source,
                destination,
                ttl,
                extensions,
            }
        ),
    ]
}

prop_compose! {
    fn packet()(
        vlans in prop::collection::vec(1..4096_u16, 0..3),
        network in network(),
        transport in transport(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        padding in 0..8_usize,
    ) -> Packet {
        // ICMP of one version in IP of the other is no ICMP to etherparse.
        let transport = match (&network, transport) {
            (Network::V6 { .. }, Transport::IcmpV4 { kind, code }) => Transport::IcmpV6 { kind, code },
            (Network::V4 { .. }, Transport::IcmpV6 { kind, code }) => Transport::IcmpV4 { kind, code },
            (_, transport) => transport,
        };
        Packet { vlans, network, transport, payload, padding }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_packets_are_read_as_etherparse_reads_them(packet in packet()) {
        let bytes = packet.bytes();
        let headers = decode(&decoder(), &frame_of(&bytes)).expect("a whole packet");
        let Some(mut wanted) = of_etherparse(&bytes) else {
            return Err(TestCaseError::fail("etherparse rejects its own packet"));
        };
        if wanted.fragment {
            // etherparse does not look behind the header of a fragment; the first one has ports.
            let seen = of_vmprobe(&bytes, &headers);
            prop_assert_eq!(seen.addresses, wanted.addresses);
            prop_assert_eq!(seen.protocol, wanted.protocol);
            prop_assert!(wanted.payload.ends_with(&seen.payload));
            return Ok(());
        }
        wanted.vlans.retain(|id| *id != 0);
        prop_assert_eq!(of_vmprobe(&bytes, &headers), wanted);
    }

    #[test]
    fn each_shorter_capture_is_snapped_or_agrees(packet in packet()) {
        let bytes = packet.bytes();
        let decoder = decoder();
        let whole = decode(&decoder, &frame_of(&bytes)).expect("a whole packet");
        for length in 0..bytes.len() {
            // Cut on the wire by a mirror: never more than the packet's own header says.
            if let Ok(part) = decode(&decoder, &frame_of(&bytes[..length])) {
                prop_assert_eq!((part.octets, part.source_port), (whole.octets, whole.source_port));
            }
            let frame = Frame { bytes: &bytes[..length], ..frame_of(&bytes) };
            match decode(&decoder, &frame) {
                Err(cause) => prop_assert_eq!(cause, DropCause::SnappedHeader),
                Ok(part) => {
                    prop_assert_eq!((part.octets, part.payload_octets), (whole.octets, whole.payload_octets));
                    prop_assert_eq!((part.source_port, part.protocol), (whole.source_port, whole.protocol));
                    prop_assert!(part.payload_captured_octets <= whole.payload_captured_octets);
                }
            }
        }
    }

    #[test]
    fn changed_packets_never_panic_and_agree_where_both_read_them(
        packet in packet(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = packet.bytes();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let result = decode(&decoder(), &frame_of(&bytes));
        if let (Ok(headers), Some(wanted)) = (result, of_etherparse(&bytes)) {
            let seen = of_vmprobe(&bytes, &headers);
            // Looked into by the probe alone: tunnels, and protocols that etherparse leaves.
            let inside = seen.addresses != wanted.addresses || headers.segment.kind() as u8 > 2;
            if !inside && headers.marks.has(Marks::ETHERNET) && wanted.octets >= 20 {
                prop_assert_eq!(seen.ports, wanted.ports_if_read(&headers), "{:?}", wanted);
                prop_assert_eq!(seen.ttl, wanted.ttl);
            }
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), link in 0..5_usize) {
        let links = [LinkType::Ethernet, LinkType::RawIp, LinkType::LinuxSll, LinkType::LinuxSll2, LinkType::Loopback];
        let frame = Frame { link: links[link], ..frame_of(&bytes) };
        if let Ok(headers) = decode(&decoder(), &frame) {
            of_vmprobe(&bytes, &headers);
        }
    }
}

impl Seen {
    /// The ports, where etherparse reads the transport header; the probe reads more (SCTP, first
    /// fragments), and there its own count.
    fn ports_if_read(&self, headers: &Headers) -> (u16, u16) {
        if self.tcp.is_some() || (self.protocol == 17 && !self.fragment) {
            self.ports
        } else {
            (headers.source_port, headers.destination_port)
        }
    }
}

// --- captures ---------------------------------------------------------------------------------

/// A capture in the classic format (the probe's own reader is tested elsewhere).
struct Capture {
    link: LinkType,
    records: Vec<(usize, usize, u32)>,
    file: Vec<u8>,
}

impl Capture {
    /// `None` for other formats and other link types.
    fn read(path: &Path) -> Option<Self> {
        let file = std::fs::read(path).ok()?;
        let magic = u32::from_le_bytes(*file.first_chunk()?);
        let (big, record_octets) = match magic {
            0xa1b2_c3d4 | 0xa1b2_3c4d => (false, 16),
            0xa1b2_cd34 => (false, 24),
            0xd4c3_b2a1 | 0x4d3c_b2a1 => (true, 16),
            _ => return None,
        };
        let u32_at = |place: usize| {
            let field = *file.get(place..)?.first_chunk()?;
            Some(if big { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) })
        };
        let link = match u32_at(20)? & 0xffff {
            1 => LinkType::Ethernet,
            12 | 101 | 228 | 229 => LinkType::RawIp,
            113 => LinkType::LinuxSll,
            276 => LinkType::LinuxSll2,
            0 | 108 => LinkType::Loopback,
            _ => return None,
        };
        let (mut records, mut place) = (Vec::new(), 24);
        while let (Some(captured), Some(wire)) = (u32_at(place + 8), u32_at(place + 12)) {
            let begin = place + record_octets;
            let end = begin.checked_add(captured as usize)?;
            if end > file.len() {
                break;
            }
            records.push((begin, end, wire.max(captured)));
            place = end;
        }
        Some(Self { link, records, file })
    }

    fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.records.iter().map(|(begin, end, wire)| Frame {
            bytes: self.file.get(*begin..*end).unwrap_or_default(),
            wire_octets: *wire,
            link: self.link,
            ..frame_of(&[])
        })
    }
}

fn folder(name: &str) -> Option<PathBuf> {
    let data = std::env::var_os("VMPROBE_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let folder = data.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    skips::skipped("decode_differential", &format!("no captures in {}", folder.display()));
    None
}

fn captures(folder: &Path) -> Vec<(String, Capture)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    paths.iter().filter_map(|path| Some((name(path)?, Capture::read(path)?))).collect()
}

#[test]
fn every_packet_of_the_captures_is_decoded_or_has_a_cause() {
    let decoder = decoder();
    for name in ["encapsulation", "malformed", "tcp", "protocols", "benign"] {
        let Some(folder) = folder(name) else { continue };
        let mut total: BTreeMap<&str, u64> = BTreeMap::new();
        for (file, capture) in captures(&folder) {
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for frame in capture.frames() {
                let outcome = match decode(&decoder, &frame) {
                    Ok(headers) => {
                        of_vmprobe(frame.bytes, &headers);
                        "decoded"
                    }
                    Err(cause) => cause.name(),
                };
                *counts.entry(outcome).or_default() += 1;
                *total.entry(outcome).or_default() += 1;
            }
            if name == "encapsulation" || name == "malformed" {
                eprintln!("{name}/{file}: {counts:?}");
            }
        }
        eprintln!("{name}: {total:?}");
        assert!(total.get("decoded").is_some_and(|count| *count > 0));
    }
}

/// Captures of which tshark reads something else than the probe, and why. The number of packets
/// is a part of the claim.
const DIFFERENCES: &[(&str, usize, &str)] = &[
    ("ndpi__ipv6_in_gtp.pcap", 1, "ESP inside has no ports; tshark's are the tunnel's"),
    ("ndpi__teredo.pcap", 2, "bubbles have no ports; tshark's are the tunnel's"),
    ("zeek__cisco-fabric-path.pcap", 24, "SCTP without chunks: tshark gives no ports"),
    ("zeek__ipv6-mobility-dst-opts.pcap", 1, "tshark stops at a wrong option; its header is whole"),
];

#[test]
fn addresses_and_ports_are_those_of_tshark() {
    let Some(folder) = folder("encapsulation") else { return };
    if Command::new("tshark").arg("--version").output().is_err() {
        skips::missing("addresses_and_ports_are_those_of_tshark", &["tshark"], "tshark");
        return;
    }
    let decoder = decoder();
    let mut unexplained = Vec::new();
    for (file, capture) in captures(&folder) {
        let seen: Vec<_> = capture.frames().map(|frame| line(decode(&decoder, &frame))).collect();
        let wanted = tshark(&folder.join(&file));
        let mut differences = 0;
        for (number, (seen, wanted)) in seen.iter().zip(&wanted).enumerate() {
            if !agree(seen, wanted) {
                differences += 1;
                if differences <= 3 {
                    eprintln!("{file} packet {}: {seen:?}, tshark: {wanted:?}", number + 1);
                }
            }
        }
        let explained = DIFFERENCES.iter().find(|(name, _, _)| *name == file);
        if differences != explained.map_or(0, |(_, count, _)| *count) {
            unexplained.push((file, differences, seen.len()));
        }
    }
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

/// Innermost addresses and ports; `None` where the packet was rejected.
type Line = Option<(String, String, String)>;

fn line(result: Result<Headers, DropCause>) -> Line {
    let headers = result.ok()?;
    let version = headers.ip_version;
    Some((
        headers.source.to_ip(version).to_string(),
        headers.destination.to_ip(version).to_string(),
        format!("{}:{}", headers.source_port, headers.destination_port),
    ))
}

/// tshark's innermost IPv4 and IPv6 addresses, and TCP, UDP or SCTP ports, of each packet; fields
/// of packets quoted in ICMP are taken out by their number.
fn tshark(path: &Path) -> Vec<Vec<String>> {
    const FIELDS: [&str; 13] = [
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "tcp.srcport",
        "tcp.dstport",
        "udp.srcport",
        "udp.dstport",
        "sctp.srcport",
        "sctp.dstport",
        "frame.protocols",
        "icmp.type",
        "icmpv6.type",
    ];
    let mut command = Command::new("tshark");
    for option in
        ["ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE"]
    {
        command.args(["-o", option]);
    }
    command.arg("-r").arg(path).args(["-T", "fields", "-E", "separator=;", "-E", "occurrence=l"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.split(';').map(str::to_owned).collect()).collect()
}

fn agree(seen: &Line, wanted: &[String]) -> bool {
    let field = |place: usize| wanted.get(place).map_or("", String::as_str);
    let Some((source, destination, ports)) = seen else {
        // Rejected by the probe: nothing to compare, the other test counts it.
        return true;
    };
    if !field(11).is_empty() || !field(12).is_empty() {
        // ICMP may quote a packet whose fields tshark gives as the innermost.
        return true;
    }
    let either = |value: &str, four: usize, six: usize| value == field(four) || value == field(six);
    let wanted_ports = [4, 6, 8].map(|place| format!("{}:{}", field(place), field(place + 1)));
    let no_ports = wanted_ports.iter().all(|ports| ports == ":");
    either(source, 0, 2)
        && either(destination, 1, 3)
        && (wanted_ports.contains(ports) || (no_ports && ports == "0:0"))
}

// --- speed ------------------------------------------------------------------------------------

#[test]
#[ignore = "a measurement: give a capture in VMPROBE_BENCH_PCAP and build with --release"]
fn nanoseconds_per_packet_beside_etherparse() {
    const PASSES: u32 = 20;
    let path = std::env::var_os("VMPROBE_BENCH_PCAP").expect("VMPROBE_BENCH_PCAP names a capture");
    let capture = Capture::read(Path::new(&path)).expect("a classic pcap");
    let frames: Vec<_> = capture.frames().collect();
    let decoder = decoder();
    let mut out = vec![Headers::default(); 32];
    let per_packet = |name: &str, work: &mut dyn FnMut()| {
        work();
        let begin = thread_cpu_ns();
        (0..PASSES).for_each(|_| work());
        let elapsed = thread_cpu_ns() - begin;
        let packets = u64::from(PASSES) * frames.len() as u64;
        eprintln!("{name}: {}.{} ns a packet", elapsed / packets, elapsed * 10 / packets % 10);
    };
    per_packet("reading the first octet", &mut || {
        for frame in &frames {
            black_box(frame.bytes.first());
        }
    });
    per_packet("decoder, 32 places", &mut || {
        for burst in frames.chunks(32) {
            for (frame, out) in burst.iter().zip(&mut out) {
                black_box(decoder.decode(frame, frame.timestamp, out)).ok();
            }
            black_box(&mut out);
        }
    });
    per_packet("etherparse SlicedPacket", &mut || {
        for frame in &frames {
            black_box(SlicedPacket::from_ethernet(frame.bytes)).ok();
        }
    });
    per_packet("etherparse LaxSlicedPacket", &mut || {
        for frame in &frames {
            black_box(LaxSlicedPacket::from_ethernet(frame.bytes)).ok();
        }
    });
}
