//! The thread that keeps a sink's records until they are delivered.
//!
//! In: rows, changes of the plan, outcomes of attempts. Out: batches for the courier, the account.
//! Cost: encodes the rows of its tables; never waits for the destination.
//! Invariants: made = delivered + queued + Σ dropped at every moment that is published; at most one batch
//! is under way, the oldest; a failed one is tried again before any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, never};
use crossbeam::select;

use super::backoff::Backoff;
use super::courier::Courier;
use super::queue::{Pushed, Queue};
use super::spool::Spool;
use super::{
    Batch, Delivered, Encoder, Failure, MakeEncoder, Message, SinkReport, TableRows, batch,
};
use crate::config::SinkPlan;
use crate::export::{SinkCause, SinkHealth, SinkLedger};
use crate::record::{Origin, Table};
use crate::time::{Timestamp, monotonic_ns, ms, sleep_ms, wall_clock};

/// How often an idle keeper looks round.
const TICK_MS: u64 = 500;
/// How long the end waits for the destination.
const END_MS: u64 = 5_000;
/// How often a spool that cannot be used is tried again.
const SPOOL_MS: u64 = 1_000;
/// How long a destination may take for what the sender waits for, until it is written to the spool.
const SAVE_MS: u64 = 1_000;
/// Batches refused one after another from which on the sink is failing.
const REFUSALS_MAX: u32 = 3;

/// A batch that is being filled.
struct Open {
    bytes: Vec<u8>,
    records: u64,
    opened_ns: u64,
}

/// When what waits is written to the spool.
#[derive(Default)]
struct Saving {
    /// The sender waits until what it has sent is delivered or on disk, each time.
    is_asked: bool,
    /// It does now: what is not delivered then is written.
    at_ns: Option<u64>,
    /// The destination took longer than that, and has taken nothing since.
    is_slow: bool,
}

/// What a keeper is made of.
pub(super) struct KeeperParts {
    pub(super) plan: Arc<SinkPlan>,
    pub(super) origin: Origin,
    pub(super) encoder: Box<dyn Encoder>,
    pub(super) make_encoder: MakeEncoder,
    pub(super) queue: Queue,
    pub(super) courier: Courier,
    pub(super) inbox: Receiver<Message>,
    pub(super) report: Arc<ArcSwap<SinkReport>>,
    /// Senders that lose nothing while they wait are made to wait where the queue is full.
    pub(super) waits: bool,
    /// What is different in each run.
    pub(super) run: u64,
    /// Records that are on their way here.
    pub(super) waiting: Arc<AtomicU64>,
}

/// The thread's state.
pub(super) struct Keeper {
    parts: KeeperParts,
    tables: Vec<Table>,
    open: BTreeMap<Table, Open>,
    under_way: bool,
    ledger: SinkLedger,
    health: SinkHealth,
    backoff: Backoff,
    /// No attempt before this.
    retry_at_ns: u64,
    batches_made: u64,
    /// Batches that were refused one after another.
    refusals: u32,
    /// The spool is not opened before this.
    spool_at_ns: u64,
    /// It is known, and logged, that there is none now.
    spool_missed: bool,
    saving: Saving,
    /// Since when the disk does not give what is in it.
    unread_since: Option<Timestamp>,
}

impl Keeper {
    pub(super) fn new(parts: KeeperParts) -> Self {
        Self {
            tables: tables(&parts.plan),
            parts,
            open: BTreeMap::new(),
            under_way: false,
            ledger: SinkLedger::default(),
            health: SinkHealth::Ok,
            backoff: Backoff::new(),
            retry_at_ns: 0,
            batches_made: 0,
            refusals: 0,
            spool_at_ns: 0,
            spool_missed: false,
            saving: Saving::default(),
            unread_since: None,
        }
    }

    /// Until the sender is gone and all is delivered, saved or given up.
    pub(super) fn run(mut self) -> SinkReport {
        let (inbox, nothing) = (self.parts.inbox.clone(), never());
        let done = self.parts.courier.done.clone();
        self.open_spool();
        self.publish();
        loop {
            let inbox = if self.takes() { &inbox } else { &nothing };
            let mut taken = 0;
            select! {
                recv(inbox) -> message => match message {
                    Ok(Message::Rows(parts, packets, records)) => {
                        for rows in &parts {
                            self.take(rows, packets);
                        }
                        taken = records;
                    }
                    Ok(Message::Plan(plan)) => self.change(plan),
                    Ok(Message::Settle) => self.settle(),
                    Err(_) => break,
                },
                recv(done) -> outcome => self.done(outcome.unwrap_or_else(|_| Err(gone()))),
                default(self.pause()) => {}
            }
            self.tend_spool();
            self.close_due();
            self.save_due();
            self.dispatch();
            self.publish();
            // Behind the report, so that what waits is in one of them at each moment.
            self.parts.waiting.fetch_sub(taken, Ordering::Release);
        }
        self.end(&done);
        self.publish();
        self.report()
    }

    /// Whether there is room for what comes, or no use in making the sender wait.
    fn takes(&self) -> bool {
        let queue = &self.parts.queue;
        let spools = self.saving.is_asked && queue.spool_has_room();
        !self.parts.waits || !queue.is_full() || !self.is_ok() || spools
    }

    /// The sender waits until all is delivered or on disk.
    fn settle(&mut self) {
        self.close_all();
        self.saving.is_asked = true;
        let wait_ms = if self.is_ok() && !self.saving.is_slow { SAVE_MS } else { 0 };
        self.saving.at_ns.get_or_insert_with(|| monotonic_ns() + ms(wait_ms));
    }

    /// Writes to the spool what the sender waits for, once it has taken long enough. A disk that does not
    /// take it is tried again.
    fn save_due(&mut self) {
        let queue = &mut self.parts.queue;
        if queue.is_persisted() {
            self.saving.at_ns = None;
        }
        let now_ns = monotonic_ns();
        if self.saving.at_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            self.saving.at_ns = (!queue.persist()).then(|| now_ns + ms(SPOOL_MS));
            self.saving.is_slow = true;
        }
    }

    /// Closes all, and tries as long as [`END_MS`]; who may wait, so long since the last batch went.
    fn end(&mut self, done: &Receiver<Result<Delivered, Failure>>) {
        self.close_all();
        // There is no later for what waits for another attempt.
        self.retry_at_ns = 0;
        self.backoff.reset();
        let mut until_ns = monotonic_ns() + ms(END_MS);
        let end = |it: &Self| it.parts.queue.is_empty() && !it.under_way;
        while !end(self) && monotonic_ns() < until_ns {
            self.tend_spool();
            self.dispatch();
            self.publish();
            select! {
                recv(done) -> outcome => {
                    self.done(outcome.unwrap_or_else(|_| Err(gone())));
                    if self.parts.waits && self.is_ok() {
                        until_ns = monotonic_ns() + ms(END_MS);
                    }
                }
                default(self.pause().min(Duration::from_millis(TICK_MS))) => {}
            }
        }
        self.await_spool();
        let lost = self.parts.queue.save();
        self.ledger.drop_queued(SinkCause::UndeliveredAtEnd, lost);
        if lost > 0 {
            tracing::error!(sink = self.parts.plan.name, records = lost, "lost at the end");
        }
    }

    /// Opens the spool if it is not open, and tries again to read what the disk did not give.
    fn tend_spool(&mut self) {
        self.open_spool();
        if self.parts.queue.read_problem().is_some() && monotonic_ns() >= self.spool_at_ns {
            self.spool_at_ns = monotonic_ns() + ms(SPOOL_MS);
            self.parts.queue.fill();
            self.count_broken();
        }
        let unread = self.parts.queue.read_problem().is_some();
        self.unread_since = unread.then(|| self.unread_since.unwrap_or_else(wall_clock));
    }

    /// Opens the spool, if there shall be one and it is not open yet: a sink that was taken away may hold it
    /// until its end, a disk may come later. Until then it is done without: records that fit in memory are
    /// worth more than none.
    fn open_spool(&mut self) {
        let plan = &self.parts.plan;
        let Some(folder) = plan.spool_folder.as_ref().filter(|_| !self.parts.queue.has_spool())
        else {
            return;
        };
        let now_ns = monotonic_ns();
        if now_ns < self.spool_at_ns {
            return;
        }
        self.spool_at_ns = now_ns + ms(SPOOL_MS);
        let bytes_max = u64::from(plan.spool_mib) << 20;
        match Spool::open(&folder.join(&plan.name), plan.kind.name(), bytes_max) {
            Ok(spool) => {
                if std::mem::take(&mut self.spool_missed) {
                    tracing::info!(sink = plan.name, "the sink has its spool");
                }
                // What another run or sink has left is this one's to deliver.
                self.ledger.queue(spool.records() + spool.broken_records);
                self.parts.queue.attach(spool);
                self.count_broken();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.spool_missed, true) {
                    tracing::error!(sink = plan.name, %error, "the sink has no spool yet");
                }
            }
        }
    }

    /// At the end: the sink that holds the spool may be ending as well.
    fn await_spool(&mut self) {
        let until_ns = monotonic_ns() + ms(2 * SPOOL_MS);
        let misses = |it: &Self| it.spool_missed && !it.parts.queue.is_empty();
        while misses(self) && monotonic_ns() < until_ns {
            self.spool_at_ns = 0;
            self.open_spool();
            sleep_ms(if misses(self) { TICK_MS / 10 } else { 0 });
        }
    }

    fn count_broken(&mut self) {
        let lost = self.parts.queue.take_broken();
        self.ledger.drop_queued(SinkCause::SpoolFull, lost);
    }

    fn is_ok(&self) -> bool {
        self.health == SinkHealth::Ok
    }

    /// Until something is due.
    fn pause(&self) -> Duration {
        let now_ns = monotonic_ns();
        let batch_ns = ms(self.parts.plan.batch_ms.into());
        let due = self.open.values().map(|open| open.opened_ns + batch_ns);
        let retry = (!self.under_way && self.parts.queue.has_front()).then_some(self.retry_at_ns);
        let next_ns = due.chain(retry).chain(self.saving.at_ns).min().unwrap_or(u64::MAX);
        let wait_ns = next_ns.saturating_sub(now_ns).min(ms(TICK_MS));
        // A millisecond at least: clocks of waits are not finer.
        Duration::from_nanos(wait_ns.max(ms(1)))
    }

    /// Encodes rows.
    fn take(&mut self, rows: &crate::record::Rows, packets: Timestamp) {
        let tables = std::mem::take(&mut self.tables);
        let wanted = |table| tables.contains(&table);
        let (parts, lost) = TableRows::of(rows, &self.parts.origin, packets, wanted);
        self.tables = tables;
        self.ledger.queue(lost);
        self.ledger.drop_queued(SinkCause::NotEncoded, lost);
        for part in parts {
            let passing = part.passing(&self.parts.plan.filter);
            self.encode(&passing);
        }
    }

    fn encode(&mut self, rows: &TableRows) {
        let (table, mut from) = (rows.table, 0);
        let batch_records = u64::from(self.parts.plan.batch_records);
        while from < rows.len() {
            let encoder = &mut self.parts.encoder;
            let open = self.open.entry(table).or_insert_with(|| {
                let mut bytes = Vec::new();
                encoder.begin(table, &mut bytes);
                Open { bytes, records: 0, opened_ns: monotonic_ns() }
            });
            let room = usize::try_from(batch_records - open.records).unwrap_or(usize::MAX);
            let taken = encoder.rows(rows, from, room, &mut open.bytes);
            from += taken;
            let taken = super::count(taken);
            open.records += taken;
            let is_full = open.records >= batch_records || batch::is_full(&open.bytes);
            self.ledger.queue(taken);
            if is_full {
                self.close(table);
            }
        }
    }

    fn close_due(&mut self) {
        let now_ns = monotonic_ns();
        let batch_ns = ms(self.parts.plan.batch_ms.into());
        let is_due = |open: &Open| open.opened_ns.saturating_add(batch_ns) <= now_ns;
        let due = self.open.iter().filter(|(_, open)| is_due(open));
        for table in due.map(|(table, _)| *table).collect::<Vec<_>>() {
            self.close(table);
        }
    }

    fn close_all(&mut self) {
        while let Some(table) = self.open.keys().next().copied() {
            self.close(table);
        }
    }

    fn close(&mut self, table: Table) {
        let Some(Open { bytes, records, .. }) = self.open.remove(&table) else { return };
        let KeeperParts { plan, origin, run, .. } = &self.parts;
        let token = format!("{}/{}/{run:x}/{}", origin.probe_id, plan.name, self.batches_made);
        self.batches_made += 1;
        let batch = Batch { table, records, token, bytes };
        // One message may be larger than the queue; before the next one it is waited for room.
        let waits = self.parts.waits && self.is_ok();
        let queue = &mut self.parts.queue;
        let pushed = if waits { queue.push_of_waiting(batch) } else { queue.push(batch) };
        let cause = match pushed {
            Pushed::Waits => return,
            Pushed::Full => SinkCause::QueueFull,
            Pushed::SpoolFull => SinkCause::SpoolFull,
        };
        self.ledger.drop_queued(cause, records);
    }

    /// Gives the oldest batch to the courier, if it is free and the time has come.
    fn dispatch(&mut self) {
        if self.under_way || monotonic_ns() < self.retry_at_ns {
            return;
        }
        if let Some(batch) = self.parts.queue.front() {
            self.under_way = self.parts.courier.send(batch, Arc::clone(&self.parts.plan));
        }
    }

    /// An attempt has ended.
    fn done(&mut self, outcome: Result<Delivered, Failure>) {
        self.under_way = false;
        let Some(records) = self.parts.queue.front().map(|batch| batch.records) else { return };
        match outcome {
            Ok(Delivered { refused }) if refused < records => {
                self.ledger.deliver(records - refused);
                self.ledger.drop_queued(SinkCause::Refused, refused);
                self.parts.queue.pop();
                self.refusals = 0;
                self.recovered();
            }
            Ok(_) => self.refused(records, "none of its records is taken"),
            Err(Failure { what, refused: true }) => self.refused(records, &what),
            Err(Failure { what, refused: false }) => self.failed(what),
        }
        self.count_broken();
    }

    /// The oldest batch is never taken. One may be wrong by itself; where all are, it is the sink that does
    /// not do its work. It is said when this begins, not for each.
    fn refused(&mut self, records: u64, what: &str) {
        self.ledger.drop_queued(SinkCause::Refused, records);
        self.parts.queue.pop();
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals < REFUSALS_MAX {
            if self.refusals == 1 {
                let sink = &self.parts.plan.name;
                tracing::error!(sink, records, error = what, "a batch is refused, and dropped");
            }
            return self.recovered();
        }
        if self.is_ok() {
            let sink = &self.parts.plan.name;
            tracing::error!(sink, error = what, "the sink refuses every batch; they are dropped");
        }
        let since = self.failing_since();
        let what = format!("every batch is refused: {what}");
        self.health = SinkHealth::Failing { since, what, full: false };
        // It answers, so nothing waits for it.
        self.backoff.reset();
        self.retry_at_ns = 0;
    }

    /// When it began to fail, if it does; else now.
    fn failing_since(&self) -> Timestamp {
        match &self.health {
            SinkHealth::Failing { since, .. } => *since,
            SinkHealth::Ok => wall_clock(),
        }
    }

    fn recovered(&mut self) {
        if !self.is_ok() {
            tracing::info!(sink = self.parts.plan.name, "the sink takes records again");
        }
        self.health = SinkHealth::Ok;
        self.saving.is_slow = false;
        self.backoff.reset();
        self.retry_at_ns = 0;
    }

    fn failed(&mut self, what: String) {
        if self.is_ok() {
            let sink = &self.parts.plan.name;
            tracing::error!(sink, error = what, "the sink takes no records; they wait");
            // No use in waiting for it.
            self.saving.at_ns = self.saving.at_ns.map(|_| 0);
        }
        let since = self.failing_since();
        self.health = SinkHealth::Failing { since, what, full: false };
        let wait_ns = self.backoff.next_ns(self.parts.plan.retry_max_ms.into());
        self.retry_at_ns = monotonic_ns().saturating_add(wait_ns);
    }

    /// Another plan of the same kind. What waits is delivered by it.
    fn change(&mut self, plan: Arc<SinkPlan>) {
        self.close_all();
        self.parts.encoder = (self.parts.make_encoder)(&plan);
        let bytes_max = |mib: u32| u64::from(mib) << 20;
        self.parts.queue.set_bytes_max(bytes_max(plan.queue_mib), bytes_max(plan.spool_mib));
        self.tables = tables(&plan);
        self.parts.plan = plan;
        self.backoff.reset();
        self.retry_at_ns = 0;
    }

    fn report(&self) -> SinkReport {
        let mut ledger = self.ledger;
        ledger.spooled = self.parts.queue.spooled();
        SinkReport {
            name: self.parts.plan.name.clone(),
            kind: self.parts.plan.kind.name(),
            ledger,
            health: self.reported_health(),
            ..SinkReport::default()
        }
    }

    /// A destination that works helps nothing while the disk does not give what waits for it.
    fn reported_health(&self) -> SinkHealth {
        match (&self.health, self.unread_since, self.parts.queue.read_problem()) {
            (SinkHealth::Ok, Some(since), Some(what)) => {
                SinkHealth::Failing { since, what: format!("the spool: {what}"), full: false }
            }
            (health, _, _) => health.clone(),
        }
    }

    fn publish(&self) {
        self.parts.report.store(Arc::new(self.report()));
    }
}

pub(super) fn tables(plan: &SinkPlan) -> Vec<Table> {
    plan.tables.iter().filter_map(|name| Table::named(name)).collect()
}

fn gone() -> Failure {
    Failure::again("the thread of the sink has ended: a bug")
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::bounded;

    use super::*;
    use crate::config::{EvePlan, SinkKind};
    use crate::export::sink::Driver;
    use crate::record::{LedgerRecord, Rows};

    /// Takes all.
    struct Takes;

    impl Driver for Takes {
        fn deliver(&mut self, _batch: &Batch) -> Result<Delivered, Failure> {
            Ok(Delivered::default())
        }
    }

    #[test]
    fn at_the_end_what_waits_is_tried_at_once_however_long_it_was_to_wait() {
        let eve = EvePlan { path: "x".into(), socket: false };
        let mut plan = SinkPlan::new("a".to_owned(), SinkKind::Eve(eve));
        plan.tables = vec!["ledger".to_owned()];
        plan.retry_max_ms = 600_000;
        let make_driver = Box::new(|_: &SinkPlan| -> Box<dyn Driver> { Box::new(Takes) });
        let (messages, inbox) = bounded(1);
        let encoder = |_: &SinkPlan| -> Box<dyn Encoder> { Box::new(crate::export::json::Lines) };
        let mut keeper = Keeper::new(KeeperParts {
            encoder: encoder(&plan),
            make_encoder: Box::new(encoder),
            queue: Queue::new(1 << 20),
            courier: Courier::start("a", make_driver).expect("a thread"),
            inbox,
            report: Arc::default(),
            waits: false,
            run: 1,
            waiting: Arc::default(),
            plan: Arc::new(plan),
            origin: Origin::new("p", "d"),
        });
        let rows = Rows { ledger: vec![LedgerRecord::default(); 3], ..Rows::default() };
        keeper.take(&rows, Timestamp::ZERO);
        for _ in 0..12 {
            keeper.failed("it is down".to_owned());
        }
        assert!(keeper.retry_at_ns > monotonic_ns() + 2 * ms(END_MS));
        drop(messages);
        let report = keeper.run();
        assert_eq!((report.ledger.delivered, report.ledger.dropped_sum()), (3, 0));
    }
}
