//! What each flow keeps of its measures: handshake times, and where the rest is.
//!
//! In: samples of the handshake, places. Out: fields of the flow's record.
//! Cost: 12 bytes a flow.
//! Invariants: what was refused room is marked, so that its record says null and not 0.
//! Source: docs/measures.md.

use crate::index::Sender;
use crate::measure::span::Span;

/// Bits of [`Beside::bits`] that are the place; all of them set: no place.
const PLACE: u32 = (1 << 28) - 1;

/// Something was not counted, because there was no room.
const UNCOUNTED: u32 = 1 << 28;

/// Losses may not be stated, because there was no room for what they are told by.
const UNSTATED: u32 = 1 << 29;

/// And the bit above it: a reset came, by sender. Most flows that are reset have nothing else to
/// tell, and need no place for that.
const RESET: u32 = 1 << 30;

/// Of one flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    server: Span,
    client: Span,
    bits: u32,
}

const _: () = assert!(size_of::<Beside>() == 12, "bytes per flow as the documents state them");

impl Default for Beside {
    fn default() -> Self {
        Self { server: Span::NONE, client: Span::NONE, bits: PLACE }
    }
}

impl Beside {
    pub(super) fn handshake_server(&mut self, ns: u64) {
        self.server = Span::of_ns(ns);
    }

    pub(super) fn handshake_client(&mut self, ns: u64) {
        self.client = Span::of_ns(ns);
    }

    /// SYN to SYN-ACK, and SYN-ACK to ACK, in ns.
    pub(super) const fn handshake_ns(&self) -> [Option<u64>; 2] {
        [self.server.ns(), self.client.ns()]
    }

    /// The place of what else there is.
    #[inline]
    pub(super) const fn place(&self) -> Option<u32> {
        match self.bits & PLACE {
            PLACE => None,
            place => Some(place),
        }
    }

    pub(super) const fn set_place(&mut self, place: u32) {
        self.bits = self.bits & !PLACE | place & PLACE;
    }

    /// Notes a reset; `false` where `sender` had sent one before.
    pub(super) const fn reset(&mut self, sender: Sender) -> bool {
        let bit = RESET << sender.place();
        let is_first = self.bits & bit == 0;
        self.bits |= bit;
        is_first
    }

    /// Resets that were noted of `sender`, one at most.
    pub(super) const fn resets(&self, sender: Sender) -> bool {
        self.bits & RESET << sender.place() != 0
    }

    pub(super) const fn set_uncounted(&mut self) {
        self.bits |= UNCOUNTED;
    }

    pub(super) const fn set_unstated(&mut self) {
        self.bits |= UNSTATED;
    }

    pub(super) const fn counts_all(&self) -> bool {
        self.bits & UNCOUNTED == 0
    }

    pub(super) const fn states_losses(&self) -> bool {
        self.bits & (UNCOUNTED | UNSTATED) == 0
    }

    /// A record was made: counts begin again, times are told once.
    pub(super) const fn record_made(&mut self) {
        *self = Self { server: Span::NONE, client: Span::NONE, bits: self.bits & PLACE };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_do_not_disturb_the_place() {
        let mut beside = Beside::default();
        assert_eq!((beside.place(), beside.handshake_ns()), (None, [None; 2]));
        assert!(beside.reset(Sender::High) && !beside.reset(Sender::High));
        beside.set_place(77);
        beside.set_unstated();
        beside.handshake_server(5);
        assert_eq!((beside.place(), beside.handshake_ns()), (Some(77), [Some(5), None]));
        assert!(beside.resets(Sender::High) && !beside.resets(Sender::Low));
        assert!(beside.counts_all() && !beside.states_losses());
        beside.record_made();
        assert_eq!((beside.place(), beside.resets(Sender::High)), (Some(77), false));
        assert_eq!(beside.handshake_ns(), [None; 2]);
        assert!(beside.states_losses());
    }
}
