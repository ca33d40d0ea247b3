//! Conversations added up over a minute or an hour: the views `windows_1m` and `windows_1h`.
//!
//! In: `windows`, and files in which hours that are over stand added up. Out: SQL of the views; such files.
//! Cost: reading them, a few octets a row and column; making them, one pass over the hour's windows.
//! Invariants: a view says the same whether an hour was added up or not: rows of `windows` go into it as
//! they are where there is no such file, and whoever asks sums up. A file is used only as long as the
//! hour has exactly the files that it was made of; that stands in its name. Keys are those of the roll-ups in
//! ClickHouse, without addresses and ports of users outside.
//!
//! `<table>/<day>/<hour>/.windows_1h-<probe>-<files>-<number>-<bytes>`: how many files of the probe
//! there were, the largest number in their names, and their size together. Numbers only grow.

mod make;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::OpenFile;
use crate::schema;

pub(crate) use make::{Arguments, run};

/// The table that is added up.
pub(crate) const TABLE: &str = "windows";
/// Views with the length of their intervals in nanoseconds.
pub(crate) const VIEWS: [(&str, u64); 2] =
    [("windows_1m", 60_000_000_000), ("windows_1h", 3_600_000_000_000)];

/// What becomes of a column where windows are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roll {
    Key,
    With(&'static str),
    Out,
}

fn roll(name: &str, kind: &str) -> Roll {
    let ends = |ending: &str| name.ends_with(ending);
    match kind {
        "UBIGINT" if name.starts_with("window_") => Roll::Out,
        "UBIGINT" if ends("_min_ns") => Roll::With("min"),
        "UBIGINT" if ends("_max_ns") => Roll::With("max"),
        "UBIGINT" if ends("_p50_ns") || ends("_p90_ns") || ends("_p99_ns") => Roll::Out,
        "UBIGINT" => Roll::With("sum"),
        "DOUBLE" if name == "sampling_rate" => Roll::With("min"),
        "UTINYINT" | "USMALLINT" | "VARCHAR"
            if !matches!(name, "schema_version" | "reverse_segment" | "tap")
                && !ends("_mac")
                && !ends("_address") =>
        {
            Roll::Key
        }
        _ => Roll::Out,
    }
}

/// Names, types and fates of the columns of `windows` that stay.
fn columns() -> Vec<(&'static str, &'static str, Roll)> {
    let columns = schema::columns(TABLE).map(|(name, kind)| (name, kind, roll(name, kind)));
    columns.filter(|(.., roll)| *roll != Roll::Out).collect()
}

fn start_of(time: &str, interval_ns: u64) -> String {
    format!("{time} // {interval_ns} * {interval_ns}")
}

/// Rows of `from` as they go into a view.
pub(crate) fn as_they_are(from: &str, interval_ns: u64) -> String {
    let columns: Vec<_> = columns().iter().map(|(name, ..)| format!("\"{name}\"")).collect();
    format!(
        "SELECT {} AS start_ns, {}, 1::UBIGINT AS row_count FROM {from}",
        start_of("window_start_ns", interval_ns),
        columns.join(", ")
    )
}

/// Rows of `from`, `windows` or what a shorter interval came to, added up by `start`; `rows` is how many
/// they stand for.
fn added_up(from: &str, start: &str, rows: &str) -> String {
    let columns = columns().into_iter().map(|(name, kind, roll)| match roll {
        Roll::With(function) => format!("{function}(own.\"{name}\")::{kind} AS \"{name}\""),
        _ => format!("own.\"{name}\""),
    });
    let columns: Vec<_> = columns.collect();
    format!(
        "SELECT {start} AS start_ns, {}, {rows}::UBIGINT AS row_count FROM {from} AS own GROUP BY ALL \
         ORDER BY start_ns, destination_virtual_station_name, source_virtual_station_name",
        columns.join(", ")
    )
}

/// Files of one probe in one hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FilesOf {
    files: u64,
    number: u64,
    bytes: u64,
}

impl FilesOf {
    fn name(self, view: &str, probe: &str) -> String {
        let Self { files, number, bytes } = self;
        format!(".{view}-{probe}-{files}-{number}-{bytes}")
    }
}

/// The probe and the number in a file's name, `windows-<probe>-<start>-<number>.parquet`.
fn probe_and_number(name: &str) -> Option<(&str, u64)> {
    let rest = name.strip_prefix(TABLE)?.strip_prefix('-')?.strip_suffix(".parquet")?;
    let (rest, number) = rest.rsplit_once('-')?;
    let (probe, start) = rest.rsplit_once('-')?;
    start.parse::<u64>().ok()?;
    Some((probe, number.parse().ok()?))
}

/// Whether a query may read one of the views.
pub(crate) fn are_read(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    VIEWS.iter().any(|(view, _)| sql.contains(view))
}

/// Whether a file may be one in which an hour stands added up.
pub(crate) fn may_be(name: &str) -> bool {
    VIEWS
        .iter()
        .any(|(view, _)| name.strip_prefix('.').and_then(|rest| rest.strip_prefix(view)).is_some())
}

/// Of `windows` and the files in which they may stand added up: for a view those that do, and the windows
/// that do not.
pub(crate) fn choose<'a>(
    view: &str,
    windows: &'a [OpenFile],
    rolled: &'a [OpenFile],
) -> (Vec<&'a OpenFile>, Vec<&'a OpenFile>) {
    let mut hours = BTreeMap::<(&Path, &str), (FilesOf, Vec<&OpenFile>)>::new();
    let mut rest = Vec::new();
    for file in windows {
        let name = file.path.file_name().and_then(|name| name.to_str());
        match (file.path.parent(), name.and_then(probe_and_number)) {
            (Some(folder), Some((probe, number))) => {
                let (of, files) = hours.entry((folder, probe)).or_default();
                of.files += 1;
                of.number = of.number.max(number);
                of.bytes += file.bytes;
                files.push(file);
            }
            _ => rest.push(file),
        }
    }
    let mut made = Vec::new();
    for ((folder, probe), (of, files)) in hours {
        let path: PathBuf = folder.join(of.name(view, probe));
        match rolled.iter().find(|file| file.path == path) {
            Some(file) => made.push(file),
            None => rest.extend(files),
        }
    }
    (made, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_added_up_stays() {
        let of = |name: &str| columns().into_iter().find(|(own, ..)| *own == name).map(|it| it.2);
        assert_eq!(of("octet_delta_count"), Some(Roll::With("sum")));
        assert_eq!(of("sequence_ack_rtt_max_ns"), Some(Roll::With("max")));
        assert_eq!(of("destination_port"), Some(Roll::Key));
        for gone in ["window_start_ns", "source_address", "sequence_ack_rtt_p99_ns", "loss_low"] {
            assert_eq!(of(gone), None, "{gone}");
        }
        assert!(columns().len() > 60, "{}", columns().len());
    }

    #[test]
    fn names_say_whose_files_they_are() {
        assert_eq!(probe_and_number("windows-a-b-17-3.parquet"), Some(("a-b", 3)));
        for other in ["flows-a-17-3.parquet", "windows-a-x-3.parquet", "windows-a-17-3"] {
            assert_eq!(probe_and_number(other), None, "{other}");
        }
        assert!(
            may_be(".windows_1h-p-1-2-3") && !may_be("windows_1h-p") && !may_be(".tmp-windows")
        );
    }
}
