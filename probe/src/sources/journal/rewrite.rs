//! The whole state anew: a file beside the journal that takes its place when it is whole.
//!
//! In: a snapshot of the inventory, and what becomes known while it is written. Out: the new file.
//! Cost: [`STEP_BYTES`] a step, which a `fdatasync` ends, so that no step is long.
//! Invariants: what became known meanwhile is written behind the snapshot before the file takes its place;
//! a file that was left half written is overwritten by the next one.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::{JournalPlan, Trouble, beside, folder_of, line};
use crate::inventory::{Inventory, LineNames, SubjectDelta};
use crate::sources::requests::{RequestNote, Requests};
use crate::time::{Timestamp, wall_clock};

/// Octets that one step writes, a little more at the end of an entry.
pub(super) const STEP_BYTES: usize = 1 << 20;
/// Subjects that are one entry.
const SUBJECTS: usize = 64;
/// What becomes known while a file is written anew, at most.
const TAIL_BYTES_MAX: usize = 64 << 20;

/// A file that is being written anew.
pub(super) struct Rewrite {
    file: File,
    path: PathBuf,
    inventory: Inventory,
    notes: Vec<RequestNote>,
    /// Subjects that are written.
    subjects: usize,
    written: u64,
    tail: Vec<u8>,
    behind: bool,
}

/// How far it has come.
pub(super) enum Progress {
    /// There is more to write.
    Some,
    /// It has the journal's place.
    Whole {
        /// To be written on.
        file: File,
        /// Its length.
        bytes: u64,
        /// The snapshot's part of it.
        base: u64,
    },
}

impl Rewrite {
    pub(super) fn begin(
        plan: &JournalPlan,
        inventory: &Inventory,
        requests: &Requests,
    ) -> Result<Self, Trouble> {
        let path = beside(&plan.path, "new");
        let failed = |error| Trouble::Io { what: "cannot make", path: path.clone(), error };
        let mut file = File::create(&path).map_err(failed)?;
        let header = line::header(wall_clock());
        file.write_all(&header).map_err(failed)?;
        let (inventory, notes) = (inventory.clone(), requests.notes());
        let written = header.len() as u64;
        let tail = Vec::new();
        Ok(Self { file, path, inventory, notes, subjects: 0, written, tail, behind: false })
    }

    /// What became known meanwhile.
    pub(super) fn also(&mut self, entry: &[u8]) {
        self.behind |= self.tail.len() + entry.len() > TAIL_BYTES_MAX;
        if !self.behind {
            self.tail.extend_from_slice(entry);
        }
    }

    /// Writes a part.
    pub(super) fn step(
        &mut self,
        plan: &JournalPlan,
        names: &LineNames,
    ) -> Result<Progress, Trouble> {
        let octets = self.next_part(names);
        let is_last = octets.is_empty();
        let octets = if is_last { std::mem::take(&mut self.tail) } else { octets };
        let base = self.written;
        self.written += octets.len() as u64;
        // Beside the state there must be room for what comes.
        let too_large = !is_last && self.written > plan.bytes_max / 2;
        let trouble = if self.behind {
            Err(Trouble::Behind)
        } else if too_large || self.written > plan.bytes_max {
            Err(Trouble::TooLarge)
        } else {
            let put = self.file.write_all(&octets).and_then(|()| self.file.sync_data());
            put.map_err(|error| self.failed("cannot write to", error))
        };
        if let Err(trouble) = trouble {
            let _ = std::fs::remove_file(&self.path);
            return Err(trouble);
        }
        if !is_last {
            return Ok(Progress::Some);
        }
        self.take_place(plan, base)
    }

    fn take_place(&self, plan: &JournalPlan, base: u64) -> Result<Progress, Trouble> {
        let renamed = self.file.try_clone().and_then(|file| {
            std::fs::rename(&self.path, &plan.path)?;
            Ok(file)
        });
        let file = renamed.map_err(|error| self.failed("cannot rename", error))?;
        // It has its place; that the folder is on the disk too matters for a loss of power only.
        let synced = File::open(folder_of(&plan.path)).and_then(|folder| folder.sync_all());
        if let Err(error) = synced {
            tracing::warn!("cannot sync the folder of {}: {error}", plan.path.display());
        }
        Ok(Progress::Whole { file, bytes: self.written, base })
    }

    /// The next entries of the snapshot; nothing where all are written.
    fn next_part(&mut self, names: &LineNames) -> Vec<u8> {
        let known = self.inventory.known();
        let mut octets = Vec::new();
        if !self.notes.is_empty() {
            octets = line::entry(Timestamp::ZERO, &[], &std::mem::take(&mut self.notes), names);
        }
        let mut subjects = self.inventory.subjects().skip(self.subjects);
        while octets.len() < STEP_BYTES {
            let part = subjects.by_ref().take(SUBJECTS);
            let part: Vec<_> =
                part.map(|(subject, facts)| SubjectDelta::whole(subject, facts)).collect();
            if part.is_empty() {
                break;
            }
            self.subjects += part.len();
            octets.extend(line::entry(known, &part, &[], names));
        }
        octets
    }

    fn failed(&self, what: &'static str, error: io::Error) -> Trouble {
        Trouble::Io { what, path: self.path.clone(), error }
    }
}
