//! Measures of one TCP flow: delays, retransmissions, windows, losses by cause.
//!
//! In: [`Segment`]s of both directions, as they were received. Out: samples, events and losses,
//! handed to a [`Sink`].
//! Cost: [`TcpFlow`] is 128 bytes, both directions; [`Rare`] 416 bytes for flows in trouble only.
//! A segment in order touches two cache lines, allocates nothing and reads no clock.
//! Invariants: bounded state whatever is sent; arithmetic on sequence numbers wraps; what finds no
//! room is decided at once, never forgotten.
//! Source: docs/measures.md defines each measure; RFC 9293, 5681, 6298, 6675, 7323, 2018, 2883.

mod doubt;
mod flow;
mod half;
mod loss;
mod old;
mod opening;
mod orderly;
pub mod options;
mod rare;
mod recut;
mod sequence;
mod tally;
#[cfg(test)]
mod tests;
mod trouble;

pub use flow::TcpFlow;
pub use opening::Opening;
pub use options::{Options, Timestamps};
pub use sequence::Range;
pub use tally::{Delay, Lost, Tally};
pub use trouble::Rare;

use crate::index::{Sender, TapIndex};
use crate::time::Timestamp;

/// One segment, as far as the measures go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// When it was received.
    pub at: Timestamp,
    /// Sequence number of the first octet.
    pub sequence: u32,
    /// Acknowledgement number, valid with ACK.
    pub acknowledgement: u32,
    /// Octets behind the header by its lengths, captured or not.
    pub payload_octets: u32,
    /// See [`crate::decode::tcp_flag`].
    pub flags: u16,
    /// Window as in the header.
    pub window: u16,
    /// Who sent it.
    pub sender: Sender,
    /// Where it was seen.
    pub tap: TapIndex,
    /// Its options.
    pub options: Options,
}

/// What a segment is asked for, but for its SACK blocks. Each field is read where it is needed, so that no more
/// stands in registers than is used next.
pub trait SegmentFields {
    /// See [`Segment::at`].
    fn at(&self) -> Timestamp;
    /// See [`Segment::sequence`].
    fn sequence(&self) -> u32;
    /// See [`Segment::acknowledgement`].
    fn acknowledgement(&self) -> u32;
    /// See [`Segment::payload_octets`].
    fn payload_octets(&self) -> u32;
    /// See [`Segment::flags`].
    fn flags(&self) -> u16;
    /// See [`Segment::window`].
    fn window(&self) -> u16;
    /// See [`Segment::sender`].
    fn sender(&self) -> Sender;
    /// See [`Segment::tap`].
    fn tap(&self) -> TapIndex;
    /// See [`Options::timestamps`].
    fn timestamps(&self) -> Option<Timestamps>;
    /// Whether there are SACK blocks.
    fn has_blocks(&self) -> bool;
    /// See [`Options::segment_octets_max`].
    fn segment_octets_max(&self) -> u16;
    /// See [`Options::window_scale`].
    fn window_scale(&self) -> Option<u8>;
}

impl SegmentFields for Segment {
    #[inline]
    fn at(&self) -> Timestamp {
        self.at
    }
    #[inline]
    fn sequence(&self) -> u32 {
        self.sequence
    }
    #[inline]
    fn acknowledgement(&self) -> u32 {
        self.acknowledgement
    }
    #[inline]
    fn payload_octets(&self) -> u32 {
        self.payload_octets
    }
    #[inline]
    fn flags(&self) -> u16 {
        self.flags
    }
    #[inline]
    fn window(&self) -> u16 {
        self.window
    }
    #[inline]
    fn sender(&self) -> Sender {
        self.sender
    }
    #[inline]
    fn tap(&self) -> TapIndex {
        self.tap
    }
    #[inline]
    fn timestamps(&self) -> Option<Timestamps> {
        self.options.timestamps
    }
    #[inline]
    fn has_blocks(&self) -> bool {
        self.options.sacked.is_some() || self.options.duplicate.is_some()
    }
    #[inline]
    fn segment_octets_max(&self) -> u16 {
        self.options.segment_octets_max
    }
    #[inline]
    fn window_scale(&self) -> Option<u8> {
        self.options.window_scale
    }
}

/// How a delay was measured. Methods are never mixed in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// SYN to SYN-ACK.
    HandshakeServer = 0,
    /// SYN-ACK to its ACK.
    HandshakeClient = 1,
    /// First TSval seen to first TSecr that echoes it.
    TcpTimestamp = 2,
    /// Data to its acknowledgement.
    SequenceAck = 3,
    /// End of a request to the first octet of its response.
    Response = 4,
}

impl Method {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::HandshakeServer,
        Self::HandshakeClient,
        Self::TcpTimestamp,
        Self::SequenceAck,
        Self::Response,
    ];

    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandshakeServer => "handshake_server",
            Self::HandshakeClient => "handshake_client",
            Self::TcpTimestamp => "tcp_timestamp",
            Self::SequenceAck => "sequence_ack",
            Self::Response => "response",
        }
    }
}

/// What happened to, or by, a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Payload, SYN or FIN that was sent before; all classes.
    Retransmission = 0,
    /// Of these: after duplicate acknowledgements.
    Fast = 1,
    /// Of these: the sender's timer ran out.
    Timeout = 2,
    /// Of these: the last segment, repeated before the timer (tail loss probe).
    Tail = 3,
    /// Of these: the receiver had it already.
    Spurious = 4,
    /// A row of retransmissions began.
    Episode = 5,
    /// Came after a later one, too soon for a retransmission.
    OutOfOrder = 6,
    /// An acknowledgement that says again what the one before said, while data is on its way.
    DuplicateAck = 7,
    /// The window is 0.
    ZeroWindow = 8,
    /// The payload ends where the window does.
    WindowFull = 9,
    /// At most one octet, the one before the next.
    KeepAlive = 10,
    /// The same, or one octet more, against a window of 0.
    WindowProbe = 11,
    /// Octets before this segment were not seen (yet).
    Gap = 12,
    /// RST.
    Reset = 13,
    /// RST in answer to a SYN.
    Refused = 14,
}

impl Event {
    /// All of them, in order.
    pub const ALL: [Self; EVENTS] = [
        Self::Retransmission,
        Self::Fast,
        Self::Timeout,
        Self::Tail,
        Self::Spurious,
        Self::Episode,
        Self::OutOfOrder,
        Self::DuplicateAck,
        Self::ZeroWindow,
        Self::WindowFull,
        Self::KeepAlive,
        Self::WindowProbe,
        Self::Gap,
        Self::Reset,
        Self::Refused,
    ];
}

/// Number of [`Event`]s.
pub const EVENTS: usize = 15;

/// Why octets were lost. Causes are never merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// Not seen here, and the sender filled the hole: lost before this tap.
    NetworkUpstream = 0,
    /// Seen here, repeated, and not in vain: lost behind this tap. An estimate.
    NetworkDownstream = 1,
    /// Not seen here, but the receiver has it: the mirror or the probe lost a copy.
    Mirror = 2,
    /// Not seen here, and nothing tells why.
    Unresolved = 3,
}

impl Cause {
    /// All of them, in order.
    pub const ALL: [Self; 4] =
        [Self::NetworkUpstream, Self::NetworkDownstream, Self::Mirror, Self::Unresolved];

    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkUpstream => "network_upstream",
            Self::NetworkDownstream => "network_downstream",
            Self::Mirror => "mirror",
            Self::Unresolved => "unresolved",
        }
    }
}

/// Octets that were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub cause: Cause,
    /// Whose octets.
    pub sender: Sender,
    /// How many, each time counted that they were lost.
    pub octets: u32,
    /// Segments that these make: full ones and the rest. An estimate.
    pub packets: u32,
    /// When they were noticed to be missing, or sent: the time whose window they belong to.
    pub at: Timestamp,
}

/// Takes what is measured. All of it does nothing by default.
pub trait Sink {
    /// A delay; `far` is the endpoint that answered.
    #[inline]
    fn delay(&mut self, method: Method, far: Sender, ns: u64) {
        let _ = (method, far, ns);
    }

    /// Something happened to, or by, a segment of `sender`.
    #[inline]
    fn event(&mut self, event: Event, sender: Sender) {
        let _ = (event, sender);
    }

    /// A verdict on lost octets; it may come long after them.
    #[inline]
    fn loss(&mut self, loss: Loss) {
        let _ = loss;
    }

    /// The window of `sender` was 0 for so long.
    #[inline]
    fn stalled(&mut self, sender: Sender, ns: u64) {
        let _ = (sender, ns);
    }
}

/// How long evidence is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// After that a hole without evidence is unresolved: `path.verdict_ms`.
    pub verdict_ns: u64,
    /// What comes later than this after its place is no reordering, where the round-trip time is
    /// not known. tshark uses the same.
    pub reorder_ns: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self { verdict_ns: 5_000_000_000, reorder_ns: 3_000_000 }
    }
}
