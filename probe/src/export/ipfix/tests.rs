//! Messages read back by a reader of a few lines, which knows the formats of RFC 7011 §3 only.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::export::sink::{Encoder as _, TableRows};
use crate::record::{
    FlowRecord, Group, Origin, Rows, SegmentCounts, Table, TapRecord, WindowRecord,
};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);
const OWN: u32 = 32_473;
const REVERSE: u16 = 0x4000;

/// A record: element (enterprise, number) to octets.
type Record = BTreeMap<(u32, u16), Vec<u8>>;

/// How many fields are scope, and of each its enterprise, number and length.
type Template = (u16, Vec<(u32, u16, u16)>);

/// What a collector keeps of a session.
#[derive(Default)]
struct Reader {
    templates: BTreeMap<u16, Template>,
    /// Data records seen.
    sequence: u32,
    /// Template records seen.
    template_count: usize,
    flows: Vec<Record>,
    options: Vec<Record>,
}

fn take<'a>(from: &mut &'a [u8], octets: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at(octets);
    *from = rest;
    taken
}

fn number(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

fn short(from: &mut &[u8]) -> u16 {
    u16::try_from(number(take(from, 2))).expect("two octets")
}

impl Reader {
    fn read(&mut self, mut message: &[u8]) {
        let length = message.len();
        let mut header = take(&mut message, 16);
        assert_eq!(short(&mut header), 10);
        assert_eq!(usize::from(short(&mut header)), length);
        assert_eq!(number(take(&mut header, 4)), NOW.as_ns() / 1_000_000_000);
        assert_eq!(number(take(&mut header, 4)), u64::from(self.sequence));
        assert!(number(header) > 0);
        while !message.is_empty() {
            let (set, length) = (short(&mut message), short(&mut message));
            let mut records = take(&mut message, usize::from(length) - 4);
            while !records.is_empty() {
                match set {
                    2 | 3 => self.template(&mut records, set == 3),
                    id => self.record(id, &mut records),
                }
            }
        }
    }

    fn template(&mut self, from: &mut &[u8], options: bool) {
        let (id, count) = (short(from), short(from));
        let scope = if options { short(from) } else { 0 };
        let mut fields = Vec::new();
        for _ in 0..count {
            let (element, length) = (short(from), short(from));
            let enterprise = if element & 0x8000 == 0 { 0 } else { number(take(from, 4)) };
            let enterprise = u32::try_from(enterprise).expect("four octets");
            fields.push((enterprise, element & 0x7fff, length));
        }
        let before = self.templates.insert(id, (scope, fields.clone()));
        assert!(before.is_none_or(|before| before == (scope, fields)), "{id} means two things");
        self.template_count += 1;
    }

    fn record(&mut self, id: u16, from: &mut &[u8]) {
        let (scope, fields) = &self.templates[&id];
        let mut record = Record::new();
        for (enterprise, element, length) in fields {
            let length = match length {
                0xffff => match number(take(from, 1)) {
                    255 => usize::from(short(from)),
                    short => usize::try_from(short).expect("an octet"),
                },
                fixed => usize::from(*fixed),
            };
            let twice = record.insert((*enterprise, *element), take(from, length).to_vec());
            assert_eq!(twice, None, "{enterprise}/{element}");
        }
        self.sequence += 1;
        if *scope == 0 { &mut self.flows } else { &mut self.options }.push(record);
    }
}

fn plan(url: &str) -> IpfixPlan {
    let mut plan = IpfixPlan::new(url.parse().expect("a URL"));
    plan.observation_domain_id = Some(7);
    plan
}

fn batch(plan: &IpfixPlan, rows: &Rows, table: Table) -> Vec<u8> {
    let (parts, _) = TableRows::of(rows, &Origin::new("p", "d"), Timestamp::ZERO, |it| it == table);
    let mut encoder = Records::new(plan, "p");
    let mut out = Vec::new();
    encoder.begin(table, &mut out);
    for row in parts.iter().flat_map(TableRows::rows) {
        encoder.row(row, &mut out);
    }
    out
}

fn flow(id: u64) -> FlowRecord {
    FlowRecord {
        flow_id: id,
        source_address: "10.0.0.1".parse().expect("an address"),
        destination_address: "10.0.0.2".parse().expect("an address"),
        segment: "default/vlan/7".into(),
        tap: "t".into(),
        flow_start_ns: NOW.as_ns() + 1,
        flow_end_ns: NOW.as_ns() + 999_999_999,
        tcp_control_bits: 2,
        reverse_tcp_control_bits: 0x12,
        packet_delta_count: 3,
        reverse_packet_delta_count: 4,
        sampling_rate: 1.0,
        ..FlowRecord::default()
    }
}

fn flows(ids: std::ops::Range<u64>) -> Rows {
    Rows { flows: ids.map(flow).collect(), ..Rows::default() }
}

fn messages(session: &mut Session, batch: &[u8], now_ns: u64) -> Vec<Vec<u8>> {
    session.messages(batch, NOW, now_ns, &Sent::default()).expect("a batch")
}

#[test]
fn a_biflow_has_both_directions_and_times_to_the_nanosecond() {
    let plan = plan("tcp://127.0.0.1:4739");
    let mut session = Session::new(&plan, 7);
    let mut reader = Reader::default();
    for message in messages(&mut session, &batch(&plan, &flows(1..2), Table::Flows), 0) {
        reader.read(&message);
    }
    let [record] = &reader.flows[..] else { panic!("{} flows", reader.flows.len()) };
    let of = |enterprise, element| number(&record[&(enterprise, element)]);
    assert_eq!((of(0, 2), of(29_305, 2)), (3, 4));
    assert_eq!((of(0, 6), of(29_305, 6), of(0, 239)), (2, 0x12, 1));
    assert_eq!((of(0, 8), of(0, 12), of(0, 148)), (0x0a00_0001, 0x0a00_0002, 1));
    let ns = |element| {
        let ntp = of(0, element);
        ((ntp >> 32) - 2_208_988_800) * 1_000_000_000
            + (((ntp & 0xffff_ffff) * 1_000_000_000) >> 32)
    };
    assert_eq!((ns(156), ns(157)), (NOW.as_ns() + 1, NOW.as_ns() + 999_999_999));
    assert_eq!((of(0, 152), of(0, 153)), (1_700_000_000_000, 1_700_000_000_999));
    // segment is own element 1001. What is null, as its reverse, is not there.
    assert_eq!(record[&(OWN, 1_001)], b"default/vlan/7");
    for null in [(OWN, REVERSE + 1_001), (0, 56), (OWN, 1_006), (0, 349)] {
        assert!(!record.contains_key(&null), "{null:?}");
    }
    // The exporter, its elements, and the sampling before the flow.
    let sampling = reader.options.last().expect("options");
    assert_eq!(sampling[&(0, 311)], 1_f64.to_be_bytes());
    assert_eq!((number(&sampling[&(0, 149)]), number(&sampling[&(0, 390)])), (7, 4));
    let told: Vec<_> = reader.options.iter().filter(|it| it.contains_key(&(0, 341))).collect();
    assert_eq!(told[0][&(0, 341)], b"vmprobeSegment");
    assert_eq!(number(&told[0][&(0, 346)]), u64::from(OWN));
    assert!(told.len() > 100);
}

#[test]
fn messages_are_no_longer_than_allowed_and_say_what_records_mean_first() {
    let mut plan = plan("udp://127.0.0.1:4739");
    plan.message_octets_max = 1_280;
    let long = "é".repeat(40_000);
    let mut rows = flows(0..500);
    for (place, row) in rows.flows.iter_mut().enumerate() {
        if place % 2 == 0 {
            row.segment = long.as_str().into();
            row.address_space = long.as_str().into();
        }
        if place == 7 {
            row.reverse_tcp_control_bits = 0x112;
        }
        if place % 3 == 0 {
            row.source_address = "2001:db8::1".parse().expect("an address");
            row.segments = Group::Own(Arc::new(SegmentCounts([[1, 2]; 15])));
        }
    }
    let mut session = Session::new(&plan, 7);
    let mut reader = Reader::default();
    let made = messages(&mut session, &batch(&plan, &rows, Table::Flows), 0);
    for message in &made {
        assert!(message.len() <= 1_280, "{}", message.len());
        reader.read(message);
    }
    assert_eq!(reader.flows.len(), 500);
    let ids = reader.flows.iter().map(|it| number(&it[&(0, 148)]));
    assert!(ids.eq(0..500));
    // Flags take an octet unless they need two.
    let flags = |place: usize| number(&reader.flows[place][&(29_305, 6)]);
    assert_eq!((flags(7), reader.flows[7][&(29_305, 6)].len()), (0x112, 2));
    assert_eq!((flags(8), reader.flows[8][&(29_305, 6)].len()), (0x12, 1));
    let segment =
        String::from_utf8(reader.flows[0][&(OWN, 1_001)].clone()).expect("whole characters");
    assert!(segment.len() >= 62 && long.starts_with(&segment), "{}", segment.len());
    assert_eq!(reader.flows[3][&(OWN, REVERSE + 1_016)], 2_u64.to_be_bytes());
}

#[test]
fn the_widest_record_of_each_table_fits_the_shortest_message() {
    let mut plan = plan("udp://127.0.0.1:4739");
    plan.message_octets_max = 1_280;
    for table in elements::TABLES {
        let fields = elements::fields(table);
        assert!(fields.len() <= 256, "a presence has 256 bits");
        let specifiers: usize = fields
            .iter()
            .map(|it| if it.authority == elements::Authority::Iana { 4 } else { 8 })
            .sum();
        let values: usize = fields
            .iter()
            .map(|it| match it.form {
                elements::Form::Address(_) => 16,
                elements::Form::Uuid => 17,
                elements::Form::Flags => 2,
                form => usize::from(form.octets().unwrap_or(1)),
            })
            .sum();
        let head = message::HEADER_OCTETS + message::SET_HEADER_OCTETS;
        assert!(head + 6 + specifiers <= 1_280, "{table:?}: a template has {specifiers} octets");
        assert!(head + values <= 1_280, "{table:?}: a record has {values} octets");
    }
}

#[test]
fn templates_come_again_by_udp_when_they_are_old_and_never_by_tcp() {
    let mut plan = plan("udp://127.0.0.1:4739");
    (plan.template_refresh_s, plan.template_refresh_messages) = (60, 20);
    for udp in [true, false] {
        if !udp {
            plan.url = "tcp://127.0.0.1:4739".parse().expect("a URL");
        }
        let mut session = Session::new(&plan, 7);
        let mut reader = Reader::default();
        let mut told = Vec::new();
        for (now_s, ids) in [(0, 0..1), (59, 1..2), (60, 2..3), (61, 3..4), (62, 4..200)] {
            let before = reader.template_count;
            let batch = batch(&plan, &flows(ids), Table::Flows);
            for message in messages(&mut session, &batch, now_s * 1_000_000_000) {
                reader.read(&message);
            }
            told.push(reader.template_count - before);
        }
        // Statistics, types, sampling, flows; the last batch has more than 20 messages.
        if udp {
            assert_eq!(told[..4], [4, 0, 4, 0]);
            assert!(told[4] >= 1, "{told:?}");
        } else {
            assert_eq!(told, [4, 0, 0, 0, 0]);
        }
        assert_eq!(reader.flows.len(), 200);
        // Another connection: all is told again, and counted anew.
        session.restart();
        let mut other = Reader::default();
        for message in messages(&mut session, &batch(&plan, &flows(0..1), Table::Flows), 0) {
            other.read(&message);
        }
        assert_eq!((other.template_count, other.flows.len()), (4, 1));
    }
}

#[test]
fn what_was_not_sent_counts_for_nothing() {
    let plan = plan("udp://127.0.0.1:4739");
    let mut session = Session::new(&plan, 7);
    let batch = batch(&plan, &flows(0..50), Table::Flows);
    let first = messages(&mut session, &batch, 0);
    assert!(first.len() > 3);
    let mut reader = Reader::default();
    first[..2].iter().for_each(|message| reader.read(message));
    session.unsent(&first[2]);
    // The reader checks that no number is missing, and that templates are there.
    for message in messages(&mut session, &batch, 1) {
        reader.read(&message);
    }
    assert!(reader.flows.len() >= 50);
}

#[test]
fn windows_and_taps_have_the_times_of_their_interval() {
    let plan = plan("sctp://127.0.0.1:4739");
    let rows = Rows {
        windows: vec![WindowRecord {
            window_start_ns: NOW.as_ns(),
            window_end_ns: NOW.as_ns() + 5_000_000_000,
            reverse_octet_delta_count: u64::MAX,
            sampling_rate: 0.25,
            ..WindowRecord::default()
        }],
        taps: vec![TapRecord {
            tap: "foobar".into(),
            host: Some("h1".into()),
            packet_count: 9,
            window_start_ns: NOW.as_ns(),
            ..TapRecord::default()
        }],
        ..Rows::default()
    };
    let mut session = Session::new(&plan, 7);
    let mut reader = Reader::default();
    for table in [Table::Windows, Table::Taps] {
        for message in messages(&mut session, &batch(&plan, &rows, table), 0) {
            reader.read(&message);
        }
    }
    let window = &reader.flows[0];
    assert_eq!(number(&window[&(0, 153)]), 1_700_000_005_000);
    assert_eq!(number(&window[&(29_305, 1)]), u64::MAX);
    assert_eq!(window[&(0, 311)], 0.25_f64.to_be_bytes());
    let tap = reader.options.last().expect("a tap");
    assert_eq!(number(&tap[&(0, 138)]), 0x8594_4171_f739_67e8);
    assert!(tap.values().any(|value| value == b"h1"));
    assert_eq!(number(&tap[&(0, 325)]) >> 32, 1_700_000_000 + 2_208_988_800);
}

#[test]
fn a_broken_batch_is_refused_and_leaves_nothing() {
    let plan = plan("udp://127.0.0.1:4739");
    let mut session = Session::new(&plan, 7);
    let good = batch(&plan, &flows(0..3), Table::Flows);
    for bad in [&good[..good.len() - 1], &good[1..], &[9, 0, 0, 0, 0, 0, 0][..]] {
        assert!(session.messages(bad, NOW, 0, &Sent::default()).is_err());
    }
    let mut reader = Reader::default();
    for message in messages(&mut session, &good, 0) {
        reader.read(&message);
    }
    assert_eq!(reader.flows.len(), 3);
}

/// Batches come back from the disk too; their checksum is looked at there, what they say is here.
#[test]
fn no_octet_of_a_batch_can_do_harm() {
    let plan = plan("udp://127.0.0.1:4739");
    let good = batch(&plan, &flows(0..2), Table::Flows);
    for place in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[place] ^= flip;
            let mut session = Session::new(&plan, 7);
            let made = session.messages(&bad, NOW, 0, &Sent::default());
            // Either nothing of it, or messages whose lengths are theirs.
            for message in made.unwrap_or_default() {
                assert_eq!(
                    usize::from(u16::from_be_bytes([message[2], message[3]])),
                    message.len()
                );
            }
        }
    }
}

/// What has come by now, and from which ports.
fn come(socket: &std::net::UdpSocket) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    let mut buffer = [0; 9_000];
    while let Ok((octets, from)) = socket.recv_from(&mut buffer) {
        found.push((from.port(), buffer[..octets].to_vec()));
    }
    found
}

/// Whether sets of templates stand in a message.
fn tells(message: &[u8]) -> bool {
    let mut rest = &message[16..];
    while let [a, b, c, d, ..] = *rest {
        if u16::from_be_bytes([a, b]) == 2 {
            return true;
        }
        rest = &rest[usize::from(u16::from_be_bytes([c, d]))..];
    }
    false
}

#[test]
fn by_udp_even_one_message_waits_while_nobody_listens() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("a port");
    let plan = plan(&format!("udp://{address}"));
    let one = |number| Batch {
        table: Table::Flows,
        records: 1,
        token: "t".to_owned(),
        bytes: batch(&plan, &flows(number..number + 1), Table::Flows),
    };
    let mut exporter = Exporter::new(&plan, 10_000, "p");
    assert!(exporter.deliver(&one(0)).is_ok());
    drop(socket);
    for attempt in 0..4 {
        assert!(exporter.deliver(&one(1)).is_err(), "attempt {attempt}");
    }
    let socket = std::net::UdpSocket::bind(address).expect("its port");
    socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("a socket");
    assert!(exporter.deliver(&one(1)).is_ok());
    assert!(come(&socket).iter().any(|(_, message)| tells(message)));
}

#[test]
fn by_udp_another_port_is_told_all_at_once_and_the_last_message_is_never_late() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).expect("a socket");
    let port = socket.local_addr().expect("a port").port();
    let plan = plan(&format!("udp://127.0.0.1:{port}"));
    let one = Batch {
        table: Table::Flows,
        records: 1,
        token: "t".to_owned(),
        bytes: batch(&plan, &flows(1..2), Table::Flows),
    };
    let mut exporter = Exporter::new(&plan, 10_000, "p");
    assert!(exporter.deliver(&one).is_ok());
    let first = come(&socket);
    assert!(first.iter().any(|(_, message)| tells(message)));
    // All is told, so it is one message; and it is sent, however long that took.
    exporter.timeout_ms = 0;
    assert_eq!(exporter.deliver(&one), Ok(Delivered::default()));
    let second = come(&socket);
    assert!(second.len() == 1 && !tells(&second[0].1) && second[0].0 == first[0].0);
    // The way is given up, for whatever reason.
    exporter.link = None;
    exporter.timeout_ms = 10_000;
    assert!(exporter.deliver(&one).is_ok());
    let third = come(&socket);
    assert!(third.iter().all(|(port, _)| *port != first[0].0), "another port");
    assert!(third.iter().any(|(_, message)| tells(message)), "templates come with it");
}
