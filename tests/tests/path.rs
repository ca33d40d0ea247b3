//! Delay and loss between taps against a link that logs what it did to each frame.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use vmprobe::generate::{Options, Scenario, generate};
use vmprobe_tests::folder::Folder;
use vmprobe_tests::link::transfer::{RECEIVER, SENDER, transfer};
use vmprobe_tests::link::{
    Frame, Impairments, Merge, Mirror, Truth, Way, Whole, impair_capture, shown_whole,
};
use vmprobe_tests::paths::{Booked, Seen, is_of, is_way, played, played_into, seen, signed};
use vmprobe_tests::records::{rows, sum};

const MS: u64 = 1_000_000;

/// |D − truth| ≤ 1 µs, on the same number of packets.
fn check_delays(seen: &Seen, truth: &Truth, frames: impl Fn(&Frame) -> bool, offset_ns: i64) {
    let delay = truth.of(frames).delay;
    assert_eq!(seen.delays, delay.count);
    let mean = |sum: i64| sum / delay.count.cast_signed();
    let truly = mean(delay.sum_ns.cast_signed()) + offset_ns;
    assert!((mean(seen.sum_ns) - truly).abs() <= 1_000, "{seen:?} {truly}");
    assert_eq!(seen.min_ns, delay.min_ns.cast_signed() + offset_ns);
    assert_eq!(seen.max_ns, delay.max_ns.cast_signed() + offset_ns);
}

fn is_sent(frame: &Frame) -> bool {
    frame.source == Some(SENDER)
}

/// Delay, jitter, loss and reordering each way, and routers that count down.
fn rough_way() -> Way {
    Way {
        delay_ns: 3 * MS,
        jitter_ns: MS,
        loss_ppm: 10_000,
        reorder_ppm: 5_000,
        reorder_ns: 2 * MS,
        ..Way::default()
    }
}

#[test]
fn delay_and_loss_are_those_of_the_link() {
    let folder = Folder::new("path-exact");
    let impairments = Impairments::alike(rough_way(), Mirror::default());
    let (captures, truth) = transfer(8_000_000, 21, impairments, folder.root()).expect("it runs");
    let rows = rows(&played(&folder, &captures, ""), "path");

    let there = seen(&rows, |row| is_of(row, SENDER, RECEIVER));
    let sums = truth.pair(SENDER, RECEIVER);
    assert!(sums.lost > 40, "{sums:?}");
    assert_eq!((there.sampled, there.ambiguous), (sums.frames, 0));
    assert_eq!(there.matched, sums.passed);
    // All data that was lost was repeated, but for what had arrived already.
    let repeated = truth.lost_repeated(SENDER, RECEIVER);
    assert_eq!((there.network, there.mirror + there.unresolved), (repeated, sums.lost - repeated));
    assert_eq!((there.first_missed, there.mirror), (0, 0), "{there:?}");
    check_delays(&there, &truth, is_sent, 0);

    let back = seen(&rows, |row| is_of(row, RECEIVER, SENDER));
    let sums = truth.pair(RECEIVER, SENDER);
    assert_eq!((back.matched, back.ambiguous), (sums.passed, 0));
    // Nobody repeats an acknowledgement.
    assert_eq!((back.network, back.mirror, back.unresolved), (0, 0, sums.lost));
    check_delays(&back, &truth, |frame| !is_sent(frame), 0);

    // Everybody's packets are these two.
    assert_eq!(seen(&rows, |row| is_way(row, "taps", "a", "b")), there);
    assert_eq!(seen(&rows, |row| is_way(row, "taps", "b", "a")), back);
}

#[test]
fn clocks_that_differ_show_with_a_bound() {
    let folder = Folder::new("path-offset");
    let way = Way { delay_ns: 2 * MS, jitter_ns: MS / 2, ..Way::default() };
    for offset_ns in [-50 * MS.cast_signed(), -MS.cast_signed(), 0, 30 * MS.cast_signed()] {
        let mirror_b = Mirror { offset_ns, ..Mirror::default() };
        let impairments =
            Impairments { mirror_b, ..Impairments::alike(way.clone(), Mirror::default()) };
        let out = folder.path(&format!("link{offset_ns}"));
        std::fs::create_dir_all(&out).expect("a folder");
        let (captures, truth) = transfer(1_000_000, 5, impairments, &out).expect("it runs");
        let folder = Folder::new("path-offset-records");
        let rows = rows(&played(&folder, &captures, ""), "path");
        let there = seen(&rows, |row| is_way(row, "taps", "a", "b"));
        let back = seen(&rows, |row| is_way(row, "taps", "b", "a"));
        check_delays(&there, &truth, is_sent, offset_ns);
        check_delays(&back, &truth, |frame| !is_sent(frame), -offset_ns);
        for row in rows.iter().filter(|row| row["scope"] == "taps") {
            let offset_ns = if row["from_tap"] == "a" { offset_ns } else { -offset_ns };
            let (found, bound) =
                (signed(row, "clock_offset_ns"), signed(row, "clock_offset_bound_ns"));
            assert!((found - offset_ns).abs() <= bound, "{found} {offset_ns} {bound}");
            // Both ways are alike, so the estimate is far better than its bound.
            assert!((found - offset_ns).abs() <= MS.cast_signed() / 10, "{found} {offset_ns}");
            assert!(bound <= 3 * MS.cast_signed(), "{bound}");
            assert!(signed(row, "delay_excess_mean_ns") <= MS.cast_signed() / 2);
        }
    }
}

/// Segments of the sender whose first octet it had sent before, that the link passed and that were
/// shown where they entered only.
fn unshown_repetitions(truth: &Truth) -> u64 {
    let mut sent = HashSet::new();
    let is_one = |frame: &&Frame| {
        let is_repeated = is_sent(frame) && !sent.insert(frame.sequence);
        let is_shown = frame.shown.entry > 0 && frame.shown.exit == 0;
        is_repeated && is_shown && !frame.is_lost()
    };
    truth.frames.iter().filter(is_one).count() as u64
}

#[test]
fn what_a_mirror_loses_is_not_the_networks_loss() {
    let lossy = Mirror { loss_ppm: 20_000, ..Mirror::default() };
    for (name, mirror_a, mirror_b, loss_ppm) in [
        ("b", Mirror::default(), lossy.clone(), 0),
        ("a", lossy.clone(), Mirror::default(), 0),
        ("both", lossy.clone(), lossy, 10_000),
    ] {
        let folder = Folder::new(&format!("path-mirror-{name}"));
        let way = Way { loss_ppm, ..rough_way() };
        let impairments =
            Impairments { mirror_a, mirror_b, ..Impairments::alike(way, Mirror::default()) };
        let (captures, truth) =
            transfer(8_000_000, 33, impairments, folder.root()).expect("it runs");
        let records = played(&folder, &captures, "[path]\nsamples = true\n");
        let rows = rows(&records, "path");
        let there = seen(&rows, |row| is_of(row, SENDER, RECEIVER));
        let data = |frame: &Frame| is_sent(frame) && frame.shown.entry > 0 && frame.shown.exit == 0;
        let lost = truth.of(|frame| data(frame) && frame.is_lost()).frames;
        let unshown = truth.of(|frame| data(frame) && !frame.is_lost()).frames;
        let unseen =
            truth.of(|frame| is_sent(frame) && frame.shown.entry == 0 && frame.shown.exit > 0);
        // A repetition that is not shown may be acknowledged because of what it repeats.
        let unsure = unshown_repetitions(&truth);
        // What is lost and what is not shown are told apart, but for one in a hundred.
        assert!(there.network.abs_diff(lost) * 100 <= lost.max(unshown), "{name} {there:?} {lost}");
        let sure = unshown - unsure;
        assert!(there.mirror.abs_diff(sure) * 100 <= sure.max(100), "{name} {there:?} {sure}");
        assert_eq!(there.network + there.mirror + there.unresolved, lost + unshown, "{name}");
        // Packet by packet: at most one in a hundred of either is taken for the other.
        let booked = Booked::of(&truth, &records, is_sent);
        let network = booked.as_network.iter().sum::<u64>();
        let mirror = booked.as_mirror.iter().sum::<u64>();
        assert_eq!((network, mirror, booked.open), (there.network, there.mirror, there.unresolved));
        assert_eq!(booked.truly(), [lost, unshown], "{name} {booked:?}");
        booked.check();
        assert_eq!(there.first_missed, unseen.frames, "{name}");
        assert_eq!(there.sampled, truth.pair(SENDER, RECEIVER).logical_packets, "{name}");
        check_delays(&there, &truth, is_sent, 0);
    }
}

#[test]
fn hops_may_rewrite_what_they_rewrite_and_mirrors_may_cut() {
    let folder = Folder::new("path-rewritten");
    let way = Way {
        ttl_decrement: 1,
        router_mac: Some([2, 9, 9, 9, 9, 9]),
        loss_ppm: 10_000,
        delay_ns: MS,
        ..Way::default()
    };
    let mirror_b = Mirror { snap_octets: Some(96), vlan: None, ..Mirror::default() };
    let impairments = Impairments { mirror_b, ..Impairments::alike(way, Mirror::default()) };
    let (captures, truth) = transfer(2_000_000, 7, impairments, folder.root()).expect("it runs");
    let rows = rows(&played(&folder, &captures, ""), "path");
    let there = seen(&rows, |row| is_of(row, SENDER, RECEIVER));
    let sums = truth.pair(SENDER, RECEIVER);
    assert_eq!((there.matched, there.sampled), (sums.passed, sums.frames));
    assert_eq!(there.network + there.unresolved, sums.lost);
    check_delays(&there, &truth, is_sent, 0);
}

#[test]
fn merged_segments_are_no_loss() {
    let folder = Folder::new("path-merged");
    let merge = Some(Merge { frame_octets_max: 9_000, hold_ns: MS / 10 });
    let way = Way { merge, delay_ns: MS, loss_ppm: 5_000, ..Way::default() };
    let impairments = Impairments::alike(way, Mirror::default());
    let (captures, truth) = transfer(4_000_000, 9, impairments, folder.root()).expect("it runs");
    let sums = truth.pair(SENDER, RECEIVER);
    assert!(sums.merged > 1_000 && sums.lost > 5, "{sums:?}");
    let rows = rows(&played(&folder, &captures, ""), "path");
    let there = seen(&rows, |row| is_of(row, SENDER, RECEIVER));
    let recut = sum(&rows, "recut_packet_count", |row| is_of(row, SENDER, RECEIVER));
    assert_eq!((there.matched, recut), (sums.passed + sums.merged, sums.merged), "{sums:?}");
    assert_eq!(there.network, truth.lost_repeated(SENDER, RECEIVER));
    assert_eq!((there.mirror, there.first_missed), (0, 0), "{there:?}");
    check_delays(&there, &truth, is_sent, 0);
}

/// Packets, octets and retransmissions of what the sender sent.
fn counted(records: &Path) -> [u64; 3] {
    let flows = rows(records, "flows");
    ["packet_delta_count", "octet_delta_count", "retransmission_packet_count"]
        .map(|column| sum(&flows, column, |_| true))
}

/// How many packets are followed.
fn sampled(one_in: u32) -> String {
    format!("[path]\nsample_one_in = {one_in}\n")
}

/// What the other tap shows in larger segments is no traffic of its own, and nothing is repeated by it.
#[test]
fn merged_segments_count_once() {
    let merge = Some(Merge { frame_octets_max: 9_000, hold_ns: MS / 10 });
    // With several workers the flow is most likely another one's than the receiver's.
    for (loss_ppm, one_in, workers) in
        [(0, 1, 1), (5_000, 1, 4), (0, 16, 1), (5_000, 16, 1), (0, 16, 4), (5_000, 16, 5)]
    {
        let folder = Folder::new("path-merged-once");
        let way = Way { merge, delay_ns: MS, loss_ppm, ..Way::default() };
        let impairments = Impairments::alike(way, Mirror::default());
        let (captures, truth) =
            transfer(2_000_000, 9, impairments, folder.root()).expect("it runs");
        assert!(truth.pair(SENDER, RECEIVER).merged > 500);
        let config = format!("{}[worker]\ncount = {workers}\n", sampled(one_in));
        let both = counted(&played(&folder, &captures, &config));
        // All that is sent passes the tap at the sender.
        let one = counted(&played_into(&folder, &captures[..1], "one"));
        assert_eq!(both, one, "{loss_ppm} {one_in} {workers}");
    }
}

/// Both taps where the one at the sender shows whole what a network card below it cuts (TSO), and what
/// that one shows.
fn cut_on_the_way(
    folder: &Folder,
    (octets, frame_octets_max): (u32, u32),
    way: Way,
    mirror: &Mirror,
) -> ([PathBuf; 2], Truth, Whole) {
    let impairments = Impairments::alike(way, Mirror::default());
    let ([below, other], mut truth) =
        transfer(octets, 9, impairments, folder.root()).expect("it runs");
    let above = folder.path("above");
    std::fs::create_dir_all(&above).expect("a folder");
    let rule = Merge { frame_octets_max, hold_ns: MS };
    let whole = shown_whole(&below, &mut truth, rule, mirror, &above).expect("it is written");
    ([whole.capture.clone(), other], truth, whole)
}

#[test]
fn segments_that_are_cut_on_the_way_count_once() {
    for (frame_octets_max, loss_ppm, one_in) in
        [(65_549, 0, 1), (65_549, 5_000, 16), (9_014, 5_000, 1), (9_014, 0, 16), (9_014, 5_000, 16)]
    {
        let folder = Folder::new("path-cut");
        let way = Way { delay_ns: MS, loss_ppm, ..Way::default() };
        let sizes = (2_000_000, frame_octets_max);
        let (captures, truth, whole) = cut_on_the_way(&folder, sizes, way, &Mirror::default());
        let sent = truth.pair(SENDER, RECEIVER);
        assert!(whole.frame_octets_max > (frame_octets_max as usize).min(46_000) - 1_500);
        assert!(whole.frames * 3 < sent.frames && (sent.lost > 0) == (loss_ppm > 0), "{whole:?}");
        let both = counted(&played(&folder, &captures, &sampled(one_in)));
        let one = counted(&played_into(&folder, &captures[..1], "one"));
        assert_eq!(both, one, "{frame_octets_max} {loss_ppm} {one_in}");
        assert_eq!(both[..2], [whole.frames, whole.ip_octets], "{loss_ppm} {one_in}");
    }
}

/// Where the mirror at the sender loses some, the union is what counts: whole segments of the one tap, and
/// pieces of those that it lost of the other.
#[test]
fn what_a_mirror_loses_of_whole_segments_counts_in_pieces() {
    for (loss_ppm, one_in) in [(0, 1), (0, 16), (5_000, 1), (5_000, 16)] {
        let folder = Folder::new("path-cut-mirror");
        let way = Way { delay_ns: MS, loss_ppm, ..Way::default() };
        let mirror = Mirror { loss_ppm: 10_000, ..Mirror::default() };
        let (captures, truth, whole) = cut_on_the_way(&folder, (12_000_000, 9_014), way, &mirror);
        let pieces =
            truth.of(|frame| is_sent(frame) && frame.shown.entry == 0 && frame.shown.exit > 0);
        assert!(whole.lost > 5 && pieces.frames > 3 * whole.lost, "{whole:?} {pieces:?}");
        let found = counted(&played(&folder, &captures, &sampled(one_in)));
        let union = [whole.frames + pieces.frames, whole.ip_octets + pieces.logical_ip_octets];
        assert_eq!(found[..2], union, "{loss_ppm} {one_in}");
        let again = truth.sent_again();
        assert!(found[2] <= again && (found[2] > 0) == (loss_ppm > 0), "{found:?} {again}");
    }
}

/// The same where the other tap merges: what it shows of such as the first tap's mirror lost lies in one
/// frame with what that showed, and the frame is a copy as a whole where that is the most of it.
#[test]
fn what_a_mirror_loses_of_merged_segments() {
    for one_in in [1, 16] {
        let folder = Folder::new("path-merged-mirror");
        let merge = Some(Merge { frame_octets_max: 9_014, hold_ns: MS / 10 });
        let way = Way { merge, delay_ns: MS, ..Way::default() };
        let lossy = Mirror { loss_ppm: 10_000, ..Mirror::default() };
        let impairments =
            Impairments { mirror_a: lossy, ..Impairments::alike(way, Mirror::default()) };
        let (captures, truth) =
            transfer(8_000_000, 9, impairments, folder.root()).expect("it runs");
        let found = counted(&played(&folder, &captures, &sampled(one_in)));
        let at_a = truth.of(|frame| is_sent(frame) && frame.shown.entry > 0);
        let alone = truth
            .of(|frame| is_sent(frame) && frame.shown.entry == 0 && frame.merged_into.is_none());
        // Of each merged frame the payload that A had shown, and the payload that it had not.
        let mut merged: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
        for frame in truth.frames.iter().filter(|frame| is_sent(frame)) {
            let Some(number) = frame.merged_into else { continue };
            let is_unseen = usize::from(frame.shown.entry == 0);
            merged.entry(number).or_default()[is_unseen] += u64::from(frame.payload_octets);
        }
        let mixed = merged.values().filter(|[seen, unseen]| *seen > 0 && *unseen > 0).count();
        assert!(mixed > 20, "{mixed}");
        // Where all packets are followed any part of it makes it a copy, else the most.
        let is_new = |[seen, unseen]: &&[u64; 2]| *seen == 0 || one_in > 1 && seen <= unseen;
        let new = merged.values().filter(is_new);
        let (new_frames, new_octets) = new.fold((0, 0), |(frames, octets), [seen, unseen]| {
            (frames + 1, octets + seen + unseen + 52)
        });
        let expected = [
            at_a.logical_packets + alone.logical_packets + new_frames,
            at_a.logical_ip_octets + alone.logical_ip_octets + new_octets,
        ];
        assert_eq!(found[..2], expected, "{one_in}");
        // What counts again of the first tap's is seen as sent again; nothing else is.
        assert!(found[2] <= new_frames, "{found:?} {new_frames}");
        // So what is missing of the union, or too much, is less than the mirror lost.
        let union = truth.pair(SENDER, RECEIVER).logical_ip_octets;
        let lost = truth.of(|frame| is_sent(frame) && frame.shown.entry == 0).logical_ip_octets;
        assert!(found[1].abs_diff(union) <= lost, "{found:?} {union} {lost}");
    }
}

#[test]
fn a_cloud_over_a_link_pair_by_pair() {
    let folder = Folder::new("path-cloud");
    let options = Options { scale: 0.6, duration_s: Some(6), ..Options::default() };
    generate(Scenario::Benign, 4, folder.root(), options).expect("generated");
    let out = folder.path("link");
    std::fs::create_dir_all(&out).expect("a folder");
    let way = Way { delay_ns: MS, jitter_ns: MS, loss_ppm: 40_000, ..Way::default() };
    let impairments = Impairments::alike(way, Mirror::default());
    let source = folder.path("tap-a.pcap");
    let (captures, truth) = impair_capture(&source, 8, impairments, &out).expect("it runs");
    let rows = rows(&played(&folder, &captures, ""), "path");
    let mut pairs = BTreeMap::new();
    for (source, destination) in truth.pairs() {
        let there = seen(&rows, |row| is_of(row, source, destination));
        pairs.insert((source, destination), there);
        let sums = truth.pair(source, destination);
        assert_eq!(there.first_missed, 0, "{source} {destination} {there:?}");
        // A capture holds no answer to what the link does: receivers acknowledge what it loses.
        let lost = there.network + there.unresolved + there.mirror;
        assert!(lost <= sums.lost, "{source} {destination} {there:?} {sums:?}");
    }
    let all = pairs.values().fold((0, 0), |all, pair| {
        (all.0 + pair.matched, all.1 + pair.network + pair.unresolved + pair.mirror)
    });
    let total = truth.total();
    assert!(total.lost > 100, "{total:?}");
    // Of whom nothing passed both taps, nobody knows that it should have; the log can't tell tenants
    // with the same addresses apart.
    let unknown = total.lost - all.1;
    assert!(all.0 == total.passed && unknown * 20 <= total.lost, "{all:?} {total:?}");
}
