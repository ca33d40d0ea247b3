//! What two taps and more show of the same packets: duplicates, rewritten segments, ways over several
//! taps, and how healthy each tap is, against the log of a link.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use etherparse::PacketBuilder;
use vmprobe::capture::file::PcapWriter;
use vmprobe::time::Timestamp;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::link::transfer::{RECEIVER, SENDER, START_NS, transfer};
use vmprobe_tests::link::{
    Frame, Impairments, Mirror, Side, Truth, Way, impair_capture, parse, relay,
};
use vmprobe_tests::paths::{Seen, is_of, is_way, played, played_in_order, seen};
use vmprobe_tests::records::{Row, rows, sum};

const MS: u64 = 1_000_000;

/// Runs a capture over a link, with its files in a folder of their own.
fn over(folder: &Folder, name: &str, capture: &Path, way: Way) -> ([PathBuf; 2], Truth) {
    let out = folder.path(name);
    std::fs::create_dir_all(&out).expect("a folder");
    let impairments = Impairments::alike(way, Mirror::default());
    impair_capture(capture, 8, impairments, &out).expect("it runs")
}

/// |D − truth| ≤ 1 µs.
fn check_mean(seen: &Seen, sum_ns: u64, count: u64) {
    let truly = sum_ns.cast_signed() / count.cast_signed();
    let mean = seen.sum_ns / seen.delays.cast_signed();
    assert!((mean - truly).abs() <= 1_000, "{seen:?} {truly}");
}

/// Further sightings of a frame at the same tap.
fn duplicates_at(frame: &Frame, tap: Side) -> u64 {
    let is_entry = frame.direction.entry() == tap;
    u64::from(if is_entry { frame.shown.entry } else { frame.shown.exit }.saturating_sub(1))
}

/// Found and truth, cell by cell: what is too many in one is a false duplicate, what is missing
/// in one was not found.
fn check_cells(cells: impl Iterator<Item = (u64, u64)>) {
    let (mut found, mut truly, mut wrong, mut missing) = (0, 0, 0, 0);
    for (seen, logged) in cells {
        found += seen;
        truly += logged;
        wrong += seen.saturating_sub(logged);
        missing += logged.saturating_sub(seen);
    }
    assert!(truly >= 10_000, "{truly}");
    // Precision and recall.
    assert!(
        wrong * 10_000 <= found && missing * 10_000 <= truly,
        "{wrong} {missing} {found} {truly}"
    );
}

#[test]
fn duplicates_are_those_of_the_log() {
    let folder = Folder::new("path-duplicates");
    // Both make them: the link on the way, and the mirrors.
    let way = Way {
        delay_ns: MS,
        jitter_ns: MS / 2,
        loss_ppm: 5_000,
        duplicate_ppm: 60_000,
        duplicate_ns: MS / 5,
        ..Way::default()
    };
    let mirror = Mirror { duplicate_ppm: 60_000, loss_ppm: 5_000, ..Mirror::default() };
    let impairments = Impairments::alike(way, mirror);
    let (captures, truth) = transfer(120_000_000, 4, impairments, folder.root()).expect("it runs");
    assert_eq!(truth.total().duplicates_without_identification, 0);
    let records = played(&folder, &captures, "");
    let taps = rows(&records, "taps");
    let of_tap = |tap: Side, name: &str| {
        let logged = truth.frames.iter().map(|frame| duplicates_at(frame, tap)).sum();
        (sum(&taps, "duplicate_packet_count", |row| row["tap"] == name), logged)
    };
    let flows = rows(&records, "flows");
    let of_way = |source: IpAddr, column: &str| {
        let frames = truth.frames.iter().filter(|frame| frame.source == Some(source));
        let logged =
            frames.map(|frame| duplicates_at(frame, Side::A) + duplicates_at(frame, Side::B));
        (sum(&flows, column, |_| true), logged.sum())
    };
    check_cells([of_tap(Side::A, "a"), of_tap(Side::B, "b")].into_iter());
    let ways = [
        of_way(SENDER, "duplicate_packet_count"),
        of_way(RECEIVER, "reverse_duplicate_packet_count"),
    ];
    check_cells(ways.into_iter());
}

/// A frame with a VLAN tag.
fn in_vlan(frame: &[u8], vlan: u16) -> Vec<u8> {
    let [high, low] = vlan.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}

/// A frame in a VXLAN tunnel.
fn in_vxlan(frame: &[u8], vni: u32) -> Vec<u8> {
    let inner = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat();
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([172, 16, 0, 1], [172, 16, 0, 2], 64)
        .udp(40_000, 4_789)
        .write(&mut out, &inner)
        .expect("it fits");
    out
}

/// What both directions of a transfer show where each side has a segment of its own, and hops rewrite one
/// into the other.
fn rewritten(name: &str, segments: [u32; 2], wrap: impl Fn(&[u8], u32) -> Vec<u8>, ways: [Way; 2]) {
    let folder = Folder::new(name);
    let plain = folder.path("plain");
    std::fs::create_dir_all(&plain).expect("a folder");
    let (captures, _) = transfer(2_000_000, 6, Impairments::default(), &plain).expect("it runs");
    let tagged = folder.path("tagged.pcap");
    relay(&captures[..1], &tagged, |frame| {
        let source = parse(frame)?.source;
        Some(wrap(frame, segments[usize::from(source == RECEIVER)]))
    })
    .expect("it is written");
    let [a_to_b, b_to_a] = ways;
    let impairments = Impairments { a_to_b, b_to_a, ..Impairments::default() };
    let out = folder.path("link");
    std::fs::create_dir_all(&out).expect("a folder");
    let (captures, truth) = impair_capture(&tagged, 3, impairments, &out).expect("it runs");
    let kind = if name.ends_with("vlan") { "vlan" } else { "vxlan" };
    let space = format!(
        "[[space]]\nname = \"tenant\"\nsegments = [\"default/{kind}/{}\", \"default/{kind}/{}\"]\n",
        segments[0], segments[1]
    );
    let records = played(&folder, &captures, &space);
    let path = rows(&records, "path");
    for (source, destination) in [(SENDER, RECEIVER), (RECEIVER, SENDER)] {
        let seen = seen(&path, |row| is_of(row, source, destination));
        let sums = truth.pair(source, destination);
        assert_eq!((seen.sampled, seen.matched), (sums.frames, sums.passed), "{seen:?} {sums:?}");
        assert_eq!(seen.first_missed, 0, "{seen:?}");
        // Nobody answers to this link: the receiver acknowledges what it lost.
        assert_eq!(seen.network + seen.mirror + seen.unresolved, sums.lost, "{seen:?} {sums:?}");
        check_mean(&seen, sums.delay.sum_ns, sums.delay.count);
    }
    let is_joined = |row: &Row| row["scope"] == "taps" || row["address_space"] == "tenant";
    assert!(!path.is_empty() && path.iter().all(is_joined));
    let total = truth.total();
    assert_eq!(sum(&path, "segment_stripped_packet_count", |_| true), 0);
    let counted = sum(&rows(&records, "windows"), "packet_delta_count", |_| true)
        + sum(&rows(&records, "windows"), "reverse_packet_delta_count", |_| true);
    assert_eq!(counted, total.logical_packets);
}

fn lossy() -> Way {
    Way { delay_ns: 2 * MS, jitter_ns: MS, loss_ppm: 10_000, ..Way::default() }
}

#[test]
fn a_vlan_that_changes_between_taps_is_one_way() {
    let ways = [Some(43), Some(42)].map(|vlan| Way { vlan, ttl_decrement: 1, ..lossy() });
    let wrap = |frame: &[u8], vlan| in_vlan(frame, u16::try_from(vlan).expect("small"));
    rewritten("path-vlan", [42, 43], wrap, ways);
}

#[test]
fn a_vni_that_changes_between_taps_is_one_way() {
    let ways = [Some(5_002), Some(5_001)].map(|vni| Way { vni, ..lossy() });
    rewritten("path-vni", [5_001, 5_002], in_vxlan, ways);
}

/// Datagrams of one host to the other, one every 100 µs.
fn datagrams(file: &Path, source: [u8; 4], destination: [u8; 4], count: u32) {
    let mut out = PcapWriter::create(file, 1, true).expect("a file");
    for number in 0..count {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, source[3]], [2, 0, 0, 0, 0, destination[3]])
            .ipv4(source, destination, 64)
            .udp(7_000, 7_001)
            .write(&mut frame, &number.to_be_bytes().repeat(10))
            .expect("it fits");
        let at_ns = START_NS + u64::from(number) * (MS / 10);
        out.write(Timestamp(at_ns), u32::try_from(frame.len()).expect("small"), &frame)
            .expect("it is written");
    }
    out.finish().expect("it is written");
}

/// Mean time from the first tap to the last, of what passed both links.
fn whole_way(first: &Truth, second: &Truth) -> (u64, u64) {
    let mut entries = second.frames.iter();
    let passed = first.frames.iter().filter(|frame| !frame.is_lost());
    let both = passed.filter_map(|frame| {
        let further = entries.next().expect("it entered the second link");
        Some(further.left_ns? - frame.entered_ns)
    });
    both.fold((0, 0), |(sum, count), ns| (sum + ns, count + 1))
}

#[test]
fn three_taps_in_a_row_pair_by_pair() {
    let folder = Folder::new("path-three");
    let (near, far) = ([10, 9, 0, 1], [10, 9, 0, 2]);
    let names = ["tap-a", "tap-b", "tap-c"];
    let mut shown: [Vec<PathBuf>; 3] = Default::default();
    let mut truths = Vec::new();
    for (name, source, destination, places) in
        [("up", near, far, [0, 1, 2]), ("down", far, near, [2, 1, 0])]
    {
        let sent = folder.path(&format!("{name}.pcap"));
        datagrams(&sent, source, destination, 20_000);
        let slow = Way { delay_ns: 3 * MS, ..lossy() };
        let ([first, second], one) = over(&folder, &format!("{name}-1"), &sent, lossy());
        let ([_, third], two) = over(&folder, &format!("{name}-2"), &second, slow);
        for (place, capture) in places.into_iter().zip([first, second, third]) {
            shown[place].push(capture);
        }
        truths.push((source, destination, places, one, two));
    }
    let captures: Vec<_> = names
        .iter()
        .zip(&shown)
        .map(|(name, parts)| {
            let file = folder.path(&format!("{name}.pcap"));
            relay(parts, &file, |frame| Some(frame.to_vec())).expect("it is written");
            file
        })
        .collect();
    let path = rows(&played(&folder, &captures, ""), "path");
    for (source, destination, places, one, two) in &truths {
        let [first, second, third] = places.map(|place: usize| &names[place][4..]);
        let (one_sums, two_sums) = (one.total(), two.total());
        assert!(one_sums.lost > 100 && two_sums.lost > 100, "{one_sums:?} {two_sums:?}");
        assert_eq!(two_sums.frames, one_sums.passed);
        let whole = whole_way(one, two);
        for (from, to, sampled, lost, (sum_ns, count)) in [
            (
                first,
                second,
                one_sums.frames,
                one_sums.lost,
                (one_sums.delay.sum_ns, one_sums.passed),
            ),
            (
                second,
                third,
                two_sums.frames,
                two_sums.lost,
                (two_sums.delay.sum_ns, two_sums.passed),
            ),
            (first, third, one_sums.frames, one_sums.lost + two_sums.lost, whole),
        ] {
            let [source, destination] = [source, destination].map(|octets| IpAddr::from(*octets));
            let is_it =
                |row: &Row| is_of(row, source, destination) && is_way(row, "endpoints", from, to);
            let seen = seen(&path, is_it);
            assert_eq!(
                (seen.sampled, seen.matched),
                (sampled, sampled - lost),
                "{from}{to} {seen:?}"
            );
            // Nobody says of a datagram where it was lost.
            assert_eq!(
                (seen.unresolved, seen.network + seen.mirror),
                (lost, 0),
                "{from}{to} {seen:?}"
            );
            assert_eq!(seen.delays, count);
            check_mean(&seen, sum_ns, count);
        }
    }
    // And no other way.
    let way = |row: &Row| format!("{}{}", row["from_tap"], row["to_tap"]);
    let mut ways: Vec<_> = path.iter().map(way).collect();
    ways.sort_unstable();
    ways.dedup();
    assert_eq!(ways.len(), 6, "{ways:?}");
}

/// Which tap counts: the one that saw the packet first, whatever the order in which copies come to be
/// looked at; and of those that saw it at the same time the one that is configured first.
#[test]
fn the_tap_nearest_to_the_sender_counts_else_the_first_configured() {
    for (delay_ns, reverse_tap) in [(MS, "b"), (0, "a")] {
        let folder = Folder::new("path-nearest");
        let way = Way { delay_ns, ..Way::default() };
        let impairments = Impairments::alike(way, Mirror::default());
        let (captures, truth) = transfer(200_000, 3, impairments, folder.root()).expect("it runs");
        assert!(truth.total().copies > 100);
        let [a, b] = captures.clone();
        let records = played_in_order(&folder, &captures, &[b, a], "");
        for (table, column, tap) in
            [("windows", "tap", "a"), ("flows", "tap", "a"), ("flows", "reverse_tap", reverse_tap)]
        {
            let rows = rows(&records, table);
            assert!(!rows.is_empty() && rows.iter().all(|row| row[column] == tap), "{rows:?}");
        }
    }
}
