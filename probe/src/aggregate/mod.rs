//! All workers' windows to one view.
//!
//! In: rows, ended flows and closed windows of all workers. Out: a [`WindowView`] a window, once
//! every worker has closed it; ended flows.
//! Cost: one map look-up a row; memory is that of the open windows' conversations.
//! Invariants: a window is given out once, when the slowest worker has closed it; what comes for
//! it later is booked in the oldest open one and counted as late. At most `rows_max` conversations
//! a window; the packets of what finds no room are a ledger cause. Views are sorted, so they do
//! not depend on the number of workers.
//! Source: watermarks, METHODS "windows"; RFC 7011 §2 for terms.

pub mod conversation;
mod ledger;
pub mod live;
mod view;

pub use conversation::{Conversation, ConversationKey};
pub use ledger::{LedgerTotals, StageAccount, WorkerAccount};
pub use view::{TapView, WindowView};

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::counters::{Snapshot, TapTotals, WorkerTotals};
use crate::flow::EndedFlow;
use crate::index::WindowNumber;
use crate::window::{FromWorker, HandoffReceiver, Row, RowBlock, WindowClock};

/// Messages taken from one worker before the next one's turn.
const MESSAGES_PER_WORKER: usize = 64;

/// Stands for the end of a worker.
const LAST: WindowNumber = WindowNumber(u64::MAX);

#[derive(Default)]
struct OpenWindow {
    conversations: HashMap<ConversationKey, Conversation>,
    late_packets: u64,
    /// Packets of rows that found no room in it.
    rows_full_packets: u64,
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
    /// Of the windows that are given out: the workers' totals cover the same ones.
    rows_full_packets: u64,
    late_rows_packets: u64,
    ended_flows: Vec<EndedFlow>,
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
            rows_full_packets: 0,
            late_rows_packets: 0,
            ended_flows: Vec::new(),
            reported_taps: Vec::new(),
            reported: LedgerTotals::default(),
            reported_workers: Vec::new(),
        }
    }

    /// Takes what the workers have handed over, a bounded part of it; `false` if there was
    /// nothing.
    pub fn collect(&mut self) -> bool {
        let mut any = false;
        for place in 0..self.workers.len() {
            for _ in 0..MESSAGES_PER_WORKER {
                let Some(message) = self.workers[place].receiver.take() else { break };
                any = true;
                self.take(place, &message);
                self.workers[place].receiver.give_back(message);
            }
        }
        any
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
        Some(self.view(number, window))
    }

    /// Flows that have ended since the last call, in a fixed order.
    pub fn take_ended_flows(&mut self) -> Vec<EndedFlow> {
        let mut flows = std::mem::take(&mut self.ended_flows);
        flows.sort_by_key(|ended| {
            let key = &ended.flow.key;
            (ended.flow.record_start, key.space, key.low, key.high, key.low_port, key.high_port)
        });
        flows
    }

    /// Whether all workers have ended and all windows are given out; the totals are final then.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.workers.iter().all(|worker| worker.ended) && self.open.is_empty();
        if ended {
            self.workers.iter_mut().for_each(|worker| worker.settle(LAST));
        }
        ended
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
                for row in &block.rows {
                    self.workers[place].rows_packets += row.packets_sum();
                    self.add(row, block);
                }
            }
            FromWorker::Flows(flows) => self.ended_flows.extend_from_slice(flows),
            FromWorker::Closed(window, snapshot) => {
                let worker = &mut self.workers[place];
                worker.closed = Some(*window);
                worker.snapshots.push_back((*window, snapshot.duplicate()));
                // A window without traffic is given out all the same, so that the page moves on.
                if self.given_up_to.is_none_or(|given| given < *window) {
                    self.open.entry(*window).or_default();
                }
            }
            FromWorker::Ended(snapshot) => {
                let worker = &mut self.workers[place];
                worker.ended = true;
                worker.snapshots.push_back((LAST, snapshot.duplicate()));
            }
        }
    }

    fn add(&mut self, row: &Row, block: &RowBlock) {
        let oldest = self.given_up_to.map(WindowNumber::next);
        let late = oldest.is_some_and(|oldest| block.window < oldest);
        let number = if late { oldest.unwrap_or(block.window) } else { block.window };
        let packets = row.packets_sum();
        let window = self.open.entry(number).or_default();
        if late {
            self.late_rows_packets += packets;
            window.late_packets += packets;
        }
        let key = ConversationKey::of(row);
        if window.conversations.len() >= self.rows_max && !window.conversations.contains_key(&key) {
            window.rows_full_packets += packets;
            return;
        }
        window.conversations.entry(key).or_default().add(row, block.sampling_rate);
    }

    fn view(&mut self, number: WindowNumber, window: OpenWindow) -> WindowView {
        let length_ns = self.windows.length_ns();
        let mut conversations: Vec<_> = window.conversations.into_iter().collect();
        conversations.sort_unstable_by_key(|(key, _)| *key);
        let taps = self.taps();
        let before = std::mem::replace(&mut self.reported_taps, taps.clone());
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
            taps: TapView::differences(&taps, &before),
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
            sender.count(WindowNumber(window));
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
        assert!(sender.send_window(WindowNumber(window), usize::MAX, false));
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
}
