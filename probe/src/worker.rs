//! One core: owns a source, flows and windows; the loop.
//!
//! In: frames of its source, packets of its flows from other workers. Out: rows, ended flows and
//! closed windows, through the hand-off.
//! Cost: per burst one poll; per packet a brief look or all headers, hash, one line of copies, the flow's lines. No
//! lock, no allocation, no log, no clock call per packet.
//! Invariants: the same for NIC and file, and for any number of workers and any burst size. All
//! that a packet brings about depends on the packets before it in the order of their clock.
//! Source: ARCHITECTURE.md, "The loop".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::capture::Source;
use crate::copies::{CopyTable, Digest, Verdict};
use crate::counters::{DropCause, TapTotals, WorkerTotals};
use crate::decode::filter::Filters;
use crate::decode::{Decoder, Headers, Marks};
use crate::flow::{FlowStage, Guess};
use crate::index::{Sender, TapIndex, WindowNumber};
use crate::path::PathStage;
use crate::sources::MapCell;
use crate::spread::fragments::FragmentTable;
use crate::spread::ring::{BATCH_PACKETS_MAX, RingReceiver, RingSender};
use crate::spread::shed::Shedder;
use crate::spread::{HashSeed, owner};
use crate::time::Timestamp;
use crate::window::{Booking, HandoffSender, WindowClock};

mod burst;
mod carry;
mod learn;
mod look;
mod marks;
mod port_names;
mod quotes;
mod spreading;
mod taking;

use burst::Tally;
use carry::Carrier;
pub use learn::LearnTap;
use look::Seen;
use marks::{MirrorSequence, NOTED_MARKS};
pub use port_names::PortNames;
use taking::Taken;

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
    /// Follows packets from tap to tap; `None` where there is nothing to compare.
    pub path: Option<PathStage>,
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
    /// Where the newest map of segments is; without it the decoder keeps the one that it has.
    pub maps: Option<Arc<MapCell>>,
    /// What is learned of who has which address; `None` where nothing is.
    pub learn: Option<LearnTap>,
    /// Whether messages of applications are taken.
    pub transactions: bool,
}

/// A packet with the frame that it stands in, which is empty where that is not at hand.
type Framed<'a> = (&'a Headers, &'a [u8]);

/// One core of the packet path.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the loop")]
pub struct Worker<S> {
    source: Option<S>,
    parts: WorkerParts,
    headers: Box<[Headers]>,
    seen: Box<[Seen]>,
    ready: Vec<Headers>,
    /// Where payload goes along to other workers.
    carrier: Option<Carrier>,
    /// Of each ring's batch.
    taken: Vec<[Taken; BATCH_PACKETS_MAX]>,
    totals: WorkerTotals,
    taps: Vec<TapTotals>,
    mirror_sequences: Vec<Option<MirrorSequence>>,
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
    /// Since what goes to other workers was handed over.
    polls_unflushed: u32,
    /// Of the map of segments that the decoder has.
    map_version: u64,
    /// Waiting for room in a ring, and meanwhile taking over.
    blocked: bool,
    /// Packets that were received and are on their way through this worker while it does something
    /// else.
    in_hand_packets: u64,
    source_ended: bool,
    outgoing_closed: bool,
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

    /// Has what the flow points to fetched: its row, where it may have one in `window`, and with `MEASURES`
    /// its measures and where they are noted. The flow itself was asked for before, in vain where too much
    /// was at once.
    #[inline]
    fn fetch_behind<const MEASURES: bool>(
        &self,
        flows: &FlowStage,
        handoff: &HandoffSender,
        (sender, window): (Sender, WindowNumber),
    ) {
        flows.table().fetch_again(self.guess);
        flows.table().fetch_rest(self.guess, sender);
        if let Some(row) = flows.guess_row(self.guess, window) {
            handoff.fetch(row, MEASURES);
        }
        if MEASURES {
            flows.fetch_measures(self.guess);
        }
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
            seen: vec![Seen::default(); BURST_PACKETS_MAX].into_boxed_slice(),
            ready: Vec::with_capacity(2 * BURST_PACKETS_MAX),
            carrier: (parts.transactions && !parts.outgoing.is_empty()).then(Carrier::new),
            taken: vec![[Taken::default(); BATCH_PACKETS_MAX]; parts.incoming.len()],
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
            polls_unflushed: 0,
            map_version: u64::MAX,
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
        self.swap_map();
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

    /// Takes the newest map of segments, between bursts. The old one is freed by who made it.
    #[inline]
    fn swap_map(&mut self) {
        let Some(maps) = &self.parts.maps else { return };
        let version = maps.version();
        if version != self.map_version {
            self.parts.decoder.set_map(maps.load());
            self.map_version = version;
        }
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
        let copies = self.parts.copies.as_ref().map_or(0, CopyTable::bytes)
            + self.parts.path.as_ref().map_or(0, PathStage::bytes);
        let notes = if flows.measures() { self.parts.handoff.note_bytes() } else { 0 };
        let slabs = flows.side_slab().0 + flows.measure_slabs().0;
        flows.bytes() + slabs + self.parts.handoff.row_bytes() + notes + copies
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

    #[inline]
    fn accept(&mut self, (headers, frame): Framed<'_>, ahead: &Ahead) {
        if headers.marks.0 & NOTED_MARKS != 0 {
            self.note_marks(headers);
        }
        if headers.marks.has(Marks::FRAGMENT) {
            // Filters may name ports, which a later fragment gets only now.
            self.route_fragment(headers);
        } else {
            self.admit((headers, frame), ahead);
        }
    }

    /// Past the filters, to the worker that owns the flow.
    #[inline]
    fn admit(&mut self, (headers, frame): Framed<'_>, ahead: &Ahead) {
        if self.parts.filters.matches(headers) {
            self.totals.causes.add(DropCause::Filtered, 1);
        } else {
            self.route((headers, frame), ahead);
        }
    }

    /// To the worker that owns the flow.
    #[inline]
    fn route(&mut self, (headers, frame): Framed<'_>, ahead: &Ahead) {
        if !self.parts.shedder.keeps(headers.hash) {
            self.totals.causes.add(DropCause::Shed, 1);
            return;
        }
        let flow_owner = owner(headers.hash, self.parts.workers);
        // At the very end the others may be gone already; the aggregator joins what is split.
        if self.outgoing_closed || (flow_owner == self.parts.place && self.parts.receivers == 1) {
            self.own((headers, frame), ahead);
        } else {
            let payload = self.carried(headers, frame);
            self.pass_on(flow_owner, headers, payload);
        }
    }

    /// Where a packet that was not in the burst is to be looked up.
    fn look_ahead(&self, headers: &Headers) -> Ahead {
        Ahead::of(headers, &self.parts.flows, self.parts.copies.as_ref())
    }

    /// Payload that goes along to the worker that owns its flow.
    #[inline]
    fn carried<'a>(&mut self, headers: &Headers, frame: &'a [u8]) -> &'a [u8] {
        self.carrier.as_mut().map_or(&[], |carrier| carrier.payload(headers, frame))
    }

    /// A packet of a flow that this worker owns.
    #[inline]
    fn own(&mut self, (headers, frame): Framed<'_>, ahead: &Ahead) {
        let verdict = self.parts.classify((headers.tap, headers.timestamp), ahead);
        self.own_as((headers, frame), ahead, verdict);
    }

    /// The same for a packet of which it is known whether it is a copy.
    #[inline]
    fn own_as(&mut self, (headers, frame): Framed<'_>, ahead: &Ahead, verdict: Verdict) {
        let (window, late) = self.booking.book(headers.timestamp, headers.clock);
        let booking = self.open_window(window, late);
        if self.book((headers, frame), ahead, verdict, booking) {
            self.note_booked(booking, 1);
        }
    }

    /// Counts a packet on its flow in a window that is open; `false` for a copy that does not count. It is
    /// yet to be noted as booked.
    #[inline]
    fn book(
        &mut self,
        (headers, frame): Framed<'_>,
        ahead: &Ahead,
        verdict: Verdict,
        booking: (WindowNumber, bool),
    ) -> bool {
        let copy = if self.is_recut(headers, ahead, verdict) && verdict == Verdict::First {
            Verdict::OtherTap { tap: headers.tap, seen: headers.timestamp }
        } else {
            verdict
        };
        if copy != Verdict::First && !self.counts_copy(headers, ahead, copy) {
            return false;
        }
        let (flows, output) = (&mut self.parts.flows, &mut self.parts.handoff);
        flows.meter_frame((headers, frame), ahead.guess, verdict, booking, output);
        true
    }

    /// Tells the path stage of a packet. Whether another tap showed what it holds before, in other
    /// pieces: where all packets are followed that stage knows, else the flow tells.
    #[inline]
    fn is_recut(&mut self, headers: &Headers, ahead: &Ahead, verdict: Verdict) -> bool {
        let (path, output) = (self.parts.path.as_mut(), &mut self.parts.handoff);
        let asks_flow = verdict == Verdict::First
            && self.parts.copies.is_some()
            && !path.as_ref().is_some_and(|path| path.follows_all());
        if asks_flow && self.parts.flows.is_recut(headers, ahead.guess) {
            if let Some(path) = path {
                path.note_recut(headers, output);
            }
            return true;
        }
        path.is_some_and(|path| path.note(headers, &ahead.digest, verdict, output))
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
        if let Verdict::OtherTap { tap: counted, seen } = verdict
            && (headers.timestamp, headers.tap) < (seen, counted)
        {
            self.note_nearer_tap(headers, ahead, counted);
        }
        if self.parts.remove_copies {
            self.totals.causes.add(cause, 1);
            if verdict == Verdict::Duplicate {
                self.parts.flows.note_duplicate(headers, ahead.guess);
            }
        }
        !self.parts.remove_copies
    }

    /// A copy that came later was seen earlier, or at the same time at a tap that is configured first.
    #[cold]
    fn note_nearer_tap(&mut self, headers: &Headers, ahead: &Ahead, counted: TapIndex) {
        if self.parts.remove_copies {
            let (window, late) = self.booking.book(headers.timestamp, headers.clock);
            let (window, _) = self.open_window(window, late);
            let (flows, output) = (&mut self.parts.flows, &mut self.parts.handoff);
            flows.note_nearer_tap(headers, ahead.guess, (counted, window), output);
        }
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
        // Who waits for room meanwhile takes over what is later.
        self.set_clock(clock.max(self.clock));
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
        // Files wait, so what is due comes before the word that its time is over.
        if let Some(path) = self.parts.path.as_mut().filter(|_| self.parts.waits) {
            path.sweep_all(self.clock, &mut self.parts.handoff);
        }
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
        if let Some(path) = self.parts.path.as_mut() {
            path.sweep_step(self.clock, &mut self.parts.handoff);
        }
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
        if let Some(path) = self.parts.path.as_mut() {
            path.end(&mut self.parts.handoff);
        }
        self.parts.handoff.send_all_windows();
        self.end_mirror_sequences();
        self.refresh_totals();
        self.close_last_window();
        let taps = self.taps_used();
        self.parts.handoff.end(&mut self.totals, &self.taps[..taps]);
    }

    /// What was counted since the last window closed belongs to the next one that would have closed, as
    /// it would had time gone on: where the end lies in its grace that is not the one time stands in.
    fn close_last_window(&mut self) {
        let clock_window = WindowNumber::of(self.clock, self.parts.windows.length_ns());
        let last = self.newest_active.max(clock_window);
        if self.totals.received_packets + self.totals.booked_packets == 0 {
            return;
        }
        let next = self.open_from.unwrap_or(last).min(last);
        let taps = self.taps_used();
        for window in [next, last].into_iter().take(if next < last { 2 } else { 1 }) {
            while !self.parts.handoff.close(window, &mut self.totals, &self.taps[..taps]) {
                std::thread::yield_now();
            }
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
        self.totals.measures_refused = flows.measure_slabs().1;
        self.totals.fragments_unresolved = self.parts.fragments.unresolved_packets();
        self.totals.held_packets = self.parts.fragments.held_packets() + self.in_hand_packets;
        let copies = self.parts.copies.as_ref();
        self.totals.digests_evicted = copies.map_or(0, CopyTable::evicted_digests);
        self.totals.sampling_rate = self.parts.shedder.rate();
        let path = self.parts.path.as_ref().map(PathStage::counts).unwrap_or_default();
        self.totals.path_evicted = path.evicted;
        self.totals.path_unwatched = path.unwatched;
        self.totals.path_walks_cut = path.walks_cut;
    }
}
