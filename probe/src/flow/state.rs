//! What the table keeps of one flow: two cache lines that each packet touches, and the rest.
//!
//! In: packets, through the stage. Out: fields for rows and records.
//! Cost: 128 bytes a flow, and 44 more that only its beginning and its ending touch.
//! Invariants: what is counted in a window stands in the flow's row, not here; numbers of windows
//! are kept by their low bits, and the row says whether it is the one that is meant.

use crate::app::Application;
use crate::decode::{Mac, protocol};
use crate::index::{FlowIndex, Sender, TapIndex, WindowNumber};
use crate::inventory::Segment;
use crate::time::Timestamp;
use crate::window::{Row, RowBeginning, RowPlace};

use super::beside::Beside;
use super::identity::Identity;
use super::packet::Packet;
use super::sides::{NOWHERE, Side};
use super::{InitiatorMethod, TcpState, event};

/// Facts in [`Flow::flags`].
mod flag {
    pub(super) const INITIATOR_HIGH: u16 = 1;
    pub(super) const METHOD_SHIFT: u16 = 1;
    pub(super) const METHOD: u16 = 0b11 << METHOD_SHIFT;
    pub(super) const LIVE: u16 = 1 << 3;
    /// And the bit above it: by sender.
    pub(super) const SEEN: u16 = 1 << 4;
    /// And the bit above it: by sender.
    pub(super) const ETHERNET: u16 = 1 << 6;
    pub(super) const APART: u16 = 1 << 8;
    pub(super) const LOOKED_SHIFT: u16 = 9;
    pub(super) const LOOKED: u16 = 0b111 << LOOKED_SHIFT;
    /// And the bit above it: by sender.
    pub(super) const SETTLED: u16 = 1 << 12;
    /// And the bit above it: by sender.
    pub(super) const LISTENED: u16 = 1 << 14;
}

/// What each packet of a flow touches: by the first line it is found, the second counts.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Flow {
    /// What it is found by.
    pub identity: Identity,
    /// Largest time of a packet.
    pub last_seen: Timestamp,
    /// Clock at the last packet, by which silence is told: stamps of a file may go back.
    pub heard: Timestamp,
    /// Packets of the record to come, by sender.
    pub(super) packets: [u32; 2],
    /// Octets of that record by sender, low bits.
    pub(super) octets: [u32; 2],
    segment: Segment,
    /// Where its newest row is. It may be another's by now, but never another one of this flow.
    pub(super) row: RowPlace,
    /// Low bits of the key's hash; of a free slot the next free one.
    pub(super) hash: u32,
    /// Low bits of the number of the window of that row.
    pub(super) window: u16,
    /// Low bits of half the number of the last even and odd window in which the flow was counted as
    /// a flow: with packets out of order two windows take turns.
    counted: [u16; 2],
    /// Low bits of the second in which the record to come begins.
    pub(super) record_second: u16,
    flags: u16,
    /// TCP state.
    pub tcp: TcpState,
    /// TCP flags seen by sender (IE 6, low octet).
    pub(super) tcp_control_bits: [u8; 2],
    /// See [`event`]: all so far.
    pub events: u8,
    /// Recognised application.
    pub application: Application,
}

const _: () = assert!(size_of::<Flow>() == 128, "two cache lines a packet");

/// What only handshakes, beginnings and endings touch.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub(super) struct Rest {
    /// Time of the first packet of the biflow.
    pub(super) first_seen: Timestamp,
    /// Time of the first packet of the record to come.
    pub(super) record_start: Timestamp,
    /// Octets of the record, by sender, above those that the flow's own line holds.
    pub(super) octets_above: [u16; 2],
    /// First TCP sequence number seen, by sender.
    pub(super) initial_sequence: [u32; 2],
    /// Place among the flows whose directions are apart.
    pub(super) apart: u32,
    /// What is measured beside packets and octets.
    pub(super) beside: Beside,
}

const _: () = assert!(size_of::<Rest>() == 44, "bytes per flow as the documents state them");

impl Default for Rest {
    fn default() -> Self {
        Self {
            first_seen: Timestamp::ZERO,
            record_start: Timestamp::ZERO,
            octets_above: [0; 2],
            initial_sequence: [0; 2],
            apart: NOWHERE,
            beside: Beside::default(),
        }
    }
}

/// The second, by its low bits, that holds `at`.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is kept")]
pub(super) const fn second_of(at: Timestamp) -> u16 {
    (at.0 / 1_000_000_000) as u16
}

impl Flow {
    /// Makes it one whose first packet this is, in `window`; nothing is counted yet. Each field is written
    /// where it stays: a flow put together first goes by way of the stack.
    #[inline]
    pub(super) fn begin(
        &mut self,
        packet: &impl Packet,
        (initiator, method): (Sender, InitiatorMethod),
        window: WindowNumber,
    ) {
        let sender = packet.sender();
        let ethernet = if packet.is_ethernet() { flag::ETHERNET } else { 0 };
        let initiator_bit = if initiator == Sender::High { flag::INITIATOR_HIGH } else { 0 };
        self.flags = flag::LIVE
            | initiator_bit
            | (u16::from(method as u8) << flag::METHOD_SHIFT)
            | ((flag::SEEN | ethernet) << sender.place());
        self.identity.key = packet.key();
        let [source, destination] = packet.stations();
        self.identity.stations[sender.place()] = source;
        self.identity.stations[sender.other().place()] = destination;
        self.identity.taps = [packet.tap(); 2];
        (self.last_seen, self.heard) = packet.times();
        (self.packets, self.octets) = ([0; 2], [0; 2]);
        self.segment = packet.segment();
        self.row = RowPlace::NOWHERE;
        self.hash = low(packet.hash());
        self.window = low_window(window).wrapping_sub(1);
        self.counted = [half(window).wrapping_sub(1); 2];
        self.record_second = second_of(self.last_seen);
        (self.tcp, self.tcp_control_bits) = (TcpState::NotTcp, [0; 2]);
        (self.events, self.application) = (0, Application::default());
    }

    /// Whether the slot is in use.
    #[inline]
    pub fn is_live(&self) -> bool {
        self.flags & flag::LIVE != 0
    }

    pub(super) fn end(&mut self) {
        self.flags &= !flag::LIVE;
        // No packet has it, so a look-up need not ask whether the flow lives.
        self.identity.key.ip_version = 0;
    }

    /// Who began.
    #[inline]
    pub const fn initiator(&self) -> Sender {
        if self.flags & flag::INITIATOR_HIGH == 0 { Sender::Low } else { Sender::High }
    }

    /// How that is known.
    pub fn initiator_method(&self) -> InitiatorMethod {
        match (self.flags & flag::METHOD) >> flag::METHOD_SHIFT {
            1 => InitiatorMethod::Syn,
            2 => InitiatorMethod::FirstPacketAndPort,
            _ => InitiatorMethod::FirstPacket,
        }
    }

    /// Whether the flow has not come further than an unanswered first packet.
    pub const fn is_embryonic(&self) -> bool {
        self.events & (event::ANSWERED | event::ESTABLISHED) == 0
    }

    /// Whether the newest row may be one of this window.
    #[inline]
    pub(super) const fn may_be_in(&self, window: WindowNumber) -> bool {
        self.window == low_window(window)
    }

    /// Counts a packet; `true` where the octets went round.
    #[inline]
    pub(super) fn count(
        &mut self,
        sender: Sender,
        octets: u32,
        (at, clock): (Timestamp, Timestamp),
    ) -> bool {
        let sender = sender.place();
        // Compares and branches: the two maxima in one go of vectors are four times as much.
        if at > self.last_seen {
            self.last_seen = at;
        }
        if clock > self.heard {
            self.heard = clock;
        }
        // Each row is a look at whether a record is due, and no row has so many packets.
        self.packets[sender] = self.packets[sender].wrapping_add(1);
        let (octets, went_round) = self.octets[sender].overflowing_add(octets);
        self.octets[sender] = octets;
        went_round
    }

    /// Counts the first packet, whose times are known.
    #[inline]
    pub(super) const fn count_first(&mut self, sender: Sender, octets: u32) {
        self.packets[sender.place()] = 1;
        self.octets[sender.place()] = octets;
    }

    /// Notes for which senders a packet is one more like those before it: one without SYN and RST,
    /// between the same stations, before any timeout.
    #[inline]
    pub(super) fn settle(&mut self) {
        let seen = (self.flags >> flag::SEEN.trailing_zeros()) & 0b11;
        let ethernet = (self.flags >> flag::ETHERNET.trailing_zeros()) & 0b11;
        let answered = self.events & event::ANSWERED != 0;
        let may_send = if answered { 0b11 } else { 1 << self.initiator().place() };
        let [low, high] = self.tcp_control_bits.map(|bits| u16::from(bits != 0));
        // That its first segment was seen is what `tcp::changes_settled` relies on.
        let has_begun = match self.tcp {
            // Begun by a later fragment, which has no TCP header: its segments are looked at.
            TcpState::NotTcp if self.identity.key.protocol == protocol::TCP => 0,
            TcpState::NotTcp => 0b11,
            _ => low | (high << 1),
        };
        let is_together = if self.flags & flag::APART == 0 { 0b11 } else { 0 };
        let settled = seen & ethernet & may_send & has_begun & is_together;
        self.flags &= !(flag::SETTLED | (flag::SETTLED << 1));
        self.flags |= settled << flag::SETTLED.trailing_zeros();
    }

    /// Whether payload of `sender` is looked at: its application is still to be recognised, or one of
    /// its messages is awaited.
    #[inline]
    pub(super) const fn listens_to(&self, sender: Sender) -> bool {
        self.flags & (flag::LISTENED << sender.place()) != 0
    }

    /// Payload of both is looked at.
    pub(super) const fn listen_to_both(&mut self) {
        self.flags |= flag::LISTENED | (flag::LISTENED << 1);
    }

    /// Says whether payload of `sender` is looked at.
    pub(super) fn set_listening(&mut self, sender: Sender, listens: bool) {
        let bit = flag::LISTENED << sender.place();
        self.flags = if listens { self.flags | bit } else { self.flags & !bit };
    }

    /// See [`Flow::settle`].
    #[inline]
    pub(super) const fn is_settled_for(&self, sender: Sender) -> bool {
        self.flags & (flag::SETTLED << sender.place()) != 0
    }

    /// Whether the next packet of `sender` may ask for more than these two lines.
    #[inline]
    pub(super) const fn may_ask_rest(&self, sender: Sender) -> bool {
        let of_sender = self.flags >> sender.place();
        of_sender & (flag::SETTLED | flag::LISTENED) != flag::SETTLED
    }

    /// Whether a packet of `sender` comes and goes between the same stations as those before it;
    /// `stations` are its destination and source MAC.
    #[inline]
    pub(super) fn stands_between(
        &self,
        stations: &[u8; 12],
        sender: Sender,
        segment: Segment,
    ) -> bool {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *stations;
        let from = &self.identity.stations[sender.place()];
        let to = &self.identity.stations[sender.other().place()];
        let differences =
            differences(to, [a, b, c, d, e, f]) | differences(from, [g, h, i, j, k, l]);
        differences == 0 && self.segment == segment
    }

    /// Whether the flow was counted as a flow in `window` already.
    pub(super) fn was_counted_in(&self, window: WindowNumber) -> bool {
        self.counted[parity(window)] == half(window)
    }

    pub(super) fn note_counted_in(&mut self, window: WindowNumber) {
        self.counted[parity(window)] = half(window);
    }

    /// What this packet shows of its sender.
    #[inline]
    pub(super) fn shown_side(&self, packet: &impl Packet) -> Shown {
        let (sender, other) = (packet.sender().place(), packet.sender().other().place());
        let [Mac(source), Mac(destination)] = packet.stations();
        let differences = differences(&self.identity.stations[sender], source)
            | differences(&self.identity.stations[other], destination);
        if differences != 0 || self.segment != packet.segment() {
            return Shown::Other;
        }
        let own = flag::SEEN << sender;
        let seen = self.flags & (flag::SEEN | flag::SEEN << 1 | flag::APART);
        if seen == flag::SEEN << other {
            return Shown::Answer;
        }
        let ethernet = if packet.is_ethernet() { flag::ETHERNET << sender } else { 0 };
        let is_same = seen & (own | flag::APART) == own
            && self.flags & (flag::ETHERNET << sender) == ethernet;
        if is_same { Shown::Same } else { Shown::Other }
    }

    /// Notes a packet that is [`Shown::Answer`].
    #[inline]
    pub(super) fn take_answer(&mut self, packet: &impl Packet) {
        let sender = packet.sender().place();
        let ethernet = if packet.is_ethernet() { flag::ETHERNET << sender } else { 0 };
        self.flags |= (flag::SEEN << sender) | ethernet;
        // What has just been written in small pieces is slow to copy into a row.
        if self.identity.taps[sender] != packet.tap() {
            self.identity.taps[sender] = packet.tap();
        }
    }

    pub(super) fn is_apart(&self) -> bool {
        self.flags & flag::APART != 0
    }

    pub(super) fn set_apart(&mut self) {
        self.flags |= flag::APART;
    }

    /// The side of `sender` as this line has it.
    pub(super) fn side(&self, sender: Sender) -> Side {
        Side {
            segment: self.segment,
            source_mac: self.identity.stations[sender.place()],
            destination_mac: self.identity.stations[sender.other().place()],
            layer2_header_octets: if self.flags & (flag::ETHERNET << sender.place()) == 0 {
                0
            } else {
                14
            },
            seen: self.has_seen(sender),
        }
    }

    /// Writes a row of `window` without packets; the flow's place is `index`. Of a flow whose directions
    /// are apart the ends are yet to be told.
    #[inline]
    pub(super) fn begin_row(&mut self, index: FlowIndex, window: WindowNumber, row: &mut Row) {
        row.begin(&self.beginning(index));
        row.counts_flow = !self.was_counted_in(window);
        row.events = self.events & event::ACKNOWLEDGED;
        self.note_counted_in(window);
    }

    /// What its rows begin with; its place is `index`.
    #[inline]
    pub(super) fn beginning(&self, index: FlowIndex) -> RowBeginning<'_> {
        RowBeginning {
            flow: index,
            identity: &self.identity,
            segment: self.segment,
            initiator: self.initiator(),
            ethernet: (self.flags >> flag::ETHERNET.trailing_zeros()).to_le_bytes()[0] & 0b11,
            application: self.application,
        }
    }

    /// The tap of the forward direction: nearest to the sender of its first packet; of the reverse one where
    /// nothing went forward.
    #[inline]
    pub(super) fn tap(&self) -> TapIndex {
        self.identity.taps[self.initiator().place()]
    }

    /// The tap of the first packet of `sender`; a packet that it showed later was counted at another.
    pub(super) fn set_tap(&mut self, sender: Sender, tap: TapIndex) {
        self.identity.taps[sender.place()] = tap;
        if !self.has_seen(sender.other()) {
            self.identity.taps[sender.other().place()] = tap;
        }
    }

    /// Whether `sender` sent anything yet.
    #[inline]
    pub(super) fn has_seen(&self, sender: Sender) -> bool {
        self.flags & (flag::SEEN << sender.place()) != 0
    }

    /// Writes the side of `sender`, and with it where the other one is sent.
    pub(super) fn set_side(&mut self, sender: Sender, side: Side) {
        self.segment = side.segment;
        self.identity.stations[sender.place()] = side.source_mac;
        self.identity.stations[sender.other().place()] = side.destination_mac;
        let ethernet = flag::ETHERNET << sender.place();
        self.flags &= !ethernet;
        self.flags |= flag::SEEN << sender.place();
        if side.layer2_header_octets != 0 {
            self.flags |= ethernet;
        }
    }

    /// Packets with payload that the recognition has seen, at most 7.
    #[inline]
    pub(super) fn looked_at_packets(&self) -> u8 {
        ((self.flags & flag::LOOKED) >> flag::LOOKED_SHIFT).to_le_bytes()[0]
    }

    #[inline]
    pub(super) fn note_looked_at(&mut self) {
        if self.flags & flag::LOOKED != flag::LOOKED {
            self.flags += 1 << flag::LOOKED_SHIFT;
        }
    }
}

/// What a packet shows of its sender: stations, segment and whether there is an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// What its packets before showed.
    Same,
    /// For the first time, what those of the other one did.
    Answer,
    /// Anything else, or what needs a closer look.
    Other,
}

/// Not 0 where two MAC addresses differ, by words that they hold whole: put together as one number of
/// 48 bits each takes twice as much.
#[inline]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "a part of a line, read where it is")]
const fn differences(mac: &Mac, other: [u8; 6]) -> u32 {
    let (Mac([a, b, c, d, e, f]), [g, h, i, j, k, l]) = (*mac, other);
    let heads = u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([g, h, i, j]);
    let tails = u16::from_le_bytes([e, f]) ^ u16::from_le_bytes([k, l]);
    heads | tails as u32
}

fn parity(window: WindowNumber) -> usize {
    usize::from(window.0 & 1 != 0)
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is kept")]
const fn half(window: WindowNumber) -> u16 {
    (window.0 >> 1) as u16
}

/// The low bits of a window's number.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is kept")]
pub(super) const fn low_window(window: WindowNumber) -> u16 {
    window.0 as u16
}

/// The low bits of a number.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is kept")]
pub(super) const fn low(number: u64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Headers;

    /// In a slot that an older flow may have left in any way.
    fn begun(sender: Sender, initiator: (Sender, InitiatorMethod), window: WindowNumber) -> Flow {
        let headers = Headers { sender, ..Headers::default() };
        let mut flow = Flow {
            last_seen: Timestamp(7),
            heard: Timestamp(7),
            packets: [7; 2],
            octets: [7; 2],
            row: RowPlace(7),
            hash: 7,
            window: low_window(window),
            counted: [half(window); 2],
            record_second: 7,
            flags: u16::MAX,
            tcp: TcpState::Reset,
            tcp_control_bits: [7; 2],
            events: u8::MAX,
            application: Application::Dns,
            ..Flow::default()
        };
        flow.begin(&headers, initiator, window);
        let mut fresh = Flow::default();
        fresh.begin(&headers, initiator, window);
        assert_eq!(format!("{flow:?}"), format!("{fresh:?}"), "nothing of an older flow stays");
        flow
    }

    #[test]
    fn a_flow_begins_in_no_window() {
        let method = (Sender::Low, InitiatorMethod::Syn);
        for number in [0, 7, 65_535, 65_536, (5 << 32) + 3] {
            let window = WindowNumber(number);
            let flow = begun(Sender::Low, method, window);
            assert!(!flow.may_be_in(window) && !flow.was_counted_in(window));
        }
    }

    #[test]
    fn two_windows_that_take_turns_count_a_flow_once_each() {
        let first = WindowNumber(8);
        let method = (Sender::Low, InitiatorMethod::Syn);
        let mut flow = begun(Sender::Low, method, first);
        for (turn, window) in [first, first.next(), first, first.next()].into_iter().enumerate() {
            assert_eq!(flow.was_counted_in(window), turn > 1);
            flow.note_counted_in(window);
        }
    }

    #[test]
    fn flags_do_not_disturb_one_another() {
        let method = (Sender::High, InitiatorMethod::FirstPacketAndPort);
        let mut flow = begun(Sender::High, method, WindowNumber(0));
        for _ in 0..10 {
            flow.note_looked_at();
        }
        let side = Side { layer2_header_octets: 14, seen: true, ..Side::default() };
        flow.set_side(Sender::High, side);
        assert_eq!(flow.looked_at_packets(), 7);
        assert_eq!(
            (flow.initiator(), flow.initiator_method()),
            (Sender::High, InitiatorMethod::FirstPacketAndPort)
        );
        assert!(flow.is_live() && !flow.is_apart());
        assert_eq!((flow.side(Sender::High), flow.side(Sender::Low).seen), (side, false));
        flow.set_apart();
        flow.end();
        assert!(!flow.is_live() && flow.is_apart());
    }
}
