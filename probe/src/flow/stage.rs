//! The metering process: packets in, rows and ended flows out.
//!
//! In: headers with their verdict and window. Out: rows and ended flows, through [`FlowOutput`].
//! Cost: see `flow`; each chore goes on by a bounded number of slots a step.
//! Invariants: each booked packet is in exactly one row; a flow that ended leaves no counts behind.
//! Source: flow expiration, RFC 5470 §5.1.1.

use crate::app::{self, Application};
use crate::config::FlowPlan;
use crate::copies::Verdict;
use crate::decode::{Headers, Marks, tcp_flag};
use crate::index::{FlowIndex, Sender, WindowNumber};
use crate::memory;
use crate::spread::FlowKey;
use crate::time::Timestamp;
use crate::window::{Ends, Row, RowFacts};

use super::begin::{first_events, initiator_of, is_later_fragment, is_tcp};
use super::bits::SlotBits;
use super::expiry::{self, Timeouts};
use super::measures::Measures;
use super::output::{Biflow, EndedFlow, FlowOutput};
use super::sampling::Sampling;
use super::sides::{Apart, ApartSlab, NOWHERE, Side};
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

/// A record is made when a direction has counted so many packets.
const RECORD_PACKETS_MAX: u32 = 1 << 31;

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

    /// Notes a copy that is not traffic on its flow, if there is one.
    pub fn note_copy(&mut self, headers: &Headers, guess: Guess, verdict: Verdict) {
        let Some(measures) = &mut self.measures else { return };
        if let Some(index) = self.table.find(headers, guess) {
            measures[index.0 as usize].copy(headers.sender, verdict);
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
        if !(fits && same_side && flow.is_in(window)) {
            if fits && same_side {
                self.turn_window(index, headers.timestamp, window, output);
            } else {
                self.turn_over(index, headers, window, !fits, output);
            }
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

    fn cut_row(&mut self, index: FlowIndex, output: &mut impl FlowOutput) {
        let flow = self.table.flow(index);
        if !flow.has_window() {
            return;
        }
        let window = flow.window_number(self.newest_window);
        let row = self.row(index, window);
        let (flow, rest) = self.table.both_mut(index);
        flow.note_counted_in(window);
        fold_window(flow, rest);
        output.row(row);
    }

    fn row(&mut self, index: FlowIndex, window: WindowNumber) -> Row {
        let sampling_rate = self.sampling.of(window);
        let flow = self.table.flow(index);
        let answered_now = flow.window_events & event::SYN_ACK != 0;
        let measures = self.measures.as_ref().filter(|_| answered_now);
        let server_rtt =
            measures.and_then(|measures| measures[index.0 as usize].handshake_server_rtt_ns());
        let initiator = flow.initiator();
        let tap_of = if flow.has_seen(initiator) { initiator } else { initiator.other() };
        Row::of(&RowFacts {
            window,
            key: &flow.key,
            initiator,
            ends: self.ends(index),
            tap: flow.taps[tap_of.place()],
            application: flow.application,
            events: flow.window_events,
            counts_flow: !flow.was_counted_in(window),
            late_packets: flow.window_late_packets,
            packets: flow.window_packets,
            octets: flow.window_octets,
            handshake_server_rtt_ns: server_rtt.unwrap_or(0),
            sampling_rate,
        })
    }

    #[inline]
    fn ends(&self, index: FlowIndex) -> Ends {
        let flow = self.table.flow(index);
        if flow.is_apart() {
            let sides = [self.side(index, Sender::Low), self.side(index, Sender::High)];
            Ends::of(&sides, flow.initiator())
        } else {
            flow.ends()
        }
    }

    fn end(&mut self, index: FlowIndex, reason: EndReason, output: &mut impl FlowOutput) {
        self.cut_row(index, output);
        output.ended(self.ended(index, reason));
        self.apart.give_back(self.table.rest(index).apart);
        self.table.remove(index);
    }

    fn ended(&self, index: FlowIndex, reason: EndReason) -> EndedFlow {
        EndedFlow { flow: self.biflow(index), reason, sampling_rate: self.sampling.now() }
    }

    fn biflow(&self, index: FlowIndex) -> Biflow {
        let (flow, rest) = (self.table.flow(index), self.table.rest(index));
        let sides = [self.side(index, Sender::Low), self.side(index, Sender::High)];
        let apart = if rest.apart == NOWHERE { None } else { self.apart.get(rest.apart) };
        let correction = apart.map_or([0; 2], |apart| apart.layer2_correction);
        let (packets, octets) = ({ rest.packets }.map(u64::from), rest.octets);
        let layer2_octets = [0, 1].map(|place: usize| {
            let header = u64::from(sides[place].layer2_header_octets);
            (octets[place] + packets[place] * header).saturating_add_signed(correction[place])
        });
        let measures = self.measures.as_ref().map(|measures| &measures[index.0 as usize]);
        Biflow {
            key: flow.key,
            initiator: flow.initiator(),
            initiator_method: flow.initiator_method(),
            tcp: flow.tcp,
            tcp_control_bits: flow.tcp_control_bits,
            application: flow.application,
            sides,
            taps: flow.taps,
            first_seen: rest.first_seen,
            record_start: rest.record_start,
            last_seen: flow.last_seen,
            heard: flow.heard,
            packets,
            octets,
            layer2_octets,
            duplicates: measures.map_or([0; 2], |measures| measures.duplicates),
            fragments: measures.map_or(0, |measures| measures.fragments),
            snapped: measures.map_or(0, |measures| measures.snapped),
            handshake_server_rtt_ns: measures.and_then(Measures::handshake_server_rtt_ns),
            handshake_client_rtt_ns: measures.and_then(Measures::handshake_client_rtt_ns),
        }
    }

    /// Makes the record of a flow that goes on, if it is time.
    fn record_long_lived(
        &mut self,
        index: FlowIndex,
        now: Timestamp,
        output: &mut impl FlowOutput,
    ) {
        let rest = self.table.rest(index);
        let is_long = now.since_ns(rest.record_start) >= self.timeouts.active_ns;
        if !is_long && { rest.packets }.iter().all(|packets| *packets < RECORD_PACKETS_MAX) {
            return;
        }
        output.ended(self.ended(index, EndReason::ActiveTimeout));
        let (_, rest) = self.table.both_mut(index);
        rest.record_start = now;
        (rest.packets, rest.octets) = ([0; 2], [0; 2]);
        if let Some(apart) = self.apart.get_mut(rest.apart) {
            apart.layer2_correction = [0; 2];
        }
        if let Some(measures) = &mut self.measures {
            measures[index.0 as usize].record_made();
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

/// Counts of the open window are taken over into the record and set to 0.
fn fold_window(flow: &mut Flow, rest: &mut Rest) {
    for sender in 0..2 {
        rest.packets[sender] = { rest.packets }[sender].saturating_add(flow.window_packets[sender]);
        rest.octets[sender] += u64::from(flow.window_octets[sender]);
    }
    (flow.window_packets, flow.window_octets) = ([0; 2], [0; 2]);
    (flow.window_late_packets, flow.window_events) = (0, 0);
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
mod tests {
    use super::*;
    use crate::decode::protocol;
    use crate::spread::{HashSeed, name_flow};

    const SECOND: u64 = 1_000_000_000;

    #[derive(Default)]
    struct Records {
        rows: Vec<Row>,
        ended: Vec<EndedFlow>,
    }

    impl FlowOutput for Records {
        fn row(&mut self, row: Row) {
            self.rows.push(row);
        }
        fn ended(&mut self, flow: EndedFlow) {
            self.ended.push(flow);
        }
    }

    struct Bench {
        stage: FlowStage,
        records: Records,
    }

    impl Bench {
        fn new(slots: u32) -> Self {
            let plan = FlowPlan { slots_per_worker: slots, ..FlowPlan::default() };
            Self { stage: FlowStage::new(&plan), records: Records::default() }
        }

        fn take(&mut self, mut headers: Headers) {
            headers.clock = headers.clock.max(headers.timestamp);
            name_flow(&mut headers, HashSeed::fixed());
            let window = WindowNumber::of(headers.timestamp, SECOND);
            let guess = self.stage.guess(&headers);
            self.stage.meter(&headers, guess, Verdict::First, (window, false), &mut self.records);
        }

        fn reasons(&self) -> Vec<EndReason> {
            self.records.ended.iter().map(|ended| ended.reason).collect()
        }
    }

    fn udp(source_port: u16, at_ns: u64) -> Headers {
        Headers {
            timestamp: Timestamp(at_ns),
            protocol: protocol::UDP,
            ip_version: 4,
            source_port,
            destination_port: 5_000,
            octets: 100,
            ..Headers::default()
        }
    }

    fn tcp_segment(flags: u16, sequence: u32, at_ns: u64) -> Headers {
        Headers {
            protocol: protocol::TCP,
            tcp_flags: flags,
            tcp_sequence: sequence,
            ..udp(40_000, at_ns)
        }
    }

    #[test]
    fn each_packet_is_in_one_row_and_one_record() {
        let mut bench = Bench::new(1 << 10);
        for at in 0..10 {
            bench.take(udp(1, at * SECOND / 2));
        }
        bench.stage.end_all(Timestamp(6 * SECOND), &mut bench.records);
        let rows: u64 = bench.records.rows.iter().map(Row::packets_sum).sum();
        assert_eq!((rows, bench.records.rows.len()), (10, 5));
        let flow = &bench.records.ended[0].flow;
        assert_eq!(
            (flow.packets[0] + flow.packets[1], flow.octets.iter().sum::<u64>()),
            (10, 1_000)
        );
    }

    #[test]
    fn a_flow_past_its_timeout_ends_at_its_next_packet() {
        let mut bench = Bench::new(1 << 10);
        bench.take(udp(1, 0));
        bench.take(udp(1, 60 * SECOND));
        assert_eq!(bench.reasons(), [EndReason::IdleTimeout]);
        assert_eq!(bench.stage.table().len(), 1);
    }

    #[test]
    fn stamps_that_went_back_do_not_end_a_flow() {
        let mut bench = Bench::new(1 << 10);
        let clock = Timestamp(1_000 * SECOND);
        for at in 0..5 {
            bench.take(Headers { clock, ..udp(1, at * SECOND) });
        }
        assert_eq!((bench.reasons(), bench.stage.table().len()), (vec![], 1));
        let clock = Timestamp(1_060 * SECOND);
        bench.take(Headers { clock, ..udp(1, 5 * SECOND) });
        assert_eq!(bench.reasons(), [EndReason::IdleTimeout], "silence counts by the clock");
    }

    #[test]
    fn the_expiry_step_finds_what_is_over() {
        let mut bench = Bench::new(1 << 10);
        for port in 0..100 {
            bench.take(udp(port, 0));
        }
        let now = Timestamp(61 * SECOND);
        while !bench.stage.expire_step(now, 7, &mut bench.records) {}
        assert_eq!((bench.stage.table().len(), bench.records.ended.len()), (0, 100));
    }

    #[test]
    fn a_long_flow_gives_records_that_add_up() {
        let mut bench = Bench::new(1 << 10);
        for minute in 0..61 {
            bench.take(Headers { protocol: protocol::UDP, ..udp(1, minute * 59 * SECOND) });
        }
        bench.stage.end_all(Timestamp(61 * 59 * SECOND), &mut bench.records);
        assert_eq!(bench.reasons(), [EndReason::ActiveTimeout, EndReason::ForcedEnd]);
        let packets: u64 = bench
            .records
            .ended
            .iter()
            .map(|ended| ended.flow.packets[0] + ended.flow.packets[1])
            .sum();
        assert_eq!(packets, 61);
    }

    #[test]
    fn a_long_flow_gives_records_though_its_windows_close_by_themselves() {
        let mut bench = Bench::new(1 << 10);
        for minute in 0..61 {
            bench.take(udp(1, minute * 59 * SECOND));
            let window = WindowNumber(minute * 59);
            while !bench.stage.close_step(window, 8, &mut bench.records) {}
        }
        assert_eq!(bench.reasons(), [EndReason::ActiveTimeout]);
    }

    #[test]
    fn used_again_ports_make_another_flow() {
        let mut bench = Bench::new(1 << 10);
        bench.take(tcp_segment(tcp_flag::SYN, 10, 0));
        bench.take(tcp_segment(tcp_flag::SYN, 10, 1));
        bench.take(tcp_segment(tcp_flag::SYN, 99, 2));
        assert_eq!(bench.reasons(), [EndReason::EndOfFlow]);
    }

    #[test]
    fn embryonic_flows_leave_first() {
        let mut bench = Bench::new(1 << 8);
        bench.take(udp(9_999, 0));
        bench.take(Headers { source_port: 5_000, destination_port: 9_999, ..udp(0, 1) });
        for port in 10_000..12_000 {
            bench.take(udp(port, 2 + u64::from(port)));
        }
        let counts = bench.stage.counts();
        assert_eq!(bench.stage.table().len(), 1 << 8);
        assert_eq!((counts.evicted, counts.evicted_embryonic), (0, 2_001 - 256));
        let mut answered = udp(9_999, 0);
        name_flow(&mut answered, HashSeed::fixed());
        assert!(bench.stage.table().find(&answered, Guess::NONE).is_some());
    }

    #[test]
    fn a_row_is_cut_where_a_mac_changes() {
        let mut bench = Bench::new(1 << 8);
        for mac in [1, 1, 2] {
            let mut headers = udp(1, 0);
            headers.source_mac.0[5] = mac;
            bench.take(headers);
        }
        bench.stage.end_all(Timestamp(1), &mut bench.records);
        let packets: Vec<u64> = bench.records.rows.iter().map(Row::packets_sum).collect();
        assert_eq!(packets, [2, 1]);
        let counted = bench.records.rows.iter().filter(|row| row.counts_flow).count();
        assert_eq!(counted, 1);
    }

    #[test]
    fn the_initiator_is_found_out() {
        let cases = [
            (tcp_segment(tcp_flag::SYN, 1, 0), true),
            (tcp_segment(tcp_flag::SYN | tcp_flag::ACK, 1, 0), false),
            (Headers { source_port: 53, destination_port: 40_000, ..udp(0, 0) }, false),
            (Headers { source_port: 40_000, destination_port: 53, ..udp(0, 0) }, true),
            (udp(6_000, 0), true),
        ];
        for (headers, by_sender) in cases {
            let initiator = initiator_of(&headers).0;
            assert_eq!(initiator == Sender::Low, by_sender, "{headers:?}");
        }
    }

    fn framed(mut headers: Headers, source: u8, destination: u8) -> Headers {
        headers.marks.set(Marks::ETHERNET);
        headers.source_mac.0[5] = source;
        headers.destination_mac.0[5] = destination;
        headers
    }

    fn answer(at_ns: u64) -> Headers {
        Headers { source_port: 5_000, destination_port: 40_000, ..udp(0, at_ns) }
    }

    #[test]
    fn directions_with_addresses_of_their_own_are_one_row() {
        let mut bench = Bench::new(1 << 8);
        // A virtual router address one way, the router's own the other way.
        for round in 0..3 {
            bench.take(framed(udp(40_000, round), 1, 9));
            bench.take(framed(answer(round), 8, 1));
        }
        bench.stage.end_all(Timestamp(3), &mut bench.records);
        assert_eq!(bench.records.rows.len(), 1);
        let row = &bench.records.rows[0];
        assert_eq!((row.packets, row.source_mac.0[5], row.destination_mac.0[5]), ([3, 3], 1, 9));
        let sides = bench.records.ended[0].flow.sides.map(|side| side.source_mac.0[5]);
        assert!(sides == [1, 8] || sides == [8, 1], "{sides:?}");
    }

    #[test]
    fn a_full_side_slab_costs_rows_and_no_packet() {
        let mut bench = Bench::new(1 << 8);
        for port in 0..200 {
            bench.take(framed(Headers { destination_port: 9, ..udp(port, 0) }, 1, 9));
            bench.take(framed(
                Headers { source_port: 9, destination_port: port, ..udp(0, 0) },
                8,
                1,
            ));
        }
        bench.stage.end_all(Timestamp(1), &mut bench.records);
        assert!(bench.stage.side_slab().1 > 0);
        let packets: u64 = bench.records.rows.iter().map(Row::packets_sum).sum();
        assert_eq!(packets, 400);
    }

    #[test]
    fn layer_2_octets_follow_a_header_that_changes() {
        let mut bench = Bench::new(1 << 8);
        bench.take(framed(udp(40_000, 0), 1, 2));
        bench.take(framed(udp(40_000, 1), 1, 2));
        bench.take(udp(40_000, 2));
        bench.stage.end_all(Timestamp(3), &mut bench.records);
        let rows: u64 = bench.records.rows.iter().map(|row| row.layer2_octets[0]).sum();
        let record = bench.records.ended[0].flow.layer2_octets.iter().sum::<u64>();
        assert_eq!((rows, record), (328, 328));
    }

    #[test]
    fn counts_of_a_window_that_would_not_fit_are_cut_before() {
        let mut bench = Bench::new(1 << 8);
        for at in 0..3 {
            bench.take(Headers { octets: u32::MAX - 1, ..udp(40_000, at) });
        }
        bench.stage.end_all(Timestamp(3), &mut bench.records);
        let octets: u64 = bench.records.rows.iter().map(|row| row.octets[0]).sum();
        assert_eq!((octets, bench.records.rows.len()), (3 * u64::from(u32::MAX - 1), 3));
        assert_eq!(bench.records.rows.iter().filter(|row| row.counts_flow).count(), 1);
        assert_eq!(bench.records.ended[0].flow.octets.iter().sum::<u64>(), octets);
    }

    #[test]
    fn a_flow_stays_small() {
        let plan = FlowPlan { slots_per_worker: 1 << 16, ..FlowPlan::default() };
        let (all, flow) = (FlowStage::new(&plan), FlowStage::new(&plan).without_measures());
        assert!(flow.bytes_per_flow() <= 192, "{}", flow.bytes_per_flow());
        assert!(all.bytes_per_flow() <= 320, "{}", all.bytes_per_flow());
    }

    #[test]
    fn rows_are_seen_from_the_initiator() {
        let mut bench = Bench::new(1 << 8);
        bench.take(Headers { source_port: 53, destination_port: 40_000, ..udp(0, 0) });
        bench.take(Headers { source_port: 40_000, destination_port: 53, octets: 70, ..udp(0, 1) });
        bench.stage.end_all(Timestamp(2), &mut bench.records);
        let row = &bench.records.rows[0];
        assert_eq!((row.packets, row.octets, row.destination_port), ([1, 1], [70, 100], 53));
    }
}
