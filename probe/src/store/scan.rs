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
}

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

/// The files of one hour, in order; `None` where there are none.
fn files(root: &Path, safe_id: &str, place: Place) -> Option<(Place, Vec<Stored>)> {
    let (hour, table) = place;
    let prefix = folder::prefix(table, safe_id);
    let entries = fs::read_dir(folder::hour_folder(root, table, hour)).ok()?;
    let stored = |entry: fs::DirEntry| {
        let (start_ns, number) = folder::numbers(entry.file_name().to_str()?, &prefix)?;
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Stored { start_ns, number, bytes: metadata.len() })
    };
    let mut files: Vec<_> = entries.flatten().filter_map(stored).collect();
    files.sort_by_key(|stored| (stored.start_ns, stored.number));
    (!files.is_empty()).then_some((place, files))
}

/// Names of the folders in a folder.
fn folders(folder: &Path) -> Vec<String> {
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().filter(is_folder);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
