//! Taps and ledger are the same for any number of workers, and whatever the order of their turns.
//!
//! One thread takes the turns, so each order is the same every time.

use std::path::Path;
use std::sync::Arc;

use vmprobe::aggregate::Aggregator;
use vmprobe::capture::file::{FileSource, PcapWriter};
use vmprobe::config;
use vmprobe::counters::TapTotals;
use vmprobe::runtime::Build;
use vmprobe::time::Timestamp;
use vmprobe::worker::{Turn, Worker};
use vmprobe_tests::folder::Folder;

/// So many that each of three workers owns some, whatever the seed.
const FLOWS: u8 = 64;

const BURST: usize = 32;

/// Of each group of packets: whole bursts, so that time also goes on by what the reader says.
const GROUP: u64 = 2 * FLOWS as u64;

/// When the other workers have their turns.
#[derive(Clone, Copy, Debug)]
enum Owners {
    /// After each of the reader's.
    Between,
    /// When the reader has ended.
    Afterwards,
}

/// What a window says: its start in seconds, its tap, and what the ledger has accounted for.
type Window = (u64, TapTotals, u64);

/// Groups of packets with nothing between: all flows, each packet twice; one flow; all flows; and
/// all of them once more shortly before the grace of that window is over.
fn write(path: &Path) {
    let file = std::fs::File::create(path).expect("the temporary folder takes files");
    let mut writer = PcapWriter::new(std::io::BufWriter::new(file), 1, true).expect("room");
    let mut group = |at_ms: u64, flow: &dyn Fn(u64) -> u8| {
        for number in 0..GROUP {
            let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4([10, 0, 0, flow(number)], [11, 0, 0, 1], 64)
                .udp(5_000, 9);
            let mut frame = Vec::new();
            builder.write(&mut frame, &at_ms.to_be_bytes().repeat(3)).expect("a vector takes all");
            let stamp = Timestamp(at_ms * 1_000_000 + number * 1_000);
            let octets = u32::try_from(frame.len()).expect("short");
            writer.write(stamp, octets, &frame).expect("room");
        }
    };
    let twice = |number: u64| u8::try_from(number / 2).expect("few");
    group(100_300, &twice);
    group(103_400, &|_| 0);
    group(108_500, &twice);
    group(109_100, &twice);
    group(109_400, &|_| 0);
    writer.finish().expect("room");
}

fn windows(path: &Path, workers: usize, owners: Owners) -> Vec<Window> {
    let mut plan = config::replay_without_file();
    plan.flow.slots_per_worker = 1 << 10;
    plan.window.rows_max = 1 << 10;
    plan.copies.slots = 1 << 12;
    let plan = Arc::new(plan);
    let build = Build::new(&plan, None, &[], (1, workers), true);
    let mut aggregator = Aggregator::new(build.handoffs, build.windows, plan.window.rows_max);
    let mut seats = build.seats.into_iter();
    let source = FileSource::open(&[path], BURST).expect("it was just written");
    let mut reader = Worker::new(Some(source), seats.next().expect("at least one").parts());
    let owner = |seat: vmprobe::runtime::Seat| Worker::<FileSource>::new(None, seat.parts());
    let mut others: Vec<_> = seats.map(owner).collect();
    while reader.turn() != Turn::Ended {
        if matches!(owners, Owners::Between) {
            for other in &mut others {
                while other.turn() == Turn::Busy {}
            }
        }
        while aggregator.collect() {}
    }
    reader.finish();
    for other in &mut others {
        while other.turn() != Turn::Ended {
            while aggregator.collect() {}
        }
        other.finish();
    }
    while aggregator.collect() {}
    let mut windows = Vec::new();
    while let Some(view) = aggregator.next_view() {
        assert_eq!(view.ledger.unaccounted, 0, "{}", view.number.0);
        let [tap] = &*view.taps else { panic!("one tap: {:?}", view.taps) };
        windows.push((view.start.0 / 1_000_000_000, tap.totals, view.ledger.accounted));
    }
    assert!(aggregator.has_ended());
    windows
}

#[test]
fn what_a_tap_counted_stands_in_its_window_whoever_found_it() {
    let folder = Folder::new("turns");
    let path = folder.path("turns.pcap");
    write(&path);
    let one = windows(&path, 1, Owners::Between);
    let counted = |window: &Window| {
        let (start, tap, accounted) = *window;
        (start, tap.packets, tap.duplicates + tap.ambiguous, accounted)
    };
    let each = u64::from(FLOWS);
    let expected = [
        (100, GROUP, each, GROUP),
        (102, 0, 0, GROUP),
        (103, GROUP, GROUP - 1, 2 * GROUP),
        (107, 0, 0, 2 * GROUP),
        // While the grace of a window lasts its tap counts on; conversations have their own window.
        (108, 2 * GROUP, 2 * each, 3 * GROUP),
        (109, GROUP, GROUP - 1, 5 * GROUP),
    ];
    assert_eq!(one.iter().map(counted).collect::<Vec<_>>(), expected);
    for workers in [2, 3] {
        for owners in [Owners::Between, Owners::Afterwards] {
            let some = windows(&path, workers, owners);
            assert_eq!(some, one, "{workers} workers, {owners:?}");
        }
    }
}
