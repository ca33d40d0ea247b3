//! The probe that writes into the folder, if it runs.
//!
//! In: the folder. Out: all rows that it has are in files; this process is out of its workers' way.
//! Cost: the probe closes its open files, at most once a second; nothing where none runs.
//! Invariants: an answer is waited for as long as [`PATIENCE`], and for half of what is left to the command at
//! most; without one the query sees what is in files, and says so.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value as Json;

use crate::deadline::Deadline;
use crate::warnings::Warnings;

/// How long the probe may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Length of an answer.
const ANSWER_OCTETS_MAX: u64 = 1 << 16;
/// Threads of a query at most.
const THREADS_MAX: usize = 4;
/// Priority of a query: a tenth of the time of whoever wants the same core.
const NICE: i32 = 10;
/// The lowest priority there is.
const NICE_LAST: i32 = 19;

/// Asks every probe that writes into the folder to put what it has into files, and stays off the
/// cores of its workers.
pub(crate) fn ask(folder: &Path, deadline: Deadline, warnings: &Warnings) {
    let names = sockets(folder).unwrap_or_else(|error| {
        // Where there is no folder, whoever reads it says so.
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            warnings.tell_newest_unknown("sockets", &error.to_string());
        }
        Vec::new()
    });
    for name in names {
        match connect(folder, &name) {
            Ok(stream) => ask_one(&name, &stream, deadline, warnings),
            // Nobody listens.
            Err(error) if is_left_over(&error) => {}
            // Of another user, say: a probe may run, or have left it over.
            Err(error) => warnings.tell_newest_unknown(&name, &error.to_string()),
        }
    }
}

fn ask_one(name: &str, stream: &UnixStream, deadline: Deadline, warnings: &Warnings) {
    match answer(stream, deadline) {
        Ok(answer) => {
            if let Some(problem) = answer.get("problem").and_then(Json::as_str) {
                warnings.tell_newest_missing(name, problem);
            }
            stay_on(answer.get("cores"));
        }
        Err(error) => warnings.tell_newest_missing(name, &format!("{error:#}")),
    }
}

/// Gives way to whoever wants the same core.
pub(crate) fn stand_back() {
    // Where it is not granted the query runs all the same.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Ends with the process that started it, and gives way to all others.
pub(crate) fn end_with_parent() {
    use rustix::process::{Signal, set_parent_process_death_signal, setpriority_process};
    // Where it is not granted the work is done all the same.
    let _ = setpriority_process(None, NICE_LAST);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Threads for a query on the cores that are left to it.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Names of the sockets in the folder.
fn sockets(folder: &Path) -> io::Result<Vec<String>> {
    let is_socket = |name: &String| {
        name.strip_prefix(".live-").is_some_and(|rest| rest.strip_suffix(".sock").is_some())
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string().ok().filter(is_socket));
    }
    names.sort();
    Ok(names)
}

fn is_left_over(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn connect(folder: &Path, name: &str) -> io::Result<UnixStream> {
    // A socket's address has room for a hundred octets, and a folder's name for more.
    let folder = File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

fn answer(mut stream: &UnixStream, deadline: Deadline) -> anyhow::Result<Json> {
    let patience = PATIENCE.min(deadline.left() / 2);
    ensure!(!patience.is_zero(), "there was no time left to ask it");
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"flush\n").context("the probe does not listen")?;
    let mut line = String::new();
    let read = BufReader::new(stream.take(ANSWER_OCTETS_MAX)).read_line(&mut line);
    read.context("the probe does not answer")?;
    serde_json::from_str(&line).context("the probe does not answer")
}

/// Keeps this thread, and those that it starts, on the cores that the answer names, as far as they
/// are allowed.
fn stay_on(cores: Option<&Json>) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut chosen = CpuSet::new();
    let named = cores.and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_u64);
    for core in named.filter_map(|core| usize::try_from(core).ok()) {
        if core < CpuSet::MAX_CPU && allowed.is_set(core) {
            chosen.set(core);
        }
    }
    if chosen.count() > 0 {
        // Where it is not granted the priority must do.
        let _ = sched_setaffinity(None, &chosen);
    }
}
