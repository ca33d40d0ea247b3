//! The store: a thread that owns the Parquet sink, who tidies its folder, and the way to the query
//! program.
//!
//! In: batches of [`Rows`] with the time that the packets have come to, over a bounded channel. Out: files, [`StoreReport`].
//! Cost: the sender's is one push; disk and encoding are this thread's. In a live run two threads
//! that sleep stand beside it: one has small files merged and old ones removed (`upkeep.rs`), one
//! is asked by queries for what is not in a file yet (`live.rs`).
//! Invariants: a sender waits no longer than it says; a batch that is refused is counted; the
//! channel is bounded in batches and in records;
//! made = delivered + queued + Σ dropped over the handle and the sink together.

mod child;
mod compact;
mod held;
mod live;
mod merge;
pub mod query;
mod retain;
mod roll_up;
mod scan;
mod tidy;
mod upkeep;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{
    Receiver, RecvTimeoutError, Sender, TrySendError, bounded, never, select,
};

use crate::config::StorePlan;
use crate::export::parquet::folder;
use crate::export::{ParquetSink, SinkCause, SinkHealth, SinkLedger};
use crate::record::{Rows, Table};
use crate::time::{Timestamp, monotonic_ns, sleep_ms, wall_clock};

pub use child::COMMAND as TIDY_COMMAND;
pub use live::socket_name;
pub use tidy::{Removed, Round, Step, Tidied, Work, stand_back};
pub use upkeep::{UpkeepPlan, UpkeepReport};

use live::{Ask, Door, Flushed};
use upkeep::Upkeep;

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
    /// What was merged and removed.
    pub upkeep: UpkeepReport,
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
    upkeep_report: Arc<ArcSwap<UpkeepReport>>,
    beside: Beside,
}

/// What a live run has beside the thread.
#[derive(Default)]
struct Beside {
    upkeep: Option<Upkeep>,
    door: Option<Door>,
}

/// What comes to the thread.
struct Inbox {
    batches: Receiver<(Rows, Timestamp)>,
    asks: Receiver<Ask>,
    /// Records in `batches`.
    waiting: Arc<AtomicU64>,
}

#[expect(clippy::large_enum_variant, reason = "one at a time, on its way to be written")]
enum Event {
    Batch(Rows, Timestamp),
    Ask(Ask),
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
    start_with(sink, clock, never(), Arc::default())
}

/// Starts it for a live run: files age by the wall clock, the folder is tidied by its rules, and
/// queries may ask for the rows that are not in a file yet.
///
/// # Errors
/// The system's, when it has no thread to give. Where the folder takes no socket, it does without.
pub fn start_live(sink: ParquetSink, plan: UpkeepPlan) -> io::Result<StoreHandle> {
    let StorePlan { folder, .. } = &plan.store;
    let door = folder.as_ref().map(|root| live::open(root, &folder::safe_id(&plan.probe_id)));
    let (door, asks) = match door {
        Some(Ok((door, asks))) => (Some(door), asks),
        Some(Err(error)) => {
            tracing::warn!(%error, "queries cannot ask for records that are not in a file yet");
            (None, never())
        }
        None => (None, never()),
    };
    let packets_ns = Arc::<AtomicU64>::default();
    let mut store = start_with(sink, StoreClock::Wall, asks, Arc::clone(&packets_ns))?;
    let report = Arc::clone(&store.upkeep_report);
    let upkeep = Some(Upkeep::start(plan, packets_ns, report)?);
    store.beside = Beside { upkeep, door };
    Ok(store)
}

fn start_with(
    sink: ParquetSink,
    clock: StoreClock,
    asks: Receiver<Ask>,
    packets_ns: Arc<AtomicU64>,
) -> io::Result<StoreHandle> {
    let (sender, batches) = bounded::<(Rows, Timestamp)>(BATCHES_MAX);
    let report = Arc::new(ArcSwap::from_pointee(StoreReport {
        health: sink.health().clone(),
        ..StoreReport::default()
    }));
    let waiting = Arc::<AtomicU64>::default();
    let published = Arc::clone(&report);
    let inbox = Inbox { batches, asks, waiting: Arc::clone(&waiting) };
    let thread = std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || run(sink, inbox, clock, &published, &packets_ns))?;
    Ok(StoreHandle::new(sender, report, waiting, thread))
}

impl Inbox {
    fn next(&mut self, timeout: Duration) -> Result<Event, RecvTimeoutError> {
        let event = select! {
            recv(self.batches) -> batch => batch.map(|(rows, now)| Event::Batch(rows, now)),
            recv(self.asks) -> ask => match ask {
                Ok(ask) => Ok(Event::Ask(ask)),
                Err(_) => {
                    self.asks = never();
                    return Err(RecvTimeoutError::Timeout);
                }
            },
            default(timeout) => return Err(RecvTimeoutError::Timeout),
        };
        let event = event.map_err(|_| RecvTimeoutError::Disconnected)?;
        if let Event::Batch(rows, _) = &event {
            self.waiting.fetch_sub(records(rows), Ordering::Relaxed);
        }
        Ok(event)
    }

    /// A batch that is there already.
    fn batch(&self) -> Option<(Rows, Timestamp)> {
        let batch = self.batches.try_recv().ok()?;
        self.waiting.fetch_sub(records(&batch.0), Ordering::Relaxed);
        Some(batch)
    }
}

impl StoreHandle {
    fn new(
        batches: Sender<(Rows, Timestamp)>,
        report: Arc<ArcSwap<StoreReport>>,
        waiting: Arc<AtomicU64>,
        thread: JoinHandle<SinkLedger>,
    ) -> Self {
        let (sent, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        let (upkeep_report, beside) = Default::default();
        Self { batches, report, waiting, sent, refused, thread, upkeep_report, beside }
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
        report.upkeep = UpkeepReport::clone(&self.upkeep_report.load());
        report
    }

    /// Stores what is left, ends the thread, and gives the final account: nothing is queued.
    pub fn finish(self) -> SinkLedger {
        let Self { batches, thread, report, refused, beside, .. } = self;
        let Beside { upkeep, door } = beside;
        if let Some(upkeep) = upkeep {
            upkeep.stop();
        }
        if let Some(door) = door {
            door.close();
        }
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
    sink: ParquetSink,
    mut inbox: Inbox,
    clock: StoreClock,
    report: &ArcSwap<StoreReport>,
    packets_ns: &AtomicU64,
) -> SinkLedger {
    let mut writer = Writer { sink, latest: Timestamp::ZERO, packets_ns };
    loop {
        match inbox.next(Duration::from_millis(TICK_MS)) {
            Ok(Event::Batch(rows, now)) => writer.write(rows, now),
            Ok(Event::Ask(ask)) => {
                // All that was handed over before the question, at most what the channel holds.
                for _ in 0..BATCHES_MAX {
                    let Some((rows, now)) = inbox.batch() else { break };
                    writer.write(rows, now);
                }
                let flushed = writer.flush();
                // Whoever has the answer finds it in the report; and who asked may be gone.
                publish(&mut writer.sink, report);
                let _ = ask.try_send(flushed);
                continue;
            }
            Err(RecvTimeoutError::Timeout) if clock == StoreClock::Wall => writer.tick(),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        }
        publish(&mut writer.sink, report);
    }
    let (mut sink, latest) = (writer.sink, writer.latest);
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

/// The sink and its clocks.
struct Writer<'a> {
    sink: ParquetSink,
    latest: Timestamp,
    /// What the packets have come to, for those who tidy.
    packets_ns: &'a AtomicU64,
}

impl Writer<'_> {
    fn write(&mut self, rows: Rows, now: Timestamp) {
        self.latest = self.latest.max(now);
        self.packets_ns.fetch_max(now.as_ns(), Ordering::Relaxed);
        self.sink.write_filed(rows, self.latest, now);
    }

    fn tick(&mut self) {
        self.latest = self.latest.max(wall_clock());
        self.sink.tick(self.latest);
    }

    /// Closes all files.
    fn flush(&mut self) -> Flushed {
        self.tick();
        self.sink.close(self.latest);
        let problem = match self.sink.health() {
            SinkHealth::Ok => None,
            SinkHealth::Failing { what, .. } => Some(what.clone()),
        };
        Flushed { problem }
    }
}

fn publish(sink: &mut ParquetSink, report: &ArcSwap<StoreReport>) {
    let ledger = sink.ledger();
    let health = sink.health().clone();
    report.store(Arc::new(StoreReport { ledger, health, ..StoreReport::default() }));
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

    /// Rows that are in no file yet are in one as soon as a query asks, whoever asks how often.
    #[test]
    fn a_question_puts_all_rows_into_files() {
        use std::io::{Read as _, Write as _};
        use std::os::unix::net::UnixStream;
        let folder = std::env::temp_dir().join(format!("vmprobe-ask-{}", std::process::id()));
        let plan = StorePlan { file_seconds: 3_600, ..plan(folder.clone()) };
        let sink = ParquetSink::new(&plan, "p1", "default").expect("a folder");
        let store = start_live(sink, UpkeepPlan::new(&plan, "p1")).expect("threads");
        let socket = folder.join(socket_name("p1"));
        let ask = |question: &str| {
            let mut stream = UnixStream::connect(&socket).expect("it listens");
            stream.write_all(question.as_bytes()).expect("it reads");
            let mut answer = String::new();
            // What is no question is not read to its end; the system says so.
            let read = stream.read_to_string(&mut answer);
            if read.is_ok() { answer } else { String::new() }
        };
        store.send(rows(10), wall_clock(), Patience::Endless);
        assert!(!holds_records(&folder));
        let answer = ask("flush\n");
        assert!(answer.starts_with('{') && answer.contains("\"stored\":true"), "{answer}");
        assert!(answer.contains("\"cores\":["), "{answer}");
        assert_eq!(store.report().ledger.delivered, 10);
        let files = || std::fs::read_dir(folder.join("ledger")).map(Iterator::count).ok();
        assert_eq!(files(), Some(1));
        // In direct succession: the second waits until files may be closed again.
        store.send(rows(7), wall_clock(), Patience::Endless);
        let answer = ask("flush\n");
        let delivered = store.report().ledger.delivered;
        assert_eq!((answer.contains("\"stored\":true"), delivered), (true, 17), "{answer}");
        // Nothing else can be asked, and silence is no question.
        assert_eq!((ask("FLUSH\n"), ask("flush everything\n")), (String::new(), String::new()));
        drop(UnixStream::connect(&socket).expect("it listens"));
        // Many at once have one answer, though each alone would wait for as long as all before it.
        store.send(rows(3), wall_clock(), Patience::Endless);
        let begun_ns = monotonic_ns();
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..20).map(|_| scope.spawn(|| ask("flush\n"))).collect();
            for asking in asking {
                assert!(asking.join().expect("an answer").contains("\"stored\":true"));
            }
        });
        assert!(monotonic_ns() - begun_ns < 5_000_000_000);
        assert_eq!((store.report().ledger.delivered, files()), (20, Some(1)));
        store.finish();
        assert!(!socket.exists());
        let _ = std::fs::remove_dir_all(folder);
    }

    /// Whoever has an answer finds in the report what it says.
    #[test]
    fn the_report_is_as_new_as_an_answer() {
        let folder = std::env::temp_dir().join(format!("vmprobe-answer-{}", std::process::id()));
        let plan = StorePlan { file_seconds: 3_600, ..plan(folder.clone()) };
        let sink = ParquetSink::new(&plan, "p1", "default").expect("a folder");
        let (asks, asked) = bounded::<Ask>(1);
        let store = start_with(sink, StoreClock::Wall, asked, Arc::default()).expect("a thread");
        for question in 1..=500 {
            store.send(rows(1), wall_clock(), Patience::Endless);
            let (sender, answer) = bounded(1);
            asks.send(sender).expect("it listens");
            // Without a sleep, so that nothing can happen between the answer and the look.
            while answer.is_empty() {
                std::hint::spin_loop();
            }
            assert_eq!(store.report.load().ledger.made, question);
        }
        drop(asks);
        assert_eq!(store.finish().delivered, 500);
        let _ = std::fs::remove_dir_all(folder);
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
