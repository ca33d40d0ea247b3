//! What one flow did in one window or a part of it.
//!
//! In: the flow as it is when its first packet of the window comes, then each packet. Out: the same
//! as the aggregator reads it, seen from the initiator.
//! Cost: 128 bytes, written once; a packet that goes on with it touches the first half only.
//! Invariants: all packets of a row share MAC addresses and segment by direction.

use crate::app::Application;
use crate::decode::{Address, Mac};
use crate::flow::Side;
use crate::index::{FlowIndex, Sender, TapIndex};
use crate::inventory::{AddressSpace, Segment};
use crate::spread::FlowKey;

/// What one flow did in one window or a part of it. Arrays of two are by sender.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Row {
    /// Packets.
    sent_packets: [u32; 2],
    /// IP octets.
    sent_octets: [u32; 2],
    /// Packets that came after their own window was closed.
    pub late_packets: u32,
    /// The flow.
    flow: FlowIndex,
    /// See [`event`](crate::flow::event).
    pub events: u8,
    /// Application.
    pub application: Application,
    /// Who began.
    initiator: Sender,
    /// Whether this is the flow's first row of the window.
    pub counts_flow: bool,
    /// Tap that counted the forward direction (the reverse one where nothing went forward).
    pub tap: TapIndex,
    ends: Ends,
    key: FlowKey,
}

const _: () = assert!(size_of::<Row>() == 128, "two cache lines a row");

/// What a row begins with.
#[derive(Clone, Copy, Debug)]
pub struct RowFacts<'a> {
    /// The flow's place.
    pub flow: FlowIndex,
    /// Its key.
    pub key: &'a FlowKey,
    /// Who began.
    pub initiator: Sender,
    /// What the packets look like below IP, seen from the initiator.
    pub ends: Ends,
    /// Tap that counted the forward direction (the reverse one where nothing went forward).
    pub tap: TapIndex,
    /// Application, as far as known.
    pub application: Application,
    /// Whether this is the flow's first row of the window.
    pub counts_flow: bool,
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

/// Both sides of a flow seen from the initiator; one that sent nothing is the other, turned.
pub fn sides(sides: &[Side; 2], initiator: Sender) -> (Side, Side) {
    let (there, back) = (sides[initiator.place()], sides[initiator.other().place()]);
    match (there.seen, back.seen) {
        (true, false) => (there, there.turned()),
        (false, true) => (back.turned(), back),
        _ => (there, back),
    }
}

impl Row {
    /// A row without packets.
    #[inline]
    pub fn of(facts: &RowFacts<'_>) -> Self {
        Self {
            sent_packets: [0; 2],
            sent_octets: [0; 2],
            late_packets: 0,
            flow: facts.flow,
            events: 0,
            application: facts.application,
            initiator: facts.initiator,
            counts_flow: facts.counts_flow,
            tap: facts.tap,
            ends: facts.ends,
            key: facts.key.copied(),
        }
    }

    /// The same with its first packet: one without any is not written before.
    #[inline]
    #[must_use]
    pub fn with_first(self, sender: Sender, octets: u32, late: bool) -> Self {
        let by_sender = |amount: u32| match sender {
            Sender::Low => [amount, 0],
            Sender::High => [0, amount],
        };
        Self {
            sent_packets: by_sender(1),
            sent_octets: by_sender(octets),
            late_packets: u32::from(late),
            ..self
        }
    }

    /// The flow that this is a row of, by its place at that time.
    #[inline]
    pub const fn flow(&self) -> FlowIndex {
        self.flow
    }

    /// Whether so many octets more from `sender` can be counted.
    #[inline]
    pub const fn has_room(&self, sender: Sender, octets: u32) -> bool {
        self.sent_octets[sender.place()].checked_add(octets).is_some()
    }

    /// Counts a packet for which there is room.
    #[inline]
    pub const fn count(&mut self, sender: Sender, octets: u32, late: bool) {
        let place = sender.place();
        // Room for the octets is room for the packet: each has twenty or more.
        self.sent_packets[place] = self.sent_packets[place].wrapping_add(1);
        self.sent_octets[place] = self.sent_octets[place].wrapping_add(octets);
        if late {
            self.late_packets = self.late_packets.saturating_add(1);
        }
    }

    /// The other direction was seen for the first time.
    pub const fn complete(&mut self, ends: Ends, tap: TapIndex) {
        self.ends = ends;
        self.tap = tap;
    }

    /// Who began.
    #[inline]
    pub const fn initiator(&self) -> Sender {
        self.initiator
    }

    const fn forward<T: Copy>(&self, by_sender: [T; 2]) -> [T; 2] {
        match self.initiator {
            Sender::Low => by_sender,
            Sender::High => [by_sender[1], by_sender[0]],
        }
    }

    /// Packets forward and reverse.
    #[inline]
    pub const fn packets(&self) -> [u64; 2] {
        let [forward, reverse] = self.forward(self.sent_packets);
        [forward as u64, reverse as u64]
    }

    /// IP octets forward and reverse.
    #[inline]
    pub const fn octets(&self) -> [u64; 2] {
        let [forward, reverse] = self.forward(self.sent_octets);
        [forward as u64, reverse as u64]
    }

    /// Layer-2 octets forward and reverse.
    #[inline]
    pub const fn layer2_octets(&self) -> [u64; 2] {
        let (packets, octets) = (self.packets(), self.octets());
        let [forward, reverse] = self.ends.layer2_header_octets;
        [octets[0] + packets[0] * forward as u64, octets[1] + packets[1] * reverse as u64]
    }

    /// Packets of both directions.
    #[inline]
    pub const fn packets_sum(&self) -> u64 {
        self.sent_packets[0] as u64 + self.sent_packets[1] as u64
    }

    /// Segments and stations.
    #[inline]
    pub const fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Address space.
    #[inline]
    pub const fn space(&self) -> AddressSpace {
        self.key.space
    }

    /// Initiator.
    #[inline]
    pub const fn source(&self) -> Address {
        self.key.address(self.initiator)
    }

    /// Responder.
    #[inline]
    pub const fn destination(&self) -> Address {
        self.key.address(self.initiator.other())
    }

    /// Port of the responder.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        self.key.port(self.initiator.other())
    }

    /// IANA protocol number.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.key.protocol
    }

    /// 4 or 6.
    #[inline]
    pub const fn ip_version(&self) -> u8 {
        self.key.ip_version
    }
}
