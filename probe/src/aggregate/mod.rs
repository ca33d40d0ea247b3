//! All workers' windows to one view.
//!
//! In: rows, ended flows and closed windows of all workers. Out: a [`WindowView`] a window, once
//! every worker has closed it; ended flows.
//! Cost: look-ups of many rows at once; memory is that of the open windows' conversations, some 60
//! bytes each, and is used again from window to window.
//! Invariants: a window is given out once, when the slowest worker has closed it; what comes for
//! it later is booked in the oldest open one and counted as late. At most `rows_max` conversations
//! a window and [`FULL_WINDOWS_MAX`] times as many in all windows that wait for the slowest worker,
//! and no more than [`OPEN_WINDOWS_MAX`] windows of live sources; the packets of what finds no room
//! are a ledger cause. Nothing is taken from workers while [`OVER_WINDOWS_MAX`] windows are over and
//! wait to be given out, or fewer with many conversations. What is measured takes [`MEASURED_BYTES_MAX`] in all of them; what finds no
//! room there is counted. Views are sorted, so they do not depend on the number of workers.
//! Source: watermarks, METHODS "windows"; RFC 7011 §2 for terms.

pub mod apps;
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

pub use conversation::{Conversation, ConversationKey, Observers};
pub use conversations::{Conversations, Iter as ConversationsIter};
pub use ended::EndedFlows;
pub use extras::{Direction, Extra, ExtraPlace, Extras};
pub use ledger::{LedgerTotals, StageAccount, WorkerAccount};
pub use migrations::{Migrant, Migration, Migrations};
pub use view::{TapView, WindowView};

use std::collections::{BTreeMap, VecDeque};

use crate::counters::{Snapshot, TapTotals, WorkerTotals};
use crate::index::WindowNumber;
use crate::spread::HashSeed;
use crate::time::Timestamp;
use crate::window::{FromWorker, HandoffReceiver, LateRow, Row, RowBlock, WindowClock};
use apps::{Apps, Transaction};
use ended::LATE_ROWS_MAX;
use path::{PathView, Paths};
use table::{ConversationTable, Room};

/// Messages taken from one worker before the next one's turn.
const MESSAGES_PER_WORKER: usize = 128;

/// Windows with `rows_max` conversations that may be open at once: the one that fills, the one
/// whose grace lasts, and as many again for a worker that is late.
const FULL_WINDOWS_MAX: usize = 4;

/// Conversations that are looked at between two looks at the workers.
const PART_CONVERSATIONS: usize = 4_096;

/// Conversations of a window that may show which network card an endpoint has.
const NOTED_CONVERSATIONS_MAX: usize = 1 << 18;

/// Windows that may be over and wait to be given out. Who makes records of one hears the workers
/// meanwhile; with more of them what workers hand over would only move from their rings, which have a
/// bound, to tables.
const OVER_WINDOWS_MAX: usize = 4;

/// What part of `rows_max` their conversations may be, likewise: one window that is full is enough.
const OVER_PART: usize = 4;

/// Windows of live sources that may be open, those that wait for a slow worker among them: at windows
/// of a second, as many seconds that a worker may stand still before its companions' rows are lost.
const OPEN_WINDOWS_MAX: usize = 256;

/// Bytes of all that is measured in conversations of open windows at most.
const MEASURED_BYTES_MAX: usize = 256 << 20;

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
    /// It stands for all windows beyond [`OPEN_WINDOWS_MAX`], and has room for no row.
    is_beyond: bool,
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
    /// Bytes of what was measured in them.
    measured_bytes: usize,
    /// A source is live, so that workers do not wait for each other.
    is_live: bool,
    /// So much waits to be given out that nothing is taken from workers.
    is_behind: bool,
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
    apps: Option<Apps>,
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
            is_live: receivers.iter().any(|receiver| !receiver.waits()),
            workers: receivers.into_iter().map(one).collect(),
            open: BTreeMap::new(),
            given_up_to: None,
            windows,
            rows_max: rows_max as usize,
            conversations: 0,
            measured_bytes: 0,
            is_behind: false,
            spare_tables: Vec::new(),
            spare_views: Vec::new(),
            seed: HashSeed::random(),
            rows_full_packets: 0,
            late_rows_packets: 0,
            ended_flows: EndedFlows::default(),
            late_rows: Vec::new(),
            measures_lost: 0,
            paths: None,
            apps: None,
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

    /// Adds transactions of applications.
    #[must_use]
    pub fn with_apps(mut self, apps: Option<Apps>) -> Self {
        self.apps = apps;
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

    /// Takes what the workers have handed over, a bounded part of it. `false`: that was all for now,
    /// and there is time to wait until more has come. Who takes each block as it comes has the caches
    /// of a worker's core as often, where they share one.
    pub fn collect(&mut self) -> bool {
        let mut at_once = false;
        for place in 0..self.workers.len() {
            for taken in 1..=MESSAGES_PER_WORKER {
                if self.is_behind {
                    return at_once;
                }
                let Some(message) = self.workers[place].receiver.take() else { break };
                // Few closed windows can wait, and nobody should wait for them.
                let closes = matches!(message, FromWorker::Closed(..) | FromWorker::Ended(_));
                at_once |= closes || taken == MESSAGES_PER_WORKER;
                self.take(place, &message);
                self.workers[place].receiver.give_back(message);
                if closes {
                    self.count_over();
                }
            }
        }
        at_once
    }

    /// As [`Aggregator::collect`], for who works on a window meanwhile: there may be as much as fills
    /// another one, and the rest waits in the rings.
    pub fn listen(&mut self) {
        if self.conversations < self.rows_max {
            self.collect();
        }
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
        self.count_over();
        self.rows_full_packets += window.rows_full_packets;
        self.workers.iter_mut().for_each(|worker| worker.settle(number));
        let view = self.view(number, window);
        self.latest = self.latest.max(view.end);
        if let Some(apps) = &mut self.apps {
            apps.expire(view.end);
        }
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

    /// Transactions that were over before the end of the last window given out, since the last call, in a
    /// fixed order, all others once all is given out; and how many messages were lost, or were none.
    pub fn take_transactions(&mut self) -> (Vec<Transaction>, [u64; 2]) {
        let is_over = self.is_over();
        let Some(apps) = &mut self.apps else { return (Vec::new(), [0; 2]) };
        if is_over {
            apps.end();
        }
        apps.done(if is_over { Timestamp(u64::MAX) } else { self.latest })
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

    /// Looks at what waits to be given out.
    fn count_over(&mut self) {
        let watermark = self.watermark();
        let over = self.open.iter().take_while(|(number, _)| Some(**number) <= watermark);
        let (mut windows, mut conversations) = (0, 0);
        for (_, window) in over.take(OVER_WINDOWS_MAX) {
            windows += 1;
            conversations += window.conversations.len();
        }
        self.is_behind = windows == OVER_WINDOWS_MAX
            || conversations > 0 && conversations >= self.rows_max / OVER_PART;
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
            FromWorker::Excerpts(block) => {
                if let Some(apps) = &mut self.apps {
                    apps.take(block);
                }
            }
            FromWorker::Closed(window, snapshot) => {
                // A window without traffic is given out all the same, so that the page moves on.
                if self.given_up_to.is_none_or(|given| given < *window) {
                    self.open_window(*window);
                }
                self.close(place, *window, snapshot);
            }
            FromWorker::Ended(snapshot) => {
                let worker = &mut self.workers[place];
                worker.ended = true;
                worker.snapshots.push_back((LAST, snapshot.duplicate()));
            }
        }
    }

    /// A worker has closed a window.
    fn close(&mut self, place: usize, window: WindowNumber, snapshot: &Snapshot) {
        let worker = &mut self.workers[place];
        worker.closed = Some(window);
        let snapshot = (window, snapshot.duplicate());
        // Of the windows that one stands for the last word is enough.
        let last = self.open.last_key_value().filter(|(_, window)| window.is_beyond);
        let before = self.open.keys().nth_back(1);
        match worker.snapshots.back_mut() {
            Some(known) if last.is_some() && before.is_none_or(|before| known.0 > *before) => {
                *known = snapshot;
            }
            _ => worker.snapshots.push_back(snapshot),
        }
    }

    /// Adds the rows of a block, which have so many packets.
    fn add(&mut self, block: &RowBlock, packets: u64) {
        let oldest = self.given_up_to.map(WindowNumber::next);
        let late = oldest.is_some_and(|oldest| block.window < oldest);
        let number = if late { oldest.unwrap_or(block.window) } else { block.window };
        let all_max = FULL_WINDOWS_MAX.saturating_mul(self.rows_max);
        let room = all_max.saturating_sub(self.conversations);
        let measured_room = MEASURED_BYTES_MAX.saturating_sub(self.measured_bytes);
        let rows_max = self.rows_max;
        let window = self.open_window(number);
        let (before, measured) =
            (window.conversations.len(), window.conversations.measured_bytes());
        let entries_max = if window.is_beyond { 0 } else { rows_max.min(before + room) };
        let room = Room { entries_max, measured_bytes_max: measured + measured_room };
        window.rows_full_packets += window.conversations.add(block, room);
        let added = window.conversations.len() - before;
        let added_bytes = window.conversations.measured_bytes() - measured;
        if late {
            window.late_packets += packets;
            self.late_rows_packets += packets;
        }
        self.conversations += added;
        self.measured_bytes += added_bytes;
    }

    /// A window; where there are too many already the one that stands for all beyond.
    fn open_window(&mut self, number: WindowNumber) -> &mut OpenWindow {
        let is_full = self.is_live && self.open.len() >= OPEN_WINDOWS_MAX;
        let is_beyond = is_full && !self.open.contains_key(&number);
        let number = if is_beyond { self.go_beyond(number) } else { number };
        self.open.entry(number).or_insert_with(|| {
            let spare = self.spare_tables.pop();
            let mut table = spare.unwrap_or_else(|| ConversationTable::new(self.seed));
            if let Some(memory) = self.spare_views.pop() {
                table.take_memory(memory);
            }
            OpenWindow { conversations: table, late_packets: 0, rows_full_packets: 0, is_beyond }
        })
    }

    /// Where the window is from now on that stands for `number` and all others beyond: it is given
    /// out when all of them are over.
    fn go_beyond(&mut self, number: WindowNumber) -> WindowNumber {
        let Some((last, window)) = self.open.pop_last() else { return number };
        if window.is_beyond {
            self.open.insert(last.max(number), window);
            return last.max(number);
        }
        self.open.insert(last, window);
        last.next().max(number)
    }

    /// The conversations of a window that is over, sorted; its index is kept for the next.
    fn sorted(&mut self, mut table: ConversationTable) -> Conversations {
        self.conversations -= table.len();
        self.measured_bytes -= table.measured_bytes();
        // Workers whose window is not over go on meanwhile.
        let sorted = table.sort(|| self.listen());
        if self.spare_tables.len() < SPARE_MAX {
            self.spare_tables.push(table);
        }
        sorted
    }

    fn view(&mut self, number: WindowNumber, window: OpenWindow) -> WindowView {
        let length_ns = self.windows.length_ns();
        let lost = window.conversations.measures_lost();
        let conversations = self.sorted(window.conversations);
        let measures_lost = std::mem::take(&mut self.measures_lost) + lost;
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
mod tests;
