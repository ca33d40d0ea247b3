//! Lines of the journal: a checksum, a space, JSON.
//!
//! In: what became of facts, requests. Out: octets; what they say.
//! Cost: a pass over the text for the checksum beside what JSON costs.
//! Invariants: a line is read as a whole or not at all; one entry of many lines likewise. No line that is
//! written is longer than [`LINE_BYTES_MAX`].
//! Source: CRC-32 as in RFC 1952 section 8.

use std::fmt::Write as _;
use std::io::{self, BufRead, Read as _};
use std::sync::Arc;

use flate2::Crc;
use serde_json::{Value as Json, json};

use crate::inventory::{LineNames, LineReader, NotLine, Restored, SubjectDelta, written};
use crate::sources::requests::{RequestNote, Requests, Taken};
use crate::time::Timestamp;

/// What the first line names.
const KIND: &str = "vmprobe inventory journal";
/// The version that is written, and the newest that is read.
pub(super) const VERSION: u64 = 1;
/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// A line is ended once it is longer.
const LINE_BYTES: usize = 256 << 10;

/// The first line.
pub(super) fn header(now: Timestamp) -> Vec<u8> {
    framed(&json!({"kind": KIND, "version": VERSION, "written_ns": now.0}).to_string())
}

/// One entry: changes that are seen together, and the requests that they came with.
pub(super) fn entry(
    known: Timestamp,
    deltas: &[SubjectDelta],
    notes: &[RequestNote],
    names: &LineNames,
) -> Vec<u8> {
    let mut lines = Lines { known, text: String::new(), octets: Vec::new() };
    for value in deltas.iter().flat_map(|delta| written(delta, names)) {
        lines.put("of", &value);
    }
    for note in notes {
        lines.put("requests", &note_value(note));
    }
    lines.end()
}

/// Lines of one entry; all but the last say that more follow.
struct Lines {
    known: Timestamp,
    text: String,
    octets: Vec<u8>,
}

impl Lines {
    fn put(&mut self, what: &str, value: &Json) {
        if self.text.len() > LINE_BYTES {
            let text = std::mem::take(&mut self.text);
            self.octets.extend(framed(&format!("{text}],\"more\":true}}")));
        }
        if self.text.is_empty() {
            let _ = write!(self.text, "{{\"known\":{},\"all\":[", self.known.0);
        } else {
            self.text.push(',');
        }
        let _ = write!(self.text, "{{\"{what}\":{value}}}");
    }

    fn end(mut self) -> Vec<u8> {
        if !self.text.is_empty() {
            self.octets.extend(framed(&format!("{}]}}", self.text)));
        }
        self.octets
    }
}

fn note_value(note: &RequestNote) -> Json {
    let key = note.key.as_ref().map(|(key, taken)| {
        json!([key.as_ref(), taken.digest, taken.known.0, taken.changes, taken.stale])
    });
    let revisions = note.revisions.iter();
    let revisions: Vec<_> = revisions.map(|(vm, number)| json!([vm.to_string(), number])).collect();
    json!({ "key": key, "revisions": revisions })
}

fn read_note(value: &Json) -> Option<RequestNote> {
    let key = match value.get("key")? {
        Json::Null => None,
        key => {
            let [key, digest, known, changes, stale] = key.as_array()?.as_slice() else {
                return None;
            };
            let taken = Taken {
                digest: digest.as_u64()?,
                known: Timestamp(known.as_u64()?),
                changes: changes.as_u64()?,
                stale: stale.as_u64()?,
            };
            Some((Arc::from(key.as_str()?), taken))
        }
    };
    let revision = |pair: &Json| {
        let [vm, revision] = pair.as_array()?.as_slice() else { return None };
        Some((vm.as_str()?.parse().ok()?, revision.as_u64()?))
    };
    let revisions = value.get("revisions")?.as_array()?.iter().map(revision);
    Some(RequestNote { key, revisions: revisions.collect::<Option<_>>()? })
}

fn framed(text: &str) -> Vec<u8> {
    format!("{:08x} {text}\n", checksum(text.as_bytes())).into_bytes()
}

fn checksum(octets: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(octets);
    crc.sum()
}

/// Why a file is not read at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(
        "is no journal of the inventory; move it away, or name another file (inventory.journal)"
    )]
    NotJournal,
    #[error(
        "is of version {0}, and this vmprobe reads {VERSION} at most: use the newer vmprobe that wrote it, \
         or move the file away to begin without what it tells"
    )]
    Newer(u64),
}

/// Why the rest of a file is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the last line is not whole")]
    Torn,
    #[error("a line is longer than any that is written")]
    Long,
    #[error("a line does not have its checksum")]
    Checksum,
    #[error("a line is not JSON: {0}")]
    Json(serde_json::Error),
    #[error("in a line {0}")]
    Line(#[from] NotLine),
    #[error("in a line a request or the time is missing or of another form")]
    Entry,
    #[error("the last entry is not whole")]
    Entries,
}

/// What a file tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Facts.
    pub(super) restored: Restored,
    /// Requests.
    pub(super) requests: Requests,
    /// Octets that were read and are sound.
    pub(super) good: u64,
    /// Why what follows is not.
    pub(super) broken: Option<Broken>,
    /// What was left out, by reason.
    pub(super) left_out: std::collections::BTreeMap<&'static str, u64>,
}

/// Reads a file up to its end, or to the first line that is not sound.
pub(super) fn read(file: impl BufRead, names: &LineNames) -> Result<Told, Refused> {
    let mut reader =
        EntryReader { file, at: 0, facts: LineReader::new(names), told: Told::default() };
    match reader.line() {
        // A file that was never written to: there is nothing to lose.
        Ok(None) => return Ok(reader.told),
        Ok(Some(octets)) => header_of(&octets)?,
        Err(Ending::Io(error)) => return Err(error.into()),
        Err(Ending::Broken(_)) => return Err(Refused::NotJournal),
    }
    reader.told.good = reader.at;
    loop {
        match reader.entry() {
            Ok(true) => reader.told.good = reader.at,
            Ok(false) => break,
            Err(Ending::Broken(broken)) => {
                reader.told.broken = Some(broken);
                break;
            }
            Err(Ending::Io(error)) => return Err(error.into()),
        }
    }
    reader.told.left_out = reader.facts.left_out;
    Ok(reader.told)
}

fn header_of(octets: &[u8]) -> Result<(), Refused> {
    // Of another version the checksum may be another one.
    let text = octets.splitn(2, |octet| *octet == b' ').nth(1).ok_or(Refused::NotJournal)?;
    let header: Json = serde_json::from_slice(text).map_err(|_| Refused::NotJournal)?;
    let kind = header.get("kind").and_then(Json::as_str);
    match header.get("version").and_then(Json::as_u64) {
        Some(version) if kind == Some(KIND) && version > VERSION => Err(Refused::Newer(version)),
        Some(VERSION) if kind == Some(KIND) => Ok(()),
        _ => Err(Refused::NotJournal),
    }
}

enum Ending {
    Broken(Broken),
    Io(io::Error),
}

impl From<Broken> for Ending {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<NotLine> for Ending {
    fn from(line: NotLine) -> Self {
        Self::Broken(line.into())
    }
}

struct EntryReader<'a, R> {
    file: R,
    /// Octets that were read.
    at: u64,
    facts: LineReader<'a>,
    told: Told,
}

impl<R: BufRead> EntryReader<'_, R> {
    /// Reads one entry and does it again; `false` at the end.
    fn entry(&mut self) -> Result<bool, Ending> {
        let (mut deltas, mut notes) = (Vec::new(), Vec::new());
        let mut begun = false;
        loop {
            let Some(octets) = self.line()? else {
                return if begun { Err(Broken::Entries.into()) } else { Ok(false) };
            };
            begun = true;
            let value: Json = serde_json::from_slice(sound(&octets)?).map_err(Broken::Json)?;
            let known = value.get("known").and_then(Json::as_u64).ok_or(Broken::Entry)?;
            let all = value.get("all").and_then(Json::as_array).ok_or(Broken::Entry)?;
            for item in all {
                match (item.get("of"), item.get("requests")) {
                    (Some(of), _) => deltas.extend(self.facts.read(of)?),
                    (None, Some(note)) => notes.push(read_note(note).ok_or(Broken::Entry)?),
                    (None, None) => return Err(Broken::Entry.into()),
                }
            }
            if value.get("more").is_none() {
                let known = Timestamp(known).max(self.told.restored.known);
                self.told.restored.known = known;
                break;
            }
        }
        for delta in deltas {
            self.told.restored.redo(delta);
        }
        for note in &notes {
            self.told.requests.note(note);
        }
        Ok(true)
    }

    /// The next line without its end; `None` at the end of the file.
    fn line(&mut self) -> Result<Option<Vec<u8>>, Ending> {
        let mut octets = Vec::new();
        let mut part = (&mut self.file).take(LINE_BYTES_MAX);
        let count = part.read_until(b'\n', &mut octets).map_err(Ending::Io)?;
        self.at += count as u64;
        match octets.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(octets)),
            Some(_) if count as u64 >= LINE_BYTES_MAX => Err(Broken::Long.into()),
            Some(_) => Err(Broken::Torn.into()),
        }
    }
}

/// The text of a line whose checksum is right.
fn sound(octets: &[u8]) -> Result<&[u8], Broken> {
    let (sum, text) = octets.split_first_chunk::<9>().ok_or(Broken::Checksum)?;
    let sum = std::str::from_utf8(sum).ok().and_then(|sum| sum.strip_suffix(' '));
    let sum = sum.and_then(|sum| u32::from_str_radix(sum, 16).ok());
    if sum == Some(checksum(text)) { Ok(text) } else { Err(Broken::Checksum) }
}
