//! The inventory file as a source: read again when it changes, or when it is asked for.
//!
//! In: the file. Out: all that it says, as one batch.
//! Cost: one look at the file's stamp a second.
//! Invariants: a file that is wrong changes nothing: what it said before still counts, and why is said in
//! the log, in the API and in metrics.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::handle::{InventorySource, SourceHandle};
use crate::config::{Plan, Problems};
use crate::inventory::{Batch, InventoryData, Missing, Scope, file};
use crate::time::{Timestamp, wall_clock};

/// How often the file is looked at.
const POLL_MS: u64 = 1_000;
/// How often SIGHUP is looked for meanwhile.
const ASKED_POLL_MS: u64 = 100;

/// Which state of a file was read: inode, length, time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self(meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    }
}

/// Watches one file.
pub struct FileSource {
    path: PathBuf,
    plan: Arc<Plan>,
    stamp: Option<Stamp>,
    again: Arc<AtomicBool>,
}

impl FileSource {
    /// Reads the file for the first time. It is read again when `again` becomes true.
    ///
    /// # Errors
    /// Every problem in the file at once.
    pub fn open(
        path: &Path,
        plan: &Arc<Plan>,
        again: Arc<AtomicBool>,
    ) -> Result<(Self, InventoryData), Problems> {
        // First the stamp: what is written in between is read again.
        let stamp = Stamp::of(path);
        let data = read(path, plan)?;
        Ok((Self { path: path.to_owned(), plan: Arc::clone(plan), stamp, again }, data))
    }

    /// Everything that the file says now, if it has changed or `again` was set.
    ///
    /// # Errors
    /// Every problem in the new file.
    pub fn look(&mut self, now: Timestamp) -> Option<Result<Batch, Problems>> {
        let asked = self.again.swap(false, Ordering::Relaxed);
        let stamp = Stamp::of(&self.path);
        if stamp == self.stamp && !asked {
            return None;
        }
        self.stamp = stamp;
        Some(read(&self.path, &self.plan).map(|data| again(&data, now)))
    }
}

/// All that a file says that was read before.
pub(super) fn again(data: &InventoryData, now: Timestamp) -> Batch {
    let scope = Scope::All { at: now, missing: Missing::Ended };
    Batch { changes: data.changes(Some(now)), scope }
}

fn read(path: &Path, plan: &Plan) -> Result<InventoryData, Problems> {
    file::load(path, &plan.domains, &plan.spaces)
}

impl InventorySource for FileSource {
    fn run(mut self: Box<Self>, handle: SourceHandle) {
        loop {
            let now = wall_clock();
            match self.look(now) {
                Some(Ok(batch)) => {
                    if handle.send(batch, now).is_ok() {
                        handle.live(now);
                        tracing::info!(file = %self.path.display(), "the inventory was read again");
                    } else {
                        // It is said anew at the next look.
                        self.stamp = None;
                    }
                }
                Some(Err(problems)) => {
                    handle.failed(format_args!("the inventory of before stays:\n{problems}"), now);
                }
                None => {}
            }
            for _ in 0..POLL_MS / ASKED_POLL_MS {
                if !handle.wait_ms(ASKED_POLL_MS) {
                    return;
                }
                if self.again.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    }
}
