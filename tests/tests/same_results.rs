//! The same packets give the same results: for any number of workers, any burst size, any order of
//! files, again and again, from a file and from DPDK.

use std::path::{Path, PathBuf};
#[cfg(feature = "dpdk")]
use std::process::Command;

use etherparse::{
    IpHeaders, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader,
    PacketBuilder, TcpHeader, ip_number,
};
use vmprobe::capture::file::PcapWriter;
use vmprobe::config::{self, CopiesPlan, Mode, Plan};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe::time::Timestamp;
use vmprobe_tests::captures;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::link::transfer::START_NS;
use vmprobe_tests::paths::plan_of;
use vmprobe_tests::records::{self, sorted};
use vmprobe_tests::replaying::{run, small_plan};

/// Tables that say what happened; the ledger's rows name workers, so its sums are compared.
const TABLES: [&str; 9] =
    ["windows", "flows", "alerts", "taps", "delays", "path", "path_samples", "migrations", "apps"];

/// What a run came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    packets: u64,
    octets: u64,
    flows: u64,
    accounted: u64,
    causes: String,
    rows: [Vec<String>; TABLES.len()],
}

impl Outcome {
    /// Says where two runs differ, in short.
    fn must_equal(&self, other: &Self, what: &str) {
        for ((table, one), two) in TABLES.iter().zip(&self.rows).zip(&other.rows) {
            let only = |rows: &[String], others: &[String]| -> Vec<String> {
                rows.iter().filter(|row| others.binary_search(row).is_err()).cloned().collect()
            };
            let (left, right) = (only(one, two), only(two, one));
            let [first, second] =
                [left.first(), right.first()].map(|row| row.map_or("", |row| row));
            let counts = (left.len(), right.len());
            assert!(counts == (0, 0), "{what}: {table} differ in {counts:?}:\n{first}\n{second}");
            assert_eq!(one.len(), two.len(), "{what}: rows of {table}");
        }
        assert!(self == other, "{what}: totals differ");
    }
}

fn outcome(plan: Plan, files: &[PathBuf], name: &str) -> Outcome {
    let records = Folder::new(name);
    let replay = run(plan, files, Some(records.root())).expect("a replay");
    let ledger = &replay.report.ledger;
    assert_eq!(ledger.unaccounted, 0, "{name}");
    Outcome {
        packets: replay.report.packets,
        octets: replay.report.octets,
        flows: replay.report.flows,
        accounted: ledger.accounted,
        causes: format!("{:?}", ledger.causes),
        rows: TABLES.map(|table| sorted(&records::rows(records.root(), table), &[])),
    }
}

fn with(plan: &Plan, workers: u16, burst: u16) -> Plan {
    let mut plan = plan.clone();
    plan.worker.count = workers;
    plan.worker.burst_packets = burst;
    plan
}

/// A short cloud with its configuration.
fn cloud(name: &str, scenario: Scenario) -> (Folder, Plan, Vec<PathBuf>) {
    let folder = Folder::new(name);
    let options = Options { scale: 1.0, duration_s: Some(8), ..Options::default() };
    generate(scenario, 5, folder.root(), options).expect("generated");
    let mut plan = config::load(&folder.path("vmprobe.toml"), Mode::Replay)
        .expect("the generator's configuration")
        .plan;
    plan.serve.enabled = false;
    plan.store.free_mib_min = 16;
    plan.path.secret = Some("the same digests in each run".to_owned());
    plan.path.samples = true;
    let files = ["tap-a.pcap", "tap-b.pcap"].map(|name| folder.path(name));
    (folder, plan, files.to_vec())
}

#[test]
fn any_workers_and_bursts_on_a_cloud() {
    let (_folder, plan, files) = cloud("same-cloud", Scenario::Cloud);
    let one = outcome(with(&plan, 1, 32), &files, "same-cloud-1");
    assert!(one.rows[0].len() > 100 && !one.rows[2].is_empty(), "there is something to compare");
    assert!(one.rows[4].len() > 8, "delays of tenants too");
    assert_eq!(one.rows[7].len(), 1, "a migration too");
    for (workers, burst) in [(3, 32), (1, 1), (2, 64)] {
        let what = format!("{workers} workers, bursts of {burst}");
        let other = outcome(with(&plan, workers, burst), &files, "same-cloud-n");
        one.must_equal(&other, &what);
    }
    let turned = [files[1].clone(), files[0].clone()];
    one.must_equal(&outcome(with(&plan, 1, 32), &turned, "same-cloud-turned"), "files turned");
}

/// Captures with fragments, mirrors, tags and tunnels, and some of each kind.
fn chosen(folder: &Path) -> Vec<PathBuf> {
    let all = |place| captures::captures(folder, place);
    let hard = ["frag", "erspan", "vlan", "qinq", "vxlan", "geneve", "gre"];
    let is_hard = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        hard.iter().any(|word| name.contains(word))
    };
    let small = |path: &PathBuf| path.metadata().is_ok_and(|about| about.len() < 1 << 20);
    let mut chosen: Vec<_> = all("encapsulation").into_iter().filter(is_hard).take(30).collect();
    chosen.extend(all("tcp").into_iter().filter(small).step_by(6));
    chosen.extend(all("protocols").into_iter().filter(small).step_by(40));
    chosen.extend(all("malformed").into_iter().step_by(30));
    chosen
}

#[test]
fn any_workers_and_bursts_on_captures() {
    let Some(folder) = captures::folder() else { return };
    let chosen = chosen(&folder);
    assert!(chosen.len() >= 40, "{}", chosen.len());
    for capture in chosen {
        let files = [capture.clone()];
        let plan = small_plan(&files);
        let one = outcome(with(&plan, 1, 64), &files, "same-captures");
        for (workers, burst) in [(3, 64), (1, 1)] {
            let what = format!("{}: {workers} workers, bursts of {burst}", capture.display());
            let other = outcome(with(&plan, workers, burst), &files, "same-captures");
            one.must_equal(&other, &what);
        }
    }
}

/// What stands around and before the payload of a flow's packets.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// TCP over IPv4 with the usual timestamps.
    Stamped,
    /// With as many options as a header takes.
    Options,
    /// UDP over IPv4.
    Datagrams,
    /// TCP over IPv6 with two extension headers.
    Extended,
    /// TCP with all options in VXLAN.
    TunneledOptions,
    /// UDP in VXLAN.
    TunneledDatagrams,
}

const SHAPES: [Shape; 6] = [
    Shape::Stamped,
    Shape::Options,
    Shape::Datagrams,
    Shape::Extended,
    Shape::TunneledOptions,
    Shape::TunneledDatagrams,
];

/// Timestamps, and SACK blocks.
const MOST_OPTIONS: [u8; 40] = {
    let mut options = [1; 40];
    (options[2], options[3], options[11]) = (8, 10, 9);
    (options[14], options[15]) = (5, 26);
    options
};

/// A packet of a flow: a way, flags of TCP, number of its first octet of payload, and payload.
struct Part<'a>(bool, u8, u32, &'a [u8]);

impl Shape {
    const fn is_tcp(self) -> bool {
        !matches!(self, Self::Datagrams | Self::TunneledDatagrams)
    }

    /// The frame of a packet of the flow whose client has this port; `number` tells packets apart.
    fn frame(self, port: u16, number: u16, part: &Part<'_>) -> Vec<u8> {
        let Part(forward, flags, sequence, payload) = *part;
        let hosts = if forward { [1, 2] } else { [2, 1] };
        let [source_port, destination_port] = if forward { [port, 80] } else { [80, port] };
        let [source, destination] = hosts.map(|host| [10, 0, 0, host]);
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, hosts[0]], [2, 0, 0, 0, 0, hosts[1]]);
        let protocol = if self.is_tcp() { ip_number::TCP } else { ip_number::UDP };
        let ip = if matches!(self, Self::Extended) {
            let padding = Ipv6RawExtHeader::new_raw(protocol, &[1, 4, 0, 0, 0, 0]);
            let padding = Some(padding.expect("eight octets"));
            let hop_by_hop_options = padding.clone();
            let [source, destination] =
                hosts.map(|host| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            let ipv6 = Ipv6Header { hop_limit: 64, source, destination, ..Ipv6Header::default() };
            let options = Ipv6Extensions {
                hop_by_hop_options,
                destination_options: padding,
                ..Ipv6Extensions::default()
            };
            IpHeaders::Ipv6(ipv6, options)
        } else {
            let ipv4 = Ipv4Header::new(0, 64, protocol, source, destination).expect("short");
            let ipv4 = Ipv4Header { identification: number, ..ipv4 };
            IpHeaders::Ipv4(ipv4, Ipv4Extensions::default())
        };
        let link = link.ip(ip);
        let mut frame = Vec::new();
        if self.is_tcp() {
            let header = TcpHeader::new(source_port, destination_port, sequence, 4_096);
            let mut header = TcpHeader { acknowledgment_number: 1, ..header };
            header.syn = flags & 2 != 0;
            header.psh = flags & 8 != 0;
            header.ack = flags & 16 != 0;
            header.fin = flags & 1 != 0;
            let mut options = MOST_OPTIONS;
            options[7] = number.to_le_bytes()[0];
            let octets =
                if matches!(self, Self::Options | Self::TunneledOptions) { 40 } else { 12 };
            header.set_options_raw(&options[..octets]).expect("room for them");
            link.tcp_header(header).write(&mut frame, payload).expect("memory");
        } else {
            link.udp(source_port, destination_port).write(&mut frame, payload).expect("memory");
        }
        if matches!(self, Self::TunneledOptions | Self::TunneledDatagrams) {
            let inside = [&[8, 0, 0, 0, 0, 0x10, 0x92, 0][..], &frame].concat();
            frame.clear();
            PacketBuilder::ethernet2([2, 0, 0, 0, 1, hosts[0]], [2, 0, 0, 0, 1, hosts[1]])
                .ipv4([192, 0, 2, hosts[0]], [192, 0, 2, hosts[1]], 64)
                .udp(50_000, 4_789)
                .write(&mut frame, &inside)
                .expect("memory");
        }
        frame
    }
}

/// Segments or datagrams of an answer, of which the first says something.
const ANSWERS: u32 = 9;

/// A question of 200 octets and an answer of several times 1,400.
fn talk(shape: Shape, [question, answer, more]: [&[u8]; 3]) -> Vec<Part<'_>> {
    const CALM: u8 = 16;
    const SAYS: u8 = 16 | 8;
    let mut parts = Vec::new();
    if shape.is_tcp() {
        parts.extend([Part(true, 2, 0, b""), Part(false, 18, 0, b""), Part(true, CALM, 1, b"")]);
    }
    parts.push(Part(true, SAYS, 1, question));
    let sent = |times: u32| 1 + times * u32::try_from(answer.len()).expect("short");
    for time in 0..ANSWERS {
        let payload = if time == 0 { answer } else { more };
        parts.push(Part(false, SAYS, sent(time), payload));
    }
    if shape.is_tcp() {
        parts.push(Part(true, CALM | 1, 201, b""));
        parts.push(Part(false, CALM | 1, sent(ANSWERS), b""));
        parts.push(Part(true, CALM, 202, b""));
    }
    parts
}

/// Captures of two taps, half a millisecond apart, with flows of all shapes side by side.
fn long_packets(folder: &Folder, flows: u16) -> Vec<PathBuf> {
    let fill = |head: &str, octets: usize| {
        let mut message = format!("{head}X-Fill: ");
        message.extend(std::iter::repeat_n('x', octets - message.len() - 4));
        (message + "\r\n\r\n").into_bytes()
    };
    let question = fill("GET /some/place HTTP/1.1\r\nHost: example.org\r\n", 200);
    let answer = fill("HTTP/1.1 200 OK\r\nContent-Length: 11200\r\n", 1_400);
    let nothing: Vec<u8> = (0..=250).cycle().take(1_400).collect();
    let said: [&[u8]; 3] = [&question, &answer, &nothing];
    let unsaid: [&[u8]; 3] = [&nothing[..200], &nothing, &nothing];
    let talks = SHAPES.map(|shape| talk(shape, if shape.is_tcp() { said } else { unsaid }));
    let longest = talks.iter().map(Vec::len).max().unwrap_or(0);
    // One flow after the other begins, so that of few packets side by side payload has to go along: there
    // is room for 16 KiB of it between two workers.
    let begins = |port: u16, shape: usize| (usize::from(port) + 5 * shape) % longest;
    let files = ["tap-a.pcap", "tap-b.pcap"].map(|name| folder.path(name));
    for (tap, file) in (0..).zip(&files) {
        let mut out = PcapWriter::create(file, 1, true).expect("a file");
        let mut number = 0;
        for (turn, port) in
            (0..2 * longest).flat_map(|turn| (0..flows).map(move |port| (turn, port)))
        {
            for (place, shape) in SHAPES.iter().enumerate() {
                let part =
                    turn.checked_sub(begins(port, place)).and_then(|at| talks[place].get(at));
                let Some(part) = part else { continue };
                number += 1;
                let base = 20_000 + 100 * u16::try_from(place).expect("few shapes");
                let frame = shape.frame(base + port, number, part);
                let at_ns = START_NS + u64::from(number) * 5_000 + tap * 500_000;
                let octets = u32::try_from(frame.len()).expect("short");
                out.write(Timestamp(at_ns), octets, &frame).expect("it is written");
            }
        }
        out.finish().expect("it is written");
    }
    files.to_vec()
}

/// Of a packet with another worker's flow goes along how it begins, or all of its headers, and payload
/// that tells something.
#[test]
fn any_workers_on_packets_that_are_longer_than_what_is_passed_on() {
    const FLOWS: u16 = 60;
    let folder = Folder::new("same-long");
    let files = long_packets(&folder, FLOWS);
    let further = "[path]\nsecret = \"the same digests in each run\"\nsamples = true\n\
                   sample_one_in = 2\n";
    let plan = plan_of(&folder, &files, further);
    let plan = Plan { copies: CopiesPlan { slots: 1 << 16, ..plan.copies }, ..plan };
    let one = outcome(with(&plan, 1, 32), &files, "same-long-1");
    let flows = usize::from(FLOWS);
    let rows = |table: &str| {
        let place = TABLES.iter().position(|name| *name == table).expect("a table");
        &one.rows[place]
    };
    // Each flow once with all of its packets, and of those of TCP the question with its answer.
    assert_eq!(rows("flows").len(), flows * SHAPES.len());
    // Sixteen packets of TCP, ten datagrams, and all of it at both taps.
    let packets = u64::from(FLOWS) * (4 * 16 + 2 * 10);
    assert_eq!((one.packets, one.accounted), (2 * packets, packets));
    let http = |row: &&String| {
        row.contains("http_request_method=\"GET\"") && row.contains("http_status_code=200")
    };
    assert_eq!(rows("apps").iter().filter(http).count(), 4 * flows);
    assert!(rows("path_samples").len() > 500, "{}", rows("path_samples").len());
    // Larger bursts fill batches further, up to where payload finds no room in them.
    for (workers, burst) in [(3, 32), (3, 1)] {
        let other = outcome(with(&plan, workers, burst), &files, "same-long-n");
        one.must_equal(&other, &format!("{workers} workers, bursts of {burst}"));
    }
}

#[test]
fn the_same_run_writes_the_same_bytes() {
    let (_folder, plan, files) = cloud("same-bytes", Scenario::Overlap);
    let written = |name: &str| -> Vec<(PathBuf, Vec<u8>)> {
        let records = Folder::new(name);
        run(with(&plan, 2, 32), &files, Some(records.root())).expect("a replay");
        records::files(records.root())
            .into_iter()
            .map(|path| {
                let bytes = std::fs::read(&path).expect("a file");
                (path.strip_prefix(records.root()).expect("below").to_owned(), bytes)
            })
            .collect()
    };
    let (one, two) = (written("same-bytes-1"), written("same-bytes-2"));
    assert!(one.len() >= 4);
    let names = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&one), names(&two));
    for ((name, one), (_, two)) in one.iter().zip(&two) {
        assert!(one == two, "{} differs", name.display());
    }
}

/// Whether DPDK can give a capture's frames as they are: classic, stamps in microseconds, Ethernet,
/// none cut, none longer than a port takes.
#[cfg(feature = "dpdk")]
fn is_plain(path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    if number(0) != Some(0xa1b2_c3d4) || number(20) != Some(1) || bytes.len() > 1 << 20 {
        return false;
    }
    let (mut at, mut packets) = (24, 0);
    while at < bytes.len() {
        let (Some(captured), Some(wire)) = (number(at + 8), number(at + 12)) else { return false };
        if captured != wire || captured > 1_514 {
            return false;
        }
        packets += 1;
        at += 16 + captured as usize;
    }
    at == bytes.len() && packets >= 20
}

/// Receives one capture over DPDK's `net_pcap` in the built program, and replays it, both with one
/// configuration.
#[cfg(feature = "dpdk")]
fn check_net_pcap(capture: &Path) {
    use vmprobe_tests::end_to_end::{run_to_end, vmprobe};

    let name = capture.display();
    let folder = Folder::new("same-net-pcap");
    let copy = folder.path("plain.pcap");
    std::fs::copy(capture, &copy).expect("a copy");
    let config = folder.path("vmprobe.toml");
    let text = format!(
        "[eal]\nhuge_pages = false\nmemory_mib = 128\nfile_prefix = \"vmprobe-same-{}\"\n\
         [[port]]\nname = \"plain\"\ndevice = \"net_pcap0,rx_pcap={}\"\nmbufs = 8192\n\
         [copies]\nremove = true\n[flow]\nslots_per_worker = 16384\n\
         [store]\nfolder = \"live\"\nfree_mib_min = 16\n[serve]\nenabled = false\n",
        std::process::id(),
        copy.display()
    );
    std::fs::write(&config, text).expect("a configuration");
    let mut plan = config::load(&config, Mode::Replay).expect("a good configuration").plan;
    plan.serve.enabled = false;
    let records = folder.path("replayed");
    let replayed = run(plan, &[copy], Some(&records)).expect("a replay").report;

    let mut command = Command::new(vmprobe());
    command.arg("run").arg("-c").arg(&config).args(["--idle-seconds", "1", "--json"]);
    let ended = run_to_end(command);
    let live = ended.expect(0, &[]).json();
    assert_eq!(live["packets"], replayed.packets, "{name}");
    assert_eq!(live["octets"], replayed.octets, "{name}");
    assert_eq!(live["flows"], replayed.flows, "{name}");
    assert_eq!(live["ledger"]["unaccounted"], 0, "{name}");
    assert_eq!(live["ledger"]["accounted"], replayed.ledger.accounted, "{name}");
    assert_eq!(live["ledger"]["causes"], serde_json::json!(replayed.ledger.causes), "{name}");
    for table in ["flows", "windows"] {
        let of = |folder: &Path| sorted(&records::rows(folder, table), &[]);
        let (here, there) = (of(&records), of(&folder.path("live")));
        assert_eq!(here.len(), there.len(), "{name}: rows of {table}");
        if let Some((here, there)) = here.iter().zip(&there).find(|(here, there)| here != there) {
            panic!("{name}: {table}, replayed and received:\n{here}\n{there}");
        }
    }
}

#[cfg(feature = "dpdk")]
#[test]
fn from_a_file_and_from_dpdk() {
    let (cloud, _, files) = cloud("same-dpdk", Scenario::SynFlood);
    check_net_pcap(&files[0]);
    drop(cloud);
    let Some(folder) = captures::folder() else { return };
    for (place, count) in [("benign", 1), ("tcp", 2), ("encapsulation", 2)] {
        let plain = captures::captures(&folder, place).into_iter().filter(|path| is_plain(path));
        let plain: Vec<_> = plain.take(count).collect();
        assert!(!plain.is_empty(), "{place} has plain captures");
        for capture in plain {
            check_net_pcap(&capture);
        }
    }
}
