//! Batches on disk, for what finds no room in memory and what is left at the end.
//!
//! In: batches. Out: the same, oldest first, also in another run.
//! Cost: a file, an fsync and a rename a batch.
//! Invariants: at most `bytes_max` are kept; a file whose name ends in `.batch` is whole, or its checksum
//! says that it is not; a batch leaves the disk when it is delivered, not when it is read; one process
//! owns a folder.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Batch;
use crate::record::Table;

/// First octets of a file.
const MAGIC: [u8; 8] = *b"vmpbatc1";
/// Longest token, name of a table and name of an encoding.
const NAME_BYTES_MAX: usize = 255;
/// Largest batch that is read back: one batch's bound and one row beyond it.
const BATCH_BYTES_MAX: u64 = 1 << 30;

/// Why a batch is not in the spool.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error("the spool is full ({0} MiB)")]
    Full(u64),
    #[error("{}: {error}", path.display())]
    Disk { path: PathBuf, error: io::Error },
    #[error("{}: another process uses it", .0.display())]
    InUse(PathBuf),
    #[error("{} is broken: {what}", path.display())]
    Broken { path: PathBuf, what: &'static str },
}

/// The spool of one sink.
pub(super) struct Spool {
    folder: PathBuf,
    /// Kind of the sink: what another kind has encoded, this one cannot send.
    encoding: &'static str,
    bytes_max: u64,
    bytes: u64,
    /// Number, size and records of each file, oldest first.
    files: VecDeque<Entry>,
    next: u64,
    /// Held as long as the folder is owned.
    _lock: File,
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    number: u64,
    bytes: u64,
    pub(super) records: u64,
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |error| SpoolError::Disk { path, error }
}

impl Spool {
    /// Opens the folder, makes it if need be, and finds what another run has left.
    pub(super) fn open(
        folder: PathBuf,
        encoding: &'static str,
        bytes_max: u64,
    ) -> Result<Self, SpoolError> {
        fs::create_dir_all(&folder).map_err(disk(&folder))?;
        let lock_path = folder.join(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(disk(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SpoolError::InUse(folder.clone()))?;
        let mut spool = Self {
            folder,
            encoding,
            bytes_max,
            bytes: 0,
            files: VecDeque::new(),
            next: 0,
            _lock: lock,
        };
        spool.find()?;
        Ok(spool)
    }

    fn find(&mut self) -> Result<(), SpoolError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(disk(&self.folder))? {
            let path = entry.map_err(disk(&self.folder))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("batch") => numbers.extend(stem.parse::<u64>().ok()),
                // What was written when a run ended by force was counted nowhere.
                Some("part") => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        numbers.sort_unstable();
        for number in numbers {
            self.next = number + 1;
            match self.read_file(number) {
                Ok((batch, bytes)) => {
                    self.bytes += bytes;
                    self.files.push_back(Entry { number, bytes, records: batch.records });
                }
                Err(error) => self.put_aside(number, &error),
            }
        }
        Ok(())
    }

    /// Records that wait.
    pub(super) fn records(&self) -> u64 {
        self.files.iter().map(|entry| entry.records).sum()
    }

    /// Batches that wait.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Adds a batch behind all others.
    pub(super) fn push(&mut self, batch: &Batch) -> Result<(), SpoolError> {
        let text = encode(batch, self.encoding);
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.bytes.saturating_add(bytes) > self.bytes_max {
            return Err(SpoolError::Full(self.bytes_max >> 20));
        }
        let number = self.next;
        let (part, path) = (self.folder.join(format!("{number:020}.part")), self.path(number));
        let write = || {
            let mut file = File::create(&part)?;
            file.write_all(&text)?;
            file.sync_data()?;
            fs::rename(&part, &path)
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&part);
            return Err(SpoolError::Disk { path, error });
        }
        self.next += 1;
        self.bytes += bytes;
        self.files.push_back(Entry { number, bytes, records: batch.records });
        Ok(())
    }

    /// The batch at a place, the oldest at 0. What is broken is put aside; its records come second.
    pub(super) fn read(&mut self, place: usize) -> (Option<(Entry, Batch)>, u64) {
        let mut lost = 0;
        while let Some(entry) = self.files.get(place).copied() {
            match self.read_file(entry.number) {
                Ok((batch, _)) => return (Some((entry, batch)), lost),
                Err(error) => {
                    self.put_aside(entry.number, &error);
                    self.files.remove(place);
                    self.bytes -= entry.bytes;
                    lost += entry.records;
                }
            }
        }
        (None, lost)
    }

    /// A batch has been delivered, or is given up.
    pub(super) fn remove(&mut self, entry: Entry) {
        if let Some(place) = self.files.iter().position(|it| it.number == entry.number) {
            self.files.remove(place);
            self.bytes -= entry.bytes;
        }
        if let Err(error) = fs::remove_file(self.path(entry.number)) {
            tracing::warn!(path = %self.path(entry.number).display(), %error, "a batch stays");
        }
    }

    fn put_aside(&self, number: u64, error: &SpoolError) {
        tracing::error!(%error, "a batch of the spool is put aside");
        let path = self.path(number);
        let _ = fs::rename(&path, path.with_extension("broken"));
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}.batch"))
    }

    fn read_file(&self, number: u64) -> Result<(Batch, u64), SpoolError> {
        let path = self.path(number);
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(BATCH_BYTES_MAX).read_to_end(&mut text))
            .map_err(disk(&path))?;
        let batch =
            decode(&text, self.encoding).map_err(|what| SpoolError::Broken { path, what })?;
        Ok((batch, u64::try_from(text.len()).unwrap_or(u64::MAX)))
    }
}

/// Magic, checksum of the rest, records, then encoding, table and token with their lengths, then the
/// octets.
fn encode(batch: &Batch, encoding: &str) -> Vec<u8> {
    let mut rest = Vec::with_capacity(batch.bytes.len() + 128);
    rest.extend_from_slice(&batch.records.to_be_bytes());
    for name in [encoding, batch.table.name(), &batch.token] {
        let name = name.as_bytes().get(..NAME_BYTES_MAX).unwrap_or(name.as_bytes());
        rest.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        rest.extend_from_slice(name);
    }
    rest.extend_from_slice(&batch.bytes);
    let mut text = Vec::with_capacity(rest.len() + 12);
    text.extend_from_slice(&MAGIC);
    text.extend_from_slice(&crc32fast::hash(&rest).to_be_bytes());
    text.append(&mut rest);
    text
}

fn decode(text: &[u8], encoding: &str) -> Result<Batch, &'static str> {
    const SHORT: &str = "it is cut off";
    let (magic, rest) = text.split_first_chunk::<8>().ok_or(SHORT)?;
    if *magic != MAGIC {
        return Err("it is no batch");
    }
    let (checksum, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    if crc32fast::hash(rest) != u32::from_be_bytes(*checksum) {
        return Err("its checksum is wrong");
    }
    let (records, rest) = rest.split_first_chunk::<8>().ok_or(SHORT)?;
    let (its_encoding, rest) = name(rest).ok_or(SHORT)?;
    let (table, rest) = name(rest).ok_or(SHORT)?;
    let (token, bytes) = name(rest).ok_or(SHORT)?;
    if its_encoding != encoding {
        return Err("it is for a sink of another kind");
    }
    let table = Table::named(table).ok_or("it is of an unknown table")?;
    let records = u64::from_be_bytes(*records);
    Ok(Batch { table, records, token: token.to_owned(), bytes: bytes.to_vec() })
}

fn name(text: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = text.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("vmprobe-spool-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn batch(records: u64, octets: usize) -> Batch {
        let token = format!("t{records}");
        Batch { table: Table::Flows, records, token, bytes: vec![7; octets] }
    }

    #[test]
    fn batches_come_back_in_order_in_another_run() {
        let folder = folder("order");
        let mut spool = Spool::open(folder.clone(), "eve", 1 << 20).expect("a folder");
        for records in 1..=3 {
            spool.push(&batch(records, 100)).expect("room");
        }
        assert!(matches!(Spool::open(folder.clone(), "eve", 1), Err(SpoolError::InUse(_))));
        drop(spool);
        fs::write(folder.join("00000000000000000009.part"), "torn").expect("a file");
        let mut spool = Spool::open(folder.clone(), "eve", 1 << 20).expect("a folder");
        assert_eq!(spool.records(), 6);
        let (found, lost) = spool.read(0);
        let (entry, found) = found.expect("the first");
        assert_eq!((found, lost), (batch(1, 100), 0));
        spool.remove(entry);
        assert_eq!(spool.read(1).0.map(|(_, batch)| batch.records), Some(3));
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 3, "two batches and a lock");
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        let folder = folder("bound");
        let mut spool = Spool::open(folder.clone(), "eve", 2_000).expect("a folder");
        assert!(spool.push(&batch(1, 1_500)).is_ok());
        assert!(matches!(spool.push(&batch(2, 1_500)), Err(SpoolError::Full(_))));
        let entry = spool.read(0).0.expect("one").0;
        spool.remove(entry);
        assert!(spool.is_empty() && spool.push(&batch(2, 1_500)).is_ok());
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn what_is_broken_is_put_aside_and_counted() {
        let folder = folder("broken");
        let mut spool = Spool::open(folder.clone(), "eve", 1 << 20).expect("a folder");
        for records in 1..=2 {
            spool.push(&batch(records, 100)).expect("room");
        }
        let path = spool.path(0);
        let mut text = fs::read(&path).expect("a file");
        if let Some(last) = text.last_mut() {
            *last ^= 1;
        }
        fs::write(&path, text).expect("a file");
        let (found, lost) = spool.read(0);
        assert_eq!((found.map(|(_, batch)| batch.records), lost), (Some(2), 1));
        assert!(path.with_extension("broken").exists());
        drop(spool);
        let other = Spool::open(folder.clone(), "webhook", 1 << 20).expect("a folder");
        assert_eq!(other.records(), 0, "of another kind");
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn every_cut_is_noticed() {
        let text = encode(&batch(9, 40), "eve");
        assert_eq!(decode(&text, "eve"), Ok(batch(9, 40)));
        for length in 0..text.len() {
            assert!(decode(&text[..length], "eve").is_err(), "{length}");
        }
    }
}
