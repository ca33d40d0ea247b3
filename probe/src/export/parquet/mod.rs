//! Records as Parquet files in hour folders.
//!
//! In: [`Rows`] and the time. Out: files
//! `FOLDER/<table>/<YYYY-MM-DD>/<HH>/<table>-<probe>-<start_ns>-<number>.parquet`, by the hour
//! (UTC) of the table's time column. What is further than an hour from the time that the packets
//! have come to is filed under the nearest hour that is not.
//! Cost: rows are encoded in memory as they come (about a hundred bytes a row); a file is one
//! write, one fsync and one rename.
//! Invariants: a name ending in `.parquet` is a whole file; an existing file is never overwritten;
//! rows that wait (in open files or for the disk) are at most `queue_rows_max` a table; a table
//! that cannot be written holds up no other; the same batches at the same times give the same names and contents.
//! Source: the Parquet format, by the crate `parquet`; account as in ARCHITECTURE.md.
//!
//! A file is open until its age reaches `file_seconds`, it reaches [`FILE_ROWS_MAX`] rows, rows of
//! a fourth hour come, or the sink is closed. Records of open files are lost when the process is
//! killed; those of closed ones are not.

mod buffer;
mod disk;
pub mod folder;

use std::collections::VecDeque;

use crate::config::StorePlan;
use crate::record::{Origin, Record, Rows, Table, TableVisitor};
use crate::time::Timestamp;

use super::{SinkCause, SinkHealth, SinkLedger};
use buffer::{Buffer, Instants, TableBuffer};
use disk::Disk;

pub use buffer::writer_properties;
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
    tables: Vec<TableSink>,
    disk: Disk,
    health: SinkHealth,
    queue_rows_max: usize,
    file_age_ns: u64,
    ledger: SinkLedger,
}

/// One table on its way to the disk. Each has a back-off of its own, so that a file that cannot be
/// written holds up no other table.
struct TableSink {
    buffer: Box<dyn Buffer>,
    ready: VecDeque<ReadyFile>,
    failing: Option<Failing>,
}

/// The disk has refused a file.
struct Failing {
    since: Timestamp,
    what: String,
    full: bool,
    retry_at: Timestamp,
    retry_after_ns: u64,
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
        let buffers = buffers(&Origin::new(probe_id, domain), queue_rows_max);
        let table = |buffer| TableSink { buffer, ready: VecDeque::new(), failing: None };
        Some(Self {
            tables: buffers.into_iter().map(table).collect(),
            disk,
            health,
            queue_rows_max,
            file_age_ns: u64::from(plan.file_seconds).saturating_mul(SECOND_NS),
            ledger: SinkLedger::default(),
        })
    }

    /// Takes a batch. `now` is the clock by which files age, attempts are repeated and rows are
    /// filed. Never fails; see [`ParquetSink::ledger`].
    pub fn write(&mut self, rows: Rows, now: Timestamp) {
        self.write_filed(rows, now, now);
    }

    /// As [`ParquetSink::write`], where packets have a time of their own: files age by `now`, rows
    /// are filed by `packets`, the time that the packets have come to.
    pub fn write_filed(&mut self, mut rows: Rows, now: Timestamp, packets: Timestamp) {
        for place in 0..self.tables.len() {
            self.take(place, &mut rows, Instants { now, packets });
        }
        self.tick(now);
    }

    /// Closes files that are due and writes what waits, where the disk is due for an attempt.
    pub fn tick(&mut self, now: Timestamp) {
        for table in &mut self.tables {
            table.buffer.close_due(now, self.file_age_ns, &mut table.ready);
        }
        self.deliver(now, false);
    }

    /// Closes every file and writes all that waits, once, whatever the back-off says. Whether
    /// nothing waits any more; if so the sink may go, else call it again or
    /// [`ParquetSink::give_up`]. `now` as in [`ParquetSink::write`].
    pub fn close(&mut self, now: Timestamp) -> bool {
        self.close_files();
        self.deliver(now, true);
        self.tables.iter().all(|table| table.ready.is_empty())
    }

    /// Drops what still waits, counted as [`SinkCause::UndeliveredAtEnd`], and gives the account.
    pub fn give_up(mut self) -> SinkLedger {
        self.close_files();
        self.ledger();
        let left = self.tables.iter().map(TableSink::waiting).sum();
        self.ledger.drop_queued(SinkCause::UndeliveredAtEnd, left);
        self.ledger
    }

    /// The account so far.
    pub fn ledger(&mut self) -> SinkLedger {
        let lost = self.tables.iter_mut().map(|table| table.buffer.take_not_encoded()).sum();
        self.ledger.drop_queued(SinkCause::NotEncoded, lost);
        self.ledger
    }

    /// Whether the disk takes records; of several tables that it refuses, the one it refused first.
    pub const fn health(&self) -> &SinkHealth {
        &self.health
    }

    fn close_files(&mut self) {
        for table in &mut self.tables {
            table.buffer.close_all(&mut table.ready);
        }
    }

    /// Takes the rows of one table, as far as they fit.
    fn take(&mut self, place: usize, rows: &mut Rows, at: Instants) {
        let Self { tables, disk, ledger, queue_rows_max, .. } = self;
        let Some(table) = tables.get_mut(place) else { return };
        let name = table.buffer.table();
        ledger.queue(count(rows.len_of(name)));
        let mut written = false;
        while rows.len_of(name) > 0 {
            let waiting = count(table.buffer.rows()) + table.waiting();
            let room = count(*queue_rows_max).saturating_sub(waiting);
            if room > 0 {
                let room = usize::try_from(room).unwrap_or(usize::MAX);
                table.buffer.take(rows, room, at, &mut table.ready);
                continue;
            }
            // Full: what is open may go to disk early; if that fails, the rest is lost.
            table.buffer.close_all(&mut table.ready);
            if table.deliver(disk, ledger, at.now, false) {
                written = true;
            } else {
                let lost = rows.len_of(name);
                table.buffer.discard(rows);
                ledger.drop_queued(SinkCause::QueueFull, count(lost));
            }
        }
        self.judge(written);
    }

    /// Writes files that wait, of each table until one fails.
    fn deliver(&mut self, now: Timestamp, at_once: bool) {
        let Self { tables, disk, ledger, .. } = self;
        let mut written = false;
        for table in tables {
            written |= table.deliver(disk, ledger, now, at_once);
        }
        self.judge(written);
    }

    /// What all tables together come to. A folder that could not be used at the start is believed
    /// in as soon as a file was written.
    fn judge(&mut self, written: bool) {
        let failing = self.tables.iter().filter_map(|table| table.failing.as_ref());
        let was_failing =
            matches!(self.health, SinkHealth::Failing { since, .. } if since != Timestamp::ZERO);
        match failing.min_by_key(|failing| failing.since) {
            Some(Failing { since, what, full, .. }) => {
                if !was_failing {
                    tracing::error!(error = what, "records cannot be stored; they wait");
                }
                self.health =
                    SinkHealth::Failing { since: *since, what: what.clone(), full: *full };
            }
            None if written => {
                if self.health != SinkHealth::Ok {
                    tracing::info!("records are stored again");
                }
                self.health = SinkHealth::Ok;
            }
            None => {}
        }
    }
}

impl TableSink {
    /// Rows in files that wait for the disk.
    fn waiting(&self) -> u64 {
        self.ready.iter().map(|file| file.rows).sum()
    }

    /// Writes files that wait, until none is left or one fails. Whether at least one was written.
    fn deliver(
        &mut self,
        disk: &Disk,
        ledger: &mut SinkLedger,
        now: Timestamp,
        at_once: bool,
    ) -> bool {
        let mut written = false;
        while let Some(file) = self.ready.front() {
            let is_early = self.failing.as_ref().is_some_and(|failing| now < failing.retry_at);
            if is_early && !at_once {
                break;
            }
            match disk.write(file) {
                Ok(()) => {
                    ledger.deliver(file.rows);
                    self.ready.pop_front();
                    self.failing = None;
                    written = true;
                }
                Err(error) => {
                    self.fail(&error, now);
                    break;
                }
            }
        }
        written
    }

    fn fail(&mut self, error: &DiskError, now: Timestamp) {
        let (since, retry_after_ns) = match &self.failing {
            Some(before) => (before.since, before.retry_after_ns.saturating_mul(2).min(RETRY_NS.1)),
            None => (now, RETRY_NS.0),
        };
        self.failing = Some(Failing {
            since,
            what: error.to_string(),
            full: error.is_full(),
            retry_at: now + retry_after_ns,
            retry_after_ns,
        });
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

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod test_folder;
#[cfg(test)]
mod tests;
