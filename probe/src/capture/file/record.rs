//! What the formats say of the bytes before them, and a packet as the merge keeps it.
//!
//! In: nothing. Out: [`Step`], [`Packet`], [`Record`], [`Fields`].
//! Cost: plain values; a [`Record`] is 32 bytes.

use super::error::Damage;
use crate::capture::LinkType;
use crate::index::PortIndex;
use crate::time::Timestamp;

/// What stands at the begin of a window.
#[derive(Debug)]
pub(super) enum Step {
    /// A packet, whole, and the bytes that its record takes.
    Packet(Packet, usize),
    /// So many bytes without a packet.
    Pass(usize),
    /// The window must have at least so many bytes to tell.
    More(usize),
    /// Nothing that can be read on from.
    Broken(Damage),
}

/// A packet in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) timestamp: Timestamp,
    /// Where its octets begin in the window.
    pub(super) begin: usize,
    /// Octets without FCS.
    pub(super) frame_octets: u32,
    pub(super) original_octets: u32,
    pub(super) link: LinkType,
    pub(super) port: PortIndex,
}

/// A packet in the buffer of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) timestamp: Timestamp,
    /// Where its octets begin in the buffer.
    pub(super) begin: usize,
    pub(super) frame_octets: u32,
    pub(super) original_octets: u32,
    pub(super) link: LinkType,
    pub(super) port: PortIndex,
    /// Which file.
    pub(super) file: u16,
}

/// Byte order of a file or section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    #[inline]
    pub(super) const fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    #[inline]
    pub(super) const fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    pub(super) const fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        }
    }
}

/// Reads numbers one after the other; `None` where the bytes end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
    pub(super) order: Order,
}

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(self.order.u16(*bytes))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(self.order.u32(*bytes))
    }

    /// The next octets and the padding after them up to a multiple of four.
    #[inline]
    pub(super) fn padded(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(octets)?;
        let padding = octets.next_multiple_of(4) - octets;
        self.rest = rest.get(padding..).unwrap_or(&[]);
        Some(bytes)
    }
}

const _: () = assert!(size_of::<Record>() == 32, "two records a cache line");
