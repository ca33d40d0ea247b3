//! Flow table of one worker: headers to biflows.
//!
//! In: [`Headers`](crate::decode::Headers) of logical packets. Out: rows for windows, ended flows.
//! Cost: one cache line of tags and the flow's two on a hit; allocates in `new`.
//! Invariants: one slot per live key; at most `slots` flows; what a record says depends on the
//! flow's packets and their clock alone, never on when the expiry step came by.
//! Source: terms, RFC 7011 §2; biflow, RFC 5103; end reasons, Information Element 136.

mod begin;
mod beside;
mod bits;
mod expiry;
mod identity;
mod output;
mod packet;
mod sides;
mod slab;
mod stage;
mod state;
mod table;
mod tcp;
mod totals;

pub use identity::Identity;
pub use output::{Biflow, EndedFlow, Ending, FlowOutput, Measured};
pub use sides::{ETHERNET_OCTETS, Side};
pub use stage::{FlowCounts, FlowStage, Left, MeasureTerms, More, Plain};
pub use state::Flow;
pub use table::{FlowTable, Guess, TableFull};
pub use tcp::TcpState;
pub use totals::FlowTotals;

/// Why a flow record was made (IE 136 `flowEndReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EndReason {
    /// Nothing came for the idle timeout.
    IdleTimeout = 1,
    /// The flow lives on; the active timeout asks for a record.
    ActiveTimeout = 2,
    /// FIN in both directions, RST, or the ports were used again.
    EndOfFlow = 3,
    /// The probe ended first.
    ForcedEnd = 4,
    /// Its slot was needed.
    LackOfResources = 5,
}

/// How the initiator was found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum InitiatorMethod {
    /// It sent the first packet.
    #[default]
    FirstPacket = 0,
    /// It sent the SYN, or was sent the SYN-ACK.
    Syn = 1,
    /// The first packet came from a well-known port or was an echo reply, so it is an answer.
    FirstPacketAndPort = 2,
}

impl InitiatorMethod {
    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstPacket => "first_packet",
            Self::Syn => "syn",
            Self::FirstPacketAndPort => "first_packet_and_port",
        }
    }
}

/// Facts about a flow, as bits.
pub mod event {
    #![allow(missing_docs, reason = "each is explained in one line")]
    /// The flow began in this window.
    pub const STARTED: u8 = 1;
    /// Its first packet asks for something: SYN, a TCP probe without SYN, ACK and RST, or UDP.
    pub const CONTACT: u8 = 1 << 1;
    /// The responder answered with something else than RST.
    pub const ANSWERED: u8 = 1 << 2;
    /// The responder answered with RST first.
    pub const REFUSED: u8 = 1 << 3;
    /// The TCP handshake was completed.
    pub const ESTABLISHED: u8 = 1 << 4;
    /// A SYN was seen.
    pub const SYN: u8 = 1 << 5;
    /// A SYN-ACK was seen.
    pub const SYN_ACK: u8 = 1 << 6;
    /// One end has acknowledged what the other sent: a segment with ACK, without SYN and RST, was seen
    /// in this window or before.
    pub const ACKNOWLEDGED: u8 = 1 << 7;
}
