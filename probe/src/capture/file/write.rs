//! Writes classic pcap files.
//!
//! In: time, original length and octets of packets. Out: a pcap file in little-endian byte
//! order, with stamps in microseconds or nanoseconds.
//! Cost: one buffered write a packet.
//! Invariants: a record is written whole or not at all, as far as the underlying writer allows;
//! every file that this makes is read back by [`super::FileSource`] with the same values.
//! Source: file and record header, draft-ietf-opsawg-pcap sections 4 and 5.

use std::fs::File;
use std::io::{self, BufWriter, Error, ErrorKind, Write};
use std::path::Path;

use super::{CAPTURED_OCTETS_MAX, MAGIC_MICROSECONDS, MAGIC_NANOSECONDS};
use crate::time::Timestamp;

const VERSION_MAJOR: u16 = 2;
const VERSION_MINOR: u16 = 4;
const NS_PER_S: u64 = 1_000_000_000;

/// A classic pcap file being written.
#[derive(Debug)]
pub struct PcapWriter<W: Write = BufWriter<File>> {
    out: W,
    nanoseconds: bool,
}

impl PcapWriter {
    /// Makes the file at `path`, or empties it, and writes its header. `link` is a `LINKTYPE_`
    /// number (Ethernet is 1). Without `nanoseconds` stamps are cut to whole microseconds.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(path: impl AsRef<Path>, link: u16, nanoseconds: bool) -> io::Result<Self> {
        Self::new(BufWriter::with_capacity(1 << 20, File::create(path)?), link, nanoseconds)
    }
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file header to `out`; see [`PcapWriter::create`].
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(mut out: W, link: u16, nanoseconds: bool) -> io::Result<Self> {
        let magic = if nanoseconds { MAGIC_NANOSECONDS } else { MAGIC_MICROSECONDS };
        let mut header = [0_u8; 24];
        header[0..4].copy_from_slice(&magic.to_le_bytes());
        header[4..6].copy_from_slice(&VERSION_MAJOR.to_le_bytes());
        header[6..8].copy_from_slice(&VERSION_MINOR.to_le_bytes());
        header[16..20].copy_from_slice(&CAPTURED_OCTETS_MAX.to_le_bytes());
        header[20..24].copy_from_slice(&u32::from(link).to_le_bytes());
        out.write_all(&header)?;
        Ok(Self { out, nanoseconds })
    }

    /// Writes one packet: `bytes` is what was captured of its `original_octets`.
    ///
    /// # Errors
    /// `InvalidInput` for a time after the year 2106 (seconds have 32 bits), for more than
    /// [`CAPTURED_OCTETS_MAX`] octets, or for more octets than the packet had; else what the
    /// file system says.
    pub fn write(
        &mut self,
        timestamp: Timestamp,
        original_octets: u32,
        bytes: &[u8],
    ) -> io::Result<()> {
        let header = self.record_header(timestamp, original_octets, bytes)?;
        self.out.write_all(&header)?;
        self.out.write_all(bytes)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// What the file system says; then the file may end inside a record.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn record_header(
        &self,
        timestamp: Timestamp,
        original_octets: u32,
        bytes: &[u8],
    ) -> io::Result<[u8; 16]> {
        let seconds = u32::try_from(timestamp.as_ns() / NS_PER_S)
            .map_err(|_| Error::new(ErrorKind::InvalidInput, "the time is after the year 2106"))?;
        let nanoseconds = timestamp.as_ns() % NS_PER_S;
        let fraction = if self.nanoseconds { nanoseconds } else { nanoseconds / 1_000 };
        let fraction = u32::try_from(fraction).map_err(Error::other)?;
        let captured = u32::try_from(bytes.len())
            .ok()
            .filter(|captured| *captured <= CAPTURED_OCTETS_MAX.min(original_octets))
            .ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, "more octets than a record holds")
            })?;
        let mut header = [0_u8; 16];
        header[0..4].copy_from_slice(&seconds.to_le_bytes());
        header[4..8].copy_from_slice(&fraction.to_le_bytes());
        header[8..12].copy_from_slice(&captured.to_le_bytes());
        header[12..16].copy_from_slice(&original_octets.to_le_bytes());
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(nanoseconds: bool, at: Timestamp) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = PcapWriter::new(&mut bytes, 1, nanoseconds).expect("a vector takes all");
        writer.write(at, 100, &[0xaa; 3]).expect("valid packet");
        writer.finish().expect("a vector takes all");
        bytes
    }

    #[test]
    fn header_and_record_are_as_the_draft_says() {
        let bytes = written(true, Timestamp::from_parts(1_700_000_000, 123_456_789));
        assert_eq!(
            bytes[..24],
            [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]
        );
        assert_eq!(bytes[24..28], 1_700_000_000_u32.to_le_bytes());
        assert_eq!(bytes[28..32], 123_456_789_u32.to_le_bytes());
        assert_eq!(bytes[32..], [3, 0, 0, 0, 100, 0, 0, 0, 0xaa, 0xaa, 0xaa]);
    }

    #[test]
    fn microseconds_are_cut_not_rounded() {
        let bytes = written(false, Timestamp::from_parts(5, 999_999_999));
        assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(bytes[24..32], [5, 0, 0, 0, 0x3f, 0x42, 0x0f, 0]);
    }

    #[test]
    fn what_a_record_cannot_hold_is_refused_and_leaves_nothing() {
        let mut bytes = Vec::new();
        let mut writer = PcapWriter::new(&mut bytes, 1, true).expect("a vector takes all");
        let late = Timestamp::from_parts(1 << 32, 0);
        let large = vec![0; CAPTURED_OCTETS_MAX as usize + 1];
        for refused in [
            writer.write(late, 1, &[0]),
            writer.write(Timestamp::ZERO, 1, &[0, 0]),
            writer.write(Timestamp::ZERO, u32::MAX, &large),
        ] {
            assert_eq!(refused.expect_err("refused").kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(bytes.len(), 24);
    }
}
