//! What can be wrong with a capture file.
//!
//! In: paths, offsets and values found. Out: [`OpenError`] (nothing could be read) and
//! [`FileError`] (the file ended before its end; what came before was delivered).
//! Invariants: every value that decided is in the error.

use std::io;
use std::path::PathBuf;

use super::{BLOCK_BYTES_MAX, CAPTURED_OCTETS_MAX, FILES_MAX, PORTS_MAX};

/// Why no source could be made of the given paths.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No path was given.
    #[error("no capture file was given")]
    NoFiles,
    /// More paths than [`FILES_MAX`].
    #[error("{given} capture files are more than {FILES_MAX}")]
    TooManyFiles {
        /// How many were given.
        given: usize,
    },
    /// Nothing is there.
    #[error("{}: there is no such file", path.display())]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// The user may not read it.
    #[error("{}: permission to read it is denied", path.display())]
    Denied {
        /// The path as given.
        path: PathBuf,
    },
    /// A directory is there.
    #[error("{}: is a directory, not a capture file", path.display())]
    Directory {
        /// The path as given.
        path: PathBuf,
    },
    /// Another answer of the operating system.
    #[error("{}: {source}", path.display())]
    Other {
        /// The path as given.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn of_io(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path },
            io::ErrorKind::IsADirectory => Self::Directory { path },
            _ => Self::Other { path, source },
        }
    }
}

/// Why a file was not read to its end. Every whole packet before the offset was delivered.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The contents are not as the format says.
    #[error("{}: at byte {offset}: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged header or record begins, after decompression.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// Reading or decompressing failed.
    #[error("{}: after byte {offset}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where reading stopped, after decompression.
        offset: u64,
        /// What the operating system or the decompressor says.
        source: io::Error,
    },
}

impl FileError {
    /// The file it is about.
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::Damaged { path, .. } | Self::Read { path, .. } => path,
        }
    }
}

/// What is wrong at one place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not even a magic number.
    #[error("the file is empty")]
    Empty,
    /// Another kind of file.
    #[error("neither pcap nor pcapng, it begins with the octets {0:02x?}")]
    NotCapture([u8; 4]),
    /// A version that nobody writes.
    #[error("version {major}.{minor} of the format is not known")]
    Version {
        /// Major number.
        major: u16,
        /// Minor number.
        minor: u16,
    },
    /// The file ends inside a header, record or block.
    #[error("cut short: {have_bytes} of {need_bytes} bytes are there")]
    CutShort {
        /// Bytes that are there.
        have_bytes: usize,
        /// Bytes that the header, record or block has at least.
        need_bytes: usize,
    },
    /// A record says that more was captured than can be.
    #[error("corrupt record: {captured_octets} captured octets, {CAPTURED_OCTETS_MAX} can be")]
    CapturedLength {
        /// What the record says.
        captured_octets: u32,
    },
    /// A pcapng block of an impossible length.
    #[error("corrupt block: length {length_bytes} (a multiple of 4 up to {BLOCK_BYTES_MAX})")]
    BlockLength {
        /// What the block says.
        length_bytes: u32,
    },
    /// The two lengths of a pcapng block differ.
    #[error("corrupt block: length {first_bytes} at its begin, {last_bytes} at its end")]
    BlockEnd {
        /// Length in front.
        first_bytes: u32,
        /// Length behind.
        last_bytes: u32,
    },
    /// A pcapng block is too small for what it must hold.
    #[error("corrupt block: its fields go beyond its length {length_bytes}")]
    BlockFields {
        /// Length of the block.
        length_bytes: u32,
    },
    /// The byte-order magic of a pcapng section is none.
    #[error("the section header has no byte order: {0:#010x}")]
    ByteOrder(u32),
    /// A packet of an interface that the section doesn't describe.
    #[error("packet of interface {index}, but the section has {known}")]
    UnknownInterface {
        /// Interface of the packet.
        index: u32,
        /// Interfaces described so far.
        known: usize,
    },
    /// More interfaces than ports can be numbered.
    #[error("more than {PORTS_MAX} interfaces")]
    TooManyInterfaces,
}
