//! What one flow did in one window or a part of it.
//!
//! In: the flow as it is when its first packet of the window comes, then each packet. Out: the same
//! as the aggregator reads it, seen from the initiator.
//! Cost: 128 bytes, written once; a packet that goes on with it touches the first half only.
//! Invariants: all packets of a row share MAC addresses and segment by direction.

use crate::app::Application;
use crate::decode::{Address, Mac};
use crate::flow::{ETHERNET_OCTETS, Identity, Side};
use crate::index::{FlowIndex, Sender, TapIndex};
use crate::inventory::{AddressSpace, Segment, SegmentKind};
use crate::memory;
use crate::spread::FlowKey;

/// What one flow did in one window or a part of it. Arrays of two are by sender.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Row {
    /// Packets.
    sent_packets: [u32; 2],
    /// IP octets.
    sent_octets: [u32; 2],
    /// Segments of the forward and the reverse direction.
    segments: [Segment; 2],
    /// Packets that came after their own window was closed.
    pub late_packets: u32,
    /// The flow.
    flow: FlowIndex,
    /// Tap that counted the forward direction (the reverse one where nothing went forward).
    pub tap: TapIndex,
    /// See [`event`](crate::flow::event).
    pub events: u8,
    /// Application.
    pub application: Application,
    /// Who began.
    initiator: Sender,
    /// Whether this is the flow's first row of the window.
    pub counts_flow: bool,
    /// Whether packets have an Ethernet header: a bit for each sender.
    ethernet: u8,
    /// As the flow has it.
    identity: Identity,
}

const _: () = assert!(size_of::<Row>() == 128, "two cache lines a row");
const _: () = assert!(std::mem::offset_of!(Row, identity) == 64, "packets touch the first alone");

/// What a row begins with, as a flow has it whose directions are not apart.
#[derive(Clone, Copy, Debug)]
pub struct RowBeginning<'a> {
    /// The flow's place.
    pub flow: FlowIndex,
    /// Which flow it is.
    pub identity: &'a Identity,
    /// Segment of both directions.
    pub segment: Segment,
    /// Who began.
    pub initiator: Sender,
    /// Whether packets have an Ethernet header: a bit for each sender.
    pub ethernet: u8,
    /// Application, as far as known.
    pub application: Application,
}

/// What a row begins with, seen from the initiator.
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
    /// Makes it a row without packets, that does not count its flow. All fields are written, each where
    /// it stays: a row put together first goes by way of the stack.
    #[inline]
    pub const fn begin(&mut self, beginning: &RowBeginning<'_>) {
        (self.sent_packets, self.sent_octets) = ([0; 2], [0; 2]);
        (self.late_packets, self.events, self.counts_flow) = (0, 0, false);
        (self.flow, self.initiator) = (beginning.flow, beginning.initiator);
        self.application = beginning.application;
        self.complete_as(beginning);
    }

    /// The same from what others than a flow know.
    pub fn of(facts: &RowFacts<'_>) -> Self {
        let RowFacts { flow, initiator, application, .. } = *facts;
        let identity = Identity { key: *facts.key, ..Identity::default() };
        let segment = facts.ends.segment;
        let beginning = RowBeginning {
            flow,
            identity: &identity,
            segment,
            initiator,
            ethernet: 0,
            application,
        };
        let mut row = Self::default();
        row.begin(&beginning);
        row.counts_flow = facts.counts_flow;
        row.complete(facts.ends, facts.tap);
        row
    }

    /// A row as an older one may have left it: no field is as one that was just begun, each by `octet`, of
    /// which two that differ leave no field alike. For tests of who begins rows where others stood.
    pub fn left_over(octet: u8) -> Self {
        let (short, long) = (u16::from_ne_bytes([octet; 2]), u32::from_ne_bytes([octet; 4]));
        let is_odd = octet % 2 == 1;
        let segment = Segment::new(octet, SegmentKind::Vxlan, long >> 8);
        let key = FlowKey {
            space: AddressSpace::of_segment(segment),
            low: Address([octet; 16]),
            high: Address([octet; 16]),
            low_port: short,
            high_port: short,
            protocol: octet,
            ip_version: octet,
        };
        Self {
            sent_packets: [long; 2],
            sent_octets: [long; 2],
            segments: [segment; 2],
            late_packets: long,
            flow: FlowIndex(long),
            tap: TapIndex(short),
            events: octet,
            application: if is_odd { Application::Http } else { Application::Tls },
            initiator: if is_odd { Sender::High } else { Sender::Low },
            counts_flow: is_odd,
            ethernet: octet,
            identity: Identity { key, stations: [Mac([octet; 6]); 2], taps: [TapIndex(short); 2] },
        }
    }

    /// Has the line fetched that each packet touches.
    #[inline]
    pub fn fetch_counts(&self) {
        // Any octet of it will do.
        memory::fetch(&self.events);
    }

    /// Counts the first packet.
    #[inline]
    pub const fn count_first(&mut self, sender: Sender, octets: u32, late: bool) {
        self.sent_packets[sender.place()] = 1;
        self.sent_octets[sender.place()] = octets;
        self.late_packets = late as u32;
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
        self.segments = [ends.segment, ends.reverse_segment];
        let (forward, reverse) = (self.initiator.place(), self.initiator.other().place());
        self.identity.stations[forward] = ends.source_mac;
        self.identity.stations[reverse] = ends.destination_mac;
        let [there, back] = ends.layer2_header_octets;
        self.ethernet = (((there != 0) as u8) << forward) | (((back != 0) as u8) << reverse);
        self.tap = tap;
    }

    /// The same for a flow whose directions are not apart: what it would begin a row with now.
    #[inline]
    pub const fn complete_as(&mut self, beginning: &RowBeginning<'_>) {
        let RowBeginning { identity, segment, initiator, ethernet, .. } = *beginning;
        let [low, high] = identity.taps;
        self.segments = [segment; 2];
        (self.ethernet, self.tap) = (ethernet, if initiator as u8 == 0 { low } else { high });
        self.identity = *identity;
    }

    /// The same where the flow's stations and segment are those that it was begun with.
    #[inline]
    pub const fn take_answer(&mut self, beginning: &RowBeginning<'_>) {
        let [low, high] = beginning.identity.taps;
        self.ethernet = beginning.ethernet;
        self.tap = if beginning.initiator as u8 == 0 { low } else { high };
        self.identity.taps = [low, high];
    }

    /// Tells what the flow's newest packet brought that is more than counts.
    #[inline]
    pub const fn tell(&mut self, events: u8, application: Application) {
        if events != 0 {
            self.events |= events;
            self.application = application;
        }
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
        let [forward, reverse] = self.layer2_header_octets();
        [octets[0] + packets[0] * forward as u64, octets[1] + packets[1] * reverse as u64]
    }

    /// Packets of both directions.
    #[inline]
    pub const fn packets_sum(&self) -> u64 {
        self.sent_packets[0] as u64 + self.sent_packets[1] as u64
    }

    /// Octets of the Ethernet header, forward and reverse.
    #[inline]
    pub const fn layer2_header_octets(&self) -> [u8; 2] {
        self.forward([
            (self.ethernet & 1) * ETHERNET_OCTETS,
            (self.ethernet >> 1) * ETHERNET_OCTETS,
        ])
    }

    /// Segments and stations.
    #[inline]
    pub const fn ends(&self) -> Ends {
        let [source_mac, destination_mac] = self.forward(self.identity.stations);
        Ends {
            segment: self.segments[0],
            reverse_segment: self.segments[1],
            source_mac,
            destination_mac,
            layer2_header_octets: self.layer2_header_octets(),
        }
    }

    /// Address space.
    #[inline]
    pub const fn space(&self) -> AddressSpace {
        self.identity.key.space
    }

    /// Initiator.
    #[inline]
    pub const fn source(&self) -> Address {
        self.identity.key.address(self.initiator)
    }

    /// Responder.
    #[inline]
    pub const fn destination(&self) -> Address {
        self.identity.key.address(self.initiator.other())
    }

    /// Port of the responder.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        self.identity.key.port(self.initiator.other())
    }

    /// IANA protocol number.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.identity.key.protocol
    }

    /// 4 or 6.
    #[inline]
    pub const fn ip_version(&self) -> u8 {
        self.identity.key.ip_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_older_row_stays() {
        let identity = Identity { taps: [TapIndex(1), TapIndex(2)], ..Identity::default() };
        for initiator in [Sender::Low, Sender::High] {
            let beginning = RowBeginning {
                flow: FlowIndex(7),
                identity: &identity,
                segment: Segment::NONE,
                initiator,
                ethernet: 3,
                application: Application::Unknown,
            };
            let begun = |octet: u8| {
                let mut row = Row::left_over(octet);
                row.begin(&beginning);
                format!("{row:?}")
            };
            let [one, other] = [0x55, 0xaa].map(begun);
            assert_eq!(one, other);
            let mut new = Row::default();
            new.begin(&beginning);
            assert_eq!(one, format!("{new:?}"));
        }
    }

    /// Else the tests that begin rows there would not notice a field that is not written.
    #[test]
    fn no_field_of_what_is_left_over_is_like_another() {
        let fields = |octet: u8| {
            let Row { sent_packets, sent_octets, segments, late_packets, .. } =
                Row::left_over(octet);
            let Row { flow, tap, events, application, .. } = Row::left_over(octet);
            let Row { initiator, counts_flow, ethernet, identity, .. } = Row::left_over(octet);
            let Identity { key, stations, taps } = identity;
            let FlowKey { space, low, high, low_port, high_port, protocol, ip_version } = key;
            let counts = format!("{sent_packets:?};{sent_octets:?};{segments:?};{late_packets}");
            let flow = format!("{flow:?};{tap:?};{events};{application:?};{initiator:?}");
            let rest = format!("{counts_flow};{ethernet};{stations:?};{taps:?};{space:?};{low:?}");
            let key = format!("{high:?};{low_port};{high_port};{protocol};{ip_version}");
            format!("{counts};{flow};{rest};{key}")
        };
        let [one, other, new] = [fields(0x55), fields(0xaa), fields(0)];
        let differ = |one: &str, other: &str| {
            let alike = one.split(';').zip(other.split(';')).find(|(one, other)| one == other);
            assert_eq!(alike, None);
        };
        differ(&one, &other);
        // 0 is even, as one of the two.
        assert_ne!(one, new);
    }
}
