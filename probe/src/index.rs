//! Indices, counts and numbers as types of their own.
//!
//! In: nothing. Out: small `Copy` types that cannot be confused with one another.
//! Invariants: an index is only ever made by the table that it indexes.

use crate::time::Timestamp;

/// A place in one worker's flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowIndex(pub u32);

/// A port (NIC port, capture file or pcapng interface), in order of configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIndex(pub u16);

/// A worker, in order of start; also the number of its rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerIndex(pub u16);

/// A tap (Observation Point): first those of the configuration in order, then one for each
/// port, which names what no configured tap claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TapIndex(pub u16);

/// Which of the two endpoints of a biflow sent a packet; they are in order of (address, port).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Sender {
    /// The endpoint with the lower (address, port).
    #[default]
    Low = 0,
    /// The endpoint with the higher (address, port).
    High = 1,
}

impl Sender {
    /// The other endpoint.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    /// Place in arrays of two.
    #[inline]
    pub const fn place(self) -> usize {
        self as usize
    }
}

/// Number of a window: `floor(time / length)`. Windows start at the epoch, so every probe
/// cuts time at the same instants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowNumber(pub u64);

impl WindowNumber {
    /// The window that holds `at`.
    pub const fn of(at: Timestamp, length_ns: u64) -> Self {
        Self(at.0 / length_ns)
    }

    /// First instant of the window.
    pub const fn start(self, length_ns: u64) -> Timestamp {
        Timestamp(self.0.saturating_mul(length_ns))
    }

    /// First instant after the window.
    pub const fn end(self, length_ns: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(1).saturating_mul(length_ns))
    }

    /// The window after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Identity derived from content (FNV-1a, 64 bits): the same in every run on the same packets.
pub fn content_id<'a>(octets: impl IntoIterator<Item = &'a u8>) -> u64 {
    octets.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}
