//! From a worker to the aggregator: rows and ended flows in blocks, closed windows.
//!
//! In: rows, ended flows, closed windows. Out: the same in order, by a bounded ring.
//! Cost: a row is written once, in the block that is sent; the ring is touched once a block. Blocks
//! are made at start and come back empty.
//! Invariants: with a live source nothing waits: what finds no room is lost and counted in
//! packets. With a file source, and at the end of any, the worker waits. A window's closing comes
//! after all its rows. Where more rows are open than there are blocks, the oldest are sent early:
//! their flows begin other rows, and the aggregator adds them up.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::app::Excerpt;
use crate::counters::{DropCause, Snapshot, TapTotals, WorkerTotals};
use crate::flow::{Ending, FlowOutput, FlowTotals};
use crate::index::{FlowIndex, WindowNumber};
use crate::memory;
use crate::path::{PathOutput, Trajectory};
use crate::time::sleep_us;

use super::excerpts::{BLOCK_BYTES, ExcerptBlock};
use super::note::{CHUNK_BYTES, Chunk, NOTES_PER_CHUNK};
use super::open_rows::{OpenRows, row_of};
use super::{LateRow, Note, Notes, ROWS_PER_BLOCK, Row, RowBlock, RowNotes, RowPlace, Rows};

/// Ended flows in a block, and late rows in one of theirs.
const FLOWS_PER_BLOCK: usize = 64;

/// Notes for each row that there can be: what is measured beyond them is lost and counted.
const NOTES_PER_ROW: usize = 4;

/// Bytes of these, beside a row's own.
pub const NOTE_BYTES_PER_ROW: usize = (NOTES_PER_ROW * CHUNK_BYTES).div_ceil(NOTES_PER_CHUNK);

/// Blocks of late rows that can wait; each takes 16 KiB.
const LATE_BLOCKS_MAX: usize = 16;

/// Instead of the place of a flow's totals, where it has none.
pub const NO_TOTALS: u32 = u32::MAX;
/// Followed packets in a block.
const PATHS_PER_BLOCK: usize = 256;

/// Blocks of followed packets; none without that stage.
const PATH_BLOCKS: usize = 64;

/// Blocks of excerpts; none where transactions are not told.
const EXCERPT_BLOCKS: usize = 64;

/// Bytes of these.
pub const EXCERPT_BYTES: usize = EXCERPT_BLOCKS * BLOCK_BYTES;

/// Closed windows that can wait beside the blocks.
const CLOSED_MAX: usize = 8;

/// How long a worker that waits for the aggregator sleeps: spinning would take the core that the
/// aggregator may need.
const WAIT_US: u64 = 50;

/// What the aggregator gets from a worker.
pub enum FromWorker {
    /// Rows of one window.
    Rows(RowBlock),
    /// Flows for which records are due.
    Flows(FlowBlock),
    /// Rows without packets of older windows.
    Late(Vec<LateRow>),
    /// Packets that were followed from tap to tap.
    Paths(Vec<Trajectory>),
    /// Payload that tells of transactions.
    Excerpts(ExcerptBlock),
    /// All windows up to this one are closed; all their rows came before.
    Closed(WindowNumber, Box<Snapshot>),
    /// The worker has ended; all its windows are closed.
    Ended(Box<Snapshot>),
}

/// Flows for which records are due, and what those have of which anything is to be told.
#[derive(Debug)]
pub struct FlowBlock {
    /// Written at start, all of it; the first `count` are those of this block.
    endings: Box<[Ending; FLOWS_PER_BLOCK]>,
    count: usize,
    /// By [`Ending::totals`].
    pub totals: Vec<FlowTotals>,
}

impl FlowBlock {
    fn empty() -> Self {
        let totals = Vec::with_capacity(FLOWS_PER_BLOCK);
        let endings = vec![Ending::default(); FLOWS_PER_BLOCK].into_boxed_slice();
        // Of a slice of just so many it cannot fail.
        let endings = endings.try_into().unwrap_or_else(|_| unreachable!());
        Self { endings, count: 0, totals }
    }

    /// The flows.
    #[inline]
    pub fn flows(&self) -> &[Ending] {
        self.endings.get(..self.count).unwrap_or_default()
    }

    /// The place of the next one; `None` without room.
    #[inline]
    fn begin(&mut self) -> Option<&mut Ending> {
        // A packet may end a flow each.
        if let Some(next) = self.endings.get(self.count + 2) {
            memory::fetch_to_write(next);
        }
        let ending = self.endings.get_mut(self.count)?;
        self.count += 1;
        Some(ending)
    }

    fn clear(&mut self) {
        self.count = 0;
        self.totals.clear();
    }
}

struct Shared {
    full: ArrayQueue<FromWorker>,
    rows: ArrayQueue<Rows>,
    notes: ArrayQueue<Box<Chunk>>,
    flows: ArrayQueue<FlowBlock>,
    late: ArrayQueue<Vec<LateRow>>,
    paths: ArrayQueue<Vec<Trajectory>>,
    excerpts: ArrayQueue<ExcerptBlock>,
    snapshots: ArrayQueue<Box<Snapshot>>,
    /// The source is a file.
    waits: bool,
}

impl Shared {
    fn give_notes_back(&self, mut notes: Notes) {
        while let Some(chunk) = notes.shrink() {
            // The ring has room for all chunks that exist.
            let _ = self.notes.push(chunk);
        }
    }
}

/// Makes the way from one worker to the aggregator, with `blocks` blocks of each kind on their way at
/// most, and `open_blocks` of rows whose windows are open. `waits`: the source is a file.
pub fn handoff(blocks: usize, open_blocks: usize, waits: bool) -> (HandoffSender, HandoffReceiver) {
    let chunks = ((blocks + open_blocks) * ROWS_PER_BLOCK * NOTES_PER_ROW) / NOTES_PER_CHUNK;
    let shared = Arc::new(Shared {
        full: ArrayQueue::new(
            2 * blocks + LATE_BLOCKS_MAX + PATH_BLOCKS + EXCERPT_BLOCKS + CLOSED_MAX + 1,
        ),
        rows: ArrayQueue::new(blocks),
        notes: ArrayQueue::new(chunks),
        flows: ArrayQueue::new(blocks),
        late: ArrayQueue::new(LATE_BLOCKS_MAX),
        paths: ArrayQueue::new(PATH_BLOCKS),
        excerpts: ArrayQueue::new(EXCERPT_BLOCKS),
        snapshots: ArrayQueue::new(CLOSED_MAX),
        waits,
    });
    for rows in Rows::of_blocks(blocks) {
        let _ = shared.rows.push(rows);
    }
    for _ in 1..blocks {
        let _ = shared.flows.push(FlowBlock::empty());
    }
    for _ in 1..LATE_BLOCKS_MAX {
        let _ = shared.late.push(Vec::with_capacity(FLOWS_PER_BLOCK));
    }
    for _ in 0..CLOSED_MAX {
        let _ = shared.snapshots.push(Box::default());
    }
    let sender = HandoffSender {
        open: OpenRows::new(open_blocks),
        flows: FlowBlock::empty(),
        late: Vec::with_capacity(FLOWS_PER_BLOCK),
        paths: Vec::new(),
        excerpts: ExcerptBlock::default(),
        shared: Arc::clone(&shared),
        waits,
        cut_packets: 0,
        lost_packets: 0,
        lost_flow_records: 0,
        lost_measures: 0,
        lost_paths: 0,
        lost_excerpts: 0,
    };
    (sender, HandoffReceiver { shared })
}

/// The worker's end.
pub struct HandoffSender {
    open: OpenRows,
    flows: FlowBlock,
    late: Vec<LateRow>,
    paths: Vec<Trajectory>,
    excerpts: ExcerptBlock,
    shared: Arc<Shared>,
    waits: bool,
    cut_packets: u64,
    lost_packets: u64,
    lost_flow_records: u64,
    /// Notes and late rows that found no room.
    lost_measures: u64,
    lost_paths: u64,
    lost_excerpts: u64,
}

impl HandoffSender {
    /// Makes the blocks for packets that are followed from tap to tap.
    #[must_use]
    pub fn with_paths(mut self) -> Self {
        self.paths = Vec::with_capacity(PATHS_PER_BLOCK);
        for _ in 1..PATH_BLOCKS {
            let _ = self.shared.paths.push(Vec::with_capacity(PATHS_PER_BLOCK));
        }
        self
    }

    /// Makes the blocks for payload that tells of transactions; without them it is all lost and counted.
    #[must_use]
    pub fn with_excerpts(mut self) -> Self {
        self.excerpts = ExcerptBlock::empty();
        for _ in 1..EXCERPT_BLOCKS {
            let _ = self.shared.excerpts.push(ExcerptBlock::empty());
        }
        self
    }

    /// Counts packets that are in rows of `window`; their rows may have been sent already.
    #[inline]
    pub fn count(&mut self, window: WindowNumber, packets: u64) {
        self.open.count(window, packets);
    }

    /// Has the row at `place` fetched, and where notes on it are written if there may be any.
    #[inline]
    pub fn fetch(&self, place: RowPlace, with_notes: bool) {
        self.open.fetch(place, with_notes);
    }

    /// The share of flows that shedding keeps from now on, while `window` is the newest.
    pub fn set_sampling_rate(&mut self, rate: f32, window: WindowNumber) {
        self.open.set_sampling_rate(rate, window);
    }

    /// Bytes of the rows that can be open or on their way.
    pub fn row_bytes(&self) -> usize {
        self.open.bytes() + self.shared.rows.capacity() * ROWS_PER_BLOCK * size_of::<Row>()
    }

    /// Makes room for what is measured in rows; without it all of that is lost and counted.
    pub fn make_notes(&self) {
        while self.shared.notes.push(Box::new(Chunk::empty())).is_ok() {}
    }

    /// Bytes of that room.
    pub fn note_bytes(&self) -> usize {
        self.shared.notes.capacity() * CHUNK_BYTES
    }

    /// Sends rows of `window`, which is over, at most `blocks_max` blocks of them; `true` when none is
    /// left. With a live source it also stops where the aggregator is behind: they can stay until
    /// their blocks are needed.
    pub fn send_window(&mut self, window: WindowNumber, blocks_max: usize) -> bool {
        for _ in 0..blocks_max {
            if !self.open.has(window) {
                break;
            }
            let Some(empty) = self.take_spare(|shared| shared.rows.pop()) else { return false };
            if let Some(block) = self.open.take(window, empty) {
                self.send(FromWorker::Rows(block));
            }
        }
        let is_over = !self.open.has(window);
        if is_over {
            self.cut_packets += self.open.end(window);
        }
        is_over
    }

    /// Says that all windows up to `window` are closed. `false`: the aggregator is far behind;
    /// say it again in a later turn.
    pub fn close(
        &mut self,
        window: WindowNumber,
        totals: &mut WorkerTotals,
        taps: &[TapTotals],
    ) -> bool {
        self.send_flows();
        self.send_paths();
        self.send_excerpts();
        self.note(totals);
        self.send_snapshot(totals, taps, |snapshot| FromWorker::Closed(window, snapshot))
    }

    /// From now on waits for room, whatever the source: it is polled no more, so nothing is missed
    /// meanwhile. Called before all flows are ended at once, which are more than the blocks hold.
    pub fn drain(&mut self) {
        self.waits = true;
    }

    /// Says that the worker has ended, after what is left of all windows. That is lost where it finds
    /// no room, unless [`HandoffSender::drain`] was called; this word itself waits for room in any
    /// case.
    pub fn end(&mut self, totals: &mut WorkerTotals, taps: &[TapTotals]) {
        self.send_all_windows();
        self.send_flows();
        self.send_paths();
        self.send_excerpts();
        self.note(totals);
        while !self.send_snapshot(totals, taps, FromWorker::Ended) {
            sleep_us(WAIT_US);
        }
    }

    /// Sends what is left of all windows.
    pub fn send_all_windows(&mut self) {
        while let Some(window) = self.open.oldest() {
            while !self.send_window(window, usize::MAX) {
                self.lose_block(window);
            }
        }
    }

    /// Writes what this end counted into the worker's totals.
    pub fn note(&self, totals: &mut WorkerTotals) {
        totals.cut_packets = self.cut_packets;
        totals.flow_records_lost = self.lost_flow_records;
        totals.measures_lost = self.lost_measures;
        totals.path_samples_lost = self.lost_paths;
        totals.app_messages_lost = self.lost_excerpts;
        let known = totals.causes.of(DropCause::WindowRingFull);
        totals.causes.add(DropCause::WindowRingFull, self.lost_packets - known);
    }

    /// Makes room for rows of `window`: the oldest block goes before its window is over.
    #[cold]
    fn make_room(&mut self, window: WindowNumber) {
        let Some(oldest) = self.open.in_the_way_of(window) else { return };
        match self.take_spare(|shared| shared.rows.pop()) {
            Some(empty) => {
                if let Some(block) = self.open.take(oldest, empty) {
                    let packets = block.rows.packets_sum();
                    self.open.left(oldest, packets);
                    self.cut_packets += packets;
                    self.send(FromWorker::Rows(block));
                }
            }
            None => self.lose_block(oldest),
        }
    }

    /// Counts the rows of a block of `window` as lost.
    #[cold]
    fn lose_block(&mut self, window: WindowNumber) {
        let Some((packets, notes)) = self.open.lose(window) else { return };
        self.open.left(window, packets);
        self.cut_packets += packets;
        self.lost_packets += packets;
        self.lost_measures += notes.iter().count() as u64;
        self.shared.give_notes_back(notes);
    }

    /// Sends ended flows though their block is not full, so that a quiet probe shows them in time.
    pub fn send_flows(&mut self) {
        self.send_late();
        if self.flows.count == 0 {
            return;
        }
        match self.take_spare(|shared| shared.flows.pop()) {
            Some(spare) => {
                let block = std::mem::replace(&mut self.flows, spare);
                self.send(FromWorker::Flows(block));
            }
            None => {
                self.lost_flow_records += self.flows.count as u64;
                self.flows.clear();
            }
        }
    }

    #[cold]
    fn measured_in_another_chunk(&mut self, place: RowPlace, note: Note) {
        if let Some(notes) = self.open.notes(place)
            && let Some(chunk) = self.shared.notes.pop()
        {
            notes.grow(chunk);
            // An empty chunk has room.
            let _ = notes.push(note);
        } else {
            self.lost_measures += 1;
        }
    }

    fn send_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        match self.take_spare(|shared| shared.late.pop()) {
            Some(spare) => {
                let block = std::mem::replace(&mut self.late, spare);
                self.send(FromWorker::Late(block));
            }
            None => {
                self.lost_measures += self.late.len() as u64;
                self.late.clear();
            }
        }
    }

    /// Sends followed packets though their block is not full.
    fn send_paths(&mut self) {
        if self.paths.is_empty() {
            return;
        }
        match self.take_spare(|shared| shared.paths.pop()) {
            Some(spare) => {
                let block = std::mem::replace(&mut self.paths, spare);
                self.send(FromWorker::Paths(block));
            }
            None => {
                self.lost_paths += self.paths.len() as u64;
                self.paths.clear();
            }
        }
    }

    /// Sends excerpts though their block is not full.
    fn send_excerpts(&mut self) {
        if self.excerpts.is_empty() {
            return;
        }
        match self.take_spare(|shared| shared.excerpts.pop()) {
            Some(spare) => {
                let block = std::mem::replace(&mut self.excerpts, spare);
                self.send(FromWorker::Excerpts(block));
            }
            None => {
                self.lost_excerpts += self.excerpts.len() as u64;
                self.excerpts.clear();
            }
        }
    }

    fn send_snapshot(
        &self,
        totals: &WorkerTotals,
        taps: &[TapTotals],
        message: impl FnOnce(Box<Snapshot>) -> FromWorker,
    ) -> bool {
        let Some(mut snapshot) = self.take_spare(|shared| shared.snapshots.pop()) else {
            return false;
        };
        snapshot.copy(totals, taps);
        self.send(message(snapshot));
        true
    }

    /// An empty block, waiting for it only where the source can wait or has ended.
    fn take_spare<T>(&self, pop: impl Fn(&Shared) -> Option<T>) -> Option<T> {
        loop {
            match pop(&self.shared) {
                None if self.waits => sleep_us(WAIT_US),
                spare => return spare,
            }
        }
    }

    fn send(&self, message: FromWorker) {
        let sent = self.shared.full.push(message);
        debug_assert!(sent.is_ok(), "the ring holds all blocks that exist");
    }
}

impl FlowOutput for HandoffSender {
    #[inline]
    fn open_row(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<&mut Row> {
        self.open.get(place, window, flow)
    }

    #[inline]
    fn open_row_noted(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<(&mut Row, RowNotes<'_>)> {
        self.open.get_noted(place, window, flow)
    }

    #[inline]
    fn begin_row(&mut self, window: WindowNumber) -> (RowPlace, &mut Row) {
        while !self.open.has_room(window) {
            if self.open.open_block(window).is_err() {
                self.make_room(window);
            }
        }
        self.open.begin_row(window)
    }

    #[inline]
    fn ended(&mut self, totals: Option<&FlowTotals>, write: impl FnOnce(&mut Ending)) {
        if self.flows.count == FLOWS_PER_BLOCK {
            self.send_flows();
        }
        let mut place = NO_TOTALS;
        if let Some(totals) = totals {
            place = u32::try_from(self.flows.totals.len()).unwrap_or(NO_TOTALS);
            self.flows.totals.push(*totals);
        }
        if let Some(ending) = self.flows.begin() {
            write(ending);
            ending.totals = place;
        }
    }

    #[inline]
    fn measured(&mut self, place: RowPlace, note: Note) {
        let note = note.of_row(row_of(place));
        let taken = self.open.notes(place).is_some_and(|notes| notes.push(note).is_ok());
        if !taken {
            self.measured_in_another_chunk(place, note);
        }
    }

    fn said(&mut self, excerpt: &Excerpt, payload: &[u8]) {
        if payload.is_empty() || !self.excerpts.has_memory() {
            self.lost_excerpts += 1;
        } else if !self.excerpts.push(excerpt, payload) {
            self.send_excerpts();
            // An empty block has room.
            let _ = self.excerpts.push(excerpt, payload);
        }
    }

    fn late(&mut self, row: &LateRow) {
        self.late.push(*row);
        if self.late.len() == FLOWS_PER_BLOCK {
            self.send_late();
        }
    }
}

impl PathOutput for HandoffSender {
    #[inline]
    fn trajectory(&mut self, trajectory: &Trajectory) {
        self.paths.push(*trajectory);
        if self.paths.len() == PATHS_PER_BLOCK {
            self.send_paths();
        }
    }
}

/// The aggregator's end.
pub struct HandoffReceiver {
    shared: Arc<Shared>,
}

impl HandoffReceiver {
    /// Whether the worker's source is a file, so that it can wait and nothing of it need be lost.
    pub fn waits(&self) -> bool {
        self.shared.waits
    }

    /// The next message, if any.
    pub fn take(&self) -> Option<FromWorker> {
        self.shared.full.pop()
    }

    /// Gives a message's memory back.
    pub fn give_back(&self, message: FromWorker) {
        // Each of these rings has room for all blocks of its kind.
        match message {
            FromWorker::Rows(mut block) => {
                self.shared.give_notes_back(block.notes);
                block.rows.clear();
                let _ = self.shared.rows.push(block.rows);
            }
            FromWorker::Flows(mut flows) => {
                flows.clear();
                let _ = self.shared.flows.push(flows);
            }
            FromWorker::Late(mut rows) => {
                rows.clear();
                let _ = self.shared.late.push(rows);
            }
            FromWorker::Paths(mut paths) => {
                paths.clear();
                let _ = self.shared.paths.push(paths);
            }
            FromWorker::Excerpts(mut block) => {
                block.clear();
                let _ = self.shared.excerpts.push(block);
            }
            FromWorker::Closed(_, snapshot) | FromWorker::Ended(snapshot) => {
                let _ = self.shared.snapshots.push(snapshot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::app::Application;
    use crate::index::{Sender, TapIndex};
    use crate::measure::tcp::Event;
    use crate::spread::FlowKey;
    use crate::window::{Ends, RowFacts, What};

    fn end_flow(sender: &mut HandoffSender, totals: Option<&FlowTotals>) {
        sender.ended(totals, |ending| *ending = Ending::default());
    }

    /// A row of one packet.
    fn send_row(sender: &mut HandoffSender, window: WindowNumber) {
        let mut row = Row::default();
        row.count(Sender::Low, 100, false);
        *sender.begin_row(window).1 = row;
        sender.count(window, 1);
    }

    /// Packets that a receiver took until nothing came.
    fn take_all(receiver: &HandoffReceiver) -> u64 {
        let mut taken = 0;
        while let Some(message) = receiver.take() {
            if let FromWorker::Rows(block) = &message {
                taken += block.rows.iter().map(Row::packets_sum).sum::<u64>();
            }
            receiver.give_back(message);
        }
        taken
    }

    #[test]
    fn a_live_worker_loses_and_counts_what_finds_no_room() {
        let window = WindowNumber(3);
        let (mut sender, receiver) = handoff(2, 2, false);
        // Two blocks are open, two on their way, and two found no room.
        for _ in 0..6 * ROWS_PER_BLOCK {
            send_row(&mut sender, window);
        }
        let mut totals = WorkerTotals::default();
        sender.note(&mut totals);
        let lost = totals.causes.of(DropCause::WindowRingFull);
        assert_eq!((totals.cut_packets, lost), (4 * 256, 2 * 256));
        assert_eq!(take_all(&receiver), 2 * 256);
        // A window that is over waits for room, until the worker ends.
        assert!(sender.send_window(window, usize::MAX));
        for _ in 0..ROWS_PER_BLOCK {
            send_row(&mut sender, window.next());
        }
        assert!(!sender.send_window(window.next(), usize::MAX));
        sender.send_all_windows();
        sender.note(&mut totals);
        let lost = totals.causes.of(DropCause::WindowRingFull);
        assert_eq!((totals.cut_packets, lost), (7 * 256, 3 * 256));
        assert_eq!(take_all(&receiver), 2 * 256);
    }

    #[test]
    fn notes_beyond_what_there_is_room_for_are_counted() {
        let (mut sender, receiver) = handoff(1, 1, false);
        sender.make_notes();
        let window = WindowNumber(3);
        let row = Row::default();
        let (place, begun) = sender.begin_row(window);
        *begun = row;
        let note = Note::new(What::Event(Event::Gap), Sender::Low, 1);
        let room = 2 * ROWS_PER_BLOCK * NOTES_PER_ROW;
        for _ in 0..room + 3 {
            sender.measured(place, note);
        }
        let mut totals = WorkerTotals::default();
        sender.note(&mut totals);
        assert_eq!(totals.measures_lost, 3);
        assert!(sender.send_window(window, usize::MAX));
        let Some(FromWorker::Rows(block)) = receiver.take() else { panic!("rows come first") };
        assert_eq!(block.notes.iter().count(), room);
        receiver.give_back(FromWorker::Rows(block));
        // What came back is used again.
        let (place, begun) = sender.begin_row(window);
        *begun = row;
        sender.measured(place, note);
        sender.note(&mut totals);
        assert_eq!(totals.measures_lost, 3);
    }

    #[test]
    fn a_file_worker_waits() {
        let (mut sender, receiver) = handoff(2, 2, true);
        let producer = std::thread::spawn(move || {
            for _ in 0..20 * ROWS_PER_BLOCK {
                send_row(&mut sender, WindowNumber(1));
            }
            let mut totals = WorkerTotals::default();
            sender.end(&mut totals, &[]);
            totals.cut_packets
        });
        let mut rows_taken = 0;
        loop {
            let Some(message) = receiver.take() else {
                std::thread::yield_now();
                continue;
            };
            let ended = matches!(message, FromWorker::Ended(_));
            if let FromWorker::Rows(block) = &message {
                rows_taken += block.rows.len();
            }
            receiver.give_back(message);
            if ended {
                break;
            }
        }
        let cut_packets = producer.join().expect("the worker ends");
        assert_eq!((rows_taken, cut_packets), (20 * ROWS_PER_BLOCK, 20 * 256));
    }

    #[test]
    fn a_live_worker_that_drains_waits_too() {
        const FLOWS: usize = 110_000;
        let (mut sender, receiver) = handoff(256, 1, false);
        let producer = std::thread::spawn(move || {
            sender.drain();
            for _ in 0..FLOWS {
                end_flow(&mut sender, None);
            }
            let mut totals = WorkerTotals::default();
            sender.end(&mut totals, &[]);
            totals.flow_records_lost
        });
        let mut flows_taken = 0;
        loop {
            let Some(message) = receiver.take() else {
                std::thread::yield_now();
                continue;
            };
            if let FromWorker::Flows(flows) = &message {
                flows_taken += flows.flows().len();
                // Slower than the worker, so that it runs out of blocks.
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            let ended = matches!(message, FromWorker::Ended(_));
            receiver.give_back(message);
            if ended {
                break;
            }
        }
        assert_eq!(producer.join().expect("the worker ends"), 0);
        assert_eq!(flows_taken, FLOWS);
    }

    /// What a flow of the model remembers of its newest row.
    type Newest = Option<(RowPlace, WindowNumber)>;

    /// A worker that counts a packet of `flow` in `window`, as the flow stage does.
    fn count(sender: &mut HandoffSender, newest: &mut Newest, flow: u32, window: WindowNumber) {
        let flow = FlowIndex(flow);
        let known = newest.filter(|(_, of)| *of == window).map(|(place, _)| place);
        match known.and_then(|place| sender.open_row(place, window, flow)) {
            Some(row) => row.count(Sender::Low, 100, false),
            None => {
                let mut row = Row::of(&RowFacts { flow, ..facts(&FlowKey::default()) });
                row.count(Sender::Low, 100, false);
                let (place, begun) = sender.begin_row(window);
                *begun = row;
                *newest = Some((place, window));
            }
        }
        sender.count(window, 1);
    }

    fn facts(key: &FlowKey) -> RowFacts<'_> {
        RowFacts {
            flow: FlowIndex(0),
            key,
            initiator: Sender::Low,
            ends: Ends::default(),
            tap: TapIndex(0),
            application: Application::Unknown,
            counts_flow: true,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// However slow the aggregator is, each packet is in one row that it gets, or lost and
        /// counted; and nothing of a window comes after its closing.
        #[test]
        fn packets_are_handed_over_once_or_counted_as_lost(
            (blocks, open_blocks) in (1_usize..4, 1_usize..6),
            steps in prop::collection::vec((0_u8..16, 0_u32..700), 1..60),
        ) {
            let (mut sender, receiver) = handoff(blocks, open_blocks, false);
            let mut newest: Vec<Newest> = vec![None; 1_024];
            let (mut counted, mut taken, mut closed) = (0_u64, 0_u64, None);
            let mut window = WindowNumber(5);
            let mut totals = WorkerTotals::default();
            let mut take = |messages: u32, closed: &mut Option<WindowNumber>| {
                for _ in 0..messages {
                    let Some(message) = receiver.take() else { break };
                    match &message {
                        FromWorker::Rows(block) => {
                            assert!(closed.is_none_or(|closed| closed < block.window));
                            taken += block.rows.iter().map(Row::packets_sum).sum::<u64>();
                        }
                        FromWorker::Closed(window, _) => *closed = Some(*window),
                        _ => {}
                    }
                    receiver.give_back(message);
                }
            };
            for (kind, amount) in steps {
                match kind {
                    0..10 => {
                        let ahead = u64::from(kind % 3 == 0);
                        for flow in 0..amount {
                            let at = WindowNumber(window.0 + ahead);
                            let place = (flow * 31 + u32::from(kind)) % 1_024;
                            count(&mut sender, &mut newest[place as usize], place, at);
                            counted += 1;
                        }
                    }
                    10..14 => take(amount % 8, &mut closed),
                    _ => {
                        while !sender.send_window(window, 2) {
                            take(1, &mut closed);
                        }
                        while !sender.close(window, &mut totals, &[]) {
                            take(1, &mut closed);
                        }
                        window = window.next();
                    }
                }
                sender.note(&mut totals);
                let lost = totals.causes.of(DropCause::WindowRingFull);
                prop_assert!(lost <= totals.cut_packets && totals.cut_packets <= counted);
            }
            sender.send_all_windows();
            take(u32::MAX, &mut closed);
            sender.note(&mut totals);
            let lost = totals.causes.of(DropCause::WindowRingFull);
            prop_assert_eq!((totals.cut_packets, taken + lost), (counted, counted));
        }
    }

    #[test]
    fn closing_comes_after_the_rows() {
        let (mut sender, receiver) = handoff(4, 1, false);
        send_row(&mut sender, WindowNumber(3));
        assert!(sender.send_window(WindowNumber(3), 1));
        assert!(sender.close(WindowNumber(3), &mut WorkerTotals::default(), &[]));
        assert!(matches!(receiver.take(), Some(FromWorker::Rows(_))));
        assert!(matches!(receiver.take(), Some(FromWorker::Closed(WindowNumber(3), _))));
    }
}
