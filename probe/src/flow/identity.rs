//! Which flow it is, and between which stations: what each row of a flow repeats.
//!
//! In: the first packets of a flow. Out: one cache line, which a row begins with as it is.
//! Cost: 64 bytes, copied by a few wide loads and stores; a packet is compared with this line alone.
//! Invariants: arrays are by sender; the tap of an endpoint that sent nothing is the other one's.

use crate::decode::Mac;
use crate::index::TapIndex;
use crate::spread::FlowKey;

/// Which flow it is, and between which stations. Arrays of two are by sender.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Identity {
    /// Key; endpoints in order, not by direction. Of a flow that ended, one that no packet has.
    pub key: FlowKey,
    /// Station of each endpoint.
    pub stations: [Mac; 2],
    /// Tap that counted each endpoint's first packet.
    pub taps: [TapIndex; 2],
}

const _: () = assert!(size_of::<Identity>() == 64, "one cache line");
