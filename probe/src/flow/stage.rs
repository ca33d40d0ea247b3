//! The metering process: packets in, rows and ended flows out.
//!
//! In: headers with their verdict and window. Out: rows and ended flows, through [`FlowOutput`].
//! Cost: see `flow`; each chore goes on by a bounded number of slots a step.
//! Invariants: each booked packet is in exactly one row; a flow that ended leaves no counts behind.
//! Source: flow expiration, RFC 5470 §5.1.1.

mod cut;
mod hear;
mod known;
mod measured;
mod noted;
mod recut;
mod settled;

pub use measured::{MeasureTerms, Plain};
pub use noted::{Left, More};

use crate::app::Speech;
use crate::config::FlowPlan;
use crate::copies::Verdict;
use crate::decode::{Brief, Headers, Marks, tcp_flag};
use crate::index::{FlowIndex, Sender, TapIndex, WindowNumber};
use crate::time::Timestamp;
use crate::window::RowPlace;

use super::begin::{first_events, initiator_of};
use super::bits::SlotBits;
use super::expiry::{self, Timeouts};
use super::output::FlowOutput;
use super::packet::Packet;
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
    fn of(packet: &impl Packet) -> Self {
        let (at, clock) = packet.times();
        Self { sender: packet.sender(), octets: packet.octets(), at, clock }
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
        let index = self.meter_packet(headers, guess, (window, late), output);
        self.look_behind(index, (headers, frame), verdict, window, output);
    }

    /// Counts a packet on its flow, and in the flow's row.
    #[inline]
    fn meter_packet(
        &mut self,
        packet: &impl Packet,
        guess: Guess,
        booking: (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) -> FlowIndex {
        let found = self.table.find(packet, guess);
        if let Some(index) = found.filter(|&index| !self.ends_before(index, packet, output)) {
            self.book(index, packet, booking, output);
            return index;
        }
        self.begin(packet, booking, output)
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
        packet: &impl Packet,
        output: &mut impl FlowOutput,
    ) -> bool {
        let flow = self.table.flow(index);
        let (_, clock) = packet.times();
        let mut reason = self.timeouts.over(flow, clock);
        if reason.is_none()
            && packet.is_tcp()
            && flow.tcp != TcpState::NotTcp
            && tcp::opens_another(flow, self.table.rest(index), packet)
        {
            reason = Some(EndReason::EndOfFlow);
        }
        if let Some(reason) = reason {
            self.end(index, reason, output);
        }
        reason.is_some()
    }

    /// A flow that its first packet begins, with its row.
    #[inline(never)]
    fn begin(
        &mut self,
        packet: &impl Packet,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) -> FlowIndex {
        self.counts.created += 1;
        let index = self.take_slot(packet.hash(), output);
        let (initiator, method) = initiator_of(packet);
        let (at, clock) = packet.times();
        let (flow, rest) = self.table.both_mut(index);
        flow.begin(packet, (initiator, method), window);
        if self.recognises {
            flow.listen_to_both();
        }
        *rest = Rest { first_seen: at, record_start: at, ..Rest::default() };
        self.embryonic.set(index);
        flow.events = first_events(packet, packet.sender() == initiator);
        if packet.is_tcp() {
            flow.tcp = TcpState::Midstream;
            tcp::segment(flow, rest, tcp::Segment::of(packet));
        }
        self.marks.set(index, flow, &self.timeouts, clock);
        note_answer(flow, packet);
        // All that was found out of it so far is told.
        let (place, row) = output.begin_row(window);
        flow.begin_row(index, window, row);
        row.events = flow.events;
        row.count_first(packet.sender(), packet.octets(), late);
        (flow.row, flow.window) = (place, low_window(window));
        flow.count_first(packet.sender(), packet.octets());
        if packet.is_tcp()
            && let Some(measures) = &mut self.measures
        {
            measures.begin(index);
            measures.fetch(self.table.next_slot());
        }
        index
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "called once, where a flow begins")]
    fn take_slot(&mut self, hash: u64, output: &mut impl FlowOutput) -> FlowIndex {
        loop {
            match self.table.insert(hash) {
                Ok(index) => return index,
                Err(TableFull::Slots) => self.make_room(output),
                Err(TableFull::Bucket(neighbour)) => {
                    self.counts.evicted += 1;
                    self.end(neighbour, EndReason::LackOfResources, output);
                }
            }
        }
    }

    /// Adds a packet to its flow and to the flow's row of the window, and tells what it brought that is
    /// more than counts.
    #[inline]
    fn book(
        &mut self,
        index: FlowIndex,
        packet: &impl Packet,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let Share { sender, octets, at, clock } = Share::of(packet);
        let (flow, rest) = self.table.both_mut(index);
        let shown = flow.shown_side(packet);
        let keeps_row = shown != Shown::Other && flow.may_be_in(window);
        let row = if keeps_row { output.open_row(flow.row, window, index) } else { None };
        let Some(row) = row.filter(|row| row.has_room(sender, octets)) else {
            self.book_anew(index, (packet, shown), (window, late), output);
            return;
        };
        if shown == Shown::Answer {
            // It completes the row.
            flow.take_answer(packet);
            row.take_answer(&flow.beginning(index));
        }
        row.count(sender, octets, late);
        let went_round = flow.count(sender, octets, (at, clock));
        let news = take_segment(flow, rest, packet);
        if news.is_over {
            self.marks.set(index, flow, &self.timeouts, clock);
        }
        row.tell(news.events, flow.application);
        if went_round {
            self.carry_octets(index, sender);
        }
    }

    /// The same where another row may be begun.
    #[inline(never)]
    fn book_anew(
        &mut self,
        index: FlowIndex,
        (packet, shown): (&impl Packet, Shown),
        booking: (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let share = Share::of(packet);
        match shown {
            Shown::Same => self.begin_row(index, share, booking, output),
            Shown::Answer => {
                self.table.flow_mut(index).take_answer(packet);
                self.begin_row(index, share, booking, output);
            }
            Shown::Other => self.turn_side(index, packet, booking, output),
        }
        self.count(index, share);
        let (flow, rest) = self.table.both_mut(index);
        let news = take_segment(flow, rest, packet);
        if news.is_over {
            self.marks.set(index, flow, &self.timeouts, share.clock);
        }
        if let Some(row) = output.open_row(flow.row, booking.0, index) {
            row.tell(news.events, flow.application);
        }
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
        let has_segment = flow.tcp != TcpState::NotTcp && !headers.is_later_fragment();
        flow.settle();
        let speaks = flow.listens_to(headers.sender)
            && headers.payload_captured_octets != 0
            && !headers.is_later_fragment();
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

    /// A packet that does not look like those of its sender before it: the first of its direction
    /// completes the row, another MAC or segment begins another one.
    #[inline(never)]
    fn turn_side(
        &mut self,
        index: FlowIndex,
        packet: &impl Packet,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        let (sender, octets) = (packet.sender(), packet.octets());
        let (side, known) = (Side::of(packet), self.side(index, sender));
        let changed = known.seen && known != side;
        if known != side {
            self.set_side(index, (sender, packet.tap()), known, side);
        }
        let flow = self.table.flow(index);
        if !changed
            && flow.may_be_in(window)
            && let Some(row) = output.open_row(flow.row, window, index)
            && row.has_room(sender, octets)
        {
            if flow.is_apart() {
                row.complete(self.ends_apart(index), flow.tap());
            } else {
                row.complete_as(&flow.beginning(index));
            }
            row.count(sender, octets, late);
        } else {
            self.begin_row(index, Share::of(packet), (window, late), output);
        }
    }

    fn side(&self, index: FlowIndex, sender: Sender) -> Side {
        let flow = self.table.flow(index);
        let apart =
            if flow.is_apart() { self.apart.get(self.table.rest(index).apart) } else { None };
        apart.map_or_else(|| flow.side(sender), |apart| apart.sides[sender.place()])
    }

    fn set_side(
        &mut self,
        index: FlowIndex,
        (sender, tap): (Sender, TapIndex),
        known: Side,
        side: Side,
    ) {
        let other = self.side(index, sender.other());
        let (flow, rest) = self.table.both_mut(index);
        if !known.seen {
            flow.set_tap(sender, tap);
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

/// What a packet brought that is more than counts.
struct News {
    /// Events that the flow has since then.
    events: u8,
    /// Its connection is over.
    is_over: bool,
}

/// TCP state and answers.
#[inline(always)]
#[expect(clippy::inline_always, reason = "flow and packet are in registers where it is called")]
fn take_segment(flow: &mut Flow, rest: &mut Rest, packet: &impl Packet) -> News {
    let events = flow.events;
    let has_segment = flow.tcp != TcpState::NotTcp && !packet.is_later_fragment();
    let changes = has_segment && !tcp::is_plain(flow, packet.sender(), packet.tcp_flags());
    if changes {
        tcp::segment(flow, rest, tcp::Segment::of(packet));
    }
    note_answer(flow, packet);
    News { events: flow.events & !events, is_over: changes && flow.tcp.is_over() }
}

/// Notes the responder's first answer.
#[inline]
fn note_answer(flow: &mut Flow, packet: &impl Packet) {
    if flow.events & event::ANSWERED != 0 || packet.sender() == flow.initiator() {
        return;
    }
    let is_reset = u16::from(packet.tcp_flags()) & tcp_flag::RST != 0;
    flow.events |= if is_reset { event::REFUSED } else { event::ANSWERED };
}

#[cfg(test)]
mod brief_tests;
#[cfg(test)]
mod tests;
