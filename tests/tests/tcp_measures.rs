//! The TCP measures on real captures, against what tshark says of each stream.
//!
//! Segments go to the measures as tshark sees them: grouped by addresses and ports alone, copies
//! not taken out. `data/tcp-analysis.tsv` holds what tshark 4.0.17 counted in each stream in which
//! it counted anything (`tshark -T fields -e tcp.stream -e tcp.analysis.…`); what differs stands
//! with its reason in `data/tcp-differences.tsv`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use vmprobe::capture::file::FileSource;
use vmprobe::capture::{Burst, Frame, Source, SourceState};
use vmprobe::config::Plan;
use vmprobe::decode::{DecodeContext, Decoder, Headers, protocol, tcp_flag};
use vmprobe::index::Sender;
use vmprobe::measure::tcp::{Event, Method, Options, Rare, Segment, Tally, TcpFlow, Terms};
use vmprobe_tests::captures::{self, FOLDERS};
use vmprobe_tests::folder::Folder;
use vmprobe_tests::records;
use vmprobe_tests::replaying::{self, run};

/// An endpoint as tshark tells streams apart: no segment, no tap.
type Endpoint = (IpAddr, u16);

/// One stream, measured.
#[derive(Clone, Debug, Default)]
struct Stream {
    first_frame: u64,
    packets: u64,
    client: Option<(Endpoint, Endpoint)>,
    flow: TcpFlow,
    rare: Rare,
    tally: Tally,
    /// First numbers, by sender, as tshark keeps them.
    base: [Option<u32>; 2],
    last: vmprobe::time::Timestamp,
}

impl Stream {
    /// Whether a SYN begins another stream: its number is not that of this one.
    fn ends_before(&self, segment: &Segment) -> bool {
        let is_syn = segment.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        let base = self.base[segment.sender.place()];
        is_syn && base.is_some_and(|base| base != segment.sequence)
    }

    fn take(&mut self, segment: &Segment) {
        let (mine, theirs) = (segment.sender.place(), segment.sender.other().place());
        let is_syn = segment.flags & tcp_flag::SYN != 0;
        let first = segment.sequence.wrapping_sub(u32::from(!is_syn));
        self.base[mine].get_or_insert(first);
        if segment.flags & tcp_flag::ACK != 0 {
            self.base[theirs].get_or_insert(segment.acknowledgement.wrapping_sub(1));
        }
        self.packets += 1;
        self.last = segment.at;
        let rare = &mut self.rare;
        self.flow.segment(segment, || Some(rare), &Terms::default(), &mut self.tally);
    }

    fn counts(&self) -> Counts {
        Counts(MEASURES.map(|(_, event)| self.tally.total(event)))
    }
}

/// What is compared.
const MEASURES: [(&str, Event); 5] = [
    ("retransmission", Event::Retransmission),
    ("out_of_order", Event::OutOfOrder),
    ("duplicate_ack", Event::DuplicateAck),
    ("zero_window", Event::ZeroWindow),
    ("lost_segment", Event::Gap),
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts([u64; MEASURES.len()]);

/// The option octets of a TCP header: they end where the payload begins.
fn options<'a>(frame: &Frame<'a>, headers: &Headers) -> &'a [u8] {
    let end = headers.payload_offset as usize;
    let ports =
        [headers.source_port.to_be_bytes(), headers.destination_port.to_be_bytes()].concat();
    for header_octets in (20..=60).step_by(4) {
        let Some(begin) = end.checked_sub(header_octets) else { break };
        let Some(header) = frame.bytes.get(begin..end) else { continue };
        let offset = usize::from(header[12] >> 4) * 4;
        if header.starts_with(&ports) && offset == header_octets {
            return &header[20..];
        }
    }
    &[]
}

fn segment(frame: &Frame<'_>, headers: &Headers) -> (Endpoint, Endpoint, Segment) {
    let source = (headers.source.to_ip(headers.ip_version), headers.source_port);
    let destination = (headers.destination.to_ip(headers.ip_version), headers.destination_port);
    let segment = Segment {
        at: headers.timestamp,
        sequence: headers.tcp_sequence,
        acknowledgement: headers.tcp_acknowledgement,
        payload_octets: headers.payload_octets,
        flags: headers.tcp_flags,
        window: headers.tcp_window,
        sender: if source <= destination { Sender::Low } else { Sender::High },
        tap: headers.tap,
        options: Options::read(options(frame, headers), headers.tcp_acknowledgement),
    };
    (source, destination, segment)
}

/// All streams of a capture, in order.
fn measure(capture: &Path) -> Vec<Stream> {
    let Ok(mut source) = FileSource::open(&[capture], 64) else { return Vec::new() };
    let context = DecodeContext::new(&Plan::default(), source.ports());
    let mut decoder = Decoder::new(&context);
    let mut streams: Vec<Stream> = Vec::new();
    let mut latest: HashMap<(Endpoint, Endpoint), usize> = HashMap::new();
    let (mut number, mut ports) = (0, source.ports().len());
    let mut headers = Headers::default();
    loop {
        let (burst, state) = source.poll();
        for name in burst.port_names().iter().skip(ports) {
            decoder.add_port(name);
        }
        ports = ports.max(burst.port_names().len());
        for place in 0..burst.len() {
            number += 1;
            let frame = burst.frame(place);
            if decoder.decode(&frame, frame.timestamp, &mut headers).is_err()
                || headers.protocol != protocol::TCP
                || headers.fragment_offset != 0
            {
                continue;
            }
            let (from, to, segment) = segment(&frame, &headers);
            let key = (from.min(to), from.max(to));
            let known = latest.get(&key).copied();
            let known = known.filter(|known| !streams[*known].ends_before(&segment));
            let place = known.unwrap_or_else(|| {
                latest.insert(key, streams.len());
                let client = Some((from, to));
                streams.push(Stream { first_frame: number, client, ..Stream::default() });
                streams.len() - 1
            });
            streams[place].take(&segment);
        }
        if state == SourceState::Ended {
            break;
        }
    }
    for Stream { flow, rare, tally, last, .. } in &mut streams {
        flow.end(rare, *last, tally);
    }
    streams
}

/// What tshark counted, by file and first frame; with the packets of the stream.
fn analysis() -> BTreeMap<(String, u64), (u64, Counts)> {
    let table = include_str!("../data/tcp-analysis.tsv");
    let (mut file, mut found) = (String::new(), BTreeMap::new());
    for line in table.lines().skip(1) {
        if let Some(name) = line.strip_prefix("file ") {
            name.clone_into(&mut file);
            continue;
        }
        let numbers: Vec<u64> =
            line.split('\t').map(|cell| cell.parse().expect("a number")).collect();
        let [first_frame, packets, ..] = numbers[..] else { panic!("two columns: {line}") };
        let counts = Counts(std::array::from_fn(|measure| numbers[2 + measure]));
        found.insert((file.clone(), first_frame), (packets, counts));
    }
    found
}

/// Why we count otherwise than tshark, each after a look at the packets.
const REASONS: [&str; 8] = [
    // RFC 5681 section 2 (a): without data on its way a repeated acknowledgement is no duplicate.
    "nothing_on_its_way",
    // The range was seen before, so it is a retransmission (or a copy), however soon it came;
    // tshark looks at the time alone.
    "seen_before",
    // The range was not seen before and came within a round trip of the segment behind it: out of
    // order. tshark calls it a retransmission if it ends where the stream does, or if it was
    // acknowledged.
    "never_seen_before",
    // The hole was older than a round trip, though the latest segment was not.
    "late",
    // A mirror of two ports let the acknowledgement overtake its data.
    "ack_overtook_data",
    // Payload lengths by the headers; tshark goes by what was captured, or by the frame's length.
    "lengths",
    // A SYN-ACK with another number: the same answer again (within 130 s), or another connection's.
    // tshark takes the difference of the numbers for lost octets, or for old ones.
    "other_number",
    // A tunnel or link type that is not decoded; its packets are in the ledger.
    "undecoded",
];

/// A flood of 13,340 streams, in nearly all of which one SYN was repeated: compared as a whole, and
/// not among the streams of the table.
const FLOOD: (&str, Counts) = ("attacks/dos/cicddos2019__SYN.pcap", Counts([13_461, 0, 0, 0, 0]));

/// Streams that must be equal, of 1,000. The least is `lost_segment`, by one capture of answers to
/// forged SYNs, in which 680 streams hold SYN-ACKs of several connections.
const LEAST_PER_MILLE: u64 = 980;

/// Known differences: file, first frame and measure, with ours, tshark's and the reason.
fn known_differences() -> BTreeMap<(String, u64, String), (u64, u64)> {
    let table = include_str!("../data/tcp-differences.tsv");
    let line = |line: &str| {
        let cells: Vec<_> = line.split('\t').collect();
        let [file, frame, measure, ours, tshark, reason] = cells[..] else {
            panic!("six columns: {line}")
        };
        assert!(REASONS.contains(&reason), "no reason is called {reason}");
        let number = |text: &str| text.parse().expect("a number");
        ((file.to_owned(), number(frame), measure.to_owned()), (number(ours), number(tshark)))
    };
    table.lines().skip(1).map(line).collect()
}

/// How many streams are equal.
#[derive(Clone, Copy, Debug, Default)]
struct Agreement {
    equal: u64,
    total: u64,
    /// The same of streams in which either counts anything.
    equal_of_some: u64,
    some: u64,
}

impl Agreement {
    fn add(&mut self, ours: u64, theirs: u64) {
        let equal = u64::from(ours == theirs);
        self.total += 1;
        self.equal += equal;
        if ours != 0 || theirs != 0 {
            self.some += 1;
            self.equal_of_some += equal;
        }
    }

    fn line(&self, measure: &str) -> String {
        let Self { equal, total, equal_of_some, some } = self;
        format!("{measure:16} {equal:6} of {total:6}   {equal_of_some:5} of {some:5}")
    }

    /// Whether at least so many of 1,000 are equal.
    const fn reaches(&self, per_mille: u64) -> bool {
        self.equal * 1000 >= self.total * per_mille
    }
}

/// Captures of all folders of which tshark's analysis is known.
fn analysed(folder: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    let all = FOLDERS.into_iter().flat_map(|place| captures::captures(folder, place));
    let with_name = all.map(|capture| (captures::name(folder, &capture), capture));
    with_name
        .filter_map(|(name, capture)| tshark_file(&capture).is_file().then_some((capture, name)))
}

fn tshark_file(capture: &Path) -> PathBuf {
    PathBuf::from(format!("{}.tshark.json", capture.display()))
}

#[test]
fn streams_are_counted_as_tshark_counts_them() {
    let Some(folder) = captures::folder() else { return };
    let analysis = analysis();
    let mut found = BTreeMap::new();
    let mut agreements = [Agreement::default(); MEASURES.len()];
    for (capture, name) in analysed(&folder) {
        let streams = measure(&capture);
        if name == FLOOD.0 {
            let sum = |place: usize| streams.iter().map(|stream| stream.counts().0[place]).sum();
            assert_eq!(Counts(std::array::from_fn(sum)), FLOOD.1, "{name}");
            continue;
        }
        for stream in &streams {
            let key = (name.clone(), stream.first_frame);
            let theirs = analysis.get(&key).map_or(Counts::default(), |(_, counts)| *counts);
            let counts = stream.counts().0.into_iter().zip(theirs.0);
            for (place, (ours, theirs)) in counts.enumerate() {
                agreements[place].add(ours, theirs);
                if ours != theirs {
                    let measure = MEASURES[place].0.to_owned();
                    found.insert((name.clone(), stream.first_frame, measure), (ours, theirs));
                }
            }
        }
        let seen = |frame: u64| streams.iter().any(|stream| stream.first_frame == frame);
        let rows = analysis.range((name.clone(), 0)..=(name.clone(), u64::MAX));
        for ((_, frame), _) in rows.filter(|((_, frame), _)| !seen(*frame)) {
            found.insert((name.clone(), *frame, "stream".to_owned()), (0, 1));
        }
    }
    eprintln!("measure           equal of streams   of those with any");
    for ((measure, _), agreement) in MEASURES.iter().zip(&agreements) {
        eprintln!("{}", agreement.line(measure));
        assert!(agreement.reaches(LEAST_PER_MILLE), "{measure}: {agreement:?}");
    }
    let mut wrong = String::new();
    let known = known_differences();
    for ((file, frame, measure), (ours, theirs)) in &found {
        if known.get(&(file.clone(), *frame, measure.clone())) != Some(&(*ours, *theirs)) {
            writeln!(wrong, "{file}\t{frame}\t{measure}\t{ours}\t{theirs}\t").expect("memory");
        }
    }
    for (key, _) in known.iter().filter(|(key, _)| !found.contains_key(*key)) {
        writeln!(wrong, "no longer: {key:?}").expect("memory");
    }
    assert!(wrong.is_empty(), "not as in data/tcp-differences.tsv:\n{wrong}");
}

/// Seconds as a number in JSON, in ns.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a round trip, as tshark writes them"
)]
fn as_ns(json: &Json) -> Option<u64> {
    json.as_f64().map(|seconds| (seconds * 1e9).round() as u64)
}

/// SYN to SYN-ACK, and SYN to the last ACK, in ns.
type Handshake = (Option<u64>, Option<u64>);

/// What tshark says of the handshakes of a capture: by client and server, in order.
fn handshakes(capture: &Path) -> HashMap<(String, String), Vec<Handshake>> {
    let text = std::fs::read_to_string(tshark_file(capture)).expect("a file");
    let json: Json = serde_json::from_str(&text).expect("JSON");
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for stream in json["streams"].as_array().into_iter().flatten() {
        let end = |key: &str| stream[key].as_str().unwrap_or_default().to_owned();
        let times =
            (as_ns(&stream["syn_to_synack_s"]), as_ns(&stream["tcp.analysis.initial_rtt_s"]));
        found.entry((end("client"), end("server"))).or_default().push(times);
    }
    found
}

fn text(endpoint: Endpoint) -> String {
    match endpoint.0 {
        IpAddr::V4(address) => format!("{address}:{}", endpoint.1),
        IpAddr::V6(address) => format!("{address}:{}", endpoint.1),
    }
}

/// Both halves of a handshake in ns, where Karn's rule allows a sample.
fn halves(stream: &Stream) -> (Option<u64>, Option<u64>) {
    let one = |method| {
        let delays = [Sender::Low, Sender::High].map(|far| stream.tally.delay(method, far));
        delays.iter().find(|delay| delay.count == 1).map(|delay| delay.sum_ns)
    };
    (one(Method::HandshakeServer), one(Method::HandshakeClient))
}

#[test]
fn round_trips_are_those_of_tshark_within_a_microsecond() {
    let Some(folder) = captures::folder() else { return };
    let (mut server, mut both) = (Agreement::default(), Agreement::default());
    let mut wrong = String::new();
    for (capture, name) in analysed(&folder) {
        let mut handshakes = handshakes(&capture);
        for stream in measure(&capture) {
            let Some((client, responder)) = stream.client else { continue };
            let key = (text(client), text(responder));
            let Some(times) = handshakes.get_mut(&key).filter(|times| !times.is_empty()) else {
                continue;
            };
            let (to_server, initial) = times.remove(0);
            let ours = halves(&stream);
            let sum = ours.0.zip(ours.1).map(|(server, client)| server + client);
            for (ours, theirs, agreement) in
                [(ours.0, to_server, &mut server), (sum, initial, &mut both)]
            {
                // Without a sample here: Karn's rule, or an answer to something else.
                let Some((ours, theirs)) = ours.zip(theirs) else { continue };
                let equal = ours.abs_diff(theirs) <= 1000;
                agreement.add(u64::from(equal), 1);
                if !equal {
                    writeln!(wrong, "{name}\t{}\t{ours}\t{theirs}", stream.first_frame)
                        .expect("memory");
                }
            }
        }
    }
    eprintln!("{}\n{}", server.line("handshake_server"), both.line("initial_rtt"));
    assert!(server.total > 1000 && both.total > 1000, "the streams are found");
    assert!(server.reaches(995) && both.reaches(995), "{wrong}");
    eprintln!("{wrong}");
}

/// A field of DeepFlow's `TimeStats`: samples, and their sum in ns.
fn time_stats(block: &str, name: &str) -> (u64, u64) {
    let begin = block.find(&format!("{name}: TimeStats {{")).expect(name);
    let field = |key: &str| {
        let rest = &block[begin..];
        let rest = &rest[rest.find(key).expect(key) + key.len()..];
        rest[..rest.find(',').expect("a comma")].trim()
    };
    let sum = field("sum:");
    let digits = sum.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(sum.len());
    let unit = match &sum[digits..] {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        unit => panic!("a unit: {unit}"),
    };
    let seconds: f64 = sum[..digits].parse().expect("a number");
    let ns = as_ns(&Json::from(seconds * unit / 1e9)).expect("a number");
    (field("count:").parse().expect("a number"), ns)
}

#[test]
fn times_are_those_of_deepflow() {
    let Some(folder) = captures::folder() else { return };
    let mut agreement = Agreement::default();
    for capture in captures::captures(&folder, "tcp") {
        let beside = PathBuf::from(format!("{}.deepflow.result", capture.display()));
        let Ok(results) = std::fs::read_to_string(beside) else { continue };
        let name = captures::name(&folder, &capture);
        let block = results.rsplit("perf data from").next().expect("a block");
        let streams = measure(&capture);
        let [stream] = &streams[..] else { panic!("{name}: one stream") };
        let (client, server) = stream.client.expect("endpoints");
        let far = if client <= server { Sender::Low } else { Sender::High };
        // DeepFlow's 0 is the sender of the first packet; it answers what 0 counts.
        let pairs = [
            ("rtt_0", Method::HandshakeClient, far),
            ("rtt_1", Method::HandshakeServer, far.other()),
            ("art_0", Method::Response, far),
            ("art_1", Method::Response, far.other()),
        ];
        // It takes the first SYN and each answer: no sample by Karn's rule.
        let karn = name.contains("syn-retrans") || name.contains("syn-ack-retrans");
        for (theirs, method, far) in pairs {
            let (count, sum_ns) = time_stats(block, theirs);
            let ours = stream.tally.delay(method, far);
            if karn && ours.count == 0 {
                continue;
            }
            let equal = ours.count == count && ours.sum_ns.abs_diff(sum_ns) <= 1000;
            agreement.add(u64::from(equal), 1);
            assert!(equal, "{name} {theirs}: {ours:?} {count} {sum_ns}");
        }
        // Data to a bare acknowledgement; ours takes those that ride on data, too.
        let (count, sum_ns) = time_stats(block, "srt_1");
        if count == 1 {
            let ours = stream.tally.delay(Method::SequenceAck, far.other());
            assert!(ours.max_ns.abs_diff(sum_ns) <= 1000, "{name}: {ours:?} {sum_ns}");
        }
    }
    eprintln!("{}", agreement.line("deepflow times"));
    assert!(agreement.total >= 15, "{agreement:?}");
}

/// Endpoints of a stream in order, as texts.
type Pair = [(String, u64); 2];

fn pair(one: (String, u64), other: (String, u64)) -> Pair {
    if one <= other { [one, other] } else { [other, one] }
}

/// Columns of `flows` for [`MEASURES`].
const COLUMNS: [&str; MEASURES.len()] = [
    "retransmission_packet_count",
    "out_of_order_packet_count",
    "duplicate_ack_count",
    "zero_window_count",
    "gap_count",
];

/// What the records of a capture say of each pair of endpoints: counts, and copies that were marked.
fn recorded(capture: &Path) -> HashMap<Pair, (Counts, u64)> {
    let files = [capture.to_owned()];
    let folder = Folder::new("tcp-measures");
    let mut plan = replaying::small_plan(&files);
    // As tshark, which knows no timeouts: what comes after one is another flow's beginning.
    let never_ms = 100_000_000;
    plan.flow.idle_tcp_ms = never_ms;
    plan.flow.idle_other_ms = never_ms;
    plan.flow.closed_ms = never_ms;
    run(plan, &files, Some(folder.root())).expect("a replay");
    let mut pairs: HashMap<Pair, (Counts, u64)> = HashMap::new();
    let flows = records::rows(folder.root(), "flows");
    for flow in flows.iter().filter(|flow| records::number(flow, "protocol_identifier") == 6) {
        let end = |address: &str, port: &str| {
            let address = records::text(flow, address).expect("an address");
            (address.to_owned(), records::number(flow, port))
        };
        let source = end("source_address", "source_port");
        let destination = end("destination_address", "destination_port");
        let (counts, copies) = pairs.entry(pair(source, destination)).or_default();
        let both = |column: &str| {
            let of = |column: &str| {
                let count = flow[column].as_u64();
                count.unwrap_or_else(|| panic!("{column} is null: {flow:?}"))
            };
            of(column) + of(&format!("reverse_{column}"))
        };
        for (count, column) in counts.0.iter_mut().zip(COLUMNS) {
            *count += both(column);
        }
        *copies += both("duplicate_packet_count");
    }
    pairs
}

/// Records say what the measures say of the same streams, and so what tshark says: copies are only
/// marked in a replay without taps, and are no retransmissions there. What differs beside are
/// address spaces, by which one stream of tshark is several flows.
#[test]
fn records_say_what_the_measures_say() {
    let Some(folder) = captures::folder() else { return };
    let mut agreements = [Agreement::default(); MEASURES.len()];
    for (capture, name) in analysed(&folder).filter(|(_, name)| name != FLOOD.0) {
        let mut wanted: HashMap<Pair, Counts> = HashMap::new();
        for stream in measure(&capture) {
            let Some((from, to)) = stream.client else { continue };
            let end = |(address, port): Endpoint| (address.to_string(), u64::from(port));
            let sums = wanted.entry(pair(end(from), end(to))).or_default();
            for (sum, count) in sums.0.iter_mut().zip(stream.counts().0) {
                *sum += count;
            }
        }
        let found = recorded(&capture);
        for (pair, wanted) in &wanted {
            let (counts, copies) = found.get(pair).copied().unwrap_or_default();
            for (place, (ours, theirs)) in counts.0.iter().zip(wanted.0).enumerate() {
                // A copy without payload is no retransmission either.
                let explained = place == 0 && (*ours..=ours + copies).contains(&theirs);
                agreements[place].add(if explained { theirs } else { *ours }, theirs);
                if *ours != theirs && !explained && std::env::var_os("VMPROBE_SHOW").is_some() {
                    eprintln!("{name} {pair:?} {} {ours} {theirs} ({copies})", COLUMNS[place]);
                }
            }
        }
    }
    for ((measure, _), agreement) in MEASURES.iter().zip(&agreements) {
        eprintln!("{}", agreement.line(measure));
        assert!(agreement.reaches(LEAST_PER_MILLE), "{measure}: {agreement:?}");
    }
}
