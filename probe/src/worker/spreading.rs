//! Packets on their way to other workers, and fragments that wait for their ports.
//!
//! In: packets that another worker owns. Out: the same in its ring.
//! Cost: one copy of 128 octets; a ring is touched once a batch.
//! Invariants: with files a worker that waits for room takes over meanwhile, so that no two wait for
//! each other; with a live source what finds no room is counted.
//! Source: ARCHITECTURE.md, "The loop".

use crate::capture::Source;
use crate::counters::DropCause;
use crate::decode::{Headers, Marks};
use crate::spread::{datagram_hash, name_flow, owner};
use crate::time::Timestamp;

use super::Worker;

impl<S: Source> Worker<S> {
    /// Fragments find their ports here if this worker receives all of them, else at the worker
    /// that owns their datagram.
    pub(super) fn route_fragment(&mut self, headers: &Headers) {
        let datagram_owner = if self.parts.receivers == 1 {
            self.parts.place
        } else {
            owner(datagram_hash(headers, self.parts.seed), self.parts.receivers)
        };
        if datagram_owner == self.parts.place {
            self.resolve_fragment(headers);
        } else {
            self.pass_on(datagram_owner, headers, &[]);
        }
    }

    pub(super) fn resolve_fragment(&mut self, headers: &Headers) {
        let mut ready = std::mem::take(&mut self.ready);
        self.parts.fragments.resolve(headers, &mut ready);
        self.route_resolved(&mut ready);
        self.ready = ready;
        let deadline = self.parts.fragments.next_deadline();
        self.next_event = self.next_event.min(deadline.unwrap_or(self.next_event));
    }

    pub(super) fn route_resolved(&mut self, ready: &mut Vec<Headers>) {
        let waiting = ready.len() as u64;
        self.in_hand_packets += waiting;
        for mut headers in ready.drain(..) {
            self.in_hand_packets -= 1;
            headers.marks.set(Marks::PORTS_RESOLVED);
            name_flow(&mut headers, self.parts.seed);
            let ahead = self.look_ahead(&headers);
            self.admit((&headers, &[]), &ahead);
        }
    }

    /// Hands a packet over, with payload if some goes along.
    pub(super) fn pass_on(&mut self, to: usize, headers: &Headers, payload: &[u8]) {
        while !self.parts.outgoing[to].push(headers) {
            if !self.parts.waits {
                self.totals.causes.add(DropCause::SpreadRingFull, 1);
                return;
            }
            if self.blocked {
                // Waiting inside waiting could go round in a circle; the aggregator joins what is
                // split.
                let ahead = self.look_ahead(headers);
                self.own((&Headers { payload_offset: 0, ..*headers }, payload), &ahead);
                return;
            }
            self.publish(headers.clock);
            self.in_hand_packets += 1;
            self.wait_for_room();
            self.in_hand_packets -= 1;
        }
        self.parts.outgoing[to].keep_payload(payload);
        self.totals.spread_out_packets += 1;
    }

    /// Takes over what others have sent while a ring has no room: they may wait for this worker.
    pub(super) fn wait_for_room(&mut self) {
        self.blocked = true;
        if self.take_over() == 0 {
            std::thread::yield_now();
        }
        self.blocked = false;
    }

    /// Hands open batches over and says how far this worker has read.
    pub(super) fn flush_outgoing(&mut self) {
        for place in 0..self.parts.outgoing.len() {
            while !self.parts.outgoing[place].flush() && self.parts.waits {
                self.publish(self.read_clock);
                self.wait_for_room();
            }
        }
        self.publish(self.read_clock);
    }

    /// Says in each ring that has room that all packets before `clock` are there.
    pub(super) fn publish(&mut self, clock: Timestamp) {
        for ring in &mut self.parts.outgoing {
            if !ring.flush() {
                continue;
            }
            if self.quiet { ring.publish_quiet() } else { ring.publish(clock) }
        }
    }
}
