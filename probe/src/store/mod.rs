//! The store: a thread that owns the Parquet sink, and the way to the query program.
//!
//! In: batches of [`Rows`] with their time, over a bounded channel. Out: files, [`StoreReport`].
//! Cost: the sender's is one push; disk and encoding are this thread's.
//! Invariants: a live sender never waits; a batch that is refused is given back or counted;
//! made = delivered + queued + Σ dropped over the handle and the sink together.

pub mod query;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::export::{ParquetSink, SinkCause, SinkHealth, SinkLedger};
use crate::record::{Rows, Table};
use crate::time::{Timestamp, sleep_ms, wall_clock};

/// Batches between sender and thread. A window's rows are one batch, so this is seconds.
const BATCHES_MAX: usize = 16;
/// How often an idle thread looks for files that are due, in milliseconds.
const TICK_MS: u64 = 500;
/// Attempts to store what is left at the end, and the wait between them in milliseconds.
const END_ATTEMPTS: (u32, u64) = (5, 300);

/// Which clock makes files age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreClock {
    /// The wall clock: files are closed in time although nothing comes.
    Wall,
    /// The time of the batches alone: a replay gives the same files each time.
    Batches,
}

/// How the store does, for the page, the metrics and the ledger.
#[derive(Clone, Debug, Default)]
pub struct StoreReport {
    /// The account in records.
    pub ledger: SinkLedger,
    /// Whether the disk takes them.
    pub health: SinkHealth,
}

/// The sender's end. Cheap to share by reference; one [`StoreHandle::finish`] ends the thread.
pub struct StoreHandle {
    batches: Sender<(Rows, Timestamp)>,
    report: Arc<ArcSwap<StoreReport>>,
    /// Records in the channel or refused by it, beside the sink's own account.
    sent: AtomicU64,
    refused: AtomicU64,
    thread: JoinHandle<SinkLedger>,
}

/// Starts the thread.
///
/// # Errors
/// The system's, when it has no thread to give.
pub fn start(sink: ParquetSink, clock: StoreClock) -> io::Result<StoreHandle> {
    let (sender, batches) = bounded(BATCHES_MAX);
    let report = Arc::new(ArcSwap::from_pointee(StoreReport {
        health: sink.health().clone(),
        ..StoreReport::default()
    }));
    let published = Arc::clone(&report);
    let thread = std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || run(sink, &batches, clock, &published))?;
    Ok(StoreHandle {
        batches: sender,
        report,
        sent: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        thread,
    })
}

impl StoreHandle {
    /// Hands a batch over without waiting; the batch comes back where the channel is full.
    ///
    /// # Errors
    /// The rows, untouched and not counted.
    #[expect(clippy::result_large_err, reason = "the rows come back, that is the point")]
    pub fn send(&self, rows: Rows, now: Timestamp) -> Result<(), Rows> {
        let count = records(&rows);
        match self.batches.try_send((rows, now)) {
            Ok(()) => {
                self.sent.fetch_add(count, Ordering::Relaxed);
                Ok(())
            }
            Err(TrySendError::Full((rows, _)) | TrySendError::Disconnected((rows, _))) => Err(rows),
        }
    }

    /// Hands a batch over without waiting; where the channel is full, its records are counted as
    /// [`SinkCause::HandOffFull`].
    pub fn send_or_count(&self, rows: Rows, now: Timestamp) {
        if let Err(rows) = self.send(rows, now) {
            self.refused.fetch_add(records(&rows), Ordering::Relaxed);
        }
    }

    /// Hands a batch over and waits for room; for sources that can wait.
    pub fn send_waiting(&self, rows: Rows, now: Timestamp) {
        let count = records(&rows);
        match self.batches.send((rows, now)) {
            Ok(()) => self.sent.fetch_add(count, Ordering::Relaxed),
            Err(_) => self.refused.fetch_add(count, Ordering::Relaxed),
        };
    }

    /// How the store does now; records in the channel are among the queued ones.
    pub fn report(&self) -> StoreReport {
        let mut report = StoreReport::clone(&self.report.load());
        let sent = self.sent.load(Ordering::Relaxed);
        report.ledger.queue(sent.saturating_sub(report.ledger.made));
        self.count_refused(&mut report.ledger);
        report
    }

    /// Stores what is left, ends the thread, and gives the final account: nothing is queued.
    pub fn finish(self) -> SinkLedger {
        let Self { batches, thread, report, refused, .. } = self;
        drop(batches);
        let mut ledger = thread.join().unwrap_or_else(|_| report.load().ledger);
        count_refused(&refused, &mut ledger);
        ledger
    }

    fn count_refused(&self, ledger: &mut SinkLedger) {
        count_refused(&self.refused, ledger);
    }
}

fn count_refused(refused: &AtomicU64, ledger: &mut SinkLedger) {
    let refused = refused.load(Ordering::Relaxed);
    ledger.queue(refused);
    ledger.drop_queued(SinkCause::HandOffFull, refused);
}

/// Whether a folder holds records already: a replay into it would add to them.
pub fn holds_records(folder: &Path) -> bool {
    Table::ALL.iter().any(|table| {
        std::fs::read_dir(folder.join(table.name())).is_ok_and(|mut days| days.next().is_some())
    })
}

fn run(
    mut sink: ParquetSink,
    batches: &Receiver<(Rows, Timestamp)>,
    clock: StoreClock,
    report: &ArcSwap<StoreReport>,
) -> SinkLedger {
    let mut latest = Timestamp::ZERO;
    loop {
        match batches.recv_timeout(Duration::from_millis(TICK_MS)) {
            Ok((rows, now)) => {
                latest = latest.max(now);
                sink.write(rows, latest);
            }
            Err(RecvTimeoutError::Timeout) if clock == StoreClock::Wall => {
                latest = latest.max(wall_clock());
                sink.tick(latest);
            }
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        publish(&mut sink, report);
    }
    let (attempts, wait_ms) = END_ATTEMPTS;
    for attempt in 1..=attempts {
        if sink.close(latest) {
            break;
        }
        publish(&mut sink, report);
        if attempt < attempts {
            sleep_ms(wait_ms);
        }
    }
    sink.give_up()
}

fn publish(sink: &mut ParquetSink, report: &ArcSwap<StoreReport>) {
    let ledger = sink.ledger();
    report.store(Arc::new(StoreReport { ledger, health: sink.health().clone() }));
}

fn records(rows: &Rows) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StorePlan;
    use crate::record::LedgerRecord;

    fn rows(count: usize) -> Rows {
        Rows { ledger: vec![LedgerRecord::default(); count], ..Rows::default() }
    }

    fn plan(folder: std::path::PathBuf) -> StorePlan {
        StorePlan { folder: Some(folder), free_mib_min: 0, ..StorePlan::default() }
    }

    #[test]
    fn all_that_is_sent_is_stored() {
        let folder = std::env::temp_dir().join(format!("vmprobe-store-{}", std::process::id()));
        let sink = ParquetSink::new(&plan(folder.clone()), "p1", "default").expect("a folder");
        assert!(!holds_records(&folder));
        let store = start(sink, StoreClock::Batches).expect("a thread");
        for second in 0..100 {
            store.send_waiting(rows(10), Timestamp::from_parts(second, 0));
        }
        let report = store.report();
        assert_eq!((report.ledger.made, report.ledger.unaccounted()), (1_000, 0));
        let ledger = store.finish();
        assert_eq!((ledger.made, ledger.delivered, ledger.unaccounted()), (1_000, 1_000, 0));
        assert!(holds_records(&folder));
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn a_full_channel_gives_back_or_counts() {
        // A thread that never takes: the channel is the whole store.
        let (sender, batches) = bounded(1);
        let store = StoreHandle {
            batches: sender,
            report: Arc::default(),
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            thread: std::thread::spawn(SinkLedger::default),
        };
        assert!(store.send(rows(1), Timestamp::ZERO).is_ok());
        assert_eq!(store.send(rows(2), Timestamp::ZERO).expect_err("full").len(), 2);
        store.send_or_count(rows(3), Timestamp::ZERO);
        let ledger = store.report().ledger;
        assert_eq!((ledger.made, ledger.queued, ledger.unaccounted()), (4, 1, 0));
        assert_eq!(ledger.dropped(SinkCause::HandOffFull), 3);
        drop(batches);
    }
}
