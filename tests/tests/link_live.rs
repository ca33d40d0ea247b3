//! Real traffic over a link with known truth, mirrored at both ends into `vmprobe run`.
#![cfg(feature = "dpdk")]
#![expect(clippy::disallowed_types, reason = "tests wait for one another")]

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmprobe::config::{self, Mode};
use vmprobe_tests::end_to_end::{Ledger, Rig, Run, port};
use vmprobe_tests::link::{Counted, Direction, Impairments, Merge, Mirror, Side, Way};
use vmprobe_tests::records::{Row, number, rows, sum};
use vmprobe_tests::replaying::run;

const MS: u64 = 1_000_000;

/// Longer than the machine lets the link wait for a core.
const COPIES: &str = "[copies]\nwindow_ms = 100\npath_window_ms = 1000\n";

/// A probe and a link take a core each.
static CORES: Mutex<()> = Mutex::new(());

fn cores() -> MutexGuard<'static, ()> {
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a live probe said of both mirrors.
fn counted(run: &Run) -> Counted {
    let ended = run.probe.as_ref().expect("a probe ran");
    let report = ended.expect(0, &[]).json();
    let ledger = Ledger::even(&report);
    assert_eq!((port(&report, "mirror", "missed"), run.dropped), (0, 0), "{report}");
    Counted { received: ledger.received, accounted: ledger.accounted, causes: ledger.causes }
}

/// What a replay says of captures of the taps.
fn replayed(rig: &Rig, run_: &Run, captures: &[PathBuf]) -> Counted {
    replayed_into(rig, run_, captures, (&format!("replayed-{}", captures.len()), "")).0
}

/// The same with the records in a folder of that name, and with further lines of configuration; the
/// answer has that folder.
fn replayed_into(
    rig: &Rig,
    run_: &Run,
    captures: &[PathBuf],
    (name, further): (&str, &str),
) -> (Counted, PathBuf) {
    let text = Rig::replay_plan().to_owned()
        + COPIES
        + further
        + "[flow]\nslots_per_worker = 65536\n[window]\nrows_max = 65536\n[serve]\nenabled = false\n";
    let file = rig.folder().write("replay.toml", text);
    let mut plan = config::load(&file, Mode::Replay).expect("a good configuration").plan;
    plan.store.free_mib_min = 0;
    let records = run_.records.with_file_name(name);
    let report = run(plan, captures, Some(&records)).expect("a replay").report;
    assert_eq!(report.ledger.unaccounted, 0);
    let causes = report.ledger.causes.iter().map(|(cause, count)| ((*cause).to_owned(), *count));
    let counted = Counted {
        received: report.packets,
        accounted: report.ledger.accounted,
        causes: causes.collect(),
    };
    (counted, records)
}

/// A column of `windows`, both directions.
fn both_ways(windows: &[Row], column: &str) -> u64 {
    let twin = format!("reverse_{column}");
    windows.iter().map(|row| number(row, column) + number(row, &twin)).sum()
}

fn talk(rig: &Rig) {
    rig.ping(50);
    rig.curl();
    rig.iperf3(&["--time", "3", "--bitrate", "20M"]);
    rig.iperf3(&["--time", "2", "--bitrate", "4M", "--udp", "--length", "1000"]);
}

#[test]
fn the_union_of_both_taps_is_counted_once() {
    let _cores = cores();
    let Some(rig) = Rig::new("the_union_of_both_taps_is_counted_once") else { return };
    let there = Way {
        delay_ns: 3 * MS,
        jitter_ns: MS,
        loss_ppm: 10_000,
        reorder_ppm: 5_000,
        reorder_ns: 2 * MS,
        duplicate_ppm: 5_000,
        duplicate_ns: MS / 5,
        ..Way::default()
    };
    let back = Way { delay_ns: 2 * MS, loss_ppm: 2_000, ..Way::default() };
    let mirror = Mirror { loss_ppm: 20_000, duplicate_ppm: 5_000, ..Mirror::default() };
    let impairments = Impairments { b_to_a: back, ..Impairments::alike(there, mirror) };
    let run = rig.run(17, impairments, Some(COPIES), talk);

    let total = run.truth.total();
    assert!(total.frames > 5_000, "there was traffic: {total:?}");
    // What is allowed for hides no fault.
    let unsure = total.repeated_without_identification;
    assert!(unsure * 100 <= total.logical_packets, "{total:?}");
    for count in [total.lost_shown, total.duplicated, total.reordered, total.mirror_lost_entry] {
        assert!(count > 0, "the link and the mirrors did something: {total:?}");
    }
    run.truth.assert_union(&counted(&run));
    run.truth.assert_union(&replayed(&rig, &run, &run.captures));
    let windows = rows(&run.records, "windows");
    let octets = |column: &str| {
        sum(&windows, column, |_| true) + sum(&windows, &format!("reverse_{column}"), |_| true)
    };
    if total.duplicates_without_identification == 0 {
        // But for those that nobody can tell from copies.
        let said = |column: &str, logical: u64, header_octets: u64| {
            let unsure =
                total.repeated_ip_octets + header_octets * total.repeated_without_identification;
            let counted = octets(column);
            assert!((logical - unsure..=logical).contains(&counted), "{counted}: {total:?}");
        };
        said("octet_delta_count", total.logical_ip_octets, 0);
        said("layer2_octet_delta_count", total.logical_layer2_octets, 14);
    }
    // The link did what it was told, up to the time that a machine takes to wake it.
    let [a, b] = Side::BOTH.map(Rig::address);
    let mean_ns = run.truth.mean_delay_ns(a, b).expect("samples");
    assert!((3_000_000.0..20_000_000.0).contains(&mean_ns), "{mean_ns}");
    assert!((0.005..0.02).contains(&run.truth.loss(a, b)), "{}", run.truth.loss(a, b));
}

#[test]
fn merged_and_routed_frames_arrive_and_are_taken_in() {
    let _cores = cores();
    let Some(rig) = Rig::new("merged_and_routed_frames_arrive_and_are_taken_in") else { return };
    let merge = Some(Merge { frame_octets_max: 9_014, hold_ns: MS });
    let way = Way { delay_ns: MS, merge, ttl_decrement: 1, ..Way::default() };
    let impairments = Impairments::alike(way, Mirror::default());
    let run = rig.run(5, impairments, Some(COPIES), |rig| {
        rig.curl();
        rig.iperf3(&["--time", "1", "--bitrate", "50M"]);
    });
    let total = run.truth.total();
    assert!(total.merged > 2 * total.merged_frames && total.merged_frames > 100, "{total:?}");
    // Each packet was shown where it entered, so that the union is what one tap saw.
    assert_eq!((total.logical_packets, total.only_merged), (total.frames - total.not_ip, 0));
    let shown: u64 = run.truth.taps.iter().map(|tap| tap.shown).sum();
    assert_eq!(shown, total.shown_frames() + 2 * total.not_ip, "{total:?}");
    // With one packet in sixteen followed, as live, and with all.
    let live = (counted(&run), run.records.clone());
    let one_in = |packets: u32| {
        let further = format!("[path]\nsample_one_in = {packets}\n");
        replayed_into(&rig, &run, &run.captures, (&format!("one-in-{packets}"), &further))
    };
    for (counted, records) in [live, one_in(16), one_in(1)] {
        assert_eq!(counted.received, shown, "{counted:?}");
        let of = |cause: &str| counted.causes.get(cause).copied().unwrap_or(0);
        // Both mirrors send on one wire, in the order in which the link showed the frames, so that what
        // was merged comes behind what it was made of; nothing here needs a bound.
        let copies = total.copies + total.merged_frames;
        assert_eq!((of("duplicate"), of("copy_other_tap")), (0, copies), "{counted:?}");
        assert_eq!(counted.accounted, total.logical_packets, "{counted:?}");
        let windows = rows(&records, "windows");
        assert_eq!(both_ways(&windows, "octet_delta_count"), total.logical_ip_octets);
        assert_eq!(both_ways(&windows, "layer2_octet_delta_count"), total.logical_layer2_octets);
        let again = both_ways(&windows, "retransmission_packet_count");
        assert_eq!(again, run.truth.sent_again());
    }
}

#[test]
fn both_taps_of_a_good_link_count_what_one_does() {
    let _cores = cores();
    let Some(rig) = Rig::new("both_taps_of_a_good_link_count_what_one_does") else { return };
    let way = Way { delay_ns: MS, ..Way::default() };
    let run = rig.run(3, Impairments::alike(way, Mirror::default()), None, |rig| {
        rig.curl();
        rig.iperf3(&["--time", "1", "--bitrate", "20M"]);
    });
    let total = run.truth.total();
    assert_eq!((total.lost, total.duplicates, total.unseen), (0, 0, 0), "{total:?}");
    assert_eq!(total.copies, total.frames - total.not_ip);
    let [both, one] =
        [&run.captures[..], &run.captures[..1]].map(|some| replayed(&rig, &run, some));
    run.truth.assert_union(&both);
    assert_eq!(both.accounted, one.accounted);
    for direction in Direction::BOTH {
        let delay = run.truth.direction(direction).delay;
        assert!(delay.min_ns >= MS, "{delay:?}");
    }
}
