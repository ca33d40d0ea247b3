//! A burst of the own source: after a look at it (see `look`) handled packet by packet.
//!
//! In: frames. Out: packets counted and measured, in brief where that may do, else with their headers.
//! Cost: one loop, of its own for each kind of burst, so that it has the registers for itself; a second one
//! where a mirror gave numbers to all.
//! Invariants: packets are handled in order, each at its own time; what is tallied is added before anything
//! else is counted (but for the numbers of a mirror), and before anybody asks. A burst is tallied as a whole
//! only where nothing else is counted, and nothing brought about by time, before its last packet.
//! Source: ARCHITECTURE.md, "The loop" and "Settled flows".

use crate::app::Speech;
use crate::capture::{Burst, Frame, Source, SourceState};
use crate::copies::Verdict;
use crate::decode::brief::{Fields, InBrief};
use crate::decode::{Brief, Headers};
use crate::flow::{Guess, Left};
use crate::index::{TapIndex, WindowNumber};
use crate::spread::owner;
use crate::time::Timestamp;
use crate::window::Booked;

use super::look::{Kind, Overview, Seen};
use super::{Ahead, BURST_PACKETS_MAX, Worker, WorkerParts};

/// Behind so many packets another burst comes at once.
const LARGE_BURST_PACKETS: usize = 32;

/// While such bursts come, what goes to other workers is handed over once in so many polls: the larger
/// a batch, the more memory is fetched at once.
const FLUSH_POLLS: u32 = 4;

/// Packets of one tap that are booked alike, counted together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    tap: TapIndex,
    booked: Booked,
    /// Of the newest.
    clock: Timestamp,
    /// Packets that were booked.
    packets: u64,
    /// Those that were not: copies, and what is on its way to other workers.
    passed_packets: u64,
    /// Of both.
    octets: u64,
}

impl Tally {
    /// Whether a packet belongs among them.
    #[inline]
    const fn holds(&self, brief: &Brief) -> bool {
        self.tap.0 == brief.tap.0 && self.booked.holds(brief.timestamp, brief.clock)
    }

    /// Whether all packets of a burst do.
    const fn holds_all(&self, seen: &Overview) -> bool {
        let Overview { tap, earliest, latest, .. } = *seen;
        // No stamp is larger than the clock.
        let are_booked = self.booked.holds(earliest, latest) && self.booked.holds(latest, latest);
        seen.is_alike && self.tap.0 == tap.0 && are_booked
    }
}

/// What a packet is of which a brief is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// One more of a settled flow: it is only counted.
    Counts,
    /// Of a settled flow; as a copy it may not count.
    MayBeCopy(Verdict),
    /// Of a flow that is not settled, or is followed; nothing was done.
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

    /// Whether a packet that a tap saw then is a copy; from now on it is known.
    #[inline]
    pub(super) fn classify(&mut self, seen: (TapIndex, Timestamp), ahead: &Ahead) -> Verdict {
        self.copies.as_mut().map_or(Verdict::First, |copies| copies.classify(seen, &ahead.digest))
    }

    /// Whether nobody but its flow has to know of a packet that is the first of its digest: it is not
    /// followed from tap to tap, and no other tap can have shown what it holds in other pieces.
    #[inline]
    fn counts_unheeded(&self, brief: &Brief, fields: &Fields, ahead: &Ahead) -> bool {
        let path = self.path.as_ref();
        path.is_none_or(|path| !path.concerns(brief.hash, &ahead.digest))
            && (self.copies.is_none() || !self.flows.may_hold_shown(ahead.guess, brief, fields))
    }

    /// Whether packets are counted on their flows, and nothing else is done with them.
    fn only_counts(&self) -> bool {
        self.path.is_none() && self.copies.is_none() && !self.flows.measures()
    }

    /// Whether a packet of a flow goes through a ring.
    #[inline]
    pub(super) fn passes_on(&self, hash: u64) -> bool {
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
        burst.fetch(packets);
        let overview = self.look(&burst, packets);
        let was_quiet = std::mem::replace(&mut self.quiet, state == SourceState::Quiet);
        match state {
            SourceState::Open(now) => self.read_clock = self.read_clock.max(now),
            SourceState::Quiet => {}
            SourceState::Ended => self.source_ended = true,
        }
        // Loops of their own where nothing but counts is wanted: each has the registers for itself.
        if self.parts.only_counts() {
            self.fetch_tables::<true>(packets);
            self.handle_all::<true>(&burst, packets, &overview);
        } else {
            self.fetch_tables::<false>(packets);
            self.handle_all::<false>(&burst, packets, &overview);
        }
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

    /// All packets of a burst; for `ONLY_COUNTS` see [`Worker::fetch_tables`].
    fn handle_all<const ONLY_COUNTS: bool>(
        &mut self,
        burst: &impl Burst,
        packets: usize,
        overview: &Overview,
    ) {
        if overview.latest < self.next_event && self.tally.holds_all(overview) {
            self.tally.packets += packets as u64;
            self.tally.octets += overview.octets;
            self.tally.clock = overview.latest;
            if overview.is_sequenced {
                self.note_sequences(packets);
            }
            self.handle_alike::<ONLY_COUNTS>(burst, packets);
        } else {
            self.handle_each::<ONLY_COUNTS>(burst, packets);
        }
    }

    /// One packet after another, where all are known in brief, were tallied, and bring nothing about by
    /// their time.
    #[inline(never)]
    fn handle_alike<const ONLY_COUNTS: bool>(&mut self, burst: &impl Burst, packets: usize) {
        let all = std::mem::take(&mut self.seen);
        let mut headers = Headers::default();
        for (place, seen) in all[..packets].iter().enumerate() {
            self.handle_tallied::<ONLY_COUNTS>(burst, (place, seen), &mut headers);
        }
        self.seen = all;
        self.add_tally();
    }

    /// One packet after another.
    #[inline(never)]
    fn handle_each<const ONLY_COUNTS: bool>(&mut self, burst: &impl Burst, packets: usize) {
        // Out of the worker while it is changed by what they hold; nothing is allocated.
        let all = std::mem::take(&mut self.seen);
        let mut headers = Headers::default();
        for (place, seen) in all[..packets].iter().enumerate() {
            if matches!(seen.kind, Kind::Brief) {
                self.handle_brief::<ONLY_COUNTS>(burst, (place, seen), &mut headers);
            } else {
                self.handle_others::<ONLY_COUNTS>(burst, (place, seen), &mut headers);
            }
        }
        self.seen = all;
        self.add_tally();
    }

    /// One packet that is not known in brief, goes elsewhere, or has a number of its mirror.
    #[inline(never)]
    fn handle_others<const ONLY_COUNTS: bool>(
        &mut self,
        burst: &impl Burst,
        (place, seen): (usize, &Seen),
        headers: &mut Headers,
    ) {
        match seen.kind {
            Kind::BriefElsewhere => self.handle_elsewhere(&burst.frame(place), &seen.brief),
            Kind::BriefSequenced => {
                self.bring_about(seen.brief.clock);
                self.note_sequence(&seen.brief);
                self.handle_brief::<ONLY_COUNTS>(burst, (place, seen), headers);
            }
            _ => self.handle_in_full(burst, place, seen),
        }
    }

    /// Notes the numbers of a burst's packets, with which nothing is brought about by time.
    #[inline(never)]
    fn note_sequences(&mut self, packets: usize) {
        let all = std::mem::take(&mut self.seen);
        all[..packets].iter().for_each(|seen| self.note_sequence(&seen.brief));
        self.seen = all;
    }

    /// Before a packet that comes at `clock`: what is due by then.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a compare for each packet")]
    fn bring_about(&mut self, clock: Timestamp) {
        if clock >= self.next_event {
            self.add_tally();
            self.advance_to_event(clock);
        }
    }

    /// One packet all of whose headers were read: time goes on, it is counted, and goes its way.
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

    /// One packet that was read in brief, where nothing but counts is wanted, and whose flow is not settled.
    #[inline(never)]
    fn own_counted(&mut self, burst: &impl Burst, place: usize, seen: &Seen) {
        let Seen { brief, ahead, .. } = seen;
        let packet = (brief, brief.packet_in(&burst.frame(place)));
        let booking = (self.tally.booked.window, false);
        self.parts.flows.meter_brief(packet, ahead.guess, booking, &mut self.parts.handoff);
    }

    /// One packet that was read in brief, and more is to be done than counting. It is this worker's: with
    /// brief looks nothing is filtered or shed. Where others than its flow have to know of it, its headers
    /// are written where there is memory for some.
    #[inline(never)]
    fn own_tallied(
        &mut self,
        burst: &impl Burst,
        (place, seen): (usize, &Seen),
        standing: Standing,
        headers: &mut Headers,
    ) {
        let Seen { brief, fields, ahead, .. } = seen;
        let verdict = match standing {
            Standing::MayBeCopy(verdict) => verdict,
            Standing::NotSettled | Standing::Counts => {
                let verdict = self.parts.classify((brief.tap, brief.timestamp), ahead);
                if verdict == Verdict::First && self.parts.counts_unheeded(brief, fields, ahead) {
                    let window = self.tally.booked.window;
                    let packet = || brief.packet_in(&burst.frame(place));
                    let speech = || Speech::of_brief(brief, fields, packet());
                    let (flows, output) = (&mut self.parts.flows, &mut self.parts.handoff);
                    flows.meter_known(ahead.guess, (brief, fields), window, output, speech);
                    return;
                }
                verdict
            }
        };
        let frame = burst.frame(place);
        brief.write_headers(brief.packet_in(&frame), headers);
        let booking = (self.tally.booked.window, false);
        if !self.book((&*headers, frame.bytes), ahead, verdict, booking) {
            self.tally.packets -= 1;
            self.tally.passed_packets += 1;
        }
    }

    /// One packet that was read in brief, and came too late for its window. Time has come to it already.
    #[cold]
    fn handle_late(&mut self, frame: &Frame<'_>, seen: &Seen) {
        self.add_tally();
        let mut headers = Headers::default();
        seen.brief.write_headers(seen.brief.packet_in(frame), &mut headers);
        self.advance(headers.clock);
        self.receive(headers.tap, (1, u64::from(frame.wire_octets)));
        self.own((&headers, frame.bytes), &seen.ahead);
    }

    /// One packet that was read in brief, of a flow that another worker owns, or that waits for its
    /// turn among what others receive.
    fn handle_elsewhere(&mut self, frame: &Frame<'_>, brief: &Brief) {
        if self.parts.receivers == 1 {
            self.bring_about(brief.clock);
            self.clock = self.clock.max(brief.clock);
        }
        self.note_sequence(brief);
        if self.tally.tap != brief.tap {
            // Whether it is late is its owner's to know.
            let _ = self.tally_anew(brief);
        }
        self.tally.passed_packets += 1;
        self.tally.octets += u64::from(brief.wire_octets);
        let to = owner(brief.hash, self.parts.workers);
        let packet = brief.packet_in(frame);
        let payload = match &mut self.carrier {
            Some(carrier) if brief.has_payload => carrier.payload_of(brief, packet),
            _ => &[],
        };
        let ring = &mut self.parts.outgoing[to];
        if InBrief::holds(brief, packet) && ring.push_in_brief(brief, packet) {
            ring.keep_payload(payload);
            self.totals.spread_out_packets += 1;
        } else {
            self.pass_on_later(to, brief, packet, payload);
        }
    }

    /// The same where the ring has no room, or more of it is to go along.
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

    /// One packet that is known in brief: where its flow is settled, it is only counted.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each packet goes this way")]
    fn handle_brief<const ONLY_COUNTS: bool>(
        &mut self,
        burst: &impl Burst,
        (place, seen): (usize, &Seen),
        headers: &mut Headers,
    ) {
        let brief = &seen.brief;
        self.bring_about(brief.clock);
        if !self.tally.holds(brief) && !self.tally_anew(brief) {
            self.handle_late(&burst.frame(place), seen);
            return;
        }
        // Time has just been brought to this packet's clock: what is not late has its window open.
        self.tally.clock = brief.clock;
        self.tally.octets += u64::from(brief.wire_octets);
        self.tally.packets += 1;
        self.handle_tallied::<ONLY_COUNTS>(burst, (place, seen), headers);
    }

    /// The same of one that was tallied as booked.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each packet goes this way")]
    fn handle_tallied<const ONLY_COUNTS: bool>(
        &mut self,
        burst: &impl Burst,
        (place, seen): (usize, &Seen),
        headers: &mut Headers,
    ) {
        let Seen { brief, fields, ahead, .. } = seen;
        let standing = if !ONLY_COUNTS {
            self.parts.standing(brief, fields, ahead)
        } else if self.parts.flows.is_settled(brief, ahead.guess) {
            Standing::Counts
        } else {
            Standing::NotSettled
        };
        if standing != Standing::Counts {
            if ONLY_COUNTS {
                self.own_counted(burst, place, seen);
            } else {
                self.own_tallied(burst, (place, seen), standing, headers);
            }
            return;
        }
        let window = self.tally.booked.window;
        let (flows, output) = (&mut self.parts.flows, &mut self.parts.handoff);
        if ONLY_COUNTS {
            flows.count_settled_unheard(ahead.guess, brief, (window, false), output);
        } else {
            let left = flows.count_noted(ahead.guess, (brief, fields), window, output);
            if left != Left::Nothing {
                self.finish_noted(burst, (place, seen), left);
            }
        }
    }

    /// Does what is left of a packet that counting and measuring was not all for.
    #[inline(never)]
    fn finish_noted(&mut self, burst: &impl Burst, (place, seen): (usize, &Seen), left: Left) {
        let Seen { brief, fields, ahead, .. } = seen;
        let speech = || Speech::of_brief(brief, fields, brief.packet_in(&burst.frame(place)));
        let (flows, output) = (&mut self.parts.flows, &mut self.parts.handoff);
        let left = (left, self.tally.booked.window);
        flows.finish_noted(ahead.guess, (brief, fields), left, output, speech);
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

    /// Another tally, for packets like this one. `false`: it is late, and none is for such packets.
    #[inline(never)]
    fn tally_anew(&mut self, brief: &Brief) -> bool {
        self.add_tally();
        let (_, late) = self.booking.book(brief.timestamp, brief.clock);
        self.tally.tap = brief.tap;
        self.tally.booked = if late { Booked::default() } else { self.booking.booked() };
        !late
    }

    /// Adds what was tallied to all counts. Before anything else is counted, or anybody asks.
    pub(super) fn add_tally(&mut self) {
        let Tally { tap, booked, clock, packets, passed_packets, octets } = self.tally;
        if packets + passed_packets == 0 {
            return;
        }
        self.clock = self.clock.max(clock);
        self.receive(tap, (packets + passed_packets, octets));
        if packets > 0 {
            self.note_booked((booked.window, false), packets);
        }
        (self.tally.packets, self.tally.passed_packets, self.tally.octets) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::{Booking, WindowClock};

    const MS: u64 = 1_000_000;

    proptest! {
        #[test]
        fn a_burst_that_is_tallied_as_a_whole_holds_packets_that_are_tallied_one_by_one(
            before_ms in 0_u64..3_000,
            clock_ms in 0_u64..3_000,
            stamps_ms in prop::collection::vec(900_u64..2_400, 1..8),
        ) {
            let mut booking = Booking::new(WindowClock::new(1_000, 200));
            let (at, clock) = (Timestamp(before_ms * MS), Timestamp(before_ms.max(clock_ms) * MS));
            let (_, late) = booking.book(at, clock);
            let booked = if late { Booked::default() } else { booking.booked() };
            let tally = Tally { tap: TapIndex(1), booked, ..Tally::default() };
            let mut latest = clock;
            let mut briefs = Vec::new();
            for ms in &stamps_ms {
                let timestamp = Timestamp(ms * MS);
                latest = latest.max(timestamp);
                briefs.push(Brief { tap: TapIndex(1), timestamp, clock: latest, ..Brief::default() });
            }
            let earliest = briefs.iter().map(|brief| brief.timestamp).min().expect("at least one");
            let is_alike = true;
            let seen = Overview { is_alike, tap: TapIndex(1), earliest, latest, ..Overview::default() };
            let are_held = briefs.iter().all(|brief| tally.holds(brief));
            prop_assert!(!tally.holds_all(&seen) || are_held);
            // Where the clock has not left the window, it is the same question.
            if tally.booked.holds(latest, latest) {
                prop_assert_eq!(tally.holds_all(&seen), are_held);
            }
            let (other, mixed) =
                (Overview { tap: TapIndex(2), ..seen }, Overview { is_alike: false, ..seen });
            prop_assert!(!tally.holds_all(&other) && !tally.holds_all(&mixed));
        }
    }
}
