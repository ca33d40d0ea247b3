//! One core: owns a source, flows and windows; the loop.
//!
//! In: frames of its source, packets of its flows from other workers. Out: rows, ended flows and
//! closed windows, through the hand-off.
//! Cost: per burst one poll; per packet decode, hash, one line of copies, the flow's lines. No
//! lock, no allocation, no log, no clock call per packet.
//! Invariants: the same for NIC and file, and for any number of workers and any burst size. All
//! that a packet brings about depends on the packets before it in the order of their clock.
//! Source: ARCHITECTURE.md, "The loop".

use std::sync::atomic::{AtomicBool, Ordering};

use crate::capture::{Burst, Source, SourceState};
use crate::copies::{CopyTable, Digest, Verdict};
use crate::counters::{DropCause, TapTotals, WorkerTotals};
use crate::decode::filter::Filters;
use crate::decode::{Decoder, Headers, Marks};
use crate::flow::{FlowStage, Guess};
use crate::index::WindowNumber;
use crate::spread::fragments::FragmentTable;
use crate::spread::ring::{CLOSED, QUIET, RingReceiver, RingSender};
use crate::spread::shed::Shedder;
use crate::spread::{HashSeed, datagram_hash, name_flow, owner};
use crate::time::Timestamp;
use crate::window::{Booking, HandoffSender, WindowClock};

mod port_names;

pub use port_names::PortNames;

/// Packets in a burst at most; a source gives no more.
pub const BURST_PACKETS_MAX: usize = 256;

/// Blocks of rows that a turn sends at most while a window closes.
const CLOSE_BLOCKS_MAX: usize = 64;

/// Slots that a turn looks at for flows that are over.
const EXPIRE_SLOTS_MAX: usize = 64;

/// The table is gone through once in so much time.
const EXPIRE_ROUND_NS: u64 = 1_000_000_000;

/// Turns between two looks at the receive ring's fill.
const SHED_TURNS: u64 = 64;

/// Packets taken over from other workers in a turn at most.
const TAKE_PACKETS_MAX: usize = 256;

/// Polls that still take packets after a live worker was told to stop.
const DRAIN_POLLS_MAX: usize = 256;

/// What a worker is made of, apart from its source.
pub struct WorkerParts {
    /// Reads frames.
    pub decoder: Decoder,
    /// Takes out what operators don't want.
    pub filters: Filters,
    /// Leaves flows out at overload.
    pub shedder: Shedder,
    /// Finds the ports of fragments.
    pub fragments: FragmentTable,
    /// Rings to each worker, by its number; the own one is used only where several workers
    /// receive. Empty with one worker.
    pub outgoing: Vec<RingSender>,
    /// Rings from workers that receive.
    pub incoming: Vec<RingReceiver>,
    /// Finds copies; without it every packet counts (`bench --features flow`).
    pub copies: Option<CopyTable>,
    /// Whether copies are taken out of traffic, or only marked.
    pub remove_copies: bool,
    /// The flows.
    pub flows: FlowStage,
    /// How time is cut.
    pub windows: WindowClock,
    /// The way to the aggregator.
    pub handoff: HandoffSender,
    /// Hash of flow keys.
    pub seed: HashSeed,
    /// Number of this worker.
    pub place: usize,
    /// Workers in all.
    pub workers: usize,
    /// Workers that receive.
    pub receivers: usize,
    /// Longest wait for older packets of other rings.
    pub hold_ns: u64,
    /// Whether what finds no room is waited for, because all sources are files.
    pub waits: bool,
    /// Taps at most.
    pub taps_max: usize,
    /// Names of ports, for the aggregator.
    pub port_names: PortNames,
}

/// One core of the packet path.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the loop")]
pub struct Worker<S> {
    source: Option<S>,
    parts: WorkerParts,
    headers: Box<[Headers]>,
    outcomes: Box<[Outcome]>,
    ahead: Box<[Ahead]>,
    ready: Vec<Headers>,
    totals: WorkerTotals,
    taps: Vec<TapTotals>,
    mirror_sequences: Vec<Option<u32>>,
    /// Largest stamp of the own source.
    read_clock: Timestamp,
    /// Clock of what is booked.
    clock: Timestamp,
    /// Nothing is due before the clock gets here.
    next_event: Timestamp,
    booking: Booking,
    /// Windows below are closed or closing.
    open_from: Option<WindowNumber>,
    /// Of windows from here to `open_from` rows are to be sent.
    cut_from: WindowNumber,
    /// The aggregator is to be told of windows from here to `cut_from`.
    told_from: WindowNumber,
    /// Newest window in which anything happened.
    newest_active: WindowNumber,
    expire_round_at: Timestamp,
    expiring: bool,
    ports_known: usize,
    /// The source expects nothing more.
    quiet: bool,
    /// Waiting for room in a ring, and meanwhile taking over.
    blocked: bool,
    /// Packets that were received and are on their way through this worker while it does something
    /// else.
    in_hand_packets: u64,
    source_ended: bool,
    outgoing_closed: bool,
}

/// What became of one frame of a burst.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    wire_octets: u32,
    rejected: Option<DropCause>,
}

/// What is known of a packet before its turn comes.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    guess: Guess,
    digest: Digest,
}

impl Ahead {
    #[inline]
    fn of(headers: &Headers, flows: &FlowStage, copies: Option<&CopyTable>) -> Self {
        let digest = copies.map_or(Digest::default(), |copies| copies.digest(headers));
        Self { guess: flows.guess(headers), digest }
    }
}

/// What one turn of the loop did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Packets were handled.
    Busy,
    /// Nothing came.
    Idle,
    /// Nothing will come any more; all is booked.
    Ended,
}

/// How far a worker is with what it does beside packets; two of them tell what a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Windows below are closed or closing.
    pub open_from: WindowNumber,
    /// The aggregator knows that windows below are closed.
    pub told_from: WindowNumber,
    /// Rows of windows that are closing are still to be cut.
    pub is_closing: bool,
    /// A round over the table, for flows that are over, is under way.
    pub is_expiring: bool,
    /// Fragments that wait.
    pub held_packets: u64,
}

impl<S: Source> Worker<S> {
    /// Made on its own thread, so that its memory is near its core. `source` is `None` for a
    /// worker that only owns flows.
    pub fn new(source: Option<S>, parts: WorkerParts) -> Self {
        if parts.flows.measures() {
            parts.handoff.make_notes();
        }
        Self {
            source_ended: source.is_none(),
            source,
            headers: vec![Headers::default(); BURST_PACKETS_MAX].into_boxed_slice(),
            outcomes: vec![Outcome::default(); BURST_PACKETS_MAX].into_boxed_slice(),
            ahead: vec![Ahead::default(); BURST_PACKETS_MAX].into_boxed_slice(),
            ready: Vec::with_capacity(2 * BURST_PACKETS_MAX),
            totals: WorkerTotals { sampling_rate: 1.0, ..WorkerTotals::default() },
            taps: vec![TapTotals::default(); parts.taps_max],
            mirror_sequences: vec![None; parts.taps_max],
            read_clock: Timestamp::ZERO,
            clock: Timestamp::ZERO,
            next_event: Timestamp::ZERO,
            booking: Booking::new(parts.windows),
            open_from: None,
            cut_from: WindowNumber(0),
            told_from: WindowNumber(0),
            expire_round_at: Timestamp::ZERO,
            newest_active: WindowNumber(0),
            expiring: false,
            ports_known: 0,
            quiet: false,
            blocked: false,
            in_hand_packets: 0,
            outgoing_closed: false,
            parts,
        }
    }

    /// Runs until the source ends or `stop` is set, then books and hands over all it has.
    pub fn run(&mut self, stop: &AtomicBool) {
        let mut idle_turns = 0_u32;
        loop {
            match self.turn() {
                Turn::Ended => break,
                Turn::Busy => idle_turns = 0,
                Turn::Idle => idle_turns = idle_turns.saturating_add(1),
            }
            if stop.load(Ordering::Relaxed) && !self.source_ended {
                self.drain_source();
            }
            // A core of its own would spin; on a shared one the others must get their turn.
            if idle_turns > 64 {
                std::thread::yield_now();
            }
        }
        self.finish();
    }

    /// One turn: a poll, what other workers sent, a step of each chore.
    pub fn turn(&mut self) -> Turn {
        let polled = self.poll();
        if self.source_ended && !self.outgoing_closed {
            self.close_outgoing();
        }
        let taken = self.take_over();
        self.chores();
        self.totals.turns[0] += 1;
        if polled + taken > 0 {
            self.totals.turns[1] += 1;
            return Turn::Busy;
        }
        if self.source_ended && self.incoming_ended() { Turn::Ended } else { Turn::Idle }
    }

    /// What this worker has counted so far.
    pub fn totals(&self) -> &WorkerTotals {
        &self.totals
    }

    /// The source, to ask it what it knows.
    pub fn source(&self) -> Option<&S> {
        self.source.as_ref()
    }

    /// The source back, when the worker is done.
    pub fn into_source(self) -> Option<S> {
        self.source
    }

    /// The flow table, to ask it for its size.
    pub fn flows(&self) -> &FlowStage {
        &self.parts.flows
    }

    /// Bytes of its tables: flows, rows, copies; all of it is taken at start but for the side slab.
    pub fn table_bytes(&self) -> usize {
        let flows = &self.parts.flows;
        let copies = self.parts.copies.as_ref().map_or(0, CopyTable::bytes);
        flows.bytes()
            + flows.side_slab().0
            + flows.measure_slabs().0
            + self.parts.handoff.row_bytes()
            + if flows.measures() { self.parts.handoff.note_bytes() } else { 0 }
            + copies
    }

    /// How far it is beside packets, for measurements.
    pub fn progress(&self) -> Progress {
        let open_from = self.open_from.unwrap_or_default();
        Progress {
            open_from,
            told_from: self.told_from,
            is_closing: self.cut_from < open_from,
            is_expiring: self.expiring,
            held_packets: self.parts.fragments.held_packets(),
        }
    }

    /// Polls the source, decodes the burst, then handles it packet by packet.
    fn poll(&mut self) -> usize {
        if self.source_ended {
            return 0;
        }
        let Some(source) = self.source.as_mut() else { return 0 };
        let (burst, state) = source.poll();
        while let Some(name) = burst.port_names().get(self.ports_known) {
            self.parts.decoder.add_port(name);
            self.parts.port_names.add(name);
            self.ports_known += 1;
        }
        let packets = burst.len().min(BURST_PACKETS_MAX);
        fetch_frames(&burst, packets);
        for place in 0..packets {
            let frame = burst.frame(place);
            self.read_clock = self.read_clock.max(frame.timestamp);
            let headers = &mut self.headers[place];
            let decoded = self.parts.decoder.decode(&frame, self.read_clock, headers);
            if decoded.is_ok() {
                name_flow(headers, self.parts.seed);
            }
            self.outcomes[place] =
                Outcome { wire_octets: frame.wire_octets, rejected: decoded.err() };
        }
        drop(burst);
        self.quiet = state == SourceState::Quiet;
        match state {
            SourceState::Open(now) => self.read_clock = self.read_clock.max(now),
            SourceState::Quiet => {}
            SourceState::Ended => self.source_ended = true,
        }
        self.fetch_tables(packets);
        // Out of the worker while it is changed by what they hold; nothing is allocated.
        let headers = std::mem::take(&mut self.headers);
        for (place, headers) in headers[..packets].iter().enumerate() {
            self.handle(headers, place);
        }
        self.headers = headers;
        self.flush_outgoing();
        packets
    }

    /// Looks at where the flows and digests of the burst lie, so that memory is fetched for all at
    /// once.
    fn fetch_tables(&mut self, packets: usize) {
        let (flows, copies) = (&self.parts.flows, self.parts.copies.as_ref());
        let accepted = |outcome: &Outcome| outcome.rejected.is_none();
        let mut touched = 0;
        for place in 0..packets {
            if accepted(&self.outcomes[place]) {
                touched ^= u64::from(flows.table().touch_bucket(self.headers[place].hash));
            }
        }
        for place in 0..packets {
            if accepted(&self.outcomes[place]) {
                let ahead = Ahead::of(&self.headers[place], flows, copies);
                touched ^= ahead.guess.touched;
                touched ^= copies.map_or(0, |copies| copies.touch(&ahead.digest));
                self.ahead[place] = ahead;
            }
        }
        for place in 0..packets {
            let row = flows.guess_row(self.ahead[place].guess, self.newest_active);
            touched ^= row.map_or(0, |row| self.parts.handoff.touch(row));
        }
        std::hint::black_box(touched);
    }

    /// One packet of the own source: time goes on, it is counted, and goes its way.
    #[inline]
    fn handle(&mut self, headers: &Headers, place: usize) {
        let outcome = self.outcomes[place];
        if self.parts.receivers == 1 {
            self.advance(headers.clock);
        }
        self.totals.received_packets += 1;
        self.totals.received_octets += u64::from(outcome.wire_octets);
        if let Some(tap) = self.taps.get_mut(usize::from(headers.tap.0)) {
            tap.packets += 1;
            tap.octets += u64::from(outcome.wire_octets);
        }
        match outcome.rejected {
            Some(cause) => self.totals.causes.add(cause, 1),
            None => {
                let ahead = self.ahead[place];
                self.accept(headers, &ahead);
            }
        }
    }

    #[inline]
    fn accept(&mut self, headers: &Headers, ahead: &Ahead) {
        if headers.marks.0 & NOTED_MARKS != 0 {
            self.note_marks(headers);
        }
        if headers.marks.has(Marks::FRAGMENT) {
            // Filters may name ports, which a later fragment gets only now.
            self.route_fragment(headers);
        } else {
            self.admit(headers, ahead);
        }
    }

    /// Past the filters, to the worker that owns the flow.
    #[inline]
    fn admit(&mut self, headers: &Headers, ahead: &Ahead) {
        if self.parts.filters.matches(headers) {
            self.totals.causes.add(DropCause::Filtered, 1);
        } else {
            self.route(headers, ahead);
        }
    }

    #[cold]
    fn note_marks(&mut self, headers: &Headers) {
        let place = usize::from(headers.tap.0);
        if let (Some(tap), Some(last)) =
            (self.taps.get_mut(place), self.mirror_sequences.get_mut(place))
        {
            note_marks(tap, last, headers);
        }
    }

    /// Fragments find their ports here if this worker receives all of them, else at the worker
    /// that owns their datagram.
    fn route_fragment(&mut self, headers: &Headers) {
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

    fn resolve_fragment(&mut self, headers: &Headers) {
        let mut ready = std::mem::take(&mut self.ready);
        self.parts.fragments.resolve(headers, &mut ready);
        self.route_resolved(&mut ready);
        self.ready = ready;
        let deadline = self.parts.fragments.next_deadline();
        self.next_event = self.next_event.min(deadline.unwrap_or(self.next_event));
    }

    fn route_resolved(&mut self, ready: &mut Vec<Headers>) {
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

    /// To the worker that owns the flow.
    #[inline]
    fn route(&mut self, headers: &Headers, ahead: &Ahead) {
        if !self.parts.shedder.keeps(headers.hash) {
            self.totals.causes.add(DropCause::Shed, 1);
            return;
        }
        let flow_owner = owner(headers.hash, self.parts.workers);
        // At the very end the others may be gone already; the aggregator joins what is split.
        if self.outgoing_closed || (flow_owner == self.parts.place && self.parts.receivers == 1) {
            self.own(headers, ahead);
        } else {
            self.pass_on(flow_owner, headers);
        }
    }

    fn pass_on(&mut self, to: usize, headers: &Headers) {
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
    fn wait_for_room(&mut self) {
        self.blocked = true;
        if self.take_over() == 0 {
            std::thread::yield_now();
        }
        self.blocked = false;
    }

    /// Hands open batches over and says how far this worker has read.
    fn flush_outgoing(&mut self) {
        for place in 0..self.parts.outgoing.len() {
            while !self.parts.outgoing[place].flush() && self.parts.waits {
                self.publish(self.read_clock);
                self.wait_for_room();
            }
        }
        self.publish(self.read_clock);
    }

    /// Says in each ring that has room that all packets before `clock` are there.
    fn publish(&mut self, clock: Timestamp) {
        for ring in &mut self.parts.outgoing {
            if !ring.flush() {
                continue;
            }
            if self.quiet { ring.publish_quiet() } else { ring.publish(clock) }
        }
    }

    /// Takes packets over from other workers, oldest first. A ring that is empty is waited for
    /// until its worker has read further, with a live source not longer than the hold.
    fn take_over(&mut self) -> usize {
        if self.parts.incoming.is_empty() {
            return 0;
        }
        let mut taken = 0;
        while taken < TAKE_PACKETS_MAX {
            let Some(from) = self.oldest_ring() else { break };
            let Some(headers) = self.parts.incoming[from].head().copied() else { break };
            self.parts.incoming[from].advance();
            taken += 1;
            // Time first: what closes with it does not hold this packet yet.
            self.advance(headers.clock);
            self.totals.spread_in_packets += 1;
            let unresolved =
                headers.marks.has(Marks::FRAGMENT) && !headers.marks.has(Marks::PORTS_RESOLVED);
            if unresolved {
                self.resolve_fragment(&headers);
            } else {
                let ahead = self.look_ahead(&headers);
                self.own(&headers, &ahead);
            }
        }
        if taken == 0 {
            self.advance_by_rings();
        }
        taken
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

    fn incoming_ended(&mut self) -> bool {
        self.parts.incoming.iter_mut().all(|ring| ring.clock() == CLOSED && ring.head().is_none())
    }

    /// Where a packet that was not in the burst is to be looked up.
    fn look_ahead(&self, headers: &Headers) -> Ahead {
        Ahead::of(headers, &self.parts.flows, self.parts.copies.as_ref())
    }

    /// A packet of a flow that this worker owns.
    #[inline]
    fn own(&mut self, headers: &Headers, ahead: &Ahead) {
        let copies = self.parts.copies.as_mut();
        let verdict =
            copies.map_or(Verdict::First, |copies| copies.classify(headers, &ahead.digest));
        if verdict != Verdict::First && !self.counts_copy(headers, ahead, verdict) {
            return;
        }
        let (window, late) = self.booking.book(headers);
        // Behind another ring's clock a window may be closed that this packet's own clock has
        // open.
        let open_from = self.open_from.unwrap_or(window);
        let booking = if window < open_from { (open_from, true) } else { (window, late) };
        self.newest_active = self.newest_active.max(booking.0);
        self.parts.flows.meter(headers, ahead.guess, verdict, booking, &mut self.parts.handoff);
        self.parts.handoff.count(booking.0);
        self.totals.booked_packets += 1;
        self.totals.late_packets += u64::from(booking.1);
    }

    /// Whether a copy counts as traffic all the same.
    fn counts_copy(&mut self, headers: &Headers, ahead: &Ahead, verdict: Verdict) -> bool {
        let mut nowhere = TapTotals::default();
        let tap = self.taps.get_mut(usize::from(headers.tap.0)).unwrap_or(&mut nowhere);
        let cause = match verdict {
            Verdict::First => return true,
            Verdict::Ambiguous => {
                tap.ambiguous += 1;
                return true;
            }
            Verdict::Duplicate => {
                tap.duplicates += 1;
                DropCause::Duplicate
            }
            Verdict::OtherTap { .. } => {
                tap.copies_other_tap += 1;
                DropCause::CopyOtherTap
            }
        };
        if self.parts.remove_copies {
            self.totals.causes.add(cause, 1);
            if verdict == Verdict::Duplicate {
                self.parts.flows.note_duplicate(headers, ahead.guess);
            }
        }
        !self.parts.remove_copies
    }

    /// Time goes on: fragments that waited too long are let go, windows close.
    #[inline]
    fn advance(&mut self, clock: Timestamp) {
        if clock < self.next_event {
            self.clock = self.clock.max(clock);
        } else {
            self.advance_to_event(clock);
        }
    }

    #[cold]
    fn advance_to_event(&mut self, clock: Timestamp) {
        if clock <= self.clock && self.open_from.is_some() {
            return;
        }
        while let Some(deadline) = self.parts.fragments.next_deadline()
            && deadline <= clock
        {
            self.set_clock(deadline.max(self.clock));
            let mut ready = std::mem::take(&mut self.ready);
            self.parts.fragments.expire(deadline, &mut ready);
            self.route_resolved(&mut ready);
            self.ready = ready;
        }
        self.set_clock(clock);
        let closes_at = self.parts.windows.closes_at(self.parts.windows.oldest_open(self.clock));
        let deadline = self.parts.fragments.next_deadline();
        self.next_event = deadline.map_or(closes_at, |deadline| deadline.min(closes_at));
    }

    fn set_clock(&mut self, clock: Timestamp) {
        let before = WindowNumber::of(self.clock, self.parts.windows.length_ns());
        self.newest_active = self.newest_active.max(before);
        self.clock = clock;
        let oldest = self.parts.windows.oldest_open(clock);
        let open_from = *self.open_from.get_or_insert_with(|| {
            (self.cut_from, self.told_from) = (oldest, oldest);
            oldest
        });
        if oldest > open_from {
            self.open_from = Some(oldest);
            if self.parts.waits {
                self.close_up_to(oldest, usize::MAX);
            }
        }
    }

    /// Sends the rows of windows below `end`, at most `blocks_max` blocks, and says so when done. An
    /// aggregator that is far behind is told later, and of several windows at once.
    fn close_up_to(&mut self, end: WindowNumber, blocks_max: usize) {
        while self.cut_from < end {
            let window = self.cut_from;
            if !self.parts.handoff.send_window(window, blocks_max) {
                return;
            }
            self.cut_from = if window >= self.newest_active { end } else { window.next() };
            self.tell_closed();
        }
        if self.told_from < self.cut_from {
            self.tell_closed();
        }
    }

    fn tell_closed(&mut self) {
        self.refresh_totals();
        let last = WindowNumber(self.cut_from.0 - 1);
        let taps = self.taps_used();
        if self.parts.handoff.close(last, &mut self.totals, &self.taps[..taps]) {
            self.told_from = self.cut_from;
        }
    }

    /// Small steps of what need not be done at once.
    fn chores(&mut self) {
        if !self.parts.waits {
            let (receivers, clock) = (self.parts.receivers, self.read_clock);
            if receivers == 1 && self.source.is_some() && clock != Timestamp::ZERO {
                self.advance(clock);
            }
            if let Some(open_from) = self.open_from {
                self.close_up_to(open_from, CLOSE_BLOCKS_MAX);
            }
        }
        if self.totals.turns[0].is_multiple_of(SHED_TURNS) {
            let fill = self.source.as_ref().and_then(Source::fill_percent);
            self.totals.ring_fill_percent = fill;
            self.parts.shedder.step(fill);
            let rate = self.parts.shedder.rate();
            self.parts.flows.set_sampling_rate(rate);
            self.parts.handoff.set_sampling_rate(rate, self.newest_active);
        }
        self.expire();
    }

    fn expire(&mut self) {
        if self.clock >= self.expire_round_at + EXPIRE_ROUND_NS {
            self.expire_round_at = self.clock;
            self.expiring = true;
        }
        if self.expiring {
            let output = &mut self.parts.handoff;
            self.expiring = !self.parts.flows.expire_step(self.clock, EXPIRE_SLOTS_MAX, output);
        }
    }

    /// Takes what the NIC has already, within bounds, then ends the source.
    fn drain_source(&mut self) {
        if self.source.as_ref().is_some_and(Source::is_live) {
            for _ in 0..DRAIN_POLLS_MAX {
                if self.poll() == 0 {
                    break;
                }
            }
        }
        self.source_ended = true;
    }

    /// Tells the other workers that the source has ended; they may still send.
    fn close_outgoing(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        self.parts.fragments.expire(Timestamp(u64::MAX), &mut ready);
        // They end here and now, whatever their time would have been.
        for headers in &mut ready {
            headers.clock = self.read_clock.max(self.clock);
        }
        self.route_resolved(&mut ready);
        self.ready = ready;
        for place in 0..self.parts.outgoing.len() {
            while !self.parts.outgoing[place].flush() {
                self.wait_for_room();
            }
        }
        self.outgoing_closed = true;
        let clock = self.read_clock.max(self.clock);
        self.parts.outgoing.iter().for_each(|ring| ring.close(clock));
    }

    /// Ends all flows and hands over all there is; once, after [`Turn::Ended`]. [`Worker::run`] does
    /// so by itself.
    pub fn finish(&mut self) {
        self.parts.handoff.drain();
        // All workers end at the same instant: the latest that any of those who read has seen.
        let read = self.parts.incoming.iter().map(RingReceiver::last_clock).max();
        let clock = self.clock.max(self.read_clock).max(read.unwrap_or_default());
        if clock != Timestamp::ZERO {
            self.advance(clock);
        }
        // What came from other workers after they were told that nothing more would be waited for.
        let mut ready = std::mem::take(&mut self.ready);
        self.parts.fragments.expire(Timestamp(u64::MAX), &mut ready);
        self.route_resolved(&mut ready);
        self.parts.flows.end_all(self.clock, &mut self.parts.handoff);
        self.parts.handoff.send_all_windows();
        self.refresh_totals();
        self.close_last_window();
        let taps = self.taps_used();
        self.parts.handoff.end(&mut self.totals, &self.taps[..taps]);
    }

    /// What was counted since the last window closed belongs to the window that time stands in.
    fn close_last_window(&mut self) {
        let clock_window = WindowNumber::of(self.clock, self.parts.windows.length_ns());
        let last = self.newest_active.max(clock_window);
        if self.totals.received_packets + self.totals.booked_packets == 0 {
            return;
        }
        let taps = self.taps_used();
        while !self.parts.handoff.close(last, &mut self.totals, &self.taps[..taps]) {
            std::thread::yield_now();
        }
    }

    /// Taps that can have counted something.
    fn taps_used(&self) -> usize {
        self.parts.decoder.taps().len().min(self.taps.len())
    }

    fn refresh_totals(&mut self) {
        let flows = &self.parts.flows;
        let counts = flows.counts();
        self.totals.flows_created = counts.created;
        self.totals.flows_evicted = [counts.evicted_embryonic, counts.evicted];
        self.totals.flows_live = flows.table().len() as u64;
        self.totals.measures_refused = flows.measure_slabs().1;
        self.totals.fragments_unresolved = self.parts.fragments.unresolved_packets();
        self.totals.held_packets = self.parts.fragments.held_packets() + self.in_hand_packets;
        let copies = self.parts.copies.as_ref();
        self.totals.digests_evicted = copies.map_or(0, CopyTable::evicted_digests);
        self.totals.sampling_rate = self.parts.shedder.rate();
    }
}

/// Marks that are counted on the tap.
const NOTED_MARKS: u16 = Marks::SNAPPED.0 | Marks::SEGMENT_UNMAPPED.0 | Marks::MIRROR_SEQUENCE.0;

/// Steps of a mirror's sequence, forwards or back, that are loss or reordering; beyond, the mirror
/// was started again.
const SEQUENCE_STEP_MAX: u32 = 1 << 16;

/// Reads the first and the second cache line of all frames, so that memory fetches them at once.
#[inline]
fn fetch_frames(burst: &impl Burst, packets: usize) {
    let mut touched = 0;
    for place in 0..packets {
        let bytes = burst.frame(place).bytes;
        touched ^= bytes.first().unwrap_or(&0) ^ bytes.get(64).unwrap_or(&0);
    }
    std::hint::black_box(touched);
}

fn note_marks(tap: &mut TapTotals, last_sequence: &mut Option<u32>, headers: &Headers) {
    tap.snapped += u64::from(headers.marks.has(Marks::SNAPPED));
    tap.segment_unmapped += u64::from(headers.marks.has(Marks::SEGMENT_UNMAPPED));
    if headers.marks.has(Marks::MIRROR_SEQUENCE) {
        tap.sequenced += 1;
        note_sequence(tap, last_sequence, headers.mirror_sequence);
    }
}

/// Numbers that are passed over are gaps, until they come after all.
fn note_sequence(tap: &mut TapTotals, last_sequence: &mut Option<u32>, sequence: u32) {
    let last = *last_sequence.get_or_insert(sequence);
    let (ahead, behind) = (sequence.wrapping_sub(last), last.wrapping_sub(sequence));
    if (1..SEQUENCE_STEP_MAX).contains(&behind) {
        tap.mirror_gaps = tap.mirror_gaps.saturating_sub(1);
        return;
    }
    if (1..SEQUENCE_STEP_MAX).contains(&ahead) {
        tap.mirror_gaps += u64::from(ahead - 1);
    }
    *last_sequence = Some(sequence);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_a_mirror_sequence() {
        for (sequences, gaps) in [
            (&[1, 2, 3][..], 0),
            (&[1, 4, 5], 2),
            (&[4, 6, 5, 7], 0),
            (&[3_000_000_000, 0, 1], 0),
            (&[u32::MAX, 0, 2], 1),
            (&[5, 5], 0),
        ] {
            let (mut tap, mut last) = (TapTotals::default(), None);
            for sequence in sequences {
                note_sequence(&mut tap, &mut last, *sequence);
            }
            assert_eq!(tap.mirror_gaps, gaps, "{sequences:?}");
        }
    }
}
