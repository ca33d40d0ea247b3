//! An hour's windows added up in files.
//!
//! In: the folder of the hour, the probe. Out: a file of each [`RollUp`] beside the windows.
//! Cost: two passes over the windows; one thread, bounded memory and time.
//! Invariants: a file has its name once it is whole and on disk; what it was made of stands in the name. An
//! hour with too many conversations for the memory stays without; that the disk has no room is told from
//! what lies with the hour ([`NoRoom`]).

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;

use super::{
    FilesOf, HOUR_NS, MINUTE_NS, RollUp, TABLE, added_up, probe_and_number, start_of, talks, vms,
};
use crate::cell::Cell;
use crate::changes::{Changes, FACTS, first_row};
use crate::database::{Database, Limits, empty, is_out_of_memory, read};
use crate::deadline::Watch;
use crate::dialect::Dialect;
use crate::files::{self, OpenFile};
use crate::live;
use crate::warnings::Warnings;

/// Time for an hour.
const TIME_S_MAX: u32 = 900;
const MIB: u64 = 1 << 20;
/// Slices that the minutes of an hour are taken in.
const SLICES: u64 = 6;
/// Parts of the conversations of an hour, at most; each time that the memory does not suffice there are
/// [`PARTS_MORE`] times as many.
const PARTS_MAX: u32 = 64;
const PARTS_MORE: u32 = 4;

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
    let watch = Watch::in_s(TIME_S_MAX, false)?;
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
        stop: watch.stop(),
        threads: 1,
        keeps_order: true,
    };
    // An hour is added up by what can be read of the inventory.
    let warnings = Warnings::new(true);
    let facts = files::find(&root_of(&arguments.hour)?, "inventory inventory_now", &warnings)?;
    let database = Database::open_alone(&facts, limits, &warnings)?;
    // What an earlier version of the schema lacks is null.
    let windows = format!("(FROM {} UNION ALL BY NAME FROM {})", empty(TABLE), read(&windows));
    let path = |roll_up| arguments.hour.join(of.name(roll_up, &arguments.probe));
    let minutes = path(RollUp::Minutes);
    for roll_up in RollUp::ALL {
        let path = path(roll_up);
        let name = path.file_name().context("a name")?.to_owned();
        if !path.exists() {
            let hidden = arguments.work.join(&name);
            let minutes = text(&minutes).map(|minutes| format!("read_parquet({minutes})"));
            let made = match roll_up {
                RollUp::Minutes => Sum::of_windows(&windows).write(&database, &hidden),
                // They are made of the minutes.
                RollUp::Hours => {
                    minutes.and_then(|from| Sum::of_minutes(&from).write(&database, &hidden))
                }
                RollUp::Vms => {
                    minutes.and_then(|from| copy(&database, &vms::added_up(&from), &hidden))
                }
                RollUp::Talks => write_talks(&database, &windows, &hidden),
            };
            let made = made.and_then(|()| {
                File::open(&hidden)?.sync_all()?;
                Ok(fs::rename(&hidden, &path)?)
            });
            if let Err(error) = made {
                let _ = fs::remove_dir_all(&arguments.work);
                return Err(of_room(error).context(path.display().to_string()));
            }
        }
        forget_others(&arguments.hour, roll_up, &arguments.probe, &name)?;
    }
    // Where others work in it, it stays.
    let _ = fs::remove_dir(&arguments.work);
    Ok(File::open(&arguments.hour)?.sync_all()?)
}

/// The folder of the records that an hour's is in.
fn root_of(hour: &Path) -> anyhow::Result<PathBuf> {
    let hour = hour.canonicalize().with_context(|| hour.display().to_string())?;
    Ok(hour.ancestors().nth(3).context("an hour is in a day, that in a table")?.to_owned())
}

/// Conversations, in parts where they do not fit the memory.
fn write_talks(database: &Database, windows: &str, path: &Path) -> anyhow::Result<()> {
    database.execute(FACTS)?;
    let bounds = first_row(database, &Changes::bounds_sql(windows))?;
    let changes = Changes::find(database, Dialect::Duckdb, &bounds)?;
    let split = changes.held("window_start_ns", "window_end_ns");
    let part_of = |parts: u32, part: u32| {
        let rows = format!(
            "(SELECT * FROM {windows} WHERE hash(source_address, destination_address) % {parts} = {part})"
        );
        talks::added_up(&changes.with_instants(&rows), &split)
    };
    let mut parts = 1;
    loop {
        match in_parts(database, path, parts, |part| part_of(parts, part)) {
            Err(error) if is_out_of_memory(&error) && parts < PARTS_MAX => parts *= PARTS_MORE,
            other => return other,
        }
    }
}

/// Rows of each part by themselves, then all in one file.
fn in_parts(
    database: &Database,
    path: &Path,
    parts: u32,
    of: impl Fn(u32) -> String,
) -> anyhow::Result<()> {
    let files: Vec<_> =
        (0..parts).map(|part| path.with_extension(format!("part-{part}"))).collect();
    for (part, file) in (0..parts).zip(&files) {
        copy(database, &of(part), file)?;
    }
    let list = files.iter().map(|file| text(file)).collect::<anyhow::Result<Vec<_>>>()?;
    copy(database, &format!("FROM read_parquet([{}])", list.join(", ")), path)?;
    for file in files {
        fs::remove_file(file)?;
    }
    Ok(())
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

impl<'a> Sum<'a> {
    const fn of_windows(from: &'a str) -> Self {
        let (time, rows) = ("window_start_ns", "count(*)");
        Self { from, time, rows, interval_ns: MINUTE_NS, slices: SLICES }
    }

    const fn of_minutes(from: &'a str) -> Self {
        let (time, rows) = ("start_ns", "sum(own.row_count)");
        Self { from, time, rows, interval_ns: HOUR_NS, slices: 1 }
    }

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
        let parts = u32::try_from(slices)?;
        in_parts(database, path, parts, |slice| {
            let slice = u64::from(slice);
            let bound = |slice: u64| begin_ns.saturating_add(slice * HOUR_NS / slices);
            let mut inside = Vec::new();
            inside.extend((slice > 0).then(|| format!("{time} >= {}", bound(slice))));
            inside.extend((slice + 1 < slices).then(|| format!("{time} < {}", bound(slice + 1))));
            let from = if inside.is_empty() {
                from.to_owned()
            } else {
                format!("(SELECT * FROM {from} WHERE {})", inside.join(" AND "))
            };
            added_up(&from, &start, rows)
        })
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

/// Removes files of the same roll-up that were made of other windows, or by an earlier version.
fn forget_others(
    hour: &Path,
    roll_up: RollUp,
    probe: &str,
    name: &std::ffi::OsStr,
) -> anyhow::Result<()> {
    for entry in fs::read_dir(hour)?.flatten() {
        let other = entry.file_name();
        if other != name && other.to_str().is_some_and(|other| is_made_for(other, roll_up, probe)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether this is the name of a roll-up of a probe's windows, in any format.
fn is_made_for(name: &str, roll_up: RollUp, probe: &str) -> bool {
    let rest = name.strip_prefix('.').and_then(|rest| rest.strip_prefix(roll_up.name()));
    let rest = rest.map(|rest| {
        rest.strip_prefix('.')
            .map_or(rest, |rest| rest.trim_start_matches(|it: char| it.is_ascii_digit()))
    });
    let rest = rest.and_then(|rest| rest.strip_prefix('-')?.strip_prefix(probe)?.strip_prefix('-'));
    // Another probe's id may begin with this one's.
    rest.is_some_and(|rest| {
        rest.split('-').count() == 3
            && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    })
}

fn check_free(arguments: &Arguments, bytes: u64) -> anyhow::Result<()> {
    let status = rustix::fs::statvfs(&arguments.hour)?;
    let free = status.f_bavail.saturating_mul(status.f_frsize);
    let needed = bytes.saturating_add(u64::from(arguments.free_mib_min) * MIB);
    if free >= needed {
        return Ok(());
    }
    Err(NoRoom("too little free space".to_owned())).context(arguments.hour.display().to_string())
}

/// The disk has no room: it is tried again.
#[derive(Debug)]
pub(crate) struct NoRoom(String);

impl std::fmt::Display for NoRoom {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for NoRoom {}

/// An error of DuckDB by what the system said to it.
fn of_room(error: anyhow::Error) -> anyhow::Error {
    let said = error.to_string();
    if said.contains("No space left on device") { NoRoom(said).into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roll_ups_of_other_windows_and_versions_are_known() {
        for name in [".windows_1m.2-p-1-2-3", ".windows_1m-p-1-2-3", ".windows_1m.17-p-4-5-6"] {
            assert!(is_made_for(name, RollUp::Minutes, "p"), "{name}");
            assert!(!is_made_for(name, RollUp::Hours, "p"), "{name}");
        }
        for name in [".windows_1m.2-p-q-1-2-3", ".windows_1m.2-p-1-2", "windows_1m.2-p-1-2-3"] {
            assert!(!is_made_for(name, RollUp::Minutes, "p"), "{name}");
        }
    }
}
