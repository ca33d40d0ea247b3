//! Classic pcap files, written in one pass.
//!
//! In: time and bytes of each frame. Out: a file with stamps in microseconds, little-endian.
//! Cost: one buffered write a frame.
//! Source: draft-ietf-opsawg-pcap, sections 4 and 5.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::random::low32;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const SNAP_LENGTH_OCTETS: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;

/// One file that is being written.
pub(super) struct PcapWriter {
    out: BufWriter<File>,
}

impl PcapWriter {
    /// Makes or replaces the file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 18, File::create(path)?);
        out.write_all(&MAGIC_MICROSECONDS.to_le_bytes())?;
        out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        out.write_all(&SNAP_LENGTH_OCTETS.to_le_bytes())?;
        out.write_all(&LINKTYPE_ETHERNET.to_le_bytes())?;
        Ok(Self { out })
    }

    /// Appends a whole frame; `time_us` counts from the epoch.
    pub(super) fn write(&mut self, time_us: u64, frame: &[u8]) -> io::Result<()> {
        let octets = low32(frame.len() as u64).to_le_bytes();
        self.out.write_all(&low32(time_us / 1_000_000).to_le_bytes())?;
        self.out.write_all(&low32(time_us % 1_000_000).to_le_bytes())?;
        self.out.write_all(&octets)?;
        self.out.write_all(&octets)?;
        self.out.write_all(frame)
    }

    /// Hands everything to the system.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}
