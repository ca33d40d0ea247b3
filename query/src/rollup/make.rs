//! An hour's windows added up in a file.
//!
//! In: the folder of the hour, the probe. Out: one file a view beside the windows.
//! Cost: one pass over the windows; one thread, bounded memory and time.
//! Invariants: a file has its name once it is whole and on disk; what it was made of stands in the name. An
//! hour with too many conversations for the memory stays without.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;

use super::{FilesOf, TABLE, VIEWS, added_up, probe_and_number, start_of};
use crate::cell::Cell;
use crate::database::{Database, Limits, empty, read};
use crate::files::{self, OpenFile};
use crate::live;

/// Time for an hour.
const TIME_S_MAX: u64 = 900;
const MIB: u64 = 1 << 20;
const HOUR_NS: u64 = 3_600_000_000_000;
/// Slices that the minutes of an hour are taken in.
const SLICES: u64 = 6;

/// Adds the windows of an hour up, for questions about days. `vmprobe run` starts it by itself.
#[derive(Debug, Parser)]
#[command(name = "vmprobe-query roll-up", version, about)]
pub(crate) struct Arguments {
    /// Folder of the hour, `windows/<day>/<hour>` below that of the records.
    #[arg(long, value_name = "DIR")]
    hour: PathBuf,
    /// Folder on the same file system in which it may work out of sight.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Whose files, by the probe's id as it stands in their names.
    #[arg(long, value_name = "ID")]
    probe: String,
    /// Memory that it may use, in MiB, 64–1048576.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    memory_mib: u32,
    /// Space that stays free on the disk, in MiB.
    #[arg(long, value_name = "N", default_value_t = 0)]
    free_mib_min: u32,
}

impl Arguments {
    /// From the arguments behind `roll-up`.
    pub(crate) fn of(arguments: impl Iterator<Item = OsString>) -> Self {
        Self::parse_from(std::iter::once("vmprobe-query roll-up".into()).chain(arguments))
    }
}

/// Makes the files that are not there yet.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    live::end_with_parent();
    let own_number = |file: &OpenFile| {
        let name = file.path.file_name().and_then(|name| name.to_str());
        let (probe, number) = name.and_then(probe_and_number)?;
        (probe == arguments.probe).then_some(number)
    };
    let all = files::of_hour(&arguments.hour)?;
    let windows: Vec<_> = all.iter().filter(|file| own_number(file).is_some()).collect();
    if windows.is_empty() {
        return Ok(());
    }
    let of = FilesOf {
        files: windows.len() as u64,
        number: windows.iter().filter_map(|file| own_number(file)).max().unwrap_or(0),
        bytes: windows.iter().map(|file| file.bytes).sum(),
    };
    check_free(arguments, of.bytes)?;
    fs::create_dir_all(&arguments.work).with_context(|| arguments.work.display().to_string())?;
    let limits = Limits {
        memory_mib: arguments.memory_mib,
        time: Duration::from_secs(TIME_S_MAX),
        threads: 1,
        keeps_order: true,
    };
    let database = Database::open_alone(limits)?;
    // What an earlier version of the schema lacks is null.
    let mut from = format!("(FROM {} UNION ALL BY NAME FROM {})", empty(TABLE), read(&windows));
    let (mut time, mut rows, mut slices) = ("window_start_ns", "count(*)", SLICES);
    for (view, interval_ns) in VIEWS {
        let name = of.name(view, &arguments.probe);
        let path = arguments.hour.join(&name);
        if !path.exists() {
            let hidden = arguments.work.join(&name);
            let sum = Sum { from: &from, time, rows, interval_ns, slices };
            let made = sum.write(&database, &hidden);
            let made = made.and_then(|()| Ok(fs::rename(&hidden, &path)?));
            if made.is_err() {
                let _ = fs::remove_dir_all(&arguments.work);
            }
            made.with_context(|| path.display().to_string())?;
        }
        forget_others(&arguments.hour, view, &arguments.probe, &name)?;
        // The hour is made of its minutes.
        from = format!("read_parquet({})", text(&path)?);
        (time, rows, slices) = ("start_ns", "sum(own.row_count)", 1);
    }
    // Where others work in it, it stays.
    let _ = fs::remove_dir(&arguments.work);
    Ok(File::open(&arguments.hour)?.sync_all()?)
}

/// What is added up.
struct Sum<'a> {
    /// Its rows, their time, and how many rows of `windows` some of them stand for.
    from: &'a str,
    time: &'a str,
    rows: &'a str,
    interval_ns: u64,
    slices: u64,
}

impl Sum<'_> {
    /// Writes a file, slice after slice of the hour, so that the rows of one slice are in memory.
    fn write(&self, database: &Database, path: &Path) -> anyhow::Result<()> {
        let Self { from, time, rows, interval_ns, slices } = *self;
        let start = start_of(time, interval_ns);
        // Some rows may be of another hour than most.
        let mut begin_ns = 0;
        database.each(&format!("SELECT median({time})::UBIGINT FROM {from}"), |row| {
            let median = row.first().map_or("", Cell::plain);
            begin_ns = median.parse::<u64>().unwrap_or(0) / HOUR_NS * HOUR_NS;
            Ok(())
        })?;
        let mut files = Vec::new();
        for slice in 0..slices {
            let bound = |slice: u64| begin_ns.saturating_add(slice * HOUR_NS / slices);
            let mut inside = Vec::new();
            inside.extend((slice > 0).then(|| format!("{time} >= {}", bound(slice))));
            inside.extend((slice + 1 < slices).then(|| format!("{time} < {}", bound(slice + 1))));
            let from = if inside.is_empty() {
                from.to_owned()
            } else {
                format!("(SELECT * FROM {from} WHERE {})", inside.join(" AND "))
            };
            let file = path.with_extension(format!("slice-{slice}"));
            copy(database, &added_up(&from, &start, rows), &file)?;
            files.push(file);
        }
        let list = files.iter().map(|file| text(file)).collect::<anyhow::Result<Vec<_>>>()?;
        copy(database, &format!("FROM read_parquet([{}])", list.join(", ")), path)?;
        for file in files {
            fs::remove_file(file)?;
        }
        Ok(File::open(path)?.sync_all()?)
    }
}

fn copy(database: &Database, sql: &str, path: &Path) -> anyhow::Result<()> {
    let to = text(path)?;
    database.execute(&format!(
        "COPY ({sql}) TO {to} \
         (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    ))
}

/// A path as a text of SQL.
fn text(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().context("a name that is no text")?;
    Ok(format!("'{}'", path.replace('\'', "''")))
}

/// Removes files of the same view that were made of other windows.
fn forget_others(hour: &Path, view: &str, probe: &str, name: &str) -> anyhow::Result<()> {
    let prefix = format!(".{view}-{probe}-");
    for entry in fs::read_dir(hour)?.flatten() {
        let other = entry.file_name();
        let rest = other.to_str().filter(|other| *other != name);
        let rest = rest.and_then(|other| other.strip_prefix(&prefix));
        // Another probe's id may begin with this one's.
        let numbers = |rest: &str| {
            rest.split('-').count() == 3
                && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
        };
        if rest.is_some_and(numbers) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn check_free(arguments: &Arguments, bytes: u64) -> anyhow::Result<()> {
    let status = rustix::fs::statvfs(&arguments.hour)?;
    let free = status.f_bavail.saturating_mul(status.f_frsize);
    let needed = bytes.saturating_add(u64::from(arguments.free_mib_min) * MIB);
    ensure!(free >= needed, "{}: too little free space", arguments.hour.display());
    Ok(())
}
