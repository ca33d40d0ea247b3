//! Conversations added up over a minute or an hour: the views `windows_1m`, `windows_1h` and `vms_1m`, and
//! what a graph is made of.
//!
//! In: `windows`, and files in which hours that are over stand added up. Out: SQL of the views; such files.
//! Cost: reading them, a few octets a row and column; making them, two passes over the hour's windows.
//! Invariants: a view says the same whether an hour was added up or not: rows of `windows` go into it as
//! they are where there is no such file, and whoever asks sums up. A file is used only as long as the
//! hour has exactly the files that it was made of; that stands in its name. Keys are those of the roll-ups in
//! ClickHouse, without addresses and ports of users outside.
//!
//! `<table>/<day>/<hour>/.windows_1h.<format>-<probe>-<files>-<number>-<bytes>`: how many files of the
//! probe there were, the largest number in their names, and their size together. Numbers only grow.

mod make;
mod talks;
mod vms;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::OpenFile;
use crate::schema;

pub(crate) use make::{Arguments, NoRoom, run};
pub(crate) use talks::KEYS as TALK_KEYS;

/// The table that is added up.
pub(crate) const TABLE: &str = "windows";
/// Where a change of columns makes other files; `store/scan.rs` of the probe has the same number.
const FORMAT: u32 = 2;
const MINUTE_NS: u64 = 60_000_000_000;
/// Nanoseconds of an hour.
pub(crate) const HOUR_NS: u64 = 3_600_000_000_000;

/// What an hour is added up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RollUp {
    /// What two VMs, or a VM and all outside, did by one service in a minute.
    Minutes,
    /// The same in an hour.
    Hours,
    /// What a VM did in a minute.
    Vms,
    /// Conversations with their addresses in an hour, for `vmprobe topology`; no view.
    Talks,
}

impl RollUp {
    /// In the order in which they are made.
    pub(crate) const ALL: [Self; 4] = [Self::Minutes, Self::Hours, Self::Vms, Self::Talks];
    /// Those that users ask.
    pub(crate) const VIEWS: [Self; 3] = [Self::Minutes, Self::Hours, Self::Vms];

    /// Of the view, and in the names of files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Minutes => "windows_1m",
            Self::Hours => "windows_1h",
            Self::Vms => "vms_1m",
            Self::Talks => "talks_1h",
        }
    }

    /// Rows of `from`, windows, as they go into it.
    pub(crate) fn as_they_are(self, from: &str) -> String {
        match self {
            Self::Minutes => pairs(from, MINUTE_NS),
            Self::Hours => pairs(from, HOUR_NS),
            Self::Vms => vms::rows(from, &start_of("window_start_ns", MINUTE_NS), "1::UBIGINT"),
            Self::Talks => talks::as_they_are(from),
        }
    }
}

/// What becomes of a column where windows are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roll {
    Key,
    With(&'static str),
}

/// As the records' schema says it, but that addresses are left out.
fn roll(name: &str, fate: &'static str) -> Option<Roll> {
    match fate {
        "" => None,
        "key" => (!name.ends_with("_address")).then_some(Roll::Key),
        function => Some(Roll::With(function)),
    }
}

/// Names, types and fates of the columns of `windows` that stay.
fn columns() -> Vec<(&'static str, &'static str, Roll)> {
    let columns = schema::fates(TABLE);
    columns.filter_map(|(name, kind, fate)| Some((name, kind, roll(name, fate)?))).collect()
}

fn start_of(time: &str, interval_ns: u64) -> String {
    format!("{time} // {interval_ns} * {interval_ns}")
}

fn pairs(from: &str, interval_ns: u64) -> String {
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
        Roll::Key => format!("own.\"{name}\""),
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
    fn name(self, roll_up: RollUp, probe: &str) -> String {
        let (Self { files, number, bytes }, name) = (self, roll_up.name());
        format!(".{name}.{FORMAT}-{probe}-{files}-{number}-{bytes}")
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

/// Whether a query may read one of them.
pub(crate) fn are_read(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    RollUp::ALL.iter().any(|roll_up| sql.contains(roll_up.name()))
}

/// Whether a file may be one in which an hour stands added up.
pub(crate) fn may_be(name: &str) -> bool {
    RollUp::ALL.iter().any(|roll_up| is_of(name, *roll_up))
}

/// Whether a query may read this file of them.
pub(crate) fn is_read(sql: &str, name: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    RollUp::ALL.iter().any(|roll_up| is_of(name, *roll_up) && sql.contains(roll_up.name()))
}

fn is_of(name: &str, roll_up: RollUp) -> bool {
    name.strip_prefix('.').is_some_and(|rest| rest.starts_with(roll_up.name()))
}

/// Of `windows` and the files in which they may stand added up: for a view those that do, and the windows
/// that do not.
pub(crate) fn choose<'a>(
    roll_up: RollUp,
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
        let path: PathBuf = folder.join(of.name(roll_up, probe));
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
        assert_eq!(of("window_full_count"), Some(Roll::With("sum")));
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
        let of = FilesOf { files: 1, number: 2, bytes: 3 };
        let name = of.name(RollUp::Vms, "p-q");
        assert_eq!(name, ".vms_1m.2-p-q-1-2-3");
        assert!(is_read("from VMS_1m", &name) && !is_read("from windows_1m", &name));
        assert!(
            may_be(".windows_1h-p-1-2-3") && !may_be("windows_1h-p") && !may_be(".tmp-windows")
        );
    }
}
