//! What happens when.
//!
//! In: nothing. Out: the events of the heap and what packets carry.
//! Invariants: two events at the same time happen in the order in which they were planned.

use std::cmp::Ordering;

use super::network::Packet;
use super::talk::Side;
use super::tcp::Segment;

/// A connection's place; the second number tells it from earlier ones there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionIndex(pub(super) usize, pub(super) u64);

/// Timers of one side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TcpTimer {
    /// The side has thought about its next message.
    Speak,
    /// An acknowledgement has waited long enough.
    Acknowledge,
    /// What was sent is still not acknowledged.
    Retransmit,
}

/// Something that happens.
pub(super) enum Action {
    /// A packet leaves its sender's card.
    Emit(Box<Packet>),
    /// A packet arrives.
    Arrive(Box<Packet>),
    /// A conversation of that demand begins.
    Begin(usize),
    /// A timer of TCP runs out.
    Tcp(ConnectionIndex, Side, TcpTimer),
    /// A query is still without answer.
    Unanswered(u64),
    /// A VM asks for its gateway.
    AskGateway(usize),
    /// A VM stops for its migration.
    Stop(usize),
    /// It runs again.
    Resume(usize),
    /// The `n`-th packet of a scan.
    Probe(usize, usize),
    /// The next packet of a flood, and how many are left.
    Flood(usize, u64),
}

/// What a packet means to the one that takes it.
#[derive(Clone, Copy)]
pub(super) enum Delivery {
    Nothing,
    /// A segment for that side.
    Tcp(ConnectionIndex, Side, Segment),
    /// A DNS query, and its answer; the port is the client's, the id that of the message.
    Query {
        lookup: u64,
        port: u16,
        id: u16,
    },
    Answer {
        lookup: u64,
    },
    /// An echo request.
    Echo {
        id: u16,
        sequence: u16,
        counter: u64,
    },
    /// A SYN of the scan of that number, and the answer where the port is open.
    Probe {
        scan: usize,
        from_port: u16,
        to_port: u16,
        sequence: u32,
    },
    Caught {
        scan: usize,
        from_port: u16,
        to_port: u16,
        sequence: u32,
    },
    /// A SYN of a flood.
    Flood {
        from_port: u16,
        to_port: u16,
        sequence: u32,
    },
}

/// An action and its time.
pub(super) struct Event {
    pub(super) at_us: u64,
    pub(super) sequence: u64,
    pub(super) action: Action,
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_us, self.sequence).cmp(&(other.at_us, other.sequence))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}
