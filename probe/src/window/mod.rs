//! What each flow did in one time window.
//!
//! In: flows as packets are counted on them. Out: [`Row`]s in blocks of one window.
//! Cost: one row a flow and window, written where it will be read; closing hands blocks over, a
//! bounded number a step.
//! Invariants: another row is begun whenever its flow's window, MAC addresses or segment change, so
//! all its packets share them; the packets of all rows of a window are those that were booked in it.
//! Source: ARCHITECTURE.md, "Windows".

mod excerpts;
mod handoff;
mod late;
mod note;
mod open_rows;
mod row;
mod rows;

pub use excerpts::ExcerptBlock;
pub use handoff::{
    EXCERPT_BYTES, FlowBlock, FromWorker, HandoffReceiver, HandoffSender, NO_TOTALS,
    NOTE_BYTES_PER_ROW, handoff,
};
pub use late::{LateLosses, LateRow};
pub use note::{Note, Notes, ROW_NOTES_MAX, RowNotes, What};
pub use open_rows::{RowBlock, RowPlace};
pub use row::{Ends, Row, RowBeginning, RowFacts, sides};
pub use rows::{ROWS_PER_BLOCK, Rows};

use crate::decode::Headers;
use crate::index::WindowNumber;
use crate::time::{Timestamp, ms};

/// How time is cut: every stage that asks for a window asks here.
#[derive(Clone, Copy, Debug)]
pub struct WindowClock {
    length_ns: u64,
    grace_ns: u64,
}

impl WindowClock {
    /// Windows of `length_ms`, open for `grace_ms` after their end.
    pub const fn new(length_ms: u32, grace_ms: u32) -> Self {
        Self { length_ns: ms(length_ms as u64), grace_ns: ms(grace_ms as u64) }
    }

    /// First instant of a window, and first instant after it.
    pub const fn span(self, window: WindowNumber) -> (Timestamp, Timestamp) {
        (window.start(self.length_ns), window.end(self.length_ns))
    }

    /// Length in nanoseconds.
    pub const fn length_ns(self) -> u64 {
        self.length_ns
    }

    /// The oldest window that is open when the clock stands at `clock`.
    #[inline]
    pub const fn oldest_open(self, clock: Timestamp) -> WindowNumber {
        WindowNumber::of(Timestamp(clock.0.saturating_sub(self.grace_ns)), self.length_ns)
    }

    /// First instant of the clock at which `window` is closed.
    pub const fn closes_at(self, window: WindowNumber) -> Timestamp {
        Timestamp(window.end(self.length_ns).0.saturating_add(self.grace_ns))
    }

    /// The window that a packet is booked in, and whether it came too late for its own. Depends on
    /// the packet alone.
    #[inline]
    pub const fn book(self, headers: &Headers) -> (WindowNumber, bool) {
        self.book_at(headers.timestamp, headers.clock)
    }

    /// The same of the packet's receive time, and the clock at it.
    #[inline]
    pub const fn book_at(self, at: Timestamp, clock: Timestamp) -> (WindowNumber, bool) {
        let own = WindowNumber::of(at, self.length_ns);
        let oldest = self.oldest_open(clock);
        if own.0 < oldest.0 { (oldest, true) } else { (own, false) }
    }
}

/// When packets are booked in a window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Booked {
    /// The window.
    pub window: WindowNumber,
    /// Its first instant.
    begin: u64,
    /// 0: no packet is booked in it.
    length_ns: u64,
    /// Clocks from here on are too late for it.
    late_from: u64,
}

impl Booked {
    /// Whether a packet is booked in this window, in time.
    #[inline]
    pub const fn holds(&self, at: Timestamp, clock: Timestamp) -> bool {
        at.0.wrapping_sub(self.begin) < self.length_ns && clock.0 < self.late_from
    }
}

/// [`WindowClock::book`] for packets whose windows are mostly those of the packets before: it divides
/// only where a window is left.
#[derive(Clone, Copy, Debug)]
pub struct Booking {
    clock: WindowClock,
    booked: Booked,
}

impl Booking {
    /// Nothing is known yet.
    pub fn new(clock: WindowClock) -> Self {
        Self { clock, booked: Booked::default() }
    }

    /// See [`WindowClock::book`].
    #[inline]
    pub fn book(&mut self, at: Timestamp, clock: Timestamp) -> (WindowNumber, bool) {
        if self.booked.holds(at, clock) {
            return (self.booked.window, false);
        }
        self.leave(at, clock)
    }

    /// Whether `window` is that of the packet booked before, this one belongs to it as well, and in
    /// time.
    #[inline]
    pub fn stays_in(&self, window: WindowNumber, at: Timestamp, clock: Timestamp) -> bool {
        self.booked.window == window && self.booked.holds(at, clock)
    }

    /// All that are booked as a packet is that was booked just now, and not late.
    #[inline]
    pub const fn booked(&self) -> Booked {
        self.booked
    }

    #[cold]
    fn leave(&mut self, at: Timestamp, clock: Timestamp) -> (WindowNumber, bool) {
        let length_ns = self.clock.length_ns;
        let (own, late) = self.clock.book_at(at, clock);
        if late {
            return (own, true);
        }
        let (begin, end) = (own.start(length_ns).0, own.end(length_ns).0);
        let late_from = end.saturating_add(self.clock.grace_ns);
        self.booked = Booked { window: own, begin, length_ns: end - begin, late_from };
        (own, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(timestamp: u64, clock: u64) -> Headers {
        Headers { timestamp: Timestamp(timestamp), clock: Timestamp(clock), ..Headers::default() }
    }

    #[test]
    fn a_late_packet_goes_to_the_oldest_open_window() {
        let clock = WindowClock::new(1_000, 0);
        assert_eq!(clock.book(&at(2 * SECOND, 2 * SECOND)), (WindowNumber(2), false));
        assert_eq!(clock.book(&at(2 * SECOND - 1, 2 * SECOND)), (WindowNumber(2), true));
        let graceful = WindowClock::new(1_000, 500);
        assert_eq!(graceful.book(&at(2 * SECOND - 1, 2 * SECOND)), (WindowNumber(1), false));
        assert_eq!(graceful.book(&at(2 * SECOND - 1, 3 * SECOND)), (WindowNumber(2), true));
    }

    #[test]
    fn booking_without_division_is_the_same() {
        for (length_ms, grace_ms) in [(1_000, 0), (1_000, 200), (100, 200)] {
            let clock = WindowClock::new(length_ms, grace_ms);
            let mut booking = Booking::new(clock);
            let mut state = 1_u64;
            for _ in 0..10_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (timestamp, ahead) = ((state >> 33) % (20 * SECOND), (state >> 20) % SECOND);
                let headers = at(timestamp, timestamp + ahead);
                let booked = booking.book(headers.timestamp, headers.clock);
                assert_eq!(booked, clock.book(&headers));
            }
            let last = at(u64::MAX, u64::MAX);
            assert_eq!(booking.book(last.timestamp, last.clock), clock.book(&last));
        }
    }
}
