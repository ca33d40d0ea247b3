//! Packets on their way between workers, and fragments that wait for their ports.
//!
//! In: packets that another worker owns, packets that others have sent. Out: the same at their owner,
//! oldest first.
//! Cost: one copy of 192 octets each way; a ring is touched once a batch.
//! Invariants: with files a worker that waits for room takes over meanwhile, so that no two wait for
//! each other; with a live source what finds no room is counted.
//! Source: ARCHITECTURE.md, "The loop".

use crate::app::Speech;
use crate::capture::Source;
use crate::copies::{CopyTable, Invariant};
use crate::counters::DropCause;
use crate::decode::brief::{Fields, PacketHead};
use crate::decode::{Brief, Headers, Marks};
use crate::spread::ring::{AHEAD_PACKETS, CLOSED, InBrief, PAYLOAD_OCTETS_MAX, Passed, QUIET};
use crate::spread::{datagram_hash, name_flow, owner};
use crate::time::Timestamp;

use super::burst::Standing;
use super::{Ahead, Worker, WorkerParts};

/// Packets taken over from other workers in a turn at most.
const TAKE_PACKETS_MAX: usize = 256;

/// What is known of a packet of another worker's batch before its turn comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    ahead: Ahead,
    /// Of a packet in brief; `None` where all its headers are needed.
    fields: Option<Fields>,
}

impl Taken {
    /// Reads what more than counting needs.
    #[inline]
    fn look(&mut self, packet: &InBrief, copies: Option<&CopyTable>, wants_fields: bool) {
        let InBrief { brief, head } = packet;
        if !wants_fields {
            self.fields = Some(Fields::default());
            return;
        }
        self.fields = Fields::of(head.octets(), brief);
        let Some(copies) = copies else { return };
        self.ahead.digest = match &self.fields {
            Some(fields) => copies.digest_of(&Invariant::of_brief(brief, fields)),
            None => {
                let mut headers = Headers::default();
                brief.write_headers(head.octets(), &mut headers);
                copies.digest(&headers)
            }
        };
    }
}

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
            // Copied before time goes on: who waits for room then may take over the rest of the batch.
            let known = self.taken[from][ring.place()];
            if !ring.payload().is_empty() {
                self.take_speaking(from, &known);
                taken += 1;
                continue;
            }
            match ring.head() {
                Some(Passed::InBrief(&packet)) => {
                    ring.advance();
                    self.take_in_brief(&packet, &known, &[]);
                }
                Some(Passed::Headers(&headers)) => {
                    ring.advance();
                    self.take_headers(&headers, &known.ahead, &[]);
                }
                None => break,
            }
            taken += 1;
        }
        if taken == 0 {
            self.advance_by_rings();
        }
        taken
    }

    /// Takes a packet over that came with its payload, which is copied first: who waits for room may use
    /// the batch again.
    #[inline(never)]
    fn take_speaking(&mut self, from: usize, known: &Taken) {
        let mut octets = [0; PAYLOAD_OCTETS_MAX];
        let ring = &mut self.parts.incoming[from];
        let payload = ring.payload();
        let kept = payload.len().min(PAYLOAD_OCTETS_MAX);
        octets[..kept].copy_from_slice(&payload[..kept]);
        let payload = &octets[..kept];
        match ring.head() {
            Some(Passed::InBrief(&packet)) => {
                ring.advance();
                self.take_in_brief(&packet, known, payload);
            }
            Some(Passed::Headers(&headers)) => {
                ring.advance();
                self.take_headers(&headers, &known.ahead, payload);
            }
            None => {}
        }
    }

    /// A packet of the common shape. Time first: what closes with it does not hold this packet yet.
    #[inline]
    fn take_in_brief(&mut self, packet: &InBrief, known: &Taken, payload: &[u8]) {
        let InBrief { brief, head } = packet;
        self.advance(brief.clock);
        self.totals.spread_in_packets += 1;
        let standing = match &known.fields {
            Some(fields) => self.own_in_brief(brief, fields, &known.ahead, payload),
            None => Standing::NotSettled,
        };
        if standing != Standing::Counts {
            self.own_in_full((brief, head, payload), &known.ahead, standing);
        }
    }

    /// The same of which more is to be done than counting.
    #[inline(never)]
    fn own_in_full(
        &mut self,
        (brief, head, payload): (&Brief, &PacketHead, &[u8]),
        ahead: &Ahead,
        standing: Standing,
    ) {
        let mut headers = Headers::default();
        brief.write_headers(head.octets(), &mut headers);
        // In what came along, which is nothing else.
        headers.payload_offset = 0;
        self.own_further((&headers, payload), ahead, standing);
    }

    /// A packet that was not only counted, whether or not it is known already if it is a copy.
    fn own_further(&mut self, packet: (&Headers, &[u8]), ahead: &Ahead, standing: Standing) {
        match standing {
            Standing::MayBeCopy(verdict) => self.own_as(packet, ahead, verdict),
            Standing::NotSettled | Standing::Counts => self.own(packet, ahead),
        }
    }

    /// Any other packet, or what an ICMP error quotes.
    fn take_headers(&mut self, headers: &Headers, ahead: &Ahead, payload: &[u8]) {
        self.advance(headers.clock);
        if headers.is_quote() {
            self.take_quote(headers);
            return;
        }
        self.totals.spread_in_packets += 1;
        let unresolved =
            headers.marks.has(Marks::FRAGMENT) && !headers.marks.has(Marks::PORTS_RESOLVED);
        if unresolved {
            self.resolve_fragment(headers);
            return;
        }
        let standing = Brief::of(headers).map_or(Standing::NotSettled, |brief| {
            let fields = Fields::of_headers(headers);
            self.own_in_brief(&brief, &fields, ahead, payload)
        });
        if standing != Standing::Counts {
            let headers = &Headers { payload_offset: 0, ..*headers };
            self.own_further((headers, payload), ahead, standing);
        }
    }

    /// A packet of this worker's, if its flow is settled: it is only counted.
    #[inline]
    fn own_in_brief(
        &mut self,
        brief: &Brief,
        fields: &Fields,
        ahead: &Ahead,
        payload: &[u8],
    ) -> Standing {
        let standing = self.parts.standing(brief, fields, ahead);
        if standing != Standing::Counts {
            return standing;
        }
        let (window, late) = self.booking.book(brief.timestamp, brief.clock);
        let booking = self.open_window(window, late);
        let speech = || Speech::with_payload(brief, fields, payload);
        self.count_settled(ahead.guess, (brief, fields), booking, speech);
        self.note_booked(booking, 1);
        standing
    }

    /// Looks at where flows, rows and digests of a ring's next batch lie, so that their memory is
    /// fetched for all at once.
    fn look_at_batch(&mut self, from: usize) {
        let WorkerParts { incoming, flows, copies, handoff, .. } = &mut self.parts;
        let copies = copies.as_ref();
        let Some(batch) = incoming[from].fresh_batch() else { return };
        for place in 0..batch.len() {
            if let Some(later) = batch.get(place + AHEAD_PACKETS) {
                later.fetch();
            }
            if let Some(packet) = batch.get(place) {
                flows.table().fetch_bucket(packet.hash());
            }
        }
        let all = &mut self.taken[from][..batch.len()];
        let wants_fields = copies.is_some() || flows.measures();
        for (place, known) in all.iter_mut().enumerate() {
            let Some(packet) = batch.get(place) else { break };
            match packet {
                Passed::InBrief(packet) => {
                    known.ahead.guess = flows.guess(packet.brief.hash);
                    known.look(packet, copies, wants_fields);
                }
                Passed::Headers(headers) => known.ahead = Ahead::of(headers, flows, copies),
            }
            known.ahead.fetch(flows, copies);
        }
        for known in all {
            known.ahead.fetch_behind(flows, handoff, self.newest_active);
        }
    }

    /// The ring whose head is to be taken next, if it may be.
    fn oldest_ring(&mut self) -> Option<usize> {
        let mut oldest: Option<(usize, Timestamp)> = None;
        let mut read_up_to = Timestamp(u64::MAX);
        for (place, ring) in self.parts.incoming.iter_mut().enumerate() {
            let clock = ring.clock();
            match ring.head() {
                Some(packet) if oldest.is_none_or(|(_, best)| packet.clock() < best) => {
                    oldest = Some((place, packet.clock()));
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
