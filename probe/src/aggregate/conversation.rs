//! What two endpoints did for one service in one window.
//!
//! In: rows. Out: [`ConversationKey`] and its [`Conversation`].
//! Invariants: sums do not depend on the order of rows.

use super::extras::ExtraPlace;
use crate::app::Application;
use crate::decode::{Address, Mac};
use crate::flow::event;
use crate::index::TapIndex;
use crate::inventory::{AddressSpace, Segment};
use crate::window::Row;

/// Both endpoints as seen from the initiator, and the service. Where a direction's MAC or segment
/// changes, another conversation begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationKey {
    /// Address space.
    pub space: AddressSpace,
    /// Initiator.
    pub source: Address,
    /// Responder.
    pub destination: Address,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Port of the responder.
    pub destination_port: u16,
    /// Application.
    pub application: Application,
    /// Segment of the forward direction.
    pub segment: Segment,
    /// Segment of the reverse direction.
    pub reverse_segment: Segment,
    /// MAC of the initiator.
    pub source_mac: Mac,
    /// MAC that the initiator sends to.
    pub destination_mac: Mac,
}

impl ConversationKey {
    /// Key of a row.
    #[inline]
    pub const fn of(row: &Row) -> Self {
        let ends = row.ends();
        Self {
            space: row.space(),
            source: row.source(),
            destination: row.destination(),
            protocol: row.protocol(),
            ip_version: row.ip_version(),
            destination_port: row.destination_port(),
            application: row.application,
            segment: ends.segment,
            reverse_segment: ends.reverse_segment,
            source_mac: ends.source_mac,
            destination_mac: ends.destination_mac,
        }
    }
}

/// Probes that saw something, as bits of a list that whoever looks at several of them together keeps; none
/// in a probe, which sees with its own eyes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observers(pub u64);

impl Observers {
    /// Adds those of another.
    pub const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Sums over the rows of a conversation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversation {
    /// Flows with a packet in the window.
    pub flows: u64,
    /// Packets forward and reverse.
    pub packets: [u64; 2],
    /// IP octets forward and reverse.
    pub octets: [u64; 2],
    /// Layer-2 octets forward and reverse.
    pub layer2_octets: [u64; 2],
    /// Packets that came after their own window was closed.
    pub late_packets: u64,
    /// Flows that began in the window.
    pub started: u64,
    /// Flows that asked for something with their first packet.
    pub contacts: u64,
    /// Flows whose first answer came in the window.
    pub answered: u64,
    /// Flows that were answered with RST.
    pub refused: u64,
    /// Flows whose first SYN came in the window.
    pub syns: u64,
    /// Flows whose handshake was completed in the window.
    pub established: u64,
    /// Flows that asked in this window and had no answer up to its end.
    pub unanswered: u64,
    /// Flows whose SYN-ACK came in the window, and not what completes the handshake up to its end.
    pub half_open: u64,
    /// Least share of flows that shedding kept.
    pub sampling_rate: f32,
    /// Lowest tap that counted the forward direction.
    pub tap: TapIndex,
    /// In one of its flows one end has acknowledged what the other sent.
    pub acknowledged: bool,
    /// What was measured in it.
    pub extra: ExtraPlace,
    /// Which probes saw it.
    pub observers: Observers,
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            flows: 0,
            packets: [0; 2],
            octets: [0; 2],
            layer2_octets: [0; 2],
            late_packets: 0,
            started: 0,
            contacts: 0,
            answered: 0,
            refused: 0,
            syns: 0,
            established: 0,
            unanswered: 0,
            half_open: 0,
            sampling_rate: 1.0,
            tap: TapIndex(u16::MAX),
            acknowledged: false,
            extra: ExtraPlace::default(),
            observers: Observers::default(),
        }
    }
}

impl Conversation {
    /// With one row.
    #[inline]
    pub fn first(row: &Row, sampling_rate: f32) -> Self {
        let mut conversation = Self::default();
        conversation.add(row, sampling_rate);
        conversation
    }

    /// Adds a row of a window in which shedding kept so large a share of flows.
    #[inline]
    pub fn add(&mut self, row: &Row, sampling_rate: f32) {
        let [flows, started, contacts, answered, refused, syns, established, unanswered, half_open] =
            counts_of(row).map(u64::from);
        let (packets, octets, layer2_octets) = (row.packets(), row.octets(), row.layer2_octets());
        for direction in 0..2 {
            self.packets[direction] += packets[direction];
            self.octets[direction] += octets[direction];
            self.layer2_octets[direction] += layer2_octets[direction];
        }
        self.late_packets += u64::from(row.late_packets);
        self.flows += flows;
        self.started += started;
        self.contacts += contacts;
        self.answered += answered;
        self.refused += refused;
        self.syns += syns;
        self.established += established;
        self.unanswered += unanswered;
        self.half_open += half_open;
        self.sampling_rate = self.sampling_rate.min(sampling_rate);
        self.tap = self.tap.min(row.tap);
        self.acknowledged |= has_acknowledged(row);
    }

    /// Octets of both directions.
    pub const fn octets_sum(&self) -> u64 {
        self.octets[0] + self.octets[1]
    }

    /// Packets of both directions.
    pub const fn packets_sum(&self) -> u64 {
        self.packets[0] + self.packets[1]
    }
}

/// Flows, those started, contacts, answered, refused, SYNs, established, unanswered, half open.
pub(super) type Counts = [u8; 9];

/// What a row adds to these counts.
#[inline]
pub(super) fn counts_of(row: &Row) -> Counts {
    let has = |bits: u8| u8::from(row.events & bits == bits);
    let decided = row.events & (event::ANSWERED | event::REFUSED) != 0;
    [
        u8::from(row.counts_flow),
        has(event::STARTED),
        has(event::CONTACT),
        has(event::ANSWERED),
        has(event::REFUSED),
        has(event::SYN),
        has(event::ESTABLISHED),
        if decided { 0 } else { has(event::CONTACT) },
        if has(event::ESTABLISHED) == 0 { has(event::SYN_ACK) } else { 0 },
    ]
}

/// Whether one end has acknowledged what the other sent.
#[inline]
pub(super) const fn has_acknowledged(row: &Row) -> bool {
    row.events & event::ACKNOWLEDGED != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Sender;

    /// A row with so many packets forward and reverse.
    fn row(events: u8, packets: [u32; 2]) -> Row {
        let mut row = Row::default();
        row.events = events;
        for (sender, packets) in [Sender::Low, Sender::High].into_iter().zip(packets) {
            (0..packets).for_each(|_| row.count(sender, 100, false));
        }
        row
    }

    #[test]
    fn the_order_of_rows_does_not_matter() {
        let begun = event::STARTED | event::CONTACT | event::SYN;
        let mut asked = row(begun, [1, 0]);
        asked.counts_flow = true;
        let answered = row(event::ANSWERED | event::SYN_ACK, [2, 2]);
        let sum = |rows: [(&Row, f32); 2]| {
            let mut conversation = Conversation::default();
            for (row, rate) in rows {
                conversation.add(row, rate);
            }
            conversation
        };
        let conversation = sum([(&asked, 0.5), (&answered, 1.0)]);
        assert_eq!(conversation, sum([(&answered, 1.0), (&asked, 0.5)]));
        assert_eq!((conversation.flows, conversation.packets), (1, [3, 2]));
        assert_eq!((conversation.contacts, conversation.unanswered), (1, 1));
        assert_eq!(conversation.half_open, 1);
        assert!((conversation.sampling_rate - 0.5).abs() < f32::EPSILON);
    }
}
