//! From a worker to the aggregator: rows and ended flows in blocks, closed windows.
//!
//! In: rows, ended flows, closed windows. Out: the same in order, by a bounded ring.
//! Cost: one store a row; the ring is touched once a block. Blocks are made at start and come
//! back empty.
//! Invariants: with a live source nothing waits: what finds no room is lost and counted in
//! packets. With a file source, and at the end of any, the worker waits. A window's closing comes
//! after all its rows.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::counters::{DropCause, Snapshot, TapTotals, WorkerTotals};
use crate::flow::{EndedFlow, FlowOutput};
use crate::index::WindowNumber;

use super::Row;

/// Rows in a block.
const ROWS_PER_BLOCK: usize = 256;

/// Ended flows in a block.
const FLOWS_PER_BLOCK: usize = 64;

/// Closed windows that can wait beside the blocks.
const CLOSED_MAX: usize = 8;

/// What the aggregator gets from a worker.
pub enum FromWorker {
    /// Rows of one or several windows.
    Rows(Vec<Row>),
    /// Flows for which records are due.
    Flows(Vec<EndedFlow>),
    /// All windows up to this one are closed; all their rows came before.
    Closed(WindowNumber, Box<Snapshot>),
    /// The worker has ended; all its windows are closed.
    Ended(Box<Snapshot>),
}

struct Shared {
    full: ArrayQueue<FromWorker>,
    rows: ArrayQueue<Vec<Row>>,
    flows: ArrayQueue<Vec<EndedFlow>>,
    snapshots: ArrayQueue<Box<Snapshot>>,
}

/// Makes the way from one worker to the aggregator, with `blocks` blocks of each kind. `waits`:
/// the source is a file.
pub fn handoff(blocks: usize, waits: bool) -> (HandoffSender, HandoffReceiver) {
    let shared = Arc::new(Shared {
        full: ArrayQueue::new(2 * blocks + CLOSED_MAX + 1),
        rows: ArrayQueue::new(blocks),
        flows: ArrayQueue::new(blocks),
        snapshots: ArrayQueue::new(CLOSED_MAX),
    });
    for _ in 1..blocks {
        let _ = shared.rows.push(Vec::with_capacity(ROWS_PER_BLOCK));
        let _ = shared.flows.push(Vec::with_capacity(FLOWS_PER_BLOCK));
    }
    for _ in 0..CLOSED_MAX {
        let _ = shared.snapshots.push(Box::default());
    }
    let sender = HandoffSender {
        rows: Vec::with_capacity(ROWS_PER_BLOCK),
        flows: Vec::with_capacity(FLOWS_PER_BLOCK),
        shared: Arc::clone(&shared),
        waits,
        cut_packets: 0,
        lost_packets: 0,
        lost_flow_records: 0,
    };
    (sender, HandoffReceiver { shared })
}

/// The worker's end.
pub struct HandoffSender {
    rows: Vec<Row>,
    flows: Vec<EndedFlow>,
    shared: Arc<Shared>,
    waits: bool,
    cut_packets: u64,
    lost_packets: u64,
    lost_flow_records: u64,
}

impl HandoffSender {
    /// Says that all windows up to `window` are closed. `false`: the aggregator is far behind;
    /// say it again in a later turn.
    pub fn close(
        &mut self,
        window: WindowNumber,
        totals: &mut WorkerTotals,
        taps: &[TapTotals],
    ) -> bool {
        self.flush();
        self.note(totals);
        self.send_snapshot(totals, taps, |snapshot| FromWorker::Closed(window, snapshot))
    }

    /// From now on waits for room, whatever the source: it is polled no more, so nothing is missed
    /// meanwhile. Called before all flows are ended at once, which are more than the blocks hold.
    pub fn drain(&mut self) {
        self.waits = true;
    }

    /// Says that the worker has ended. Its last blocks are lost where they find no room, unless
    /// [`HandoffSender::drain`] was called; this word itself waits for room in any case.
    pub fn end(&mut self, totals: &mut WorkerTotals, taps: &[TapTotals]) {
        self.flush();
        self.note(totals);
        while !self.send_snapshot(totals, taps, FromWorker::Ended) {
            std::thread::yield_now();
        }
    }

    /// Writes what this end counted into the worker's totals.
    pub fn note(&self, totals: &mut WorkerTotals) {
        totals.cut_packets = self.cut_packets;
        totals.flow_records_lost = self.lost_flow_records;
        let known = totals.causes.of(DropCause::WindowRingFull);
        totals.causes.add(DropCause::WindowRingFull, self.lost_packets - known);
    }

    /// Sends blocks that are not full yet, so that a quiet probe shows its flows in time.
    pub fn flush(&mut self) {
        self.send_rows();
        self.send_flows();
    }

    fn send_rows(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        match self.take_spare(|shared| shared.rows.pop()) {
            Some(spare) => {
                let block = std::mem::replace(&mut self.rows, spare);
                self.send(FromWorker::Rows(block));
            }
            None => {
                self.lost_packets += self.rows.iter().map(Row::packets_sum).sum::<u64>();
                self.rows.clear();
            }
        }
    }

    fn send_flows(&mut self) {
        if self.flows.is_empty() {
            return;
        }
        match self.take_spare(|shared| shared.flows.pop()) {
            Some(spare) => {
                let block = std::mem::replace(&mut self.flows, spare);
                self.send(FromWorker::Flows(block));
            }
            None => {
                self.lost_flow_records += self.flows.len() as u64;
                self.flows.clear();
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
                None if self.waits => std::thread::yield_now(),
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
    fn row(&mut self, row: Row) {
        self.cut_packets += row.packets_sum();
        self.rows.push(row);
        if self.rows.len() == ROWS_PER_BLOCK {
            self.send_rows();
        }
    }

    #[inline]
    fn ended(&mut self, flow: EndedFlow) {
        self.flows.push(flow);
        if self.flows.len() == FLOWS_PER_BLOCK {
            self.send_flows();
        }
    }
}

/// The aggregator's end.
pub struct HandoffReceiver {
    shared: Arc<Shared>,
}

impl HandoffReceiver {
    /// The next message, if any.
    pub fn take(&self) -> Option<FromWorker> {
        self.shared.full.pop()
    }

    /// Gives a message's memory back.
    pub fn give_back(&self, message: FromWorker) {
        // Each of these rings has room for all blocks of its kind.
        match message {
            FromWorker::Rows(mut rows) => {
                rows.clear();
                let _ = self.shared.rows.push(rows);
            }
            FromWorker::Flows(mut flows) => {
                flows.clear();
                let _ = self.shared.flows.push(flows);
            }
            FromWorker::Closed(_, snapshot) | FromWorker::Ended(snapshot) => {
                let _ = self.shared.snapshots.push(snapshot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended_flow() -> EndedFlow {
        let reason = crate::flow::EndReason::ForcedEnd;
        EndedFlow { flow: crate::flow::Biflow::default(), reason, sampling_rate: 1.0 }
    }

    fn row() -> Row {
        Row { packets: [1, 1], ..Row::default() }
    }

    #[test]
    fn a_live_worker_loses_and_counts_what_finds_no_room() {
        let (mut sender, receiver) = handoff(2, false);
        for _ in 0..3 * ROWS_PER_BLOCK {
            sender.row(row());
        }
        let mut totals = WorkerTotals::default();
        sender.note(&mut totals);
        let lost = totals.causes.of(DropCause::WindowRingFull);
        assert_eq!((totals.cut_packets, lost), (6 * 256, 2 * 2 * 256));
        let mut taken = 0;
        while let Some(message) = receiver.take() {
            if let FromWorker::Rows(rows) = &message {
                taken += rows.iter().map(Row::packets_sum).sum::<u64>();
            }
            receiver.give_back(message);
        }
        assert_eq!(taken + lost, totals.cut_packets);
    }

    #[test]
    fn a_file_worker_waits() {
        let (mut sender, receiver) = handoff(2, true);
        let producer = std::thread::spawn(move || {
            for _ in 0..20 * ROWS_PER_BLOCK {
                sender.row(row());
            }
            sender.end(&mut WorkerTotals::default(), &[]);
        });
        let mut rows_taken = 0;
        loop {
            let Some(message) = receiver.take() else {
                std::thread::yield_now();
                continue;
            };
            let ended = matches!(message, FromWorker::Ended(_));
            if let FromWorker::Rows(rows) = &message {
                rows_taken += rows.len();
            }
            receiver.give_back(message);
            if ended {
                break;
            }
        }
        producer.join().expect("the worker ends");
        assert_eq!(rows_taken, 20 * ROWS_PER_BLOCK);
    }

    #[test]
    fn a_live_worker_that_drains_waits_too() {
        const FLOWS: usize = 110_000;
        let (mut sender, receiver) = handoff(256, false);
        let producer = std::thread::spawn(move || {
            sender.drain();
            for _ in 0..FLOWS {
                sender.ended(ended_flow());
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
                flows_taken += flows.len();
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

    #[test]
    fn closing_comes_after_the_rows() {
        let (mut sender, receiver) = handoff(4, false);
        sender.row(row());
        assert!(sender.close(WindowNumber(3), &mut WorkerTotals::default(), &[]));
        assert!(matches!(receiver.take(), Some(FromWorker::Rows(_))));
        assert!(matches!(receiver.take(), Some(FromWorker::Closed(WindowNumber(3), _))));
    }
}
