//! Octets as operations on the flow stage: every packet that is metered is in exactly one row and
//! one record, and every flow ends exactly once. A second stage takes the short ways of packets
//! that are known in brief where it may, and must give the same rows and records.

use vmprobe::app::{Excerpt, Speech};
use vmprobe::config::FlowPlan;
use vmprobe::copies::Verdict;
use vmprobe::decode::brief::Fields;
use vmprobe::decode::{Brief, Headers, Marks, protocol};
use vmprobe::flow::{EndReason, EndedFlow, Ending, FlowOutput, FlowStage, FlowTotals, Left};
use vmprobe::index::{FlowIndex, WindowNumber};
use vmprobe::spread::{FlowKey, HashSeed, name_flow};
use vmprobe::time::Timestamp;
use vmprobe::window::{LateRow, Note, ROW_NOTES_MAX, Row, RowNotes, RowPlace, WindowClock};

const MS: u64 = 1_000_000;

/// Beginnings of payload: two that are recognised and one that is not.
const PAYLOAD_HEADS: [&[u8]; 3] =
    [b"hello", b"GET / HTTP/1.1\r\n", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]];

/// Port of services over UDP that are recognised.
const DNS_PORT: u16 = 53;
const DNS_HEAD: &[u8] = &[0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3];

/// What rows of the two stages are begun on: they differ in each field, so that one that is not written
/// shows.
const LEFT_OVER: [u8; 2] = [0x55, 0xaa];

/// Keeps the rows and adds up the records.
#[derive(Debug, Default)]
struct Sums {
    rows: Vec<(WindowNumber, Row)>,
    record_packets: u64,
    record_octets: u64,
    ended: u64,
    records: Vec<(EndedFlow, Option<FlowTotals>)>,
    notes: Vec<(RowPlace, Note)>,
    /// Those of the row that was found with where its notes are written, until more is noted.
    row_notes: Vec<Note>,
    noted: Option<RowPlace>,
    late: Vec<LateRow>,
    said: Vec<(Excerpt, Vec<u8>)>,
    /// What stands in a row before it is begun.
    left_over: u8,
    /// The row that was found or begun last.
    newest: Option<RowPlace>,
}

impl FlowOutput for Sums {
    fn open_row(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<&mut Row> {
        let (at, row) = self.rows.get_mut(place.0 as usize)?;
        let found = *at == window && row.flow() == flow;
        self.newest = if found { Some(place) } else { self.newest };
        found.then_some(row)
    }

    fn open_row_noted(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<(&mut Row, RowNotes<'_>)> {
        self.open_row(place, window, flow)?;
        self.gather();
        self.noted = Some(place);
        self.row_notes.reserve_exact(ROW_NOTES_MAX);
        let (_, row) = &mut self.rows[place.0 as usize];
        Some((row, RowNotes::of_memory(&mut self.row_notes)))
    }

    fn begin_row(&mut self, window: WindowNumber) -> (RowPlace, &mut Row) {
        let place = RowPlace(u32::try_from(self.rows.len()).expect("an input is short"));
        self.newest = Some(place);
        self.rows.push((window, Row::left_over(self.left_over)));
        let (_, row) = self.rows.last_mut().expect("it was just pushed");
        (place, row)
    }

    fn measured(&mut self, place: RowPlace, note: Note) {
        assert_eq!(self.newest, Some(place), "a note on another row than the packet's");
        let (window, _) = self.rows[place.0 as usize];
        assert_ne!(window, WindowNumber(u64::MAX), "a note on a row that is handed over");
        self.gather();
        self.notes.push((place, note));
    }

    fn said(&mut self, excerpt: &Excerpt, payload: &[u8]) {
        self.said.push((*excerpt, payload.to_vec()));
    }

    fn late(&mut self, late: &LateRow) {
        assert_eq!(late.row.packets_sum(), 0, "packets are told once");
        self.late.push(*late);
    }

    fn ended(&mut self, totals: Option<&FlowTotals>, write: impl FnOnce(&mut Ending)) {
        let mut ending = Ending::left_over(self.left_over);
        write(&mut ending);
        // Its place among others is the taker's to say.
        ending.totals = 0;
        let ended = ending.told();
        let EndedFlow { flow, reason, .. } = &ended;
        self.record_packets += flow.packets[0] + flow.packets[1];
        self.record_octets += flow.octets[0] + flow.octets[1];
        self.ended += u64::from(*reason != EndReason::ActiveTimeout);
        assert!(flow.first_seen <= flow.last_seen, "a flow that ends before it begins");
        self.records.push((ended, totals.copied()));
    }
}

impl Sums {
    /// Takes the notes that were written behind a row, which is still the newest.
    fn gather(&mut self) {
        let Some(place) = self.noted.take() else { return };
        self.notes.extend(self.row_notes.drain(..).map(|note| (place, note)));
    }

    /// Packets and octets of all rows.
    fn rows(&self) -> (u64, u64) {
        self.rows.iter().fold((0, 0), |(packets, octets), (_, row)| {
            assert!(row.packets_sum() > 0, "a row without packets");
            (packets + row.packets_sum(), octets + row.octets().iter().sum::<u64>())
        })
    }

    /// From now on all rows are out of reach, as when their windows close.
    fn hand_over(&mut self) {
        self.rows.iter_mut().for_each(|(window, _)| *window = WindowNumber(u64::MAX));
    }
}

/// The stage as a worker drives it.
struct Driver {
    stage: FlowStage,
    sums: Sums,
    /// The one that takes the short way.
    short: FlowStage,
    short_sums: Sums,
    windows: WindowClock,
    clock: Timestamp,
    closing: WindowNumber,
    packets: u64,
    octets: u64,
}

impl Driver {
    fn new() -> Self {
        let plan = FlowPlan { slots_per_worker: 256, active_ms: 30_000, ..FlowPlan::default() };
        Self {
            stage: FlowStage::new(&plan).with_transactions(true),
            sums: Sums { left_over: LEFT_OVER[0], ..Sums::default() },
            short: FlowStage::new(&plan).with_transactions(true),
            short_sums: Sums { left_over: LEFT_OVER[1], ..Sums::default() },
            windows: WindowClock::new(1_000, 200),
            clock: Timestamp(1_000 * MS),
            closing: WindowNumber(0),
            packets: 0,
            octets: 0,
        }
    }

    /// Time goes on; windows that are over close.
    fn advance(&mut self, by_ns: u64) {
        self.clock = Timestamp(self.clock.0 + by_ns);
        let oldest = self.windows.oldest_open(self.clock);
        if self.closing < oldest {
            self.closing = oldest;
            self.sums.hand_over();
            self.short_sums.hand_over();
        }
    }

    fn headers(&self, [_, host, port, flags, sequence, back, size, mac]: [u8; 8]) -> Headers {
        let is_tcp = flags & 0x80 == 0;
        let mut headers = Headers {
            timestamp: Timestamp(self.clock.0.saturating_sub(u64::from(back) * 20 * MS)),
            clock: self.clock,
            protocol: if is_tcp { protocol::TCP } else { protocol::UDP },
            ip_version: 4,
            // Half of all packets are of few flows, so that those have many.
            source_port: u16::from(if mac & 0x80 == 0 { port } else { port % 4 }),
            destination_port: 80,
            octets: 40 + u32::from(size),
            tcp_flags: if is_tcp { u16::from(flags & 0x1f) } else { 0 },
            tcp_sequence: u32::from(sequence % 4),
            tcp_acknowledgement: if flags & 0x10 == 0 { 0 } else { u32::from(sequence / 4 % 4) },
            tcp_window: u16::from(size % 4),
            tcp_syn_options: u32::from(size) | u32::from(mac % 8) << 16,
            payload_octets: u32::from(size % 3),
            marks: Marks::ETHERNET,
            ..Headers::default()
        };
        if is_tcp {
            add_payload(&mut headers, PAYLOAD_HEADS[usize::from(mac / 2 % 3)]);
        } else if mac & 4 != 0 {
            headers.destination_port = DNS_PORT;
            add_payload(&mut headers, DNS_HEAD);
        }
        // Its ports were found, but it has no segment of its own.
        if mac >= 0xe0 {
            headers.marks.set(Marks::FRAGMENT);
            headers.marks.set(Marks::LATER_FRAGMENT);
            headers.tcp_flags = 0;
            (headers.tcp_sequence, headers.tcp_acknowledgement) = (0, 0);
            (headers.tcp_window, headers.payload_captured_octets) = (0, 0);
            headers.tcp_syn_options = 0;
        }
        headers.source.0[15] = host % 8;
        headers.destination.0[15] = 9;
        headers.source_mac.0[5] = mac % 2;
        if flags & 0x40 != 0 {
            std::mem::swap(&mut headers.source, &mut headers.destination);
            std::mem::swap(&mut headers.source_port, &mut headers.destination_port);
        }
        // A bad hash on purpose, so that buckets overflow; it depends on the key alone.
        name_flow(&mut headers, HashSeed::fixed());
        let key = FlowKey::of(&headers).0;
        let ports = u64::from(key.low_port ^ key.high_port);
        let spread = ports.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        headers.hash = if ports.is_multiple_of(2) { ports } else { spread };
        headers
    }

    fn step(&mut self, octets: [u8; 8]) {
        let [operation, amount, more, ..] = octets;
        match operation % 16 {
            0..=9 => {
                let headers = self.headers(octets);
                let duplicate = operation & 0x80 != 0;
                let verdict = if duplicate { Verdict::Duplicate } else { Verdict::First };
                let (window, late) = self.windows.book(&headers);
                let guess = self.stage.guess(headers.hash);
                let with_frame = (&headers, payload_of(&headers));
                let booking = (window, late);
                self.stage.meter_frame(with_frame, guess, verdict, booking, &mut self.sums);
                self.meter_shortly(&headers, verdict, (window, late));
                self.packets += 1;
                self.octets += u64::from(headers.octets);
            }
            10 => {
                let headers = self.headers(octets);
                let guess = self.stage.guess(headers.hash);
                self.stage.note_duplicate(&headers, guess);
                let guess = self.short.guess(headers.hash);
                self.short.note_duplicate(&headers, guess);
            }
            11 => {
                let slots = usize::from(amount) + 1;
                self.stage.expire_step(self.clock, slots, &mut self.sums);
                self.short.expire_step(self.clock, slots, &mut self.short_sums);
            }
            12 => self.advance(u64::from(amount) * u64::from(more) * 1_000 * MS),
            _ => self.advance(u64::from(amount) * 10 * MS),
        }
    }

    /// By the short way, where the packet may take it.
    fn meter_shortly(
        &mut self,
        headers: &Headers,
        verdict: Verdict,
        booking: (WindowNumber, bool),
    ) {
        let guess = self.short.guess(headers.hash);
        let brief = Brief::of(headers).filter(|_| verdict == Verdict::First);
        let (fields, sums) = (Fields::of_headers(headers), &mut self.short_sums);
        let payload = payload_of(headers);
        let (window, late) = booking;
        if let Some(brief) = brief.filter(|brief| self.short.is_settled(brief, guess)) {
            let speech = || Speech::with_payload(&brief, &fields, payload);
            // As a worker does with what it received itself, and with what another one did.
            if !late && headers.octets.is_multiple_of(2) {
                let left = self.short.count_noted(guess, (&brief, &fields), window, sums);
                if left != Left::Nothing {
                    let left = (left, window);
                    self.short.finish_noted(guess, (&brief, &fields), left, sums, speech);
                }
            } else {
                self.short.count_settled(guess, &brief, booking, sums, speech);
                self.short.measure_settled(guess, (&brief, &fields), window, sums);
            }
        } else if let Some(brief) = brief.filter(|_| !late && headers.octets % 4 != 3) {
            let speech = || Speech::with_payload(&brief, &fields, payload);
            self.short.meter_known(guess, (&brief, &fields), window, sums, speech);
        } else {
            self.short.meter_frame((headers, payload), guess, verdict, booking, sums);
        }
    }

    fn finish(mut self) {
        self.stage.end_all(self.clock, &mut self.sums);
        self.short.end_all(self.clock, &mut self.short_sums);
        self.short_sums.left_over = self.sums.left_over;
        self.short_sums.gather();
        assert_eq!(format!("{:?}", self.sums), format!("{:?}", self.short_sums), "the short way");
        let sums = &self.sums;
        assert_eq!(sums.rows(), (self.packets, self.octets), "rows");
        assert_eq!(
            (sums.record_packets, sums.record_octets),
            (self.packets, self.octets),
            "records"
        );
        assert_eq!(sums.ended, self.stage.counts().created, "flows end once");
        assert_eq!(self.stage.table().len(), 0);
    }
}

/// The payload of such a packet, which is short: what its frame is cut down to.
fn payload_of(headers: &Headers) -> &[u8] {
    &headers.payload_head[..headers.payload_captured_octets as usize]
}

/// Where the packet has payload.
fn add_payload(headers: &mut Headers, head: &[u8]) {
    if headers.payload_octets == 0 {
        return;
    }
    headers.payload_octets = u32::try_from(head.len()).expect("short");
    headers.payload_captured_octets = headers.payload_octets;
    headers.payload_head[..head.len()].copy_from_slice(head);
}

/// Eight octets an operation.
pub(crate) fn exercise(input: &[u8]) {
    let mut driver = Driver::new();
    for octets in input.as_chunks::<8>().0 {
        driver.step(*octets);
    }
    driver.finish();
}
