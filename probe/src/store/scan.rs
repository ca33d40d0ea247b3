//! What a probe has stored.
//!
//! In: the folder, the probe. Out: its files by hour and table.
//! Cost: one look at each folder of an hour, and at each file's size.
//! Invariants: a file of another probe, or of nobody, is none of it; a link to elsewhere is not
//! followed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::export::parquet::folder;
use crate::record::Table;

/// An hour since the epoch, and a table.
pub(super) type Place = (u64, Table);

/// A file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Least time of its rows when it was made.
    pub(super) start_ns: u64,
    /// What tells it from others of the same time.
    pub(super) number: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// With the first file of an hour: the size of the roll-ups beside them.
    pub(super) rolled_bytes: u64,
}

/// What hours of windows are added up to; `rollup` of the query program has the same names, and the same
/// number of their format.
const ROLLUPS: [&str; 4] = ["windows_1m", "windows_1h", "vms_1m", "talks_1h"];
const FORMAT: &str = "2";

/// Files by hour, the oldest first.
pub(super) type Hours = BTreeMap<Place, Vec<Stored>>;

/// Every hour of the folder.
pub(super) fn all(root: &Path, safe_id: &str) -> Hours {
    let mut hours = Hours::new();
    for &table in Table::ALL {
        let folder = root.join(table.name());
        for day in folders(&folder) {
            for hour in folders(&folder.join(&day)) {
                if let Some(hour) = folder::hour_of(&day, &hour) {
                    hours.extend(files(root, safe_id, (hour, table)));
                }
            }
        }
    }
    hours
}

/// The hours from `first` to `last`.
pub(super) fn between(root: &Path, safe_id: &str, first: u64, last: u64) -> Hours {
    let places = (first..=last).flat_map(|hour| Table::ALL.iter().map(move |table| (hour, *table)));
    places.filter_map(|place| files(root, safe_id, place)).collect()
}

/// Where a file is.
pub(super) fn path(root: &Path, safe_id: &str, (hour, table): Place, stored: &Stored) -> PathBuf {
    let name = folder::file_name(&folder::prefix(table, safe_id), stored.start_ns, stored.number);
    folder::hour_folder(root, table, hour).join(name)
}

/// The files of one hour, in order; `None` where there are none. No files at all where only roll-ups are
/// left: the hour was removed while it was added up.
pub(super) fn files(root: &Path, safe_id: &str, place: Place) -> Option<(Place, Vec<Stored>)> {
    let (hour, table) = place;
    let prefix = folder::prefix(table, safe_id);
    let entries = fs::read_dir(folder::hour_folder(root, table, hour)).ok()?;
    let stored = |entry: fs::DirEntry| {
        let (start_ns, number) = folder::numbers(entry.file_name().to_str()?, &prefix)?;
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Stored { start_ns, number, bytes: metadata.len(), rolled_bytes: 0 })
    };
    let mut files: Vec<_> = entries.flatten().filter_map(stored).collect();
    files.sort_by_key(|stored| (stored.start_ns, stored.number));
    let rolled = rolled(root, safe_id, place);
    if let Some(first) = files.first_mut() {
        first.rolled_bytes = rolled.iter().map(|(_, bytes)| bytes).sum();
    }
    (!files.is_empty() || !rolled.is_empty()).then_some((place, files))
}

/// The files in which the windows of an hour stand added up, and their sizes.
pub(super) fn rolled(root: &Path, safe_id: &str, (hour, table): Place) -> Vec<(PathBuf, u64)> {
    if table != Table::Windows {
        return Vec::new();
    }
    let entries = fs::read_dir(folder::hour_folder(root, table, hour)).into_iter().flatten();
    let rolled = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        is_rolled(entry.file_name().to_str()?, safe_id).then(|| (entry.path(), metadata.len()))
    });
    rolled.collect()
}

/// Whether this is the name of a roll-up of this probe's windows, in any format.
pub(super) fn is_rolled(name: &str, safe_id: &str) -> bool {
    ROLLUPS.iter().any(|view| {
        let rest = name.strip_prefix('.').and_then(|rest| rest.strip_prefix(view));
        let rest = rest.and_then(|rest| {
            let (format, rest) = rest.split_once('-')?;
            let is_format = format.is_empty() || format.strip_prefix('.').is_some_and(is_number);
            is_format.then_some(rest)?.strip_prefix(safe_id)?.strip_prefix('-')
        });
        // Another probe's id may begin with this one's.
        rest.is_some_and(|rest| rest.split('-').count() == 3 && rest.split('-').all(is_number))
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the roll-ups of these files, all that the probe has in an hour, are there.
pub(super) fn has_rolled(root: &Path, safe_id: &str, place: Place, files: &[Stored]) -> bool {
    let number = files.iter().map(|stored| stored.number).max().unwrap_or_default();
    let bytes: u64 = files.iter().map(|stored| stored.bytes).sum();
    let folder = folder::hour_folder(root, place.1, place.0);
    ROLLUPS.iter().all(|view| {
        let name = format!(".{view}.{FORMAT}-{safe_id}-{}-{number}-{bytes}", files.len());
        folder.join(name).is_file()
    })
}

/// Names of the folders in a folder.
fn folders(folder: &Path) -> Vec<String> {
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().filter(is_folder);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
