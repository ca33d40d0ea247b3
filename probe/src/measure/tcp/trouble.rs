//! What is kept of a flow only while something is wrong with it.
//!
//! In: through [`super::TcpFlow`]. Out: the same.
//! Cost: 416 bytes a flow, from a slab of the caller's; given back when nothing is in doubt.
//! Invariants: fixed size.
//! Source: recovery and its end as in RFC 6582 section 3.2; SACK, RFC 6675 section 4.

use crate::index::Sender;
use crate::time::Timestamp;

use super::doubt::Doubts;
use super::half::{Half, mark};
use super::sequence::reaches;

/// Facts in [`Trouble::marks`].
pub(super) mod state {
    /// A row of retransmissions goes on, until `recover` is acknowledged.
    pub(crate) const EPISODE: u8 = 1;
    /// It began by duplicate acknowledgements or SACK.
    pub(crate) const FAST: u8 = 1 << 1;
    /// It began, or went on, by the timer.
    pub(crate) const TIMER: u8 = 1 << 2;
    /// The receiver has octets up to `sacked_until`, with a hole before them.
    pub(crate) const SACKED: u8 = 1 << 3;
    /// The receiver acknowledged octets that were not seen, and nothing was seen behind them.
    pub(crate) const BEYOND: u8 = 1 << 4;
}

/// Of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    /// Ranges that it sent and whose fate is open.
    pub(super) doubts: Doubts,
    /// Since when its window is 0.
    pub(super) closed_since: Timestamp,
    /// When the other endpoint first acknowledged what was not seen.
    pub(super) beyond_since: Timestamp,
    /// When it repeated something last.
    pub(super) repeated_at: Timestamp,
    pub(super) recover: u32,
    pub(super) sacked_until: u32,
    pub(super) marks: u8,
}

impl Trouble {
    const NONE: Self = Self {
        doubts: Doubts::NONE,
        closed_since: Timestamp::ZERO,
        beyond_since: Timestamp::ZERO,
        repeated_at: Timestamp::ZERO,
        recover: 0,
        sacked_until: 0,
        marks: 0,
    };

    pub(super) const fn has(&self, marks: u8) -> bool {
        self.marks & marks == marks
    }

    /// The other endpoint acknowledged up to `acknowledgement`.
    pub(super) fn acknowledged(&mut self, acknowledgement: u32) {
        if self.has(state::EPISODE) && reaches(acknowledgement, self.recover) {
            self.marks &= !(state::EPISODE | state::FAST | state::TIMER);
        }
        if self.has(state::SACKED) && reaches(acknowledgement, self.sacked_until) {
            self.marks &= !state::SACKED;
        }
    }

    /// Whether anything is open, beside the window of its `half`.
    pub(super) const fn is_open(&self, half: &Half) -> bool {
        !self.doubts.is_empty() || self.marks != 0 || half.has(mark::CLOSED_WINDOW)
    }
}

/// Rare state of a flow, both endpoints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rare {
    halves: [Trouble; 2],
}

const _: () = assert!(size_of::<Rare>() == 416, "bytes as the documents state them");

impl Rare {
    /// Nothing is wrong.
    pub(super) const NONE: Self = Self { halves: [Trouble::NONE; 2] };

    /// That of `sender`.
    pub(super) const fn of(&self, sender: Sender) -> &Trouble {
        let [low, high] = &self.halves;
        match sender {
            Sender::Low => low,
            Sender::High => high,
        }
    }

    /// That of `sender`, and that of the other.
    pub(super) const fn pair(&mut self, sender: Sender) -> (&mut Trouble, &mut Trouble) {
        let [low, high] = &mut self.halves;
        match sender {
            Sender::Low => (low, high),
            Sender::High => (high, low),
        }
    }
}
