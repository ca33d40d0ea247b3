//! Batches on disk, for what finds no room in memory and what is left at the end.
//!
//! In: batches. Out: the same, oldest first, also in another run.
//! Cost: a file, an fsync and a rename a batch; opening reads the head of each file.
//! Invariants: at most `bytes_max` are kept; a file whose name ends in `.batch` is whole, or its checksum
//! says that it is not, and it is put aside, of which the last [`BROKEN_MAX`] are kept; what the disk does not
//! give now waits until it does; a batch leaves the disk when it is delivered, not when it is read; one process
//! owns a folder. A sink's folder has one for each kind: what another kind has encoded, this one could not
//! send, and leaves to it.

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
/// Broken files that are kept for whoever wants to look into them.
const BROKEN_MAX: usize = 8;
/// Number of the first file, and between two that come one after another, so that what is older than a file
/// finds a number before it.
const FIRST: u64 = 1 << 60;
const STEP: u64 = 1 << 20;
/// What stands before the octets of a batch, at most: magic, checksum, records and three names.
const HEAD_BYTES_MAX: u64 = 8 + 4 + 8 + 3 * (1 + NAME_BYTES_MAX as u64);

/// Why a batch is not in the spool.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error("the spool is full ({0} MiB)")]
    Full(u64),
    #[error("{}: {error}", path.display())]
    Disk { path: PathBuf, error: io::Error },
    #[error("{}: another process, or a sink that was taken away and still delivers, uses it", .0.display())]
    InUse(PathBuf),
    #[error("{} is broken: {what}", path.display())]
    Broken { path: PathBuf, what: &'static str },
}

/// The spool of one sink.
pub(super) struct Spool {
    folder: PathBuf,
    /// Kind of the sink.
    encoding: &'static str,
    bytes_max: u64,
    bytes: u64,
    /// Number, size and records of each file, oldest first.
    files: VecDeque<Entry>,
    next: u64,
    /// Numbers of the files that were put aside, oldest first.
    broken: VecDeque<u64>,
    /// Records of files that were put aside when it was opened, as far as these say how many.
    pub(super) broken_records: u64,
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

/// Why a file cannot be read: one that somebody took away does not come back.
fn unread(path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::NotFound => SpoolError::Broken { path, what: "it was taken away" },
        _ => SpoolError::Disk { path, error },
    }
}

impl Spool {
    /// Opens the sink's folder for its kind, makes it if need be, and finds what another run has left.
    pub(super) fn open(
        folder: &Path,
        encoding: &'static str,
        bytes_max: u64,
    ) -> Result<Self, SpoolError> {
        let folder = folder.join(encoding);
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
            next: FIRST,
            broken: VecDeque::new(),
            broken_records: 0,
            _lock: lock,
        };
        spool.find()?;
        Ok(spool)
    }

    fn find(&mut self) -> Result<(), SpoolError> {
        let (mut numbers, mut broken) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder).map_err(disk(&self.folder))? {
            let path = entry.map_err(disk(&self.folder))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("batch") => numbers.extend(stem.parse::<u64>().ok()),
                Some("broken") => broken.extend(stem.parse::<u64>().ok()),
                // What was written when a run ended by force was counted nowhere.
                Some("part") => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        numbers.sort_unstable();
        broken.sort_unstable();
        let last = numbers.iter().chain(&broken).max();
        self.next = last.map_or(FIRST, |number| number.saturating_add(STEP));
        self.broken = broken.into();
        for number in numbers {
            match self.entry(number) {
                Ok(entry) => {
                    self.bytes += entry.bytes;
                    self.files.push_back(entry);
                }
                Err((error @ SpoolError::Disk { .. }, _)) => return Err(error),
                Err((error, records)) => {
                    self.broken_records += records;
                    self.put_aside(number, &error);
                }
            }
        }
        Ok(())
    }

    /// Another bound. What is there beyond it stays; nothing is added until it is below.
    pub(super) const fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Records that wait.
    pub(super) fn records(&self) -> u64 {
        self.files.iter().map(|entry| entry.records).sum()
    }

    /// Whether it is less than half full.
    pub(super) const fn has_room(&self) -> bool {
        self.bytes < self.bytes_max / 2
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
        self.write(self.next, self.files.len(), batch)?;
        self.next = self.next.saturating_add(STEP);
        Ok(())
    }

    /// Adds a batch right behind the file `before`, in front of all files where that is `None`; behind all
    /// where no number is left in between. Its entry is what the next one comes behind.
    pub(super) fn insert(
        &mut self,
        before: Option<Entry>,
        batch: &Batch,
    ) -> Result<Entry, SpoolError> {
        let place = before
            .map_or(0, |before| self.files.partition_point(|entry| entry.number <= before.number));
        let next = self.files.get(place).map(|entry| entry.number);
        let number = match (before, next) {
            (Some(before), Some(_)) => before.number + 1,
            (None, Some(next)) => next.saturating_sub(STEP),
            (_, None) => self.next,
        };
        let free = next.is_some_and(|next| number < next)
            && before.is_none_or(|before| before.number < number);
        if free {
            return self.write(number, place, batch);
        }
        let entry = self.write(self.next, self.files.len(), batch)?;
        self.next = self.next.saturating_add(STEP);
        Ok(entry)
    }

    /// The file is there when its folder is on the disk too.
    fn write(&mut self, number: u64, place: usize, batch: &Batch) -> Result<Entry, SpoolError> {
        let text = encode(batch, self.encoding);
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.bytes.saturating_add(bytes) > self.bytes_max {
            return Err(SpoolError::Full(self.bytes_max >> 20));
        }
        let (part, path) = (self.folder.join(format!("{number:020}.part")), self.path(number));
        let write = || {
            let mut file = File::create(&part)?;
            file.write_all(&text)?;
            file.sync_data()?;
            fs::rename(&part, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&part);
            let _ = fs::remove_file(&path);
            return Err(SpoolError::Disk { path, error });
        }
        self.bytes += bytes;
        let entry = Entry { number, bytes, records: batch.records };
        self.files.insert(place, entry);
        Ok(entry)
    }

    /// The batch at a place, the oldest at 0. What is broken is put aside; its records come second.
    ///
    /// # Errors
    /// The disk's; another time it may give the same batch.
    pub(super) fn read(
        &mut self,
        place: usize,
    ) -> (Result<Option<(Entry, Batch)>, SpoolError>, u64) {
        let mut lost = 0;
        while let Some(entry) = self.files.get(place).copied() {
            match self.read_file(entry.number) {
                Ok(batch) => return (Ok(Some((entry, batch))), lost),
                Err(error @ SpoolError::Disk { .. }) => return (Err(error), lost),
                Err(error) => {
                    self.put_aside(entry.number, &error);
                    self.files.remove(place);
                    self.bytes -= entry.bytes;
                    lost += entry.records;
                }
            }
        }
        (Ok(None), lost)
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

    fn put_aside(&mut self, number: u64, error: &SpoolError) {
        tracing::error!(%error, "a batch of the spool is put aside");
        let path = self.path(number);
        let _ = fs::rename(&path, path.with_extension("broken"));
        self.broken.push_back(number);
        while self.broken.len() > BROKEN_MAX {
            let oldest = self.broken.pop_front().map(|number| self.path(number));
            let _ = oldest.map(|path| fs::remove_file(path.with_extension("broken")));
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}.batch"))
    }

    /// What the head of a file says; with an error how many records are lost with it, if that is known.
    fn entry(&self, number: u64) -> Result<Entry, (SpoolError, u64)> {
        let path = self.path(number);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| {
            let bytes = file.metadata()?.len();
            file.take(HEAD_BYTES_MAX).read_to_end(&mut text)?;
            Ok(bytes)
        });
        let bytes = read.map_err(|error| (unread(&path)(error), 0))?;
        let broken = |what, records| (SpoolError::Broken { path: path.clone(), what }, records);
        let head = head(&text).map_err(|what| broken(what, 0))?;
        if head.records > bytes {
            return Err(broken("it names more records than it has octets", 0));
        }
        match head.check(self.encoding) {
            Ok(_) => Ok(Entry { number, bytes, records: head.records }),
            Err(what) => Err(broken(what, head.records)),
        }
    }

    fn read_file(&self, number: u64) -> Result<Batch, SpoolError> {
        let path = self.path(number);
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(BATCH_BYTES_MAX).read_to_end(&mut text))
            .map_err(unread(&path))?;
        decode(&text, self.encoding).map_err(|what| SpoolError::Broken { path, what })
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

/// What stands before the octets.
struct Head<'a> {
    /// Of all behind it.
    checksum: u32,
    checked: &'a [u8],
    records: u64,
    encoding: &'a str,
    table: &'a str,
    token: &'a str,
    bytes: &'a [u8],
}

impl Head<'_> {
    /// The table, if it is for this kind of sink.
    fn check(&self, encoding: &str) -> Result<Table, &'static str> {
        if self.encoding != encoding {
            return Err("it is for a sink of another kind");
        }
        Table::named(self.table).ok_or("it is of an unknown table")
    }
}

fn head(text: &[u8]) -> Result<Head<'_>, &'static str> {
    const SHORT: &str = "it is cut off";
    let (magic, rest) = text.split_first_chunk::<8>().ok_or(SHORT)?;
    if *magic != MAGIC {
        return Err("it is no batch");
    }
    let (checksum, checked) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (records, rest) = checked.split_first_chunk::<8>().ok_or(SHORT)?;
    let (encoding, rest) = name(rest).ok_or(SHORT)?;
    let (table, rest) = name(rest).ok_or(SHORT)?;
    let (token, bytes) = name(rest).ok_or(SHORT)?;
    let (checksum, records) = (u32::from_be_bytes(*checksum), u64::from_be_bytes(*records));
    Ok(Head { checksum, checked, records, encoding, table, token, bytes })
}

fn decode(text: &[u8], encoding: &str) -> Result<Batch, &'static str> {
    let head = head(text)?;
    if crc32fast::hash(head.checked) != head.checksum {
        return Err("its checksum is wrong");
    }
    let table = head.check(encoding)?;
    let Head { records, token, bytes, .. } = head;
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

    fn path_at(spool: &Spool, place: usize) -> PathBuf {
        spool.path(spool.files[place].number)
    }

    fn records_at(spool: &mut Spool, place: usize) -> (Option<u64>, u64) {
        let (found, lost) = spool.read(place);
        (found.expect("a disk that reads").map(|(_, batch)| batch.records), lost)
    }

    #[test]
    fn batches_come_back_in_order_in_another_run() {
        let folder = folder("order");
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        for records in 1..=3 {
            spool.push(&batch(records, 100)).expect("room");
        }
        assert!(matches!(Spool::open(&folder, "eve", 1), Err(SpoolError::InUse(_))));
        drop(spool);
        fs::write(folder.join("eve/00000000000000000009.part"), "torn").expect("a file");
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        assert_eq!(spool.records(), 6);
        let (found, lost) = spool.read(0);
        let (entry, found) = found.expect("a disk").expect("the first");
        assert_eq!((found, lost), (batch(1, 100), 0));
        spool.remove(entry);
        assert_eq!(records_at(&mut spool, 1), (Some(3), 0));
        assert_eq!(
            fs::read_dir(folder.join("eve")).expect("a folder").count(),
            3,
            "two batches and a lock"
        );
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        let folder = folder("bound");
        let mut spool = Spool::open(&folder, "eve", 2_000).expect("a folder");
        assert!(spool.push(&batch(1, 1_500)).is_ok());
        assert!(matches!(spool.push(&batch(2, 1_500)), Err(SpoolError::Full(_))));
        let entry = spool.read(0).0.expect("a disk").expect("one").0;
        spool.remove(entry);
        assert!(spool.is_empty() && spool.push(&batch(2, 1_500)).is_ok());
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn what_is_broken_is_put_aside_and_counted() {
        let folder = folder("broken");
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        for records in 1..=2 {
            spool.push(&batch(records, 100)).expect("room");
        }
        let path = path_at(&spool, 0);
        let mut text = fs::read(&path).expect("a file");
        if let Some(last) = text.last_mut() {
            *last ^= 1;
        }
        fs::write(&path, text).expect("a file");
        assert_eq!(records_at(&mut spool, 0), (Some(2), 1));
        assert!(path.with_extension("broken").exists());
        drop(spool);
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn what_is_found_broken_at_the_start_is_counted_as_far_as_it_says() {
        let folder = folder("found");
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        for records in [3, 5, 7, 90] {
            spool.push(&batch(records, 100)).expect("room");
        }
        let paths: Vec<_> = (0..3).map(|place| path_at(&spool, place)).collect();
        drop(spool);
        fs::write(&paths[0], "no batch").expect("a file");
        fs::write(&paths[1], encode(&batch(5, 100), "webhook")).expect("a file");
        fs::write(&paths[2], encode(&batch(u64::MAX, 100), "eve")).expect("a file");
        let spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        assert_eq!((spool.records(), spool.broken_records), (90, 5));
        assert!(paths.iter().all(|path| path.with_extension("broken").exists()));
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn what_another_kind_has_left_is_left_to_it() {
        let folder = folder("kinds");
        let mut eve = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        eve.push(&batch(3, 100)).expect("room");
        // Also while that one still delivers.
        let mut webhook = Spool::open(&folder, "webhook", 1 << 20).expect("another folder");
        assert_eq!((webhook.records(), records_at(&mut webhook, 0)), (0, (None, 0)));
        webhook.push(&batch(4, 100)).expect("room");
        drop((eve, webhook));
        for (kind, records) in [("eve", 3), ("webhook", 4)] {
            let spool = Spool::open(&folder, kind, 1 << 20).expect("a folder");
            assert_eq!((spool.records(), spool.broken_records), (records, 0), "{kind}");
        }
        let _ = fs::remove_dir_all(folder);
    }

    /// In place of a file that the disk does not give: a folder of its name, which cannot be read either.
    fn unreadable(path: &Path) {
        fs::rename(path, path.with_extension("away")).expect("a file");
        fs::create_dir(path).expect("a folder");
    }

    fn readable(path: &Path) {
        fs::remove_dir(path).expect("a folder");
        fs::rename(path.with_extension("away"), path).expect("a file");
    }

    #[test]
    fn what_the_disk_does_not_give_now_waits() {
        let folder = folder("disk");
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        for records in 1..=3 {
            spool.push(&batch(records, 100)).expect("room");
        }
        let path = path_at(&spool, 0);
        unreadable(&path);
        for _ in 0..3 {
            assert!(matches!(spool.read(0), (Err(SpoolError::Disk { .. }), 0)));
        }
        assert_eq!(spool.records(), 6);
        readable(&path);
        assert_eq!(records_at(&mut spool, 0), (Some(1), 0));
        drop(spool);
        unreadable(&path);
        assert!(matches!(Spool::open(&folder, "eve", 1), Err(SpoolError::Disk { .. })));
        readable(&path);
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        assert_eq!(records_at(&mut spool, 0), (Some(1), 0));
        // What was taken away does not come back.
        fs::remove_file(&path).expect("a file");
        assert_eq!((records_at(&mut spool, 0), spool.records()), ((Some(2), 1), 5));
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn of_what_is_broken_the_last_are_kept() {
        let folder = folder("kept");
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        for number in 0..12 {
            spool.push(&batch(1, 100)).expect("room");
            fs::write(path_at(&spool, number), "broken").expect("a file");
        }
        let paths: Vec<_> = (0..12).map(|place| path_at(&spool, place)).collect();
        drop(spool);
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        let kept = paths.iter().map(|path| path.with_extension("broken").exists());
        assert_eq!(kept.collect::<Vec<_>>(), [[false; 4], [true; 4], [true; 4]].concat());
        // A number is never used again while its file is there.
        spool.push(&batch(1, 100)).expect("room");
        assert!(!paths.contains(&path_at(&spool, 0)));
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn what_is_older_finds_a_place_before_what_is_there() {
        let folder = folder("insert");
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        let insert = |spool: &mut Spool, before, records| {
            spool.insert(before, &batch(records, 10)).expect("room")
        };
        let four = insert(&mut spool, None, 4);
        spool.push(&batch(9, 10)).expect("room");
        let one = insert(&mut spool, None, 1);
        let two = insert(&mut spool, Some(one), 2);
        insert(&mut spool, Some(two), 3);
        let five = insert(&mut spool, Some(four), 5);
        insert(&mut spool, Some(five), 6);
        // Between these two no number is left: it goes behind all.
        insert(&mut spool, Some(one), 33);
        let all = |spool: &mut Spool| -> Vec<_> {
            (0..8).map_while(|place| records_at(spool, place).0).collect()
        };
        assert_eq!(all(&mut spool), [1, 2, 3, 4, 5, 6, 9, 33]);
        drop(spool);
        let mut spool = Spool::open(&folder, "eve", 1 << 20).expect("a folder");
        insert(&mut spool, None, 0);
        assert_eq!(all(&mut spool), [0, 1, 2, 3, 4, 5, 6, 9]);
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
