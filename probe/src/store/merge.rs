//! The rows of many files in few.
//!
//! In: files of one table. Out: new files with the same rows, in the order of the table's time.
//! Cost: each file's row groups are in order already, so this takes what comes next of those that
//! overlap: [`BATCH_ROWS`] rows of each, and the encoded columns of one new row group.
//! Invariants: every row of the files is in the new ones exactly once, or there is an error; files
//! of another schema are left alone; rows of the same time stand in the order of the files.
//!
//! Where more than [`RUNS_OPEN_MAX`] row groups overlap the order is given up, never a row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt64Type;
use arrow_array::{RecordBatch, UInt64Array};
use arrow_select::concat::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::statistics::Statistics;

use crate::export::parquet::writer_properties;

/// Rows that are read of one row group in one go.
const BATCH_ROWS: usize = 2_048;
/// Rows that are encoded in one go.
const WRITE_ROWS: usize = 8_192;
/// Row groups that are open at a time.
const RUNS_OPEN_MAX: usize = 64;
/// Rows of a new row group: a query reads the footer of each, which has a line for each column.
const GROUP_ROWS: usize = 1 << 19;
/// Of the row groups without a value, the share that a Bloom filter does not leave out.
const FALSE_SHARE: f64 = 0.01;
/// Rows of a new file at most.
const FILE_ROWS_MAX: u64 = 1 << 24;

/// Why files were not merged.
#[derive(Debug, thiserror::Error)]
pub(super) enum MergeError {
    /// One of them cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// That one.
        path: PathBuf,
        /// What is wrong with it.
        source: ParquetError,
    },
    /// The new one cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The new one.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A bug: nothing is replaced.
    #[error("{read} rows became {written}")]
    Count {
        /// Rows of the files.
        read: u64,
        /// Rows of the new ones.
        written: u64,
    },
}

/// A file that may be merged.
pub(super) struct Input {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl Input {
    /// Reads the end of the file.
    ///
    /// # Errors
    /// [`MergeError::Read`] where it is no Parquet file.
    pub(super) fn open(path: PathBuf) -> Result<Self, MergeError> {
        let read = |path: &Path| {
            let file = File::open(path)?;
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ArrowReaderMetadata::load(&file, options)
        };
        match read(&path) {
            Ok(metadata) => Ok(Self { path, metadata }),
            Err(source) => Err(MergeError::Read { path, source }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its rows.
    pub(super) fn rows(&self) -> u64 {
        let rows = self.metadata.metadata().file_metadata().num_rows();
        u64::try_from(rows).unwrap_or(0)
    }

    /// Whether both have the same columns and say the same of themselves.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.metadata.schema() == other.metadata.schema() && self.keys() == other.keys()
    }

    fn keys(&self) -> Option<&Vec<KeyValue>> {
        self.metadata.metadata().file_metadata().key_value_metadata()
    }

    /// First and last value of a column in a row group, as far as its statistics say.
    fn first_time(&self, group: usize, column: usize) -> u64 {
        let chunk = self.metadata.metadata().row_group(group).column(column);
        match chunk.statistics() {
            // Unsigned numbers stand in Parquet's signed ones, bit for bit.
            Some(Statistics::Int64(values)) => {
                values.min_opt().map_or(0, |min| min.cast_unsigned())
            }
            _ => 0,
        }
    }
}

/// Merges `inputs`, which are alike, into new files in `folder`, named by `name` after their place.
/// `time` is the column that they are sorted by; by the values of `found_by`, in no order, a question leaves row
/// groups out. How many files were made.
///
/// # Errors
/// [`MergeError`]; then what is in `folder` is of no use.
pub(super) fn merge(
    inputs: &[Input],
    time: &str,
    found_by: &[&str],
    folder: &Path,
    name: impl Fn(u64) -> String,
) -> Result<u64, MergeError> {
    let Some(model) = inputs.first() else { return Ok(0) };
    let mut runs = Runs::new(inputs, time)?;
    let mut out = Out { model, found_by, folder, name, open: None, made: 0, written: 0 };
    let (mut waiting, mut waiting_rows) = (Vec::new(), 0);
    while let Some(rows) = runs.next()? {
        waiting_rows += rows.num_rows();
        waiting.push(rows);
        if waiting_rows >= WRITE_ROWS {
            out.write(&waiting)?;
            waiting.clear();
            waiting_rows = 0;
        }
    }
    if !waiting.is_empty() {
        out.write(&waiting)?;
    }
    out.close()?;
    let read = inputs.iter().map(Input::rows).sum();
    if out.written != read {
        return Err(MergeError::Count { read, written: out.written });
    }
    Ok(out.made)
}

/// A row group of a file.
struct Run<'a> {
    input: &'a Input,
    group: usize,
    first: u64,
}

/// One that is being read.
struct OpenRun<'a> {
    input: &'a Input,
    reader: ParquetRecordBatchReader,
    batch: RecordBatch,
    times: UInt64Array,
    place: usize,
}

/// All of them, as one row of rows.
struct Runs<'a> {
    /// In order of their first times, the next one last.
    to_come: Vec<Run<'a>>,
    /// By number of opening; `None` once read.
    open: Vec<Option<OpenRun<'a>>>,
    /// Time of the next row of each that is open, and its number.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    column: usize,
}

impl<'a> Runs<'a> {
    fn new(inputs: &'a [Input], time: &str) -> Result<Self, MergeError> {
        let mut to_come = Vec::new();
        let mut column = 0;
        for input in inputs {
            column = input.metadata.schema().index_of(time).map_err(|error| MergeError::Read {
                path: input.path.clone(),
                source: error.into(),
            })?;
            for group in 0..input.metadata.metadata().num_row_groups() {
                to_come.push(Run { input, group, first: input.first_time(group, column) });
            }
        }
        // Stable: files of the same first time stay in their order.
        to_come.sort_by_key(|run| run.first);
        to_come.reverse();
        Ok(Self { to_come, open: Vec::new(), next: BinaryHeap::new(), column })
    }

    /// The rows that come next, of one row group.
    fn next(&mut self) -> Result<Option<RecordBatch>, MergeError> {
        self.open_due()?;
        let is_full = self.next.len() >= RUNS_OPEN_MAX;
        let Some(Reverse((_, number))) = self.next.pop() else { return Ok(None) };
        let open = self.next.peek().map(|Reverse(other)| *other);
        let to_come = self.to_come.last().filter(|_| !is_full).map(|run| (run.first, usize::MAX));
        let until = open.into_iter().chain(to_come).min();
        let Some(place) = self.open.get_mut(number) else { return Ok(None) };
        let Some(run) = place else { return Ok(None) };
        let rows = run.take(until, number);
        if run.time().is_some() || run.advance(self.column)? {
            self.next.extend(run.time().map(|time| Reverse((time, number))));
        } else {
            *place = None;
        }
        Ok(Some(rows))
    }

    /// Opens what may hold the next row.
    fn open_due(&mut self) -> Result<(), MergeError> {
        while self.next.len() < RUNS_OPEN_MAX {
            let next = self.next.peek().map_or(u64::MAX, |Reverse((time, _))| *time);
            let Some(run) = self.to_come.pop_if(|run| run.first <= next) else { break };
            let Some(open) = OpenRun::new(&run, self.column)? else { continue };
            let number = self.open.len();
            self.next.extend(open.time().map(|time| Reverse((time, number))));
            self.open.push(Some(open));
        }
        Ok(())
    }
}

impl<'a> OpenRun<'a> {
    /// `None` where it has no rows.
    fn new(run: &Run<'a>, column: usize) -> Result<Option<Self>, MergeError> {
        let input = run.input;
        let bad = |source| MergeError::Read { path: input.path.clone(), source };
        // Each has a file of its own: copies of one handle share their place in it.
        let file = File::open(&input.path).map_err(|error| bad(error.into()))?;
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, input.metadata.clone())
                .with_row_groups(vec![run.group])
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(bad)?;
        let batch = RecordBatch::new_empty(input.metadata.schema().clone());
        let times = UInt64Array::from(Vec::<u64>::new());
        let mut open = Self { input, reader, batch, times, place: 0 };
        Ok(open.advance(column)?.then_some(open))
    }

    /// Reads on; `false` at the end.
    fn advance(&mut self, column: usize) -> Result<bool, MergeError> {
        let bad = |source| MergeError::Read { path: self.input.path.clone(), source };
        loop {
            let Some(batch) = self.reader.next() else { return Ok(false) };
            let batch = batch.map_err(|error| bad(error.into()))?;
            if batch.num_rows() == 0 {
                continue;
            }
            let times = batch.column(column).as_primitive_opt::<UInt64Type>().cloned();
            let wrong = || ParquetError::General("its time is no number".to_owned());
            self.times = times.ok_or_else(|| bad(wrong()))?;
            (self.batch, self.place) = (batch, 0);
            return Ok(true);
        }
    }

    fn time(&self) -> Option<u64> {
        self.times.values().get(self.place).copied()
    }

    /// Takes the rows before `until`, at least one.
    fn take(&mut self, until: Option<(u64, usize)>, number: usize) -> RecordBatch {
        let rest = self.times.values().get(self.place..).unwrap_or_default();
        let before = |time: &u64| until.is_none_or(|until| (*time, number) <= until);
        let rows = rest.iter().take_while(|time| before(time)).count().max(1);
        let taken = self.batch.slice(self.place, rows.min(rest.len()));
        self.place += rows;
        taken
    }
}

/// New files, one after the other.
struct Out<'a, N> {
    /// Whose columns and words of itself they have.
    model: &'a Input,
    /// Columns with Bloom filters.
    found_by: &'a [&'a str],
    folder: &'a Path,
    name: N,
    open: Option<OutFile>,
    made: u64,
    written: u64,
}

struct OutFile {
    path: PathBuf,
    writer: ArrowWriter<File>,
    rows: u64,
}

impl<N: Fn(u64) -> String> Out<'_, N> {
    fn write(&mut self, slices: &[RecordBatch]) -> Result<(), MergeError> {
        let count = slices.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        if self.open.as_ref().is_some_and(|open| open.rows + count > FILE_ROWS_MAX) {
            self.close()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let bad = |source| MergeError::Write { path: open.path.clone(), source };
        let rows = concat_batches(self.model.metadata.schema(), slices);
        let rows = rows.map_err(|error| bad(error.into()))?;
        open.writer.write(&rows).map_err(bad)?;
        open.rows += count;
        self.written += count;
        self.open = Some(open);
        Ok(())
    }

    fn begin(&mut self) -> Result<OutFile, MergeError> {
        let path = self.folder.join((self.name)(self.made));
        let bad = |source| MergeError::Write { path: path.clone(), source };
        let mut properties = writer_properties()
            .map_err(bad)?
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(self.model.keys().cloned());
        for column in self.found_by {
            // Of as many values as there are rows; it becomes smaller where there are fewer.
            properties = properties.set_column_bloom_filter_fpp((*column).into(), FALSE_SHARE);
        }
        let properties = properties.build();
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let file = File::create_new(&path).map_err(|error| bad(error.into()))?;
        let schema = self.model.metadata.schema().clone();
        let writer = ArrowWriter::try_new_with_options(file, schema, options).map_err(bad)?;
        self.made += 1;
        Ok(OutFile { path, writer, rows: 0 })
    }

    /// Puts the open one on disk.
    fn close(&mut self) -> Result<(), MergeError> {
        let Some(OutFile { path, writer, .. }) = self.open.take() else { return Ok(()) };
        let file = match writer.into_inner() {
            Ok(file) => file,
            Err(source) => return Err(MergeError::Write { path, source }),
        };
        file.sync_all().map_err(|source| MergeError::Io { path, source })
    }
}
