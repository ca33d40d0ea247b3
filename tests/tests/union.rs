//! The union of two taps: what is counted of each conversation in each window, and what each single copy
//! is taken for, against the log of a link.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use etherparse::PacketBuilder;
use vmprobe::capture::file::{FileSource, PcapWriter};
use vmprobe::copies::{CopyTable, Verdict};
use vmprobe::decode::{DecodeContext, Decoder, Headers};
use vmprobe::spread::HashSeed;
use vmprobe::time::Timestamp;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::link::transfer::{START_NS, transfer};
use vmprobe_tests::link::{
    Frame, Impairments, Mirror, Side, Truth, Way, each_frame_of, impair_capture, parse,
};
use vmprobe_tests::paths::{plan_of, played};
use vmprobe_tests::records::{Row, number, rows, sum, text};
use vmprobe_tests::replaying::run;

const MS: u64 = 1_000_000;

/// Delay, jitter, loss, reordering and duplicates each way, a router, and mirrors that lose and double.
fn rough() -> Impairments {
    let there = Way {
        delay_ns: 3 * MS,
        jitter_ns: MS,
        loss_ppm: 10_000,
        reorder_ppm: 10_000,
        reorder_ns: 2 * MS,
        duplicate_ppm: 20_000,
        duplicate_ns: MS / 5,
        ttl_decrement: 1,
        router_mac: Some([2, 9, 9, 9, 9, 9]),
        ..Way::default()
    };
    let back = Way { delay_ns: 2 * MS, loss_ppm: 2_000, ..there.clone() };
    let mirror = Mirror { loss_ppm: 20_000, duplicate_ppm: 20_000, ..Mirror::default() };
    Impairments { b_to_a: back, ..Impairments::alike(there, mirror) }
}

/// What one sent to the other for one service in one window: window, addresses, protocol, port of the
/// service.
type Cell = (u64, IpAddr, IpAddr, u8, u16);

/// Packets, IP octets, and octets with the Ethernet header.
type Counts = [u64; 3];

/// Ports of clients are at least this, those of services below.
const CLIENT_PORTS_FROM: u16 = 40_000;

fn add(cells: &mut BTreeMap<Cell, Counts>, cell: Cell, counts: Counts) {
    let sums = cells.entry(cell).or_default();
    *sums = std::array::from_fn(|place| sums[place] + counts[place]);
}

/// Each packet that any mirror showed, once, in the window of its first copy.
fn logged(truth: &Truth, window_ns: u64) -> BTreeMap<Cell, Counts> {
    let mut cells = BTreeMap::new();
    for frame in &truth.frames {
        let (Some(stamp_ns), Some(octets)) = (truth.first_stamp_ns(frame), frame.ip_octets) else {
            continue;
        };
        let (Some(source), Some(destination)) = (frame.source, frame.destination) else {
            continue;
        };
        let service = frame.ports.0.min(frame.ports.1);
        assert!(service < CLIENT_PORTS_FROM && frame.ports.0.max(frame.ports.1) > service);
        let protocol = frame.protocol.expect("it has addresses");
        let cell = (stamp_ns / window_ns * window_ns, source, destination, protocol, service);
        let octets = u64::from(octets);
        add(&mut cells, cell, [1, octets, octets + 14]);
    }
    cells
}

/// The same as the records have it.
fn recorded(windows: &[Row], window_ns: u64) -> BTreeMap<Cell, Counts> {
    let mut cells = BTreeMap::new();
    for row in windows {
        let address = |column: &str| -> IpAddr {
            text(row, column).and_then(|text| text.parse().ok()).expect("an address")
        };
        let (source, destination) = (address("source_address"), address("destination_address"));
        let from_ns = number(row, "window_start_ns");
        assert_eq!(number(row, "window_end_ns"), from_ns + window_ns);
        assert_eq!(number(row, "late_packet_count"), 0, "{row:?}");
        let protocol = u8::try_from(number(row, "protocol_identifier")).expect("a protocol");
        let service = u16::try_from(number(row, "destination_port")).expect("a port");
        for (from, to, twin) in [(source, destination, ""), (destination, source, "reverse_")] {
            let counts = ["packet_delta_count", "octet_delta_count", "layer2_octet_delta_count"]
                .map(|column| number(row, &format!("{twin}{column}")));
            if counts != [0; 3] {
                add(&mut cells, (from_ns, from, to, protocol, service), counts);
            }
        }
    }
    cells
}

/// Plays both captures back and holds each cell of `windows` to the log; the answer is how many
/// conversations and windows there were.
fn check_windows(
    folder: &Folder,
    captures: &[PathBuf],
    truth: &Truth,
    (window_ms, workers, one_in): (u32, u16, u32),
) -> (usize, usize) {
    let mut plan = plan_of(folder, captures, "");
    plan.window.length_ms = window_ms;
    plan.worker.count = workers;
    plan.path.sample_one_in = one_in;
    let name = captures[0].parent().and_then(Path::file_name).expect("a folder").display();
    let records = folder.path(&format!("records-{name}-{window_ms}-{workers}-{one_in}"));
    let report = run(plan, captures, Some(&records)).expect("a replay").report;
    assert_eq!(report.ledger.unaccounted, 0);
    let window_ns = u64::from(window_ms) * MS;
    let truly = logged(truth, window_ns);
    let found = recorded(&rows(&records, "windows"), window_ns);
    for (cell, counts) in &truly {
        assert_eq!(found.get(cell), Some(counts), "{cell:?} {workers} {one_in}");
    }
    let invented: Vec<_> = found.keys().filter(|cell| !truly.contains_key(*cell)).collect();
    assert!(invented.is_empty(), "{invented:?}");
    let distinct = |key: fn(&Cell) -> (u64, Option<IpAddr>, u16)| {
        let mut keys: Vec<_> = truly.keys().map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    };
    let directions = distinct(|(_, source, _, protocol, service)| {
        (u64::from(*protocol), Some(*source), *service)
    });
    (directions, distinct(|(window, ..)| (*window, None, 0)))
}

/// Packets of a client before its server answers: longer than one is under way, for this server answers
/// when the capture says, and not when it was asked.
const FIRST_PACKETS: u16 = 8;

/// One conversation's addresses and ports, which say what it looks like as well.
struct Talk {
    number: u16,
    client: u16,
    server: u16,
}

impl Talk {
    const COUNT: u16 = 24;

    fn of(number: u16) -> Self {
        // Each second one goes the other way between the same two.
        let (one, other) = (number / 2 % 4, 4 + number / 8);
        let (client, server) = if number.is_multiple_of(2) { (one, other) } else { (other, one) };
        Self { number, client, server }
    }

    const fn has_tcp(&self) -> bool {
        !self.number.is_multiple_of(3)
    }

    const fn has_ipv6(&self) -> bool {
        self.number % 6 == 1
    }

    /// Of many lengths; never none, for of what has no identification only payload with a timestamp
    /// tells one from the other.
    fn payload_octets(&self, place: u16) -> usize {
        8 + (usize::from(self.number) * 37 + usize::from(place) * 101) % 1_400
    }

    /// Whether the server sends the `place`-th packet.
    const fn is_answer(place: u16) -> bool {
        place % 3 == 2 && place > FIRST_PACKETS
    }

    /// The `place`-th packet: two of the client, then one of the server, with payloads of many lengths.
    /// `sequence` is that of its first octet, if it is a segment, `identification` its own.
    fn frame(&self, place: u16, sequence: u32, identification: u16) -> Vec<u8> {
        let is_answer = Self::is_answer(place);
        let payload = vec![place.to_le_bytes()[0]; self.payload_octets(place)];
        let ports = [CLIENT_PORTS_FROM + self.number, 8_000 + self.number % 5];
        let (hosts, ports) = if is_answer {
            ([self.server, self.client], [ports[1], ports[0]])
        } else {
            ([self.client, self.server], ports)
        };
        let hosts = hosts.map(|host| host.to_le_bytes()[0] + 1);
        let [source_mac, destination_mac] = hosts.map(|host| [2, 0, 0, 0, 0, host]);
        let ethernet = PacketBuilder::ethernet2(source_mac, destination_mac);
        let ip = if self.has_ipv6() {
            let [source, destination] = hosts.map(|host| {
                let mut address = [0; 16];
                (address[0], address[15]) = (0xfd, host);
                address
            });
            ethernet.ipv6(source, destination, 64)
        } else {
            let [source, destination] = hosts.map(|host| [10, 8, 0, host]);
            ethernet.ipv4(source, destination, 64)
        };
        let mut frame = Vec::new();
        if self.has_tcp() {
            let stamps = etherparse::TcpOptionElement::Timestamp(place.into(), place.into());
            let tcp = ip
                .tcp(ports[0], ports[1], sequence, 4_000)
                .ack(u32::from(place))
                .options(&[stamps])
                .expect("room for a timestamp");
            tcp.write(&mut frame, &payload).expect("memory");
        } else {
            ip.udp(ports[0], ports[1]).write(&mut frame, &payload).expect("memory");
        }
        if !self.has_ipv6() {
            frame[18..20].copy_from_slice(&identification.to_be_bytes());
        }
        if self.number % 4 == 3 {
            // A tag is in neither count of octets.
            frame.splice(12..12, [0x81, 0, 0, 42]);
        }
        // Nor is what fills a frame up.
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

/// All conversations for so long, merged by time.
fn talks(file: &Path, duration_ns: u64) {
    let mut due = BTreeMap::new();
    for number in 0..Talk::COUNT {
        let gap_ns = MS * u64::from(2 + number % 5) + u64::from(number);
        for place in 0.. {
            let at_ns = u64::from(place) * gap_ns + u64::from(number) * 1_001;
            if at_ns >= duration_ns {
                break;
            }
            due.insert((at_ns, number), place);
        }
    }
    let mut out = PcapWriter::create(file, 1, true).expect("a file");
    let mut sequences: BTreeMap<_, u32> = BTreeMap::new();
    for (sent, ((at_ns, number), place)) in due.into_iter().enumerate() {
        let identification = u16::try_from(sent + 1).expect("few packets");
        let talk = Talk::of(number);
        let sequence = sequences.entry((number, Talk::is_answer(place))).or_default();
        let frame = talk.frame(place, *sequence, identification);
        *sequence += u32::try_from(talk.payload_octets(place)).expect("small");
        let octets = u32::try_from(frame.len()).expect("small");
        out.write(Timestamp(START_NS + at_ns), octets, &frame).expect("it is written");
    }
    out.finish().expect("it is written");
}

#[test]
fn each_window_of_each_conversation_has_the_union() {
    let folder = Folder::new("union-windows");
    let sent = folder.path("sent.pcap");
    talks(&sent, 3_000 * MS);
    for offset_ns in [0, -40 * MS.cast_signed()] {
        let out = folder.path(&format!("link{offset_ns}"));
        std::fs::create_dir_all(&out).expect("a folder");
        let mut impairments = rough();
        impairments.mirror_b.offset_ns = offset_ns;
        let (captures, truth) = impair_capture(&sent, 12, impairments, &out).expect("it runs");
        let total = truth.total();
        for count in [total.lost, total.reordered, total.duplicates, total.mirror_lost_entry] {
            assert!(count > 100, "{total:?}");
        }
        assert!(total.unseen > 0 && total.logical_packets > 10_000, "{total:?}");
        for (workers, one_in) in [(1, 1), (3, 16)] {
            let (directions, windows) =
                check_windows(&folder, &captures, &truth, (250, workers, one_in));
            assert!(directions >= 2 * usize::from(Talk::COUNT) - 8 && windows >= 12);
        }
    }
}

#[test]
fn each_window_of_a_transfer_has_the_union() {
    let folder = Folder::new("union-transfer");
    let way = Way { delay_ns: 3 * MS, ..Way::default() };
    let blind = Mirror { loss_ppm: 200_000, ..Mirror::default() };
    // Of many segments under way the mirror at the sender loses more than a flow has room to note.
    let holes = Impairments { mirror_a: blind, ..Impairments::alike(way, Mirror::default()) };
    for (name, impairments) in [("rough", rough()), ("holes", holes)] {
        let out = folder.path(name);
        std::fs::create_dir_all(&out).expect("a folder");
        let (captures, truth) = transfer(6_000_000, 15, impairments, &out).expect("it runs");
        for (window_ms, one_in) in [(100, 1), (100, 16), (1_000, 1)] {
            let (directions, windows) =
                check_windows(&folder, &captures, &truth, (window_ms, 1, one_in));
            assert!(directions == 2 && windows > usize::from(window_ms == 100), "{windows}");
        }
    }
}

/// A copy that a tap showed.
struct Sighting {
    /// Its place in the log.
    frame: usize,
    tap: Side,
    /// How often its tap, and the other one, had shown it.
    before: [u8; 2],
    verdict: Verdict,
}

/// What the table of copies says of each frame of both captures, in the order of their stamps. Which
/// frame of the log it is, sender and identification say: in each direction there are fewer than these.
fn sightings(folder: &Folder, captures: &[PathBuf], truth: &Truth) -> Vec<Sighting> {
    let mut places = HashMap::new();
    for (place, frame) in truth.frames.iter().enumerate() {
        let before = places.insert((frame.source, frame.identification), place);
        assert_eq!(before, None, "an identification of its own");
    }
    let plan = plan_of(folder, captures, "");
    let mut source = FileSource::open(captures, 32).expect("they open");
    let decoder = Decoder::new(&DecodeContext::new(&plan, source.ports()));
    let mut table = CopyTable::new(&plan.copies, HashSeed::fixed(), vec![false; 2]);
    let mut shown = vec![[0_u8; 2]; truth.frames.len()];
    let mut headers = Headers::default();
    let mut out = Vec::new();
    let read = each_frame_of(&mut source, |frame| {
        decoder.decode(frame, frame.timestamp, &mut headers).expect("IP");
        let digest = table.digest(&headers);
        let verdict = table.classify((headers.tap, headers.timestamp), &digest);
        let seen = parse(frame.bytes).expect("IP");
        let logged = places[&(Some(seen.source), seen.identification)];
        let tap = Side::BOTH[usize::from(frame.port.0)];
        let [here, there] = [tap.place(), 1 - tap.place()];
        let before = [shown[logged][here], shown[logged][there]];
        shown[logged][here] += 1;
        out.push(Sighting { frame: logged, tap, before, verdict });
        Ok(())
    });
    read.expect("all of them");
    for (frame, shown) in truth.frames.iter().zip(shown) {
        let [entry, exit] = [frame.direction.entry(), frame.direction.exit()].map(Side::place);
        assert_eq!([shown[entry], shown[exit]], [frame.shown.entry, frame.shown.exit]);
    }
    out
}

/// How well one kind of copies is found: found, true, and both.
#[derive(Clone, Copy, Debug, Default)]
struct Score {
    found: u64,
    truly: u64,
    right: u64,
}

impl Score {
    fn of(sightings: &[Sighting], kind: impl Fn(&Sighting) -> [bool; 2]) -> Self {
        sightings.iter().map(kind).fold(Self::default(), |score, [found, truly]| Self {
            found: score.found + u64::from(found),
            truly: score.truly + u64::from(truly),
            right: score.right + u64::from(found && truly),
        })
    }

    /// Precision and recall are 99.99 % at least.
    fn check(self) {
        let Self { found, truly, right } = self;
        assert!(truly >= 10_000, "{self:?}");
        assert!((found - right) * 10_000 <= found, "precision: {self:?}");
        assert!((truly - right) * 10_000 <= truly, "recall: {self:?}");
    }
}

#[test]
fn each_copy_is_known_for_what_it_is() {
    let folder = Folder::new("union-copies");
    // Both make duplicates: the link on the way, and the mirrors.
    let way = Way { duplicate_ppm: 200_000, jitter_ns: MS, ..rough().a_to_b };
    let mirror = Mirror {
        duplicate_ppm: 200_000,
        loss_ppm: 10_000,
        snap_octets: Some(96),
        ..Mirror::default()
    };
    let impairments = Impairments::alike(way, mirror);
    let (captures, truth) = transfer(22_000_000, 4, impairments, folder.root()).expect("it runs");
    assert_eq!(truth.total().duplicates_without_identification, 0);
    let sightings = sightings(&folder, &captures, &truth);
    let duplicates =
        Score::of(&sightings, |seen| [seen.verdict == Verdict::Duplicate, seen.before[0] > 0]);
    let copies = Score::of(&sightings, |seen| {
        let is_copy = matches!(seen.verdict, Verdict::OtherTap { .. });
        [is_copy, seen.before[0] == 0 && seen.before[1] > 0]
    });
    duplicates.check();
    copies.check();
    // What is left is each packet's first copy.
    let first =
        Score::of(&sightings, |seen| [seen.verdict == Verdict::First, seen.before == [0, 0]]);
    assert_eq!(first.truly, truth.total().logical_packets);
    first.check();
    // The probe as a whole says the same.
    let taps = rows(&played(&folder, &captures, ""), "taps");
    for (tap, name) in Side::BOTH.into_iter().zip(["a", "b"]) {
        let of = |is_it: fn(&Verdict) -> bool| {
            let here = sightings.iter().filter(|seen| seen.tap == tap);
            here.filter(|seen| is_it(&seen.verdict)).count() as u64
        };
        let found = ["duplicate_packet_count", "copy_other_tap_packet_count"]
            .map(|column| sum(&taps, column, |row| row["tap"] == name));
        let duplicates = of(|verdict| *verdict == Verdict::Duplicate);
        let copies = of(|verdict| matches!(verdict, Verdict::OtherTap { .. }));
        assert_eq!(found, [duplicates, copies], "{name}");
    }
    let frames = sightings.iter().map(|seen| &truth.frames[seen.frame]);
    assert!(frames.clone().any(Frame::is_lost) && frames.clone().any(|frame| frame.reordered));
}

/// Datagrams, segments and acknowledgements with "don't fragment", no identification and no timestamp, as
/// many stacks send them. Each tenth is sent again a millisecond later, octet for octet. The answer is
/// which packet each frame is.
fn without_identification(file: &Path, count: u16) -> Vec<u16> {
    let mut out = PcapWriter::create(file, 1, true).expect("a file");
    let mut packets = Vec::new();
    for number in 0..count {
        let (client, server) = ([10, 8, 1, 1], [10, 8, 1, 2]);
        let (from, to) = if number % 3 == 2 { (server, client) } else { (client, server) };
        let ip = PacketBuilder::ethernet2([2, 0, 0, 0, 0, from[3]], [2, 0, 0, 0, 0, to[3]])
            .ipv4(from, to, 64);
        let mut frame = Vec::new();
        let sequence = u32::from(number) * 100;
        match number % 3 {
            0 => ip.udp(10_000 + number, 53).write(&mut frame, &[7; 20]),
            1 => ip.tcp(40_000, 80, sequence, 4_000).ack(9).write(&mut frame, &[7; 300]),
            _ => ip.tcp(80, 40_000, 9, 4_000).ack(sequence).write(&mut frame, &[]),
        }
        .expect("memory");
        assert_eq!((&frame[18..20], frame[20]), (&[0, 0][..], 0x40), "no identification");
        let octets = u32::try_from(frame.len()).expect("small");
        let times: u64 = if number % 10 == 9 { 2 } else { 1 };
        for time in 0..times {
            let at_ns = START_NS + u64::from(number) * 10 * MS + time * MS;
            out.write(Timestamp(at_ns), octets, &frame).expect("it is written");
            packets.push(number);
        }
    }
    out.finish().expect("it is written");
    packets
}

#[test]
fn what_cannot_be_told_apart_counts_and_is_said_to() {
    let folder = Folder::new("union-ambiguous");
    let sent = folder.path("sent.pcap");
    let packets = without_identification(&sent, 6_000);
    let way = Way {
        delay_ns: MS,
        jitter_ns: MS / 4,
        loss_ppm: 20_000,
        duplicate_ppm: 50_000,
        duplicate_ns: MS / 5,
        ..Way::default()
    };
    let mirror = Mirror { loss_ppm: 20_000, duplicate_ppm: 50_000, ..Mirror::default() };
    let out = folder.path("link");
    std::fs::create_dir_all(&out).expect("a folder");
    let (captures, truth) =
        impair_capture(&sent, 6, Impairments::alike(way, mirror), &out).expect("it runs");
    // Frames enter in the order of the capture.
    let mut shown = vec![[0_u64; 2]; 6_000];
    for (frame, packet) in truth.frames.iter().zip(&packets) {
        let of_packet = &mut shown[usize::from(*packet)];
        of_packet[frame.direction.entry().place()] += u64::from(frame.shown.entry);
        of_packet[frame.direction.exit().place()] += u64::from(frame.shown.exit);
    }
    let most = |[a, b]: &[u64; 2]| *a.max(b);
    let counted: u64 = shown.iter().map(most).sum();
    let all: u64 = shown.iter().flatten().sum();
    let distinct = shown.iter().filter(|shown| most(shown) > 0).count() as u64;
    let total = truth.total();
    assert!(total.duplicates_without_identification > 800 && counted > distinct + 800, "{total:?}");

    let records = played(&folder, &captures, "");
    let taps = rows(&records, "taps");
    let of_taps = |column: &str| sum(&taps, column, |_| true);
    // Nothing is called a duplicate that could be a packet of its own, and all that is counted for a
    // packet seen before is said to be uncertain.
    assert_eq!(of_taps("duplicate_packet_count"), 0);
    assert_eq!(of_taps("copy_ambiguous_packet_count"), counted - distinct);
    assert_eq!(of_taps("copy_other_tap_packet_count"), all - counted);
    let windows = rows(&records, "windows");
    let of_windows = |column: &str| {
        [column.to_owned(), format!("reverse_{column}")]
            .iter()
            .map(|column| windows.iter().map(|row| number(row, column)).sum::<u64>())
            .sum::<u64>()
    };
    assert_eq!(of_windows("packet_delta_count"), counted);
    // No more than these can be wrong, in whatever is counted.
    assert!(of_windows("retransmission_packet_count") <= counted - distinct);
}
