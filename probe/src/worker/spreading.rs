//! Packets on their way between workers, and fragments that wait for their ports.
//!
//! In: packets that another worker owns, packets that others have sent. Out: the same at their owner,
//! oldest first.
//! Cost: one copy of the headers each way; a ring is touched once a batch.
//! Invariants: with files a worker that waits for room takes over meanwhile, so that no two wait for
//! each other; with a live source what finds no room is counted.
//! Source: ARCHITECTURE.md, "The loop".

use crate::capture::Source;
use crate::copies::Verdict;
use crate::counters::DropCause;
use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers, Marks};
use crate::memory;
use crate::spread::ring::{AHEAD_PACKETS, CLOSED, QUIET};
use crate::spread::{datagram_hash, name_flow, owner};
use crate::time::Timestamp;

use super::{Ahead, Worker, WorkerParts};

/// Packets taken over from other workers in a turn at most.
const TAKE_PACKETS_MAX: usize = 256;

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
            self.pass_on(datagram_owner, headers);
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
            self.admit(&headers, &ahead);
        }
    }

    pub(super) fn pass_on(&mut self, to: usize, headers: &Headers) {
        while !self.parts.outgoing[to].push(headers) {
            if !self.parts.waits {
                self.totals.causes.add(DropCause::SpreadRingFull, 1);
                return;
            }
            if self.blocked {
                // Waiting inside waiting could go round in a circle; the aggregator joins what is
                // split.
                let ahead = self.look_ahead(headers);
                self.own(headers, &ahead);
                return;
            }
            self.publish(headers.clock);
            self.in_hand_packets += 1;
            self.wait_for_room();
            self.in_hand_packets -= 1;
        }
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

    /// Takes packets over from other workers, oldest first. A ring that is empty is waited for
    /// until its worker has read further, with a live source not longer than the hold.
    pub(super) fn take_over(&mut self) -> usize {
        if self.parts.incoming.is_empty() {
            return 0;
        }
        let mut taken = 0;
        while taken < TAKE_PACKETS_MAX {
            let Some(from) = self.oldest_ring() else { break };
            self.look_at_batch(from);
            let ring = &mut self.parts.incoming[from];
            let Some(headers) = ring.head().copied() else { break };
            // Before time goes on: who waits for room then may take over the rest of the batch.
            let ahead = self.taken[from][ring.place()];
            ring.advance();
            taken += 1;
            // Time first: what closes with it does not hold this packet yet.
            self.advance(headers.clock);
            if headers.is_quote() {
                self.take_quote(&headers);
                continue;
            }
            self.totals.spread_in_packets += 1;
            let unresolved =
                headers.marks.has(Marks::FRAGMENT) && !headers.marks.has(Marks::PORTS_RESOLVED);
            if unresolved {
                self.resolve_fragment(&headers);
            } else if !self.own_settled(&headers, &ahead) {
                self.own(&headers, &ahead);
            }
        }
        if taken == 0 {
            self.advance_by_rings();
        }
        taken
    }

    /// A packet of this worker's, if its flow is settled: it is only counted. `false`: nothing was done.
    fn own_settled(&mut self, headers: &Headers, ahead: &Ahead) -> bool {
        let Some(brief) = Brief::of(headers) else { return false };
        let WorkerParts { flows, path, copies, .. } = &mut self.parts;
        let is_followed =
            path.as_ref().is_some_and(|path| path.concerns(brief.hash, &ahead.digest));
        if is_followed || !flows.is_settled(&brief, ahead.guess) {
            return false;
        }
        if let Some(copies) = copies {
            let verdict = copies.classify((headers.tap, headers.timestamp), &ahead.digest);
            if verdict != Verdict::First {
                self.own_as(headers, ahead, verdict);
                return true;
            }
        }
        let (window, late) = self.booking.book(headers.timestamp, headers.clock);
        let booking = self.open_window(window, late);
        self.count_settled(ahead.guess, (&brief, &Fields::of_headers(headers)), booking);
        self.note_booked(booking, 1);
        true
    }

    /// Looks at where flows, rows and digests of a ring's next batch lie, so that their memory is
    /// fetched for all at once.
    fn look_at_batch(&mut self, from: usize) {
        let WorkerParts { incoming, flows, copies, handoff, .. } = &mut self.parts;
        let Some(batch) = incoming[from].fresh_batch() else { return };
        for (place, headers) in batch.iter().enumerate() {
            if let Some(later) = batch.get(place + AHEAD_PACKETS) {
                memory::fetch(later);
            }
            flows.table().fetch_bucket(headers.hash);
        }
        let all = &mut self.taken[from][..batch.len()];
        for (headers, ahead) in batch.iter().zip(&mut *all) {
            *ahead = Ahead::of(headers, flows, copies.as_ref());
            ahead.fetch(flows, copies.as_ref());
        }
        for ahead in all {
            ahead.fetch_behind(flows, handoff, self.newest_active);
        }
    }

    /// The ring whose head is to be taken next, if it may be.
    fn oldest_ring(&mut self) -> Option<usize> {
        let mut oldest: Option<(usize, Timestamp)> = None;
        let mut read_up_to = Timestamp(u64::MAX);
        for (place, ring) in self.parts.incoming.iter_mut().enumerate() {
            let clock = ring.clock();
            match ring.head() {
                Some(headers) if oldest.is_none_or(|(_, best)| headers.clock < best) => {
                    oldest = Some((place, headers.clock));
                }
                Some(_) => {}
                None => read_up_to = read_up_to.min(clock),
            }
        }
        let (place, clock) = oldest?;
        let waited_enough =
            !self.parts.waits && self.read_clock.since_ns(clock) > self.parts.hold_ns;
        (clock <= read_up_to || waited_enough).then_some(place)
    }

    /// With all rings empty, time goes on as far as all workers have read.
    fn advance_by_rings(&mut self) {
        let mut read_up_to = Timestamp(u64::MAX);
        for ring in &mut self.parts.incoming {
            let clock = ring.clock();
            if ring.head().is_some() {
                return;
            }
            read_up_to = read_up_to.min(clock);
        }
        if read_up_to < QUIET && read_up_to != Timestamp::ZERO {
            self.advance(read_up_to);
        }
    }

    pub(super) fn incoming_ended(&mut self) -> bool {
        self.parts.incoming.iter_mut().all(|ring| ring.clock() == CLOSED && ring.head().is_none())
    }
}
