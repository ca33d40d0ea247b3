//! The metering process: packets in, rows and ended flows out.
//!
//! In: headers with their verdict and window. Out: rows and ended flows, through [`FlowOutput`].
//! Cost: see `flow`; each chore goes on by a bounded number of slots a step.
//! Invariants: each booked packet is in exactly one row; a flow that ended leaves no counts behind.
//! Source: flow expiration, RFC 5470 §5.1.1.

mod cut;
mod hear;
mod measured;
mod recut;
mod settled;

pub use measured::MeasureTerms;

use crate::app::Speech;
use crate::config::FlowPlan;
use crate::copies::Verdict;
use crate::decode::{Brief, Headers, Marks, tcp_flag};
use crate::index::{FlowIndex, Sender, WindowNumber};
use crate::spread::FlowKey;
use crate::time::Timestamp;
use crate::window::RowPlace;

use super::begin::{first_events, initiator_of, is_later_fragment, is_tcp};
use super::bits::SlotBits;
use super::expiry::{self, Timeouts};
use super::output::FlowOutput;
use super::sides::{Apart, ApartSlab, Side};
use super::state::{Flow, Rest, Shown, low_window};
use super::table::Guess;
use super::{EndReason, FlowTable, TableFull, TcpState, event, tcp};
use measured::Measures;

/// Slots that are looked at to find an embryonic flow, and then to find the longest silent one.
const EVICT_SLOTS_MAX: usize = 32;

/// Words of bits that a search for room looks at.
const EVICT_WORDS_MAX: usize = 256;

/// Flows that may be over and whose memory is fetched at once.
const EXPIRE_AT_ONCE: usize = 16;

/// One of so many flows can have directions that differ in more than their order.
const APART_SHARE: usize = 8;

/// What happened to flows so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Flows begun.
    pub created: u64,
    /// Flows that left because their slot was needed, before any answer.
    pub evicted_embryonic: u64,
    /// The same, others.
    pub evicted: u64,
}

/// What one packet adds to its flow.
#[derive(Clone, Copy)]
struct Share {
    sender: Sender,
    octets: u32,
    at: Timestamp,
    clock: Timestamp,
}

impl Share {
    #[inline]
    const fn of(headers: &Headers) -> Self {
        Self {
            sender: headers.sender,
            octets: headers.octets,
            at: headers.timestamp,
            clock: headers.clock,
        }
    }

    #[inline]
    fn of_brief(brief: &Brief) -> Self {
        Self {
            sender: brief.sender,
            octets: u32::from(brief.octets),
            at: brief.timestamp,
            clock: brief.clock,
        }
    }
}

/// Flow table with all that keeps it in time and in bounds.
pub struct FlowStage {
    table: FlowTable,
    /// Slots of flows that began and may be embryonic still.
    embryonic: SlotBits,
    marks: expiry::Marks,
    apart: ApartSlab,
    measures: Option<Measures>,
    timeouts: Timeouts,
    eviction_hand: usize,
    counts: FlowCounts,
    /// Share of flows that shedding keeps now.
    sampling_rate: f32,
    recognises: bool,
    /// Messages of applications are taken.
    transactions: bool,
}

impl FlowStage {
    /// Makes the table; all memory is taken here.
    pub fn new(plan: &FlowPlan) -> Self {
        Self::measuring(plan, MeasureTerms::default())
    }

    /// The same, with measures that go by these times.
    pub fn measuring(plan: &FlowPlan, terms: MeasureTerms) -> Self {
        let table = FlowTable::new(plan.slots_per_worker);
        let slots = table.slots();
        Self {
            embryonic: SlotBits::new(slots),
            marks: expiry::Marks::new(slots),
            apart: ApartSlab::new(slots / APART_SHARE),
            measures: Some(Measures::new(slots, terms)),
            table,
            timeouts: Timeouts::new(plan),
            eviction_hand: 0,
            counts: FlowCounts::default(),
            sampling_rate: 1.0,
            recognises: true,
            transactions: false,
        }
    }

    /// Also takes the messages that transactions of applications are told by.
    #[must_use]
    pub fn with_transactions(mut self, transactions: bool) -> Self {
        self.transactions = transactions;
        self
    }

    /// Leaves out what is measured beside packets, octets and states, and applications.
    #[must_use]
    pub fn without_measures(mut self) -> Self {
        self.measures = None;
        (self.recognises, self.transactions) = (false, false);
        self
    }

    /// Whether it measures more than packets, octets and states.
    pub fn measures(&self) -> bool {
        self.measures.is_some()
    }

    /// The table, to look at.
    pub fn table(&self) -> &FlowTable {
        &self.table
    }

    /// Counts so far.
    pub fn counts(&self) -> FlowCounts {
        self.counts
    }

    /// Bytes of the table, with all that is kept beside it but the slabs.
    pub fn bytes(&self) -> usize {
        let measures = self.measures.as_ref().map_or(0, Measures::bytes);
        self.table.bytes() + self.embryonic.bytes() + self.marks.bytes() + measures
    }

    /// Bytes of that a flow when the table is full.
    pub fn bytes_per_flow(&self) -> usize {
        self.bytes().div_ceil(self.table.slots())
    }

    /// Bytes of the slab for flows whose directions are apart, when it is full, and how often it
    /// had no place.
    pub fn side_slab(&self) -> (usize, u64) {
        (self.apart.bytes(), self.apart.refused())
    }

    /// The same of the slabs for flows of which there is more to measure.
    pub fn measure_slabs(&self) -> (usize, u64) {
        self.measures.as_ref().map_or((0, 0), Measures::slabs)
    }

    /// The share of flows that shedding keeps from now on.
    pub fn set_sampling_rate(&mut self, rate: f32) {
        self.sampling_rate = rate;
    }

    /// Where the flow with this hash probably is; its memory is fetched. For [`FlowStage::meter`].
    #[inline]
    pub fn guess(&self, hash: u64) -> Guess {
        self.table.guess(hash)
    }

    /// Counts a logical packet on its flow in `window`, without a look at what it carries behind the
    /// octets that its headers have.
    #[inline]
    pub fn meter(
        &mut self,
        headers: &Headers,
        guess: Guess,
        verdict: Verdict,
        booking: (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        self.meter_frame((headers, &[]), guess, verdict, booking, output);
    }

    /// The same with the frame that its payload stands in.
    #[inline]
    pub fn meter_frame(
        &mut self,
        (headers, frame): (&Headers, &[u8]),
        guess: Guess,
        verdict: Verdict,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let found = self.table.find(headers, guess);
        let index = match found.filter(|&index| !self.ends_before(index, headers, output)) {
            Some(index) => {
                self.book(index, headers, (window, late), output);
                self.look_closer(index, headers, window, output);
                index
            }
            None => {
                let index = self.begin(headers, window, output);
                self.begin_first_row(index, Share::of(headers), (window, late), output);
                index
            }
        };
        self.look_behind(index, (headers, frame), verdict, window, output);
    }

    /// Where the newest row of the flow that was guessed is, if it may be of `window`.
    #[inline]
    pub fn guess_row(&self, guess: Guess, window: WindowNumber) -> Option<RowPlace> {
        let flow = self.table.guessed(guess)?;
        flow.may_be_in(window).then_some(flow.row)
    }

    /// Notes a duplicate that is not traffic on its flow, if there is one.
    pub fn note_duplicate(&mut self, headers: &Headers, guess: Guess) {
        let Some(measures) = &mut self.measures else { return };
        if let Some(index) = self.table.find(headers, guess) {
            let (_, rest) = self.table.both_mut(index);
            measures.duplicate(&mut rest.beside, headers.sender);
        }
    }

    /// Notes on its flow, if there is one, that an ICMP error quoted a packet.
    #[cold]
    pub fn note_icmp_error(&mut self, quoted: &Headers, guess: Guess) {
        let Some(measures) = &mut self.measures else { return };
        if let Some(index) = self.table.find(quoted, guess) {
            let (_, rest) = self.table.both_mut(index);
            measures.icmp_error(&mut rest.beside, quoted.sender);
        }
    }

    /// Ends flows that are over at `clock`; goes through no more than `slots_max` slots. `true` when
    /// the hand has come round.
    pub fn expire_step(
        &mut self,
        clock: Timestamp,
        slots_max: usize,
        output: &mut impl FlowOutput,
    ) -> bool {
        let used = self.table.slots_used();
        let mut slots_left = slots_max;
        // Several at a time, so that memory is fetched for all at once.
        let mut due = [FlowIndex(0); EXPIRE_AT_ONCE];
        loop {
            let mut count = 0;
            while count < EXPIRE_AT_ONCE
                && let Some(index) = self.marks.next_due(used, &mut slots_left, clock)
            {
                self.table.fetch_flow(index);
                due[count] = index;
                count += 1;
            }
            let due = &due[..count];
            for index in due {
                self.table.fetch_bucket_of(index.0 as usize);
            }
            for index in due {
                self.end_if_over(*index, clock, output);
            }
            if count < EXPIRE_AT_ONCE {
                return self.marks.ends_round(used, clock);
            }
        }
    }

    fn end_if_over(&mut self, index: FlowIndex, clock: Timestamp, output: &mut impl FlowOutput) {
        let flow = self.table.flow(index);
        if !flow.is_live() {
            return;
        }
        match self.timeouts.over(flow, clock) {
            Some(reason) => self.end(index, reason, output),
            None => self.marks.set(index, flow, &self.timeouts, clock),
        }
    }

    /// Ends all flows when nothing will come any more.
    pub fn end_all(&mut self, clock: Timestamp, output: &mut impl FlowOutput) {
        for place in 0..self.table.slots_used() {
            let index = index_of(place);
            let flow = self.table.flow(index);
            if flow.is_live() {
                let over =
                    if flow.tcp.is_over() { EndReason::EndOfFlow } else { EndReason::ForcedEnd };
                let reason = self.timeouts.over(flow, clock).unwrap_or(over);
                self.end_in_place(index, reason, output);
                self.table.flow_mut(index).end();
            }
        }
        // Flows stand in order, the buckets that they leave do not: these are emptied at once.
        self.table.clear();
    }

    /// Ends the flow that was found if this packet belongs to a new one.
    #[inline]
    fn ends_before(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        output: &mut impl FlowOutput,
    ) -> bool {
        let flow = self.table.flow(index);
        let mut reason = self.timeouts.over(flow, headers.clock);
        if reason.is_none()
            && is_tcp(headers)
            && flow.tcp != TcpState::NotTcp
            && tcp::opens_another(flow, self.table.rest(index), headers)
        {
            reason = Some(EndReason::EndOfFlow);
        }
        if let Some(reason) = reason {
            self.end(index, reason, output);
        }
        reason.is_some()
    }

    /// A flow that has seen its first packet, but has not counted it.
    #[inline(never)]
    fn begin(
        &mut self,
        headers: &Headers,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) -> FlowIndex {
        self.counts.created += 1;
        let index = self.take_slot(headers, output);
        let (initiator, method) = initiator_of(headers);
        let (flow, rest) = self.table.both_mut(index);
        *flow = Flow::begin(FlowKey::of_named(headers), headers, (initiator, method), window);
        flow.take_first_side(headers);
        if self.recognises {
            flow.listen_to_both();
        }
        *rest = Rest {
            first_seen: headers.timestamp,
            record_start: headers.timestamp,
            ..Rest::default()
        };
        self.embryonic.set(index);
        flow.events = first_events(headers, headers.sender == initiator);
        if is_tcp(headers) {
            flow.tcp = TcpState::Midstream;
            tcp::segment(flow, rest, tcp::Segment::of(headers));
        }
        self.marks.set(index, flow, &self.timeouts, headers.clock);
        note_answer(flow, headers);
        if is_tcp(headers)
            && let Some(measures) = &mut self.measures
        {
            measures.begin(index);
            measures.fetch(self.table.next_slot());
        }
        index
    }

    fn take_slot(&mut self, headers: &Headers, output: &mut impl FlowOutput) -> FlowIndex {
        loop {
            match self.table.insert(headers.hash) {
                Ok(index) => return index,
                Err(TableFull::Slots) => self.make_room(output),
                Err(TableFull::Bucket(neighbour)) => {
                    self.counts.evicted += 1;
                    self.end(neighbour, EndReason::LackOfResources, output);
                }
            }
        }
    }

    /// Adds a packet to its flow and to the flow's row of the window.
    #[inline]
    fn book(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let share = Share::of(headers);
        match self.table.flow_mut(index).shown_side(headers) {
            Shown::Same => self.add(index, share, (window, late), output),
            Shown::Answer => self.add_answer(index, (share, headers), (window, late), output),
            Shown::Other => {
                self.turn_side(index, headers, (window, late), output);
                self.count(index, share);
            }
        }
    }

    /// The same for a packet that looks like those of its sender before it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "most packets go this way and no other")]
    fn add(
        &mut self,
        index: FlowIndex,
        share: Share,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow_mut(index);
        if let Some(row) = output.open_row(flow.row, window, index)
            && row.has_room(share.sender, share.octets)
        {
            row.count(share.sender, share.octets, late);
            if flow.count(share.sender, share.octets, (share.at, share.clock)) {
                self.carry_octets(index, share.sender);
            }
        } else {
            self.begin_row(index, share, (window, late), output);
            self.count(index, share);
        }
    }

    /// The same for the first packet of its sender, between the stations that the other one's packets
    /// showed: it completes the row.
    #[inline]
    fn add_answer(
        &mut self,
        index: FlowIndex,
        (share, headers): (Share, &Headers),
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow_mut(index);
        flow.take_answer(headers);
        if let Some(row) = output.open_row(flow.row, window, index)
            && row.has_room(share.sender, share.octets)
        {
            row.complete_as(&flow.beginning(index));
            row.count(share.sender, share.octets, late);
        } else {
            self.begin_row(index, share, (window, late), output);
        }
        self.count(index, share);
    }

    #[inline]
    fn count(&mut self, index: FlowIndex, share: Share) {
        let Share { sender, octets, at, clock } = share;
        if self.table.flow_mut(index).count(sender, octets, (at, clock)) {
            self.carry_octets(index, sender);
        }
    }

    #[cold]
    fn carry_octets(&mut self, index: FlowIndex, sender: Sender) {
        let (_, rest) = self.table.both_mut(index);
        let mut above = { rest.octets_above };
        above[sender.place()] = above[sender.place()].saturating_add(1);
        rest.octets_above = above;
    }

    /// TCP state and answers.
    #[inline]
    fn look_closer(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let (flow, rest) = self.table.both_mut(index);
        let events = flow.events;
        let has_segment = flow.tcp != TcpState::NotTcp && !is_later_fragment(headers);
        if has_segment && !tcp::is_plain(flow, headers.sender, headers.tcp_flags) {
            tcp::segment(flow, rest, tcp::Segment::of(headers));
            if flow.tcp.is_over() {
                self.marks.set(index, flow, &self.timeouts, headers.clock);
            }
        }
        note_answer(flow, headers);
        if flow.events != events {
            self.tell_row(index, window, events, output);
        }
    }

    /// Applications, what is rare, and measures.
    #[inline]
    fn look_behind(
        &mut self,
        index: FlowIndex,
        (headers, frame): (&Headers, &[u8]),
        verdict: Verdict,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow_mut(index);
        let has_segment = flow.tcp != TcpState::NotTcp && !is_later_fragment(headers);
        flow.settle();
        let speaks = flow.listens_to(headers.sender)
            && headers.payload_captured_octets != 0
            && !is_later_fragment(headers);
        let counts = matches!(verdict, Verdict::First | Verdict::Ambiguous);
        if speaks {
            self.hear_and_tell(index, &Speech::of(headers, frame), (counts, window), output);
        }
        let rare = headers.marks.0 & (Marks::FRAGMENT.0 | Marks::SNAPPED.0) != 0;
        if (rare || verdict == Verdict::Duplicate)
            && let Some(measures) = &mut self.measures
        {
            let (_, rest) = self.table.both_mut(index);
            measures.packet(&mut rest.beside, headers, verdict);
        }
        if has_segment && counts {
            self.measure(index, headers, window, output);
        }
    }

    /// Writes into the row what the packet brought that is more than counts; `events` were known
    /// before it.
    fn tell_row(
        &self,
        index: FlowIndex,
        window: WindowNumber,
        events: u8,
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow(index);
        let Some(row) = output.open_row(flow.row, window, index) else { return };
        let news = flow.events & !events;
        row.events |= news;
        row.application = flow.application;
    }

    /// Begins a row with this packet: it is the first of its flow in `window`, or the row is full or
    /// sent.
    #[inline(never)]
    fn begin_row(
        &mut self,
        index: FlowIndex,
        share: Share,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        self.record_long_lived(index, share.at, output);
        let (place, row) = output.begin_row(window);
        let flow = self.table.flow_mut(index);
        flow.begin_row(index, window, row);
        row.count_first(share.sender, share.octets, late);
        (flow.row, flow.window) = (place, low_window(window));
        if flow.is_apart() {
            self.tell_ends(index, window, output);
        }
    }

    /// The same for the first row of a flow: all that was found out of it so far is told.
    fn begin_first_row(
        &mut self,
        index: FlowIndex,
        share: Share,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let (place, row) = output.begin_row(window);
        let flow = self.table.flow_mut(index);
        flow.begin_row(index, window, row);
        row.events = flow.events;
        row.count_first(share.sender, share.octets, late);
        (flow.row, flow.window) = (place, low_window(window));
        flow.count_first(share.sender, share.octets);
    }

    /// A packet that does not look like those of its sender before it: the first of its direction
    /// completes the row, another MAC or segment begins another one.
    #[inline(never)]
    fn turn_side(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let sender = headers.sender;
        let (side, known) = (Side::of(headers), self.side(index, sender));
        let changed = known.seen && known != side;
        if known != side {
            self.set_side(index, headers, known, side);
        }
        let flow = self.table.flow(index);
        if !changed
            && flow.may_be_in(window)
            && let Some(row) = output.open_row(flow.row, window, index)
            && row.has_room(sender, headers.octets)
        {
            if flow.is_apart() {
                row.complete(self.ends_apart(index), flow.tap());
            } else {
                row.complete_as(&flow.beginning(index));
            }
            row.count(sender, headers.octets, late);
        } else {
            self.begin_row(index, Share::of(headers), (window, late), output);
        }
    }

    fn side(&self, index: FlowIndex, sender: Sender) -> Side {
        let flow = self.table.flow(index);
        let apart =
            if flow.is_apart() { self.apart.get(self.table.rest(index).apart) } else { None };
        apart.map_or_else(|| flow.side(sender), |apart| apart.sides[sender.place()])
    }

    fn set_side(&mut self, index: FlowIndex, headers: &Headers, known: Side, side: Side) {
        let sender = headers.sender;
        let other = self.side(index, sender.other());
        let (flow, rest) = self.table.both_mut(index);
        if !known.seen {
            flow.set_tap(sender, headers.tap);
        }
        let header_changed = known.seen && known.layer2_header_octets != side.layer2_header_octets;
        let is_turned = !other.seen || side.answers(other);
        if !flow.is_apart() && (header_changed || !is_turned) {
            let sides = [flow.side(Sender::Low), flow.side(Sender::High)];
            let entry = Apart { sides, ..Apart::default() };
            if let Some(place) = self.apart.take(entry) {
                rest.apart = place;
                flow.set_apart();
            }
        }
        let Some(apart) = self.apart.get_mut(rest.apart).filter(|_| flow.is_apart()) else {
            flow.set_side(sender, side);
            return;
        };
        apart.sides[sender.place()] = side;
        if header_changed {
            let shorter =
                i64::from(known.layer2_header_octets) - i64::from(side.layer2_header_octets);
            apart.layer2_correction[sender.place()] +=
                shorter * i64::from(flow.packets[sender.place()]);
        }
    }

    /// Ends one flow: an embryonic one, in turn, else the longest silent one of a few.
    fn make_room(&mut self, output: &mut impl FlowOutput) {
        let mut words_max = EVICT_WORDS_MAX;
        for _ in 0..EVICT_SLOTS_MAX {
            let Some(index) = self.embryonic.take_next(&mut words_max) else { break };
            let flow = self.table.flow(index);
            if flow.is_live() && flow.is_embryonic() {
                self.counts.evicted_embryonic += 1;
                self.end(index, EndReason::LackOfResources, output);
                return;
            }
        }
        let used = self.table.slots_used().max(1);
        let silent = (0..EVICT_SLOTS_MAX)
            .map(|step| index_of((self.eviction_hand + step) % used))
            .filter(|&index| self.table.flow(index).is_live())
            .min_by_key(|&index| self.table.flow(index).heard);
        self.eviction_hand = (self.eviction_hand + EVICT_SLOTS_MAX) % used;
        if let Some(index) = silent {
            self.counts.evicted += 1;
            self.end(index, EndReason::LackOfResources, output);
        }
    }
}

fn index_of(place: usize) -> FlowIndex {
    FlowIndex(u32::try_from(place).expect("slots is a u32"))
}

/// Notes the responder's first answer.
#[inline]
fn note_answer(flow: &mut Flow, headers: &Headers) {
    if flow.events & event::ANSWERED != 0 || headers.sender == flow.initiator() {
        return;
    }
    let answer =
        if headers.tcp_flags & tcp_flag::RST == 0 { event::ANSWERED } else { event::REFUSED };
    flow.events |= answer;
}

#[cfg(test)]
mod tests;
