//! A source's way to the inventory: a bounded queue, and what it tells of itself.
//!
//! In: [`Batch`]es and states of one source. Out: [`Received`] at the [`Inbox`], [`SourceHealth`].
//! Cost: a batch is moved, not copied; nobody waits for anybody.
//! Invariants: at most [`QUEUE_BATCHES`] batches and, before the last of them, [`QUEUE_CHANGES_MAX`]
//! changes wait; what finds no room is counted as `queue_full` and given back to the source, which
//! says everything anew later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam::channel::{self, Receiver, Sender, TrySendError};

use super::requests::RequestNote;
use crate::inventory::{
    BATCH_CHANGES_MAX, Batch, SOURCES_MAX, SourceHealth, SourceId, SourceKind, SourceState,
};
use crate::time::{Timestamp, ms, sleep_ms};

/// Batches that wait at most, of all sources.
pub const QUEUE_BATCHES: usize = 4_096;
/// Changes that wait at most before another batch is let in.
pub const QUEUE_CHANGES_MAX: u64 = 1 << 20;
/// Longest text of an error that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 1_000;
/// How often a source that waits looks whether it should stop.
const STOP_POLL_MS: u64 = 50;

/// A source of the inventory: runs on a thread of its own.
pub trait InventorySource: Send + 'static {
    /// Feeds the inventory until [`SourceHandle::is_stopping`]; reconnects by itself, with
    /// [`SourceHandle::wait_ms`] between tries ([`Backoff`]). Never panics on what it is told.
    fn run(self: Box<Self>, handle: SourceHandle);
}

/// A batch that found no room; it may be sent again.
#[derive(Debug)]
pub struct Full(pub Batch);

/// A batch as it came in.
#[derive(Debug)]
pub struct Received {
    /// Who says it.
    pub source: SourceId,
    /// When it became known, by the probe's clock.
    pub known: Timestamp,
    /// What.
    pub batch: Batch,
    /// What is to be remembered of the request that it came with.
    pub note: RequestNote,
}

/// What one source tells of itself; written by its thread and the keeper's, read by anyone.
#[derive(Debug)]
struct Shared {
    id: SourceId,
    kind: SourceKind,
    name: String,
    rank: u8,
    stale_after_ns: Option<u64>,
    state: AtomicU8,
    since_ns: AtomicU64,
    last_heard_ns: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
    left_out: ArcSwap<BTreeMap<&'static str, u64>>,
    last_error: ArcSwapOption<(Timestamp, String)>,
}

/// One source's end. Clones are of the same source.
#[derive(Clone, Debug)]
pub struct SourceHandle {
    shared: Arc<Shared>,
    queue: Sender<Received>,
    waiting_changes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl SourceHandle {
    /// Its number.
    pub fn id(&self) -> SourceId {
        self.shared.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Hands changes over, known since `now` (the probe's clock). Not to be called by a worker.
    ///
    /// # Errors
    /// [`Full`] where the queue is full or the batch too large; it is counted.
    pub fn send(&self, batch: impl Into<Batch>, now: Timestamp) -> Result<(), Full> {
        self.send_noted(batch.into(), RequestNote::default(), now)
    }

    /// The same for the changes of a request that is to be remembered.
    ///
    /// # Errors
    /// [`Full`] likewise; then it is not remembered.
    pub fn send_noted(&self, batch: Batch, note: RequestNote, now: Timestamp) -> Result<(), Full> {
        let changes = batch.changes.len() as u64;
        let waiting = self.waiting_changes.fetch_add(changes, Ordering::AcqRel);
        let fits = waiting < QUEUE_CHANGES_MAX && batch.changes.len() <= BATCH_CHANGES_MAX;
        let received = Received { source: self.shared.id, known: now, batch, note };
        let refused = if fits {
            match self.queue.try_send(received) {
                Ok(()) => {
                    self.heard(now);
                    return Ok(());
                }
                Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => refused,
            }
        } else {
            received
        };
        self.waiting_changes.fetch_sub(changes, Ordering::AcqRel);
        self.shared.refused.fetch_add(changes, Ordering::Relaxed);
        Err(Full(refused.batch))
    }

    /// It is being reached.
    pub fn connecting(&self, now: Timestamp) {
        self.state(SourceState::Connecting, now);
    }

    /// It answers, and what it says is up to date; to be called once for each connection or file.
    pub fn live(&self, now: Timestamp) {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.heard(now);
        self.state(SourceState::Live, now);
    }

    /// It showed that it is there (an answer, a heartbeat), without a change.
    pub fn heard(&self, now: Timestamp) {
        self.shared.last_heard_ns.store(now.0, Ordering::Relaxed);
    }

    /// It cannot be reached or read. Logged once for each new text.
    pub fn failed(&self, error: impl std::fmt::Display, now: Timestamp) {
        self.note(error, now);
        self.state(SourceState::Failed, now);
    }

    /// Something that it said could not be used, but it goes on.
    pub fn note(&self, error: impl std::fmt::Display, now: Timestamp) {
        let mut text = error.to_string();
        let end = (0..=ERROR_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        let before = self.shared.last_error.load();
        if before.as_ref().is_none_or(|before| before.1 != text) {
            tracing::warn!(source = self.shared.name, "inventory source: {text}");
        }
        self.shared.last_error.store(Some(Arc::new((now, text))));
    }

    /// Counts what it said that is no change, by reason: messages that cannot be read, that say nothing
    /// of who is who. Shown with the rejected changes.
    pub fn left_out(&self, reason: &'static str, count: u64) {
        self.shared.left_out.rcu(|counts| {
            let mut counts = BTreeMap::clone(counts);
            *counts.entry(reason).or_default() += count;
            counts
        });
    }

    /// Whether it is to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits, but not beyond the end; `false` where it is to end.
    pub fn wait_ms(&self, milliseconds: u64) -> bool {
        let mut left_ms = milliseconds;
        while left_ms > 0 && !self.is_stopping() {
            let part_ms = left_ms.min(STOP_POLL_MS);
            sleep_ms(part_ms);
            left_ms -= part_ms;
        }
        !self.is_stopping()
    }

    fn state(&self, state: SourceState, now: Timestamp) {
        if self.shared.state.swap(state as u8, Ordering::Relaxed) != state as u8 {
            self.shared.since_ns.store(now.0, Ordering::Relaxed);
            tracing::debug!(source = self.shared.name, state = state.name(), "inventory source");
        }
    }
}

/// Time between tries: doubles from 1 s to 60 s, and begins again after a success.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After another failure.
    pub fn next_ms(&mut self) -> u64 {
        let wait_ms = (1_000_u64 << self.failures.min(6)).min(60_000);
        self.failures = self.failures.saturating_add(1);
        wait_ms
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What a source is.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// Kind.
    pub kind: SourceKind,
    /// Unique name: `file`, `ovsdb:host1`.
    pub name: String,
    /// Place in the order of precedence; 0 is heard first. Sources of one kind share it.
    pub rank: u8,
    /// Stale after so long a silence; `None` for one that may be silent for ever.
    pub stale_after_ms: Option<u64>,
}

/// The other end of all sources, and the list of them.
#[derive(Debug)]
pub struct Inbox {
    queue: Receiver<Received>,
    into: Sender<Received>,
    waiting_changes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sources: Vec<Arc<Shared>>,
}

impl Inbox {
    /// Without sources. They are told to end when `stop` becomes true.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        let (into, queue) = channel::bounded(QUEUE_BATCHES);
        Self { queue, into, waiting_changes: Arc::default(), stop, sources: Vec::new() }
    }

    /// Adds a source; all are added before the first one runs. `None` beyond [`SOURCES_MAX`].
    pub fn register(&mut self, spec: SourceSpec, now: Timestamp) -> Option<SourceHandle> {
        let id = u8::try_from(self.sources.len()).ok()?;
        if self.sources.len() >= SOURCES_MAX {
            return None;
        }
        let shared = Arc::new(Shared {
            id: SourceId(id),
            kind: spec.kind,
            name: spec.name,
            rank: spec.rank,
            stale_after_ns: spec.stale_after_ms.map(ms),
            state: AtomicU8::new(SourceState::Connecting as u8),
            since_ns: AtomicU64::new(now.0),
            last_heard_ns: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            left_out: ArcSwap::default(),
            last_error: ArcSwapOption::empty(),
        });
        self.sources.push(Arc::clone(&shared));
        Some(SourceHandle {
            shared,
            queue: self.into.clone(),
            waiting_changes: Arc::clone(&self.waiting_changes),
            stop: Arc::clone(&self.stop),
        })
    }

    /// The next batch, waiting for it at most so long; in the order in which they were sent.
    pub fn next(&self, wait_ms: u64) -> Option<Received> {
        let wait = std::time::Duration::from_millis(wait_ms);
        let received = self.queue.recv_timeout(wait).ok()?;
        let changes = received.batch.changes.len() as u64;
        self.waiting_changes.fetch_sub(changes, Ordering::AcqRel);
        Some(received)
    }

    /// How each source is doing at `now`, without what the store counts of it.
    pub fn health(&self, now: Timestamp) -> Vec<SourceHealth> {
        self.sources.iter().map(|shared| shared.health(now)).collect()
    }
}

impl Shared {
    fn health(&self, now: Timestamp) -> SourceHealth {
        let state = match self.state.load(Ordering::Relaxed) {
            state if state == SourceState::Live as u8 => SourceState::Live,
            state if state == SourceState::Failed as u8 => SourceState::Failed,
            _ => SourceState::Connecting,
        };
        let error = self.last_error.load();
        let seen = |ns: &AtomicU64| Some(ns.load(Ordering::Relaxed)).filter(|ns| *ns > 0);
        let refused = self.refused.load(Ordering::Relaxed);
        SourceHealth {
            kind: self.kind,
            name: self.name.clone(),
            rank: self.rank,
            state,
            since_ns: self.since_ns.load(Ordering::Relaxed),
            last_heard_ns: seen(&self.last_heard_ns),
            last_change_ns: None,
            last_valid_ns: None,
            clock_ahead_max_ns: 0,
            clamped_changes: 0,
            last_error: error.as_ref().map(|error| error.1.clone()),
            last_error_ns: error.as_ref().map(|error| error.0.0),
            connections: self.connections.load(Ordering::Relaxed),
            changes: 0,
            unchanged: 0,
            rejected: (refused > 0)
                .then_some(("queue_full", refused))
                .into_iter()
                .chain(self.left_out.load().iter().map(|(reason, count)| (*reason, *count)))
                .collect(),
        }
        .at(now, self.stale_after_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Statement, Uuid};

    fn spec(stale_after_ms: Option<u64>) -> SourceSpec {
        let kind = SourceKind::Ovsdb;
        SourceSpec { kind, name: "ovsdb:host1".to_owned(), rank: 4, stale_after_ms }
    }

    fn host(at: u64) -> Statement {
        Statement::new(Uuid(1), Timestamp(at)).host("h")
    }

    #[test]
    fn what_is_sent_arrives_in_order() {
        let mut inbox = Inbox::new(Arc::default());
        let handle = inbox.register(spec(None), Timestamp(1)).expect("room");
        handle.send(host(5), Timestamp(7)).expect("room");
        handle.send(host(6), Timestamp(8)).expect("room");
        let known = [(); 3].map(|()| inbox.next(0).map(|received| received.known.0));
        assert_eq!(known, [Some(7), Some(8), None]);
    }

    #[test]
    fn a_full_queue_gives_the_batch_back_and_counts_it() {
        let mut inbox = Inbox::new(Arc::default());
        let handle = inbox.register(spec(None), Timestamp(1)).expect("room");
        let many = Batch::from(vec![host(5).changes().remove(0); 1 << 20]);
        handle.send(many, Timestamp(1)).expect("room");
        let refused = handle.send(host(6), Timestamp(1)).expect_err("full");
        assert_eq!(refused.0, host(6).into());
        assert_eq!(inbox.health(Timestamp(1))[0].rejected.get("queue_full"), Some(&1));
        assert!(inbox.next(0).is_some());
        handle.send(host(6), Timestamp(1)).expect("room again");
    }

    #[test]
    fn states_follow_what_the_source_says_and_the_clock() {
        let mut inbox = Inbox::new(Arc::default());
        let handle = inbox.register(spec(Some(10)), Timestamp(1)).expect("room");
        let state = |now| inbox.health(Timestamp(now)).remove(0).state;
        assert_eq!(state(ms(100)), SourceState::Connecting);
        handle.live(Timestamp(ms(100)));
        assert_eq!([ms(105), ms(111)].map(state), [SourceState::Live, SourceState::Stale]);
        handle.heard(Timestamp(ms(111)));
        assert_eq!(state(ms(112)), SourceState::Live);
        handle.failed("no route to host", Timestamp(ms(120)));
        let health = inbox.health(Timestamp(ms(500))).remove(0);
        assert_eq!(health.state, SourceState::Failed);
        assert_eq!(health.last_error.as_deref(), Some("no route to host"));
        assert_eq!((health.since_ns, health.connections), (ms(120), 1));
    }

    #[test]
    fn the_time_between_tries_grows_to_a_minute() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next_ms() / 1_000).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next_ms(), 1_000);
    }
}
