use super::*;
use crate::decode::brief::Fields;
use crate::decode::{Brief, protocol};
use crate::flow::{EndedFlow, Ending, FlowTotals};
use crate::index::TapIndex;
use crate::measure::tcp::{Cause, Event, Method};
use crate::spread::{HashSeed, name_flow};
use crate::window::{LateRow, Note, Row, RowPlace, What};

const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Records {
    rows: Vec<Row>,
    windows: Vec<WindowNumber>,
    ended: Vec<EndedFlow>,
    totals: Vec<FlowTotals>,
    /// By row.
    notes: Vec<(usize, Note)>,
    late: Vec<LateRow>,
    /// The row that was found or begun last.
    newest: Option<RowPlace>,
}

impl FlowOutput for Records {
    fn open_row(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<&mut Row> {
        let at = place.0 as usize;
        let row = self.rows.get_mut(at)?;
        let found = self.windows[at] == window && row.flow() == flow;
        self.newest = if found { Some(place) } else { self.newest };
        found.then_some(row)
    }
    fn begin_row(&mut self, window: WindowNumber) -> (RowPlace, &mut Row) {
        let place = RowPlace(u32::try_from(self.rows.len()).expect("few rows"));
        self.newest = Some(place);
        self.windows.push(window);
        // What stands in a row before it is begun says nothing.
        self.rows.push(Row::left_over(0xff));
        (place, self.rows.last_mut().expect("it was just pushed"))
    }
    fn ended(&mut self, totals: Option<&FlowTotals>, write: impl FnOnce(&mut Ending)) {
        let mut ending = Ending::left_over(0xff);
        write(&mut ending);
        self.ended.push(ending.told());
        self.totals.push(totals.copied().unwrap_or_default());
    }
    fn measured(&mut self, place: RowPlace, note: Note) {
        assert_eq!(self.newest, Some(place), "the row that the packet was counted in");
        self.notes.push((place.0 as usize, note));
    }
    fn late(&mut self, row: &LateRow) {
        self.late.push(*row);
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
        let guess = self.stage.guess(headers.hash);
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
    assert_eq!((flow.packets[0] + flow.packets[1], flow.octets.iter().sum::<u64>()), (10, 1_000));
}

#[test]
fn when_all_flows_have_ended_all_slots_are_free() {
    let mut bench = Bench::new(1 << 10);
    let all = 0..1_024_u16;
    for round in 1..=3_u64 {
        let at = round * SECOND;
        all.clone().for_each(|port| bench.take(udp(port, at)));
        assert_eq!(bench.stage.table().len(), all.len());
        bench.stage.end_all(Timestamp(at), &mut bench.records);
        assert!(bench.stage.table().is_empty());
        let flows = &bench.records.ended;
        assert_eq!(flows.len() as u64, round * all.len() as u64);
        assert!(flows.iter().all(|ended| ended.flow.packets == [1, 0]), "none goes on");
        assert_eq!(bench.stage.counts().evicted, 0);
    }
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
    let packets: u64 =
        bench.records.ended.iter().map(|ended| ended.flow.packets[0] + ended.flow.packets[1]).sum();
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
    assert_eq!(
        (row.packets(), row.ends().source_mac.0[5], row.ends().destination_mac.0[5]),
        ([3, 3], 1, 9)
    );
    let sides = bench.records.ended[0].flow.sides.map(|side| side.source_mac.0[5]);
    assert!(sides == [1, 8] || sides == [8, 1], "{sides:?}");
}

#[test]
fn a_full_side_slab_costs_rows_and_no_packet() {
    let mut bench = Bench::new(1 << 8);
    for port in 0..200 {
        bench.take(framed(Headers { destination_port: 9, ..udp(port, 0) }, 1, 9));
        bench.take(framed(Headers { source_port: 9, destination_port: port, ..udp(0, 0) }, 8, 1));
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
    let rows: u64 = bench.records.rows.iter().map(|row| row.layer2_octets()[0]).sum();
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
    let octets: u64 = bench.records.rows.iter().map(|row| row.octets()[0]).sum();
    assert_eq!((octets, bench.records.rows.len()), (3 * u64::from(u32::MAX - 1), 3));
    assert_eq!(bench.records.rows.iter().filter(|row| row.counts_flow).count(), 1);
    assert_eq!(bench.records.ended[0].flow.octets.iter().sum::<u64>(), octets);
}

/// A way to count a packet of a settled flow.
type Way = fn(&mut Bench, &Brief, &Fields);

#[test]
fn octets_of_a_record_that_do_not_fit_go_on_whatever_way_they_are_counted() {
    const BOOKING: (WindowNumber, bool) = (WindowNumber(1), false);
    let ways: [Way; 3] = [
        |bench, brief, _| {
            let guess = bench.stage.guess(brief.hash);
            bench.stage.count_settled_unheard(guess, brief, BOOKING, &mut bench.records);
        },
        |bench, brief, _| {
            let guess = bench.stage.guess(brief.hash);
            let silent = || unreachable!("it has no payload");
            bench.stage.count_settled(guess, brief, BOOKING, &mut bench.records, silent);
        },
        |bench, brief, fields| {
            let (guess, window) = (bench.stage.guess(brief.hash), BOOKING.0);
            let (packet, records) = ((brief, fields), &mut bench.records);
            let left = bench.stage.count_noted(guess, packet, window, records);
            let silent = || unreachable!("it has no payload");
            bench.stage.finish_noted(guess, packet, (left, window), records, silent);
        },
    ];
    for way in ways {
        let mut bench = Bench::new(1 << 8);
        // One of the ways listens to nothing.
        bench.stage = FlowStage::new(&FlowPlan::default()).without_measures();
        bench.take(framed(Headers { octets: u32::MAX - 100, ..udp(40_000, 0) }, 1, 9));
        // The first begins a row; the next one does not fit any more, in one that has room.
        for (octets, at) in [(60, SECOND), (1_000, SECOND + 1), (1_000, SECOND + 2)] {
            let headers = Headers { octets, clock: Timestamp(at), ..udp(40_000, at) };
            let mut headers = framed(headers, 1, 9);
            name_flow(&mut headers, HashSeed::fixed());
            let brief = Brief::of(&headers).expect("it is of the common shape");
            assert!(bench.stage.is_settled(&brief, bench.stage.guess(brief.hash)));
            way(&mut bench, &brief, &Fields::of_headers(&headers));
        }
        bench.stage.end_all(Timestamp(2 * SECOND), &mut bench.records);
        let all = u64::from(u32::MAX - 100) + 2_060;
        let rows: u64 = bench.records.rows.iter().map(|row| row.octets()[0]).sum();
        assert_eq!((rows, bench.records.rows.len()), (all, 2));
        assert_eq!(bench.records.ended[0].flow.octets.iter().sum::<u64>(), all);
        assert_eq!(bench.records.ended[0].flow.packets.iter().sum::<u64>(), 4);
    }
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
    assert_eq!((row.packets(), row.octets(), row.destination_port()), ([1, 1], [70, 100], 53));
}

#[test]
fn events_stand_in_the_row_of_the_packet_that_brought_them() {
    let mut bench = Bench::new(1 << 8);
    let ms = SECOND / 1_000;
    bench.take(tcp_segment(tcp_flag::SYN, 1, 0));
    let syn_ack = tcp_flag::SYN | tcp_flag::ACK;
    bench.take(Headers {
        source_port: 5_000,
        destination_port: 40_000,
        tcp_acknowledgement: 2,
        ..tcp_segment(syn_ack, 9, SECOND + 5 * ms)
    });
    let ack = tcp_segment(tcp_flag::ACK, 2, 2 * SECOND);
    bench.take(Headers { tcp_acknowledgement: 10, ..ack });
    let told: Vec<u8> = bench.records.rows.iter().map(|row| row.events).collect();
    let begun = event::STARTED | event::CONTACT | event::SYN;
    let answered = event::ANSWERED | event::SYN_ACK;
    assert_eq!(told, [begun, answered, event::ESTABLISHED | event::ACKNOWLEDGED]);
    let delays: Vec<_> = bench
        .records
        .notes
        .iter()
        .filter_map(|(row, note)| match note.read()? {
            (What::Delay(method), _, ns) => Some((*row, method, ns)),
            _ => None,
        })
        .collect();
    let (server, client) = (SECOND + 5 * ms, SECOND - 5 * ms);
    assert_eq!(
        delays,
        [(1, Method::HandshakeServer, server), (2, Method::HandshakeClient, client)]
    );
    bench.stage.end_all(Timestamp(3 * SECOND), &mut bench.records);
    let measured = bench.records.ended[0].flow.measured;
    assert_eq!(
        (measured.handshake_server_rtt_ns, measured.handshake_client_rtt_ns),
        (Some(server), Some(client))
    );
}

/// A segment of the client (`there`) or the server, with so much payload.
fn data(there: bool, [sequence, acknowledgement, octets]: [u32; 3], at_ns: u64) -> Headers {
    let headers = Headers {
        tcp_acknowledgement: acknowledgement,
        tcp_window: 500,
        payload_octets: octets,
        ..tcp_segment(tcp_flag::ACK, sequence, at_ns)
    };
    if there {
        headers
    } else {
        Headers { source_port: 5_000, destination_port: 40_000, ..headers }
    }
}

/// Losses by late rows and by notes: window, cause, packets.
fn losses(records: &Records) -> Vec<(u64, Cause, u64)> {
    let mut all = Vec::new();
    for (row, note) in &records.notes {
        if let Some((What::LostPackets(cause), _, packets)) = note.read() {
            all.push((records.windows[*row].0, cause, packets));
        }
    }
    for late in &records.late {
        assert_eq!((late.row.packets_sum(), late.row.counts_flow), (0, false));
        for cause in Cause::ALL {
            let packets: u64 = [Sender::Low, Sender::High]
                .map(|sender| late.losses.lost(cause, sender).packets)
                .iter()
                .sum();
            if packets > 0 {
                all.push((late.losses.window.0, cause, packets));
            }
        }
    }
    all
}

#[test]
fn a_loss_belongs_to_the_window_of_its_packets() {
    let ms = SECOND / 1_000;
    // The hole is noticed at 900 ms; it is filled in the same window, in the next, or never.
    for (filled_at, at_end) in [(950 * ms, false), (1_200 * ms, false), (0, true)] {
        let mut bench = Bench::new(1 << 8);
        for at in [100, 500] {
            bench.take(data(true, [1_000 + at, 1, 400], u64::from(at) * ms));
            bench.take(data(false, [1, 1_400 + at, 0], (u64::from(at) + 1) * ms));
        }
        bench.take(data(true, [2_300, 1, 400], 900 * ms));
        if !at_end {
            bench.take(data(true, [1_900, 1, 400], filled_at));
        }
        bench.stage.end_all(Timestamp(9 * SECOND), &mut bench.records);
        let cause = if at_end { Cause::Unresolved } else { Cause::NetworkUpstream };
        assert_eq!(losses(&bench.records), [(0, cause, 1)], "{filled_at}");
        assert_eq!(bench.records.late.len(), usize::from(filled_at != 950 * ms));
        let totals = bench.records.totals[0];
        let lost = [Sender::Low, Sender::High].map(|sender| totals.lost(cause, sender).octets);
        assert_eq!(lost[0] + lost[1], 400);
        let repeats =
            [Sender::Low, Sender::High].map(|sender| totals.events(Event::Retransmission, sender));
        assert_eq!(repeats[0] + repeats[1], u64::from(!at_end));
    }
}

#[test]
fn a_flow_that_is_only_reset_needs_no_place() {
    let mut bench = Bench::new(1 << 8);
    for port in 0..250 {
        let first = tcp_segment(tcp_flag::SYN, 1, 0);
        bench.take(Headers { destination_port: port, ..first });
        let answer = tcp_segment(tcp_flag::RST | tcp_flag::ACK, 0, 1);
        bench.take(Headers { source_port: port, destination_port: 40_000, ..answer });
    }
    bench.stage.end_all(Timestamp(9), &mut bench.records);
    assert_eq!(bench.stage.measure_slabs().1, 0);
    let resets = |sender| {
        let all = bench.records.totals.iter().map(|totals| totals.events(Event::Reset, sender));
        all.sum::<u64>()
    };
    assert_eq!(resets(Sender::Low) + resets(Sender::High), 250);
}

#[test]
fn what_finds_no_place_is_null_and_counted() {
    // As many places as slots; a table of one bucket more would have fewer.
    let mut bench = Bench::new(1 << 14);
    for port in 0..10_000 {
        let mut cut = udp(port, 0);
        cut.marks.set(Marks::SNAPPED);
        bench.take(cut);
    }
    bench.stage.end_all(Timestamp(9), &mut bench.records);
    let refused = bench.stage.measure_slabs().1;
    let told = bench.records.ended.iter().filter(|ended| ended.flow.measured.packets).count();
    assert_eq!((refused, told as u64), (10_000 - 2_048, 2_048));
}

#[test]
fn counts_of_records_are_since_the_one_before() {
    let mut bench = Bench::new(1 << 8);
    for minute in 0..61 {
        let mut cut = data(true, [1, 1, 0], minute * 50 * SECOND);
        cut.marks.set(Marks::SNAPPED);
        bench.take(cut);
    }
    bench.stage.end_all(Timestamp(61 * 50 * SECOND), &mut bench.records);
    let told: Vec<(u32, u64)> = bench
        .records
        .ended
        .iter()
        .zip(&bench.records.totals)
        .map(|(ended, totals)| (totals.snapped, ended.flow.packets.iter().sum()))
        .collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|(snapped, packets)| u64::from(*snapped) == *packets), "{told:?}");
}

#[test]
fn octets_of_a_record_go_beyond_32_bits() {
    let mut bench = Bench::new(1 << 8);
    for at in 0..5 {
        bench.take(Headers { octets: 1 << 31, ..udp(1, at * SECOND) });
    }
    bench.stage.end_all(Timestamp(6 * SECOND), &mut bench.records);
    assert_eq!(bench.records.ended[0].flow.octets.iter().sum::<u64>(), 5 << 31);
}

#[test]
fn a_flow_in_the_place_of_another_has_rows_of_its_own() {
    let mut bench = Bench::new(1);
    bench.take(udp(1, 0));
    bench.take(udp(2, 1));
    bench.take(udp(1, 2));
    assert_eq!(bench.records.rows.iter().map(Row::packets_sum).collect::<Vec<_>>(), [1, 1, 1]);
    assert!(bench.records.rows.iter().all(|row| row.counts_flow));
}

#[test]
fn a_direction_is_named_after_the_tap_that_is_nearest_to_its_sender() {
    let mut bench = Bench::new(16);
    let at = |tap: u16| Headers { tap: TapIndex(tap), ..udp(9, SECOND) };
    bench.take(at(1));
    assert_eq!(bench.records.rows[0].tap, TapIndex(1));
    let mut copy = at(0);
    name_flow(&mut copy, HashSeed::fixed());
    let guess = bench.stage.guess(copy.hash);
    for (counted, named) in [(2, 1), (1, 0)] {
        let counted = (TapIndex(counted), WindowNumber(1));
        bench.stage.note_nearer_tap(&copy, guess, counted, &mut bench.records);
        assert_eq!(bench.records.rows[0].tap, TapIndex(named));
    }
    bench.stage.end_all(Timestamp(2 * SECOND), &mut bench.records);
    assert_eq!(bench.records.ended[0].flow.taps[copy.sender.place()], TapIndex(0));
}

#[test]
fn that_one_end_has_acknowledged_stands_in_all_rows_that_follow() {
    let mut bench = Bench::new(1 << 8);
    for (second, flags) in [(0, tcp_flag::SYN), (1, tcp_flag::SYN), (2, tcp_flag::ACK), (3, 0x18)] {
        bench.take(tcp_segment(flags, 1 + u32::from(second > 1), second * SECOND));
    }
    let told = bench.records.rows.iter().map(|row| row.events & event::ACKNOWLEDGED != 0);
    assert_eq!(told.collect::<Vec<_>>(), [false, false, true, true]);
}

#[test]
fn what_another_tap_may_have_shown_is_known_in_brief_whatever_was_guessed() {
    let mut bench = Bench::new(1 << 4);
    let segment = |tap, payload_octets, at_ns| Headers {
        marks: Marks::ETHERNET,
        tap: TapIndex(tap),
        tcp_flags: tcp_flag::ACK,
        octets: 40 + payload_octets,
        payload_octets,
        payload_captured_octets: payload_octets,
        clock: Timestamp(at_ns),
        ..tcp_segment(tcp_flag::ACK, 1, at_ns)
    };
    let asked = |stage: &FlowStage, mut headers: Headers, guessed: bool| {
        name_flow(&mut headers, HashSeed::fixed());
        let guess = if guessed { stage.guess(headers.hash) } else { Guess::NONE };
        let brief = Brief::of(&headers).expect("the common shape");
        let in_brief = stage.may_hold_shown(guess, &brief, &Fields::of_headers(&headers));
        (in_brief, stage.is_recut(&headers, guess))
    };
    let part = segment(1, 1_000, SECOND + 1_000);
    assert_eq!(asked(&bench.stage, part, true), (false, false), "there is no flow");
    // As a card gives it that merges what it received.
    bench.take(segment(0, 4_000, SECOND));
    for guessed in [true, false] {
        assert_eq!(asked(&bench.stage, part, guessed), (true, true));
        let same_tap = Headers { tap: TapIndex(0), ..part };
        assert_eq!(asked(&bench.stage, same_tap, guessed), (false, false));
        let next = Headers { tcp_sequence: 4_001, ..part };
        assert_eq!(asked(&bench.stage, next, guessed), (false, false));
        let empty = Headers { payload_octets: 0, payload_captured_octets: 0, ..part };
        assert_eq!(asked(&bench.stage, empty, guessed), (false, false));
    }
}
