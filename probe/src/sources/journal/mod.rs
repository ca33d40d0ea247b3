//! The journal: what became known, on disk, so that it is known again after a restart.
//!
//! In: what became of facts, and requests, in the order in which look-ups saw it. Out: a file; at start
//! all that it tells.
//! Cost: one write for all that a turn of the keeper brings, one `fdatasync` a second while anything
//! is written; the whole state anew, some [`rewrite::STEP_BYTES`] a turn, when the file has doubled.
//! Invariants: written by the keeper's thread alone, after look-ups have seen it, so nobody waits for a
//! disk. What was written survives the end of the process at once, and the loss of power after
//! [`SYNC_MS`]. The file is never larger than its bound; a file that is written anew takes the place
//! of the old one only when it is whole and on the disk. What was found damaged is kept in a file beside
//! before anything is written. What goes wrong is a named condition, is shown, and is tried again; it stops
//! nothing.
//!
//! | file | |
//! |---|---|
//! | `line` | facts and requests as lines, and back |
//! | `cut` | what was not sound, kept beside |
//! | `rewrite` | the whole state anew, step by step |
//! | `status` | what is shown |

mod cut;
mod line;
mod rewrite;
mod status;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use line::{Refused, Told, Unsound};
use rewrite::{Progress, Rewrite};
pub use status::{JournalState, JournalStatus};

use super::requests::{RequestNote, Requests};
use crate::config::{Plan, Problems};
use crate::inventory::{Inventory, LineNames, Restored, SubjectDelta};
use crate::time::{Timestamp, ms, wall_clock};

/// How long written octets may wait for the disk to have them.
const SYNC_MS: u64 = 1_000;
/// What waits in memory for a disk that takes nothing, at most; then the whole state is written anew once
/// it does.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// Growth of the file before it is written anew, beside what it was.
const GROWTH_BYTES: u64 = 4 << 20;
/// Wait after a failure.
const RETRY_MS: u64 = 2_000;
/// Wait after the state did not fit.
const TOO_LARGE_RETRY_MS: u64 = 60_000;
const MIB: u64 = 1 << 20;

/// Where the journal is, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPlan {
    /// The file.
    pub path: PathBuf,
    /// Size of the file at most.
    pub bytes_max: u64,
    /// Free space under which nothing is written.
    pub free_bytes_min: u64,
}

impl JournalPlan {
    /// Of a plan; `None` where none is kept.
    pub fn of(plan: &Plan) -> Option<Self> {
        let beside = || Some(plan.store.folder.as_ref()?.join("inventory.journal"));
        let bytes_max = u64::from(plan.inventory.journal_mib_max) * MIB;
        let path = plan.inventory.journal.clone().or_else(beside).filter(|_| bytes_max > 0)?;
        Some(Self { path, bytes_max, free_bytes_min: u64::from(plan.store.free_mib_min) * MIB })
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{what} {path}: {error}")]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{free_mib} MiB are free at {path}, and store.free_mib_min keeps {min_mib} MiB free")]
    NoSpace { path: PathBuf, free_mib: u64, min_mib: u64 },
    #[error(
        "the present state alone takes more than half of inventory.journal_mib_max; what became known \
         since is not kept"
    )]
    TooLarge,
    #[error("another process keeps {0}")]
    Locked(PathBuf),
    #[error("more became known than is kept while the file is written anew")]
    Behind,
}

impl Trouble {
    fn state(&self) -> JournalState {
        match self {
            Self::NoSpace { .. } => JournalState::DiskFull,
            Self::Io { error, .. } => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalState::DiskFull,
                _ => JournalState::Failed,
            },
            Self::TooLarge => JournalState::TooLarge,
            Self::Locked(_) | Self::Behind => JournalState::Failed,
        }
    }
}

/// What an earlier run has left.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Facts.
    pub(super) restored: Restored,
    /// Requests.
    pub(super) requests: Requests,
}

/// The journal of one keeper.
pub(super) struct Journal {
    plan: JournalPlan,
    names: LineNames,
    /// Held for as long as this process writes.
    lock: Option<File>,
    file: Option<File>,
    /// Octets of the file that are whole entries.
    good: u64,
    /// What of it was there when it was written anew.
    base: u64,
    /// Entries that are not in the file yet.
    pending: Vec<u8>,
    /// Something is not in the file and does not wait either.
    gap: bool,
    /// What of the file is not sound and not kept beside it yet.
    unsound: Vec<Unsound>,
    /// The file has stretches before its end that are not sound.
    damaged: bool,
    rewrite: Option<Rewrite>,
    unsynced: bool,
    synced_ns: u64,
    retry_ns: u64,
    status: JournalStatus,
}

impl Journal {
    /// Reads what is there, and leaves out what is not sound. A disk that cannot be written to is no error.
    ///
    /// # Errors
    /// A file that is none of this, is of a newer version, cannot be read, or that another process keeps.
    pub(super) fn open(plan: JournalPlan, names: LineNames) -> Result<(Self, Recovered), Problems> {
        let file = plan.path.display().to_string();
        let refused = |what: String| Problems::of_file(&file, what);
        let mut journal = Self {
            status: JournalStatus::new(&plan),
            plan,
            names,
            lock: None,
            file: None,
            good: 0,
            base: 0,
            pending: Vec::new(),
            gap: true,
            unsound: Vec::new(),
            damaged: false,
            rewrite: None,
            unsynced: false,
            synced_ns: 0,
            retry_ns: 0,
        };
        match journal.take_lock() {
            Ok(()) => {}
            Err(Trouble::Locked(_)) => {
                let what = "is kept by another process: each probe needs a folder of its own \
                            (store.folder, inventory.journal)";
                return Err(refused(what.to_owned()));
            }
            Err(trouble) => journal.trouble(&trouble, 0),
        }
        let told = match File::open(&journal.plan.path) {
            Ok(opened) => line::read(BufReader::new(opened), &journal.names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Told::default()),
            Err(error) => Err(Refused::Io(error)),
        };
        let mut told = told.map_err(|why| refused(why.to_string()))?;
        if told.good > 0 {
            journal.go_on(&mut told);
        }
        journal.status.left_out = told.left_out;
        (journal.status.restored_vms, journal.status.restored_facts) = told.restored.counts();
        Ok((journal, Recovered { restored: told.restored, requests: told.requests }))
    }

    /// Opens what was read to write on.
    fn go_on(&mut self, told: &mut Told) {
        let path = self.plan.path.clone();
        (self.good, self.base, self.status.bytes) = (told.good, told.good, told.good);
        self.found(std::mem::take(&mut told.unsound));
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => (self.file, self.gap) = (Some(file), false),
            Err(error) => self.trouble(&Trouble::Io { what: "cannot write to", path, error }, 0),
        }
    }

    /// Says what is not sound.
    fn found(&mut self, unsound: Vec<Unsound>) {
        if unsound.is_empty() {
            return;
        }
        cut::log(&self.plan.path, &unsound, self.good);
        let status = &mut self.status;
        status.cut_places = unsound.len() as u64;
        status.cut_bytes = unsound.iter().map(Unsound::bytes).sum();
        let kept = beside(&self.plan.path, "cut").display().to_string();
        let text = format!(
            "{} octets at {} places of the file were not sound at start, and what they said is not known; \
             they are kept in {kept}",
            status.cut_bytes, status.cut_places
        );
        tracing::warn!("the inventory's journal: {text}");
        (status.last_error, status.last_error_ns) = (Some(text), Some(wall_clock().0));
        self.damaged = unsound.iter().any(|part| part.from < self.good);
        self.unsound = unsound;
    }

    /// Keeps what was found not to be sound, then cuts the end of it off.
    fn keep_unsound(&mut self) -> Result<(), Trouble> {
        if self.unsound.is_empty() {
            return Ok(());
        }
        self.check_free()?;
        let kept = beside(&self.plan.path, "cut");
        let put = cut::keep(&self.plan.path, &self.unsound, &kept, wall_clock());
        put.map_err(|error| Trouble::Io {
            what: "cannot keep what was damaged in",
            path: kept.clone(),
            error,
        })?;
        self.unsound = Vec::new();
        self.status.cut_file = Some(kept.display().to_string());
        if let Some(file) = &self.file {
            let cut = file.set_len(self.good).and_then(|()| file.sync_data());
            let path = self.plan.path.clone();
            cut.map_err(|error| Trouble::Io { what: "cannot write to", path, error })?;
        }
        Ok(())
    }

    /// What was read is not what is known: the file is to be written anew before anything else.
    pub(super) fn write_anew(&mut self) {
        self.gap = true;
    }

    /// Takes what became of facts, and the requests that it came with, all of it seen by look-ups.
    pub(super) fn note(
        &mut self,
        known: Timestamp,
        deltas: &[SubjectDelta],
        notes: &[RequestNote],
    ) {
        if deltas.is_empty() && notes.is_empty() {
            return;
        }
        let entry = line::entry(known, deltas, notes, &self.names);
        self.status.entries += 1;
        if let Some(rewrite) = &mut self.rewrite {
            rewrite.also(&entry);
        }
        if self.gap {
            self.status.waiting_entries += 1;
            return;
        }
        self.pending.extend(entry);
        self.status.waiting_entries += 1;
        if self.pending.len() > PENDING_BYTES_MAX {
            // All of it is in the state that is written anew once that is possible.
            self.pending = Vec::new();
            self.gap = true;
        }
    }

    /// Writes what waits, or a part of it. `inventory` and `requests` hold all that was noted.
    pub(super) fn turn(&mut self, inventory: &Inventory, requests: &Requests, now_ns: u64) {
        if now_ns < self.retry_ns {
            return;
        }
        match self.work(inventory, requests, now_ns) {
            Ok(()) => {
                if self.status.state != JournalState::Ok {
                    tracing::info!(
                        file = self.status.file,
                        "the inventory's journal is written again"
                    );
                }
                self.status.state = JournalState::Ok;
            }
            Err(trouble) => {
                self.rewrite = None;
                self.trouble(&trouble, now_ns);
            }
        }
        self.status.bytes = self.good;
    }

    /// Writes all that waits, for nothing more will come.
    pub(super) fn close(mut self, inventory: &Inventory, requests: &Requests, now_ns: u64) {
        self.retry_ns = 0;
        // Steps of a file that is written anew.
        for _ in 0..self.plan.bytes_max / rewrite::STEP_BYTES as u64 + 2 {
            self.turn(inventory, requests, now_ns);
            if self.rewrite.is_none() {
                break;
            }
        }
        self.synced_ns = 0;
        if let Err(trouble) = self.sync(u64::MAX) {
            self.trouble(&trouble, now_ns);
        }
    }

    /// How it is doing.
    pub(super) fn status(&self) -> JournalStatus {
        self.status.clone()
    }

    fn work(
        &mut self,
        inventory: &Inventory,
        requests: &Requests,
        now_ns: u64,
    ) -> Result<(), Trouble> {
        self.take_lock()?;
        self.keep_unsound()?;
        let wants = self.wants_rewrite();
        if self.pending.is_empty() && !wants && self.rewrite.is_none() {
            return self.sync(now_ns);
        }
        self.check_free()?;
        self.flush()?;
        if self.rewrite.is_none() && wants {
            self.rewrite = Some(Rewrite::begin(&self.plan, inventory, requests)?);
        }
        if let Some(mut rewrite) = self.rewrite.take() {
            match rewrite.step(&self.plan, &self.names)? {
                Progress::Some => self.rewrite = Some(rewrite),
                Progress::Whole { file, bytes, base } => self.replace(file, bytes, base),
            }
        }
        self.sync(now_ns)
    }

    fn wants_rewrite(&self) -> bool {
        let length = self.good + self.pending.len() as u64;
        self.gap
            || self.damaged
            || length > 2 * self.base + GROWTH_BYTES
            || length > self.plan.bytes_max
    }

    /// The new file has the place of the old one.
    fn replace(&mut self, file: File, bytes: u64, base: u64) {
        (self.file, self.good, self.base) = (Some(file), bytes, base);
        self.pending = Vec::new();
        (self.gap, self.damaged, self.unsynced) = (false, false, false);
        self.status.rewrites += 1;
        self.status.waiting_entries = 0;
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        let Some(file) = self.file.as_ref().filter(|_| !self.pending.is_empty()) else {
            return Ok(());
        };
        let length = self.good + self.pending.len() as u64;
        if length > self.plan.bytes_max {
            // It waits for the file that is written anew.
            return Ok(());
        }
        // At the place behind the last whole entry, whatever a failed write has left there.
        if let Err(error) = file.write_all_at(&self.pending, self.good) {
            let _ = file.set_len(self.good);
            return Err(Trouble::Io {
                what: "cannot write to",
                path: self.plan.path.clone(),
                error,
            });
        }
        self.good = length;
        self.pending.clear();
        self.unsynced = true;
        self.status.waiting_entries = 0;
        Ok(())
    }

    fn sync(&mut self, now_ns: u64) -> Result<(), Trouble> {
        if !self.unsynced || now_ns.saturating_sub(self.synced_ns) < ms(SYNC_MS) {
            return Ok(());
        }
        self.synced_ns = now_ns;
        let Some(file) = &self.file else { return Ok(()) };
        if let Err(error) = file.sync_data() {
            // Nobody knows what of it is on the disk.
            self.gap = true;
            return Err(Trouble::Io { what: "cannot sync", path: self.plan.path.clone(), error });
        }
        self.unsynced = false;
        Ok(())
    }

    fn check_free(&self) -> Result<(), Trouble> {
        let folder = folder_of(&self.plan.path);
        let stat = rustix::fs::statvfs(folder);
        let stat = stat.map_err(|errno| Trouble::Io {
            what: "cannot see the free space of",
            path: folder.to_owned(),
            error: errno.into(),
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.plan.free_bytes_min {
            let (free_mib, min_mib) = (free / MIB, self.plan.free_bytes_min / MIB);
            return Err(Trouble::NoSpace { path: folder.to_owned(), free_mib, min_mib });
        }
        Ok(())
    }

    fn take_lock(&mut self) -> Result<(), Trouble> {
        if self.lock.is_some() {
            return Ok(());
        }
        let path = beside(&self.plan.path, "lock");
        let failed =
            |error: io::Error| Trouble::Io { what: "cannot make", path: path.clone(), error };
        std::fs::create_dir_all(folder_of(&path)).map_err(failed)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.lock = Some(file);
                Ok(())
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Trouble::Locked(self.plan.path.clone())),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    fn trouble(&mut self, trouble: &Trouble, now_ns: u64) {
        let (state, text) = (trouble.state(), trouble.to_string());
        if self.status.state != state || self.status.last_error.as_deref() != Some(&text) {
            tracing::warn!(state = state.name(), "the inventory's journal is not written: {text}");
        }
        let wait_ms = if state == JournalState::TooLarge { TOO_LARGE_RETRY_MS } else { RETRY_MS };
        self.retry_ns = now_ns + ms(wait_ms);
        self.status.state = state;
        self.status.last_error = Some(text);
        self.status.last_error_ns = Some(wall_clock().0);
    }
}

/// The file's name with another ending behind it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
