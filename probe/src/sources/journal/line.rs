//! Lines of the journal: a checksum, a space, JSON.
//!
//! In: what became of facts, requests. Out: octets; what they say.
//! Cost: a pass over the text for the checksum beside what JSON costs.
//! Invariants: a line is read as a whole or not at all. An entry of many lines counts once its last line is
//! there; of one that was damaged in between the sound lines count. No line that is written is longer than
//! [`LINE_BYTES_MAX`].
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
/// Stretches that are told apart; what lies between later ones counts with them.
const UNSOUND_MAX: usize = 1 << 10;

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

/// Why a line is not read.
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

/// A stretch of a file that is not sound.
#[derive(Debug)]
pub(super) struct Unsound {
    /// Its first octet.
    pub(super) from: u64,
    /// The first octet behind it.
    pub(super) to: u64,
    /// Why, of its first line.
    pub(super) why: Broken,
}

impl Unsound {
    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.to - self.from
    }
}

/// What a file tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Facts.
    pub(super) restored: Restored,
    /// Requests.
    pub(super) requests: Requests,
    /// Octets up to the end of the last whole entry.
    pub(super) good: u64,
    /// What was skipped before that, and what follows it, in order.
    pub(super) unsound: Vec<Unsound>,
    /// What was left out, by reason.
    pub(super) left_out: std::collections::BTreeMap<&'static str, u64>,
}

impl Told {
    /// A line is not sound.
    fn skip(&mut self, from: u64, to: u64, why: Broken) {
        let full = self.unsound.len() >= UNSOUND_MAX;
        match self.unsound.last_mut() {
            Some(last) if last.to == from || full => last.to = to,
            _ => self.unsound.push(Unsound { from, to, why }),
        }
    }

    /// What follows the last whole entry is one stretch, up to the end of the file.
    fn end(&mut self, end: u64) {
        if end <= self.good {
            return;
        }
        let behind = self.unsound.partition_point(|unsound| unsound.from < self.good);
        let rest = self.unsound.split_off(behind);
        if let Some(last) = self.unsound.last_mut() {
            last.to = last.to.min(self.good);
        }
        let why = rest.into_iter().next().map_or(Broken::Entries, |unsound| unsound.why);
        self.unsound.push(Unsound { from: self.good, to: end, why });
    }
}

/// Reads a file. What is not sound is left out; what follows is read all the same.
pub(super) fn read(file: impl BufRead, names: &LineNames) -> Result<Told, Refused> {
    let (facts, told) = (LineReader::new(names), Told::default());
    let mut reader = EntryReader { file, at: 0, facts, told, begun: Said::default() };
    match reader.line() {
        // A file that was never written to: there is nothing to lose.
        Ok(None) => return Ok(reader.told),
        Ok(Some(octets)) => header_of(&octets)?,
        Err(Ending::Io(error)) => return Err(error.into()),
        Err(Ending::Broken(_)) => return Err(Refused::NotJournal),
    }
    reader.told.good = reader.at;
    loop {
        let from = reader.at;
        match reader.take() {
            Ok(true) => {}
            Ok(false) => break,
            Err(Ending::Broken(why)) => reader.told.skip(from, reader.at, why),
            Err(Ending::Io(error)) => return Err(error.into()),
        }
    }
    let mut told = reader.told;
    told.end(reader.at);
    told.left_out = reader.facts.left_out;
    if told.unsound.iter().any(|unsound| unsound.from < told.good) {
        told.restored.mend();
    }
    Ok(told)
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

/// What lines say.
#[derive(Default)]
struct Said {
    deltas: Vec<SubjectDelta>,
    notes: Vec<RequestNote>,
}

struct EntryReader<'a, R> {
    file: R,
    /// Octets that were read.
    at: u64,
    facts: LineReader<'a>,
    told: Told,
    /// What the lines so far of an entry say whose last line was not read yet.
    begun: Said,
}

impl<R: BufRead> EntryReader<'_, R> {
    /// Reads one line, and does its entry again if it is the last one; `false` at the end.
    fn take(&mut self) -> Result<bool, Ending> {
        let Some(octets) = self.line()? else { return Ok(false) };
        let value: Json = serde_json::from_slice(sound(&octets)?).map_err(Broken::Json)?;
        let known = value.get("known").and_then(Json::as_u64).ok_or(Broken::Entry)?;
        let said = self.said(&value)?;
        self.begun.deltas.extend(said.deltas);
        self.begun.notes.extend(said.notes);
        if value.get("more").is_none() {
            self.redo(Timestamp(known));
        }
        Ok(true)
    }

    /// What one line says, all of it or nothing.
    fn said(&mut self, value: &Json) -> Result<Said, Broken> {
        let mut said = Said::default();
        let all = value.get("all").and_then(Json::as_array).ok_or(Broken::Entry)?;
        for item in all {
            match (item.get("of"), item.get("requests")) {
                (Some(of), _) => said.deltas.extend(self.facts.read(of)?),
                (None, Some(note)) => said.notes.push(read_note(note).ok_or(Broken::Entry)?),
                (None, None) => return Err(Broken::Entry),
            }
        }
        Ok(said)
    }

    /// Does an entry again that ends here.
    fn redo(&mut self, known: Timestamp) {
        let Said { deltas, notes } = std::mem::take(&mut self.begun);
        self.told.restored.known = known.max(self.told.restored.known);
        for delta in deltas {
            self.told.restored.redo(delta);
        }
        for note in &notes {
            self.told.requests.note(note);
        }
        self.told.good = self.at;
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
