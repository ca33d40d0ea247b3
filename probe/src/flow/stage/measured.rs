//! The measures of TCP on the packet path, and what else is rare of a flow.
//!
//! In: packets that counted, on the flow and the row that they were counted on. Out: notes on that
//! row, losses of older windows, counts for the flow's record.
//! Cost: 128 bytes a slot, taken at start; a segment in order touches two cache lines of them. What
//! only flows in trouble have (416 bytes), and what is to be told of few (256), stands in slabs
//! that are written when they are used.
//! Invariants: a flow for which a slab had no room is marked, and the refusals are counted. A loss
//! belongs to the window of its packets: where that is not the one of this packet it becomes a late
//! row. Verdicts depend on the flow's packets alone.
//! Source: docs/measures.md.

use crate::copies::Verdict;
use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers, Marks, protocol, tcp_flag};
use crate::index::{FlowIndex, Sender, TapIndex, WindowNumber};
use crate::measure::tcp::{
    self, Event, Loss, Method, Options, Range, Rare, Segment, SegmentFields, TcpFlow, Terms,
    Timestamps,
};
use crate::memory;
use crate::time::{Timestamp, ms};
use crate::window::{LateLosses, LateRow, Note, ROW_NOTES_MAX, RowNotes, RowPlace, What};

use super::super::beside::Beside;
use super::super::output::{FlowOutput, Measured};
use super::super::slab::{NOWHERE, Slab};
use super::super::table::Guess;
use super::super::{FlowTotals, TcpState};
use super::FlowStage;

/// One of so many flows can have something to tell beside packets and octets.
const SELDOM_SHARE: usize = 8;

/// One of so many flows can be in trouble at a time.
const RARE_SHARE: usize = 64;

/// Slabs of small tables are not smaller than this, or than the table.
const PLACES_MIN: usize = 1_024;

/// Older windows that one packet, or the end of a flow, can tell losses of: each of the ranges in
/// doubt (five an endpoint) may have one of its own, and so may what was never seen.
const LATE_MAX: usize = 16;

/// By what times the measures go.
#[derive(Clone, Copy, Debug)]
pub struct MeasureTerms {
    /// Length of a window in ns.
    pub window_ns: u64,
    /// See [`Terms::verdict_ns`].
    pub verdict_ns: u64,
    /// What another tap shows later than this is no copy: `copies.path_window_ms`.
    pub path_window_ns: u64,
}

impl Default for MeasureTerms {
    fn default() -> Self {
        Self {
            window_ns: ms(1_000),
            verdict_ns: Terms::default().verdict_ns,
            path_window_ns: ms(100),
        }
    }
}

/// What is to be told of a flow, and where its rare state is.
#[derive(Clone, Copy, Debug)]
struct Seldom {
    totals: FlowTotals,
    rare: u32,
}

const _: () = assert!(size_of::<Seldom>() == 256, "bytes as the documents state them");

impl Default for Seldom {
    fn default() -> Self {
        Self { totals: FlowTotals::default(), rare: NOWHERE }
    }
}

/// Of all flows of a table.
pub(super) struct Measures {
    tcp: memory::Table<TcpFlow>,
    seldom: Slab<Seldom>,
    rare: Slab<Rare>,
    /// What one packet, or the end of a flow, found out of older windows.
    late: Vec<LateLosses>,
    terms: Terms,
    window_ns: u64,
    path_window_ns: u64,
}

impl Measures {
    pub(super) fn new(slots: usize, terms: MeasureTerms) -> Self {
        let places = |share: usize| (slots / share).max(PLACES_MIN.min(slots));
        Self {
            tcp: memory::table(slots, TcpFlow::default()),
            seldom: Slab::new(places(SELDOM_SHARE)),
            rare: Slab::new(places(RARE_SHARE)),
            late: Vec::with_capacity(LATE_MAX),
            terms: Terms { verdict_ns: terms.verdict_ns, ..Terms::default() },
            window_ns: terms.window_ns.max(1),
            path_window_ns: terms.path_window_ns,
        }
    }

    /// Bytes that are taken at start.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.tcp)
    }

    /// Bytes of the slabs when they are full, and how often one had no place.
    pub(super) fn slabs(&self) -> (usize, u64) {
        (self.seldom.bytes() + self.rare.bytes(), self.seldom.refused() + self.rare.refused())
    }

    /// Has the lines of the flow at `place` fetched.
    #[inline]
    pub(super) fn fetch(&self, place: usize) {
        memory::fetch_at(&self.tcp, place);
    }

    /// A new flow has the place.
    #[inline]
    pub(super) fn begin(&mut self, index: FlowIndex) {
        self.tcp[index.0 as usize] = TcpFlow::default();
    }

    /// See [`TcpFlow::may_be_recut`].
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a few instructions for each packet with payload")]
    pub(super) fn may_be_recut(
        &self,
        index: FlowIndex,
        (sender, tap): (Sender, TapIndex),
        sequence: u32,
    ) -> bool {
        self.tcp[index.0 as usize].may_be_recut(sender, tap, sequence)
    }

    /// Whether another tap showed a segment of this flow before, in other pieces.
    pub(super) fn is_recut(&self, index: FlowIndex, beside: &Beside, headers: &Headers) -> bool {
        // Where holes could not be remembered, what fills one is not told from a copy.
        if !beside.states_losses() {
            return false;
        }
        let flow = &self.tcp[index.0 as usize];
        let seldom = beside.place().and_then(|place| self.seldom.get(place));
        let rare = seldom.and_then(|seldom| self.rare.get(seldom.rare));
        let rare = rare.filter(|_| flow.keeps_rare());
        flow.was_shown_in_other_pieces(&segment_of(headers), rare, self.path_window_ns)
    }

    /// Takes a segment that counts in the row at `row`.
    #[inline]
    pub(super) fn segment(
        &mut self,
        (index, row, window): (FlowIndex, RowPlace, WindowNumber),
        beside: &mut Beside,
        headers: &Headers,
        output: &mut impl FlowOutput,
    ) {
        if headers.marks.has(Marks::TCP_SACK) || headers.tcp_flags & tcp_flag::SYN != 0 {
            let mut segment = segment_of(headers);
            rare_options(&mut segment, headers);
            self.not_plain((index, row, window), beside, &segment, output);
        } else {
            let plain = self.plain((index, row), &segment_of(headers), output);
            if plain != Plain::Taken {
                let segment = segment_of(headers);
                self.not_only_plain(plain, (index, row, window), beside, &segment, output);
            }
        }
    }

    #[inline(never)]
    fn not_plain(
        &mut self,
        (index, row, window): (FlowIndex, RowPlace, WindowNumber),
        beside: &mut Beside,
        segment: &Segment,
        output: &mut impl FlowOutput,
    ) {
        if !self.orderly((index, row, window), beside, segment, output) {
            self.not_orderly((index, row, window), beside, segment, output);
        }
    }

    /// Takes a segment if it is as it should be; `false`, and nothing was done, where not.
    #[inline]
    fn orderly(
        &mut self,
        (index, row, window): (FlowIndex, RowPlace, WindowNumber),
        beside: &mut Beside,
        segment: &impl SegmentFields,
        output: &mut impl FlowOutput,
    ) -> bool {
        let mut sink = Sink {
            output,
            row,
            window,
            window_ns: self.window_ns,
            beside,
            seldom: &mut self.seldom,
            late: &mut self.late,
        };
        self.tcp[index.0 as usize].orderly(segment, &mut sink)
    }

    /// Takes a SYN that is known in brief.
    #[inline]
    fn syn(
        &mut self,
        at: (FlowIndex, RowPlace, WindowNumber),
        beside: &mut Beside,
        known: &BriefSegment<'_>,
        output: &mut impl FlowOutput,
    ) {
        if !self.orderly(at, beside, known, output) {
            let BriefSegment(brief, fields) = *known;
            let mut segment = segment_of_brief(brief, fields);
            take_syn_options(&mut segment, fields.tcp_syn_options);
            self.not_orderly(at, beside, &segment, output);
        }
    }

    /// Takes a segment that is no SYN, if it is as it should be; `false`, and nothing was done, where not.
    #[inline]
    fn goes_on_orderly(
        &mut self,
        (index, row, window): (FlowIndex, RowPlace, WindowNumber),
        beside: &mut Beside,
        segment: &BriefSegment<'_>,
        output: &mut impl FlowOutput,
    ) -> bool {
        let mut sink = Sink {
            output,
            row,
            window,
            window_ns: self.window_ns,
            beside,
            seldom: &mut self.seldom,
            late: &mut self.late,
        };
        self.tcp[index.0 as usize].goes_on_orderly(segment, &mut sink)
    }

    /// The same of what is neither.
    #[inline(never)]
    fn not_orderly(
        &mut self,
        (index, row, window): (FlowIndex, RowPlace, WindowNumber),
        beside: &mut Beside,
        segment: &Segment,
        output: &mut impl FlowOutput,
    ) {
        let flow = &mut self.tcp[index.0 as usize];
        let rare = if flow.asks_rare(segment) {
            rare_of(&mut self.seldom, &mut self.rare, beside)
        } else {
            NOWHERE
        };
        let mut sink = Sink {
            output,
            row,
            window,
            window_ns: self.window_ns,
            beside,
            seldom: &mut self.seldom,
            late: &mut self.late,
        };
        flow.not_plain(segment, self.rare.get_mut(rare), &self.terms, &mut sink);
        if rare != NOWHERE && !flow.keeps_rare() {
            give_rare_back(&mut self.seldom, &mut self.rare, beside);
        }
    }

    /// What is rare of any packet.
    pub(super) fn packet(&mut self, beside: &mut Beside, headers: &Headers, verdict: Verdict) {
        let Some(totals) = totals_of(&mut self.seldom, beside) else { return };
        if headers.marks.has(Marks::FRAGMENT) {
            totals.fragments = totals.fragments.saturating_add(1);
        }
        if headers.marks.has(Marks::SNAPPED) {
            totals.snapped = totals.snapped.saturating_add(1);
        }
        if verdict == Verdict::Duplicate {
            totals.duplicate(headers.sender);
        }
    }

    /// Notes a duplicate that is not traffic.
    pub(super) fn duplicate(&mut self, beside: &mut Beside, sender: Sender) {
        if let Some(totals) = totals_of(&mut self.seldom, beside) {
            totals.duplicate(sender);
        }
    }

    /// Notes an ICMP error about a packet of `sender`.
    pub(super) fn icmp_error(&mut self, beside: &mut Beside, sender: Sender) {
        if let Some(totals) = totals_of(&mut self.seldom, beside) {
            totals.icmp_error(sender);
        }
    }

    /// Takes a segment that is known in brief, if it is plain and its flow has a place; what it gives is
    /// noted on its row.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it leads to the one function behind it")]
    pub(super) fn plain_noted(
        &mut self,
        index: FlowIndex,
        (brief, fields): (&Brief, &Fields),
        notes: RowNotes<'_>,
    ) -> Plain {
        let Some(flow) = self.tcp.get_mut(index.0 as usize) else { return Plain::Taken };
        plain_noted(flow, brief, fields, notes)
    }

    /// Takes a segment without rare options that counts in the row at `row`, if it is plain.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "two ways lead here, and each is most of its caller")]
    fn plain(
        &mut self,
        (index, row): (FlowIndex, RowPlace),
        segment: &Segment,
        output: &mut impl FlowOutput,
    ) -> Plain {
        let mut sink = PlainSink { output, row, event: None };
        if !self.tcp[index.0 as usize].plain(segment, &mut sink) {
            return Plain::Not;
        }
        sink.event.map_or(Plain::Taken, Plain::Counts)
    }

    /// Does what [`Measures::plain`] left.
    fn not_only_plain(
        &mut self,
        plain: Plain,
        at: (FlowIndex, RowPlace, WindowNumber),
        beside: &mut Beside,
        segment: &Segment,
        output: &mut impl FlowOutput,
    ) {
        match plain {
            Plain::Taken => {}
            Plain::Counts(event) => count_event(&mut self.seldom, beside, (event, segment.sender)),
            Plain::Not => self.not_plain(at, beside, segment, output),
        }
    }

    /// Decides what is open: the flow is over, `last_seen` was its last packet.
    pub(super) fn settle(&mut self, index: FlowIndex, beside: &mut Beside, last_seen: Timestamp) {
        let flow = &mut self.tcp[index.0 as usize];
        if !flow.keeps_rare() {
            return;
        }
        let rare = beside.place().and_then(|place| self.seldom.get(place));
        let Some(rare) = rare.and_then(|seldom| self.rare.get_mut(seldom.rare)) else { return };
        let window_ns = self.window_ns;
        let last = WindowNumber::of(last_seen, window_ns);
        let mut ending =
            Ending { window_ns, last, beside, seldom: &mut self.seldom, late: &mut self.late };
        flow.end(rare, last_seen, &mut ending);
    }

    /// The flow's place is free.
    pub(super) fn end(&mut self, beside: &mut Beside) {
        give_rare_back(&mut self.seldom, &mut self.rare, beside);
        if let Some(place) = beside.place() {
            self.seldom.give_back(place);
            *beside = Beside::default();
        }
    }

    /// What there is to tell in the flow's record.
    pub(super) fn totals(&self, beside: &Beside) -> Option<FlowTotals> {
        let seldom = beside.place().and_then(|place| self.seldom.get(place));
        let mut totals = seldom.map(|seldom| seldom.totals);
        for sender in [Sender::Low, Sender::High] {
            if beside.resets(sender) {
                totals.get_or_insert_default().event(Event::Reset, sender);
            }
        }
        totals
    }

    /// A record was made: counts begin again.
    pub(super) fn record_made(&mut self, beside: &mut Beside) {
        beside.record_made();
        if let Some(seldom) = beside.place().and_then(|place| self.seldom.get_mut(place)) {
            seldom.totals = FlowTotals::default();
        }
    }

    /// What was measured of a flow.
    pub(super) fn measured(&self, index: FlowIndex, beside: &Beside, is_tcp: bool) -> Measured {
        let [server, client] = beside.handshake_ns();
        let opening = self.tcp.get(index.0 as usize).filter(|_| is_tcp).map(TcpFlow::opening);
        Measured {
            packets: beside.counts_all(),
            segments: is_tcp && beside.counts_all(),
            losses: is_tcp && beside.states_losses(),
            opening,
            handshake_server_rtt_ns: server,
            handshake_client_rtt_ns: client,
        }
    }
}

impl FlowStage {
    /// Takes a segment that counted, in the row that it was counted in.
    #[inline]
    pub(super) fn measure(
        &mut self,
        index: FlowIndex,
        headers: &Headers,
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let Some(measures) = &mut self.measures else { return };
        let (flow, rest) = self.table.both_mut(index);
        measures.segment((index, flow.row, window), &mut rest.beside, headers, output);
        if !measures.late.is_empty() {
            self.tell_late(index, output);
        }
    }

    /// Takes a packet of any flow that is known in brief and was counted in `window`, its segment if it is
    /// one of a connection.
    #[inline]
    pub(super) fn measure_known(
        &mut self,
        index: FlowIndex,
        (brief, fields): (&Brief, &Fields),
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let Some(measures) = &mut self.measures else { return };
        let (flow, rest) = self.table.both_mut(index);
        if flow.tcp == TcpState::NotTcp {
            return;
        }
        if fields.tcp_flags() & tcp_flag::SYN == 0 {
            self.measure_segment(index, (brief, fields), window, output);
            return;
        }
        let at = (index, flow.row, window);
        measures.syn(at, &mut rest.beside, &BriefSegment(brief, fields), output);
        if !measures.late.is_empty() {
            self.tell_late(index, output);
        }
    }

    /// Takes a packet that is known in brief and that was counted on the flow that was guessed in
    /// `window` since, with nothing in between, if there is anything to measure.
    #[inline]
    pub fn measure_settled(
        &mut self,
        guess: Guess,
        (brief, fields): (&Brief, &Fields),
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        if brief.protocol == protocol::TCP {
            self.measure_segment(guess.index(), (brief, fields), window, output);
        }
    }

    /// Takes a segment without rare options that is known in brief.
    #[inline(never)]
    fn measure_segment(
        &mut self,
        index: FlowIndex,
        (brief, fields): (&Brief, &Fields),
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) {
        let Some(measures) = &mut self.measures else { return };
        let row = self.table.flow(index).row;
        let plain = measures.plain((index, row), &segment_of_brief(brief, fields), output);
        if plain != Plain::Taken {
            // The segment is made anew, so that the usual one stays in registers.
            self.measure_closer(index, (brief, fields), window, plain, output);
        }
    }

    /// Does what is left of that after the plain.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "two ways lead here, and each is most of its caller")]
    pub(super) fn measure_closer(
        &mut self,
        index: FlowIndex,
        (brief, fields): (&Brief, &Fields),
        window: WindowNumber,
        plain: Plain,
        output: &mut impl FlowOutput,
    ) {
        let Some(measures) = &mut self.measures else { return };
        let (flow, rest) = self.table.both_mut(index);
        let at = (index, flow.row, window);
        let known = BriefSegment(brief, fields);
        if plain == Plain::Not && measures.goes_on_orderly(at, &mut rest.beside, &known, output) {
            // Nothing is lost by it.
            return;
        }
        let segment = segment_of_brief(brief, fields);
        measures.not_only_plain(plain, at, &mut rest.beside, &segment, output);
        if !measures.late.is_empty() {
            self.tell_late(index, output);
        }
    }

    /// Has what is measured of the flow that was guessed fetched. The flow's own lines are there.
    #[inline]
    pub fn fetch_measures(&self, guess: Guess) {
        let Some(measures) = &self.measures else { return };
        if self.table.guessed(guess).is_some_and(|flow| flow.tcp != TcpState::NotTcp) {
            measures.fetch(guess.place());
        }
    }

    /// Gives out what was found out of older windows.
    #[cold]
    pub(super) fn tell_late(&mut self, index: FlowIndex, output: &mut impl FlowOutput) {
        while let Some(losses) = self.measures.as_mut().and_then(|measures| measures.late.pop()) {
            let row = self.row_of_nothing(index);
            output.late(&LateRow { row, losses });
        }
    }
}

/// The segment, but for options that are rare.
#[inline]
fn segment_of(headers: &Headers) -> Segment {
    let timestamps = headers.marks.has(Marks::TCP_TIMESTAMP).then_some(Timestamps {
        value: headers.tcp_timestamp_value,
        echo: headers.tcp_timestamp_echo,
    });
    Segment {
        at: headers.timestamp,
        sequence: headers.tcp_sequence,
        acknowledgement: headers.tcp_acknowledgement,
        payload_octets: headers.payload_octets,
        flags: headers.tcp_flags,
        window: headers.tcp_window,
        sender: headers.sender,
        tap: headers.tap,
        options: Options { timestamps, ..Options::default() },
    }
}

/// The same of a packet that is known in brief.
#[inline]
fn segment_of_brief(brief: &Brief, fields: &Fields) -> Segment {
    let timestamps = fields.tcp_timestamps().map(|(value, echo)| Timestamps { value, echo });
    Segment {
        at: brief.timestamp,
        sequence: fields.tcp_sequence(),
        acknowledgement: fields.tcp_acknowledgement(),
        payload_octets: fields.payload_octets,
        flags: fields.tcp_flags(),
        window: fields.tcp_window(),
        sender: brief.sender,
        tap: brief.tap,
        options: Options { timestamps, ..Options::default() },
    }
}

/// SACK blocks, and what a SYN says.
fn rare_options(segment: &mut Segment, headers: &Headers) {
    if let Some([a, b, c, d]) = headers.tcp_sack() {
        let blocks = [Range { begin: a, end: b }, Range { begin: c, end: d }];
        let blocks = blocks.into_iter().filter(|block| !block.is_empty());
        segment.options.take_blocks(blocks, headers.tcp_acknowledgement);
    }
    if headers.tcp_flags & tcp_flag::SYN != 0 {
        take_syn_options(segment, headers.tcp_syn_options);
    }
}

const fn take_syn_options(segment: &mut Segment, tcp_syn_options: u32) {
    (segment.options.segment_octets_max, segment.options.window_scale) =
        said_by_syn(tcp_syn_options);
}

/// Largest segment (0: not said) and shift of windows, of [`Headers::tcp_syn_options`].
#[inline]
const fn said_by_syn(tcp_syn_options: u32) -> (u16, Option<u8>) {
    let [low, high, shift, _] = tcp_syn_options.to_le_bytes();
    (u16::from_le_bytes([low, high]), shift.checked_sub(1))
}

/// The totals of a flow; where they have no room the flow is marked.
fn totals_of<'a>(seldom: &'a mut Slab<Seldom>, beside: &mut Beside) -> Option<&'a mut FlowTotals> {
    if beside.place().is_none() {
        match seldom.take(Seldom::default()) {
            Some(place) => beside.set_place(place),
            None => beside.set_uncounted(),
        }
    }
    seldom.get_mut(beside.place()?).map(|seldom| &mut seldom.totals)
}

/// The place of the flow's rare state, which it is given if it has none.
fn rare_of(seldom: &mut Slab<Seldom>, rare: &mut Slab<Rare>, beside: &mut Beside) -> u32 {
    if totals_of(seldom, beside).is_none() {
        return NOWHERE;
    }
    let Some(seldom) = beside.place().and_then(|place| seldom.get_mut(place)) else {
        return NOWHERE;
    };
    if seldom.rare == NOWHERE {
        match rare.take(Rare::default()) {
            Some(place) => seldom.rare = place,
            None => beside.set_unstated(),
        }
    }
    seldom.rare
}

fn give_rare_back(seldom: &mut Slab<Seldom>, rare: &mut Slab<Rare>, beside: &Beside) {
    if let Some(seldom) = beside.place().and_then(|place| seldom.get_mut(place)) {
        rare.give_back(std::mem::replace(&mut seldom.rare, NOWHERE));
    }
}

/// Adds a loss to its window's.
fn late_of(late: &mut Vec<LateLosses>, window: WindowNumber) -> Option<&mut LateLosses> {
    let known = late.iter().position(|losses| losses.window == window);
    let place = known.unwrap_or(late.len());
    if place == late.len() && place < LATE_MAX {
        late.push(LateLosses::of(window));
    }
    late.get_mut(place.min(LATE_MAX - 1))
}

/// Takes what a segment gives.
struct Sink<'a, O> {
    output: &'a mut O,
    /// The row that the segment counts in, and its window.
    row: RowPlace,
    window: WindowNumber,
    window_ns: u64,
    beside: &'a mut Beside,
    seldom: &'a mut Slab<Seldom>,
    late: &'a mut Vec<LateLosses>,
}

impl<O: FlowOutput> Sink<'_, O> {
    #[inline]
    fn note(&mut self, what: What, sender: Sender, amount: u64) {
        note(self.output, self.row, Note::new(what, sender, amount));
    }
}

/// Notes what was measured in a row.
#[inline(never)]
fn note(output: &mut impl FlowOutput, row: RowPlace, note: Note) {
    output.measured(row, note);
}

/// Takes what plain segments give: notes, and few events. No loss is found by them.
struct PlainSink<'a, O> {
    output: &'a mut O,
    row: RowPlace,
    /// The event, which counts for the flow's record too.
    event: Option<Event>,
}

impl<O: FlowOutput> tcp::Sink for PlainSink<'_, O> {
    #[inline]
    fn delay(&mut self, method: Method, far: Sender, ns: u64) {
        note(self.output, self.row, Note::new(What::Delay(method), far, ns));
    }

    #[inline]
    fn event(&mut self, event: Event, sender: Sender) {
        note(self.output, self.row, Note::new(What::Event(event), sender, 1));
        self.event = Some(event);
    }
}

/// The same where the row is at hand.
struct NotedSink<'a> {
    notes: RowNotes<'a>,
    event: Option<Event>,
}

impl tcp::Sink for NotedSink<'_> {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "`plain_noted` is to call nothing")]
    fn delay(&mut self, method: Method, far: Sender, ns: u64) {
        self.notes.push(Note::new(What::Delay(method), far, ns));
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "`plain_noted` is to call nothing")]
    fn event(&mut self, event: Event, sender: Sender) {
        self.notes.push(Note::new(What::Event(event), sender, 1));
        self.event = Some(event);
    }
}

/// See [`Measures::plain_noted`]. It calls nothing, so all the registers are its own.
#[inline(never)]
fn plain_noted(flow: &mut TcpFlow, brief: &Brief, fields: &Fields, notes: RowNotes<'_>) -> Plain {
    let mut sink = NotedSink { notes, event: None };
    if !flow.plain(&BriefSegment(brief, fields), &mut sink) {
        return Plain::Not;
    }
    sink.event.map_or(Plain::Taken, Plain::Counts)
}

/// A segment that is known in brief, as it stands there.
struct BriefSegment<'a>(&'a Brief, &'a Fields);

impl SegmentFields for BriefSegment<'_> {
    #[inline]
    fn at(&self) -> Timestamp {
        self.0.timestamp
    }
    #[inline]
    fn sequence(&self) -> u32 {
        self.1.tcp_sequence()
    }
    #[inline]
    fn acknowledgement(&self) -> u32 {
        self.1.tcp_acknowledgement()
    }
    #[inline]
    fn payload_octets(&self) -> u32 {
        self.1.payload_octets
    }
    #[inline]
    fn flags(&self) -> u16 {
        self.1.tcp_flags()
    }
    #[inline]
    fn window(&self) -> u16 {
        self.1.tcp_window()
    }
    #[inline]
    fn sender(&self) -> Sender {
        self.0.sender
    }
    #[inline]
    fn tap(&self) -> TapIndex {
        self.0.tap
    }
    #[inline]
    fn timestamps(&self) -> Option<Timestamps> {
        self.1.tcp_timestamps().map(|(value, echo)| Timestamps { value, echo })
    }
    #[inline]
    fn has_blocks(&self) -> bool {
        false
    }
    #[inline]
    fn segment_octets_max(&self) -> u16 {
        said_by_syn(self.1.tcp_syn_options).0
    }
    #[inline]
    fn window_scale(&self) -> Option<u8> {
        said_by_syn(self.1.tcp_syn_options).1
    }
}

const _: () = assert!(ROW_NOTES_MAX >= 4, "a plain segment has three delays and an event");

/// What became of a segment that may be plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// It was, and nothing is left to do.
    Taken,
    /// It was, and its sender's event counts for the flow's record.
    Counts(Event),
    /// It was not, and nothing was done.
    Not,
}

/// Counts an event for the flow's record.
#[cold]
fn count_event(seldom: &mut Slab<Seldom>, beside: &mut Beside, (event, sender): (Event, Sender)) {
    // Of a refusal the opening tells; the first reset stands beside.
    let is_told = match event {
        Event::Refused => true,
        Event::Reset => beside.reset(sender),
        _ => false,
    };
    if !is_told && let Some(totals) = totals_of(seldom, beside) {
        totals.event(event, sender);
    }
}

impl<O: FlowOutput> tcp::Sink for Sink<'_, O> {
    #[inline]
    fn delay(&mut self, method: Method, far: Sender, ns: u64) {
        match method {
            Method::HandshakeServer => self.beside.handshake_server(ns),
            Method::HandshakeClient => self.beside.handshake_client(ns),
            _ => {}
        }
        self.note(What::Delay(method), far, ns);
    }

    #[inline]
    fn event(&mut self, event: Event, sender: Sender) {
        self.note(What::Event(event), sender, 1);
        count_event(self.seldom, self.beside, (event, sender));
    }

    #[cold]
    fn loss(&mut self, loss: Loss) {
        if let Some(totals) = totals_of(self.seldom, self.beside) {
            totals.loss(&loss);
        }
        let own = WindowNumber::of(loss.at, self.window_ns);
        if own < self.window {
            if let Some(late) = late_of(self.late, own) {
                late.add(&loss);
            }
        } else {
            self.note(What::LostOctets(loss.cause), loss.sender, loss.octets.into());
            self.note(What::LostPackets(loss.cause), loss.sender, loss.packets.into());
        }
    }

    #[cold]
    fn stalled(&mut self, sender: Sender, ns: u64) {
        if let Some(totals) = totals_of(self.seldom, self.beside) {
            totals.stalled(sender, ns);
        }
        self.note(What::Stalled, sender, ns);
    }
}

/// Takes what the end of a flow decides. No packet is there to be counted with, so all of it is
/// late.
struct Ending<'a> {
    window_ns: u64,
    /// The window of the last packet.
    last: WindowNumber,
    beside: &'a mut Beside,
    seldom: &'a mut Slab<Seldom>,
    late: &'a mut Vec<LateLosses>,
}

impl tcp::Sink for Ending<'_> {
    fn loss(&mut self, loss: Loss) {
        if let Some(totals) = totals_of(self.seldom, self.beside) {
            totals.loss(&loss);
        }
        let own = WindowNumber::of(loss.at, self.window_ns).min(self.last);
        if let Some(late) = late_of(self.late, own) {
            late.add(&loss);
        }
    }

    fn stalled(&mut self, sender: Sender, ns: u64) {
        if let Some(totals) = totals_of(self.seldom, self.beside) {
            totals.stalled(sender, ns);
        }
        if let Some(late) = late_of(self.late, self.last) {
            let stalled = &mut late.stalled_ns[sender.place()];
            *stalled = stalled.saturating_add(ns);
        }
    }
}
