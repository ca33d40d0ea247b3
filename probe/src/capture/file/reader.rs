//! One capture file, packet after packet.
//!
//! In: an [`Input`]. Out: the next packet, or that the buffer is used up, or the end.
//! Cost: no copy and no allocation a packet; one large read for each buffer full.
//! Invariants: the bytes of a record stay until [`Reader::refill`]; whole packets before a break
//! are all delivered, and a break leaves exactly one error.

use std::path::PathBuf;

use super::buffer::Buffer;
use super::classic::{self, Classic, HEADER_BYTES};
use super::error::{Damage, FileError};
use super::input::Input;
use super::pcapng::{self, Pcapng};
use super::ports::{Ports, stem};
use super::record::{Record, Step};
use crate::time::Timestamp;

/// One file being read.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    file: u16,
    buffer: Buffer,
    format: Format,
    head: Option<Record>,
    need_bytes: usize,
    error: Option<FileError>,
}

#[derive(Debug)]
enum Format {
    /// Nothing was read yet.
    Unknown,
    Classic(Classic),
    Pcapng(Pcapng),
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// The next packet is there; this is its stamp.
    Head(Timestamp),
    /// It comes after a refill.
    Starved,
    /// There is none.
    Ended,
}

impl Reader {
    pub(super) fn new(path: PathBuf, file: u16, input: Input, buffer_bytes: usize) -> Self {
        Self {
            path,
            file,
            buffer: Buffer::new(input, buffer_bytes),
            format: Format::Unknown,
            head: None,
            need_bytes: HEADER_BYTES,
            error: None,
        }
    }

    /// The next packet, which [`Reader::advance`] found.
    #[inline]
    pub(super) const fn head(&self) -> Option<Record> {
        self.head
    }

    /// The octets of a packet that was the head since the last refill.
    #[inline]
    pub(super) fn octets(&self, record: &Record) -> &[u8] {
        self.buffer.at(record.begin, record.frame_octets)
    }

    /// Why the file ended early.
    pub(super) fn take_error(&mut self) -> Option<FileError> {
        self.error.take()
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.buffer.stored_bytes()
    }

    /// Reads on after [`Advance::Starved`]; the octets of all earlier packets are gone.
    pub(super) fn refill(&mut self, ports: &mut Ports) -> Advance {
        self.buffer.refill(self.need_bytes);
        if matches!(self.format, Format::Unknown) {
            match self.recognise(ports) {
                Ok(format) => self.format = format,
                Err(damage) => return self.end(Some(damage)),
            }
        }
        self.advance(ports)
    }

    /// Goes to the next packet.
    #[inline]
    pub(super) fn advance(&mut self, ports: &mut Ports) -> Advance {
        loop {
            let window = self.buffer.window();
            let step = match &mut self.format {
                Format::Classic(classic) => classic.step(window),
                Format::Pcapng(pcapng) => pcapng.step(window, ports),
                Format::Unknown => return Advance::Starved,
            };
            match step {
                Step::Packet(packet, bytes) => {
                    self.head = Some(Record {
                        timestamp: packet.timestamp,
                        begin: self.buffer.start() + packet.begin,
                        frame_octets: packet.frame_octets,
                        original_octets: packet.original_octets,
                        link: packet.link,
                        port: packet.port,
                        file: self.file,
                    });
                    self.buffer.consume(bytes);
                    return Advance::Head(packet.timestamp);
                }
                Step::Pass(bytes) => self.buffer.consume(bytes),
                Step::More(bytes) if !self.buffer.has_ended() => {
                    self.need_bytes = bytes;
                    return Advance::Starved;
                }
                Step::More(bytes) => return self.end(self.cut_short(bytes)),
                Step::Broken(damage) => return self.end(Some(damage)),
            }
        }
    }

    fn recognise(&mut self, ports: &mut Ports) -> Result<Format, Damage> {
        let window = self.buffer.window();
        let Some(magic) = window.first_chunk::<4>() else {
            return Err(self.cut_short(HEADER_BYTES).unwrap_or(Damage::Empty));
        };
        let name = stem(&self.path);
        if u32::from_le_bytes(*magic) == pcapng::SECTION_HEADER {
            return Ok(Format::Pcapng(Pcapng::new(name)));
        }
        let order = classic::recognise(*magic).ok_or(Damage::NotCapture(*magic))?;
        let Some(header) = window.first_chunk::<HEADER_BYTES>() else {
            return Err(self.cut_short(HEADER_BYTES).unwrap_or(Damage::Empty));
        };
        let port = ports.add(&name).ok_or(Damage::TooManyInterfaces)?;
        let classic = Classic::new(header, order, port)?;
        self.buffer.consume(HEADER_BYTES);
        Ok(Format::Classic(classic))
    }

    /// Nothing is wrong where a file ends between two records.
    fn cut_short(&self, need_bytes: usize) -> Option<Damage> {
        let have_bytes = self.buffer.window().len();
        (have_bytes != 0).then_some(Damage::CutShort { have_bytes, need_bytes })
    }

    /// Ends the file. That reading failed is said before what is missing because of it.
    fn end(&mut self, damage: Option<Damage>) -> Advance {
        self.head = None;
        let (path, offset) = (self.path.clone(), self.buffer.offset());
        let cut = matches!(damage, None | Some(Damage::Empty | Damage::CutShort { .. }));
        self.error = match (self.buffer.take_failure().filter(|_| cut), damage) {
            (Some(source), _) => {
                let offset = offset + self.buffer.window().len() as u64;
                Some(FileError::Read { path, offset, source })
            }
            (None, Some(damage)) => Some(FileError::Damaged { path, offset, damage }),
            (None, None) => None,
        };
        Advance::Ended
    }
}
