//! What each flow did in one time window.
//!
//! In: flows whose counts of a window are complete. Out: [`Row`]s in blocks.
//! Cost: one row a flow and window; closing takes a bounded number of flows a step.
//! Invariants: a row is cut whenever its flow's window, MAC addresses or segment change, so all its
//! packets share them; the packets of all rows of a window are those that were booked in it.
//! Source: ARCHITECTURE.md, "Windows".

mod handoff;
mod touched;

pub use handoff::{FromWorker, HandoffReceiver, HandoffSender, handoff};
pub use touched::Touched;

use crate::app::Application;
use crate::decode::{Address, Headers, Mac};
use crate::flow::{Flow, event};
use crate::index::{TapIndex, WindowNumber};
use crate::inventory::{AddressSpace, Segment};
use crate::spread::Sender;
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

    /// The window that a packet is booked in, and whether it came too late for its own. Depends on
    /// the packet alone.
    #[inline]
    pub const fn book(self, headers: &Headers) -> (WindowNumber, bool) {
        let own = WindowNumber::of(headers.timestamp, self.length_ns);
        let oldest = self.oldest_open(headers.clock);
        if own.0 < oldest.0 { (oldest, true) } else { (own, false) }
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

impl Row {
    /// The row of a flow whose window is about to be taken over. `None` if nothing was counted.
    pub fn of(flow: &Flow, sampling_rate: f32) -> Option<Self> {
        let window = flow.window?;
        let (forward, reverse) = (flow.initiator, flow.initiator.other());
        let (there, back) = sides(flow);
        let order = [forward.place(), reverse.place()];
        let header = |place: usize| u64::from(flow.sides[place].layer2_header_octets);
        let answered_now = flow.window_events & event::SYN_ACK != 0;
        Some(Self {
            window,
            space: flow.key.space,
            segment: there.segment,
            reverse_segment: back.segment,
            source: flow.key.address(forward),
            destination: flow.key.address(reverse),
            source_mac: there.source_mac,
            destination_mac: there.destination_mac,
            destination_port: flow.key.port(reverse),
            tap: flow.taps[if there.seen { forward.place() } else { reverse.place() }],
            protocol: flow.key.protocol,
            ip_version: flow.key.ip_version,
            application: flow.application,
            events: flow.window_events,
            counts_flow: flow.counted_window != Some(window),
            late_packets: flow.window_late_packets,
            packets: order.map(|place| u64::from(flow.window_packets[place])),
            octets: order.map(|place| flow.window_octets[place]),
            layer2_octets: order.map(|place| {
                flow.window_octets[place] + u64::from(flow.window_packets[place]) * header(place)
            }),
            handshake_server_rtt_ns: flow
                .handshake_server_rtt_ns
                .filter(|_| answered_now)
                .unwrap_or(0),
            sampling_rate,
        })
    }

    /// Packets of both directions.
    pub const fn packets_sum(&self) -> u64 {
        self.packets[0] + self.packets[1]
    }
}

/// Both sides of a flow seen from the initiator; one that sent nothing is the other, turned.
pub fn sides(flow: &Flow) -> (crate::flow::Side, crate::flow::Side) {
    let turned = |side: crate::flow::Side| crate::flow::Side {
        source_mac: side.destination_mac,
        destination_mac: side.source_mac,
        ..side
    };
    let side = |sender: Sender| flow.sides[sender.place()];
    let (there, back) = (side(flow.initiator), side(flow.initiator.other()));
    match (there.seen, back.seen) {
        (true, false) => (there, turned(there)),
        (false, true) => (turned(back), back),
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
    fn rows_are_seen_from_the_initiator() {
        let flow = Flow {
            window: Some(WindowNumber(9)),
            window_packets: [2, 3],
            window_octets: [200, 300],
            initiator: Sender::High,
            ..Flow::default()
        };
        let row = Row::of(&flow, 1.0).expect("something was counted");
        assert_eq!((row.packets, row.octets), ([3, 2], [300, 200]));
        assert!(Row::of(&Flow::default(), 1.0).is_none());
    }
}
