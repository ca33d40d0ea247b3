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

/// All files of records below a folder, in order of their names.
///
/// # Panics
/// If there is another file, but for hours that stand added up: what a writer did not finish must not stay.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let files: Vec<_> =
        all_files(folder).into_iter().filter(|file| !stands_added_up(file)).collect();
    for file in &files {
        assert!(is_finished(file), "{} is left over", file.display());
    }
    files
}

/// The finished ones, where a writer was killed or still writes.
pub fn finished_files(folder: &Path) -> Vec<PathBuf> {
    all_files(folder).into_iter().filter(|file| is_finished(file)).collect()
}

/// All rows of a table.
///
/// # Panics
/// If a file is torn or not finished.
pub fn rows(folder: &Path, table: &str) -> Vec<Row> {
    files(&folder.join(table)).iter().flat_map(|file| read(file)).collect()
}

/// Sum of a column over the rows that `choose` takes.
///
/// # Panics
/// If one of them has no number there.
pub fn sum(rows: &[Row], column: &str, choose: impl Fn(&Row) -> bool) -> u64 {
    let chosen = rows.iter().filter(|row| choose(row));
    chosen.map(|row| row[column].as_u64().unwrap_or_else(|| panic!("{column}: {row:?}"))).sum()
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

/// The rows of one file.
///
/// # Panics
/// If it is torn.
pub fn read(path: &Path) -> Vec<Row> {
    let file = File::open(path).expect("the file opens");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut rows = Vec::new();
    for batch in reader {
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

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(all_files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Whether it is an hour of windows, added up, in its place: a live run makes these of hours that are over.
fn stands_added_up(file: &Path) -> bool {
    const BEGINNINGS: [&str; 4] = [".windows_1m.", ".windows_1h.", ".vms_1m.", ".talks_1h."];
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_one = |name: String| BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    let is_hidden = |name: String| name.starts_with('.');
    let is_of_windows = file.ancestors().nth(3).and_then(name).is_some_and(|it| it == "windows");
    name(file).is_some_and(is_one)
        && is_of_windows
        && !file.parent().and_then(name).is_some_and(is_hidden)
}

fn is_finished(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "parquet")
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
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn what_is_left_over_or_torn_is_no_record() {
        let folder = Folder::new("left-over");
        assert!(rows(folder.root(), "windows").is_empty(), "no table is an empty one");
        let hour = folder.path("windows/2026-01-01/00");
        std::fs::create_dir_all(&hour).expect("a folder");
        std::fs::write(hour.join("a.parquet"), b"PAR1 torn").expect("a file");
        assert!(std::panic::catch_unwind(|| rows(folder.root(), "windows")).is_err());
        std::fs::write(hour.join("b.parquet.part"), b"").expect("a file");
        assert!(std::panic::catch_unwind(|| files(folder.root())).is_err());
        assert_eq!(finished_files(folder.root()), [hour.join("a.parquet")]);
        std::fs::remove_file(hour.join("b.parquet.part")).expect("it was there");
        std::fs::write(hour.join(".vms_1m.2-p-1-0-9"), b"").expect("a file");
        assert_eq!(files(folder.root()), [hour.join("a.parquet")], "an hour that stands added up");
        let unfinished = folder.path(".rolled-p");
        std::fs::create_dir_all(&unfinished).expect("a folder");
        std::fs::write(unfinished.join(".vms_1m.2-p-1-0-9"), b"").expect("a file");
        assert!(std::panic::catch_unwind(|| files(folder.root())).is_err(), "one that does not");
    }
}
