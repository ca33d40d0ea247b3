//! Generated scenarios, counted again by other code than that which made them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use etherparse::{NetSlice, SlicedPacket, TcpOptionElement, TransportSlice};
use serde_json::Value;
use vmprobe::generate::{GenerateError, Options, Scenario, generate};

// One file for all packages' tests.
#[path = "../../tests/src/skips.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is part of a library too")]
mod skips;

/// Both taps, in the order of the hosts.
const TAPS: [&str; 2] = ["tap-a", "tap-b"];

/// A folder that goes when the test has passed.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("vmprobe-generate-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn short(scale: f64, duration_s: u64) -> Options {
    Options { scale, duration_s: Some(duration_s), ..Options::default() }
}

/// The frames of a classic pcap with their stamps in nanoseconds.
fn frames(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let bytes = std::fs::read(path).expect("capture");
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four octets"));
    assert_eq!((number(0), number(20)), (0xa1b2_c3d4, 1), "microseconds, Ethernet");
    let mut frames = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let stamp_ns = u64::from(number(at)) * 1_000_000_000 + u64::from(number(at + 4)) * 1_000;
        let length = number(at + 8) as usize;
        assert_eq!(number(at + 8), number(at + 12), "frames are whole");
        frames.push((stamp_ns, bytes[at + 16..at + 16 + length].to_vec()));
        at += 16 + length;
    }
    frames
}

/// Takes the overlay off: segment as text, and the tenant's Ethernet frame.
fn tenant_frame(frame: &[u8]) -> (String, &[u8]) {
    let outer = SlicedPacket::from_ethernet(frame).expect("outer headers");
    match outer.transport {
        Some(TransportSlice::Udp(udp)) if udp.destination_port() == 4789 => {
            let payload = udp.payload();
            assert_eq!((payload[0], payload[7]), (8, 0), "VXLAN flags");
            let vni = u32::from_be_bytes([0, payload[4], payload[5], payload[6]]);
            (format!("default/vxlan/{vni}"), &payload[8..])
        }
        _ => {
            let id = outer.vlan_ids().first().expect("what is not in VXLAN is tagged").value();
            (format!("default/vlan/{id}"), frame)
        }
    }
}

/// Both ends in order, and the protocol.
type Flow = (IpAddr, u16, IpAddr, u16, u8);

/// What a TCP segment of a connection says: direction, first sequence number, how many octets of
/// the stream it takes, its payload's hash.
#[derive(Clone, Copy)]
struct Range {
    direction: u64,
    from: u32,
    octets: u32,
    payload: u64,
}

/// What tells one packet from another, and what is counted of it.
struct Counted {
    key: u64,
    flow: Flow,
    range: Option<Range>,
    source: IpAddr,
    destination: IpAddr,
    ip_octets: u64,
}

/// Reads a tenant's frame; `None`: no IP.
fn counted(space: &str, frame: &[u8]) -> Option<Counted> {
    let packet = SlicedPacket::from_ethernet(frame).expect("tenant headers");
    let (source, destination, octets, id): (IpAddr, IpAddr, u64, u16) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            assert_ne!(header.identification(), 0);
            let octets = header.total_len().into();
            (source.into(), destination.into(), octets, header.identification())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let octets = 40 + u64::from(header.payload_length());
            (header.source_addr().into(), header.destination_addr().into(), octets, 0)
        }
        NetSlice::Arp(_) => return None,
    };
    let mut range = None;
    let head = |payload: &[u8]| payload[..payload.len().min(16)].to_vec();
    let (protocol, ports, rest) = match packet.transport.expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            let stamp = tcp.options_iterator().find_map(|option| match option {
                Ok(TcpOptionElement::Timestamp(value, _)) => Some(value),
                _ => None,
            });
            let flags = (tcp.syn(), tcp.fin(), tcp.rst(), tcp.ack(), tcp.psh());
            assert!(tcp.payload().is_empty() || stamp.is_some(), "payload has timestamps");
            let octets = u32::try_from(tcp.payload().len()).expect("a small packet");
            let octets = octets + u32::from(tcp.syn()) + u32::from(tcp.fin());
            let ports = (tcp.source_port(), tcp.destination_port());
            // Only what is outside of connections comes without timestamps.
            range = stamp.filter(|_| octets > 0).map(|_| Range {
                direction: hash(&(space, source, destination, ports)),
                from: tcp.sequence_number(),
                octets,
                payload: hash(&tcp.payload()),
            });
            let rest = hash(&(tcp.sequence_number(), tcp.acknowledgment_number(), flags, stamp));
            (6, ports, rest)
        }
        TransportSlice::Udp(udp) => {
            (17, (udp.source_port(), udp.destination_port()), hash(&head(udp.payload())))
        }
        TransportSlice::Icmpv4(icmp) => (1, (0, 0), hash(&head(icmp.payload()))),
        TransportSlice::Icmpv6(icmp) => (58, (0, 0), hash(&head(icmp.payload()))),
        TransportSlice::Igmp(_) => panic!("no IGMP is generated"),
    };
    let key = hash(&(space, source, destination, protocol, ports, octets, id, rest));
    let (one, other) = ((source, ports.0), (destination, ports.1));
    let (low, high) = (one.min(other), one.max(other));
    let flow = (low.0, low.1, high.0, high.1, protocol);
    Some(Counted { key, flow, range, source, destination, ip_octets: octets })
}

fn hash<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn table(path: PathBuf) -> toml::Table {
    std::fs::read_to_string(path).expect("file").parse().expect("TOML")
}

fn array<'a>(table: &'a toml::Table, key: &str) -> &'a [toml::Value] {
    table.get(key).and_then(toml::Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a toml::Value, key: &str) -> &'a str {
    value[key].as_str().expect("text")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("list")
}

/// Who is who, from the two TOML files.
struct Names {
    space_of: HashMap<String, String>,
    vm_of: HashMap<(String, IpAddr), String>,
    host_of: HashMap<String, String>,
    /// When a VM comes to which host.
    arrivals: Vec<(String, u64, String)>,
}

impl Names {
    fn read(folder: &Path) -> Self {
        let config = table(folder.join("vmprobe.toml"));
        let mut space_of = HashMap::new();
        for space in array(&config, "space") {
            for segment in space["segments"].as_array().expect("segments") {
                let segment = segment.as_str().expect("text").to_owned();
                space_of.insert(segment, text(space, "name").to_owned());
            }
        }
        let (vm_of, host_of) = (HashMap::new(), HashMap::new());
        let mut names = Self { space_of, vm_of, host_of, arrivals: Vec::new() };
        for vm in array(&table(folder.join("inventory.toml")), "vm") {
            let uuid = text(vm, "uuid").to_owned();
            names.host_of.insert(uuid.clone(), text(vm, "host").to_owned());
            for placement in
                vm.get("placement").and_then(toml::Value::as_array).into_iter().flatten()
            {
                let from = placement.get("valid_from").and_then(toml::Value::as_integer);
                let Some(from) = from.and_then(|from| from.try_into().ok()) else { continue };
                names.arrivals.push((uuid.clone(), from, text(placement, "host").to_owned()));
            }
            for interface in vm["interface"].as_array().expect("interfaces") {
                let space = names.space(text(interface, "segment"));
                for address in interface["addresses"].as_array().expect("addresses") {
                    let address = address.as_str().and_then(|text| text.parse().ok());
                    let end = (space.clone(), address.expect("address"));
                    let before = names.vm_of.insert(end, uuid.clone());
                    assert_eq!(before, None, "an address is unique in its space");
                }
            }
        }
        names
    }

    fn space(&self, segment: &str) -> String {
        self.space_of.get(segment).cloned().unwrap_or_else(|| segment.to_owned())
    }

    /// Place of the tap at the VM's host at that time.
    fn tap_of(&self, uuid: &str, stamp_ns: u64) -> usize {
        let is_before = |(vm, from, _): &&(String, u64, String)| vm == uuid && *from <= stamp_ns;
        let last = self.arrivals.iter().rfind(is_before);
        let host = last.map_or(&self.host_of[uuid], |(_, _, host)| host);
        usize::from(host == "host-b")
    }

    /// What the inventory says of migrations, as the truth should.
    fn check_migrations(&self, truth: &Value) {
        let mut arrivals = self.arrivals.clone();
        arrivals.sort_by_key(|(_, from, _)| *from);
        let told = list(&truth["migrations"]).iter().map(|step| {
            let text = |key: &str| step[key].as_str().expect("text").to_owned();
            (text("uuid"), step["time_ns"].as_u64().expect("time"), text("to"))
        });
        assert_eq!(arrivals, told.collect::<Vec<_>>());
    }
}

#[derive(Default)]
struct PathCount {
    count: u64,
    lost: u64,
    repeated: u64,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
}

/// Everything that can be counted again.
#[derive(Default)]
struct Recount {
    packets: BTreeMap<String, u64>,
    octets: u64,
    not_ip: u64,
    logical: u64,
    copied: u64,
    flows: HashSet<(String, Flow)>,
    octets_by_vm: BTreeMap<String, u64>,
    packets_by_vm: BTreeMap<String, u64>,
    paths: BTreeMap<(usize, usize), PathCount>,
    spoofed: u64,
}

/// The first copy of a packet.
struct Seen {
    tap: usize,
    stamp_ns: u64,
    sender: Option<String>,
    receiver: Option<String>,
    range: Option<Range>,
    copied: bool,
}

/// The segments of each direction of a connection, in order.
type Streams = HashMap<u64, Vec<(u64, Range)>>;

fn recount(folder: &Path, truth: &Value) -> Recount {
    let names = Names::read(folder);
    let mut all: Vec<(u64, usize, Vec<u8>)> = Vec::new();
    for (tap, name) in TAPS.into_iter().enumerate() {
        let frames = frames(&folder.join(format!("{name}.pcap")));
        assert!(frames.is_sorted_by_key(|frame| frame.0), "{name} is in order");
        all.extend(frames.into_iter().map(|(stamp_ns, bytes)| (stamp_ns, tap, bytes)));
    }
    all.sort_by_key(|(stamp_ns, tap, _)| (*stamp_ns, *tap));
    let mut count = Recount::default();
    let mut seen: HashMap<u64, Seen> = HashMap::new();
    let mut streams = Streams::new();
    let mut payloads: HashMap<(u64, u32, u32), u64> = HashMap::new();
    for (stamp_ns, tap, bytes) in &all {
        *count.packets.entry(TAPS[*tap].to_owned()).or_default() += 1;
        count.octets += bytes.len() as u64;
        let (segment, inner) = tenant_frame(bytes);
        let space = names.space(&segment);
        let Some(packet) = counted(&space, inner) else {
            count.not_ip += 1;
            continue;
        };
        if let Some(first) = seen.get_mut(&packet.key) {
            let once = first.tap != *tap && !first.copied;
            assert!(once, "one copy at the other tap, none at the same");
            first.copied = true;
            count.copied += 1;
            count.paths.entry((first.tap, *tap)).or_default().add(stamp_ns - first.stamp_ns);
            continue;
        }
        let vm = |address| names.vm_of.get(&(space.clone(), address)).cloned();
        let (sender, receiver) = (vm(packet.source), vm(packet.destination));
        if let Some(uuid) = &sender {
            *count.octets_by_vm.entry(uuid.clone()).or_default() += packet.ip_octets;
            *count.packets_by_vm.entry(uuid.clone()).or_default() += 1;
        }
        let spoofed = |ip: [u8; 4]| ip[0] == 198 && ip[1] & 0xfe == 18;
        count.spoofed += u64::from(matches!(packet.source, IpAddr::V4(ip) if spoofed(ip.octets())));
        count.logical += 1;
        count.flows.insert((space, packet.flow));
        if let Some(range) = packet.range {
            streams.entry(range.direction).or_default().push((*stamp_ns, range));
            let place = (range.direction, range.from, range.octets);
            let payload = *payloads.entry(place).or_insert(range.payload);
            assert_eq!(payload, range.payload, "a repeated range has the same octets");
        }
        let (tap, stamp_ns, range) = (*tap, *stamp_ns, packet.range);
        let first = Seen { tap, stamp_ns, sender, receiver, range, copied: false };
        seen.insert(packet.key, first);
    }
    count_losses(&mut count, seen, &streams, &names);
    names.check_migrations(truth);
    count
}

/// What one tap saw and the other should have seen.
fn count_losses(count: &mut Recount, seen: HashMap<u64, Seen>, streams: &Streams, names: &Names) {
    for first in seen.into_values().filter(|first| !first.copied) {
        let Some(sender) = first.sender else { continue };
        let here = names.tap_of(&sender, first.stamp_ns);
        assert_eq!(here, first.tap, "a VM's packets are first seen at its host");
        let Some(receiver) = first.receiver else { continue };
        let there = names.tap_of(&receiver, first.stamp_ns);
        if there != here {
            let path = count.paths.entry((here, there)).or_default();
            path.lost += 1;
            path.repeated += u64::from(first.range.is_some_and(|lost| {
                streams[&lost.direction].iter().any(|(stamp_ns, later)| {
                    let into = lost.from.wrapping_sub(later.from);
                    *stamp_ns > first.stamp_ns && into < later.octets
                })
            }));
        }
    }
}

impl PathCount {
    fn add(&mut self, delay_ns: u64) {
        self.min_ns = if self.count == 0 { delay_ns } else { self.min_ns.min(delay_ns) };
        self.max_ns = self.max_ns.max(delay_ns);
        self.count += 1;
        self.sum_ns += delay_ns;
    }
}

fn numbers(value: &Value) -> BTreeMap<String, u64> {
    let map = value.as_object().expect("object").iter();
    map.map(|(key, value)| (key.clone(), value.as_u64().expect("number"))).collect()
}

/// Generates a scenario and compares its truth with what stands in its captures.
fn check(scenario: Scenario, options: Options) -> (Recount, Value) {
    let folder = Folder::new(scenario.name());
    let summary = generate(scenario, 7, &folder.0, options).expect("generated");
    let truth = std::fs::read_to_string(folder.0.join("truth.json")).expect("truth");
    let truth: Value = serde_json::from_str(&truth).expect("JSON");
    let count = recount(&folder.0, &truth);
    assert!(summary.files.iter().all(|file| file.is_file()));
    assert_eq!(truth["packets"], summary.packets);
    assert_eq!(truth["octets"], summary.octets);
    assert_eq!(truth["packets"], count.packets.values().sum::<u64>());
    assert_eq!(truth["octets"], count.octets);
    assert_eq!(numbers(&truth["packets_by_tap"]), count.packets);
    assert_eq!(truth["not_ip_packets"], count.not_ip);
    assert_eq!(truth["logical_packets"], count.logical);
    assert_eq!(truth["copied_packets"], count.copied);
    assert_eq!(truth["flows"], count.flows.len());
    assert_eq!(numbers(&truth["octets_sent_by_vm"]), count.octets_by_vm);
    assert_eq!(numbers(&truth["packets_sent_by_vm"]), count.packets_by_vm);
    assert_eq!(count.paths.len(), 2);
    for (path, ((from, to), recounted)) in list(&truth["path"]).iter().zip(&count.paths) {
        let delay = &path["delay_ns"];
        assert_eq!((&path["from_tap"], &path["to_tap"]), (&TAPS[*from].into(), &TAPS[*to].into()));
        assert_eq!(path["lost_packets"], recounted.lost);
        assert_eq!(path["lost_repeated_packets"], recounted.repeated);
        assert_eq!(path["total_packets"], recounted.count + recounted.lost);
        assert_eq!(delay["count"], recounted.count);
        assert_eq!(delay["mean"], recounted.sum_ns / recounted.count);
        assert_eq!(
            (&delay["min"], &delay["max"]),
            (&recounted.min_ns.into(), &recounted.max_ns.into())
        );
        assert!(recounted.lost > 0, "some are lost");
        assert!(recounted.min_ns >= 120_000);
    }
    for tap in TAPS {
        check_with_tshark(&folder.0.join(format!("{tap}.pcap")));
    }
    (count, truth)
}

/// Checksums and headers, as tshark sees them.
fn check_with_tshark(capture: &Path) {
    let filter = "_ws.malformed || ip.checksum.status==0 || tcp.checksum.status==0 || \
                  udp.checksum.status==0 || icmp.checksum.status==0 || icmpv6.checksum.status==0";
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-Y", filter]);
    // tshark's streams leave the network identifier out, so those of tenants mix.
    command.args(["-o", "tcp.desegment_tcp_streams:FALSE"]);
    for layer in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{layer}.check_checksum:TRUE")]);
    }
    match command.output() {
        Ok(output) => {
            let found = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(found.is_empty(), "{}: {found}", capture.display());
        }
        Err(_) => skips::missing("checksums of generated packets", &["tshark"], "tshark"),
    }
}

#[test]
fn the_cloud_is_as_its_truth_says() {
    let (count, truth) = check(Scenario::Cloud, short(0.7, 8));
    let attacks = list(&truth["attacks"]);
    let kinds: Vec<_> = attacks.iter().map(|attack| attack["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("port_scan"), Some("syn_flood")]);
    assert!(attacks[0]["packets"].as_u64() >= Some(200));
    assert_eq!(attacks[1]["packets"], count.spoofed);
    assert_eq!(list(&truth["migrations"]).len(), 1);
}

#[test]
fn tenants_overlap_and_one_migrates_each_second() {
    let (count, truth) = check(Scenario::Overlap, short(1.0, 4));
    assert_eq!(list(&truth["migrations"]).len(), 4);
    assert!(count.octets_by_vm.len() > 900, "nearly every VM has said something");
    let mut tenants_of: HashMap<_, u32> = HashMap::new();
    for (_, flow) in &count.flows {
        *tenants_of.entry(flow).or_default() += 1;
    }
    let shared = tenants_of.values().filter(|tenants| **tenants > 1).count();
    assert!(shared > 100, "the same 5-tuples appear in several tenants: {shared}");

    let more = Options { vms_per_tenant: Some(23), ..short(0.5, 2) };
    let (count, _) = check(Scenario::Overlap, more);
    let spoke = count.octets_by_vm.len();
    assert!(spoke > 1_200, "more than there are with 10 a tenant: {spoke}");
}

#[test]
fn each_attack_scenario_has_its_attack_and_the_benign_one_none() {
    for (scenario, kind) in [
        (Scenario::PortScan, Some("port_scan")),
        (Scenario::SynFlood, Some("syn_flood")),
        (Scenario::Benign, None),
    ] {
        let (count, truth) = check(scenario, short(0.7, 5));
        let attacks = list(&truth["attacks"]);
        assert_eq!(attacks.first().and_then(|attack| attack["kind"].as_str()), kind);
        assert_eq!(count.spoofed > 0, scenario == Scenario::SynFlood);
        for attack in attacks {
            assert!(attack["first_seen_ns"].as_u64() < attack["last_seen_ns"].as_u64());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folders = ["one", "again", "other"].map(Folder::new);
    for (folder, seed) in folders.iter().zip([1, 1, 2]) {
        generate(Scenario::Cloud, seed, &folder.0, short(0.3, 3)).expect("generated");
    }
    let [one, again, other] = &folders;
    for file in ["tap-a.pcap", "tap-b.pcap", "inventory.toml", "truth.json"] {
        let read = |folder: &Folder| std::fs::read(folder.0.join(file)).expect("file");
        assert!(read(one) == read(again), "{file} is the same again");
        assert!(read(one) != read(other), "{file} differs with another seed");
    }
}

#[test]
fn the_configuration_names_ports_after_captures() {
    let folder = Folder::new("config");
    generate(Scenario::Cloud, 1, &folder.0, short(0.1, 2)).expect("generated");
    let config = table(folder.0.join("vmprobe.toml"));
    let ports: Vec<_> = array(&config, "port").iter().map(|port| text(port, "name")).collect();
    let taps: Vec<_> =
        array(&config, "tap").iter().map(|tap| text(&tap["match"], "port")).collect();
    assert_eq!((ports.as_slice(), taps.as_slice()), (&TAPS[..], &TAPS[..]));
    for port in array(&config, "port") {
        let (_, file) = text(port, "device").split_once("rx_pcap=").expect("a capture");
        assert!(Path::new(file).is_absolute() && Path::new(file).is_file());
    }
    assert_eq!(config["eal"]["huge_pages"].as_bool(), Some(false));
    let inventory = table(folder.0.join("inventory.toml"));
    assert_eq!(array(&inventory, "tenant").len(), 5);
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = Folder::new("refused");
    let refused = |options| generate(Scenario::Benign, 1, &folder.0, options).expect_err("refused");
    assert!(matches!(refused(short(f64::NAN, 5)), GenerateError::Scale { .. }));
    assert!(matches!(refused(short(0.0, 5)), GenerateError::Scale { .. }));
    assert!(matches!(refused(short(1.0, 0)), GenerateError::Duration { duration_s: 0 }));
    for (scenario, vms) in
        [(Scenario::Benign, 20), (Scenario::Overlap, 9), (Scenario::Overlap, 241)]
    {
        let options = Options { vms_per_tenant: Some(vms), ..short(0.1, 2) };
        let refused = generate(scenario, 1, &folder.0, options).expect_err("refused");
        assert!(matches!(refused, GenerateError::VmsPerTenant { .. }), "{refused}");
    }
    let comma = generate(Scenario::Benign, 1, &folder.0.join("a,b"), short(0.1, 2));
    assert!(matches!(comma, Err(GenerateError::Folder { .. })));
    std::fs::write(folder.0.join("file"), "").expect("file");
    let below = generate(Scenario::Benign, 1, &folder.0.join("file/below"), short(0.1, 2));
    assert!(matches!(below, Err(GenerateError::Write { .. })));
}
