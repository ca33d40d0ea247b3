//! The payload of a packet that tells of a transaction, on its way to the aggregation thread.
//!
//! In: a packet's payload. Out: [`Excerpt`], with what its flow is known by.
//! Invariants: an excerpt has [`EXCERPT_OCTETS_MAX`] octets at most, and says how many there were.

use super::{Application, FirstWords};
use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers, Mac};
use crate::index::{Sender, TapIndex};
use crate::inventory::Segment;
use crate::spread::FlowKey;
use crate::spread::ring::PAYLOAD_OCTETS_MAX;
use crate::time::Timestamp;

/// Octets of a payload that go along at most.
pub const EXCERPT_OCTETS_MAX: usize = PAYLOAD_OCTETS_MAX;

/// What a packet says: its payload, as far as it is there.
#[derive(Clone, Copy, Debug)]
pub struct Speech<'a> {
    /// The first octets.
    pub words: FirstWords,
    /// Who sent it.
    pub sender: Sender,
    /// When.
    pub at: Timestamp,
    /// TCP sequence number.
    pub sequence: u32,
    /// The payload; empty where the frame is not at hand.
    pub payload: &'a [u8],
}

impl<'a> Speech<'a> {
    /// Of a packet all of whose headers are known; `frame` is what [`Headers::payload_offset`] counts in.
    #[inline]
    pub fn of(headers: &Headers, frame: &'a [u8]) -> Self {
        let begin = headers.payload_offset as usize;
        let octets = headers.payload_captured_octets as usize;
        let behind = frame.get(begin..).unwrap_or_default();
        Self {
            words: FirstWords::of(headers),
            sender: headers.sender,
            at: headers.timestamp,
            sequence: headers.tcp_sequence,
            payload: behind.get(..octets.min(behind.len())).unwrap_or_default(),
        }
    }

    /// Of a packet that is known in brief, and that this is from its IPv4 header on.
    #[inline]
    pub fn of_brief(brief: &Brief, fields: &Fields, packet: &'a [u8]) -> Self {
        Self::with_payload(brief, fields, brief.payload(fields, packet))
    }

    /// The same where its payload alone is at hand.
    #[inline]
    pub fn with_payload(brief: &Brief, fields: &Fields, payload: &'a [u8]) -> Self {
        Self {
            words: FirstWords::of_brief(brief, fields),
            sender: brief.sender,
            at: brief.timestamp,
            sequence: fields.tcp_sequence(),
            payload,
        }
    }
}

/// A payload that was taken, and of which flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// Key of the flow.
    pub key: FlowKey,
    /// Who began it.
    pub initiator: Sender,
    /// Time of its first packet.
    pub first_seen: Timestamp,
    /// Segment that the initiator's packets were seen in.
    pub segment: Segment,
    /// MAC addresses on the initiator's side and on the responder's.
    pub stations: [Mac; 2],
    /// Tap that saw the initiator's first packet, or the responder's where none was seen.
    pub tap: TapIndex,
    /// What it carries.
    pub application: Application,
    /// Who sent the payload.
    pub sender: Sender,
    /// When.
    pub at: Timestamp,
    /// TCP sequence number.
    pub sequence: u32,
    /// Octets of payload that there were.
    pub payload_octets: u32,
    /// Octets of them that are here.
    pub octets: u16,
}

impl Excerpt {
    /// Whether the initiator sent it.
    pub fn is_forward(&self) -> bool {
        self.sender == self.initiator
    }
}
