//! The metering process: packets in, rows and ended flows out.
//!
//! In: headers with their verdict and window. Out: rows and ended flows, through [`FlowOutput`].
//! Cost: see `flow`; expiry looks at no more than the given number of slots a step.
//! Invariants: each booked packet is in exactly one row; a flow that ended leaves no counts behind.
//! Source: flow expiration, RFC 5470 §5.1.1.

use std::collections::VecDeque;

use crate::app::{self, Application};
use crate::config::FlowPlan;
use crate::copies::Verdict;
use crate::decode::{Headers, Marks, protocol, tcp_flag};
use crate::index::{FlowIndex, TapIndex, WindowNumber};
use crate::spread::{FlowKey, Sender};
use crate::time::{Timestamp, ms};
use crate::window::{Row, Touched};

use super::{
    EndReason, EndedFlow, Flow, FlowTable, InitiatorMethod, Side, TableFull, TcpState, event, tcp,
};

/// Slots that are looked at to find room when no embryonic flow is left.
const EVICT_SLOTS_MAX: usize = 32;

/// Where rows and ended flows go.
pub trait FlowOutput {
    /// Takes a row.
    fn row(&mut self, row: Row);
    /// Takes a flow for which a record is due.
    fn ended(&mut self, flow: EndedFlow);
}

/// Timeouts in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct FlowTimeouts {
    idle_tcp_ns: u64,
    idle_other_ns: u64,
    closed_ns: u64,
    active_ns: u64,
}

impl FlowTimeouts {
    /// From the plan.
    pub fn new(plan: &FlowPlan) -> Self {
        let ns = |milliseconds: u32| ms(u64::from(milliseconds));
        Self {
            idle_tcp_ns: ns(plan.idle_tcp_ms),
            idle_other_ns: ns(plan.idle_other_ms),
            closed_ns: ns(plan.closed_ms),
            active_ns: ns(plan.active_ms),
        }
    }

    /// Whether the flow is over at `clock`, and why.
    #[inline]
    fn over(&self, flow: &Flow, clock: Timestamp) -> Option<EndReason> {
        let silent_ns = clock.since_ns(flow.heard);
        let (timeout_ns, reason) = match flow.tcp {
            TcpState::Closed | TcpState::Reset => (self.closed_ns, EndReason::EndOfFlow),
            TcpState::Established | TcpState::HalfClosed => {
                (self.idle_tcp_ns, EndReason::IdleTimeout)
            }
            _ => (self.idle_other_ns, EndReason::IdleTimeout),
        };
        (silent_ns >= timeout_ns).then_some(reason)
    }
}

/// What happened to flows so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Flows begun.
    pub created: u64,
    /// Flows that left because their slot was needed, before any answer.
    pub evicted_embryonic: u64,
    /// The same, others.
    pub evicted: u64,
    /// Packets of duplicates and other copies for which no flow was known.
    pub copies_without_flow: u64,
}

/// Flow table with all that keeps it in time and in bounds.
pub struct FlowStage {
    table: FlowTable,
    touched: Touched,
    timeouts: FlowTimeouts,
    embryonic: VecDeque<(FlowIndex, u32)>,
    expiry_hand: usize,
    eviction_hand: usize,
    births: u32,
    counts: FlowCounts,
    /// Share of flows kept, written into rows.
    pub sampling_rate: f32,
    /// Whether applications are looked for.
    pub recognises: bool,
}

impl FlowStage {
    /// Makes the table; all memory is reserved here.
    pub fn new(plan: &FlowPlan) -> Self {
        let table = FlowTable::new(plan.slots_per_worker);
        let slots = table.slots();
        Self {
            touched: Touched::new(slots),
            embryonic: VecDeque::with_capacity(2 * slots),
            table,
            timeouts: FlowTimeouts::new(plan),
            expiry_hand: 0,
            eviction_hand: 0,
            births: 0,
            counts: FlowCounts::default(),
            sampling_rate: 1.0,
            recognises: true,
        }
    }

    /// The table, to look at.
    pub fn table(&self) -> &FlowTable {
        &self.table
    }

    /// Counts so far.
    pub fn counts(&self) -> FlowCounts {
        self.counts
    }

    /// Counts a logical packet on its flow in `window`.
    #[inline]
    pub fn meter(
        &mut self,
        headers: &Headers,
        verdict: Verdict,
        (window, late): (WindowNumber, bool),
        output: &mut impl FlowOutput,
    ) -> FlowIndex {
        let (key, sender) = FlowKey::of(headers);
        let found = self.table.find(&key, headers.hash);
        let index = match found.filter(|&index| !self.ends_before(index, headers, sender, output)) {
            Some(index) => index,
            None => self.begin(key, sender, headers, output),
        };
        self.book(index, headers, sender, window, late, output);
        let flow = self.table.flow_mut(index);
        if verdict == Verdict::Duplicate {
            flow.duplicates[sender.place()] = flow.duplicates[sender.place()].saturating_add(1);
        }
        index
    }

    /// Notes a copy that is not traffic on its flow, if there is one.
    pub fn note_copy(&mut self, headers: &Headers, verdict: Verdict) {
        let (key, sender) = FlowKey::of(headers);
        let Some(index) = self.table.find(&key, headers.hash) else {
            self.counts.copies_without_flow += 1;
            return;
        };
        let flow = self.table.flow_mut(index);
        match verdict {
            Verdict::Duplicate => {
                flow.duplicates[sender.place()] = flow.duplicates[sender.place()].saturating_add(1);
            }
            _ => flow.copies_other_tap = flow.copies_other_tap.saturating_add(1),
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
        for _ in 0..flows_max {
            let Some(index) = self.touched.pop(window) else { return true };
            if self.table.flow(index).window == Some(window) {
                self.cut_row(index, output);
            }
        }
        false
    }

    /// Ends flows that are over at `clock`; looks at no more than `slots_max` slots. `true` when
    /// the hand has come round.
    pub fn expire_step(
        &mut self,
        clock: Timestamp,
        slots_max: usize,
        output: &mut impl FlowOutput,
    ) -> bool {
        let used = self.table.slots_used();
        let end = (self.expiry_hand + slots_max).min(used);
        for place in self.expiry_hand..end {
            let index = index_of(place);
            let flow = self.table.flow(index);
            if !flow.live {
                continue;
            }
            if let Some(reason) = self.timeouts.over(flow, clock) {
                self.end(index, reason, output);
            }
        }
        self.expiry_hand = if end == used { 0 } else { end };
        self.expiry_hand == 0
    }

    /// Ends all flows when nothing will come any more.
    pub fn end_all(&mut self, clock: Timestamp, output: &mut impl FlowOutput) {
        for place in 0..self.table.slots_used() {
            let index = index_of(place);
            let flow = self.table.flow(index);
            if flow.live {
                let over = if flow.tcp.is_over() { EndReason::EndOfFlow } else { EndReason::ForcedEnd };
                self.end(index, self.timeouts.over(flow, clock).unwrap_or(over), output);
            }
        }
    }

    /// Ends the flow that was found if this packet belongs to a new one; makes the record of a
    /// long-lived one that goes on.
    fn ends_before(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        sender: Sender,
        output: &mut impl FlowOutput,
    ) -> bool {
        let flow = self.table.flow(index);
        if let Some(reason) = self.timeouts.over(flow, headers.clock) {
            self.end(index, reason, output);
            return true;
        }
        let has_tcp_header = flow.tcp != TcpState::NotTcp && !is_later_fragment(headers);
        if has_tcp_header && tcp::opens_another(flow, headers, sender) {
            self.end(index, EndReason::EndOfFlow, output);
            return true;
        }
        if headers.timestamp.since_ns(flow.record_start) >= self.timeouts.active_ns {
            self.record_active(index, headers.timestamp, output);
        }
        false
    }

    fn begin(
        &mut self,
        key: FlowKey,
        sender: Sender,
        headers: &Headers,
        output: &mut impl FlowOutput,
    ) -> FlowIndex {
        self.counts.created += 1;
        self.births = self.births.wrapping_add(1);
        let (initiator, initiator_method) = initiator_of(headers, sender);
        let flow = Flow {
            key,
            hash: headers.hash,
            last_seen: headers.timestamp,
            heard: headers.clock,
            first_seen: headers.timestamp,
            record_start: headers.timestamp,
            born: self.births,
            live: true,
            initiator,
            initiator_method,
            tcp: if is_tcp(headers) { TcpState::Midstream } else { TcpState::NotTcp },
            events: first_events(headers, sender == initiator),
            window_events: first_events(headers, sender == initiator),
            ..Flow::default()
        };
        let index = loop {
            match self.table.insert(flow) {
                Ok(index) => break index,
                Err(TableFull::Slots) => self.make_room(output),
                Err(TableFull::Bucket(neighbour)) => {
                    self.counts.evicted += 1;
                    self.end(neighbour, EndReason::LackOfResources, output);
                }
            }
        };
        self.note_embryonic(index);
        index
    }

    /// Adds a packet to the window's counts of its flow.
    #[inline]
    fn book(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        sender: Sender,
        window: WindowNumber,
        late: bool,
        output: &mut impl FlowOutput,
    ) {
        let side = side_of(headers);
        let flow = self.table.flow(index);
        let known = flow.sides[sender.place()];
        if flow.window != Some(window) || known != side {
            if flow.window.is_some() && (flow.window != Some(window) || known.seen) {
                self.cut_row(index, output);
            }
            self.open_window(index, window, sender, (side, headers.tap), output);
        }
        let flow = self.table.flow_mut(index);
        flow.last_seen = flow.last_seen.max(headers.timestamp);
        flow.heard = flow.heard.max(headers.clock);
        flow.window_packets[sender.place()] += 1;
        flow.window_octets[sender.place()] += u64::from(headers.octets);
        flow.window_late_packets += u32::from(late);
        if flow.tcp != TcpState::NotTcp && !is_later_fragment(headers) {
            tcp::segment(flow, headers, sender);
        }
        note_answer(flow, headers, sender);
        note_rare(flow, headers);
        if self.recognises {
            recognise(flow, headers);
        }
    }

    /// Makes `window` the one that the flow counts in. The list of the window is told, and if it
    /// is full the oldest flow in it has its row cut now.
    fn open_window(
        &mut self,
        index: FlowIndex,
        window: WindowNumber,
        sender: Sender,
        (side, tap): (Side, TapIndex),
        output: &mut impl FlowOutput,
    ) {
        let flow = self.table.flow_mut(index);
        if !flow.sides[sender.place()].seen {
            flow.taps[sender.place()] = tap;
        }
        flow.sides[sender.place()] = side;
        if flow.window == Some(window) {
            return;
        }
        flow.window = Some(window);
        if let Some(displaced) = self.touched.push(window, index)
            && displaced != index
            && self.table.flow(displaced).window == Some(window)
        {
            self.cut_row(displaced, output);
        }
    }

    fn cut_row(&mut self, index: FlowIndex, output: &mut impl FlowOutput) {
        let flow = self.table.flow_mut(index);
        if let Some(row) = Row::of(flow, self.sampling_rate) {
            flow.counted_window = Some(row.window);
            flow.fold_window();
            output.row(row);
        }
    }

    fn end(&mut self, index: FlowIndex, reason: EndReason, output: &mut impl FlowOutput) {
        self.cut_row(index, output);
        let flow = *self.table.flow(index);
        self.table.remove(index);
        output.ended(EndedFlow { flow, reason, sampling_rate: self.sampling_rate });
    }

    fn record_active(
        &mut self,
        index: FlowIndex,
        restart: Timestamp,
        output: &mut impl FlowOutput,
    ) {
        self.cut_row(index, output);
        let sampling_rate = self.sampling_rate;
        let flow = self.table.flow_mut(index);
        output.ended(EndedFlow { flow: *flow, reason: EndReason::ActiveTimeout, sampling_rate });
        flow.record_start = restart;
        (flow.packets, flow.octets, flow.layer2_octets) = ([0; 2], [0; 2], [0; 2]);
        (flow.duplicates, flow.copies_other_tap) = ([0; 2], 0);
        (flow.fragments, flow.snapped) = (0, 0);
        (flow.handshake_server_rtt_ns, flow.handshake_client_rtt_ns) = (None, None);
    }

    /// Ends one flow: the oldest embryonic one, else the longest silent one of a few.
    fn make_room(&mut self, output: &mut impl FlowOutput) {
        while let Some((index, born)) = self.embryonic.pop_front() {
            if self.table.same(index, born).is_some_and(Flow::is_embryonic) {
                self.counts.evicted_embryonic += 1;
                self.end(index, EndReason::LackOfResources, output);
                return;
            }
        }
        let used = self.table.slots_used().max(1);
        let silent = (0..EVICT_SLOTS_MAX)
            .map(|step| index_of((self.eviction_hand + step) % used))
            .filter(|&index| self.table.flow(index).live)
            .min_by_key(|&index| self.table.flow(index).heard);
        self.eviction_hand = (self.eviction_hand + EVICT_SLOTS_MAX) % used;
        if let Some(index) = silent {
            self.counts.evicted += 1;
            self.end(index, EndReason::LackOfResources, output);
        }
    }

    /// Puts a new flow at the end of the line of those that leave first. Those at the front that
    /// are embryonic no more step out, two for each that comes, so the line stays short; at its
    /// bound the oldest loses its place in it.
    fn note_embryonic(&mut self, index: FlowIndex) {
        for _ in 0..2 {
            match self.embryonic.front() {
                Some(&(front, born))
                    if !self.table.same(front, born).is_some_and(Flow::is_embryonic) =>
                {
                    self.embryonic.pop_front();
                }
                _ => break,
            }
        }
        if self.embryonic.len() == 2 * self.table.slots() {
            self.embryonic.pop_front();
        }
        self.embryonic.push_back((index, self.births));
    }
}

fn index_of(place: usize) -> FlowIndex {
    FlowIndex(u32::try_from(place).expect("slots is a u32"))
}

fn is_later_fragment(headers: &Headers) -> bool {
    headers.marks.has(Marks::LATER_FRAGMENT)
}

fn is_tcp(headers: &Headers) -> bool {
    headers.protocol == protocol::TCP && !is_later_fragment(headers)
}

fn side_of(headers: &Headers) -> Side {
    let ethernet = headers.marks.has(Marks::ETHERNET);
    Side {
        segment: headers.segment,
        source_mac: headers.source_mac,
        destination_mac: headers.destination_mac,
        layer2_header_octets: if ethernet { 14 } else { 0 },
        seen: true,
    }
}

/// Ports below this are services' by convention (RFC 6335 §6, system ports).
const SYSTEM_PORTS: u16 = 1_024;

/// Who began, told by the first packet.
fn initiator_of(headers: &Headers, sender: Sender) -> (Sender, InitiatorMethod) {
    let handshake = headers.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK);
    let (from, to) = (headers.source_port, headers.destination_port);
    let is_echo_reply = match headers.protocol {
        protocol::ICMP => headers.icmp_type_code >> 8 == 0,
        protocol::ICMPV6 => headers.icmp_type_code >> 8 == 129,
        _ => false,
    };
    if is_tcp(headers) && handshake == tcp_flag::SYN {
        (sender, InitiatorMethod::Syn)
    } else if is_tcp(headers) && handshake == tcp_flag::SYN | tcp_flag::ACK {
        (sender.other(), InitiatorMethod::Syn)
    } else if is_echo_reply || (from != 0 && from < SYSTEM_PORTS && to >= SYSTEM_PORTS) {
        (sender.other(), InitiatorMethod::FirstPacketAndPort)
    } else {
        (sender, InitiatorMethod::FirstPacket)
    }
}

/// Events of a flow's first packet: whether it asks for something.
fn first_events(headers: &Headers, by_initiator: bool) -> u8 {
    let silent = headers.tcp_flags & (tcp_flag::ACK | tcp_flag::RST) == 0;
    let asks = match headers.protocol {
        protocol::TCP => silent && !is_later_fragment(headers),
        protocol::UDP => true,
        _ => false,
    };
    if asks && by_initiator { event::STARTED | event::CONTACT } else { event::STARTED }
}

/// Notes the responder's first answer.
#[inline]
fn note_answer(flow: &mut Flow, headers: &Headers, sender: Sender) {
    let decided = event::ANSWERED | event::REFUSED;
    if sender == flow.initiator || flow.events & event::ANSWERED != 0 {
        return;
    }
    if headers.tcp_flags & tcp_flag::RST == 0 {
        tcp::raise(flow, event::ANSWERED);
    } else if flow.events & decided == 0 {
        tcp::raise(flow, event::REFUSED);
    }
}

#[inline]
fn note_rare(flow: &mut Flow, headers: &Headers) {
    if headers.marks.has(Marks::FRAGMENT) {
        flow.fragments = flow.fragments.saturating_add(1);
    }
    if headers.marks.has(Marks::SNAPPED) {
        flow.snapped = flow.snapped.saturating_add(1);
    }
}

#[inline]
fn recognise(flow: &mut Flow, headers: &Headers) {
    let wanted = flow.application == Application::Unknown
        && flow.application_packets < app::PACKETS_MAX
        && headers.payload_captured_octets > 0;
    if wanted && !is_later_fragment(headers) {
        flow.application_packets += 1;
        flow.application = app::classify(headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowPlan;
    use crate::spread::HashSeed;

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
            headers.hash = FlowKey::of(&headers).0.hash(HashSeed::fixed());
            let window = WindowNumber::of(headers.timestamp, SECOND);
            self.stage.meter(&headers, Verdict::First, (window, false), &mut self.records);
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
        assert_eq!((flow.packets[0] + flow.packets[1], flow.octets.iter().sum::<u64>()), (10, 1_000));
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
        let packets: u64 = bench.records.ended.iter().map(|ended| ended.flow.packets[0] + ended.flow.packets[1]).sum();
        assert_eq!(packets, 61);
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
        let key = FlowKey::of(&udp(9_999, 0)).0;
        assert!(bench.stage.table().find(&key, key.hash(HashSeed::fixed())).is_some());
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
            let initiator = initiator_of(&headers, Sender::Low).0;
            assert_eq!(initiator == Sender::Low, by_sender, "{headers:?}");
        }
    }
}
