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
    /// SYN, SYN-ACK and first ACK were repeated: round trips that nobody defines alike.
    odd_opening: bool,
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
    let ports = [headers.source_port.to_be_bytes(), headers.destination_port.to_be_bytes()].concat();
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
    let line = |line: &str| {
        let cells: Vec<_> = line.split('\t').collect();
        let number = |place: usize| cells[place].parse::<u64>().expect("a number");
        let counts = std::array::from_fn(|measure| number(3 + measure));
        ((cells[0].to_owned(), number(1)), (number(2), Counts(counts)))
    };
    table.lines().skip(1).map(line).collect()
}

#[test]
fn explore() {
    let Some(folder) = captures::folder() else { return };
    let analysis = analysis();
    let mut out = String::new();
    let mut totals = [[0_u64; 4]; MEASURES.len()];
    for place in FOLDERS {
        for capture in captures::captures(&folder, place) {
            let name = captures::name(&folder, &capture);
            if !Path::new(&format!("{}.tshark.json", capture.display())).exists() {
                continue;
            }
            for stream in measure(&capture) {
                let key = (name.clone(), stream.first_frame);
                if name.contains("UTICA") && stream.first_frame == 127 {
                    eprintln!("{:?} {:?}", stream.tally, stream.flow);
                }
                let theirs = analysis.get(&key).map_or(Counts::default(), |(_, counts)| *counts);
                let ours = stream.counts();
                for (place, (measure, _)) in MEASURES.iter().enumerate() {
                    let (a, b) = (ours.0[place], theirs.0[place]);
                    totals[place][0] += 1;
                    totals[place][1] += u64::from(a == b);
                    if b != 0 || a != 0 {
                        totals[place][2] += 1;
                        totals[place][3] += u64::from(a == b);
                    }
                    if a != b {
                        let (name, frame) = &key;
                        writeln!(out, "{name}\t{frame}\t{}\t{measure}\t{a}\t{b}", stream.packets)
                            .expect("memory");
                    }
                }
            }
        }
    }
    std::fs::write("/tmp/f/diff.tsv", out).expect("written");
    panic!("{totals:?}");
}
