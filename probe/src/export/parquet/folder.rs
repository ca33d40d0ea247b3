//! The folder of the records: its names, and the lock of those who change it.
//!
//! In: a table, a probe, an hour, a name. Out: paths, or what a name says; a lock.
//! Invariants: who adds a file holds the lock shared, from the first octet to its name; who takes
//! files away or puts others in their place holds it alone, and for no longer than that takes.
//! Readers need none.
//! Source: `flock`(2), on the folder itself, so that nothing of a lock is left behind or copied.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::record::Table;
use crate::time::sleep_ms;

/// Seconds of an hour.
const HOUR_S: u64 = 3_600;
/// How often the lock is tried, a millisecond apart. Nobody holds it alone for longer than a few.
const LOCK_TRIES: u32 = 2_000;

/// A probe's id as it stands in names. Configuration allows no other characters; a name with `/`
/// would leave the folder.
pub fn safe_id(probe_id: &str) -> String {
    let safe = |character: char| {
        let allowed = character.is_ascii_alphanumeric() || "-_.".contains(character);
        if allowed { character } else { '_' }
    };
    probe_id.chars().map(safe).collect()
}

/// Where a probe merges files of a store, and keeps those that others have taken the place of until it has
/// removed them. Nobody looks there: readers leave out names that begin with a dot, and it is not in the
/// hour's folder or beside it, so that no pattern with `*` in the place of day and hour finds it.
pub fn hidden(root: &Path, safe_id: &str) -> PathBuf {
    root.join(format!(".compact-{safe_id}"))
}

/// Where hours of a probe are added up; apart from the merging that goes on beside it.
pub fn hidden_roll_ups(root: &Path, safe_id: &str) -> PathBuf {
    root.join(format!(".roll-up-{safe_id}"))
}

/// How the names of a probe's files of a table begin; the two numbers of [`numbers`] follow.
pub fn prefix(table: Table, safe_id: &str) -> String {
    format!("{}-{safe_id}-", table.name())
}

/// Name of a file.
pub fn file_name(prefix: &str, start_ns: u64, number: u64) -> String {
    format!("{prefix}{start_ns}-{number}.parquet")
}

/// First instant and number of a file whose name begins so; `None` for any other file. Another
/// probe's id may begin with this one's, so nothing but the two numbers may follow.
pub fn numbers(name: &str, prefix: &str) -> Option<(u64, u64)> {
    two_numbers(name.strip_prefix(prefix)?.strip_suffix(".parquet")?)
}

/// `123-4`.
pub(super) fn two_numbers(text: &str) -> Option<(u64, u64)> {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse().ok() } else { None }
    };
    let (start_ns, place) = text.split_once('-')?;
    Some((number(start_ns)?, number(place)?))
}

/// Folder of an hour since the epoch.
pub fn hour_folder(root: &Path, table: Table, hour: u64) -> PathBuf {
    let seconds = i64::try_from(hour.saturating_mul(HOUR_S)).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    root.join(table.name())
        .join(time.format("%Y-%m-%d").to_string())
        .join(time.format("%H").to_string())
}

/// The hour since the epoch of a folder `<day>/<hour>`; `None` for other names.
pub fn hour_of(day: &str, hour: &str) -> Option<u64> {
    let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
    let hour = hour.parse().ok().filter(|_| hour.len() == 2)?;
    let seconds = day.and_hms_opt(hour, 0, 0)?.and_utc().timestamp();
    u64::try_from(seconds).ok().map(|seconds| seconds / HOUR_S)
}

/// A lock of the folder; it ends with this value, or with the process.
#[derive(Debug)]
#[must_use = "dropped, it is open again"]
pub struct FolderLock {
    _folder: Option<File>,
}

/// For those who add files: any number at a time. Where the file system has no locks there is
/// nothing to wait for, because then nobody can have it alone.
///
/// # Errors
/// The system's; `WouldBlock` where somebody has had it alone for seconds.
pub fn lock_shared(root: &Path) -> io::Result<FolderLock> {
    match lock(root, FlockOperation::NonBlockingLockShared) {
        Err(error) if no_locks(&error) => Ok(FolderLock { _folder: None }),
        other => other,
    }
}

/// For those who take files away: one alone.
///
/// # Errors
/// The system's; `WouldBlock` where files have been added for seconds on end.
pub fn lock_alone(root: &Path) -> io::Result<FolderLock> {
    lock(root, FlockOperation::NonBlockingLockExclusive)
}

fn lock(root: &Path, operation: FlockOperation) -> io::Result<FolderLock> {
    let folder = File::open(root)?;
    for _ in 1..LOCK_TRIES {
        match flock(&folder, operation) {
            Ok(()) => return Ok(FolderLock { _folder: Some(folder) }),
            Err(Errno::WOULDBLOCK | Errno::INTR) => sleep_ms(1),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn no_locks(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::BADF | Errno::INVAL | Errno::NOSYS | Errno::NOLCK | Errno::OPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        let prefix = prefix(Table::Flows, "p");
        assert_eq!(numbers(&file_name(&prefix, 7, 2), &prefix), Some((7, 2)));
        for other in [
            "flows-p-1-7-2.parquet",
            "flows-p-7.parquet",
            "flows-p-+7-2.parquet",
            "flows-p-7-2",
            "flows-p--2.parquet",
            "windows-p-7-2.parquet",
            "flows-p-99999999999999999999-0.parquet",
        ] {
            assert_eq!(numbers(other, &prefix), None, "{other}");
        }
    }

    #[test]
    fn hours_come_back_from_their_folders() {
        for hour in [0, 23, 472_222, 5_124_095] {
            let folder = hour_folder(Path::new("x"), Table::Flows, hour);
            let names: Vec<_> = folder.iter().filter_map(|name| name.to_str()).collect();
            assert_eq!(hour_of(names[2], names[3]), Some(hour));
        }
        for (day, hour) in
            [("2026-13-01", "00"), ("2026-01-01", "24"), ("1969-12-31", "23"), ("x", "00")]
        {
            assert_eq!(hour_of(day, hour), None, "{day} {hour}");
        }
        assert_eq!(hour_of("2026-01-01", "0"), None);
    }

    #[test]
    fn one_alone_waits_for_those_who_add() {
        let folder = std::env::temp_dir().join(format!("vmprobe-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let one = lock_shared(&folder).expect("a lock");
        let two = lock_shared(&folder).expect("a lock");
        let locked =
            |operation| flock(File::open(&folder).expect("it is there"), operation).is_err();
        assert!(locked(FlockOperation::NonBlockingLockExclusive));
        drop((one, two));
        let alone = lock_alone(&folder).expect("a lock");
        assert!(locked(FlockOperation::NonBlockingLockShared));
        drop(alone);
        std::fs::remove_dir(&folder).expect("it is empty");
    }
}
