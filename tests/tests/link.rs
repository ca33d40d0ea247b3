//! The link with known truth: its own laws, and captures of it through the probe.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use vmprobe::capture::file::{FileSource, PcapWriter};
use vmprobe::capture::{Source as _, SourceState};
use vmprobe::config::{self, Mode};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe::time::Timestamp;
use vmprobe_tests::folder::Folder;
use vmprobe_tests::link::transfer::{RECEIVER, SENDER, transfer};
use vmprobe_tests::link::{
    Counted, Direction, Fate, Frame, Impairments, Link, Merge, Mirror, Outlet, Side, Sums, Truth,
    Way, impair_capture, parse,
};
use vmprobe_tests::records::{rows, sum};
use vmprobe_tests::replaying::run;

const MS: u64 = 1_000_000;

/// Keeps what comes out.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    shown: [Vec<(u64, Vec<u8>)>; 2],
    delivered: [Vec<(u64, Vec<u8>)>; 2],
}

impl Outlet for Kept {
    fn show(&mut self, tap: Side, at_ns: u64, frame: &[u8], _: u32) {
        self.shown[tap.place()].push((at_ns, frame.to_vec()));
    }

    fn deliver(&mut self, to: Side, at_ns: u64, frame: Vec<u8>) {
        self.delivered[to.place()].push((at_ns, frame));
    }
}

/// Two flows of TCP each way, in order, with 100 octets a segment; the `number`-th frame.
fn segment(number: u32, direction: Direction) -> Vec<u8> {
    let hosts = [[10, 0, 0, 1], [10, 0, 0, 2]];
    let port = 40_000 + u16::from(number % 2 == 1);
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4(hosts[direction.entry().place()], hosts[direction.exit().place()], 64)
        .tcp(port, 80, number / 2 * 100, 1_000)
        .ack(1);
    builder.write(&mut frame, &[number.to_le_bytes()[0]; 100]).expect("memory");
    // The identification: each packet has its own.
    let identification = u16::try_from(number + 1).expect("few").to_be_bytes();
    frame[18..20].copy_from_slice(&identification);
    frame
}

/// Sends `frames` each way, `gap_ns` apart.
fn send(frames: u32, gap_ns: u64, seed: u64, impairments: &Impairments) -> (Kept, Truth) {
    let mut link = Link::new(seed, impairments.clone());
    let mut kept = Kept::default();
    for number in 0..frames {
        for direction in Direction::BOTH {
            let at_ns = 1_000_000_000 + u64::from(number) * gap_ns;
            let frame = segment(number, direction);
            let octets = u32::try_from(frame.len()).expect("small");
            link.enter(direction, at_ns, frame, octets, &mut kept);
        }
    }
    let truth = link.end(&mut kept);
    (kept, truth)
}

fn ways() -> impl Strategy<Value = Way> {
    let merge = proptest::option::of(
        (200_u32..9_000, 0..2 * MS)
            .prop_map(|(frame_octets_max, hold_ns)| Merge { frame_octets_max, hold_ns }),
    );
    let share = 0_u32..300_000;
    (
        0..5 * MS,
        0..3 * MS,
        share.clone(),
        share.clone(),
        0..3 * MS,
        share,
        0..2 * MS,
        merge,
        0_u8..3,
    )
        .prop_map(
            |(
                delay_ns,
                jitter_ns,
                loss_ppm,
                reorder_ppm,
                reorder_ns,
                duplicate_ppm,
                duplicate_ns,
                merge,
                ttl_decrement,
            )| Way {
                delay_ns,
                jitter_ns,
                loss_ppm,
                reorder_ppm,
                reorder_ns,
                duplicate_ppm,
                duplicate_ns,
                merge,
                ttl_decrement,
                ..Way::default()
            },
        )
}

fn mirrors() -> impl Strategy<Value = Mirror> {
    (0_u32..300_000, 0_u32..300_000).prop_map(|(loss_ppm, duplicate_ppm)| Mirror {
        loss_ppm,
        duplicate_ppm,
        ..Mirror::default()
    })
}

fn impairments() -> impl Strategy<Value = Impairments> {
    (ways(), ways(), mirrors(), mirrors()).prop_map(|(a_to_b, b_to_a, mirror_a, mirror_b)| {
        Impairments { a_to_b, b_to_a, mirror_a, mirror_b }
    })
}

fn payload_octets<'a>(frames: impl Iterator<Item = &'a Vec<u8>>) -> u64 {
    frames.filter_map(|frame| parse(frame)?.tcp).map(|tcp| u64::from(tcp.payload_octets)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_came_is_lost_or_has_left(impairments in impairments(), seed: u64) {
        let (kept, truth) = send(200, MS / 10, seed, &impairments);
        prop_assert!(truth.frames.iter().all(|frame| frame.fate != Fate::Waiting));
        for direction in Direction::BOTH {
            let sums = truth.direction(direction);
            prop_assert_eq!(sums.frames, 200);
            prop_assert_eq!(sums.frames, sums.lost + sums.passed + sums.merged);
            let mut merged: Vec<_> = truth.frames.iter()
                .filter(|frame| frame.direction == direction)
                .filter_map(|frame| frame.merged_into)
                .collect();
            merged.dedup();
            merged.sort_unstable();
            merged.dedup();
            let out = &kept.delivered[direction.exit().place()];
            prop_assert_eq!(out.len() as u64, sums.passed + sums.duplicated + merged.len() as u64);
            let octets = 100 * (sums.passed + sums.merged + sums.duplicated);
            prop_assert_eq!(payload_octets(out.iter().map(|(_, frame)| frame)), octets);
            if impairments.way(direction).merge.is_none() {
                prop_assert_eq!(sums.merged, 0);
                prop_assert!(sums.reordered == 0 || impairments.way(direction).reorder_ppm > 0);
            }
            let ttl = 64 - impairments.way(direction).ttl_decrement;
            prop_assert!(out.iter().all(|(_, frame)| frame[22] == ttl));
        }
    }

    #[test]
    fn the_sums_are_what_the_mirrors_showed(impairments in impairments(), seed: u64) {
        let (kept, truth) = send(200, MS / 10, seed, &impairments);
        let total = truth.total();
        let shown: usize = kept.shown.iter().map(Vec::len).sum();
        prop_assert_eq!(total.shown_frames(), shown as u64, "{:?}", total);
        prop_assert_eq!(total.logical_packets + total.unseen, total.frames);
        for tap in Side::BOTH {
            let sums = truth.taps[tap.place()];
            let shown = &kept.shown[tap.place()];
            prop_assert_eq!(sums.shown, shown.len() as u64);
            prop_assert_eq!(sums.shown, sums.offered - sums.lost + sums.doubled);
            prop_assert!(shown.is_sorted_by_key(|(at_ns, _)| *at_ns), "time goes forward");
        }
        let delays = truth.frames.iter().filter_map(Frame::delay_ns);
        prop_assert_eq!(delays.sum::<u64>(), total.delay.sum_ns);
    }

    #[test]
    fn the_seed_decides(impairments in impairments(), seed: u64, other: Way2) {
        let first = send(100, MS / 10, seed, &impairments);
        prop_assert_eq!(&first, &send(100, MS / 10, seed, &impairments));
        // Another link: the mirrors lose the same of what enters.
        let changed = Impairments { a_to_b: other.0, ..impairments };
        let (_, second) = send(100, MS / 10, seed, &changed);
        let entries = |truth: &Truth| -> Vec<_> {
            truth.frames.iter().map(|frame| frame.shown.entry).collect()
        };
        prop_assert_eq!(entries(&first.1), entries(&second));
    }
}

/// A way as a parameter of a property.
#[derive(Clone, Debug)]
struct Way2(Way);

impl Arbitrary for Way2 {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        ways().prop_map(Self).boxed()
    }
}

#[test]
fn without_impairments_nothing_happens() {
    let (kept, truth) = send(50, MS, 1, &Impairments::default());
    assert_eq!(kept.shown[0], kept.shown[1]);
    assert_eq!(kept.delivered[1].len(), 50);
    let total = truth.total();
    assert_eq!((total.frames, total.passed, total.copies), (100, 100, 100));
    assert_eq!((total.delay.count, total.delay.max_ns), (100, 0));
}

#[test]
fn each_impairment_does_what_it_says() {
    let frames = 10_000;
    let only = |way| send(frames, MS, 5, &Impairments::alike(way, Mirror::default())).1.total();
    // One percent of 20,000 within five standard deviations.
    let near_one_percent = |count| assert!((130..=270).contains(&count), "{count}");
    let lost = only(Way { loss_ppm: 10_000, ..Way::default() });
    near_one_percent(lost.lost);
    assert_eq!(lost.lost_shown, lost.lost);
    assert!((lost.loss() - 0.01).abs() < 0.004);
    let twice = only(Way { duplicate_ppm: 10_000, duplicate_ns: MS, ..Way::default() });
    near_one_percent(twice.duplicated);
    assert_eq!(twice.duplicates, twice.duplicated);
    // Two later ones overtake a late one.
    let late = only(Way { reorder_ppm: 10_000, reorder_ns: 5 * MS / 2, ..Way::default() });
    near_one_percent(late.reordered);
    assert_eq!(late.delay.max_ns, 5 * MS / 2);
    let slow = only(Way { delay_ns: 2 * MS, jitter_ns: MS, ..Way::default() });
    assert_eq!((slow.reordered, slow.lost), (0, 0));
    let mean_ns = slow.delay.mean_ns().expect("samples");
    // The mean of an even spread of 1 ms over 20,000 within five standard errors.
    assert!((mean_ns - 2_500_000.0).abs() < 12_000.0, "{mean_ns}");
    let merge = Some(Merge { frame_octets_max: 1_500, hold_ns: 20 * MS });
    let merged = only(Way { merge, ..Way::default() });
    assert_eq!(merged.merged, 2 * u64::from(frames));
    assert!(merged.merged_frames <= merged.merged / 10, "{merged:?}");
}

#[test]
fn what_is_pending_is_bounded() {
    let way = Way { delay_ns: 3_600_000 * MS, ..Way::default() };
    let (_, truth) = send(20_000, 1, 1, &Impairments::alike(way, Mirror::default()));
    let overflowed = truth.frames.iter().filter(|frame| frame.fate == Fate::Overflowed).count();
    assert_eq!(overflowed, 40_000 - vmprobe_tests::link::QUEUE_FRAMES_MAX);
    assert_eq!(truth.total().lost, overflowed as u64);
}

#[test]
fn mirrors_cut_tag_and_shift() {
    let mirror_b =
        Mirror { snap_octets: Some(64), vlan: Some(102), offset_ns: -5, ..Mirror::default() };
    let impairments = Impairments { mirror_b, ..Impairments::default() };
    let (kept, truth) = send(10, MS, 1, &impairments);
    let ((entered_ns, whole), (shown_ns, cut)) = (&kept.shown[0][0], &kept.shown[1][0]);
    assert_eq!((cut.len(), &cut[12..16]), (64, &[0x81, 0, 0, 102][..]));
    assert_eq!((&cut[..12], &cut[16..]), (&whole[..12], &whole[12..60]));
    assert_eq!(*shown_ns, entered_ns - 5);
    assert_eq!((truth.offset_ns(Direction::AToB), truth.offset_ns(Direction::BToA)), (-5, 5));
    assert_eq!((truth.taps[0].shown_cut, truth.taps[1].shown_cut), (0, 20));
}

/// Impairments of both kinds that do not merge.
fn rough() -> Impairments {
    let way = Way {
        delay_ns: 3 * MS,
        jitter_ns: MS,
        loss_ppm: 10_000,
        reorder_ppm: 5_000,
        reorder_ns: 2 * MS,
        duplicate_ppm: 5_000,
        duplicate_ns: 200_000,
        ttl_decrement: 1,
        ..Way::default()
    };
    let mirror = Mirror { loss_ppm: 20_000, duplicate_ppm: 5_000, ..Mirror::default() };
    let back = Way { delay_ns: 2 * MS, jitter_ns: MS / 2, loss_ppm: 2_000, ..way.clone() };
    Impairments { b_to_a: back, ..Impairments::alike(way, mirror) }
}

/// What the probe says of two captures with the taps named.
fn replayed(folder: &Folder, captures: &[std::path::PathBuf; 2]) -> Counted {
    let records = folder.path("records");
    let text = "[[tap]]\nname = \"a\"\nmatch = { port = \"tap-a\" }\n\
                [[tap]]\nname = \"b\"\nmatch = { port = \"tap-b\" }\n\
                [flow]\nslots_per_worker = 65536\n[window]\nrows_max = 65536\n[serve]\nenabled = false\n";
    let file = folder.write("replay.toml", text);
    let mut plan = config::load(&file, Mode::Replay).expect("a good configuration").plan;
    plan.store.free_mib_min = 0;
    let report = run(plan, captures, Some(&records)).expect("a replay").report;
    assert_eq!(report.ledger.unaccounted, 0);
    let causes = report.ledger.causes.iter().map(|(cause, count)| ((*cause).to_owned(), *count));
    Counted {
        received: report.packets,
        accounted: report.ledger.accounted,
        causes: causes.collect(),
    }
}

#[test]
fn a_wrong_count_does_not_pass() {
    let (_, truth) = send(1_000, MS, 3, &rough());
    let total = truth.total();
    let not_ip = truth.taps.iter().map(|tap| tap.shown_not_ip).sum::<u64>();
    let right = Counted {
        received: total.shown_frames() + not_ip,
        accounted: total.logical_packets,
        causes: [("duplicate".into(), total.duplicates), ("copy_other_tap".into(), total.copies)]
            .into(),
    };
    truth.assert_union(&right);
    let passes =
        |counted: &Counted| std::panic::catch_unwind(|| truth.assert_union(counted)).is_ok();
    assert!(passes(&right));
    let mut missed = right.clone();
    missed.received -= 1;
    missed.accounted -= 1;
    assert!(!passes(&missed), "one was not received");
    let mut twice = right.clone();
    twice.accounted += 1;
    *twice.causes.get_mut("copy_other_tap").expect("a cause") -= 1;
    assert!(!passes(&twice), "one was counted twice");
    assert_eq!(total.repeated_without_identification, 0);
    let mut copied = right.clone();
    copied.accounted -= 1;
    *copied.causes.get_mut("copy_other_tap").expect("a cause") += 1;
    assert!(!passes(&copied), "one was taken for a copy");
    let mut lost = right;
    lost.accounted -= 1;
    lost.causes.insert("shed".into(), 1);
    assert!(!passes(&lost), "one ended otherwise");
}

/// Resets without an identification, as a kernel answers each segment that comes for a connection that
/// is gone: `connections` of them, one every 10 ms, with two alike each, 3 ms apart.
fn resets(capture: &Path, connections: u16) {
    let mut out = PcapWriter::create(capture, 1, true).expect("a file");
    for number in 0..2 * connections {
        let (connection, again) = (number / 2, u64::from(number % 2));
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1_024 + connection, 80, 5_000 + u32::from(connection), 0)
            .rst()
            .write(&mut frame, &[])
            .expect("memory");
        assert_eq!(frame[18..20], [0, 0], "no identification");
        let at_ns = 1_000_000_000 + (10 * u64::from(connection) + 3 * again) * MS;
        let octets = u32::try_from(frame.len()).expect("small");
        out.write(Timestamp(at_ns), octets, &frame).expect("it is written");
    }
    out.finish().expect("it is written");
}

#[test]
fn of_two_alike_that_one_tap_each_shows_the_second_is_a_copy() {
    let folder = Folder::new("link-alike");
    let [sent, out] = ["sent.pcap", "link"].map(|name| folder.path(name));
    resets(&sent, 500);
    std::fs::create_dir_all(&out).expect("a folder");
    let way = Way { delay_ns: MS, ..Way::default() };
    let mirror = Mirror { loss_ppm: 200_000, ..Mirror::default() };
    let (captures, truth) =
        impair_capture(&sent, 9, Impairments::alike(way, mirror), &out).expect("it runs");
    let total = truth.total();
    let repeated = total.repeated_without_identification;
    // One tap shows the one alone and the other the other: 2 × (0.8 × 0.2)² of 500.
    assert!((12..=45).contains(&repeated), "{total:?}");
    assert_eq!(total.duplicates, 0, "{total:?}");
    let counted = replayed(&folder, &captures);
    truth.assert_union(&counted);
    // Just these, and they are missing in the octets.
    assert_eq!(counted.accounted, total.logical_packets - repeated, "{counted:?} {total:?}");
    let windows = rows(&folder.path("records"), "windows");
    let octets = sum(&windows, "octet_delta_count", |_| true);
    assert_eq!(octets, total.logical_ip_octets - total.repeated_ip_octets, "{total:?}");
}

fn frames_in(capture: &Path) -> u64 {
    let mut source = FileSource::open(&[capture], 32).expect("it opens");
    loop {
        if source.poll().1 == SourceState::Ended {
            assert!(source.errors().is_empty());
            return source.progress().packets.load();
        }
    }
}

#[test]
fn a_generated_cloud_over_a_rough_link_counts_once() {
    let folder = Folder::new("link-cloud");
    let options = Options { scale: 0.3, duration_s: Some(4), ..Options::default() };
    generate(Scenario::Benign, 4, folder.root(), options).expect("generated");
    let source = folder.path("tap-a.pcap");
    let out = folder.path("link");
    std::fs::create_dir_all(&out).expect("a folder");
    let (captures, truth) = impair_capture(&source, 8, rough(), &out).expect("it runs");
    assert_eq!(truth.frames.len() as u64, frames_in(&source));
    for (capture, tap) in captures.iter().zip(truth.taps) {
        assert_eq!(frames_in(capture), tap.shown);
    }
    assert_eq!(Truth::read(&out).expect("it is written"), truth);
    let total = truth.total();
    assert!(total.lost > 0 && total.duplicates > 0 && total.mirror_lost_exit > 0, "{total:?}");
    assert_eq!(total.repeated_without_identification, 0, "{total:?}");
    truth.assert_union(&replayed(&folder, &captures));
}

#[test]
fn a_transfer_over_a_rough_link_arrives_and_counts_once() {
    let folder = Folder::new("link-transfer");
    let (captures, truth) = transfer(5_000_000, 11, rough(), folder.root()).expect("it runs");
    let sent = truth.pair(SENDER, RECEIVER);
    assert!(sent.frames > 3_400 && sent.lost_shown > 10, "{sent:?}");
    // What was lost was sent again, so that each octet has arrived.
    let arrived = truth.frames.iter().filter(|frame| {
        frame.source == Some(SENDER) && frame.left_ns.is_some() && frame.payload_octets > 0
    });
    let mut ranges: Vec<_> = arrived
        .map(|frame| (frame.sequence.expect("TCP"), frame.payload_octets))
        .map(|(sequence, octets)| (sequence, sequence + octets))
        .collect();
    ranges.sort_unstable();
    let whole =
        ranges.iter().fold(1, |end, (from, to)| if *from <= end { end.max(*to) } else { end });
    assert_eq!(whole, 5_000_001);
    let lost_data = truth.of(|frame| frame.source == Some(SENDER) && frame.payload_octets > 0);
    // All of it, but for needless repetitions of what had arrived: nobody repeats these.
    let mut left = HashSet::new();
    let needless = truth.frames.iter().filter(|frame| {
        let of_sender = frame.source == Some(SENDER) && frame.payload_octets > 0;
        let arrived = frame.sequence.filter(|_| of_sender && frame.left_ns.is_some());
        left.extend(arrived);
        let is_lost = of_sender && frame.is_lost() && frame.shown.entry > 0;
        is_lost && frame.sequence.is_some_and(|sequence| left.contains(&sequence))
    });
    let needless = needless.count() as u64;
    let repeated = truth.lost_repeated(SENDER, RECEIVER);
    assert!(repeated > 10 && repeated <= lost_data.lost_shown, "{repeated} {lost_data:?}");
    assert!(repeated + needless >= lost_data.lost_shown, "{repeated} {needless} {lost_data:?}");
    assert_eq!(truth.lost_repeated(RECEIVER, SENDER), 0, "it sends no data");

    truth.assert_union(&replayed(&folder, &captures));
    let windows = rows(&folder.path("records"), "windows");
    let total = truth.total();
    let octets = |column: &str| {
        sum(&windows, column, |_| true) + sum(&windows, &format!("reverse_{column}"), |_| true)
    };
    assert_eq!(octets("octet_delta_count"), total.logical_ip_octets);
    assert_eq!(octets("layer2_octet_delta_count"), total.logical_layer2_octets);
    let mean_ns = truth.mean_delay_ns(SENDER, RECEIVER).expect("samples");
    assert!((3_000_000.0..4_100_000.0).contains(&mean_ns), "{mean_ns}");
    assert!((truth.loss(SENDER, RECEIVER) - 0.01).abs() < 0.01);
    assert_eq!(truth.pair(IpAddr::V4(Ipv4Addr::LOCALHOST), SENDER), Sums::default(), "nobody");
}
