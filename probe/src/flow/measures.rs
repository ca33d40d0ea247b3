//! What is measured of a flow beside its packets and octets.
//!
//! In: TCP handshakes, copies, fragments. Out: times and counts for rows and records.
//! Cost: 56 bytes a flow; its line is touched by handshakes and by rare packets only.
//! Invariants: without the slab every measure is null, not 0.
//! Source: no sample from repeated segments, Karn and Partridge 1987.

use crate::copies::Verdict;
use crate::decode::{Headers, Marks};
use crate::index::Sender;
use crate::time::Timestamp;

/// No sample.
const NONE: u64 = u64::MAX;

/// Measures of one flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measures {
    /// Time of the first SYN.
    syn_seen: Timestamp,
    /// Time of the first SYN-ACK.
    syn_ack_seen: Timestamp,
    server_rtt_ns: u64,
    client_rtt_ns: u64,
    /// Duplicates at one tap, by sender.
    pub(super) duplicates: [u32; 2],
    /// Fragments.
    pub(super) fragments: u32,
    /// Packets that the capture cut.
    pub(super) snapped: u32,
    /// SYN was repeated; SYN-ACK was repeated.
    repeated: [bool; 2],
    /// ICMP errors about packets of each sender.
    pub(super) icmp_errors: [u16; 2],
}

const _: () = assert!(size_of::<Measures>() == 56, "bytes per flow as the documents state them");

impl Default for Measures {
    fn default() -> Self {
        Self {
            syn_seen: Timestamp::ZERO,
            syn_ack_seen: Timestamp::ZERO,
            server_rtt_ns: NONE,
            client_rtt_ns: NONE,
            duplicates: [0; 2],
            fragments: 0,
            snapped: 0,
            repeated: [false; 2],
            icmp_errors: [0; 2],
        }
    }
}

impl Measures {
    pub(super) fn syn(&mut self, at: Timestamp, is_first: bool) {
        if is_first {
            self.syn_seen = at;
        } else {
            self.repeated[0] = true;
        }
    }

    /// `asked`: a SYN was seen before.
    pub(super) fn syn_ack(&mut self, at: Timestamp, is_first: bool, asked: bool) {
        if !is_first {
            self.repeated[1] = true;
            return;
        }
        self.syn_ack_seen = at;
        if asked && !self.repeated[0] {
            self.server_rtt_ns = at.since_ns(self.syn_seen);
        }
    }

    pub(super) fn established(&mut self, at: Timestamp) {
        if !self.repeated[1] {
            self.client_rtt_ns = at.since_ns(self.syn_ack_seen);
        }
    }

    /// SYN to SYN-ACK in ns, unless a repetition hides which belong together.
    pub(super) fn handshake_server_rtt_ns(&self) -> Option<u64> {
        (self.server_rtt_ns != NONE).then_some(self.server_rtt_ns)
    }

    /// SYN-ACK to ACK in ns, likewise.
    pub(super) fn handshake_client_rtt_ns(&self) -> Option<u64> {
        (self.client_rtt_ns != NONE).then_some(self.client_rtt_ns)
    }

    /// Notes what is rare of a packet.
    pub(super) fn packet(&mut self, headers: &Headers, verdict: Verdict) {
        if headers.marks.has(Marks::FRAGMENT) {
            self.fragments = self.fragments.saturating_add(1);
        }
        if headers.marks.has(Marks::SNAPPED) {
            self.snapped = self.snapped.saturating_add(1);
        }
        if verdict == Verdict::Duplicate {
            self.duplicate(headers.sender);
        }
    }

    /// Notes a duplicate.
    pub(super) fn duplicate(&mut self, sender: Sender) {
        let duplicates = &mut self.duplicates[sender.place()];
        *duplicates = duplicates.saturating_add(1);
    }

    /// Notes an ICMP error about a packet of `sender`.
    pub(super) fn icmp_error(&mut self, sender: Sender) {
        let errors = &mut self.icmp_errors[sender.place()];
        *errors = errors.saturating_add(1);
    }

    /// A record was made: counts begin again, times are told once.
    pub(super) fn record_made(&mut self) {
        (self.duplicates, self.fragments, self.snapped) = ([0; 2], 0, 0);
        self.icmp_errors = [0; 2];
        (self.server_rtt_ns, self.client_rtt_ns) = (NONE, NONE);
    }
}
