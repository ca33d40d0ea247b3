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

use crate::app::FirstWords;
use crate::capture::{Burst, Frame, Source, SourceState};
use crate::copies::{CopyTable, Digest, Invariant, Verdict};
use crate::counters::{DropCause, TapTotals, WorkerTotals};
use crate::decode::brief::Fields;
use crate::decode::filter::Filters;
use crate::decode::{Brief, Decoder, Headers, Marks};
use crate::flow::{FlowStage, Guess};
use crate::index::{TapIndex, WindowNumber};
use crate::spread::fragments::FragmentTable;
use crate::spread::ring::{CLOSED, QUIET, RingReceiver, RingSender};
use crate::spread::shed::Shedder;
use crate::spread::{HashSeed, datagram_hash, name_brief, name_flow, owner};
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
    briefs: Box<[Brief]>,
    seen: Box<[Seen]>,
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
    tally: Tally,
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

/// What is known of one frame of a burst.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Hash of its flow's key; 0 where it was rejected.
    hash: u64,
    kind: Kind,
}

/// Packets of settled flows that are alike, counted together.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    tap: TapIndex,
    booking: (WindowNumber, bool),
    packets: u64,
    octets: u64,
}

/// How much was read of a frame.
#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    /// What a settled flow needs.
    #[default]
    Brief,
    /// All headers.
    Headers,
    /// All headers, in vain.
    Rejected(DropCause),
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
        Self { guess: flows.guess(headers.hash), digest }
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
        Self {
            source_ended: source.is_none(),
            source,
            headers: vec![Headers::default(); BURST_PACKETS_MAX].into_boxed_slice(),
            briefs: vec![Brief::default(); BURST_PACKETS_MAX].into_boxed_slice(),
            seen: vec![Seen::default(); BURST_PACKETS_MAX].into_boxed_slice(),
            ahead: vec![Ahead::default(); BURST_PACKETS_MAX].into_boxed_slice(),
            ready: Vec::with_capacity(2 * BURST_PACKETS_MAX),
            totals: WorkerTotals { sampling_rate: 1.0, ..WorkerTotals::default() },
            taps: vec![TapTotals::default(); parts.taps_max],
            mirror_sequences: vec![None; parts.taps_max],
            read_clock: Timestamp::ZERO,
            clock: Timestamp::ZERO,
            next_event: Timestamp::ZERO,
            booking: Booking::new(parts.windows),
            tally: Tally::default(),
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
        flows.bytes() + flows.side_slab().0 + self.parts.handoff.row_bytes() + copies
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

    /// Polls the source, looks at the burst, then handles it packet by packet.
    fn poll(&mut self) -> usize {
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
        for place in 0..packets {
            self.handle(&burst, place);
        }
        self.add_tally();
        drop(burst);
        self.source = Some(source);
        self.flush_outgoing();
        packets
    }

    /// Reads what each packet needs: in brief where that may do, else all headers.
    #[inline]
    fn look(&mut self, burst: &impl Burst, packets: usize) {
        let may_be_brief = self.may_be_brief();
        for place in 0..packets {
            let frame = burst.frame(place);
            self.read_clock = self.read_clock.max(frame.timestamp);
            if may_be_brief && self.look_in_brief(&frame, place) {
                continue;
            }
            self.decode(&frame, self.read_clock, place);
        }
    }

    /// Whether nothing has to be asked of a packet but which flow it is of.
    fn may_be_brief(&self) -> bool {
        let parts = &self.parts;
        parts.receivers == 1 && parts.filters.is_empty() && parts.shedder.keeps_all()
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
    #[inline]
    fn decode(&mut self, frame: &Frame<'_>, clock: Timestamp, place: usize) {
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
        }
        std::hint::black_box(touched);
    }

    /// One packet of the own source: time goes on, it is counted, and goes its way.
    #[inline]
    fn handle(&mut self, burst: &impl Burst, place: usize) {
        let is_brief = matches!(self.seen[place].kind, Kind::Brief);
        if is_brief && self.handle_brief(burst, place) {
            return;
        }
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
    fn receive(&mut self, tap: TapIndex, (packets, octets): (u64, u64)) {
        self.totals.received_packets += packets;
        self.totals.received_octets += octets;
        if let Some(tap) = self.taps.get_mut(usize::from(tap.0)) {
            tap.packets += packets;
            tap.octets += octets;
        }
    }

    /// The same for a packet that is known in brief, if its flow is settled; then it is only counted.
    /// `false`: all its headers are needed, and nothing was done.
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
    fn add_tally(&mut self) {
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
        let verdict = copies.map_or(Verdict::First, |copies| {
            copies.classify((headers.tap, headers.timestamp), &ahead.digest)
        });
        self.own_as(headers, ahead, verdict);
    }

    /// The same for a packet of which it is known whether it is a copy.
    #[inline]
    fn own_as(&mut self, headers: &Headers, ahead: &Ahead, verdict: Verdict) {
        if verdict != Verdict::First && !self.counts_copy(headers, ahead, verdict) {
            return;
        }
        let (window, late) = self.booking.book(headers.timestamp, headers.clock);
        let booking = self.open_window(window, late);
        self.parts.flows.meter(headers, ahead.guess, verdict, booking, &mut self.parts.handoff);
        self.note_booked(booking, 1);
    }

    /// The window itself, or the oldest open one: behind another ring's clock a window may be closed
    /// that a packet's own clock has open.
    #[inline]
    fn open_window(&self, window: WindowNumber, late: bool) -> (WindowNumber, bool) {
        let open_from = self.open_from.unwrap_or(window);
        if window < open_from { (open_from, true) } else { (window, late) }
    }

    #[inline]
    fn note_booked(&mut self, (window, late): (WindowNumber, bool), packets: u64) {
        self.newest_active = self.newest_active.max(window);
        self.parts.handoff.count(window, packets);
        self.totals.booked_packets += packets;
        self.totals.late_packets += if late { packets } else { 0 };
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

    /// Sends the rows of windows below `end`, at most `blocks_max` blocks, and says so when done: of
    /// each window in which anything happened by itself, so that its totals don't depend on how far
    /// the clock went in one step. An aggregator that is far behind is told of several at once.
    fn close_up_to(&mut self, end: WindowNumber, blocks_max: usize) {
        while self.cut_from < end {
            let window = self.cut_from;
            if !self.parts.handoff.send_window(window, blocks_max) {
                return;
            }
            self.cut_from = if window > self.newest_active { end } else { window.next() };
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

    /// Taps that can have counted something, copies of what another worker read included.
    fn taps_used(&self) -> usize {
        let taps = self.parts.decoder.taps();
        let named = usize::from(taps.configured()) + self.parts.port_names.count();
        taps.len().max(named).min(self.taps.len())
    }

    fn refresh_totals(&mut self) {
        let flows = &self.parts.flows;
        let counts = flows.counts();
        self.totals.flows_created = counts.created;
        self.totals.flows_evicted = [counts.evicted_embryonic, counts.evicted];
        self.totals.flows_live = flows.table().len() as u64;
        self.totals.fragments_unresolved = self.parts.fragments.unresolved_packets();
        self.totals.held_packets = self.parts.fragments.held_packets() + self.in_hand_packets;
        let copies = self.parts.copies.as_ref();
        self.totals.digests_evicted = copies.map_or(0, CopyTable::evicted_digests);
        self.totals.sampling_rate = self.parts.shedder.rate();
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
        touched ^= burst.touch(place);
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
