//! All workers' windows to one view.
//!
//! In: rows, ended flows and closed windows of all workers. Out: a [`WindowView`] a window, once
//! every worker has closed it; ended flows.
//! Cost: look-ups of many rows at once; memory is that of the open windows' conversations, some 60
//! bytes each, and is used again from window to window.
//! Invariants: a window is given out once, when the slowest worker has closed it; what comes for
//! it later is booked in the oldest open one and counted as late. At most `rows_max` conversations
//! a window and [`FULL_WINDOWS_MAX`] times as many in all windows that wait for the slowest worker;
//! the packets of what finds no room are a ledger cause. Views are sorted, so they do
//! not depend on the number of workers.
//! Source: watermarks, METHODS "windows"; RFC 7011 §2 for terms.

pub mod conversation;
mod conversations;
mod ended;
mod extras;
mod ledger;
pub mod live;
mod migrations;
mod packed;
pub mod path;
mod places;
mod table;
mod view;

pub use conversation::{Conversation, ConversationKey};
pub use conversations::{Conversations, Iter as ConversationsIter};
pub use ended::EndedFlows;
pub use extras::{Direction, EXTRAS_BYTES_MAX, Extra, ExtraPlace, Extras};
pub use ledger::{LedgerTotals, StageAccount, WorkerAccount};
pub use migrations::{Migrant, Migration, Migrations};
pub use view::{TapView, WindowView};

use std::collections::{BTreeMap, VecDeque};

use crate::counters::{Snapshot, TapTotals, WorkerTotals};
use crate::index::WindowNumber;
use crate::spread::HashSeed;
use crate::time::Timestamp;
use crate::window::{FromWorker, HandoffReceiver, LateRow, Row, RowBlock, WindowClock};
use ended::LATE_ROWS_MAX;
use path::{PathView, Paths};
use table::ConversationTable;

/// Messages taken from one worker before the next one's turn.
const MESSAGES_PER_WORKER: usize = 128;

/// Windows with `rows_max` conversations that may be open at once: the one that fills, the one
/// whose grace lasts, and as many again for a worker that is late.
const FULL_WINDOWS_MAX: usize = 4;

/// Conversations that are looked at between two looks at the workers.
const PART_CONVERSATIONS: usize = 4_096;

/// Conversations of a window that may show which network card an endpoint has.
const NOTED_CONVERSATIONS_MAX: usize = 1 << 18;

/// Indices, and memory of views, that are kept for the next window.
const SPARE_MAX: usize = 2;

/// The low half of a hash.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "what it is masked with is shorter")]
const fn low(hash: u64) -> usize {
    hash as usize
}

/// Stands for the end of a worker.
const LAST: WindowNumber = WindowNumber(u64::MAX);

struct OpenWindow {
    conversations: ConversationTable,
    late_packets: u64,
    /// Packets of rows that found no room in it.
    rows_full_packets: u64,
}

impl OpenWindow {
    fn new(conversations: ConversationTable) -> Self {
        Self { conversations, late_packets: 0, rows_full_packets: 0 }
    }
}

struct FromOne {
    receiver: HandoffReceiver,
    closed: Option<WindowNumber>,
    ended: bool,
    rows_packets: u64,
    /// Totals as of each closed window that is not given out yet, in order.
    snapshots: VecDeque<(WindowNumber, Snapshot)>,
    /// Totals as of the window given out last.
    latest: Snapshot,
    /// These are the worker's last ones.
    settled: bool,
}

impl FromOne {
    /// Makes the totals as of `window` the latest ones.
    fn settle(&mut self, window: WindowNumber) {
        while self.snapshots.front().is_some_and(|(closed, _)| *closed <= window) {
            if let Some((closed, snapshot)) = self.snapshots.pop_front() {
                self.latest = snapshot;
                self.settled = closed == LAST;
            }
        }
    }
}

/// The aggregation of all workers.
pub struct Aggregator {
    workers: Vec<FromOne>,
    open: BTreeMap<WindowNumber, OpenWindow>,
    given_up_to: Option<WindowNumber>,
    windows: WindowClock,
    rows_max: usize,
    /// Conversations in all open windows.
    conversations: usize,
    spare_tables: Vec<ConversationTable>,
    spare_views: Vec<Conversations>,
    seed: HashSeed,
    /// Of the windows that are given out: the workers' totals cover the same ones.
    rows_full_packets: u64,
    late_rows_packets: u64,
    ended_flows: EndedFlows,
    late_rows: Vec<LateRow>,
    /// Measures that found no room since the last view.
    measures_lost: u64,
    paths: Option<Paths>,
    migrations: Migrations,
    /// End of the last window given out.
    latest: Timestamp,
    reported_taps: Vec<TapTotals>,
    reported: LedgerTotals,
    reported_workers: Vec<WorkerTotals>,
}

impl Aggregator {
    /// For the given workers, at most `rows_max` conversations a window.
    pub fn new(receivers: Vec<HandoffReceiver>, windows: WindowClock, rows_max: u32) -> Self {
        let one = |receiver| FromOne {
            receiver,
            closed: None,
            ended: false,
            rows_packets: 0,
            snapshots: VecDeque::new(),
            latest: Snapshot::default(),
            settled: false,
        };
        Self {
            workers: receivers.into_iter().map(one).collect(),
            open: BTreeMap::new(),
            given_up_to: None,
            windows,
            rows_max: rows_max as usize,
            conversations: 0,
            spare_tables: Vec::new(),
            spare_views: Vec::new(),
            seed: HashSeed::random(),
            rows_full_packets: 0,
            late_rows_packets: 0,
            ended_flows: EndedFlows::default(),
            late_rows: Vec::new(),
            measures_lost: 0,
            paths: None,
            migrations: Migrations::default(),
            latest: Timestamp::ZERO,
            reported_taps: Vec::new(),
            reported: LedgerTotals::default(),
            reported_workers: Vec::new(),
        }
    }

    /// Adds delay and loss between taps.
    #[must_use]
    pub fn with_paths(mut self, paths: Option<Paths>) -> Self {
        self.paths = paths;
        self
    }

    /// Adds what is known of migrations.
    #[must_use]
    pub fn with_migrations(mut self, migrations: Migrations) -> Self {
        self.migrations = migrations;
        self
    }

    /// Delay and loss of the next window in which every packet has its verdict.
    pub fn next_paths(&mut self) -> Option<PathView> {
        let closed = if self.is_over() { LAST } else { self.given_up_to? };
        let paths = self.paths.as_mut()?;
        let view = paths.next_view(closed)?;
        self.migrations.window((view.start, view.end), &view.moves, Some(&*paths));
        Some(view)
    }

    /// Migrations since the last call, and how many found no room; those of the last windows once all
    /// is given out.
    pub fn take_migrations(&mut self) -> (Vec<Migration>, u64) {
        if self.is_over() {
            self.migrations.finish(self.latest, self.paths.as_ref());
        }
        self.migrations.take()
    }

    /// Takes what the workers have handed over, a bounded part of it. `false`: that was all, and
    /// there is time to wait until more has come. Who takes each block as it comes has the caches
    /// of a worker's core as often, where they share one.
    pub fn collect(&mut self) -> bool {
        let mut at_once = false;
        for place in 0..self.workers.len() {
            for taken in 1..=MESSAGES_PER_WORKER {
                let Some(message) = self.workers[place].receiver.take() else { break };
                // Few closed windows can wait, and nobody should wait for them.
                let closes = matches!(message, FromWorker::Closed(..) | FromWorker::Ended(_));
                at_once |= closes || taken == MESSAGES_PER_WORKER;
                self.take(place, &message);
                self.workers[place].receiver.give_back(message);
            }
        }
        at_once
    }

    /// The next window that all workers have closed, in order of time.
    pub fn next_view(&mut self) -> Option<WindowView> {
        let watermark = self.watermark()?;
        let (&number, _) = self.open.first_key_value()?;
        if number > watermark {
            return None;
        }
        let window = self.open.remove(&number)?;
        self.given_up_to = Some(number);
        self.rows_full_packets += window.rows_full_packets;
        self.workers.iter_mut().for_each(|worker| worker.settle(number));
        let view = self.view(number, window);
        self.latest = self.latest.max(view.end);
        self.note_stations(&view);
        Some(view)
    }

    /// Tells the ways between taps who sent; without them, that time has come so far.
    fn note_stations(&mut self, view: &WindowView) {
        if self.paths.is_none() {
            self.migrations.window((view.start, view.end), &[], None);
            return;
        }
        let parts = view.conversations.parts(PART_CONVERSATIONS);
        for part in parts.take(NOTED_CONVERSATIONS_MAX / PART_CONVERSATIONS) {
            if let Some(paths) = &mut self.paths {
                for (key, conversation) in &part {
                    paths.note(view.number, key, conversation.packets);
                }
            }
            // Workers whose window is not over go on meanwhile.
            self.collect();
        }
    }

    /// Takes the memory of a view back, for one to come.
    pub fn recycle(&mut self, view: WindowView) {
        let mut conversations = view.conversations;
        if self.spare_views.len() < SPARE_MAX {
            conversations.clear();
            self.spare_views.push(conversations);
        }
    }

    /// Flows that have ended since the last call, in a fixed order.
    pub fn take_ended_flows(&mut self) -> EndedFlows {
        let mut flows = std::mem::take(&mut self.ended_flows);
        flows.sort();
        flows
    }

    /// Rows without packets of windows that may be given out already, since the last call, in a
    /// fixed order.
    pub fn take_late_rows(&mut self) -> Vec<LateRow> {
        let mut rows = std::mem::take(&mut self.late_rows);
        ended::sort_late(&mut rows);
        rows
    }

    /// When a window begins and ends.
    pub fn windows(&self) -> WindowClock {
        self.windows
    }

    /// Whether all workers have ended and all windows are given out; the totals are final then.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.is_over();
        if ended {
            self.workers.iter_mut().for_each(|worker| worker.settle(LAST));
        }
        ended
    }

    fn is_over(&self) -> bool {
        self.workers.iter().all(|worker| worker.ended) && self.open.is_empty()
    }

    /// The account of every packet so far.
    pub fn ledger(&self) -> LedgerTotals {
        let workers = self.workers.iter();
        LedgerTotals::new(
            workers.map(|worker| WorkerAccount {
                totals: worker.latest.totals,
                rows_packets: worker.rows_packets,
                ended: worker.settled,
            }),
            self.rows_full_packets,
        )
    }

    /// Totals of each worker as of the window given out last.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerTotals> {
        self.workers.iter().map(|worker| &worker.latest.totals)
    }

    /// Counts of each tap so far, by [`crate::index::TapIndex`].
    pub fn taps(&self) -> Vec<TapTotals> {
        let mut sums: Vec<TapTotals> = Vec::new();
        for worker in &self.workers {
            sums.resize(sums.len().max(worker.latest.taps.len()), TapTotals::default());
            for (sum, tap) in sums.iter_mut().zip(&worker.latest.taps) {
                sum.merge(tap);
            }
        }
        sums
    }

    /// Packets of rows that came after their window was given out.
    pub fn late_rows_packets(&self) -> u64 {
        self.late_rows_packets
    }

    /// Up to which window every worker is done; all of them once they have ended.
    fn watermark(&self) -> Option<WindowNumber> {
        let closed = |worker: &FromOne| {
            if worker.ended { Some(LAST) } else { worker.closed }
        };
        self.workers.iter().map(closed).min().flatten()
    }

    fn take(&mut self, place: usize, message: &FromWorker) {
        match message {
            FromWorker::Rows(block) => {
                let packets: u64 = block.rows.iter().map(Row::packets_sum).sum();
                self.workers[place].rows_packets += packets;
                self.add(block, packets);
            }
            FromWorker::Flows(flows) => self.ended_flows.add(flows),
            FromWorker::Late(rows) => {
                let room = LATE_ROWS_MAX - self.late_rows.len().min(LATE_ROWS_MAX);
                let taken = rows.len().min(room);
                self.late_rows.extend_from_slice(rows.get(..taken).unwrap_or_default());
                self.measures_lost += (rows.len() - taken) as u64;
            }
            FromWorker::Paths(trajectories) => {
                if let Some(paths) = &mut self.paths {
                    paths.take(trajectories);
                }
            }
            FromWorker::Closed(window, snapshot) => {
                let worker = &mut self.workers[place];
                worker.closed = Some(*window);
                worker.snapshots.push_back((*window, snapshot.duplicate()));
                // A window without traffic is given out all the same, so that the page moves on.
                if self.given_up_to.is_none_or(|given| given < *window) {
                    self.open_window(*window);
                }
            }
            FromWorker::Ended(snapshot) => {
                let worker = &mut self.workers[place];
                worker.ended = true;
                worker.snapshots.push_back((LAST, snapshot.duplicate()));
            }
        }
    }

    /// Adds the rows of a block, which have so many packets.
    fn add(&mut self, block: &RowBlock, packets: u64) {
        let oldest = self.given_up_to.map(WindowNumber::next);
        let late = oldest.is_some_and(|oldest| block.window < oldest);
        let number = if late { oldest.unwrap_or(block.window) } else { block.window };
        let all_max = FULL_WINDOWS_MAX.saturating_mul(self.rows_max);
        let room = all_max.saturating_sub(self.conversations);
        let rows_max = self.rows_max;
        let window = self.open_window(number);
        let before = window.conversations.len();
        let full_packets = window.conversations.add(block, rows_max.min(before + room));
        window.rows_full_packets += full_packets;
        let added = window.conversations.len() - before;
        if late {
            window.late_packets += packets;
            self.late_rows_packets += packets;
        }
        self.conversations += added;
    }

    fn open_window(&mut self, number: WindowNumber) -> &mut OpenWindow {
        self.open.entry(number).or_insert_with(|| {
            let spare = self.spare_tables.pop();
            let mut table = spare.unwrap_or_else(|| ConversationTable::new(self.seed));
            if let Some(memory) = self.spare_views.pop() {
                table.take_memory(memory);
            }
            OpenWindow::new(table)
        })
    }

    /// The conversations of a window that is over, sorted; its index is kept for the next.
    fn sorted(&mut self, mut table: ConversationTable) -> Conversations {
        self.conversations -= table.len();
        // Workers whose window is not over go on meanwhile.
        let sorted = table.sort(|| {
            self.collect();
        });
        if self.spare_tables.len() < SPARE_MAX {
            self.spare_tables.push(table);
        }
        sorted
    }

    fn view(&mut self, number: WindowNumber, window: OpenWindow) -> WindowView {
        let length_ns = self.windows.length_ns();
        let conversations = self.sorted(window.conversations);
        let measures_lost = std::mem::take(&mut self.measures_lost) + conversations.extras().lost();
        let taps = self.taps();
        let before = std::mem::replace(&mut self.reported_taps, taps.clone());
        let mut taps = TapView::differences(&taps, &before);
        TapView::count_conversations(&mut taps, &conversations);
        let ledger = self.ledger();
        let ledger_before = std::mem::replace(&mut self.reported, ledger.clone());
        let workers: Vec<WorkerTotals> = self.workers().copied().collect();
        let workers_before = std::mem::replace(&mut self.reported_workers, workers.clone());
        WindowView {
            number,
            workers,
            workers_before,
            start: number.start(length_ns),
            end: number.end(length_ns),
            conversations,
            measures_lost,
            taps,
            ledger,
            ledger_before,
            late_packets: window.late_packets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Application;
    use crate::counters::DropCause;
    use crate::decode::Address;
    use crate::flow::FlowOutput;
    use crate::index::{FlowIndex, Sender, TapIndex};
    use crate::spread::FlowKey;
    use crate::window::{Ends, HandoffSender, RowFacts, handoff};

    /// Sends `packets` packets of the `number`-th pair of addresses.
    fn send(sender: &mut HandoffSender, window: u64, number: u8, packets: u64) {
        let key = FlowKey { low: Address::v4([10, 0, 0, number]), ..FlowKey::default() };
        let mut row = Row::of(&RowFacts {
            flow: FlowIndex(number.into()),
            key: &key,
            initiator: Sender::Low,
            ends: Ends::default(),
            tap: TapIndex(0),
            application: Application::Unknown,
            counts_flow: true,
        });
        for _ in 0..packets {
            row.count(Sender::Low, 100, false);
            sender.count(WindowNumber(window), 1);
        }
        sender.begin_row(WindowNumber(window), &row);
    }

    /// Totals of a worker that has received and booked `booked` packets.
    fn close(sender: &mut HandoffSender, window: u64, booked: u64) {
        let mut totals = WorkerTotals {
            received_packets: booked,
            booked_packets: booked,
            ..WorkerTotals::default()
        };
        assert!(sender.send_window(WindowNumber(window), usize::MAX));
        assert!(sender.close(WindowNumber(window), &mut totals, &[]));
    }

    #[test]
    fn what_found_no_room_is_settled_with_its_window() {
        let (mut sender, receiver) = handoff(8, 8, false);
        let (mut slow, slow_receiver) = handoff(8, 8, false);
        let windows = WindowClock::new(1_000, 0);
        let mut aggregator = Aggregator::new(vec![receiver, slow_receiver], windows, 1);
        // The first worker is a window ahead, and in that one most found no room.
        send(&mut sender, 1, 1, 5);
        send(&mut sender, 1, 2, 2);
        close(&mut sender, 1, 7);
        send(&mut sender, 2, 1, 1);
        send(&mut sender, 2, 2, 40);
        close(&mut sender, 2, 48);
        close(&mut slow, 1, 0);
        while aggregator.collect() {}
        let view = aggregator.next_view().expect("both have closed it");
        let full = |ledger: &LedgerTotals| ledger.causes.of(DropCause::WindowRowsFull);
        assert_eq!((view.number, full(&view.ledger)), (WindowNumber(1), 2));
        assert_eq!((view.ledger.accounted, view.ledger.unaccounted), (5, 0));
        assert_eq!(view.ledger.received, 7);
        assert!(aggregator.next_view().is_none(), "the slow one has not closed it");
        close(&mut slow, 2, 0);
        while aggregator.collect() {}
        let view = aggregator.next_view().expect("both have closed it");
        assert_eq!((full(&view.ledger), view.ledger.accounted), (42, 6));
        assert_eq!((view.ledger.received, view.ledger.unaccounted), (48, 0));
    }

    #[test]
    fn windows_that_wait_for_a_worker_are_bounded_together() {
        const ROWS_MAX: usize = 10;
        let (mut sender, receiver) = handoff(64, 8, false);
        let (mut slow, slow_receiver) = handoff(8, 8, false);
        let windows = WindowClock::new(1_000, 0);
        let mut aggregator = Aggregator::new(vec![receiver, slow_receiver], windows, 10);
        let mut booked = 0;
        for window in 1..=8 {
            for number in 0..100 {
                send(&mut sender, window, number, 1);
            }
            booked += 100;
            close(&mut sender, window, booked);
            while aggregator.collect() {}
            assert!(aggregator.conversations <= FULL_WINDOWS_MAX * ROWS_MAX);
        }
        close(&mut slow, 8, 0);
        while aggregator.collect() {}
        let mut kept = Vec::new();
        while let Some(view) = aggregator.next_view() {
            kept.push(view.conversations.len());
            assert_eq!(view.ledger.unaccounted, 0);
            aggregator.recycle(view);
        }
        assert_eq!(kept, [10, 10, 10, 10, 0, 0, 0, 0]);
        let ledger = aggregator.ledger();
        assert_eq!((ledger.accounted, ledger.causes.of(DropCause::WindowRowsFull)), (40, 760));
        assert_eq!((aggregator.conversations, ledger.unaccounted), (0, 0));
        assert!(aggregator.spare_tables.len() <= SPARE_MAX);
        assert!(aggregator.spare_views.len() <= SPARE_MAX);
    }
}
