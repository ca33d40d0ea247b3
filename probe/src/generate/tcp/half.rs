//! What one side of a connection knows.
//!
//! In: an end. Out: [`Half`], with the arithmetic on its offsets.
//! Invariants: `unacknowledged` ≤ `next` ≤ `said` + 1; `expected` only grows.

use super::{HEADER_OCTETS, MTU, SYN_TIMEOUT_US, TIMEOUT_US, WINDOW_SEGMENTS_FIRST};
use crate::generate::cloud::Endpoint;
use crate::generate::network::Network;
use crate::generate::random::low32;

/// What one side knows.
pub(super) struct Half {
    pub(super) end: Endpoint,
    pub(super) port: u16,
    pub(super) isn: u32,
    /// First offset that the other side has not acknowledged.
    pub(super) unacknowledged: u64,
    /// Next offset to send.
    pub(super) next: u64,
    /// End of what the script has said so far.
    pub(super) said: u64,
    pub(super) closing: bool,
    pub(super) window_segments: u64,
    pub(super) duplicate_acks: u8,
    /// While losses are repaired: the end of what was sent when it began.
    pub(super) recovery: Option<u64>,
    pub(super) timeout_us: u64,
    pub(super) timeouts: u32,
    pub(super) timeout_at_us: Option<u64>,
    pub(super) timer_set: bool,
    /// Next offset expected from the other side, and ranges beyond it.
    pub(super) expected: u64,
    pub(super) beyond: Vec<(u64, u64)>,
    pub(super) got_fin: Option<u64>,
    pub(super) owes_acks: u8,
    pub(super) ack_timer_set: bool,
    /// Last value of the other side's clock, to echo.
    pub(super) echo: u32,
    pub(super) last_timestamp: u32,
}

impl Half {
    pub(super) fn new(end: Endpoint, port: u16, isn: u32) -> Self {
        Self {
            end,
            port,
            isn,
            unacknowledged: 0,
            next: 0,
            said: 1,
            closing: false,
            window_segments: WINDOW_SEGMENTS_FIRST,
            duplicate_acks: 0,
            recovery: None,
            timeout_us: SYN_TIMEOUT_US,
            timeouts: 0,
            timeout_at_us: None,
            timer_set: false,
            expected: 0,
            beyond: Vec::new(),
            got_fin: None,
            owes_acks: 0,
            ack_timer_set: false,
            echo: 0,
            last_timestamp: 0,
        }
    }

    /// Payload octets of a full segment.
    pub(super) fn segment_octets(&self) -> u64 {
        MTU - HEADER_OCTETS - if self.end.address.is_ipv6() { 40 } else { 20 }
    }

    /// Something new was acknowledged: timers and counts begin anew.
    pub(super) fn rest(&mut self) {
        self.duplicate_acks = 0;
        self.timeouts = 0;
        self.timeout_us = TIMEOUT_US;
        self.timeout_at_us = None;
    }

    /// Moves `expected` over the ranges that have arrived already.
    pub(super) fn join(&mut self) {
        while let Some(place) = self.beyond.iter().position(|range| range.0 <= self.expected) {
            let (_, end) = self.beyond.swap_remove(place);
            self.expected = self.expected.max(end);
        }
    }

    /// The node's clock in milliseconds. IPv6 has no identification, so there every segment of
    /// a side gets a value of its own.
    pub(super) fn timestamp(&mut self, network: &mut Network) -> u32 {
        let clock = network.cloud.node(self.end.node).clock_ms;
        let now = clock.wrapping_add(low32(network.now_us / 1_000));
        let behind = now.wrapping_sub(self.last_timestamp).cast_signed() <= 0;
        let must_move = self.end.address.is_ipv6() && self.last_timestamp != 0 && behind;
        self.last_timestamp = if must_move { self.last_timestamp.wrapping_add(1) } else { now };
        self.last_timestamp
    }
}
