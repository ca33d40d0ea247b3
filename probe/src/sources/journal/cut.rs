//! What of a journal was not sound, kept beside it.
//!
//! In: the journal as it was found, the stretches that are not sound. Out: a file of them, and lines in the
//! log, for people.
//! Cost: a copy of these stretches.
//! Invariants: the file is never larger than [`CUT_BYTES_MAX`]; what was kept at earlier starts leaves first.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::json;

use super::line::Unsound;
use crate::time::Timestamp;

/// The kept file's size at most.
pub(super) const CUT_BYTES_MAX: u64 = 64 << 20;
/// Stretches that the log names one by one.
const NAMED_MAX: usize = 8;

/// Says in the log what is not sound; what is behind `good` is the end.
pub(super) fn log(journal: &Path, unsound: &[Unsound], good: u64) {
    let file = journal.display().to_string();
    for part in unsound.iter().take(NAMED_MAX) {
        let (at, bytes, why) = (part.from, part.bytes(), &part.why);
        let what = if at < good {
            "a part of the inventory's journal is damaged and was skipped"
        } else {
            "the end of the inventory's journal was cut off"
        };
        tracing::warn!(file, at, bytes, "{what}: {why}");
    }
}

/// Writes the stretches of `journal` behind what is kept already: of each a line of JSON that says when it was
/// found, where, how long it is and why, then its octets as they are, and the end of a line.
pub(super) fn keep(
    journal: &Path,
    unsound: &[Unsound],
    into: &Path,
    now: Timestamp,
) -> io::Result<()> {
    let mut from = File::open(journal)?;
    let heads = unsound.iter().map(|part| {
        let why = part.why.to_string();
        let said = json!({"found_ns": now.0, "at": part.from, "bytes": part.bytes(), "why": why});
        format!("{said}\n")
    });
    let heads: Vec<String> = heads.collect();
    let bytes = heads.iter().zip(unsound).map(|(head, part)| head.len() as u64 + part.bytes() + 1);
    let bytes: u64 = bytes.sum();
    let mut file = OpenOptions::new().create(true).append(true).open(into)?;
    let before = file.metadata()?.len();
    if before + bytes > CUT_BYTES_MAX {
        file.set_len(0)?;
    }
    let before = file.metadata()?.len();
    let put = put(&mut from, unsound, &heads, &mut file).and_then(|()| file.sync_all());
    if put.is_err() {
        // Tried again, and not twice there.
        let _ = file.set_len(before);
    }
    put
}

fn put(from: &mut File, unsound: &[Unsound], heads: &[String], file: &mut File) -> io::Result<()> {
    let mut room = CUT_BYTES_MAX;
    for (head, part) in heads.iter().zip(unsound) {
        room = room.saturating_sub(head.len() as u64 + 1);
        if room == 0 {
            break;
        }
        file.write_all(head.as_bytes())?;
        from.seek(SeekFrom::Start(part.from))?;
        let mut octets = io::Read::take(&mut *from, part.bytes().min(room));
        room -= io::copy(&mut octets, file)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}
