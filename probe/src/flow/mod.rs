//! Flow table of one worker: headers to biflows.
//!
//! In: [`Headers`] of logical packets. Out: the flow that each was counted on, rows for windows,
//! ended flows.
//! Cost: one hash, one cache line of tags and the flow's hot lines on a hit; allocates in `new`.
//! Invariants: one slot per live key; at most `slots` flows; what a record says depends on the
//! flow's packets and their clock alone, never on when the expiry step came by.
//! Source: terms, RFC 7011 §2; biflow, RFC 5103; end reasons, Information Element 136.

mod stage;
mod table;
mod tcp;

pub use stage::{FlowCounts, FlowOutput, FlowStage, FlowTimeouts};
pub use table::{FlowTable, TableFull};
pub use tcp::TcpState;

use crate::app::Application;
use crate::decode::Mac;
use crate::index::{TapIndex, WindowNumber};
use crate::inventory::Segment;
use crate::spread::{FlowKey, Sender};
use crate::time::Timestamp;

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

/// What one endpoint's packets looked like below IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Segment seen.
    pub segment: Segment,
    /// Source MAC, zero without Ethernet.
    pub source_mac: Mac,
    /// Destination MAC, zero without Ethernet.
    pub destination_mac: Mac,
    /// 14 with an Ethernet header, else 0.
    pub layer2_header_octets: u8,
    /// Whether this endpoint sent anything yet.
    pub seen: bool,
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
}

/// State of one biflow. The first two cache lines are what each packet touches.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Flow {
    /// Key; endpoints in order, not by direction.
    pub key: FlowKey,
    /// Largest time of a packet.
    pub last_seen: Timestamp,
    /// Clock at the last packet, by which silence is told: stamps of a file may go back.
    pub heard: Timestamp,
    /// Window whose counts are below; `None` when they are 0.
    pub window: Option<WindowNumber>,
    /// Octets of the window by sender.
    pub window_octets: [u64; 2],
    /// Packets of the window by sender.
    pub window_packets: [u32; 2],
    /// Packets of the window that came after their own window was closed.
    pub window_late_packets: u32,
    /// Number of this flow among those of the slot.
    pub born: u32,
    /// TCP flags seen by sender (IE 6, low octet).
    pub tcp_control_bits: [u8; 2],
    /// TCP state.
    pub tcp: TcpState,
    /// Who began.
    pub initiator: Sender,
    /// How that is known.
    pub initiator_method: InitiatorMethod,
    /// Whether the slot is in use.
    pub live: bool,
    /// Recognised application.
    pub application: Application,
    /// Packets with payload that the recognition has seen.
    pub application_packets: u8,
    /// See [`event`]: those of this window.
    pub window_events: u8,
    /// See [`event`]: all so far.
    pub events: u8,
    /// What each endpoint's packets looked like.
    pub sides: [Side; 2],
    /// Tap that counted each endpoint's first packet.
    pub taps: [TapIndex; 2],
    /// Hash of the key.
    pub hash: u64,
    /// Time of the first packet of the biflow.
    pub first_seen: Timestamp,
    /// Time of the first packet of the record to come.
    pub record_start: Timestamp,
    /// Window in which the flow was last counted as a flow.
    pub counted_window: Option<WindowNumber>,
    /// Packets of the record so far, by sender, without those of the open window.
    pub packets: [u64; 2],
    /// Octets, likewise.
    pub octets: [u64; 2],
    /// Layer-2 octets, likewise.
    pub layer2_octets: [u64; 2],
    /// First sequence number seen, by sender.
    pub initial_sequence: [Option<u32>; 2],
    /// Time of the first SYN.
    pub syn_seen: Timestamp,
    /// Time of the first SYN-ACK.
    pub syn_ack_seen: Timestamp,
    /// SYN to SYN-ACK in ns, if neither hides a repetition (Karn).
    pub handshake_server_rtt_ns: Option<u64>,
    /// SYN-ACK to ACK in ns, likewise.
    pub handshake_client_rtt_ns: Option<u64>,
    /// Duplicates at one tap, by sender.
    pub duplicates: [u32; 2],
    /// Copies at other taps.
    pub copies_other_tap: u32,
    /// Fragments.
    pub fragments: u32,
    /// Packets that the capture cut.
    pub snapped: u32,
    /// SYN was repeated; SYN-ACK was repeated.
    pub repeated: [bool; 2],
}

const _: () = assert!(size_of::<Flow>() <= 448, "bytes per flow as the documents state them");

impl Flow {
    /// Whether the flow has not come further than an unanswered first packet.
    pub const fn is_embryonic(&self) -> bool {
        self.events & (event::ANSWERED | event::ESTABLISHED) == 0
    }

    /// Counts of the open window are taken over into the record and set to 0.
    fn fold_window(&mut self) {
        for sender in 0..2 {
            let packets = u64::from(self.window_packets[sender]);
            let header = u64::from(self.sides[sender].layer2_header_octets);
            self.packets[sender] += packets;
            self.octets[sender] += self.window_octets[sender];
            self.layer2_octets[sender] += self.window_octets[sender] + packets * header;
        }
        self.window_packets = [0; 2];
        self.window_octets = [0; 2];
        self.window_late_packets = 0;
        self.window_events = 0;
        self.window = None;
    }
}

/// A flow record to be made: the flow as it was, and why.
#[derive(Clone, Copy, Debug)]
pub struct EndedFlow {
    /// The flow, its window's counts taken over.
    pub flow: Flow,
    /// Why the record is made.
    pub reason: EndReason,
    /// Share of flows kept by shedding when it ended.
    pub sampling_rate: f32,
}
