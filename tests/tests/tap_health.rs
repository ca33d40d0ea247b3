//! What the table `taps`, and `path` where it takes two of them, say of the health of a tap.

use std::path::{Path, PathBuf};

use etherparse::PacketBuilder;
use vmprobe::capture::file::PcapWriter;
use vmprobe::time::Timestamp;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::link::transfer::{SENDER, transfer};
use vmprobe_tests::link::{Impairments, Mirror, Side, Truth, Way, parse, relay};
use vmprobe_tests::paths::{is_way, played, seen};
use vmprobe_tests::records::{Row, number, rows, sum};

const MS: u64 = 1_000_000;

fn way() -> Way {
    Way { delay_ns: MS, jitter_ns: MS / 2, loss_ppm: 5_000, ..Way::default() }
}

fn sent(folder: &Folder, mirror_a: Mirror, mirror_b: Mirror) -> ([PathBuf; 2], Truth) {
    let impairments =
        Impairments { mirror_a, mirror_b, ..Impairments::alike(way(), Mirror::default()) };
    transfer(2_000_000, 12, impairments, folder.root()).expect("it runs")
}

/// A capture with each frame changed, as that of tap `name`.
fn changed(
    folder: &Folder,
    from: &Path,
    name: &str,
    change: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> PathBuf {
    let out = folder.path("changed");
    std::fs::create_dir_all(&out).expect("a folder");
    let file = out.join(format!("tap-{name}.pcap"));
    relay(&[from.to_owned()], &file, change).expect("it is written");
    file
}

fn at<'a>(taps: &'a [Row], name: &'a str) -> impl Iterator<Item = &'a Row> {
    taps.iter().filter(move |row| row["tap"] == name)
}

fn count(taps: &[Row], name: &str, column: &str) -> u64 {
    sum(taps, column, |row| row["tap"] == name)
}

fn in_vlan(frame: &[u8], vlan: u16) -> Vec<u8> {
    let [high, low] = vlan.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}

#[test]
fn copies_and_duplicates_by_tap_and_by_pair_of_taps() {
    let folder = Folder::new("health-copies");
    let doubling = Mirror { duplicate_ppm: 30_000, ..Mirror::default() };
    let (captures, truth) = sent(&folder, Mirror::default(), doubling);
    let records = played(&folder, &captures, "");
    let (taps, path) = (rows(&records, "taps"), rows(&records, "path"));
    let total = truth.total();
    assert!(total.duplicates > 50, "{total:?}");
    assert_eq!(count(&taps, "a", "duplicate_packet_count"), 0);
    assert_eq!(count(&taps, "b", "duplicate_packet_count"), total.duplicates);
    let copies = ["a", "b"].map(|tap| count(&taps, tap, "copy_other_tap_packet_count"));
    assert_eq!(copies.iter().sum::<u64>(), total.copies);
    // Each direction by itself: what enters at one tap is copied at the other.
    for (from, to, exit) in [("a", "b", copies[1]), ("b", "a", copies[0])] {
        let seen = seen(&path, |row| is_way(row, "taps", from, to));
        assert_eq!(seen.matched, exit, "{from}{to} {seen:?} {total:?}");
    }
}

#[test]
fn a_tap_with_one_direction_has_no_coverage() {
    let folder = Folder::new("health-coverage");
    let (captures, _) = sent(&folder, Mirror::default(), Mirror::default());
    let all = changed(&folder, &captures[0], "all", |frame| Some(frame.to_vec()));
    let one = changed(&folder, &captures[1], "one", |frame| {
        (parse(frame)?.source == SENDER).then(|| frame.to_vec())
    });
    for (capture, name, coverage) in [(all, "all", 1.0), (one, "one", 0.0)] {
        let folder = Folder::new("health-coverage-records");
        let taps = rows(&played(&folder, &[capture], ""), "taps");
        let talks = at(&taps, name).filter(|row| !row["coverage"].is_null());
        let shares: Vec<_> = talks.map(|row| row["coverage"].as_f64()).collect();
        assert!(!shares.is_empty() && shares.iter().all(|share| *share == Some(coverage)));
    }
}

#[test]
fn a_tap_with_one_direction_shows_beside_one_with_both() {
    let folder = Folder::new("health-one-way");
    let (captures, _) = sent(&folder, Mirror::default(), Mirror::default());
    let one = changed(&folder, &captures[1], "b", |frame| {
        (parse(frame)?.source == SENDER).then(|| frame.to_vec())
    });
    for (second, is_one_way) in [(captures[1].clone(), false), (one, true)] {
        let folder = Folder::new("health-one-way-records");
        let path = rows(&played(&folder, &[captures[0].clone(), second], ""), "path");
        let of = |column| sum(&path, column, |row| is_way(row, "taps", "a", "b"));
        let answered = of("answered_pair_count");
        assert!(answered > 0);
        assert_eq!(of("first_tap_one_way_pair_count"), 0);
        let one_way = if is_one_way { answered } else { 0 };
        assert_eq!(of("later_tap_one_way_pair_count"), one_way);
        let of_ends = path.iter().filter(|row| row["scope"] == "endpoints");
        assert!(of_ends.clone().count() > 0);
        assert!(of_ends.clone().all(|row| row["answered_pair_count"].is_null()));
    }
}

/// SYNs that nobody answers, however many: no tap misses an answer.
#[test]
fn questions_that_nobody_answers_are_no_gap_in_coverage() {
    let folder = Folder::new("health-silence");
    let (captures, _) = sent(&folder, Mirror::default(), Mirror::default());
    let mut number = 0_u16;
    let capture = changed(&folder, &captures[0], "a", |_| {
        number += 1;
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(10_000 + number / 5, 80, u32::from(number / 5), 1_024)
            .syn()
            .write(&mut frame, &[])
            .ok()?;
        Some(frame)
    });
    let taps = rows(&played(&folder, &[capture], ""), "taps");
    assert!(count(&taps, "a", "packet_count") > 1_000);
    assert!(taps.iter().all(|row| row["coverage"].is_null()), "{taps:?}");
}

/// A window's counts are those up to its closing, also where the run ends within its grace.
#[test]
fn counts_are_of_the_window_that_closes_next_and_add_up() {
    let folder = Folder::new("health-end");
    let capture = folder.path("tap-a.pcap");
    let mut out = PcapWriter::create(&capture, 1, true).expect("a file");
    for number in 0..191_u64 {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut frame, &number.to_be_bytes())
            .expect("it fits");
        let octets = u32::try_from(frame.len()).expect("short");
        let at = Timestamp(100_200 * MS + number * 10 * MS);
        out.write(at, octets, &frame).expect("it is written");
    }
    out.finish().expect("it is written");
    let taps = rows(&played(&folder, &[capture], ""), "taps");
    let counted: Vec<_> = at(&taps, "a")
        .map(|row| (number(row, "window_start_ns") / (1_000 * MS), number(row, "packet_count")))
        .collect();
    assert_eq!(counted, [(100, 100), (101, 91), (102, 0)]);
}

#[test]
fn datagrams_say_nothing_of_coverage() {
    let folder = Folder::new("health-datagrams");
    let (captures, _) = sent(&folder, Mirror::default(), Mirror::default());
    let mut number = 0_u64;
    let capture = changed(&folder, &captures[0], "a", |_| {
        number += 1;
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut frame, &number.to_be_bytes())
            .ok()?;
        Some(frame)
    });
    let taps = rows(&played(&folder, &[capture], ""), "taps");
    assert!(count(&taps, "a", "packet_count") > 1_000);
    assert!(taps.iter().all(|row| row["coverage"].is_null()));
}

#[test]
fn what_a_mirror_cuts_is_counted_at_its_tap() {
    let folder = Folder::new("health-cut");
    let cutting = Mirror { snap_octets: Some(96), ..Mirror::default() };
    let (captures, truth) = sent(&folder, Mirror::default(), cutting);
    let taps = rows(&played(&folder, &captures, ""), "taps");
    let cut = truth.taps[Side::B.place()];
    assert!(cut.shown_cut > 500 && cut.shown_cut < cut.shown, "{cut:?}");
    assert_eq!(count(&taps, "a", "snapped_packet_count"), 0);
    assert_eq!(count(&taps, "b", "snapped_packet_count"), cut.shown_cut);
    assert_eq!(count(&taps, "b", "packet_count"), cut.shown);
}

#[test]
fn a_tag_that_a_mirror_strips_shows_between_taps() {
    let folder = Folder::new("health-stripped");
    let (captures, truth) = sent(&folder, Mirror::default(), Mirror::default());
    let tagged = changed(&folder, &captures[0], "a", |frame| Some(in_vlan(frame, 42)));
    let space = "[[space]]\nname = \"t\"\nsegments = [\"default/vlan/42\", \"default/none\"]\n";
    for (second, is_stripped) in [
        (captures[1].clone(), true),
        (changed(&folder, &captures[1], "b", |frame| Some(in_vlan(frame, 42))), false),
    ] {
        let folder = Folder::new("health-stripped-records");
        let path = rows(&played(&folder, &[tagged.clone(), second], space), "path");
        let of = |column| sum(&path, column, |row| row["scope"] == "taps");
        assert_eq!(of("matched_packet_count"), truth.total().copies);
        let stripped = if is_stripped { truth.total().copies } else { 0 };
        assert_eq!(of("segment_stripped_packet_count"), stripped);
    }
}

#[test]
fn segments_that_the_inventory_does_not_know() {
    let folder = Folder::new("health-segments");
    let (captures, _) = sent(&folder, Mirror::default(), Mirror::default());
    let mut number = 0;
    let mut unknown = 0;
    let capture = changed(&folder, &captures[0], "a", |frame| {
        number += 1;
        let is_unknown = number % 4 == 0;
        unknown += u64::from(is_unknown);
        Some(in_vlan(frame, if is_unknown { 43 } else { 42 }))
    });
    let inventory = folder.write(
        "inventory.toml",
        "[[tenant]]\nname = \"acme\"\n[[vm]]\nuuid = \"00000000-0000-0000-0000-000000000001\"\n\
         name = \"web\"\ntenant = \"acme\"\n[[vm.interface]]\nmac = \"fa:16:3e:00:00:01\"\n\
         addresses = [\"10.7.0.1\"]\nsegment = \"default/vlan/42\"\n",
    );
    let text = format!("[inventory]\nfile = \"{}\"\n", inventory.display());
    let column = "segment_unknown_packet_count";
    let records = Folder::new("health-segments-known");
    let taps = rows(&played(&records, std::slice::from_ref(&capture), &text), "taps");
    assert!(unknown > 100);
    assert_eq!(count(&taps, "a", column), unknown);
    // Without an inventory there is nothing that could know them.
    let records = Folder::new("health-segments-none");
    let taps = rows(&played(&records, &[capture], ""), "taps");
    assert!(!taps.is_empty() && taps.iter().all(|row| row[column].is_null()));
}

#[test]
fn gaps_in_the_numbers_of_a_mirror() {
    let folder = Folder::new("health-gaps");
    let (captures, _) = sent(&folder, Mirror::default(), Mirror::default());
    let (mut number, mut lost) = (0_u32, 0_u64);
    // ERSPAN type II in GRE with sequence numbers; every seventh packet does not arrive.
    let capture = changed(&folder, &captures[0], "a", |frame| {
        number += 1;
        if number % 7 == 0 {
            lost += 1;
            return None;
        }
        let gre = [&[0x10, 0, 0x88, 0xbe][..], &number.to_be_bytes()].concat();
        let inner = [&gre[..], &[0x10, 0, 0, 7, 0, 0, 0, 0], frame].concat();
        let mut out = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([172, 16, 0, 1], [172, 16, 0, 2], 64)
            .write(&mut out, etherparse::IpNumber::GRE, &inner)
            .ok()?;
        Some(out)
    });
    // What is lost behind the last one nobody knows of.
    let lost = lost - u64::from(number % 7 == 0);
    let column = "mirror_sequence_gap_count";
    assert!(lost > 100);
    for workers in ["count = 1", "count = 3", "count = 3\nburst_packets = 1"] {
        let records = Folder::new("health-gaps-records");
        let further = format!("[worker]\n{workers}\n");
        let taps = rows(&played(&records, std::slice::from_ref(&capture), &further), "taps");
        assert_eq!(count(&taps, "a", column), lost, "{workers}");
    }
    let records = Folder::new("health-gaps-none");
    let taps = rows(&played(&records, &captures[..1], ""), "taps");
    assert!(!taps.is_empty() && taps.iter().all(|row| row[column].is_null()));
}
