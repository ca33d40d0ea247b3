//! Delay and loss between taps as `vmprobe run` measures them live, against the log of the link.
//!
//! Times are those of the log, never of this test: the link reads the same clock as the kernel that
//! stamps frames for the probe. A probe that stamps a frame when it comes to look at it is late by
//! milliseconds where it shares its core, so times are compared under kernel stamps only.
#![cfg(feature = "dpdk")]
#![expect(clippy::disallowed_types, reason = "tests wait for one another")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::Value as Json;
use vmprobe::config::{self, Mode};
use vmprobe_tests::end_to_end::{Ledger, Rig, Run, port};
use vmprobe_tests::link::{Counted, Direction, Frame, Impairments, Mirror, Way};
use vmprobe_tests::paths::{Booked, Seen, is_of, seen};
use vmprobe_tests::records::{Row, number, rows, text};
use vmprobe_tests::replaying::run;

const MS: u64 = 1_000_000;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Every packet is followed; a mirror may wait for a core as long as it takes.
const FOLLOW_ALL: &str = "[copies]\nwindow_ms = 100\npath_window_ms = 1000\n\
                          [path]\nsample_one_in = 1\nsamples = true\n";

/// Runs until the probe was not kept from the frames.
const TRIES_MAX: u32 = 3;

/// Deviation of a run's errors that is usual, in that of the noise: 0 to 2 on a machine that does nothing else.
/// What stands still for milliseconds between a clock and a frame makes it several times that, and puts the mean
/// off by as much as the bound.
const STEADY_NOISES: f64 = 3.0;

/// A probe and a link take a core each.
static CORES: Mutex<()> = Mutex::new(());

/// Packets of one protocol in one direction.
#[derive(Clone, Copy, Debug)]
struct Flow {
    protocol: u8,
    direction: Direction,
}

impl Flow {
    fn is_frame(self, frame: &Frame) -> bool {
        frame.protocol == Some(self.protocol) && frame.direction == self.direction
    }

    fn is_row(self, row: &Row) -> bool {
        let [source, destination] =
            [self.direction.entry(), self.direction.exit()].map(Rig::address);
        let [from, to] = match self.direction {
            Direction::AToB => ["a", "b"],
            Direction::BToA => ["b", "a"],
        };
        is_of(row, source, destination)
            && number(row, "protocol_identifier") == u64::from(self.protocol)
            && (text(row, "from_tap"), text(row, "to_tap")) == (Some(from), Some(to))
    }
}

/// What a live probe said at its end.
fn report(run: &Run) -> Json {
    run.probe.as_ref().expect("a probe ran").expect(0, &[]).json()
}

/// What a live probe counted; it missed nothing.
fn counted(run: &Run) -> Counted {
    let report = report(run);
    let ledger = Ledger::even(&report);
    assert_eq!(port(&report, "mirror", "missed"), 0, "{report}");
    Counted { received: ledger.received, accounted: ledger.accounted, causes: ledger.causes }
}

/// Both taps count the union that the link logged, but for resets and the like that equal one another:
/// where a mirror loses some, which of them a copy belongs to can't be told.
fn check_union_nearly(run: &Run) {
    let total = run.truth.total();
    let unsure = run.truth.of(|frame| frame.identification == 0).frames;
    assert!(unsure * 100 <= total.frames, "{unsure} {total:?}");
    let counted = counted(run);
    let copies = counted.causes.get("copy_other_tap").copied().unwrap_or(0);
    for (found, truly) in [(counted.accounted, total.logical_packets), (copies, total.copies)] {
        assert!(found.abs_diff(truly) <= unsure, "{counted:?} {unsure} {total:?}");
    }
    let shown: u64 = run.truth.taps.iter().map(|tap| tap.shown).sum();
    assert_eq!(counted.received, shown, "{counted:?} {total:?}");
    let not_ip: u64 = run.truth.taps.iter().map(|tap| tap.shown_not_ip).sum();
    assert_eq!(counted.received, counted.accounted + copies + not_ip, "{counted:?}");
}

/// Frames that the kernel had no room for while the probe waited for a core.
fn missed(run: &Run) -> u64 {
    port(&report(run), "mirror", "missed")
}

/// Sightings that the thread which compares them had no room for while it waited for a core.
fn samples_lost(run: &Run) -> u64 {
    report(run)["ledger"]["beside"]["path_samples_lost"].as_u64().unwrap_or(0)
}

/// A run that is `good`, or the last of [`TRIES_MAX`].
fn tried(run: impl Fn() -> Run, good: impl Fn(&Run) -> bool) -> Run {
    let mut tries = 0;
    loop {
        let run = run();
        tries += 1;
        if good(&run) || tries == TRIES_MAX {
            return run;
        }
    }
}

/// A run of which the probe missed at most one frame in so many (`u64::MAX`: none) and compared all
/// that it saw; where it has to wait long for a core it is done again.
fn observed(one_in: u64, run: impl Fn() -> Run) -> Run {
    tried(run, |run| {
        let shown: u64 = run.truth.taps.iter().map(|tap| tap.shown).sum();
        missed(run) <= shown / one_in && samples_lost(run) == 0
    })
}

/// A run of the usual talk.
fn talked(rig: &Rig, seed: u64, impairments: &Impairments) -> Run {
    observed(20, || rig.run(seed, impairments.clone(), Some(FOLLOW_ALL), talk))
}

/// The same of which no single packets are further off than where the link does nothing; where some are, it
/// is done again, as it is where the probe missed frames.
fn talked_steadily(rig: &Rig, seed: u64, impairments: &Impairments, noise_ns: f64) -> Run {
    let is_steady = |error: &f64| *error <= STEADY_NOISES * noise_ns;
    tried(|| talked(rig, seed, impairments), |run| errors_ns(run).iter().all(is_steady))
}

/// Times between the two sightings of each packet, by who sent it.
fn times_ns(run: &Run) -> BTreeMap<Option<String>, Vec<f64>> {
    let mut sights: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows(&run.records, "path_samples") {
        let packet =
            (text(&row, "source_address").map(str::to_owned), number(&row, "digest_hash_value"));
        sights.entry(packet).or_default().push(number(&row, "observation_time_ns"));
    }
    let mut times: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ((source, _), sights) in sights {
        if let [one, other] = sights[..] {
            times.entry(source).or_default().push(nanoseconds(one.abs_diff(other)));
        }
    }
    times
}

#[expect(clippy::cast_precision_loss, reason = "times and counts of a test are far below 2^52")]
fn nanoseconds(ns: u64) -> f64 {
    ns as f64
}

fn deviation(values: &[f64]) -> f64 {
    let count = nanoseconds(values.len() as u64).max(1.0);
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// Deviation of one packet's time, where the link does nothing: that of the probe's times and that of
/// the link's own, as if both erred together.
fn noise_ns(run: &Run) -> f64 {
    let logged: Vec<_> =
        run.truth.frames.iter().filter_map(Frame::delay_ns).map(nanoseconds).collect();
    let seen: Vec<_> = times_ns(run).into_values().flatten().collect();
    assert!(seen.len() > 1_000 && logged.len() > 1_000, "{} {}", seen.len(), logged.len());
    deviation(&seen) + deviation(&logged)
}

/// Of each direction, how far the probe's times of single packets are from the link's: the deviation that
/// the ones have beyond the other's. A link or a kernel that is kept from its core between reading the
/// clock and showing a frame makes it large; a probe that is off by a constant does not. One that is off by a
/// share does, each time, and the last run is held to the bound whatever it is.
fn errors_ns(run: &Run) -> [f64; 2] {
    let mut times = times_ns(run);
    [Direction::AToB, Direction::BToA].map(|direction| {
        let of_direction = run.truth.frames.iter().filter(|it| it.direction == direction);
        let logged: Vec<_> = of_direction.filter_map(Frame::delay_ns).map(nanoseconds).collect();
        let source = Some(Rig::address(direction.entry()).to_string());
        let seen = times.remove(&source).unwrap_or_default();
        (deviation(&seen).powi(2) - deviation(&logged).powi(2)).max(0.0).sqrt()
    })
}

/// |D − log| is within one in a hundred, or three standard errors of the noise.
fn check_delay(run: &Run, flow: Flow, noise_ns: f64) {
    let path = rows(&run.records, "path");
    let seen = seen(&path, |row| flow.is_row(row));
    let delay = run.truth.of(|frame| flow.is_frame(frame)).delay;
    assert!(delay.count > 300, "{flow:?} {delay:?}");
    // Resets and the like equal each other, so that no time is theirs alone.
    let equal = run.truth.of(|frame| flow.is_frame(frame) && frame.identification == 0).delay.count;
    let sure = (delay.count - equal).saturating_sub(missed(run));
    assert!((sure..=delay.count).contains(&seen.delays), "{flow:?} {seen:?} {delay:?} {equal}");
    let (found, logged) = (seen.mean_ns().expect("samples"), delay.mean_ns().expect("samples"));
    let bound = (logged / 100.0).max(3.0 * noise_ns / nanoseconds(delay.count).sqrt());
    assert!((found - logged).abs() <= bound, "{flow:?} {found} {logged} {bound}");
}

/// Records of the captures that the link wrote, every packet followed.
fn replayed(rig: &Rig, run_: &Run) -> PathBuf {
    let text = Rig::replay_plan().to_owned()
        + FOLLOW_ALL
        + "[flow]\nslots_per_worker = 65536\n[window]\nrows_max = 65536\n[serve]\nenabled = false\n";
    let file = rig.folder().write("replay.toml", text);
    let mut plan = config::load(&file, Mode::Replay).expect("a good configuration").plan;
    plan.store.free_mib_min = 0;
    let records = run_.records.with_file_name("replayed");
    let report = run(plan, &run_.captures, Some(&records)).expect("a replay").report;
    assert_eq!(report.ledger.unaccounted, 0);
    records
}

fn flows() -> impl Iterator<Item = Flow> {
    let there = Flow { protocol: UDP, direction: Direction::AToB };
    let segments = Flow { protocol: TCP, ..there };
    [there, segments, Flow { direction: Direction::BToA, ..segments }].into_iter()
}

fn talk(rig: &Rig) {
    rig.iperf3(&["--time", "1", "--bitrate", "16M", "--udp", "--length", "500"]);
    rig.iperf3(&["--time", "1", "--bitrate", "20M"]);
}

#[test]
fn delay_is_that_of_the_log() {
    let _cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(rig) = Rig::new("delay_is_that_of_the_log") else { return };
    let rig = rig.with_kernel_stamps();
    let noise_ns = noise_ns(&talked(&rig, 1, &Impairments::default()));
    for seed in [2, 3] {
        let there = Way { delay_ns: 4 * MS, jitter_ns: 2 * MS, loss_ppm: 10_000, ..Way::default() };
        let back = Way { delay_ns: 2 * MS, jitter_ns: MS, ..Way::default() };
        let impairments =
            Impairments { b_to_a: back, ..Impairments::alike(there, Mirror::default()) };
        let run = talked_steadily(&rig, seed, &impairments, noise_ns);
        for flow in flows() {
            check_delay(&run, flow, noise_ns);
        }
        let datagrams = flows().next().expect("the first");
        let seen = seen(&rows(&run.records, "path"), |row| datagrams.is_row(row));
        let lost = run.truth.of(|frame| datagrams.is_frame(frame)).lost;
        // Nobody says of a datagram where it was lost.
        assert!(lost > 10, "{lost}");
        assert_eq!((seen.network, seen.mirror), (0, 0), "{seen:?}");
        let missed = missed(&run);
        assert!(seen.unresolved.abs_diff(lost) + seen.first_missed <= missed, "{seen:?} {missed}");
    }
}

#[test]
fn loss_is_that_of_the_log_and_mirrors_lose_apart() {
    let _cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(rig) = Rig::new("loss_is_that_of_the_log_and_mirrors_lose_apart") else { return };
    for seed in [5, 6] {
        let way = Way { delay_ns: 2 * MS, jitter_ns: MS / 2, loss_ppm: 10_000, ..Way::default() };
        let mirror = Mirror { loss_ppm: 20_000, ..Mirror::default() };
        let transfer = |rig: &Rig| {
            rig.iperf3(&["--bytes", "80M", "--bitrate", "12M", "--parallel", "16"]);
        };
        let impairments = Impairments::alike(way, mirror);
        let run =
            observed(u64::MAX, || rig.run(seed, impairments.clone(), Some(FOLLOW_ALL), transfer));
        check_union_nearly(&run);
        let flow = Flow { protocol: TCP, direction: Direction::AToB };
        let path = rows(&run.records, "path");
        let seen: Seen = seen(&path, |row| flow.is_row(row));
        let truth = run.truth.of(|frame| flow.is_frame(frame));
        assert!(truth.frames >= 50_000, "{truth:?}");
        // L_low and L_high.
        for loss in <[f64; 2]>::from(seen.loss()) {
            assert!((loss - truth.loss()).abs() <= 0.001, "{loss} {} {seen:?}", truth.loss());
        }
        // What neither tap showed nobody knows of.
        let is_unshown = |frame: &Frame| frame.shown.entry > 0 && frame.shown.exit == 0;
        let unshown =
            run.truth.of(|frame| flow.is_frame(frame) && is_unshown(frame) && !frame.is_lost());
        let (lost, unshown) = (truth.lost_shown, unshown.frames);
        assert!(lost > 400 && unshown > 800, "{lost} {unshown}");
        // At most one in a hundred of either is booked as the other; of what was under way when the
        // connections were reset nobody says anything.
        assert!(seen.network <= lost + unshown / 100, "{seen:?} {lost} {unshown}");
        assert!(seen.mirror <= unshown + lost / 100, "{seen:?} {lost} {unshown}");
        assert!(seen.unresolved * 20 <= lost + unshown, "{seen:?}");
        assert_eq!(seen.network + seen.mirror + seen.unresolved, lost + unshown, "{seen:?}");
        // Packet by packet, in the link's own captures, where a time says which packet it is.
        let records = replayed(&rig, &run);
        let booked = Booked::of(&run.truth, &records, |frame| flow.is_frame(frame));
        let alone = |frame: &Frame| flow.is_frame(frame) && is_unshown(frame);
        let sure = run.truth.of(|frame| alone(frame) && frame.identification != 0).frames;
        assert_eq!(booked.truly().iter().sum::<u64>(), sure, "{booked:?}");
        booked.check();
        let first = run
            .truth
            .of(|frame| flow.is_frame(frame) && frame.shown.entry == 0 && frame.shown.exit > 0);
        assert_eq!(seen.first_missed, first.frames, "{seen:?}");
        assert_eq!(seen.sampled + seen.ambiguous, truth.logical_packets, "{seen:?} {truth:?}");
    }
}
