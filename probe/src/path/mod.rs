//! The same packets at several taps: what they took from one to the next, and where they were lost.
//!
//! In: every packet with its digest and the verdict of `copies`. Out: a [`Trajectory`] for each
//! packet that the digest selects: where it was seen and when, and what became of it where it was
//! not.
//! Cost: a packet that is not selected pays a comparison and the look at two octets; a selected one
//! two cache lines, four more where others lie at its place.
//! Invariants: what is selected, and what comes of it, depends on the packets alone, in the order of
//! their clock: never on burst size, number of workers or when a sweep runs. Bounded memory; what had to be
//! given up early is counted.
//! Source: hash-based selection, RFC 5475 section 6.2; trajectory sampling, Duffield and Grossglauser
//! 2001; losses between taps, docs/measures.md.

mod entry;
mod stage;
mod watch;

pub use stage::PathStage;

use crate::decode::{Address, Headers};
use crate::index::{TapIndex, WindowNumber};
use crate::inventory::AddressSpace;
use crate::time::Timestamp;

/// Taps at which one packet is followed at most.
pub const SIGHTS_MAX: usize = 4;

/// Sender and receiver of a packet, without ports: what a way between taps belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    /// Address space.
    pub space: AddressSpace,
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// IANA protocol number; mirrors that truncate may hide one protocol's copies only.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
}

impl Ends {
    /// Of a packet.
    pub const fn of(headers: &Headers) -> Self {
        Self {
            space: headers.space,
            source: headers.source,
            destination: headers.destination,
            protocol: headers.protocol,
            ip_version: headers.ip_version,
        }
    }

    /// The other direction.
    #[must_use]
    pub const fn turned(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

/// What is known of a packet that a tap did not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// Nothing.
    #[default]
    None,
    /// Its sender sent the range again, before anybody acknowledged it.
    Repeated,
    /// Its receiver acknowledged the range, before anybody repeated it.
    Acknowledged,
    /// An equal packet was seen at the same tap meanwhile: which of them was seen elsewhere can't be
    /// told.
    Ambiguous,
}

impl Evidence {
    /// Number of kinds.
    pub const KINDS: usize = 4;

    const ALL: [Self; Self::KINDS] =
        [Self::None, Self::Repeated, Self::Acknowledged, Self::Ambiguous];

    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Repeated => "repeated",
            Self::Acknowledged => "acknowledged",
            Self::Ambiguous => "ambiguous",
        }
    }

    /// The evidence of that word.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|evidence| evidence.name() == name)
    }
}

/// A packet at a tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The tap.
    pub tap: TapIndex,
    /// When.
    pub at: Timestamp,
    /// Time to live or hop limit there: the nearer to the sender, the higher.
    pub ttl: u8,
    /// It showed no segment.
    pub is_untagged: bool,
}

/// What became of a selected packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trajectory {
    /// Between whom.
    pub ends: Ends,
    /// Digest, equal at all probes of a domain.
    pub digest: u64,
    /// Window of the first sighting.
    pub window: WindowNumber,
    /// IP octets.
    pub octets: u32,
    /// For the taps that did not show it.
    pub evidence: Evidence,
    /// Tap that showed its range in frames cut otherwise (merged or split on the way).
    pub recut: Option<TapIndex>,
    sights: [Sight; SIGHTS_MAX],
    count: u8,
}

impl Trajectory {
    /// Of a packet that was seen at these taps; `None`: there are more than one packet is followed at.
    pub fn of(ends: Ends, digest: u64, window: WindowNumber, sights: &[Sight]) -> Option<Self> {
        let mut kept = [Sight::default(); SIGHTS_MAX];
        kept.get_mut(..sights.len())?.copy_from_slice(sights);
        let count = u8::try_from(sights.len()).ok()?;
        Some(Self { ends, digest, window, sights: kept, count, ..Self::default() })
    }

    /// Time of the sighting that came first.
    pub fn first_seen(&self) -> Timestamp {
        self.sights[0].at
    }

    /// Where it was seen, in the order in which that became known.
    pub fn sights(&self) -> &[Sight] {
        self.sights.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// Where trajectories go.
pub trait PathOutput {
    /// Takes one that is over.
    fn trajectory(&mut self, trajectory: &Trajectory);
}

/// What the stage could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounts {
    /// Packets given up before their time, because their place was needed.
    pub evicted: u64,
    /// Packets for which no evidence was looked for, because there was no room to watch their flow,
    /// and flows whose last packet was forgotten within the time of a verdict.
    pub unwatched: u64,
    /// Segments that were compared with as many waiting packets of their flow as one may be, and not
    /// with the rest: what they say of these is not known.
    pub walks_cut: u64,
}
