//! Replays of captures that mean harm, with two workers. Each must end, and account for all.

use super::*;
use crate::config::replay_without_file;
use crate::time::sleep_ms;

/// Far more than such a replay takes, also where the machine is busy.
const PATIENCE_MS: u64 = 60_000;

/// A block of a pcapng file.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("small") + 12;
    [&kind.to_le_bytes(), &length.to_le_bytes(), body, &length.to_le_bytes()].concat()
}

fn section() -> Vec<u8> {
    block(0x0a0d_0d0a, &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0], &[0xff; 8][..]].concat())
}

/// An Ethernet interface; `offset_s` moves its stamps, which are in microseconds.
fn interface(offset_s: i64) -> Vec<u8> {
    let option = [&[14, 0, 8, 0], &offset_s.to_le_bytes()[..], &[0; 4]].concat();
    block(1, &[&[1, 0, 0, 0, 0, 0, 0, 0], &option[..]].concat())
}

fn packet(interface: u32, stamp: u64, frame: &[u8]) -> Vec<u8> {
    let octets = u32::try_from(frame.len()).expect("small");
    let [high, low] =
        [stamp >> 32, stamp & 0xffff_ffff].map(|half| u32::try_from(half).expect("32"));
    let words = [interface, high, low, octets, octets].map(u32::to_le_bytes).concat();
    let padding = vec![0; frame.len().next_multiple_of(4) - frame.len()];
    block(6, &[&words, frame, &padding].concat())
}

/// A UDP datagram without payload, of the `number`-th flow.
fn datagram(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let ip = [0x45, 0, 0, 28, high, low, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let udp = [high, low, 0, 53, 0, 8, 0, 0];
    [&ethernet[..], &ip, &udp].concat()
}

/// Replays `capture` with two workers; `None` if it does not end.
fn replayed(name: &str, capture: &[u8], pace: Option<f64>) -> Option<Replay> {
    let folder = std::env::temp_dir().join(format!("vmprobe-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("t.pcapng");
    std::fs::write(&path, capture).expect("a file");
    let mut plan = replay_without_file();
    plan.worker.count = 2;
    plan.flow.slots_per_worker = 1 << 10;
    plan.window.rows_max = 1 << 10;
    plan.copies.slots = 1 << 12;
    plan.decode.fragment_slots = 1 << 10;
    plan.serve.enabled = false;
    plan.store.folder = None;
    let options = ReplayOptions { files: vec![path], pace, ..ReplayOptions::default() };
    let stop = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn(move || replay(&Arc::new(plan), &options, &stop, |_| ()));
    for _ in 0..PATIENCE_MS / 10 {
        if thread.is_finished() {
            break;
        }
        sleep_ms(10);
    }
    let ended = thread.is_finished().then(|| join(thread).expect("it starts"));
    std::fs::remove_dir_all(&folder).expect("the folder is there");
    ended
}

/// Packets at usual times around one with the largest stamp that a file can say.
fn with_far_stamp() -> Vec<u8> {
    let usual = 1_700_000_000_000_000;
    let mut capture = [section(), interface(0), interface(i64::MAX)].concat();
    for number in 0..600 {
        capture.extend(packet(0, usual + u64::from(number), &datagram(number)));
    }
    capture.extend(packet(1, u64::MAX, &datagram(1)));
    for number in 600..1_200 {
        capture.extend(packet(0, usual + u64::from(number), &datagram(number)));
    }
    capture
}

#[test]
fn the_largest_stamp_stops_nobody() {
    for (name, pace) in [("far", None), ("far-paced", Some(1.0))] {
        let replay = replayed(name, &with_far_stamp(), pace).expect("it ends");
        assert_eq!((replay.report.packets, replay.errors.len()), (1_201, 0));
        let ledger = &replay.report.ledger;
        assert_eq!((ledger.received, ledger.accounted, ledger.unaccounted), (1_201, 1_201, 0));
        assert!(ledger.workers.iter().all(|worker| worker.booked > 400), "{:?}", ledger.workers);
    }
}

#[test]
fn as_many_interfaces_as_packets_take_no_more_time() {
    let mut capture = section();
    for number in 0..u32::from(u16::MAX) {
        capture.extend(interface(0));
        capture.extend(packet(number, 1_700_000_000_000_000, &datagram(1)));
    }
    let replay = replayed("interfaces", &capture, None).expect("it ends");
    assert_eq!((replay.report.packets, replay.errors.len()), (u64::from(u16::MAX), 0));
    assert_eq!(replay.report.ledger.unaccounted, 0);
    assert!(replay.report.elapsed_s < 30.0, "{} s", replay.report.elapsed_s);
}
