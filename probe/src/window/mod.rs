//! What each flow did in one time window.
//!
//! In: flows whose counts of a window are complete. Out: [`Row`]s in blocks.
//! Cost: one row a flow and window; closing takes a bounded number of flows a step.
//! Invariants: a row is cut whenever its flow's window, MAC addresses or segment change, so all its
//! packets share them; the packets of all rows of a window are those that were booked in it.
//! Source: ARCHITECTURE.md, "Windows".

mod handoff;

pub use handoff::{FromWorker, HandoffReceiver, HandoffSender, handoff};

use crate::app::Application;
use crate::decode::{Address, Headers, Mac};
use crate::flow::Side;
use crate::index::{Sender, TapIndex, WindowNumber};
use crate::inventory::{AddressSpace, Segment};
use crate::spread::FlowKey;
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
        let own = WindowNumber::of(headers.timestamp, self.length_ns);
        let oldest = self.oldest_open(headers.clock);
        if own.0 < oldest.0 { (oldest, true) } else { (own, false) }
    }
}

/// [`WindowClock::book`] for packets whose windows are mostly those of the packets before: it divides
/// only where a window is left.
#[derive(Clone, Copy, Debug)]
pub struct Booking {
    clock: WindowClock,
    own: Span,
    oldest: Span,
}

/// A window and the times that belong to it.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    window: WindowNumber,
    begin: u64,
    end: u64,
}

impl Span {
    #[inline]
    const fn holds(&self, at: u64) -> bool {
        self.begin <= at && at < self.end
    }
}

impl Booking {
    /// Nothing is known yet.
    pub fn new(clock: WindowClock) -> Self {
        Self { clock, own: Span::default(), oldest: Span::default() }
    }

    /// See [`WindowClock::book`].
    #[inline]
    pub fn book(&mut self, headers: &Headers) -> (WindowNumber, bool) {
        let (at, clock) =
            (headers.timestamp.0, headers.clock.0.saturating_sub(self.clock.grace_ns));
        if !self.own.holds(at) {
            self.own = self.span(at);
        }
        if !self.oldest.holds(clock) {
            self.oldest = self.span(clock);
        }
        let (own, oldest) = (self.own.window, self.oldest.window);
        if own < oldest { (oldest, true) } else { (own, false) }
    }

    #[cold]
    fn span(&self, at: u64) -> Span {
        let length_ns = self.clock.length_ns;
        let window = WindowNumber::of(Timestamp(at), length_ns);
        Span { window, begin: window.start(length_ns).0, end: window.end(length_ns).0 }
    }
}

/// What one flow did in one window or a part of it, seen from its initiator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Window.
    pub window: WindowNumber,
    /// Address space.
    pub space: AddressSpace,
    /// Segment of the forward direction (of the reverse one where nothing went forward).
    pub segment: Segment,
    /// Segment of the reverse direction, likewise.
    pub reverse_segment: Segment,
    /// Initiator.
    pub source: Address,
    /// Responder.
    pub destination: Address,
    /// MAC of the initiator as the forward direction shows it.
    pub source_mac: Mac,
    /// MAC that the forward direction is sent to.
    pub destination_mac: Mac,
    /// Port of the responder.
    pub destination_port: u16,
    /// Tap that counted the forward direction.
    pub tap: TapIndex,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Application.
    pub application: Application,
    /// See [`event`].
    pub events: u8,
    /// Whether this is the flow's first row of the window.
    pub counts_flow: bool,
    /// Packets that came after their own window was closed.
    pub late_packets: u32,
    /// Packets forward and reverse.
    pub packets: [u64; 2],
    /// IP octets forward and reverse.
    pub octets: [u64; 2],
    /// Layer-2 octets forward and reverse.
    pub layer2_octets: [u64; 2],
    /// SYN to SYN-ACK, in the window in which the SYN-ACK came; else 0.
    pub handshake_server_rtt_ns: u64,
    /// Share of flows that shedding kept.
    pub sampling_rate: f32,
}

/// What a row is made of; arrays of two are by sender.
#[derive(Clone, Copy, Debug)]
pub struct RowFacts<'a> {
    /// Window.
    pub window: WindowNumber,
    /// The flow's key.
    pub key: &'a FlowKey,
    /// Who began.
    pub initiator: Sender,
    /// What the packets look like below IP, seen from the initiator.
    pub ends: Ends,
    /// Tap that counted the forward direction (the reverse one where nothing went forward).
    pub tap: TapIndex,
    /// Application.
    pub application: Application,
    /// See [`event`](crate::flow::event).
    pub events: u8,
    /// Whether this is the flow's first row of the window.
    pub counts_flow: bool,
    /// Packets that came after their own window was closed.
    pub late_packets: u32,
    /// Packets.
    pub packets: [u32; 2],
    /// IP octets.
    pub octets: [u32; 2],
    /// SYN to SYN-ACK, in the window in which the SYN-ACK came; else 0.
    pub handshake_server_rtt_ns: u64,
    /// Share of flows that shedding kept.
    pub sampling_rate: f32,
}

/// Segments and stations of a flow, seen from its initiator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Segment of the forward direction (of the reverse one where nothing went forward).
    pub segment: Segment,
    /// Segment of the reverse direction, likewise.
    pub reverse_segment: Segment,
    /// MAC of the initiator as the forward direction shows it.
    pub source_mac: Mac,
    /// MAC that the forward direction is sent to.
    pub destination_mac: Mac,
    /// Octets of the Ethernet header, forward and reverse.
    pub layer2_header_octets: [u8; 2],
}

impl Ends {
    /// From both sides.
    pub fn of(by_sender: &[Side; 2], initiator: Sender) -> Self {
        let (there, back) = sides(by_sender, initiator);
        Self {
            segment: there.segment,
            reverse_segment: back.segment,
            source_mac: there.source_mac,
            destination_mac: there.destination_mac,
            layer2_header_octets: [there.layer2_header_octets, back.layer2_header_octets],
        }
    }
}

impl Row {
    /// The row, seen from the initiator.
    #[inline]
    pub fn of(facts: &RowFacts<'_>) -> Self {
        let (forward, reverse) = (facts.initiator, facts.initiator.other());
        let order = [forward.place(), reverse.place()];
        let octets = order.map(|place| u64::from(facts.octets[place]));
        let packets = order.map(|place| u64::from(facts.packets[place]));
        let header = facts.ends.layer2_header_octets.map(u64::from);
        Self {
            window: facts.window,
            space: facts.key.space,
            segment: facts.ends.segment,
            reverse_segment: facts.ends.reverse_segment,
            source: facts.key.address(forward),
            destination: facts.key.address(reverse),
            source_mac: facts.ends.source_mac,
            destination_mac: facts.ends.destination_mac,
            destination_port: facts.key.port(reverse),
            tap: facts.tap,
            protocol: facts.key.protocol,
            ip_version: facts.key.ip_version,
            application: facts.application,
            events: facts.events,
            counts_flow: facts.counts_flow,
            late_packets: facts.late_packets,
            packets,
            octets,
            layer2_octets: [octets[0] + packets[0] * header[0], octets[1] + packets[1] * header[1]],
            handshake_server_rtt_ns: facts.handshake_server_rtt_ns,
            sampling_rate: facts.sampling_rate,
        }
    }

    /// Packets of both directions.
    pub const fn packets_sum(&self) -> u64 {
        self.packets[0] + self.packets[1]
    }
}

/// Both sides of a flow seen from the initiator; one that sent nothing is the other, turned.
pub fn sides(sides: &[Side; 2], initiator: Sender) -> (Side, Side) {
    let (there, back) = (sides[initiator.place()], sides[initiator.other().place()]);
    match (there.seen, back.seen) {
        (true, false) => (there, there.turned()),
        (false, true) => (back.turned(), back),
        _ => (there, back),
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
                assert_eq!(booking.book(&headers), clock.book(&headers));
            }
            let last = at(u64::MAX, u64::MAX);
            assert_eq!(booking.book(&last), clock.book(&last));
        }
    }
}
