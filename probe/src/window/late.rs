//! What was found out of an older window.
//!
//! In: losses whose packets were booked in a window before that of the evidence. Out: rows without
//! packets of those windows.
//! Cost: 256 bytes a row; one for all that one packet says of one window.
//! Invariants: rows are differences, so a window's losses are the sum over all its rows; what a row
//! says depends on its flow alone, so neither workers nor bursts show in it.
//! Source: ARCHITECTURE.md, "Windows".

use crate::index::{Sender, WindowNumber};
use crate::measure::tcp::{Cause, Loss, Lost};

use super::Row;

/// Losses of one flow that belong to one window, by sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LateLosses {
    /// The window.
    pub window: WindowNumber,
    lost: [[(u32, u32); 4]; 2],
    /// How long the window of each endpoint was 0, in ns, where the flow ended first.
    pub stalled_ns: [u64; 2],
}

impl LateLosses {
    /// Nothing of `window` yet.
    pub fn of(window: WindowNumber) -> Self {
        Self { window, ..Self::default() }
    }

    /// Adds a loss.
    pub fn add(&mut self, loss: &Loss) {
        let (octets, packets) = &mut self.lost[loss.sender.place()][loss.cause as usize];
        *octets = octets.saturating_add(loss.octets);
        *packets = packets.saturating_add(loss.packets);
    }

    /// What `sender` lost by `cause`.
    pub fn lost(&self, cause: Cause, sender: Sender) -> Lost {
        let (octets, packets) = self.lost[sender.place()][cause as usize];
        Lost { octets: octets.into(), packets: packets.into() }
    }
}

/// A row of an older window, without packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct LateRow {
    /// Whose.
    pub row: Row,
    /// What was lost.
    pub losses: LateLosses,
}
