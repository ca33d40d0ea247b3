//! Every capture of the test data: packets and octets as tshark counts them, and as the
//! pcap-parser crate reads them.
//!
//! The data are no part of the project. They are looked for in `$VMPROBE_TEST_DATA` and in
//! `../shared/data` beside the workspace; without them the tests say so and pass.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use pcap_parser::{PcapBlockOwned, PcapError, create_reader};
use vmprobe::capture::file::FileSource;
use vmprobe::capture::{Burst, Source, SourceState};

// One file for all packages' tests.
#[path = "../../tests/src/skips.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is part of a library too")]
mod skips;

type Failure = Box<dyn Error>;

/// What one reader says of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    packets: u64,
    octets: u64,
}

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("VMPROBE_TEST_DATA").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    skips::skipped("capture_files", &format!("no captures in {}", folder.display()));
    None
}

/// All files below `folder` whose first bytes are those of a capture, in order.
fn captures(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            found.extend(captures(&path)?);
        } else if matches!(extension, Some("pcap" | "pcapng" | "cap" | "trace" | "ntar")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<(Count, Vec<String>), Failure> {
    let mut source = FileSource::open(&[path], 64)?;
    let mut count = Count::default();
    loop {
        let (burst, state) = source.poll();
        for place in 0..burst.len() {
            let frame = burst.frame(place);
            assert!(frame.bytes.len() <= frame.wire_octets as usize, "{}", path.display());
            count.packets += 1;
            count.octets += u64::from(frame.wire_octets);
        }
        if state == SourceState::Ended {
            break;
        }
    }
    let progress = source.progress();
    let totals = Count { packets: progress.packets.load(), octets: progress.octets.load() };
    assert_eq!(totals, count, "{}", path.display());
    Ok((count, source.errors().iter().map(ToString::to_string).collect()))
}

/// What tshark counted, from the file beside the capture.
fn tshark(path: &Path) -> Result<Option<Count>, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tshark.json");
    if !Path::new(&name).is_file() {
        return Ok(None);
    }
    let facts: serde_json::Value = serde_json::from_reader(File::open(&name)?)?;
    let number = |key: &str| facts.get(key).and_then(serde_json::Value::as_u64).ok_or("a number");
    Ok(Some(Count { packets: number("packets")?, octets: number("bytes_on_wire")? }))
}

/// What another reader of the formats finds; `None` where it gives up.
fn other_reader(path: &Path) -> Result<Option<Count>, Failure> {
    let Ok(mut reader) = create_reader(1 << 20, File::open(path)?) else { return Ok(None) };
    let mut count = Count::default();
    loop {
        let more = match reader.next() {
            Ok((bytes, block)) => {
                if let Some(octets) = original_octets(&block) {
                    count.packets += 1;
                    count.octets += u64::from(octets);
                }
                reader.consume(bytes);
                false
            }
            Err(PcapError::Eof) => return Ok(Some(count)),
            Err(PcapError::Incomplete(_)) => true,
            Err(_) => return Ok(None),
        };
        if more && (reader.reader_exhausted() || reader.refill().is_err()) {
            return Ok(None);
        }
    }
}

fn original_octets(block: &PcapBlockOwned<'_>) -> Option<u32> {
    use pcap_parser::pcapng::Block;
    match block {
        PcapBlockOwned::Legacy(packet) => Some(packet.origlen),
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => Some(packet.origlen),
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => Some(packet.origlen),
        _ => None,
    }
}

#[test]
fn packets_and_octets_are_those_of_tshark() -> Result<(), Failure> {
    let Some(folder) = data() else { return Ok(()) };
    let (mut compared, mut differing) = (0, Vec::new());
    for path in captures(&folder)? {
        let Some(expected) = tshark(&path)? else { continue };
        let (count, errors) = read(&path)?;
        compared += 1;
        if count != expected || !errors.is_empty() {
            differing
                .push(format!("{}: {count:?}, tshark {expected:?}, {errors:?}", path.display()));
        }
    }
    eprintln!("{compared} captures compared with tshark, {} differ", differing.len());
    for line in &differing {
        eprintln!("{line}");
    }
    assert!(differing.is_empty(), "see the table above");
    Ok(())
}

#[test]
fn packets_and_octets_are_those_of_another_reader() -> Result<(), Failure> {
    let Some(folder) = data() else { return Ok(()) };
    let (mut compared, mut differing) = (0, Vec::new());
    for path in captures(&folder)? {
        let (count, errors) = read(&path)?;
        let Some(expected) = other_reader(&path)? else { continue };
        compared += 1;
        if count != expected || !errors.is_empty() {
            differing
                .push(format!("{}: {count:?}, other {expected:?}, {errors:?}", path.display()));
        }
    }
    eprintln!("{compared} captures compared with pcap-parser, {} differ", differing.len());
    for line in &differing {
        eprintln!("{line}");
    }
    assert!(differing.is_empty(), "see the table above");
    Ok(())
}
