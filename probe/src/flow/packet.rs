//! What the flow stage asks of a packet, whether all its headers were read or only what is brief.
//!
//! In: [`Headers`], or a [`Brief`] with the packet that it is of, or with its [`Fields`]. Out: the same answers.
//! Cost: each answer is a load or two; the stage is compiled for both.
//! Invariants: of a packet that has a brief, both give the same answers (a property test compares what
//! comes of them).

use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers, Mac, Marks, protocol};
use crate::index::{Sender, TapIndex};
use crate::inventory::Segment;
use crate::spread::FlowKey;
use crate::time::Timestamp;

/// A packet whose flow is named.
pub(super) trait Packet {
    /// Hash of its flow's key.
    fn hash(&self) -> u64;
    /// That key.
    fn key(&self) -> FlowKey;
    /// Whether a key is that one.
    fn is_of(&self, key: &FlowKey) -> bool;
    fn sender(&self) -> Sender;
    /// Source and destination MAC.
    fn stations(&self) -> [Mac; 2];
    fn segment(&self) -> Segment;
    fn tap(&self) -> TapIndex;
    fn is_ethernet(&self) -> bool;
    /// Receive time, and the clock then.
    fn times(&self) -> (Timestamp, Timestamp);
    /// IP octets.
    fn octets(&self) -> u32;
    /// Source and destination port.
    fn ports(&self) -> [u16; 2];
    fn protocol(&self) -> u8;
    /// Low octet of the TCP flags.
    fn tcp_flags(&self) -> u8;
    fn tcp_sequence(&self) -> u32;
    fn is_later_fragment(&self) -> bool;
    fn is_echo_reply(&self) -> bool;

    /// Whether it has a TCP header.
    #[inline]
    fn is_tcp(&self) -> bool {
        self.protocol() == protocol::TCP && !self.is_later_fragment()
    }
}

impl Packet for Headers {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn key(&self) -> FlowKey {
        FlowKey::of_named(self)
    }

    #[inline]
    fn is_of(&self, key: &FlowKey) -> bool {
        key.is_of(self)
    }

    #[inline]
    fn sender(&self) -> Sender {
        self.sender
    }

    #[inline]
    fn stations(&self) -> [Mac; 2] {
        [self.source_mac, self.destination_mac]
    }

    #[inline]
    fn segment(&self) -> Segment {
        self.segment
    }

    #[inline]
    fn tap(&self) -> TapIndex {
        self.tap
    }

    #[inline]
    fn is_ethernet(&self) -> bool {
        self.marks.has(Marks::ETHERNET)
    }

    #[inline]
    fn times(&self) -> (Timestamp, Timestamp) {
        (self.timestamp, self.clock)
    }

    #[inline]
    fn octets(&self) -> u32 {
        self.octets
    }

    #[inline]
    fn ports(&self) -> [u16; 2] {
        [self.source_port, self.destination_port]
    }

    #[inline]
    fn protocol(&self) -> u8 {
        self.protocol
    }

    #[inline]
    fn tcp_flags(&self) -> u8 {
        self.tcp_flags.to_le_bytes()[0]
    }

    #[inline]
    fn tcp_sequence(&self) -> u32 {
        self.tcp_sequence
    }

    #[inline]
    fn is_later_fragment(&self) -> bool {
        self.marks.has(Marks::LATER_FRAGMENT)
    }

    #[inline]
    fn is_echo_reply(&self) -> bool {
        match self.protocol {
            protocol::ICMP => self.icmp_type_code >> 8 == 0,
            protocol::ICMPV6 => self.icmp_type_code >> 8 == 129,
            _ => false,
        }
    }
}

/// A packet that is known in brief, and what its sequence number is known from.
#[derive(Clone, Copy)]
pub(super) struct BriefPacket<'a, S> {
    pub(super) brief: &'a Brief,
    pub(super) sequence: S,
}

/// Where the TCP sequence number of a packet stands.
pub(super) trait SequenceSource {
    /// The number; 0 where it is no segment.
    fn tcp_sequence(&self, brief: &Brief) -> u32;
}

/// How the packet begins, from its IPv4 header on.
impl SequenceSource for &[u8] {
    #[inline]
    fn tcp_sequence(&self, brief: &Brief) -> u32 {
        brief.tcp_sequence(self)
    }
}

impl SequenceSource for &Fields {
    #[inline]
    fn tcp_sequence(&self, _: &Brief) -> u32 {
        Fields::tcp_sequence(self)
    }
}

impl<S: SequenceSource> Packet for BriefPacket<'_, S> {
    #[inline]
    fn hash(&self) -> u64 {
        self.brief.hash
    }

    #[inline]
    fn key(&self) -> FlowKey {
        FlowKey::of_brief(self.brief)
    }

    #[inline]
    fn is_of(&self, key: &FlowKey) -> bool {
        key.is_of_brief(self.brief)
    }

    #[inline]
    fn sender(&self) -> Sender {
        self.brief.sender
    }

    #[inline]
    fn stations(&self) -> [Mac; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.brief.stations;
        [Mac([g, h, i, j, k, l]), Mac([a, b, c, d, e, f])]
    }

    #[inline]
    fn segment(&self) -> Segment {
        self.brief.segment
    }

    #[inline]
    fn tap(&self) -> TapIndex {
        self.brief.tap
    }

    #[inline]
    fn is_ethernet(&self) -> bool {
        true
    }

    #[inline]
    fn times(&self) -> (Timestamp, Timestamp) {
        (self.brief.timestamp, self.brief.clock)
    }

    #[inline]
    fn octets(&self) -> u32 {
        u32::from(self.brief.octets)
    }

    #[inline]
    fn ports(&self) -> [u16; 2] {
        let [low, high] = self.brief.ports();
        match self.brief.sender {
            Sender::Low => [low, high],
            Sender::High => [high, low],
        }
    }

    #[inline]
    fn protocol(&self) -> u8 {
        self.brief.protocol
    }

    #[inline]
    fn tcp_flags(&self) -> u8 {
        self.brief.tcp_flags
    }

    #[inline]
    fn tcp_sequence(&self) -> u32 {
        self.sequence.tcp_sequence(self.brief)
    }

    #[inline]
    fn is_later_fragment(&self) -> bool {
        false
    }

    #[inline]
    fn is_echo_reply(&self) -> bool {
        false
    }
}
