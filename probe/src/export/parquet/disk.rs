//! Whole files into hour folders.
//!
//! In: [`ReadyFile`]. Out: the file under its name, or why not.
//! Cost: one write, two fsyncs (file, folder) and one rename a file; one fsync a new folder.
//! Invariants: a file gets its name when its bytes are on disk, so a crash leaves no torn one;
//! a name that is taken is never taken again; what has its name counts as stored, because to write
//! it again would double its rows.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{ReadyFile, folder};
use crate::record::Table;

const MIB: u64 = 1 << 20;
/// Names that are tried for one file; more than this many files of the same probe, table and first
/// instant have another cause than a restart.
const NAMES_MAX: u64 = 10_000;

/// Why a file could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Less space is free than must stay so.
    #[error("{path}: {free_mib} MiB free, store.free_mib_min keeps {min_mib} MiB free")]
    NoSpace {
        /// The folder of the records.
        path: PathBuf,
        /// Free space.
        free_mib: u64,
        /// The limit.
        min_mib: u32,
    },
    /// No name was free.
    #[error("{path}: this name and the next {NAMES_MAX} are taken")]
    NamesTaken {
        /// The first name tried.
        path: PathBuf,
    },
}

impl DiskError {
    /// Whether room is what is missing.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded),
            Self::NamesTaken { .. } => false,
        }
    }
}

/// The folder of the records, as one probe uses it.
pub(super) struct Disk {
    folder: PathBuf,
    probe_id: String,
    free_mib_min: u32,
    /// Puts the names in a folder on disk.
    sync_folder: fn(&Path) -> io::Result<()>,
}

impl Disk {
    pub(super) fn new(folder: PathBuf, probe_id: &str, free_mib_min: u32) -> Self {
        Self { folder, probe_id: folder::safe_id(probe_id), free_mib_min, sync_folder }
    }

    /// Makes the folder and removes what a crash of this probe left in it.
    pub(super) fn prepare(&mut self) -> Result<(), DiskError> {
        self.make_folder(&self.folder)?;
        for table in Table::ALL {
            self.remove_leftovers(&self.folder.join(table.name()), *table, 2)?;
        }
        writable(&self.folder)
    }

    /// Stores a file.
    pub(super) fn write(&self, file: &ReadyFile) -> Result<(), DiskError> {
        self.make_folder(&self.folder)?;
        // Small files of an hour are merged by putting a new folder in the place of the old one.
        let _lock = folder::lock_shared(&self.folder).map_err(failed("lock", &self.folder))?;
        let folder = folder::hour_folder(&self.folder, file.table, file.hour);
        self.make_folder(&folder)?;
        self.check_free()?;
        let temporary =
            folder.join(format!("{}{}-{}", self.leftover(file.table), file.start_ns, file.number));
        let stored = write_whole(&temporary, &file.bytes)
            .and_then(|()| self.give_name(&temporary, &folder, file));
        if stored.is_err() {
            // It may not exist, or the disk may be gone; prepare() removes it at the next start.
            let _ = fs::remove_file(&temporary);
        }
        stored
    }

    fn give_name(
        &self,
        temporary: &Path,
        folder: &Path,
        file: &ReadyFile,
    ) -> Result<(), DiskError> {
        let prefix = folder::prefix(file.table, &self.probe_id);
        let name = |number| folder.join(folder::file_name(&prefix, file.start_ns, number));
        // After a restart the same first instant may come with the same number.
        for number in file.number..file.number + NAMES_MAX {
            if rename_to_new(temporary, &name(number))
                .map_err(failed("rename to", &name(number)))?
            {
                self.sync(folder);
                return Ok(());
            }
        }
        Err(DiskError::NamesTaken { path: name(file.number) })
    }

    /// Makes a folder and those above it that are missing, each of them safe before the next.
    fn make_folder(&self, folder: &Path) -> Result<(), DiskError> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        if let Some(above) = above {
            self.make_folder(above)?;
        }
        match fs::create_dir(folder) {
            Ok(()) => {}
            // Another probe may write into the same folder.
            Err(_) if folder.is_dir() => return Ok(()),
            Err(error) => return Err(failed("create the folder", folder)(error)),
        }
        self.sync(above.unwrap_or(Path::new(".")));
        Ok(())
    }

    /// Puts the names in a folder on disk. Where that fails records are stored all the same: they
    /// are at risk only if the machine stops before the system writes the names by itself.
    fn sync(&self, folder: &Path) {
        if let Err(error) = (self.sync_folder)(folder) {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "new names in this folder may not survive a power cut");
        }
    }

    fn check_free(&self) -> Result<(), DiskError> {
        let status = rustix::fs::statvfs(&self.folder)
            .map_err(|errno| failed("see the free space of", &self.folder)(errno.into()))?;
        let free_mib = status.f_bavail.saturating_mul(status.f_frsize) / MIB;
        if free_mib < u64::from(self.free_mib_min) {
            let path = self.folder.clone();
            return Err(DiskError::NoSpace { path, free_mib, min_mib: self.free_mib_min });
        }
        Ok(())
    }

    /// How the temporary names of this probe begin; digits, `-` and digits follow. The ending
    /// `.parquet` is missing, so no reader takes them for records.
    fn leftover(&self, table: Table) -> String {
        format!(".tmp-{}-{}-", table.name(), self.probe_id)
    }

    /// Removes temporary files of this probe in a folder and `depth` levels below it.
    fn remove_leftovers(&self, folder: &Path, table: Table, depth: u8) -> Result<(), DiskError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("list", folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", folder))?;
            let kind = entry.file_type().map_err(failed("list", folder))?;
            if kind.is_dir() && depth > 0 {
                self.remove_leftovers(&entry.path(), table, depth - 1)?;
            } else if kind.is_file() && self.is_leftover(&entry.file_name(), table) {
                fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    fn is_leftover(&self, name: &std::ffi::OsStr, table: Table) -> bool {
        // Another probe's id may begin with this one's, so the rest must be the two numbers.
        let rest = name.to_str().and_then(|name| name.strip_prefix(&self.leftover(table)));
        rest.and_then(folder::two_numbers).is_some()
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |source| DiskError::Io { path: path.to_owned(), action, source }
}

fn writable(folder: &Path) -> Result<(), DiskError> {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK)
        .map_err(|errno| failed("write to", folder)(errno.into()))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let mut file = File::create(path).map_err(failed("create", path))?;
    file.write_all(bytes).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// Renames; `false` if the new name exists.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<bool> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // Some file systems cannot refuse; this probe is the only one that makes such names.
        Err(Errno::INVAL | Errno::NOSYS) if to.exists() => Ok(false),
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to).map(|()| true),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_temporary_files_are_leftovers() {
        let disk = Disk::new(PathBuf::from("unused"), "a", 0);
        let leftover = |name: &str| disk.is_leftover(name.as_ref(), Table::Flows);
        assert!(leftover(".tmp-flows-a-1-0"));
        for name in [
            ".tmp-flows-a-b-1-0",
            ".tmp-flows-a-1",
            ".tmp-windows-a-1-0",
            "flows-a-1-0.parquet",
            ".tmp-flows-a-1-0x",
        ] {
            assert!(!leftover(name), "{name}");
        }
    }

    /// A disk in a new folder that syncs as told, and the folder.
    fn disk(name: &str, sync_folder: fn(&Path) -> io::Result<()>) -> (Disk, PathBuf) {
        let folder = std::env::temp_dir().join(format!("vmprobe-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        (Disk { sync_folder, ..Disk::new(folder.clone(), "p1", 0) }, folder)
    }

    fn file() -> ReadyFile {
        let table = Table::Flows;
        ReadyFile { table, hour: 0, start_ns: 7, number: 0, rows: 1, bytes: vec![1, 2, 3] }
    }

    #[test]
    fn what_has_its_name_is_stored_whatever_comes_after() {
        fn fails_below_the_hour(folder: &Path) -> io::Result<()> {
            let is_hour = folder.ends_with("00");
            if is_hour { Err(io::Error::other("no sync")) } else { Ok(()) }
        }
        let (disk, folder) = disk("sync-fails", fails_below_the_hour);
        assert!(disk.write(&file()).is_ok());
        let hour = folder.join("flows/1970-01-01/00");
        let names: Vec<_> = fs::read_dir(&hour)
            .expect("a folder")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        fs::remove_dir_all(folder).expect("it was there");
        assert_eq!(names, ["flows-p1-7-0.parquet"]);
    }

    #[test]
    fn every_new_folder_is_synced_above() {
        thread_local! {
            static SYNCED: std::cell::RefCell<Vec<PathBuf>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        fn note(folder: &Path) -> io::Result<()> {
            SYNCED.with_borrow_mut(|synced| synced.push(folder.to_owned()));
            Ok(())
        }
        let (disk, folder) = disk("sync-above", note);
        assert!(disk.write(&file()).is_ok() && disk.write(&file()).is_ok());
        fs::remove_dir_all(&folder).expect("it was there");
        let day = folder.join("flows/1970-01-01");
        let above = std::env::temp_dir();
        let new = [above, folder.clone(), folder.join("flows"), day.clone()];
        let files = [day.join("00"), day.join("00")];
        SYNCED.with_borrow(|synced| assert_eq!(*synced, [&new[..], &files[..]].concat()));
    }

    #[test]
    fn probe_ids_cannot_leave_the_folder() {
        let disk = Disk::new(PathBuf::from("unused"), "../x", 0);
        assert_eq!(disk.leftover(Table::Flows), ".tmp-flows-.._x-");
    }
}
