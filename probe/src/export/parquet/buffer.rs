//! The open files of one table, in memory.
//!
//! In: rows. Out: [`ReadyFile`]s.
//! Cost: rows gather to a row group, which is sorted and encoded; from then on only the encoded
//! bytes are held.
//! Invariants: at most [`HOURS_OPEN_MAX`] files are open; each row group is in the table's total
//! order. A row is filed under the hour of its time, or of the clock's hour and its neighbours
//! under the nearest: a capture with stamps all over the centuries makes no file for each of them.

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

use super::{ReadyFile, SECOND_NS, count};
use crate::record::{Origin, Record, Rows, SCHEMA_VERSION, Table};
use crate::time::Timestamp;

/// Rows of a row group: enough that columns compress, few enough that unsorted rows stay small.
const GROUP_ROWS: usize = 32_768;
/// Hours with an open file at most: that of the clock, the one before for what comes late, and the
/// one after for flows that are ahead of the last window.
const HOURS_OPEN_MAX: usize = 3;
/// zstd's level: beyond it encoding costs more than the disk saves.
const ZSTD_LEVEL: i32 = 1;
/// What a file says of itself in its footer.
const TABLE_KEY: &str = "vmprobe.table";
const VERSION_KEY: &str = "vmprobe.schema_version";
const HOUR_NS: u64 = 3_600 * SECOND_NS;

/// The open files of a table, whatever its row type.
pub(super) trait Buffer: Send {
    /// The table.
    fn table(&self) -> Table;
    /// Rows in open files.
    fn rows(&self) -> usize;
    /// Takes at most `room` of the table's rows out of `rows`, from the front; closes files that
    /// are full.
    fn take(&mut self, rows: &mut Rows, room: usize, at: Instants, ready: &mut VecDeque<ReadyFile>);
    /// Throws the table's rows away.
    fn discard(&mut self, rows: &mut Rows);
    /// Closes files that were opened `age_ns` ago or earlier.
    fn close_due(&mut self, now: Timestamp, age_ns: u64, ready: &mut VecDeque<ReadyFile>);
    /// Closes all files.
    fn close_all(&mut self, ready: &mut VecDeque<ReadyFile>);
    /// Rows lost because they could not be encoded, since the last call.
    fn take_not_encoded(&mut self) -> u64;
}

/// The two clocks of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instants {
    /// By which files age.
    pub(super) now: Timestamp,
    /// Where the time of the packets stands, by which rows are filed.
    pub(super) packets: Timestamp,
}

/// The open files of the table of `R`.
pub(super) struct TableBuffer<R> {
    open: BTreeMap<u64, OpenFile<R>>,
    origin: Origin,
    file_rows_max: usize,
    files_made: u64,
    not_encoded: u64,
}

struct OpenFile<R> {
    opened: Timestamp,
    start_ns: u64,
    rows: usize,
    group: Vec<R>,
    encoder: Option<Encoder<R>>,
}

impl<R: Record> TableBuffer<R> {
    pub(super) fn new(origin: Origin, file_rows_max: usize) -> Self {
        Self { open: BTreeMap::new(), origin, file_rows_max, files_made: 0, not_encoded: 0 }
    }

    fn put(&mut self, row: R, at: Instants, ready: &mut VecDeque<ReadyFile>) {
        let time = row.time();
        let hour = filed_hour(time, at.packets);
        if !self.open.contains_key(&hour) && self.open.len() >= HOURS_OPEN_MAX {
            self.close_oldest(ready);
        }
        let file = self.open.entry(hour).or_insert_with(|| OpenFile {
            opened: at.now,
            start_ns: u64::MAX,
            rows: 0,
            group: Vec::new(),
            encoder: None,
        });
        file.start_ns = file.start_ns.min(time.as_ns());
        file.rows += 1;
        file.group.push(row);
        let full = file.rows >= self.file_rows_max;
        if full {
            self.close(hour, ready);
        } else if file.group.len() >= GROUP_ROWS && file.encode_group(&self.origin).is_err() {
            self.lose(hour);
        }
    }

    fn close_oldest(&mut self, ready: &mut VecDeque<ReadyFile>) {
        if let Some(hour) = self.open.keys().next().copied() {
            self.close(hour, ready);
        }
    }

    fn close(&mut self, hour: u64, ready: &mut VecDeque<ReadyFile>) {
        let Some(file) = self.open.remove(&hour) else { return };
        let (start_ns, rows) = (file.start_ns, count(file.rows));
        match file.finish(&self.origin) {
            Ok(bytes) => {
                let number = self.files_made;
                self.files_made += 1;
                ready.push_back(ReadyFile { table: R::TABLE, hour, start_ns, number, rows, bytes });
            }
            Err(error) => {
                tracing::error!(%error, table = R::TABLE.name(), "records cannot be encoded");
                self.not_encoded += rows;
            }
        }
    }

    fn lose(&mut self, hour: u64) {
        if let Some(file) = self.open.remove(&hour) {
            tracing::error!(table = R::TABLE.name(), "records cannot be encoded");
            self.not_encoded += count(file.rows);
        }
    }
}

/// Hours since the epoch.
fn filed_hour(time: Timestamp, packets: Timestamp) -> u64 {
    let clock = packets.as_ns() / HOUR_NS;
    (time.as_ns() / HOUR_NS).clamp(clock.saturating_sub(1), clock + 1)
}

impl<R: Record> Buffer for TableBuffer<R> {
    fn table(&self) -> Table {
        R::TABLE
    }

    fn rows(&self) -> usize {
        self.open.values().map(|file| file.rows).sum()
    }

    fn take(
        &mut self,
        rows: &mut Rows,
        room: usize,
        at: Instants,
        ready: &mut VecDeque<ReadyFile>,
    ) {
        let from = R::of(rows);
        let taken = room.min(from.len());
        for row in from.drain(..taken) {
            self.put(row, at, ready);
        }
    }

    fn discard(&mut self, rows: &mut Rows) {
        R::of(rows).clear();
    }

    fn close_due(&mut self, now: Timestamp, age_ns: u64, ready: &mut VecDeque<ReadyFile>) {
        let due = |file: &OpenFile<R>| now.since_ns(file.opened) >= age_ns;
        let hours: Vec<_> =
            self.open.iter().filter(|(_, file)| due(file)).map(|(hour, _)| *hour).collect();
        for hour in hours {
            self.close(hour, ready);
        }
    }

    fn close_all(&mut self, ready: &mut VecDeque<ReadyFile>) {
        while !self.open.is_empty() {
            self.close_oldest(ready);
        }
    }

    fn take_not_encoded(&mut self) -> u64 {
        std::mem::take(&mut self.not_encoded)
    }
}

impl<R: Record> OpenFile<R> {
    fn encode_group(&mut self, origin: &Origin) -> Result<(), ParquetError> {
        let mut encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::new()?,
        };
        self.group.sort_unstable_by(R::order);
        encoder.encode(&self.group, origin)?;
        self.group.clear();
        self.encoder = Some(encoder);
        Ok(())
    }

    fn finish(mut self, origin: &Origin) -> Result<Vec<u8>, ParquetError> {
        self.encode_group(origin)?;
        match self.encoder {
            Some(encoder) => encoder.writer.into_inner(),
            None => Ok(Vec::new()),
        }
    }
}

/// How files of records are written, whatever the table.
///
/// # Errors
/// None: the level is one that zstd has.
pub fn writer_properties() -> Result<WriterPropertiesBuilder, ParquetError> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Chunk))
}

/// A Parquet file of the table of `R` that grows in memory.
struct Encoder<R> {
    writer: ArrowWriter<Vec<u8>>,
    rows: PhantomData<R>,
}

impl<R: Record> Encoder<R> {
    fn new() -> Result<Self, ParquetError> {
        let keys = vec![
            KeyValue::new(TABLE_KEY.to_owned(), R::TABLE.name().to_owned()),
            KeyValue::new(VERSION_KEY.to_owned(), SCHEMA_VERSION.to_string()),
        ];
        let properties = writer_properties()?.set_key_value_metadata(Some(keys)).build();
        // Arrow's own copy of the schema says nothing that Parquet's does not.
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), R::TABLE.schema(), options)?;
        Ok(Self { writer, rows: PhantomData })
    }

    /// Appends the rows as one row group.
    fn encode(&mut self, rows: &[R], origin: &Origin) -> Result<(), ParquetError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.writer.write(&R::batch(rows, origin)?)?;
        self.writer.flush()
    }
}
