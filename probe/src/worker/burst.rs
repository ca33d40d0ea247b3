//! A burst of the own source: looked at, then handled packet by packet.
//!
//! In: frames. Out: packets of settled flows counted, all others on their way with their headers.
//! Cost: four loops, each over the whole burst and each with the registers for itself: fetching
//! frames, looking, fetching tables, handling.
//! Invariants: packets are handled in order, each at its own time; what is tallied is added before
//! anything else is counted or anybody asks.
//! Source: ARCHITECTURE.md, "The loop" and "Settled flows".

use crate::app::FirstWords;
use crate::capture::{Burst, Frame, Source, SourceState};
use crate::copies::{Invariant, Verdict};
use crate::counters::DropCause;
use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers};
use crate::index::{TapIndex, WindowNumber};
use crate::path::PathStage;
use crate::spread::{name_brief, name_flow, owner};
use crate::time::Timestamp;

use super::{BURST_PACKETS_MAX, Worker};

/// What is known of one frame of a burst.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Hash of its flow's key; 0 where it was rejected.
    hash: u64,
    kind: Kind,
}

/// Packets of settled flows that are alike, counted together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    tap: TapIndex,
    booking: (WindowNumber, bool),
    packets: u64,
    octets: u64,
}

/// How much was read of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Kind {
    /// What a settled flow needs.
    #[default]
    Brief,
    /// All headers.
    Headers,
    /// All headers, in vain.
    Rejected(DropCause),
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
        self.quiet = state == SourceState::Quiet;
        match state {
            SourceState::Open(now) => self.read_clock = self.read_clock.max(now),
            SourceState::Quiet => {}
            SourceState::Ended => self.source_ended = true,
        }
        self.fetch_tables(packets);
        self.handle_all(&burst, packets);
        drop(burst);
        self.source = Some(source);
        self.flush_outgoing();
        packets
    }

    /// Reads what each packet needs: in brief where that may do, else all headers. This loop and the
    /// others of a burst stand apart, so that each has the registers for itself.
    #[inline(never)]
    fn look(&mut self, burst: &impl Burst, packets: usize) {
        let may_be_brief = self.may_be_brief();
        for place in 0..packets {
            self.read_clock = self.read_clock.max(burst.frame(place).timestamp);
            if !may_be_brief || !self.look_in_brief(&burst.frame(place), place) {
                self.decode(&burst.frame(place), self.read_clock, place);
            }
        }
    }

    /// Whether nothing has to be asked of a packet but which flow it is of.
    fn may_be_brief(&self) -> bool {
        let parts = &self.parts;
        let follows_all = parts.path.as_ref().is_some_and(PathStage::follows_all);
        parts.receivers == 1
            && parts.filters.is_empty()
            && parts.shedder.keeps_all()
            && !follows_all
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see `Brief::write`")]
    fn look_in_brief(&mut self, frame: &Frame<'_>, place: usize) -> bool {
        let brief = &mut self.briefs[place];
        if self.parts.decoder.brief(frame, self.read_clock, brief).is_none() {
            return false;
        }
        name_brief(brief, self.parts.seed);
        if self.parts.workers > 1 && owner(brief.hash, self.parts.workers) != self.parts.place {
            return false;
        }
        if let Some(copies) = &self.parts.copies {
            let Some(fields) = Fields::of(frame, brief) else { return false };
            self.ahead[place].digest = copies.digest_of(&Invariant::of_brief(brief, &fields));
        }
        self.seen[place] = Seen { hash: brief.hash, kind: Kind::Brief };
        true
    }

    /// Reads all headers of a frame.
    #[inline(never)]
    pub(super) fn decode(&mut self, frame: &Frame<'_>, clock: Timestamp, place: usize) {
        let headers = &mut self.headers[place];
        let decoded = self.parts.decoder.decode(frame, clock, headers);
        self.seen[place] = match decoded {
            Ok(()) => {
                name_flow(headers, self.parts.seed);
                if let Some(copies) = &self.parts.copies {
                    self.ahead[place].digest = copies.digest(headers);
                }
                Seen { hash: headers.hash, kind: Kind::Headers }
            }
            Err(cause) => Seen { hash: 0, kind: Kind::Rejected(cause) },
        };
    }

    /// Looks at where the flows and digests of the burst lie, so that memory is fetched for all at
    /// once.
    #[inline(never)]
    fn fetch_tables(&mut self, packets: usize) {
        let (flows, copies) = (&self.parts.flows, self.parts.copies.as_ref());
        let (seen, ahead) = (&self.seen[..packets], &mut self.ahead[..packets]);
        let mut touched = 0;
        for seen in seen {
            touched ^= u64::from(flows.table().touch_bucket(seen.hash));
        }
        for (seen, ahead) in seen.iter().zip(&mut *ahead) {
            ahead.guess = flows.guess(seen.hash);
            touched ^= ahead.guess.touched;
            touched ^= copies.map_or(0, |copies| copies.touch(&ahead.digest));
        }
        for ahead in ahead {
            let row = flows.guess_row(ahead.guess, self.newest_active);
            touched ^= row.map_or(0, |row| self.parts.handoff.touch(row));
            touched ^= flows.touch_measures(ahead.guess);
        }
        std::hint::black_box(touched);
    }

    /// All packets of a burst, one after another.
    #[inline(never)]
    fn handle_all(&mut self, burst: &impl Burst, packets: usize) {
        for place in 0..packets {
            self.handle(burst, place);
        }
        self.add_tally();
    }

    /// One packet of the own source: time goes on, it is counted, and goes its way.
    #[inline]
    fn handle(&mut self, burst: &impl Burst, place: usize) {
        let is_brief = matches!(self.seen[place].kind, Kind::Brief);
        if !is_brief || !self.handle_brief(burst, place) {
            self.handle_in_full(burst, place, is_brief);
        }
    }

    #[inline(never)]
    fn handle_in_full(&mut self, burst: &impl Burst, place: usize, is_brief: bool) {
        if is_brief {
            self.decode(&burst.frame(place), self.briefs[place].clock, place);
        }
        self.add_tally();
        // Out of the worker while it is changed by what they hold; nothing is allocated.
        let headers = std::mem::take(&mut self.headers);
        self.handle_headers(&headers[place], burst.frame(place).wire_octets, place);
        self.headers = headers;
    }

    #[inline]
    fn handle_headers(&mut self, headers: &Headers, wire_octets: u32, place: usize) {
        if self.parts.receivers == 1 {
            self.advance(headers.clock);
        }
        self.receive(headers.tap, (1, u64::from(wire_octets)));
        match self.seen[place].kind {
            Kind::Rejected(cause) => self.totals.causes.add(cause, 1),
            _ => {
                let ahead = self.ahead[place];
                self.accept(headers, &ahead);
            }
        }
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
    fn handle_brief(&mut self, burst: &impl Burst, place: usize) -> bool {
        let clock = self.briefs[place].clock;
        if clock >= self.next_event {
            self.add_tally();
            self.advance_to_event(clock);
        }
        let (brief, ahead) = (&self.briefs[place], &self.ahead[place]);
        if !self.parts.flows.is_settled(brief, ahead.guess) {
            return false;
        }
        let path = self.parts.path.as_ref();
        if path.is_some_and(|path| path.concerns(brief.hash, &ahead.digest)) {
            return false;
        }
        let fields = || Fields::of(&burst.frame(place), brief);
        let Ok(segment) = self.parts.flows.segment_in_brief(brief, fields) else {
            return false;
        };
        if let Some(copies) = &mut self.parts.copies {
            let verdict = copies.classify((brief.tap, brief.timestamp), &ahead.digest);
            if verdict != Verdict::First {
                self.handle_copy(&burst.frame(place), place, verdict);
                return true;
            }
        }
        self.clock = self.clock.max(clock);
        // Time has just been brought to this packet's clock: what is not late has its window open.
        let booking = self.booking.book(brief.timestamp, clock);
        let words = || first_words(&burst.frame(place), brief);
        let output = &mut self.parts.handoff;
        self.parts.flows.count_settled(ahead.guess, brief, booking, output, words);
        if let Some(segment) = &segment {
            self.parts.flows.measure_settled(ahead.guess, segment, booking.0, output);
        }
        let (tap, octets) = (brief.tap, brief.wire_octets);
        if self.tally.tap != tap || self.tally.booking != booking {
            self.add_tally();
            (self.tally.tap, self.tally.booking) = (tap, booking);
        }
        self.tally.packets += 1;
        self.tally.octets += u64::from(octets);
        true
    }

    /// Adds what was tallied to all counts. Before anything else is counted, or anybody asks.
    pub(super) fn add_tally(&mut self) {
        let Tally { tap, booking: (window, late), packets, octets } = self.tally;
        if packets == 0 {
            return;
        }
        self.receive(tap, (packets, octets));
        self.note_booked((window, late), packets);
        (self.tally.packets, self.tally.octets) = (0, 0);
    }

    /// All headers of a packet that was looked at in brief and is no first copy, and then its way.
    #[cold]
    fn handle_copy(&mut self, frame: &Frame<'_>, place: usize, verdict: Verdict) {
        self.add_tally();
        self.decode(frame, self.briefs[place].clock, place);
        let (headers, ahead) = (self.headers[place], self.ahead[place]);
        self.advance(headers.clock);
        self.receive(headers.tap, (1, u64::from(frame.wire_octets)));
        self.own_as(&headers, &ahead, verdict);
    }
}

/// The beginning of a packet's payload.
fn first_words(frame: &Frame<'_>, brief: &Brief) -> Option<FirstWords> {
    let fields = Fields::of(frame, brief)?;
    Some(FirstWords {
        protocol: brief.protocol,
        ports: brief.ports(),
        head: fields.payload_head,
        captured_octets: fields.payload_octets,
    })
}

/// Reads the first and the second cache line of all frames, so that memory fetches them at once.
#[inline]
fn fetch_frames(burst: &impl Burst, packets: usize) {
    let mut touched = 0;
    for place in 0..packets {
        touched ^= burst.touch(place);
    }
    std::hint::black_box(touched);
}
