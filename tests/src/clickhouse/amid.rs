//! The moment in which a ClickHouse has written down that it has a batch, but has not got it.
//!
//! In: the process and the folder of a server. Out: the process, stopped outside of that moment.
//! Source: docs/sinks/clickhouse.md, "Delivery"; the server writes a token to `deduplication_logs`, then renames
//! the part.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::START_S;
use crate::end_to_end::until;

/// So often it is let go on before it is killed all the same.
const AMID_MAX: u32 = 1_000;

/// Stops a server outside of that moment.
pub(super) fn halt_outside(server: u32, data: &Path) {
    for _ in 0..AMID_MAX {
        halt(server);
        if !is_amid(data) {
            return;
        }
        eprintln!("ClickHouse is amid storing a part, and goes on for a millisecond");
        signal(server, Signal::CONT);
        thread::sleep(Duration::from_millis(1));
    }
}

fn signal(process: u32, signal: Signal) {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).expect("an id");
    kill_process(id, signal).expect("it is there");
}

/// Stops a process, all its threads.
fn halt(process: u32) {
    signal(process, Signal::STOP);
    let stopped = || {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let is_stopped = |task: fs::DirEntry| {
            // Behind the name, which is in brackets and may have any signs.
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
        };
        tasks.flatten().all(is_stopped).then_some(())
    };
    assert!(until(START_S, stopped).is_some(), "{process} does not stop");
}

/// Whether a table of a stopped server has written down that it has a batch, but not yet renamed the part
/// that the batch is in. The log of each table is written while its parts are locked, so only its last line
/// may be of such a part.
fn is_amid(data: &Path) -> bool {
    let folders = |of: &Path| {
        let entries = fs::read_dir(of).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let tables = folders(&data.join("store"));
    let mut tables = tables.iter().flat_map(|beginning| folders(beginning));
    tables.any(|table| {
        let number = |log: &PathBuf| {
            let name = log.file_stem()?.to_str()?.rsplit_once('_')?.1.parse::<u64>().ok();
            name.map(|number| (number, log.clone()))
        };
        let logs = folders(&table.join("deduplication_logs"));
        let last = logs.iter().filter_map(number).max();
        let Some((_, last)) = last else { return false };
        let said = fs::read_to_string(last).unwrap_or_default();
        let part = said.lines().next_back().and_then(|line| line.strip_prefix("1\t"));
        let Some(part) = part.and_then(|line| block(line.split('\t').next()?)) else {
            return false;
        };
        let names = folders(&table);
        let names = names.iter().filter_map(|it| it.file_name()?.to_str());
        !names.filter_map(block).any(|it| it.0 == part.0 && it.1 <= part.1 && part.2 <= it.2)
    })
}

/// Partition, first and last block of a part, by its name.
fn block(part: &str) -> Option<(&str, u64, u64)> {
    let mut words = part.splitn(4, '_');
    let (partition, first, last) = (words.next()?, words.next()?, words.next()?);
    words.next()?;
    Some((partition, first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn a_part_that_is_told_and_not_there_is_seen() {
        let folder = Folder::new("amid");
        let log = "data/store/abc/abcdef/deduplication_logs/deduplication_log_";
        let is_amid = || is_amid(&folder.path("data"));
        assert!(!is_amid());
        let part = |name: &str| {
            fs::create_dir_all(folder.path("data/store/abc/abcdef").join(name)).expect("a folder");
        };
        part("deduplication_logs");
        folder.write(&format!("{log}9.txt"), "1\t20260101_3_3_0\tx\n");
        assert!(is_amid());
        part("20260101_3_3_0");
        assert!(!is_amid());
        folder.write(&format!("{log}10.txt"), "1\t20260101_3_3_0\tx\n1\t20260101_4_4_0\ty\n");
        assert!(is_amid());
        part("tmp_insert_20260101_4_4_0");
        part("20260102_4_4_0");
        assert!(is_amid());
        // Merged with others since.
        part("20260101_1_5_1");
        assert!(!is_amid());
        folder.write(&format!("{log}10.txt"), "1\t20260101_6_6_0\tx\n2\t20260101_6_6_0\tx\n");
        assert!(!is_amid());
    }
}
