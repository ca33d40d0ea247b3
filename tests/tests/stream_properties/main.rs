//! Segmentation, merging, reordering and duplication of byte streams change no octet count and no
//! loss count.

mod talk;

use std::path::PathBuf;

use proptest::prelude::*;
use vmprobe::capture::file::PcapWriter;
use vmprobe::time::Timestamp;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::records::{Row, number, rows, sorted, sum};
use vmprobe_tests::replaying::records_of;

use talk::{Counted, HALF_TRIP_NS, Shape, Shown, Talk, counted, shown};

/// What a replay wrote.
struct Records {
    flows: Vec<Row>,
    windows: Vec<Row>,
    taps: Vec<Row>,
}

fn port_of(place: usize) -> u16 {
    40_000 + u16::try_from(place).expect("few talks")
}

/// Writes frames in the order of their times.
fn capture(folder: &Folder, talks: &[Vec<Shown>]) -> PathBuf {
    let path = folder.path("mirror.pcap");
    let mut out = PcapWriter::create(&path, 1, true).expect("a file");
    let mut frames: Vec<_> = talks.iter().flatten().collect();
    frames.sort_by_key(|frame| frame.at_ns);
    for frame in frames {
        let octets = u32::try_from(frame.octets.len()).expect("small");
        out.write(Timestamp(frame.at_ns), octets, &frame.octets).expect("it is written");
    }
    out.finish().expect("it is written");
    path
}

fn replayed(talks: &[Vec<Shown>], workers: u16) -> Records {
    let folder = Folder::new("stream-properties");
    let files = [capture(&folder, talks)];
    let records = records_of(&files, workers, &folder);
    let [flows, windows, taps] = ["flows", "windows", "taps"].map(|table| rows(&records, table));
    Records { flows, windows, taps }
}

/// Columns of what must not be counted where nothing was lost or sent again, of both directions.
fn is_trouble(column: &str) -> bool {
    let of = ["_loss_packet_count", "_loss_octet_count", "retransmission_", "keep_alive_"];
    let whole = ["window_probe_count", "reset_count"];
    let plain = column.strip_prefix("reverse_").unwrap_or(column);
    of.iter().any(|part| plain.contains(part)) || whole.contains(&plain)
}

/// A column of both directions.
fn both(row: &Row, column: &str) -> [u64; 2] {
    [number(row, column), number(row, &format!("reverse_{column}"))]
}

/// Sums of a column over all rows.
fn sums(rows: &[Row], column: &str) -> [u64; 2] {
    [column.to_owned(), format!("reverse_{column}")].map(|column| sum(rows, &column, |_| true))
}

fn check_flow(flow: &Row, talk: &Talk, counted: [Counted; 2]) {
    let packets = counted.map(|counted| counted.packets);
    assert_eq!(both(flow, "packet_delta_count"), packets, "logical packets");
    let headers = packets.map(|packets| packets * talk.header_octets());
    let octets = both(flow, "octet_delta_count");
    let payload = [0, 1].map(|side| octets[side] - headers[side]);
    assert_eq!(payload, talk.octets(), "octets without headers are the stream's");
    // 14 octets of Ethernet before IP; nobody counts padding.
    let layer2 = [0, 1].map(|side| octets[side] + 14 * packets[side]);
    assert_eq!(both(flow, "layer2_octet_delta_count"), layer2);
    let duplicates = counted.map(|counted| counted.duplicates);
    assert_eq!(both(flow, "duplicate_packet_count"), duplicates);
    assert_eq!(both(flow, "gap_count"), counted.map(|counted| counted.gaps), "{flow:?}");
    let out_of_order = counted.map(|counted| counted.out_of_order);
    assert_eq!(both(flow, "out_of_order_packet_count"), out_of_order, "{flow:?}");
    for column in ["handshake_server_rtt_ns", "handshake_client_rtt_ns"] {
        assert_eq!(number(flow, column), HALF_TRIP_NS, "{column}");
    }
}

/// Everything that is recorded of some talks, shown so.
fn check(talks: &[Talk], shape: Shape) {
    let shown: Vec<_> =
        talks.iter().zip(0..).map(|(talk, place)| shown(talk, port_of(place), shape)).collect();
    let one = replayed(&shown, 1);
    assert_eq!(one.flows.len(), talks.len(), "a flow a talk");
    let mut all = [Counted::default(); 2];
    for (place, (talk, shown)) in talks.iter().zip(&shown).enumerate() {
        let counted = counted(shown);
        assert_eq!(counted.map(|counted| counted.payload_octets), talk.octets());
        let port = u64::from(port_of(place));
        let flow = one.flows.iter().find(|flow| number(flow, "source_port") == port);
        check_flow(flow.expect("its flow"), talk, counted);
        for (all, counted) in all.iter_mut().zip(counted) {
            all.packets += counted.packets;
            all.duplicates += counted.duplicates;
            all.out_of_order += counted.out_of_order;
            all.gaps += counted.gaps;
        }
    }
    for row in one.flows.iter().chain(&one.windows) {
        let troubles: Vec<_> = row.iter().filter(|(column, _)| is_trouble(column)).collect();
        assert!(troubles.len() >= 20, "{troubles:?}");
        for (column, value) in troubles {
            assert_eq!(value.as_u64(), Some(0), "{column} of {row:?}");
        }
    }
    for column in ["packet_delta_count", "octet_delta_count", "layer2_octet_delta_count"] {
        assert_eq!(sums(&one.windows, column), sums(&one.flows, column), "{column}");
    }
    let windows = |column| sums(&one.windows, column);
    assert_eq!(windows("packet_delta_count"), all.map(|all| all.packets));
    assert_eq!(windows("out_of_order_packet_count"), all.map(|all| all.out_of_order));
    assert_eq!(windows("gap_count"), all.map(|all| all.gaps));
    let duplicates: u64 = all.iter().map(|all| all.duplicates).sum();
    assert_eq!(sum(&one.taps, "duplicate_packet_count", |_| true), duplicates);

    let three = replayed(&shown, 3);
    for (one, three) in
        [(&one.flows, &three.flows), (&one.windows, &three.windows), (&one.taps, &three.taps)]
    {
        assert_eq!(sorted(one, &[]), sorted(three, &[]), "one worker and three");
    }
}

fn talks() -> impl Strategy<Value = Talk> {
    // Numbers that wrap within the talk are as likely as others.
    let first = || prop_oneof![any::<u32>(), (1_u32..20_000).prop_map(|left| u32::MAX - left)];
    let round = (0_u32..8_000, 0_u32..60_000).prop_map(|(request, response)| [request, response]);
    let rounds = prop::collection::vec(round, 1..5);
    (first(), first(), rounds, any::<bool>(), any::<bool>()).prop_map(
        |(mine, theirs, rounds, is_stamped, ends_with_octets)| Talk {
            first: [mine, theirs],
            rounds,
            is_stamped,
            ends_with_octets,
        },
    )
}

fn shapes() -> impl Strategy<Value = Shape> {
    (any::<u64>(), 200_u32..=1_448, 1_u32..=44, 0_u32..=4, 0_u32..=50).prop_map(
        |(seed, segment_octets_max, merged_max, late_max, twice_percent)| Shape {
            seed,
            segment_octets_max,
            merged_max,
            late_max,
            twice_percent,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn how_a_stream_is_shown_changes_no_octets_and_no_losses(
        talks in prop::collection::vec(talks(), 1..4),
        shape in shapes(),
    ) {
        check(&talks, shape);
    }
}

fn one_talk() -> Talk {
    Talk {
        first: [u32::MAX - 5_000, 7],
        rounds: vec![[9_000, 60_000], [0, 40_000], [3_000, 1]],
        is_stamped: false,
        ends_with_octets: false,
    }
}

#[test]
fn each_way_of_showing_a_stream_by_itself() {
    let plain = Shape { seed: 9, ..Shape::PLAIN };
    let shapes = [
        plain,
        Shape { segment_octets_max: 100, ..plain },
        Shape { merged_max: 44, ..plain },
        Shape { late_max: 4, ..plain },
        Shape { twice_percent: 100, ..plain },
    ];
    for shape in shapes {
        check(&[one_talk()], shape);
    }
    // None of them does nothing.
    let [plain, cut, merged, late, twice] =
        shapes.map(|shape| counted(&shown(&one_talk(), 40_000, shape))[1]);
    assert!(cut.packets > 5 * plain.packets && merged.packets < plain.packets / 2);
    assert!(late.out_of_order > 2 && late.gaps > 2, "{late:?}");
    assert_eq!((plain.out_of_order, plain.gaps, plain.duplicates), (0, 0, 0));
    assert_eq!(twice.duplicates, twice.packets);
}

/// What is asserted to be nothing elsewhere is something where it should be.
#[test]
fn what_is_missing_or_sent_again_is_counted() {
    let frames = shown(&one_talk(), 40_000, Shape { seed: 9, ..Shape::PLAIN });
    let full = |frame: &Shown| frame.side == 1 && frame.payload_octets > 500;
    let place = frames.iter().position(full).expect("a response") + 1;
    let gone = &frames[place];
    assert!(gone.side == 1 && gone.payload_octets > 0, "within the response");

    let mut without = frames.clone();
    without.remove(place);
    let flow = &replayed(&[without], 1).flows[0];
    let lost = u64::from(gone.payload_octets);
    assert_eq!(both(flow, "mirror_loss_octet_count"), [0, lost], "acknowledged, not shown");

    // The same again with another identification, after a round trip: a packet of its own.
    let mut again = gone.clone();
    again.octets[18..20].copy_from_slice(&60_000_u16.to_be_bytes());
    again.at_ns += 4 * HALF_TRIP_NS;
    let flow = &replayed(&[frames, vec![again]], 1).flows[0];
    assert_eq!(both(flow, "retransmission_packet_count"), [0, 1]);
    let payload = both(flow, "octet_delta_count")[1] - 40 * both(flow, "packet_delta_count")[1];
    assert_eq!(payload, one_talk().octets()[1] + lost, "octets that were sent twice count twice");
}
