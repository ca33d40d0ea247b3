//! Capture files: pcap and pcapng, plain, gzip or zstd; several at once.
//!
//! In: paths. Out: [`FileSource`], whose bursts are the packets of all files by stamp.
//! Cost: files are read in blocks of up to 1 MiB, packets are never copied; nothing is allocated
//! a packet.
//! Invariants: within a file the order is the file's, also where a stamp goes back; a port is in
//! [`FileSource::ports`] before the poll that gives its first packet; a damaged file gives all
//! whole packets before the damage and one [`FileError`], the others go on.
//! Source: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng; how replay counts time, the path
//! of a packet in ARCHITECTURE.md.

mod buffer;
mod classic;
mod error;
mod input;
mod interface;
mod link;
mod merge;
mod pace;
mod pcapng;
mod ports;
mod reader;
mod record;
mod write;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::input::Input;
use self::merge::Merge;
use self::reader::Reader;
use self::record::Record;
use super::{Burst, Frame, Source, SourceState};
use crate::counters::Counter;
use crate::time::Timestamp;

pub use self::error::{Damage, FileError, OpenError};
pub use self::pace::{Paced, Scheduled};
pub use self::write::PcapWriter;

/// First word of a classic pcap file with stamps in microseconds.
const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;

/// First word of a classic pcap file with stamps in nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;

/// First word of a classic pcap file with the modified record header.
const MAGIC_MODIFIED: u32 = 0xa1b2_cd34;

/// Octets of one packet that a record may hold; more is a corrupt record. The largest snap
/// length that tcpdump and Wireshark use (`MAXIMUM_SNAPLEN`).
pub const CAPTURED_OCTETS_MAX: u32 = 262_144;

/// Length of a pcapng block; more is a corrupt block. The bound that Wireshark has.
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;

/// Files that one source reads at once.
pub const FILES_MAX: usize = 4_096;

/// Files and interfaces that can be numbered ([`crate::index::PortIndex`]).
pub const PORTS_MAX: usize = 1 << 16;

/// Read-ahead of one file, and of all together.
const BUFFER_BYTES: usize = 1 << 20;
const BUFFERS_BYTES_MAX: usize = 64 << 20;
const BUFFER_BYTES_MIN: usize = 32 << 10;

/// How far a source has come. One thread writes, any may read.
#[derive(Debug, Default)]
pub struct Progress {
    /// Packets given out, of every link type.
    pub packets: Counter,
    /// Sum of their original lengths in octets.
    pub octets: Counter,
    /// Bytes read of the files as they are stored (compressed).
    pub bytes_read: Counter,
    /// Bytes that the files have in all; what is no regular file counts 0.
    pub bytes_total: Counter,
}

/// Packets of capture files, merged by stamp.
#[derive(Debug)]
pub struct FileSource {
    merge: Merge,
    records: Vec<Record>,
    burst_packets: usize,
    /// Largest stamp given out.
    clock: Timestamp,
    /// Packets given out by port.
    received: Vec<u64>,
    progress: Arc<Progress>,
}

impl FileSource {
    /// Opens all files; bursts will have at most `burst_packets` packets (at least 1). What is
    /// wrong inside a file is no error here, see [`FileSource::errors`].
    ///
    /// # Errors
    /// [`OpenError`] for the first path that cannot be opened.
    pub fn open<P: AsRef<Path>>(paths: &[P], burst_packets: usize) -> Result<Self, OpenError> {
        let mut bytes_total = 0;
        let mut inputs: Vec<(PathBuf, input::Raw)> = Vec::with_capacity(paths.len());
        for path in paths {
            let (file, bytes) = open_file(path.as_ref())?;
            bytes_total += bytes;
            inputs.push((path.as_ref().to_owned(), Box::new(file)));
        }
        let source = Self::from_readers(inputs, burst_packets)?;
        source.progress.bytes_total.set(bytes_total);
        Ok(source)
    }

    /// As [`FileSource::open`], from streams with the paths that name them.
    ///
    /// # Errors
    /// [`OpenError`] if there are none or too many, or the first bytes of one cannot be read.
    pub fn from_readers(
        inputs: Vec<(PathBuf, Box<dyn Read + Send>)>,
        burst_packets: usize,
    ) -> Result<Self, OpenError> {
        let buffer =
            (BUFFERS_BYTES_MAX / inputs.len().max(1)).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES);
        Self::with_buffers(inputs, burst_packets, buffer)
    }

    fn with_buffers(
        inputs: Vec<(PathBuf, Box<dyn Read + Send>)>,
        burst_packets: usize,
        buffer_bytes: usize,
    ) -> Result<Self, OpenError> {
        match inputs.len() {
            0 => return Err(OpenError::NoFiles),
            given if given > FILES_MAX => return Err(OpenError::TooManyFiles { given }),
            _ => {}
        }
        let mut readers = Vec::with_capacity(inputs.len());
        for (file, (path, raw)) in (0_u16..).zip(inputs) {
            match Input::new(raw) {
                Ok(input) => readers.push(Reader::new(path, file, input, buffer_bytes)),
                Err(error) => return Err(OpenError::of_io(path, error)),
            }
        }
        let burst_packets = burst_packets.max(1);
        let source = Self {
            merge: Merge::new(readers),
            records: Vec::with_capacity(burst_packets),
            burst_packets,
            clock: Timestamp::ZERO,
            received: Vec::new(),
            progress: Arc::default(),
        };
        source.progress.bytes_read.set(source.merge.stored_bytes());
        Ok(source)
    }

    /// Names of the ports, by [`crate::index::PortIndex`]. Grows while files are read; a name never
    /// changes. A file is named by its stem (`tap1.pcap.gz` is `tap1`), an interface of a pcapng
    /// file with several `stem:name`, or `stem:number` without a name.
    pub fn ports(&self) -> &[String] {
        self.merge.port_names()
    }

    /// Names of the ports with the packets that each has given so far.
    pub fn received(&self) -> impl Iterator<Item = (&str, u64)> {
        let packets = self.received.iter().copied().chain(std::iter::repeat(0));
        self.ports().iter().map(String::as_str).zip(packets)
    }

    /// Files that ended before their end, in the order in which that was found.
    pub fn errors(&self) -> &[FileError] {
        self.merge.errors()
    }

    /// How far it has come; may be kept by another thread.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    fn burst(&mut self, limit: Timestamp) -> (FileBurst<'_>, SourceState) {
        self.merge.take(&mut self.records, self.burst_packets, limit);
        let mut octets = 0;
        self.received.resize(self.merge.port_names().len(), 0);
        for record in &self.records {
            self.received[usize::from(record.port.0)] += 1;
            octets += u64::from(record.original_octets);
            self.clock = self.clock.max(record.timestamp);
        }
        self.progress.packets.add(self.records.len() as u64);
        self.progress.octets.add(octets);
        self.progress.bytes_read.set(self.merge.stored_bytes());
        let state = if self.records.is_empty() && self.merge.has_ended() {
            SourceState::Ended
        } else {
            SourceState::Open(self.clock)
        };
        let ports = self.merge.port_names();
        (FileBurst { records: &self.records, readers: self.merge.readers(), ports }, state)
    }
}

impl Source for FileSource {
    type Burst<'a> = FileBurst<'a>;

    fn is_live(&self) -> bool {
        false
    }

    /// The end is told with an empty burst.
    fn poll(&mut self) -> (FileBurst<'_>, SourceState) {
        self.burst(Timestamp(u64::MAX))
    }
}

impl Scheduled for FileSource {
    fn next_stamp(&mut self) -> Option<Timestamp> {
        self.merge.next_stamp()
    }

    fn poll_until(&mut self, limit: Timestamp) -> (FileBurst<'_>, SourceState) {
        self.burst(limit)
    }
}

/// Packets in the read-ahead buffers of their files.
#[derive(Debug)]
pub struct FileBurst<'a> {
    records: &'a [Record],
    readers: &'a [Reader],
    ports: &'a [String],
}

impl Burst for FileBurst<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.records.len()
    }

    fn port_names(&self) -> &[String] {
        self.ports
    }

    #[inline]
    fn frame(&self, place: usize) -> Frame<'_> {
        let record = &self.records[place];
        Frame {
            bytes: self.readers[usize::from(record.file)].octets(record),
            wire_octets: record.original_octets,
            timestamp: record.timestamp,
            link: record.link,
            port: record.port,
            stripped_vlan: None,
        }
    }
}

/// Reads a whole capture from memory and checks what every frame promises; for fuzzing. Returns
/// the number of packets.
///
/// # Panics
/// If a promise is broken: a bug.
pub fn exercise(capture: &[u8]) -> u64 {
    let bytes: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(capture.to_vec()));
    let Ok(mut source) = FileSource::with_buffers(vec![("fuzz".into(), bytes)], 3, 64) else {
        return 0;
    };
    let (mut packets, mut octets) = (0, 0);
    loop {
        let known = source.ports().len();
        let (burst, state) = source.poll();
        for place in 0..burst.len() {
            let frame = burst.frame(place);
            assert!(
                frame.bytes.len() <= frame.wire_octets as usize,
                "more octets than on the wire"
            );
            assert!(usize::from(frame.port.0) < known, "a port without name");
            octets += u64::from(frame.wire_octets);
        }
        packets += burst.len() as u64;
        if state == SourceState::Ended {
            break;
        }
    }
    assert_eq!((packets, octets), (source.progress.packets.load(), source.progress.octets.load()));
    assert!(source.errors().len() <= 1, "one file, one error");
    packets
}

fn open_file(path: &Path) -> Result<(File, u64), OpenError> {
    let describe = |error| OpenError::of_io(path.to_owned(), error);
    let file = File::open(path).map_err(describe)?;
    let about = file.metadata().map_err(describe)?;
    if about.is_dir() {
        return Err(OpenError::Directory { path: path.to_owned() });
    }
    Ok((file, if about.is_file() { about.len() } else { 0 }))
}

#[cfg(test)]
mod tests;
