//! The metering process: packets in, rows and ended flows out.
//!
//! In: headers with their verdict and window. Out: rows and ended flows, through [`FlowOutput`].
//! Cost: see `flow`; each chore goes on by a bounded number of slots a step.
//! Invariants: each booked packet is in exactly one row; a flow that ended leaves no counts behind.
//! Source: flow expiration, RFC 5470 §5.1.1.

mod cut;

use crate::app::{self, Application};
use crate::config::FlowPlan;
use crate::copies::Verdict;
use crate::decode::{Headers, Marks, tcp_flag};
use crate::index::{FlowIndex, Sender, WindowNumber};
use crate::memory;
use crate::spread::FlowKey;
use crate::time::Timestamp;

use super::begin::{first_events, initiator_of, is_later_fragment, is_tcp};
use super::bits::SlotBits;
use super::expiry::{self, Timeouts};
use super::measures::Measures;
use super::output::FlowOutput;
use super::sampling::Sampling;
use super::sides::{Apart, ApartSlab, Side};
use super::state::{Flow, Rest, low};
use super::table::Guess;
use super::touched::Touched;
use super::{EndReason, FlowTable, TableFull, TcpState, event, tcp};

/// Slots that are looked at to find an embryonic flow, and then to find the longest silent one.
const EVICT_SLOTS_MAX: usize = 32;

/// Words of bits that a search for room looks at.
const EVICT_WORDS_MAX: usize = 256;

/// Words of bits that a step of closing looks at.
const CLOSE_WORDS_MAX: usize = 256;

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

/// Flow table with all that keeps it in time and in bounds.
pub struct FlowStage {
    table: FlowTable,
    touched: Touched,
    /// Slots of flows that began and may be embryonic still.
    embryonic: SlotBits,
    marks: expiry::Marks,
    apart: ApartSlab,
    measures: Option<Box<[Measures]>>,
    timeouts: Timeouts,
    eviction_hand: usize,
    counts: FlowCounts,
    sampling: Sampling,
    newest_window: WindowNumber,
    recognises: bool,
}

impl FlowStage {
    /// Makes the table; all memory is taken here.
    pub fn new(plan: &FlowPlan) -> Self {
        let table = FlowTable::new(plan.slots_per_worker);
        let slots = table.slots();
        Self {
            touched: Touched::new(slots),
            embryonic: SlotBits::new(slots),
            marks: expiry::Marks::new(slots),
            apart: ApartSlab::new(slots / APART_SHARE),
            measures: Some(memory::table(slots, Measures::default())),
            table,
            timeouts: Timeouts::new(plan),
            eviction_hand: 0,
            counts: FlowCounts::default(),
            sampling: Sampling::new(),
            newest_window: WindowNumber(0),
            recognises: true,
        }
    }

    /// Leaves out what is measured beside packets, octets and states, and applications.
    #[must_use]
    pub fn without_measures(mut self) -> Self {
        self.measures = None;
        self.recognises = false;
        self
    }

    /// The table, to look at.
    pub fn table(&self) -> &FlowTable {
        &self.table
    }

    /// Counts so far.
    pub fn counts(&self) -> FlowCounts {
        self.counts
    }

    /// Bytes of memory a flow when the table is full, with all that is kept beside it but the side
    /// slab.
    pub fn bytes_per_flow(&self) -> usize {
        let measures = self.measures.as_ref().map_or(0, |measures| size_of_val(&**measures));
        let bits = self.touched.bytes() + self.embryonic.bytes() + self.marks.bytes();
        (self.table.bytes() + bits + measures).div_ceil(self.table.slots())
    }

    /// Bytes of the slab for flows whose directions are apart, when it is full, and how often it
    /// had no place.
    pub fn side_slab(&self) -> (usize, u64) {
        (self.apart.bytes(), self.apart.refused())
    }

    /// The share of flows that shedding keeps from now on.
    pub fn set_sampling_rate(&mut self, rate: f32) {
        self.sampling.set(rate, self.newest_window);
    }

    /// Where the packet's flow probably is; its memory is fetched. For [`FlowStage::meter`].
    #[inline]
    pub fn guess(&self, headers: &Headers) -> Guess {
        self.table.guess(headers.hash)
    }

    /// Counts a logical packet on its flow in `window`.
    #[inline]
    pub fn meter(
        &mut self,
        headers: &Headers,
        guess: Guess,
        verdict: Verdict,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) {
        if window > self.newest_window {
            self.newest_window = window;
            self.sampling.begin(window);
        }
        let found = self.table.find(headers, guess);
        let index = match found.filter(|&index| !self.ends_before(index, headers, output)) {
            Some(index) => index,
            None => self.begin(headers, window, output),
        };
        self.book(index, headers, window, late, output);
        self.look_closer(index, headers, verdict);
    }

    /// Notes a duplicate that is not traffic on its flow, if there is one.
    pub fn note_duplicate(&mut self, headers: &Headers, guess: Guess) {
        let Some(measures) = &mut self.measures else { return };
        if let Some(index) = self.table.find(headers, guess) {
            measures[index.0 as usize].duplicate(headers.sender);
        }
    }

    /// Cuts the rows of flows in a window that is closing, at most `flows_max`; `true` when no
    /// flow is left.
    pub fn close_step(
        &mut self,
        window: WindowNumber,
        flows_max: usize,
        output: &mut impl FlowOutput,
    ) -> bool {
        let mut words_max = if flows_max == usize::MAX { flows_max } else { CLOSE_WORDS_MAX };
        for _ in 0..flows_max {
            let Some(index) = self.touched.take(window, &mut words_max) else {
                return self.touched.is_closed(window);
            };
            let flow = self.table.flow(index);
            if flow.is_live() && flow.is_in(window) {
                self.cut_row(index, output);
            }
        }
        false
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
        while let Some(index) = self.marks.next_due(used, &mut slots_left, clock) {
            let flow = self.table.flow(index);
            if !flow.is_live() {
                continue;
            }
            match self.timeouts.over(flow, clock) {
                Some(reason) => self.end(index, reason, output),
                None => self.marks.set(index, flow, &self.timeouts, clock),
            }
        }
        self.marks.ends_round(used, clock)
    }

    /// Ends all flows when nothing will come any more.
    pub fn end_all(&mut self, clock: Timestamp, output: &mut impl FlowOutput) {
        for place in 0..self.table.slots_used() {
            let index = index_of(place);
            let flow = self.table.flow(index);
            if flow.is_live() {
                let over =
                    if flow.tcp.is_over() { EndReason::EndOfFlow } else { EndReason::ForcedEnd };
                self.end(index, self.timeouts.over(flow, clock).unwrap_or(over), output);
            }
        }
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
        let key = FlowKey::of(headers).0;
        let (flow, rest) = self.table.both_mut(index);
        *flow = Flow::begin(key, headers, (initiator, method), window);
        flow.tcp = if is_tcp(headers) { TcpState::Midstream } else { TcpState::NotTcp };
        flow.events = first_events(headers, headers.sender == initiator);
        flow.window_events = flow.events;
        *rest = Rest {
            first_seen: headers.timestamp,
            record_start: headers.timestamp,
            ..Rest::default()
        };
        self.marks.set(index, flow, &self.timeouts, headers.clock);
        self.embryonic.set(index);
        if let Some(measures) = &mut self.measures {
            measures[index.0 as usize] = Measures::default();
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

    /// Adds a packet to the window's counts of its flow.
    #[inline]
    fn book(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        window: WindowNumber,
        late: bool,
        output: &mut impl FlowOutput,
    ) {
        let sender = headers.sender.place();
        let flow = self.table.flow_mut(index);
        let fits = flow.window_octets[sender].checked_add(headers.octets).is_some();
        let same_side = flow.shows_same_side(headers);
        if !(fits && same_side) {
            self.turn_over(index, headers, window, !fits, output);
        } else if !flow.is_in(window) {
            self.turn_window(index, headers.timestamp, window, output);
        }
        let flow = self.table.flow_mut(index);
        flow.last_seen = flow.last_seen.max(headers.timestamp);
        flow.heard = flow.heard.max(headers.clock);
        flow.window_packets[sender] += 1;
        flow.window_octets[sender] += headers.octets;
        flow.window_late_packets += u32::from(late);
    }

    /// TCP state, answers, applications and what is rare.
    #[inline]
    fn look_closer(&mut self, index: FlowIndex, headers: &Headers, verdict: Verdict) {
        let flow = self.table.flow_mut(index);
        let has_segment = flow.tcp != TcpState::NotTcp && !is_later_fragment(headers);
        if has_segment && !tcp::is_plain(flow, headers) {
            self.segment(index, headers);
        }
        let flow = self.table.flow_mut(index);
        note_answer(flow, headers);
        if self.recognises {
            recognise(flow, headers);
        }
        let rare = headers.marks.0 & (Marks::FRAGMENT.0 | Marks::SNAPPED.0) != 0;
        if (rare || verdict == Verdict::Duplicate)
            && let Some(measures) = &mut self.measures
        {
            measures[index.0 as usize].packet(headers, verdict);
        }
    }

    /// A segment of a handshake or an ending.
    #[inline(never)]
    fn segment(&mut self, index: FlowIndex, headers: &Headers) {
        let (flow, rest) = self.table.both_mut(index);
        let measures = self.measures.as_mut().map(|measures| &mut measures[index.0 as usize]);
        tcp::segment(flow, rest, measures, headers);
        if flow.tcp.is_over() {
            self.marks.set(index, flow, &self.timeouts, headers.clock);
        }
    }

    /// Before a packet that is the first of its flow in `window` and else goes on with its flow.
    fn turn_window(
        &mut self,
        index: FlowIndex,
        now: Timestamp,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        if self.table.flow(index).has_window() {
            self.cut_row(index, output);
        }
        self.record_long_lived(index, now, output);
        self.table.flow_mut(index).window = low(window.0);
        self.touched.set(window, index);
    }

    /// Before a packet that does not simply go on with its flow's window: the row so far is cut where
    /// the window or the side changed or the counts are full, and `window` is opened.
    #[inline(never)]
    fn turn_over(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        window: WindowNumber,
        is_full: bool,
        output: &mut impl FlowOutput,
    ) {
        let side = Side::of(headers);
        let known = self.side(index, headers.sender);
        let changed = known.seen && known != side;
        let flow = self.table.flow(index);
        if flow.has_window() && (changed || is_full || !flow.is_in(window)) {
            self.cut_row(index, output);
        }
        if !self.table.flow(index).has_window() {
            self.record_long_lived(index, headers.timestamp, output);
        }
        if known != side {
            self.set_side(index, headers, known, side);
        }
        let flow = self.table.flow_mut(index);
        if !flow.has_window() {
            flow.window = low(window.0);
            self.touched.set(window, index);
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
            flow.taps[sender.place()] = headers.tap;
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
                shorter * i64::from({ rest.packets }[sender.place()]);
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
    if headers.tcp_flags & tcp_flag::RST == 0 {
        tcp::raise(flow, event::ANSWERED);
    } else if flow.events & event::REFUSED == 0 {
        tcp::raise(flow, event::REFUSED);
    }
}

/// Looks for the application in the first packets with payload.
#[inline]
fn recognise(flow: &mut Flow, headers: &Headers) {
    let looked_at = flow.looked_at_packets();
    if flow.application != Application::Unknown
        || looked_at >= app::PACKETS_MAX
        || headers.payload_captured_octets == 0
        || is_later_fragment(headers)
    {
        return;
    }
    flow.note_looked_at();
    flow.application = app::classify(headers);
}

#[cfg(test)]
mod tests;
