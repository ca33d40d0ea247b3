//! The store: a thread that owns the Parquet sink, and the way to the query program.
//!
//! In: batches of [`Rows`] with the time that the packets have come to, over a bounded channel. Out: files, [`StoreReport`].
//! Cost: the sender's is one push; disk and encoding are this thread's.
//! Invariants: a sender waits no longer than it says; a batch that is refused is counted; the
//! channel is bounded in batches and in records;
//! made = delivered + queued + Σ dropped over the handle and the sink together.

pub mod query;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{RecvTimeoutError, Sender, TrySendError, bounded};

use crate::export::{ParquetSink, SinkCause, SinkHealth, SinkLedger};
use crate::record::{Rows, Table};
use crate::time::{Timestamp, monotonic_ns, sleep_ms, wall_clock};

/// Batches between sender and thread. A window's rows are one batch, so this is seconds.
const BATCHES_MAX: usize = 64;
/// Records between sender and thread: some 200 MB. One batch with more passes when it is alone.
const RECORDS_MAX: u64 = 1 << 18;
/// How often a sender that waits looks for room, in milliseconds.
const ROOM_MS: u64 = 1;
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
    /// Records that are in the channel now.
    waiting: Arc<AtomicU64>,
    /// Records that went into the channel or were refused by it, beside the sink's own account.
    sent: AtomicU64,
    refused: AtomicU64,
    thread: JoinHandle<SinkLedger>,
}

/// How long a sender waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: packets keep coming.
    None,
    /// Until the monotonic clock stands there.
    UntilNs(u64),
    /// As long as it takes: files wait.
    Endless,
}

impl Patience {
    /// Until when, by the monotonic clock.
    pub const fn until_ns(self) -> u64 {
        match self {
            Self::None => 0,
            Self::UntilNs(until_ns) => until_ns,
            Self::Endless => u64::MAX,
        }
    }

    fn is_over(self) -> bool {
        match self {
            Self::None => true,
            Self::UntilNs(until_ns) => monotonic_ns() >= until_ns,
            Self::Endless => false,
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// The system's, when it has no thread to give.
pub fn start(sink: ParquetSink, clock: StoreClock) -> io::Result<StoreHandle> {
    let (sender, batches) = bounded::<(Rows, Timestamp)>(BATCHES_MAX);
    let report = Arc::new(ArcSwap::from_pointee(StoreReport {
        health: sink.health().clone(),
        ..StoreReport::default()
    }));
    let waiting = Arc::<AtomicU64>::default();
    let (published, taken) = (Arc::clone(&report), Arc::clone(&waiting));
    let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
        let next = move |timeout| {
            let batch = batches.recv_timeout(timeout)?;
            taken.fetch_sub(records(&batch.0), Ordering::Relaxed);
            Ok(batch)
        };
        run(sink, next, clock, &published)
    })?;
    Ok(StoreHandle::new(sender, report, waiting, thread))
}

impl StoreHandle {
    fn new(
        batches: Sender<(Rows, Timestamp)>,
        report: Arc<ArcSwap<StoreReport>>,
        waiting: Arc<AtomicU64>,
        thread: JoinHandle<SinkLedger>,
    ) -> Self {
        let (sent, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { batches, report, waiting, sent, refused, thread }
    }

    /// Hands a batch over. Where no room is found in time, its records are counted as
    /// [`SinkCause::HandOffFull`].
    pub fn send(&self, rows: Rows, now: Timestamp, patience: Patience) {
        let count = records(&rows);
        let mut batch = (rows, now);
        loop {
            match self.try_send(batch, count) {
                Ok(()) => return,
                Err(TrySendError::Full(back)) => batch = back,
                Err(TrySendError::Disconnected(_)) => break,
            }
            if patience.is_over() {
                break;
            }
            sleep_ms(ROOM_MS);
        }
        self.refused.fetch_add(count, Ordering::Relaxed);
    }

    #[expect(clippy::result_large_err, reason = "the rows come back, that is the point")]
    fn try_send(
        &self,
        batch: (Rows, Timestamp),
        count: u64,
    ) -> Result<(), TrySendError<(Rows, Timestamp)>> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting > 0 && waiting + count > RECORDS_MAX {
            return Err(TrySendError::Full(batch));
        }
        // Before it can be taken, else the thread would subtract what is not there yet.
        self.waiting.fetch_add(count, Ordering::Relaxed);
        let outcome = self.batches.try_send(batch);
        match outcome {
            Ok(()) => self.sent.fetch_add(count, Ordering::Relaxed),
            Err(_) => self.waiting.fetch_sub(count, Ordering::Relaxed),
        };
        outcome
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
    next: impl Fn(Duration) -> Result<(Rows, Timestamp), RecvTimeoutError>,
    clock: StoreClock,
    report: &ArcSwap<StoreReport>,
) -> SinkLedger {
    let mut latest = Timestamp::ZERO;
    loop {
        match next(Duration::from_millis(TICK_MS)) {
            Ok((rows, now)) => {
                latest = latest.max(now);
                sink.write_filed(rows, latest, now);
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

/// A store that needs `batch_ms` for each batch, whatever its size.
#[cfg(test)]
pub(crate) fn slow(batch_ms: u64) -> StoreHandle {
    let (sender, batches) = bounded::<(Rows, Timestamp)>(BATCHES_MAX);
    let waiting = Arc::<AtomicU64>::default();
    let taken = Arc::clone(&waiting);
    let thread = std::thread::spawn(move || {
        let mut ledger = SinkLedger::default();
        while let Ok((rows, _)) = batches.recv() {
            taken.fetch_sub(records(&rows), Ordering::Relaxed);
            sleep_ms(batch_ms);
            ledger.queue(records(&rows));
            ledger.deliver(records(&rows));
        }
        ledger
    });
    StoreHandle::new(sender, Arc::default(), waiting, thread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StorePlan;
    use crate::record::LedgerRecord;
    use crossbeam::channel::Receiver;

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
            store.send(rows(10), Timestamp::from_parts(second, 0), Patience::Endless);
        }
        let report = store.report();
        assert_eq!((report.ledger.made, report.ledger.unaccounted()), (1_000, 0));
        let ledger = store.finish();
        assert_eq!((ledger.made, ledger.delivered, ledger.unaccounted()), (1_000, 1_000, 0));
        assert!(holds_records(&folder));
        let _ = std::fs::remove_dir_all(folder);
    }

    /// A store whose thread never takes: the channel of `batches` is the whole of it.
    fn stuck(batches: usize) -> (StoreHandle, Receiver<(Rows, Timestamp)>) {
        let (sender, receiver) = bounded(batches);
        let thread = std::thread::spawn(SinkLedger::default);
        (StoreHandle::new(sender, Arc::default(), Arc::default(), thread), receiver)
    }

    #[test]
    fn a_full_channel_counts_when_patience_is_over() {
        let (store, batches) = stuck(1);
        store.send(rows(1), Timestamp::ZERO, Patience::None);
        store.send(rows(3), Timestamp::ZERO, Patience::None);
        let begun_ns = monotonic_ns();
        store.send(rows(5), Timestamp::ZERO, Patience::UntilNs(begun_ns + 20_000_000));
        assert!(monotonic_ns() - begun_ns >= 20_000_000);
        let ledger = store.report().ledger;
        assert_eq!((ledger.made, ledger.queued, ledger.unaccounted()), (9, 1, 0));
        assert_eq!(ledger.dropped(SinkCause::HandOffFull), 8);
        drop(batches);
    }

    #[test]
    fn records_are_bounded_beside_batches() {
        let (store, batches) = stuck(8);
        let many = usize::try_from(RECORDS_MAX).expect("it fits") + 1;
        // More than the bound passes alone, and then nothing beside it.
        store.send(rows(many), Timestamp::ZERO, Patience::None);
        store.send(rows(1), Timestamp::ZERO, Patience::None);
        let ledger = store.report().ledger;
        assert_eq!((ledger.queued, ledger.dropped_sum()), (RECORDS_MAX + 1, 1));
        drop(batches);
    }

    #[test]
    fn patience_outlasts_a_slow_sink() {
        let store = slow(1);
        let until = Patience::UntilNs(monotonic_ns() + 60_000_000_000);
        for _ in 0..4 * BATCHES_MAX {
            store.send(rows(2), Timestamp::ZERO, until);
        }
        let ledger = store.finish();
        assert_eq!((ledger.delivered, ledger.dropped_sum()), (8 * BATCHES_MAX as u64, 0));
    }
}
