//! The small files of an hour become few.
//!
//! In: an hour of a table. Out: its folder with the same rows in fewer files.
//! Cost: every row of the small files is read and written once more; memory as in `merge.rs`.
//! Invariants: whoever lists the folder, and whenever, finds every row exactly once: the new folder
//! is made in full out of sight, and takes the place of the old one in one step of the file system
//! (`renameat2`(2), `RENAME_EXCHANGE`). What a crash leaves is out of sight and of no use, before
//! the step and after it. Files of others, and those that are no good, go along as they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::merge::{self, Input, MergeError};
use super::scan::{self, Place, Stored};
use crate::export::parquet::folder;
use crate::record::Table;

/// A file as large as this is left alone.
const MERGED_BYTES: u64 = 64 << 20;
/// In an hour that still grows, a file as large as this is left alone …
const OPEN_MERGED_BYTES: u64 = 4 << 20;
/// … and so are fewer files than this.
const OPEN_FILES_MIN: usize = 16;
/// Files that are merged in one go.
const FILES_MAX: usize = 4_096;
const MIB: u64 = 1 << 20;

/// Why the files of an hour stay as they are.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompactError {
    /// See there.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The file system cannot put one folder in the place of another.
    #[error("{path}: this file system cannot exchange two folders; small files stay as they are")]
    Unsupported {
        /// The folder of the records.
        path: PathBuf,
    },
    /// Others took files away meanwhile, or there is a folder among them.
    #[error("{path}: changed meanwhile")]
    Changed {
        /// The folder of the hour.
        path: PathBuf,
    },
    /// Both would not fit on the disk for a while.
    #[error("{path}: too little free space to merge small files")]
    NoSpace {
        /// The folder of the records.
        path: PathBuf,
    },
}

/// What became of an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compacted {
    /// Files that are gone.
    pub(super) merged: u64,
    /// Files in their place.
    pub(super) made: u64,
    /// Rows in them.
    pub(super) rows: u64,
    /// Files that cannot be read, and why; they stay.
    pub(super) bad: Vec<String>,
}

/// Whose folder, and where to work out of sight.
pub(super) struct Compactor<'a> {
    /// The folder of the records.
    pub(super) root: &'a Path,
    /// The probe.
    pub(super) safe_id: &'a str,
    /// Space that stays free.
    pub(super) free_mib_min: u32,
}

/// Columns that single rows are asked for by, in a table whose order says nothing of them.
const fn found_by(table: Table) -> &'static [&'static str] {
    match table {
        Table::Flows => &["flow_id", "source_address", "destination_address"],
        _ => &[],
    }
}

/// The files of an hour that are worth merging. `grows`: more may come.
pub(super) fn small(files: &[Stored], grows: bool) -> Vec<Stored> {
    let (bytes_max, files_min) =
        if grows { (OPEN_MERGED_BYTES, OPEN_FILES_MIN) } else { (MERGED_BYTES, 2) };
    let small = files.iter().filter(|stored| stored.bytes < bytes_max);
    let small: Vec<_> = small.take(FILES_MAX).cloned().collect();
    if small.len() >= files_min { small } else { Vec::new() }
}

impl Compactor<'_> {
    /// Removes what a crash left.
    pub(super) fn clean(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.hidden()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Merges the `small` ones of an hour's `files`, as many of them as can be read.
    pub(super) fn compact(
        &self,
        place: Place,
        files: &[Stored],
        small: &[Stored],
    ) -> Result<Compacted, CompactError> {
        let mut compacted = Compacted::default();
        let mut inputs = Vec::new();
        for stored in small {
            match Input::open(scan::path(self.root, self.safe_id, place, stored)) {
                Ok(input) => inputs.push(input),
                Err(error) => compacted.bad.push(error.to_string()),
            }
        }
        // Files of another version of the schema are merged by themselves another time.
        let model = inputs.pop();
        inputs.retain(|input| model.as_ref().is_some_and(|model| input.is_like(model)));
        inputs.extend(model);
        while inputs.len() > 1 {
            match self.replace(place, files, &inputs) {
                Ok(made) => {
                    compacted.merged = inputs.len() as u64;
                    compacted.rows = inputs.iter().map(Input::rows).sum();
                    compacted.made = made;
                    break;
                }
                Err(CompactError::Merge(MergeError::Read { path, source })) => {
                    compacted.bad.push(format!("{}: {source}", path.display()));
                    inputs.retain(|input| input.path() != path);
                }
                Err(error) => {
                    // What was made of it; the next round would remove it too.
                    let _ = self.clean();
                    return Err(error);
                }
            }
        }
        let _ = self.clean();
        Ok(compacted)
    }

    fn replace(
        &self,
        place: Place,
        files: &[Stored],
        inputs: &[Input],
    ) -> Result<u64, CompactError> {
        self.check_free(files)?;
        let (hour, table) = place;
        let hidden = self.hidden().join(format!("{}-{hour}", table.name()));
        self.clean().map_err(failed("remove", &hidden))?;
        fs::create_dir_all(&hidden).map_err(failed("create", &hidden))?;
        // Names that were never there: who still has a list of the old ones finds none of them.
        let number = files.iter().map(|stored| stored.number).max().unwrap_or_default() + 1;
        let start_ns = files.iter().map(|stored| stored.start_ns).min().unwrap_or_default();
        let prefix = folder::prefix(table, self.safe_id);
        let name = |place| folder::file_name(&prefix, start_ns, number + place);
        let made = merge::merge(inputs, table.time_column(), found_by(table), &hidden, name)?;
        let old = folder::hour_folder(self.root, table, hour);
        self.exchange(&old, &hidden, inputs)?;
        // The old files, which nobody finds any more; those who have them open read on.
        self.clean().map_err(failed("remove", &hidden))?;
        Ok(made)
    }

    /// The step.
    fn exchange(&self, old: &Path, new: &Path, inputs: &[Input]) -> Result<(), CompactError> {
        let _alone = folder::lock_alone(self.root).map_err(failed("lock", self.root))?;
        self.take_along(old, new, inputs)?;
        sync(new)?;
        match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::XDEV | Errno::OPNOTSUPP) => {
                return Err(CompactError::Unsupported { path: self.root.to_owned() });
            }
            Err(errno) => return Err(failed("exchange", old)(errno.into())),
        }
        // Both names, before any old file is removed.
        for changed in [old, new] {
            sync(changed.parent().unwrap_or(self.root))?;
        }
        Ok(())
    }

    /// Gives every file of the old folder that was not merged a second name in the new one, but for what
    /// the merged ones were added up to.
    fn take_along(&self, old: &Path, new: &Path, inputs: &[Input]) -> Result<(), CompactError> {
        let mut merged = 0;
        for entry in fs::read_dir(old).map_err(failed("list", old))? {
            let path = entry.map_err(failed("list", old))?.path();
            if inputs.iter().any(|input| input.path() == path) {
                merged += 1;
                continue;
            }
            let (Some(name), true) = (path.file_name(), path.is_file()) else {
                return Err(CompactError::Changed { path: old.to_owned() });
            };
            if !name.to_str().is_some_and(|name| scan::is_rolled(name, self.safe_id)) {
                fs::hard_link(&path, new.join(name)).map_err(failed("link", &path))?;
            }
        }
        if merged == inputs.len() {
            Ok(())
        } else {
            Err(CompactError::Changed { path: old.to_owned() })
        }
    }

    fn check_free(&self, files: &[Stored]) -> Result<(), CompactError> {
        let status = rustix::fs::statvfs(self.root)
            .map_err(|errno| failed("see the free space of", self.root)(errno.into()))?;
        let free = status.f_bavail.saturating_mul(status.f_frsize);
        let needed: u64 = files.iter().map(|stored| stored.bytes).sum();
        if free < needed.saturating_add(u64::from(self.free_mib_min) * MIB) {
            return Err(CompactError::NoSpace { path: self.root.to_owned() });
        }
        Ok(())
    }

    fn hidden(&self) -> PathBuf {
        folder::hidden(self.root, self.safe_id)
    }
}

fn sync(folder: &Path) -> Result<(), CompactError> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(failed("sync", folder))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CompactError + 'a {
    move |source| CompactError::Io { path: path.to_owned(), action, source }
}
