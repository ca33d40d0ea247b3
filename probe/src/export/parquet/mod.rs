//! Records as Parquet files in hour folders.
//!
//! In: [`Rows`] and the time. Out: files
//! `FOLDER/<table>/<YYYY-MM-DD>/<HH>/<table>-<probe>-<start_ns>-<number>.parquet`, by the hour
//! (UTC) of the table's time column.
//! Cost: rows are encoded in memory as they come (about a hundred bytes a row); a file is one
//! write, one fsync and one rename.
//! Invariants: a name ending in `.parquet` is a whole file; an existing file is never overwritten;
//! rows that wait (in open files or for the disk) are at most `queue_rows_max` a table; the same
//! batches at the same times give the same names and contents.
//! Source: the Parquet format, by the crate `parquet`; account as in ARCHITECTURE.md.
//!
//! A file is open until its age reaches `file_seconds`, it reaches [`FILE_ROWS_MAX`] rows, rows of
//! a third hour come, or the sink is closed. Records of open files are lost when the process is
//! killed; those of closed ones are not.

mod buffer;
mod disk;

use std::collections::VecDeque;

use crate::config::StorePlan;
use crate::record::{Origin, Record, Rows, Table, TableVisitor};
use crate::time::Timestamp;

use super::{SinkCause, SinkHealth, SinkLedger};
use buffer::{Buffer, TableBuffer};
use disk::Disk;

pub use disk::DiskError;

/// Rows of one file at most.
pub const FILE_ROWS_MAX: usize = 1 << 20;

const SECOND_NS: u64 = 1_000_000_000;
/// First and longest wait between two attempts on a failing disk.
const RETRY_NS: (u64, u64) = (SECOND_NS, 30 * SECOND_NS);

/// A file that is complete in memory and waits for the disk.
#[derive(Debug)]
struct ReadyFile {
    table: Table,
    /// Hours since the epoch.
    hour: u64,
    /// Least time of its rows.
    start_ns: u64,
    /// Count of the files of this table that this sink has made, from 0.
    number: u64,
    rows: u64,
    bytes: Vec<u8>,
}

/// The sink. It owns its folder's files of this probe; one thread holds it.
pub struct ParquetSink {
    buffers: Vec<Box<dyn Buffer>>,
    ready: VecDeque<ReadyFile>,
    disk: Disk,
    health: SinkHealth,
    retry_at: Timestamp,
    retry_after_ns: u64,
    queue_rows_max: usize,
    file_age_ns: u64,
    ledger: SinkLedger,
}

impl ParquetSink {
    /// A sink for the plan's folder; `None` where the plan has none. A folder that is missing or
    /// not writable is no error here: the sink begins as failing and recovers by itself. Leftovers
    /// that a crash of the same probe left in the folder are removed.
    pub fn new(plan: &StorePlan, probe_id: &str, domain: &str) -> Option<Self> {
        let folder = plan.folder.clone()?;
        let queue_rows_max = usize::try_from(plan.queue_rows_max).unwrap_or(usize::MAX).max(1);
        let mut disk = Disk::new(folder, probe_id, plan.free_mib_min);
        let health = match disk.prepare() {
            Ok(()) => SinkHealth::Ok,
            Err(error) => {
                tracing::error!(%error, "records cannot be stored");
                SinkHealth::Failing {
                    since: Timestamp::ZERO,
                    what: error.to_string(),
                    full: error.is_full(),
                }
            }
        };
        Some(Self {
            buffers: buffers(&Origin::new(probe_id, domain), queue_rows_max),
            ready: VecDeque::new(),
            disk,
            health,
            retry_at: Timestamp::ZERO,
            retry_after_ns: RETRY_NS.0,
            queue_rows_max,
            file_age_ns: u64::from(plan.file_seconds).saturating_mul(SECOND_NS),
            ledger: SinkLedger::default(),
        })
    }

    /// Takes a batch. `now` is the clock by which files age and attempts are repeated: the wall
    /// clock live, the packets' clock in a replay. Never fails; see [`ParquetSink::ledger`].
    pub fn write(&mut self, mut rows: Rows, now: Timestamp) {
        for place in 0..self.buffers.len() {
            self.take(place, &mut rows, now);
        }
        self.tick(now);
    }

    /// Closes files that are due and writes what waits, if the disk is due for an attempt.
    pub fn tick(&mut self, now: Timestamp) {
        for buffer in &mut self.buffers {
            buffer.close_due(now, self.file_age_ns, &mut self.ready);
        }
        self.deliver(now, false);
    }

    /// Closes every file and writes all that waits, once, whatever the back-off says. Whether
    /// nothing waits any more; if so the sink may go, else call it again or
    /// [`ParquetSink::give_up`]. `now` as in [`ParquetSink::write`].
    pub fn close(&mut self, now: Timestamp) -> bool {
        for buffer in &mut self.buffers {
            buffer.close_all(&mut self.ready);
        }
        self.deliver(now, true);
        self.ready.is_empty()
    }

    /// Drops what still waits, counted as [`SinkCause::UndeliveredAtEnd`], and gives the account.
    pub fn give_up(mut self) -> SinkLedger {
        for buffer in &mut self.buffers {
            buffer.close_all(&mut self.ready);
        }
        self.ledger();
        let left = self.ready.iter().map(|file| file.rows).sum();
        self.ledger.drop_queued(SinkCause::UndeliveredAtEnd, left);
        self.ledger
    }

    /// The account so far.
    pub fn ledger(&mut self) -> SinkLedger {
        let lost = self.buffers.iter_mut().map(|buffer| buffer.take_not_encoded()).sum();
        self.ledger.drop_queued(SinkCause::NotEncoded, lost);
        self.ledger
    }

    /// Whether the disk takes records.
    pub const fn health(&self) -> &SinkHealth {
        &self.health
    }

    /// Takes the rows of one table, as far as they fit.
    fn take(&mut self, place: usize, rows: &mut Rows, now: Timestamp) {
        let Some(buffer) = self.buffers.get_mut(place) else { return };
        let table = buffer.table();
        self.ledger.queue(count(rows.len_of(table)));
        while rows.len_of(table) > 0 {
            let Some(buffer) = self.buffers.get_mut(place) else { return };
            let waiting = buffer.rows() + waiting(&self.ready, table);
            let room = self.queue_rows_max.saturating_sub(waiting);
            if room > 0 {
                buffer.take(rows, room, now, &mut self.ready);
                continue;
            }
            // Full: what is open may go to disk early; if that fails, the rest is lost.
            buffer.close_all(&mut self.ready);
            if !self.deliver(now, false) {
                let lost = rows.len_of(table);
                buffer_of(&mut self.buffers, place, |buffer| buffer.discard(rows));
                self.ledger.drop_queued(SinkCause::QueueFull, count(lost));
            }
        }
    }

    /// Writes files that wait, until none is left or one fails. Whether at least one was written.
    fn deliver(&mut self, now: Timestamp, at_once: bool) -> bool {
        let mut written = false;
        while let Some(file) = self.ready.front() {
            if !at_once && now < self.retry_at {
                break;
            }
            match self.disk.write(file) {
                Ok(()) => {
                    self.ledger.deliver(file.rows);
                    self.ready.pop_front();
                    written = true;
                    self.recovered();
                }
                Err(error) => {
                    self.failed(&error, now);
                    break;
                }
            }
        }
        written
    }

    fn recovered(&mut self) {
        if self.health != SinkHealth::Ok {
            tracing::info!("records are stored again");
        }
        self.health = SinkHealth::Ok;
        self.retry_at = Timestamp::ZERO;
        self.retry_after_ns = RETRY_NS.0;
    }

    fn failed(&mut self, error: &DiskError, now: Timestamp) {
        let since = match self.health {
            SinkHealth::Failing { since, .. } if since != Timestamp::ZERO => since,
            _ => {
                tracing::error!(%error, "records cannot be stored; they wait");
                now
            }
        };
        self.health = SinkHealth::Failing { since, what: error.to_string(), full: error.is_full() };
        self.retry_at = now + self.retry_after_ns;
        self.retry_after_ns = self.retry_after_ns.saturating_mul(2).min(RETRY_NS.1);
    }
}

fn buffers(origin: &Origin, queue_rows_max: usize) -> Vec<Box<dyn Buffer>> {
    struct Make<'a> {
        origin: &'a Origin,
        file_rows_max: usize,
        made: Vec<Box<dyn Buffer>>,
    }
    impl TableVisitor for Make<'_> {
        fn table<R: Record>(&mut self) {
            let buffer = TableBuffer::<R>::new(self.origin.clone(), self.file_rows_max);
            self.made.push(Box::new(buffer));
        }
    }
    // Half of the queue, so that a file can be written while the next one fills.
    let file_rows_max = FILE_ROWS_MAX.min(queue_rows_max.div_ceil(2));
    let mut make = Make { origin, file_rows_max, made: Vec::new() };
    Table::visit(&mut make);
    make.made
}

fn buffer_of(buffers: &mut [Box<dyn Buffer>], place: usize, act: impl FnOnce(&mut dyn Buffer)) {
    if let Some(buffer) = buffers.get_mut(place) {
        act(buffer.as_mut());
    }
}

/// Rows of a table in files that wait for the disk.
fn waiting(ready: &VecDeque<ReadyFile>, table: Table) -> usize {
    let rows: u64 = ready.iter().filter(|file| file.table == table).map(|file| file.rows).sum();
    usize::try_from(rows).unwrap_or(usize::MAX)
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
