//! A burst of the own source: looked at, then handled packet by packet.
//!
//! In: frames. Out: packets of settled flows counted, all others on their way with their headers.
//! Cost: four loops, each over the whole burst and each with the registers for itself: fetching
//! frames, looking, fetching tables, handling.
//! Invariants: packets are handled in order, each at its own time; what is tallied is added before
//! anything else is counted or anybody asks.
//! Source: ARCHITECTURE.md, "The loop" and "Settled flows".

use crate::app::Speech;
use crate::capture::{Burst, Frame, Source, SourceState};
use crate::copies::{Invariant, Verdict};
use crate::counters::DropCause;
use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers};
use crate::flow::Guess;
use crate::index::{TapIndex, WindowNumber};
use crate::path::PathStage;
use crate::spread::{name_brief, name_flow, owner};
use crate::time::Timestamp;

use super::{Ahead, BURST_PACKETS_MAX, Worker, WorkerParts};

/// Behind so many packets another burst comes at once.
const LARGE_BURST_PACKETS: usize = 32;

/// While such bursts come, what goes to other workers is handed over once in so many polls: the larger
/// a batch, the more memory is fetched at once.
const FLUSH_POLLS: u32 = 4;

/// What is known of one frame of a burst.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    kind: Kind,
    /// Valid where something was read in brief.
    brief: Brief,
    /// The same, where something more than counting is to be done.
    fields: Fields,
    /// Hash of its flow's key; 0 where it was rejected.
    hash: u64,
    ahead: Ahead,
}

/// Packets of one tap that are alike, counted together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    tap: TapIndex,
    booking: (WindowNumber, bool),
    /// Of settled flows.
    packets: u64,
    /// On their way to other workers.
    passed_packets: u64,
    /// Of both.
    octets: u64,
}

/// How much was read of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Kind {
    /// Nothing yet.
    #[default]
    Unread,
    /// The brief, but all headers are needed.
    BriefAlone,
    /// The brief, of a flow that goes to its owner through a ring.
    BriefElsewhere,
    /// What a settled flow needs.
    Brief,
    /// All headers.
    Headers,
    /// All headers, in vain.
    Rejected(DropCause),
}

/// What a packet is of which a brief is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// One more of a settled flow: it is only counted.
    Counts,
    /// Of a settled flow; as a copy it may not count.
    MayBeCopy(Verdict),
    /// All its headers are needed; nothing was done.
    NotSettled,
}

impl WorkerParts {
    /// What a packet is, received here or by another worker: where it is of a settled flow, it is known as
    /// seen from now on.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each packet of a settled flow goes this way")]
    pub(super) fn standing(&mut self, brief: &Brief, fields: &Fields, ahead: &Ahead) -> Standing {
        let path = self.path.as_ref();
        if !self.flows.is_settled(brief, ahead.guess)
            || path.is_some_and(|path| path.concerns(brief.hash, &ahead.digest))
        {
            return Standing::NotSettled;
        }
        let Some(copies) = &mut self.copies else { return Standing::Counts };
        let verdict = copies.classify((brief.tap, brief.timestamp), &ahead.digest);
        if verdict != Verdict::First || self.flows.may_be_recut(ahead.guess, brief, fields) {
            return Standing::MayBeCopy(verdict);
        }
        Standing::Counts
    }

    /// Whether a packet of a flow goes through a ring.
    #[inline]
    fn passes_on(&self, hash: u64) -> bool {
        self.receivers > 1 || owner(hash, self.workers) != self.place
    }
}

impl<S: Source> Worker<S> {
    /// Polls the source, looks at the burst, then handles it packet by packet.
    pub(super) fn poll(&mut self) -> usize {
        if self.source_ended {
            return 0;
        }
        // Out of the worker while its burst is handled.
        let Some(mut source) = self.source.take() else { return 0 };
        let (burst, state) = source.poll();
        while let Some(name) = burst.port_names().get(self.ports_known) {
            self.parts.decoder.add_port(name);
            self.parts.port_names.add(name);
            self.ports_known += 1;
        }
        let packets = burst.len().min(BURST_PACKETS_MAX);
        fetch_frames(&burst, packets);
        self.look(&burst, packets);
        let was_quiet = std::mem::replace(&mut self.quiet, state == SourceState::Quiet);
        match state {
            SourceState::Open(now) => self.read_clock = self.read_clock.max(now),
            SourceState::Quiet => {}
            SourceState::Ended => self.source_ended = true,
        }
        self.fetch_tables(packets);
        self.handle_all(&burst, packets);
        drop(burst);
        self.source = Some(source);
        // After a small burst there may be nothing for a while, and for a quiet source nobody waits.
        self.polls_unflushed += 1;
        let is_due = self.polls_unflushed >= FLUSH_POLLS;
        if packets < LARGE_BURST_PACKETS || was_quiet || is_due {
            self.polls_unflushed = 0;
            self.flush_outgoing();
        }
        packets
    }

    /// Reads what each packet needs: in brief where that may do, else all headers. The loops of a
    /// burst stand apart, so that each has the registers for itself.
    fn look(&mut self, burst: &impl Burst, packets: usize) {
        let before = self.read_clock;
        let read = if self.may_be_brief() { self.look_in_brief(burst, packets) } else { 0 };
        if read < packets {
            self.look_in_full(burst, packets, before);
        }
    }

    /// Whether nothing has to be asked of a packet but which flow it is of.
    fn may_be_brief(&self) -> bool {
        let parts = &self.parts;
        let follows_all = parts.path.as_ref().is_some_and(PathStage::follows_all);
        parts.filters.is_empty() && parts.shedder.keeps_all() && !follows_all
    }

    /// Reads in brief what can be; how many packets that is enough for.
    #[inline(never)]
    fn look_in_brief(&mut self, burst: &impl Burst, packets: usize) -> usize {
        let parts = &self.parts;
        let wants_fields = parts.copies.is_some() || parts.flows.measures();
        let (mut clock, mut read) = (self.read_clock, 0);
        for (place, seen) in self.seen[..packets].iter_mut().enumerate() {
            let frame = burst.frame(place);
            clock = clock.max(frame.timestamp);
            seen.kind = Kind::Unread;
            // Frames are asked for anew where one is given away: this one stays in registers.
            let (decoder, brief) = (&parts.decoder, &mut seen.brief);
            if decoder.brief(&frame, clock, brief).is_none()
                && decoder.brief_of_enclosed(&burst.frame(place), clock, brief).is_none()
            {
                continue;
            }
            name_brief(&mut seen.brief, parts.seed);
            if parts.workers > 1 && parts.passes_on(seen.brief.hash) {
                // Nothing is fetched for it here.
                seen.kind = Kind::BriefElsewhere;
                read += 1;
                continue;
            }
            seen.kind = Kind::BriefAlone;
            if wants_fields {
                let packet = seen.brief.packet_in(&frame);
                if seen.fields.read(packet, &seen.brief).is_none() {
                    continue;
                }
                if let Some(copies) = &parts.copies {
                    let invariant = Invariant::of_brief(&seen.brief, &seen.fields);
                    seen.ahead.digest = copies.digest_of(&invariant);
                }
            }
            seen.hash = seen.brief.hash;
            seen.kind = Kind::Brief;
            parts.flows.table().fetch_bucket(seen.hash);
            read += 1;
        }
        self.read_clock = clock;
        read
    }

    /// Reads all headers of what was not read in brief; `clock` was the source's before the burst.
    #[inline(never)]
    fn look_in_full(&mut self, burst: &impl Burst, packets: usize, mut clock: Timestamp) {
        let may_be_brief = self.may_be_brief();
        for place in 0..packets {
            clock = clock.max(burst.frame(place).timestamp);
            if !may_be_brief {
                self.seen[place].kind = Kind::Unread;
            }
            match self.seen[place].kind {
                Kind::Unread => self.decode(&burst.frame(place), clock, place),
                Kind::BriefAlone => self.read_known(&burst.frame(place), place),
                _ => continue,
            }
            self.parts.flows.table().fetch_bucket(self.seen[place].hash);
        }
        self.read_clock = clock;
    }

    /// Reads all headers of a frame.
    pub(super) fn decode(&mut self, frame: &Frame<'_>, clock: Timestamp, place: usize) {
        let (headers, seen) = (&mut self.headers[place], &mut self.seen[place]);
        match self.parts.decoder.decode(frame, clock, headers) {
            Ok(()) => {
                name_flow(headers, self.parts.seed);
                if let Some(copies) = &self.parts.copies {
                    seen.ahead.digest = copies.digest(headers);
                }
                (seen.hash, seen.kind) = (headers.hash, Kind::Headers);
            }
            Err(cause) => (seen.hash, seen.kind) = (0, Kind::Rejected(cause)),
        }
    }

    /// The same for a frame that was read in brief.
    fn read_known(&mut self, frame: &Frame<'_>, place: usize) {
        let (headers, seen) = (&mut self.headers[place], &mut self.seen[place]);
        seen.brief.write_headers(seen.brief.packet_in(frame), headers);
        if let Some(copies) = &self.parts.copies {
            seen.ahead.digest = copies.digest(headers);
        }
        (seen.hash, seen.kind) = (headers.hash, Kind::Headers);
    }

    /// Looks at where the flows and digests of the burst lie, so that memory is fetched for all at
    /// once; their buckets were looked at before.
    #[inline(never)]
    fn fetch_tables(&mut self, packets: usize) {
        let (flows, copies) = (&self.parts.flows, self.parts.copies.as_ref());
        let seen = &mut self.seen[..packets];
        for seen in &mut *seen {
            if matches!(seen.kind, Kind::BriefElsewhere) {
                continue;
            }
            seen.ahead.guess = flows.guess(seen.hash);
            seen.ahead.fetch(flows, copies);
        }
        for Seen { ahead, kind, brief, .. } in seen {
            if matches!(kind, Kind::BriefElsewhere) {
                continue;
            }
            // Without a brief it is another packet's sender, and at worst something is fetched in vain.
            let next = (brief.sender, self.newest_active);
            ahead.fetch_behind(flows, &self.parts.handoff, next);
        }
    }

    /// All packets of a burst, one after another.
    #[inline(never)]
    fn handle_all(&mut self, burst: &impl Burst, packets: usize) {
        // Out of the worker while it is changed by what they hold; nothing is allocated.
        let all = std::mem::take(&mut self.seen);
        for (place, seen) in all[..packets].iter().enumerate() {
            match seen.kind {
                Kind::Brief => {
                    if !self.handle_brief(burst, place, seen) {
                        self.handle_unsettled(&burst.frame(place), seen);
                    }
                }
                Kind::BriefElsewhere => self.handle_elsewhere(&burst.frame(place), &seen.brief),
                _ => self.handle_in_full(burst, place, seen),
            }
        }
        self.seen = all;
        self.add_tally();
    }

    /// One packet all of whose headers were read: time goes on, it is counted, and goes its way.
    #[inline(never)]
    fn handle_in_full(&mut self, burst: &impl Burst, place: usize, seen: &Seen) {
        self.add_tally();
        let all = std::mem::take(&mut self.headers);
        let headers = &all[place];
        if self.parts.receivers == 1 {
            self.advance(headers.clock);
        }
        let frame = burst.frame(place);
        self.receive(headers.tap, (1, u64::from(frame.wire_octets)));
        let rejected = if let Kind::Rejected(cause) = seen.kind { Some(cause) } else { None };
        if let Some(learn) = &mut self.parts.learn
            && learn.concerns(headers, rejected)
        {
            learn.look(frame.bytes, headers, rejected);
        }
        if let Some(cause) = rejected {
            self.totals.causes.add(cause, 1);
        } else {
            self.accept((headers, frame.bytes), &seen.ahead);
        }
        self.headers = all;
    }

    /// One packet that was read in brief, of a flow that is not settled. Time has come to it already,
    /// and it is this worker's: with brief looks nothing is filtered or shed.
    #[inline(never)]
    fn handle_unsettled(&mut self, frame: &Frame<'_>, seen: &Seen) {
        self.add_tally();
        let mut all = std::mem::take(&mut self.headers);
        if let Some(headers) = all.first_mut() {
            seen.brief.write_headers(seen.brief.packet_in(frame), headers);
            self.advance(headers.clock);
            self.receive(headers.tap, (1, u64::from(frame.wire_octets)));
            self.own((headers, frame.bytes), &seen.ahead);
        }
        self.headers = all;
    }

    /// One packet that was read in brief, of a flow that another worker owns, or that waits for its
    /// turn among what others receive.
    #[inline(never)]
    fn handle_elsewhere(&mut self, frame: &Frame<'_>, brief: &Brief) {
        if self.parts.receivers == 1 {
            if brief.clock >= self.next_event {
                self.add_tally();
                self.advance_to_event(brief.clock);
            }
            self.clock = self.clock.max(brief.clock);
        }
        if self.tally.tap != brief.tap {
            self.tally_anew(brief);
        }
        self.tally.passed_packets += 1;
        self.tally.octets += u64::from(brief.wire_octets);
        let to = owner(brief.hash, self.parts.workers);
        let packet = brief.packet_in(frame);
        let payload = match &mut self.carrier {
            Some(carrier) if brief.has_payload => carrier.payload_of(brief, packet),
            _ => &[],
        };
        if self.parts.outgoing[to].push_in_brief(brief, packet) {
            self.parts.outgoing[to].keep_payload(payload);
            self.totals.spread_out_packets += 1;
        } else {
            self.pass_on_later(to, brief, packet, payload);
        }
    }

    /// The same where the ring has no room.
    #[cold]
    fn pass_on_later(&mut self, to: usize, brief: &Brief, packet: &[u8], payload: &[u8]) {
        self.add_tally();
        let mut headers = Headers::default();
        brief.write_headers(packet, &mut headers);
        self.pass_on(to, &headers, payload);
    }

    #[inline]
    pub(super) fn receive(&mut self, tap: TapIndex, (packets, octets): (u64, u64)) {
        self.totals.received_packets += packets;
        self.totals.received_octets += octets;
        if let Some(tap) = self.taps.get_mut(usize::from(tap.0)) {
            tap.packets += packets;
            tap.octets += octets;
        }
    }

    /// One packet that is known in brief, if its flow is settled: it is only counted. `false`: all its
    /// headers are needed; time went on, and nothing else was done.
    #[inline]
    fn handle_brief(&mut self, burst: &impl Burst, place: usize, seen: &Seen) -> bool {
        let Seen { brief, fields, ahead, .. } = seen;
        if brief.clock >= self.next_event {
            self.add_tally();
            self.advance_to_event(brief.clock);
        }
        match self.parts.standing(brief, fields, ahead) {
            Standing::Counts => {}
            Standing::MayBeCopy(verdict) => {
                self.handle_copy(&burst.frame(place), seen, verdict);
                return true;
            }
            Standing::NotSettled => return false,
        }
        self.clock = self.clock.max(brief.clock);
        // Time has just been brought to this packet's clock: what is not late has its window open.
        let Tally { tap, booking: (window, late), .. } = self.tally;
        if late || tap != brief.tap || !self.booking.stays_in(window, brief.timestamp, brief.clock)
        {
            self.tally_anew(brief);
        }
        self.tally.packets += 1;
        self.tally.octets += u64::from(brief.wire_octets);
        let speech = || Speech::of_brief(brief, fields, brief.packet_in(&burst.frame(place)));
        self.count_settled(ahead.guess, (brief, fields), self.tally.booking, speech);
        true
    }

    /// Counts a packet of a settled flow, and measures it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "half of all that a settled packet costs")]
    pub(super) fn count_settled<'a>(
        &mut self,
        guess: Guess,
        (brief, fields): (&Brief, &Fields),
        booking: (WindowNumber, bool),
        speech: impl FnOnce() -> Speech<'a>,
    ) {
        let (flows, output) = (&mut self.parts.flows, &mut self.parts.handoff);
        flows.count_settled(guess, brief, booking, output, speech);
        if flows.measures() {
            flows.measure_settled(guess, (brief, fields), booking.0, output);
        }
    }

    /// Another tally, for packets like this one.
    #[inline(never)]
    fn tally_anew(&mut self, brief: &Brief) {
        self.add_tally();
        self.tally.tap = brief.tap;
        self.tally.booking = self.booking.book(brief.timestamp, brief.clock);
    }

    /// Adds what was tallied to all counts. Before anything else is counted, or anybody asks.
    pub(super) fn add_tally(&mut self) {
        let Tally { tap, booking, packets, passed_packets, octets } = self.tally;
        if packets + passed_packets == 0 {
            return;
        }
        self.receive(tap, (packets + passed_packets, octets));
        if packets > 0 {
            self.note_booked(booking, packets);
        }
        (self.tally.packets, self.tally.passed_packets, self.tally.octets) = (0, 0, 0);
    }

    /// All headers of a packet that was looked at in brief and is, or may be, a copy, and then its way.
    #[cold]
    fn handle_copy(&mut self, frame: &Frame<'_>, seen: &Seen, verdict: Verdict) {
        self.add_tally();
        let mut headers = Headers::default();
        seen.brief.write_headers(seen.brief.packet_in(frame), &mut headers);
        self.advance(headers.clock);
        self.receive(headers.tap, (1, u64::from(frame.wire_octets)));
        self.own_as((&headers, frame.bytes), &seen.ahead, verdict);
    }
}

/// Has the headers of all frames fetched.
#[inline]
fn fetch_frames(burst: &impl Burst, packets: usize) {
    for place in 0..packets {
        burst.fetch(place);
    }
}
