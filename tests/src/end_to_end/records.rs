//! Records on disk, read back from Parquet, and asked by the query program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value as Json};

use super::program::{built, run_to_end};

/// Rows of one table, each an object.
#[derive(Debug)]
pub struct Rows(pub Vec<Json>);

impl Rows {
    /// Sum of a column over the rows that `choose` takes.
    pub fn sum(&self, column: &str, choose: impl Fn(&Json) -> bool) -> u64 {
        let rows = self.0.iter().filter(|row| choose(row));
        rows.map(|row| row[column].as_u64().unwrap_or_else(|| panic!("{column}: {row}"))).sum()
    }
}

/// All rows of a table; each file must be whole, and none may be left unfinished.
pub fn rows(records: &Path, table: &str) -> Rows {
    let files = files(&records.join(table));
    for file in &files {
        let whole = file.extension().is_some_and(|ending| ending == "parquet");
        assert!(whole, "{} is left over", file.display());
    }
    Rows(files.iter().flat_map(|file| read(file)).collect())
}

/// The answer of the query program; `None` where the program is not built. That it cannot read the
/// records is a failure.
pub fn query(records: &Path, sql: &str) -> Option<Json> {
    let mut command = Command::new(built("vmprobe-query")?);
    command.args(["--format", "json", "--data"]).arg(records).arg(sql);
    let ended = run_to_end(command);
    ended.expect(0, &[]);
    Some(serde_json::from_str(&ended.output).expect("the query program writes JSON"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn read(path: &Path) -> Vec<Json> {
    let file = File::open(path).expect("the file opens");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    reader.flat_map(|batch| objects(&batch.expect("a whole batch"))).collect()
}

fn objects(batch: &RecordBatch) -> Vec<Json> {
    let schema = batch.schema();
    let object = |row: usize| {
        let names = schema.fields().iter().map(|field| field.name().clone());
        let cells = batch.columns().iter().map(|column| cell(column, row));
        Json::Object(names.zip(cells).collect::<Map<_, _>>())
    };
    (0..batch.num_rows()).map(object).collect()
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

#[cfg(test)]
mod tests {
    use super::super::Folder;
    use super::*;

    #[test]
    fn a_torn_file_is_a_failure_and_no_skip() {
        if built("vmprobe-query").is_none() {
            super::super::skipped("a torn file and the query", "vmprobe-query is not built");
            return;
        }
        let records = Folder::new("torn");
        let hour = records.path("windows/2026-01-01/00");
        fs::create_dir_all(&hour).expect("a folder");
        fs::write(hour.join("torn.parquet"), b"PAR1 torn").expect("a file");
        let sql = "SELECT count(*) AS rows FROM windows";
        let asked = std::panic::catch_unwind(|| query(records.root(), sql));
        assert!(asked.is_err(), "{asked:?}");
    }
}
