//! Batches that wait: first those in memory, behind them those in the spool.
//!
//! In: batches. Out: the oldest.
//! Invariants: order is kept; memory holds at most `bytes_max` and one batch more; those in memory that are
//! on disk as well are the first files of the spool; records in memory, in the spool and lost are counted,
//! so that nothing leaves unnoticed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Batch;
use super::spool::{Entry, Spool, SpoolError};

/// A batch in memory; it may be on disk as well.
struct Waiting {
    batch: Arc<Batch>,
    entry: Option<Entry>,
}

/// The queue of one sink.
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: u64,
    bytes_max: u64,
    spool: Option<Spool>,
    /// How many of those that wait in memory are in the spool as well: its first files.
    read: usize,
    /// What was found broken in the spool, not yet reported.
    broken_records: u64,
    /// Why the spool took nothing last.
    spool_problem: Option<String>,
    /// Why the spool gave nothing last.
    read_problem: Option<String>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Waits,
    /// There is no room in memory, and no spool.
    Full,
    /// Nor in the spool.
    SpoolFull,
}

impl Queue {
    pub(super) const fn new(bytes_max: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max,
            spool: None,
            read: 0,
            broken_records: 0,
            spool_problem: None,
            read_problem: None,
        }
    }

    /// What another sink or run has left is delivered behind what waits in memory by now.
    pub(super) fn attach(&mut self, spool: Spool) {
        self.broken_records += spool.broken_records;
        self.spool = Some(spool);
        self.fill();
    }

    pub(super) const fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// Other bounds, of the memory and of the spool.
    pub(super) const fn set_bytes_max(&mut self, bytes_max: u64, spool_bytes_max: u64) {
        self.bytes_max = bytes_max;
        if let Some(spool) = &mut self.spool {
            spool.set_bytes_max(spool_bytes_max);
        }
    }

    /// Whether another batch would have to go to the spool, or be dropped.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Whether the spool can take much more than a batch: what a destination that works, but slowly, may have
    /// of it.
    pub(super) fn spool_has_room(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::has_room)
    }

    /// Whether what is older is on disk, so that order wants what comes there too.
    fn spool_is_ahead(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| spool.count() > self.read)
    }

    /// Adds the youngest batch where it is full too and there is no spool: of a sender that waits
    /// before the next rows, but cannot take back those that it has given.
    pub(super) fn push_of_waiting(&mut self, batch: Batch) -> Pushed {
        if self.spool.is_some() {
            return self.push(batch);
        }
        self.keep(Arc::new(batch), None);
        Pushed::Waits
    }

    /// Adds the youngest batch.
    pub(super) fn push(&mut self, batch: Batch) -> Pushed {
        if !self.is_full() && !self.spool_is_ahead() {
            self.keep(Arc::new(batch), None);
            return Pushed::Waits;
        }
        let Some(spool) = &mut self.spool else { return Pushed::Full };
        let pushed = spool.push(&batch);
        if self.is_spooled(pushed).is_some() { Pushed::Waits } else { Pushed::SpoolFull }
    }

    /// What the spool has taken. When it begins to take nothing, it is said.
    fn is_spooled<T>(&mut self, taken: Result<T, SpoolError>) -> Option<T> {
        match taken {
            Ok(taken) => {
                self.spool_problem = None;
                Some(taken)
            }
            Err(error) => {
                if self.spool_problem.is_none() {
                    tracing::error!(%error, "the spool takes no batch");
                }
                self.spool_problem = Some(error.to_string());
                None
            }
        }
    }

    /// Writes what is only in memory to the spool, in its place, and keeps it in memory too. What finds no
    /// place there stays as it is, with all behind it; whether there is none such.
    pub(super) fn persist(&mut self) -> bool {
        let mut before = None;
        for place in 0..self.waiting.len() {
            if self.waiting[place].entry.is_none() {
                let Some(spool) = &mut self.spool else { return false };
                let written = spool.insert(before, &self.waiting[place].batch);
                let Some(entry) = self.is_spooled(written) else { return false };
                self.waiting[place].entry = Some(entry);
                self.read += 1;
            }
            before = self.waiting[place].entry;
        }
        true
    }

    /// Whether nothing is in memory only.
    pub(super) fn is_persisted(&self) -> bool {
        self.read == self.waiting.len()
    }

    /// The oldest batch; it stays until [`Queue::pop`].
    pub(super) fn front(&self) -> Option<Arc<Batch>> {
        self.waiting.front().map(|waiting| Arc::clone(&waiting.batch))
    }

    /// The oldest batch has left: delivered, or refused.
    pub(super) fn pop(&mut self) {
        let Some(Waiting { batch, entry }) = self.waiting.pop_front() else { return };
        self.bytes -= size(&batch);
        if let (Some(entry), Some(spool)) = (entry, &mut self.spool) {
            spool.remove(entry);
            self.read -= 1;
        }
        if self.bytes <= self.bytes_max / 2 {
            self.fill();
        }
    }

    /// Takes batches from the spool into memory, as far as there is room and the disk gives them.
    pub(super) fn fill(&mut self) {
        while !self.is_full() {
            let Some(spool) = &mut self.spool else { return };
            let (found, lost) = spool.read(self.read);
            self.broken_records += lost;
            match found {
                Ok(found) => {
                    self.read_problem = None;
                    let Some((entry, batch)) = found else { return };
                    self.read += 1;
                    self.keep(Arc::new(batch), Some(entry));
                }
                Err(error) => {
                    if self.read_problem.is_none() {
                        tracing::error!(%error, "the spool gives no batch; it is tried again");
                    }
                    self.read_problem = Some(error.to_string());
                    return;
                }
            }
        }
    }

    /// Why the spool gives nothing now; [`Queue::fill`] tries again.
    pub(super) fn read_problem(&self) -> Option<&str> {
        self.read_problem.as_deref()
    }

    /// Whether a batch can be taken to the destination.
    pub(super) fn has_front(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn keep(&mut self, batch: Arc<Batch>, entry: Option<Entry>) {
        self.bytes += size(&batch);
        self.waiting.push_back(Waiting { batch, entry });
    }

    /// At the end: what is only in memory goes to the spool, in its place. Records that are lost with the
    /// program.
    pub(super) fn save(&mut self) -> u64 {
        let (mut lost, mut before) = (0, None);
        for Waiting { batch, entry } in self.waiting.drain(..) {
            let spool = self.spool.as_mut();
            let saved = entry.or_else(|| spool?.insert(before, &batch).ok());
            before = saved.or(before);
            if saved.is_none() {
                lost += batch.records;
            }
        }
        (self.bytes, self.read) = (0, 0);
        lost
    }

    /// Records in the spool.
    pub(super) fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::records)
    }

    /// Records of broken files since the last call.
    pub(super) const fn take_broken(&mut self) -> u64 {
        std::mem::replace(&mut self.broken_records, 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.spool.as_ref().is_none_or(Spool::is_empty)
    }
}

fn size(batch: &Batch) -> u64 {
    u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::record::Table;

    fn batch(records: u64) -> Batch {
        Batch { table: Table::Flows, records, token: String::new(), bytes: vec![0; 100] }
    }

    fn with_spool(bytes_max: u64, folder: &Path, spool_bytes_max: u64) -> Queue {
        let mut queue = Queue::new(bytes_max);
        queue.attach(Spool::open(folder, "eve", spool_bytes_max).expect("a folder"));
        queue
    }

    fn drain(queue: &mut Queue) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some(batch) = queue.front() {
            all.push(batch.records);
            queue.pop();
        }
        all
    }

    #[test]
    fn memory_alone_refuses_what_does_not_fit() {
        let mut queue = Queue::new(250);
        let pushed: Vec<_> = (1..=4).map(|records| queue.push(batch(records))).collect();
        assert_eq!(pushed, [Pushed::Waits, Pushed::Waits, Pushed::Waits, Pushed::Full]);
        assert_eq!(drain(&mut queue), [1, 2, 3]);
        assert_eq!(queue.save(), 0);
    }

    #[test]
    fn order_is_kept_through_the_spool_and_over_runs() {
        let folder = std::env::temp_dir().join(format!("vmprobe-queue-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let again = || with_spool(250, &folder, 1_500);
        let mut queue = again();
        for records in 1..=6 {
            assert_eq!(queue.push(batch(records)), Pushed::Waits);
        }
        assert_eq!(queue.spooled(), 4 + 5 + 6);
        queue.pop();
        // The next is younger than those on disk.
        assert_eq!(queue.push(batch(7)), Pushed::Waits);
        queue.pop();
        queue.pop();
        assert_eq!(queue.front().map(|batch| batch.records), Some(4));
        drop(queue);
        let mut queue = again();
        assert_eq!(queue.spooled(), 4 + 5 + 6 + 7);
        assert_eq!(queue.push(batch(8)), Pushed::Waits);
        assert_eq!(drain(&mut queue), [4, 5, 6, 7, 8]);
        assert!(queue.is_empty());
        for records in 1..=3 {
            queue.push(batch(records));
        }
        assert_eq!((queue.save(), queue.spooled()), (0, 6));
        drop(queue);
        assert_eq!(drain(&mut again()), [1, 2, 3]);
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn what_is_saved_at_the_end_stands_in_its_place() {
        let folder = std::env::temp_dir().join(format!("vmprobe-queues-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let again = || with_spool(350, &folder, 10_000);
        // The first ones wait in memory alone, those behind them on disk.
        let mut queue = again();
        for records in 1..=7 {
            queue.push(batch(records));
        }
        assert_eq!((queue.spooled(), queue.save()), (5 + 6 + 7, 0));
        drop(queue);
        // Some in memory are on disk too, some came behind them.
        let mut queue = again();
        assert_eq!(queue.spooled(), 28);
        let mut popped = Vec::new();
        for _ in 0..5 {
            popped.extend(queue.front().map(|batch| batch.records));
            queue.pop();
        }
        for records in 8..=12 {
            queue.push(batch(records));
        }
        assert_eq!((popped, queue.save()), (vec![1, 2, 3, 4, 5], 0));
        drop(queue);
        assert_eq!(drain(&mut again()), [6, 7, 8, 9, 10, 11, 12]);
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn what_is_written_early_is_delivered_once_and_in_its_place() {
        let folder = std::env::temp_dir().join(format!("vmprobe-queuee-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let again = || with_spool(350, &folder, 1_000);
        // The first ones wait in memory, those behind them on disk.
        let mut queue = again();
        for records in 1..=6 {
            queue.push(batch(records));
        }
        assert_eq!((queue.is_persisted(), queue.spooled()), (false, 5 + 6));
        assert!(queue.persist() && queue.persist() && queue.is_persisted());
        assert_eq!(queue.spooled(), 21);
        // As if it had been killed.
        drop(queue);
        let mut queue = again();
        queue.pop();
        queue.pop();
        queue.push(batch(7));
        // What finds no room on disk is in memory as before, and what is on disk is not there twice.
        assert!(queue.persist());
        assert_eq!(queue.spooled(), 3 + 4 + 5 + 6 + 7);
        for records in [3, 4, 5] {
            assert_eq!(queue.front().map(|batch| batch.records), Some(records));
            queue.pop();
        }
        assert!(!queue.spool_is_ahead());
        if let Some(spool) = &mut queue.spool {
            spool.set_bytes_max(300);
        }
        queue.push(batch(8));
        assert!(!queue.persist() && !queue.is_persisted());
        assert_eq!((drain(&mut queue), queue.spooled()), (vec![6, 7, 8], 0));
        assert!(queue.is_persisted());
        // Without a spool there is nothing to be done.
        let mut queue = Queue::new(350);
        queue.push(batch(1));
        assert!(!queue.persist() && !queue.is_persisted());
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn a_full_spool_refuses() {
        let folder = std::env::temp_dir().join(format!("vmprobe-queuef-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let mut queue = with_spool(100, &folder, 200);
        let pushed: Vec<_> = (1..=3).map(|records| queue.push(batch(records))).collect();
        assert_eq!(pushed, [Pushed::Waits, Pushed::Waits, Pushed::SpoolFull]);
        let _ = std::fs::remove_dir_all(folder);
    }
}
