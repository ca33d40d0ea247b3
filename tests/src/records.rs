//! Records read back from disk.
//!
//! In: the folder of a run's records. Out: rows of a table as maps from column to JSON value.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::Array;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value as Json;

/// A record.
pub type Row = BTreeMap<String, Json>;

/// A folder of its own, in memory where the system has such files, removed at the end unless the
/// test fails.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it; the name is unique in the process.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn new(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = base.join(format!("vmprobe-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// All files of records, in order of their names.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All rows of a table.
///
/// # Panics
/// If a file is torn.
pub fn rows(folder: &Path, table: &str) -> Vec<Row> {
    files(&folder.join(table)).iter().flat_map(|file| read(file)).collect()
}

/// The rows as texts in order, to compare sets of them; `without` names columns left out.
pub fn sorted(rows: &[Row], without: &[&str]) -> Vec<String> {
    let text = |row: &Row| {
        let kept = row.iter().filter(|(column, _)| !without.contains(&column.as_str()));
        kept.fold(String::new(), |text, (column, value)| text + &format!("{column}={value} "))
    };
    let mut texts: Vec<_> = rows.iter().map(text).collect();
    texts.sort_unstable();
    texts
}

/// A number of a row; null is 0.
///
/// # Panics
/// If the column is not there.
pub fn number(row: &Row, column: &str) -> u64 {
    row[column].as_u64().unwrap_or(0)
}

/// A text of a row, if it is not null.
///
/// # Panics
/// If the column is not there.
pub fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row[column].as_str()
}

fn read(path: &Path) -> Vec<Row> {
    let file = File::open(path).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("whole").build();
    let mut rows = Vec::new();
    for batch in reader.expect("a reader") {
        let batch = batch.expect("a batch");
        let schema = batch.schema();
        for place in 0..batch.num_rows() {
            let columns = schema.fields().iter().zip(batch.columns());
            rows.push(
                columns
                    .map(|(field, column)| (field.name().clone(), cell(column.as_ref(), place)))
                    .collect(),
            );
        }
    }
    rows
}

fn cell(column: &dyn Array, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        other => panic!("no record has a column of type {other}"),
    }
}
