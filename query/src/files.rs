//! The files of the records.
//!
//! In: the folder. Out: the Parquet files of each table, sorted by path.
//! Cost: twelve octets of each file are read; each stays open until the program ends.
//! Invariants: hidden names (what the probe is still writing) are no records; a file that is no Parquet file is
//! named, never passed on and never left out in silence; although the probe merges and removes files
//! meanwhile, the rows of each hour are those of one instant. A name need not be text.
//! The folder and those of its tables may be links; below them a link is not followed, because one
//! that leads outside would read there and one that leads inside would count rows twice: where there may be
//! records behind it, it is named.
//! Source: Parquet's file format: `PAR1` at both ends, before the last one the footer's length.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::rollup::{self, RollUp};
use crate::schema;
use crate::warnings::Warnings;

const MAGIC: [u8; 4] = *b"PAR1";
/// How the names of records end.
const ENDING: &[u8] = b".parquet";
/// Magic, footer length, magic.
const LEAST_BYTES: u64 = 12;
/// Folders below a table's: day and hour.
const DEPTH_MAX: u32 = 2;
/// How often a folder is looked at that changes while it is looked at, a millisecond apart at first.
const LOOKS_MAX: u32 = 100;

/// What a look at a folder found.
#[derive(Debug, Default)]
struct Found {
    files: Vec<OpenFile>,
    /// What has a name as records have and is no file.
    bad: Vec<String>,
    /// Links behind which there may be records.
    links: Vec<String>,
}

impl Found {
    fn append(&mut self, mut other: Self) {
        self.files.append(&mut other.files);
        self.bad.append(&mut other.bad);
        self.links.append(&mut other.links);
    }
}

/// The records of a folder.
#[derive(Debug)]
pub(crate) struct Files {
    /// Files of each table; none for a table that the query does not read.
    pub(crate) of_table: BTreeMap<&'static str, Vec<OpenFile>>,
    /// Files in which hours stand added up, and the windows that may, where the query reads them.
    pub(crate) rolled: Vec<OpenFile>,
    pub(crate) to_roll: Vec<OpenFile>,
    /// What makes the views that the query may read.
    pub(crate) views: String,
    /// Whether conversations are read that stand added up, which no view shows.
    pub(crate) with_talks: bool,
}

impl Files {
    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &OpenFile> {
        self.of_table.values().flatten().chain(&self.rolled).chain(&self.to_roll)
    }
}

/// A file that is held open, so that it can be read to its end whoever takes its name away.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// Its name when it was opened.
    pub(crate) path: PathBuf,
    /// Its size.
    pub(crate) bytes: u64,
    file: File,
}

impl OpenFile {
    /// One that never had a name: a table's rows, fetched from elsewhere.
    pub(crate) fn fetched(table: &str, file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { path: table.into(), bytes, file })
    }

    /// The folder that its probe moves it to when others take its place, until it is removed.
    pub(crate) fn aside(&self) -> Option<PathBuf> {
        // Table, day, hour, name.
        let root = self.path.ancestors().nth(4)?;
        Some(root.join(format!(".compact-{}", probe_of(name(self)?)?)))
    }

    /// Where this process finds it, whatever its name is by now.
    pub(crate) fn held(&self) -> String {
        format!("{}/{}", held_folder(), self.file.as_raw_fd())
    }
}

/// The folder of what this process holds open.
pub(crate) fn held_folder() -> String {
    // By number: DuckDB, too, takes a path to where its links lead, and `self` is one.
    format!("/proc/{}/fd", std::process::id())
}

/// Finds the records below `folder` that `sql` may read. Files that are none are an error that
/// names them, or one of the `warnings`.
pub(crate) fn find(folder: &Path, sql: &str, warnings: &Warnings) -> anyhow::Result<Files> {
    let shown = folder.display();
    let folder = folder.canonicalize().with_context(|| format!("--data {shown}"))?;
    if !folder.is_dir() {
        bail!("--data {shown}: not a folder");
    }
    hold_many();
    let mut of_table = BTreeMap::new();
    let (mut bad, mut links) = (Vec::new(), BTreeSet::new());
    for table in schema::tables() {
        let mut files = Vec::new();
        if schema::may_read(sql, table) {
            let found = look_at_table(&folder.join(table))?;
            files = found.files;
            files.retain(|file| !is_rolled(file));
            sort_out(&mut files, &mut bad);
            bad.extend(found.bad);
            links.extend(found.links);
        }
        of_table.insert(table, files);
    }
    let (mut rolled, mut to_roll) = (Vec::new(), Vec::new());
    if rollup::are_read(sql) {
        let found = look_at_table(&folder.join(rollup::TABLE))?;
        (rolled, to_roll) = found.files.into_iter().partition(is_rolled);
        rolled.retain(|file| name(file).is_some_and(|name| rollup::is_read(sql, name)));
        // Without one the windows are read.
        sort_out(&mut rolled, &mut Vec::new());
        sort_out(&mut to_roll, &mut bad);
        bad.extend(found.bad);
        links.extend(found.links);
    }
    warnings.tell_links(&links);
    bad.sort();
    warnings.tell_bad_files(&bad)?;
    let with_talks = sql.contains(RollUp::Talks.name());
    Ok(Files { of_table, rolled, to_roll, views: schema::views(sql), with_talks })
}

/// The records of one hour.
pub(crate) fn of_hour(folder: &Path) -> anyhow::Result<Vec<OpenFile>> {
    let Found { mut files, mut bad, links } = look(folder, 0)?;
    files.retain(|file| !is_rolled(file));
    sort_out(&mut files, &mut bad);
    let warnings = Warnings::new(false);
    warnings.tell_links(&links.into_iter().collect());
    warnings.tell_bad_files(&bad)?;
    Ok(files)
}

fn is_rolled(file: &OpenFile) -> bool {
    name(file).is_some_and(rollup::may_be)
}

/// The probe in the name of a file of records, which two numbers follow, or of what stands added up, which
/// three follow.
fn probe_of(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once('-')?;
    let numbers = if name.starts_with('.') { 3 } else { 2 };
    rest.rsplitn(numbers + 1, '-').nth(numbers)
}

fn name(file: &OpenFile) -> Option<&str> {
    file.path.file_name().and_then(OsStr::to_str)
}

/// In order of their paths, without those that are no Parquet files.
fn sort_out(found: &mut Vec<OpenFile>, bad: &mut Vec<String>) {
    found.sort_by(|one, two| one.path.cmp(&two.path));
    found.retain(|open| match check(&open.file) {
        Ok(()) => true,
        Err(problem) => {
            bad.push(format!("{}: {problem:#}", open.path.display()));
            false
        }
    });
}

/// A file is open for each that is read, and again while DuckDB reads it.
fn hold_many() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where it is not granted, opening says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// The files of a table. A folder that is not there has none; a link that leads nowhere, as to a disk that is not
/// there, is named.
fn look_at_table(path: &Path) -> anyhow::Result<Found> {
    let mut found = look(path, DEPTH_MAX)?;
    let is_link = || fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_symlink());
    if is_link() && !path.exists() {
        found.bad.push(format!("{}: a link that leads nowhere", path.display()));
    }
    Ok(found)
}

/// The files of a folder and of those below it, each folder as it was at one instant.
fn look(path: &Path, depth: u32) -> anyhow::Result<Found> {
    for again in 0..LOOKS_MAX {
        if let Some(found) = look_once(path, depth).with_context(|| path.display().to_string())? {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(u64::from(1 + again / 10)));
    }
    bail!("{}: its files change all the time", path.display())
}

/// `None` if the folder changed in such a way that files may be missing. The probe puts a folder
/// with the same rows in the place of another, and removes the old files then: so what counts is
/// that the name still means the folder that was read, once all its files are open.
fn look_once(path: &Path, depth: u32) -> anyhow::Result<Option<Found>> {
    let Some(folder) = open(CWD, path, OFlags::DIRECTORY)? else {
        return Ok(Some(Found::default()));
    };
    let (mut found, mut below) = (Found::default(), Vec::new());
    for entry in Dir::read_from(&folder).map_err(io::Error::from)? {
        let entry = entry.map_err(io::Error::from)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let is_rolled = name.to_str().is_some_and(rollup::may_be);
        if name.as_bytes().starts_with(b".") && !is_rolled {
            continue;
        }
        let inside = path.join(name);
        let kind = match entry.file_type() {
            FileType::Unknown => kind(&inside)?,
            kind => kind,
        };
        let is_named = is_rolled || name.as_bytes().ends_with(ENDING);
        match kind {
            FileType::RegularFile if is_named => {
                let Some(file) = open(&folder, Path::new(name), OFlags::empty())? else {
                    return Ok(None);
                };
                let file = File::from(file);
                found.files.push(OpenFile { path: inside, bytes: file.metadata()?.len(), file });
            }
            FileType::Directory if depth > 0 => below.push(inside),
            FileType::Symlink if may_lead_to_records(&inside, is_named) => {
                found.links.push(inside.display().to_string());
            }
            FileType::RegularFile | FileType::Symlink => {}
            // What is no file has no rows, and opening a pipe would wait for whoever writes into it.
            _ if is_named && !is_rolled => {
                found.bad.push(format!("{}: no regular file", inside.display()));
            }
            _ => {}
        }
    }
    let now = open(CWD, path, OFlags::DIRECTORY)?;
    let same = |now: &OwnedFd| -> io::Result<bool> {
        let (read, now) = (fstat(&folder)?, fstat(now)?);
        Ok((read.st_dev, read.st_ino) == (now.st_dev, now.st_ino))
    };
    if !now.as_ref().map_or(Ok(false), same)? {
        return Ok(None);
    }
    for inside in below {
        found.append(look(&inside, depth - 1)?);
    }
    Ok(Some(found))
}

/// Whether a link has a file's name, or leads to a folder or, as of a disk that is not there, nowhere.
fn may_lead_to_records(link: &Path, is_named: bool) -> bool {
    is_named || fs::metadata(link).map_or(true, |target| target.is_dir())
}

/// `None` where there is none.
fn open(at: impl std::os::fd::AsFd, path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    match openat(at, path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// For file systems that do not say it in the list.
fn kind(path: &Path) -> io::Result<FileType> {
    let kind = fs::symlink_metadata(path)?.file_type();
    Ok(match (kind.is_dir(), kind.is_file()) {
        (true, _) => FileType::Directory,
        (_, true) => FileType::RegularFile,
        _ if kind.is_symlink() => FileType::Symlink,
        _ => FileType::Unknown,
    })
}

fn check(mut file: &File) -> anyhow::Result<()> {
    let bytes = file.metadata()?.len();
    if bytes < LEAST_BYTES {
        bail!("{bytes} bytes are no Parquet file");
    }
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    let mut end = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut end)?;
    let [a, b, c, d, end_magic @ ..] = end;
    if magic != MAGIC {
        bail!("not a Parquet file");
    }
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    if end_magic != MAGIC || footer > bytes - LEAST_BYTES {
        bail!("a Parquet file without its end");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, bytes: &[u8]) -> String {
        let path = std::env::temp_dir().join(format!("vmprobe-{name}-{}", std::process::id()));
        fs::write(&path, bytes).expect("a temporary file");
        let answer = File::open(&path).map_err(Into::into).and_then(|file| check(&file));
        fs::remove_file(&path).expect("it was there");
        answer.map_or_else(|problem| problem.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn torn_and_foreign_files_are_told_apart() {
        assert_eq!(checked("whole", b"PAR1\0\0\0\0PAR1"), "good");
        assert_eq!(checked("empty", b""), "0 bytes are no Parquet file");
        assert_eq!(checked("foreign", b"time,source,destination\n"), "not a Parquet file");
        assert_eq!(
            checked("torn", b"PAR1 and then power was cut"),
            "a Parquet file without its end"
        );
        assert_eq!(checked("length", b"PAR1\xff\0\0\0PAR1"), "a Parquet file without its end");
    }

    #[test]
    fn names_say_whose_they_are() {
        assert_eq!(probe_of("flows-p-1-1728000000000000000-8.parquet"), Some("p-1"));
        assert_eq!(probe_of(".vms_1m.3-p-1-4-17-9000"), Some("p-1"));
        assert_eq!(probe_of("flows.parquet"), None);
        let root = std::env::temp_dir().join(format!("vmprobe-aside-{}", std::process::id()));
        let path = root.join("flows/2026-01-01/00/flows-p-1-17-8.parquet");
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let file = File::create(&path).expect("a file");
        let aside = OpenFile { path, bytes: 0, file }.aside();
        assert_eq!(aside, Some(vmprobe::export::parquet::folder::hidden(&root, "p-1")));
        fs::remove_dir_all(root).expect("it is there");
    }

    /// A folder that is exchanged for one with the same rows, over and over.
    #[test]
    fn a_folder_that_is_exchanged_is_read_as_it_was_at_one_instant() {
        use rustix::fs::{RenameFlags, renameat_with};
        use std::sync::atomic::{AtomicBool, Ordering};
        let root = std::env::temp_dir().join(format!("vmprobe-exchange-{}", std::process::id()));
        let (hour, hidden) = (root.join("hour"), root.join(".hidden"));
        let write = |folder: &Path, name: u32| {
            fs::write(folder.join(format!("{name}.parquet")), "x").expect("a file");
        };
        fs::create_dir_all(&hour).expect("a folder");
        (0..3).for_each(|name| write(&hour, name));
        let ending = AtomicBool::new(false);
        let exchange = |round: u32| {
            fs::create_dir(&hidden).expect("a folder");
            (0..3).for_each(|name| write(&hidden, 3 * round + name));
            renameat_with(CWD, &hidden, CWD, &hour, RenameFlags::EXCHANGE).expect("exchanged");
            fs::remove_dir_all(&hidden).expect("the old one");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut round = 1;
                while !ending.load(Ordering::Relaxed) {
                    exchange(round);
                    round += 1;
                }
            });
            for _ in 0..2_000 {
                let found = look(&root, 1).map(|found| found.files.len());
                if !matches!(found, Ok(3)) {
                    ending.store(true, Ordering::Relaxed);
                    panic!("{found:?}");
                }
            }
            ending.store(true, Ordering::Relaxed);
        });
        fs::remove_dir_all(root).expect("it is there");
    }
}
