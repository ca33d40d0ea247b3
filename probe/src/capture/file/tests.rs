//! Whole files through the source. Every file is read with several burst and buffer sizes, which
//! must not show.

use std::io::Cursor;

use super::classic::tests::file;
use super::input::tests::{gzip, zstd};
use super::pcapng::tests::Blocks;
use super::record::Order;
use super::*;
use crate::capture::LinkType;
use crate::index::PortIndex;

/// A frame that outlives its burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) timestamp: Timestamp,
    pub(super) bytes: Vec<u8>,
    pub(super) wire_octets: u32,
    pub(super) link: LinkType,
    pub(super) port: PortIndex,
}

/// All that a source gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) frames: Vec<Kept>,
    pub(super) ports: Vec<String>,
    pub(super) errors: Vec<String>,
    pub(super) packets: u64,
    pub(super) octets: u64,
}

fn sized(files: Vec<(&str, Vec<u8>)>, burst: usize, buffer: usize) -> FileSource {
    let inputs = files
        .into_iter()
        .map(|(name, bytes)| -> (PathBuf, Box<dyn Read + Send>) {
            (name.into(), Box::new(Cursor::new(bytes)))
        })
        .collect();
    FileSource::with_buffers(inputs, burst, buffer).expect("memory can be read")
}

/// A source over files in memory, with bursts of so many packets.
pub(super) fn in_bursts(files: Vec<(&str, Vec<u8>)>, burst: usize) -> FileSource {
    sized(files, burst, 1 << 16)
}

/// A source over files in memory.
pub(super) fn source(files: Vec<(&str, Vec<u8>)>) -> FileSource {
    sized(files, 64, 1 << 16)
}

fn drain(mut source: FileSource) -> Seen {
    let mut frames: Vec<Kept> = Vec::new();
    let mut clock = Timestamp::ZERO;
    loop {
        let (known, most) = (source.ports().len(), source.burst_packets);
        let (burst, state) = source.poll();
        assert!(burst.len() <= most);
        for place in 0..burst.len() {
            let frame = burst.frame(place);
            assert!(usize::from(frame.port.0) < known, "named before its first packet");
            clock = clock.max(frame.timestamp);
            frames.push(Kept {
                timestamp: frame.timestamp,
                bytes: frame.bytes.to_vec(),
                wire_octets: frame.wire_octets,
                link: frame.link,
                port: frame.port,
            });
        }
        match state {
            SourceState::Open(largest) => assert_eq!(largest, clock),
            SourceState::Quiet => unreachable!("files end"),
            SourceState::Ended => {
                assert!(burst.is_empty());
                break;
            }
        }
    }
    Seen {
        frames,
        ports: source.ports().to_vec(),
        errors: source.errors().iter().map(ToString::to_string).collect(),
        packets: source.progress().packets.load(),
        octets: source.progress().octets.load(),
    }
}

/// Reads files in memory to their end.
pub(super) fn read(files: &[(&str, Vec<u8>)]) -> Seen {
    let seen = drain(sized(files.to_vec(), 64, 1 << 16));
    for (burst, buffer) in [(1, 1), (3, 50), (7, 1 << 16), (64, 50)] {
        let again = drain(sized(files.to_vec(), burst, buffer));
        assert_eq!(again, seen, "burst of {burst}, buffer of {buffer} bytes");
    }
    assert_eq!(seen.packets, seen.frames.len() as u64);
    assert_eq!(
        seen.octets,
        seen.frames.iter().map(|frame| u64::from(frame.wire_octets)).sum::<u64>()
    );
    seen
}

/// A file with one packet for each stamp in nanoseconds, numbered from 0 in its octets.
pub(super) fn capture(stamps_ns: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = PcapWriter::new(&mut bytes, 1, true).expect("a vector takes all");
    for (number, stamp) in (0_u32..).zip(stamps_ns) {
        writer.write(Timestamp(*stamp), 60, &number.to_be_bytes()).expect("a vector takes all");
    }
    writer.finish().expect("a vector takes all");
    bytes
}

fn order_of(seen: &Seen) -> Vec<(u16, u64)> {
    seen.frames.iter().map(|frame| (frame.port.0, frame.timestamp.as_ns())).collect()
}

/// A small deterministic stream of numbers (xorshift).
fn numbers(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn pcapng() -> Vec<u8> {
    let blocks = Blocks(Order::Little);
    [
        blocks.section(),
        blocks.interface(1, 0, &blocks.option(2, b"eth0")),
        blocks.interface(101, 0, &blocks.option(9, &[9])),
        blocks.enhanced(0, 5, b"abcdef", 60, &blocks.option(2, &[0x80, 0, 0, 0])),
        blocks.enhanced(1, 7_000, b"gh", 2, &[]),
        blocks.simple(4, b"ijkl"),
    ]
    .concat()
}

#[test]
fn files_are_merged_by_stamp_then_by_order() {
    let seen = read(&[
        ("b", capture(&[10, 20, 30])),
        ("a", capture(&[10, 15, 30, 40])),
        ("c", capture(&[5])),
    ]);
    assert_eq!(seen.ports, ["b", "a", "c"]);
    let merged = [(2, 5), (0, 10), (1, 10), (1, 15), (0, 20), (0, 30), (1, 30), (1, 40)];
    assert_eq!(order_of(&seen), merged);
}

#[test]
fn a_stamp_that_goes_back_stays_where_it_is_in_its_file() {
    let seen = read(&[("a", capture(&[10, 5, 11])), ("b", capture(&[7, 8, 10]))]);
    assert_eq!(order_of(&seen), [(1, 7), (1, 8), (0, 10), (0, 5), (1, 10), (0, 11)]);
}

#[test]
fn merging_agrees_with_a_stable_sort() {
    let mut next = numbers(42);
    for _ in 0..20 {
        let files: Vec<Vec<u64>> = (0..5)
            .map(|_| {
                let mut stamps: Vec<u64> = (0..next() % 40).map(|_| next() % 50).collect();
                stamps.sort_unstable();
                stamps
            })
            .collect();
        let mut expected: Vec<(u64, u16)> = (0_u16..)
            .zip(&files)
            .flat_map(|(file, stamps)| stamps.iter().map(move |stamp| (*stamp, file)))
            .collect();
        expected.sort_unstable();
        let captures = files.iter().map(|stamps| capture(stamps));
        let seen = read(&["a", "b", "c", "d", "e"].into_iter().zip(captures).collect::<Vec<_>>());
        let order: Vec<_> =
            order_of(&seen).into_iter().map(|(file, stamp)| (stamp, file)).collect();
        assert_eq!(order, expected);
    }
}

#[test]
fn equal_stems_give_different_ports() {
    let seen = read(&[("x/tap.pcap", capture(&[1])), ("y/tap.pcapng", capture(&[2]))]);
    assert_eq!(seen.ports, ["tap", "tap#2"]);
}

#[test]
fn compressed_files_are_the_plain_ones() {
    for plain in [capture(&[1, 2, 3]), pcapng()] {
        let expected = read(&[("a", plain.clone())]);
        assert_eq!(read(&[("a", gzip(&plain))]), expected);
        assert_eq!(read(&[("a", zstd(&plain))]), expected);
    }
}

#[test]
fn one_layer_of_compression_is_taken_off() {
    let seen = read(&[("a", gzip(&gzip(&capture(&[1]))))]);
    assert_eq!(seen.packets, 0);
    assert!(seen.errors[0].starts_with("a: at byte 0: neither pcap nor pcapng"), "{seen:?}");
}

#[test]
fn a_cut_compressed_file_gives_what_can_be_unpacked() {
    let stamps: Vec<u64> = (0..2_000).map(|number| number * 7_919).collect();
    for packed in [gzip(&capture(&stamps)), zstd(&capture(&stamps))] {
        let seen = read(&[("a", packed[..packed.len() - 12].to_vec())]);
        let given: Vec<u64> = seen.frames.iter().map(|frame| frame.timestamp.as_ns()).collect();
        assert!(stamps.starts_with(&given));
        assert_eq!(seen.errors.len(), 1);
        assert!(seen.errors[0].starts_with("a: after byte "), "{:?}", seen.errors);
    }
}

#[test]
fn what_is_no_capture_says_so_and_the_others_go_on() {
    let seen = read(&[
        ("empty", vec![]),
        ("text", b"# not a capture".to_vec()),
        ("good", capture(&[1, 2])),
        ("header", capture(&[])),
        ("short", capture(&[])[..20].to_vec()),
        ("tiny", vec![0xd4]),
        ("gzip", gzip(b"")),
    ]);
    assert_eq!(seen.packets, 2);
    assert_eq!(seen.ports, ["good", "header"]);
    assert_eq!(
        seen.errors,
        [
            "empty: at byte 0: the file is empty",
            "text: at byte 0: neither pcap nor pcapng, it begins with the octets [23, 20, 6e, 6f]",
            "short: at byte 0: cut short: 20 of 24 bytes are there",
            "tiny: at byte 0: cut short: 1 of 24 bytes are there",
            "gzip: at byte 0: the file is empty",
        ]
    );
}

#[test]
fn a_file_cut_anywhere_gives_all_whole_packets_and_one_error() {
    let classic = capture(&[1, 2, 3]);
    for length in 1..classic.len() {
        let seen = read(&[("a", classic[..length].to_vec()), ("b", capture(&[9]))]);
        let whole = length.saturating_sub(24) / 20;
        assert_eq!(seen.packets, whole as u64 + 1, "cut at {length}");
        let clean = length >= 24 && (length - 24) % 20 == 0;
        assert_eq!(seen.errors.len(), usize::from(!clean), "cut at {length}");
    }
    let blocks = pcapng();
    let whole = read(&[("a", blocks.clone())]);
    assert_eq!((whole.packets, whole.errors.len()), (3, 0));
    for length in 1..blocks.len() {
        let seen = read(&[("a", blocks[..length].to_vec())]);
        assert!(whole.frames.starts_with(&seen.frames), "cut at {length}");
        assert!(seen.errors.len() <= 1);
    }
}

#[test]
fn flipped_bits_never_panic_and_never_hang() {
    let modified =
        file(Order::Big, MAGIC_MODIFIED, 0x2400_0001, &[(1, 2, b"abc", 3), (1, 3, b"d", 5)]);
    for whole in [capture(&[1, 2, 3]), pcapng(), modified] {
        assert_eq!(exercise(&whole), read(&[("a", whole.clone())]).packets);
        for place in 0..whole.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut flipped = whole.clone();
                flipped[place] ^= flip;
                exercise(&flipped);
            }
        }
    }
}

#[test]
fn mutated_files_never_panic_and_never_hang() {
    let mut next = numbers(7);
    let wholes = [capture(&[1, 2, 3]), pcapng(), gzip(&pcapng()), zstd(&capture(&[1, 2]))];
    for round in 0..4_000 {
        let mut bytes = wholes[round % wholes.len()].clone();
        for _ in 0..=next() % 6 {
            let place = usize::try_from(next()).expect("64 bits") % bytes.len();
            match next() % 4 {
                0 => bytes[place] = 0,
                1 => bytes[place] = 0xff,
                2 => bytes[place] = next().to_le_bytes()[0],
                _ => bytes.truncate(place.max(1)),
            }
        }
        exercise(&bytes);
    }
}

#[test]
fn paths_that_cannot_be_opened_are_told_apart() {
    let none: [&str; 0] = [];
    assert!(matches!(FileSource::open(&none, 1), Err(OpenError::NoFiles)));
    let missing = FileSource::open(&["/nonexistent/a.pcap"], 1);
    assert!(matches!(missing, Err(OpenError::Missing { .. })), "{missing:?}");
    let directory = FileSource::open(&["/"], 1);
    assert!(matches!(directory, Err(OpenError::Directory { .. })), "{directory:?}");
}

#[test]
fn progress_ends_at_the_size_of_the_files() {
    let folder = std::env::temp_dir().join(format!("vmprobe-capture-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let (plain, packed) = (folder.join("a.pcap"), folder.join("b.pcap.gz"));
    std::fs::write(&plain, capture(&[1, 3])).expect("written");
    std::fs::write(&packed, gzip(&capture(&[2]))).expect("written");
    let source = FileSource::open(&[&plain, &packed], 8).expect("both are there");
    let progress = Arc::clone(source.progress());
    let seen = drain(source);
    std::fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(seen.ports, ["a", "b"]);
    assert_eq!(order_of(&seen), [(0, 1), (1, 2), (0, 3)]);
    assert_eq!(progress.bytes_read.load(), progress.bytes_total.load());
    assert_ne!(progress.bytes_total.load(), 0);
}

#[test]
fn a_limit_holds_packets_back_in_every_file() {
    let mut source = source(vec![("a", capture(&[10, 30])), ("b", capture(&[20, 40]))]);
    assert_eq!(source.next_stamp(), Some(Timestamp(10)));
    assert_eq!(source.poll_until(Timestamp(9)).0.len(), 0);
    assert_eq!(source.poll_until(Timestamp(20)).0.len(), 2);
    assert_eq!(source.next_stamp(), Some(Timestamp(30)));
    let (burst, state) = source.poll();
    assert_eq!((burst.len(), state), (2, SourceState::Open(Timestamp(40))));
    assert_eq!(source.poll().1, SourceState::Ended);
    assert_eq!(source.next_stamp(), None);
}
