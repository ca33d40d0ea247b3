//! The built programs as processes.

#![expect(clippy::disallowed_types, reason = "no packet path here; a log is shared by two threads")]

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use vmprobe::time::{monotonic_ns, sleep_ms};

/// A program that `scripts/test` has built beside this test, if it is there.
pub fn built(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a running program knows where it is");
    // target/PROFILE/deps/TEST-HASH
    let path = test.parent().and_then(Path::parent).map(|profile| profile.join(name))?;
    path.is_file().then_some(path)
}

/// The probe.
pub fn vmprobe() -> PathBuf {
    built("vmprobe").expect("vmprobe is not built: `cargo build --workspace` first, same profile")
}

/// Whether this test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Those of `tools` that are neither in PATH nor files themselves.
pub fn missing_tools<'a>(tools: &[&'a str]) -> Vec<&'a str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    tools.iter().copied().filter(|tool| !there(tool)).collect()
}

/// Waits until `check` gives something; `None` after `seconds`.
pub fn until<T>(seconds: u64, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let end_ns = monotonic_ns() + seconds * 1_000_000_000;
    loop {
        if let Some(found) = check() {
            return Some(found);
        }
        if monotonic_ns() > end_ns {
            return None;
        }
        sleep_ms(20);
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub log: String,
}

impl Ended {
    /// The last line of standard output.
    pub fn json(&self) -> Json {
        let last = self.output.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {last:?}\n{}", self.log))
    }

    /// Panics unless it ended with `code` and said all of `words` on standard error.
    pub fn expect(&self, code: i32, words: &[&str]) -> &Self {
        let Self { output, log, .. } = self;
        assert_eq!(self.code, Some(code), "exit code\n{output}\n{log}");
        for word in words {
            assert!(log.contains(word), "{word:?} is missing in\n{log}");
        }
        assert!(!log.contains("panicked"), "{log}");
        self
    }
}

/// A running process whose output is collected; killed when dropped.
#[derive(Debug)]
pub struct Probe {
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Option<(JoinHandle<String>, JoinHandle<()>)>,
}

impl Probe {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut output = child.stdout.take().expect("it is piped");
        let errors = child.stderr.take().expect("it is piped");
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = output.read_to_string(&mut text);
            text
        });
        let log = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&log);
        let log_reader = std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let mut log = to.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log, readers: Some((output, log_reader)) }
    }

    /// What it has said on standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it receives; the answer is the address of its page, if it has one.
    pub fn receiving(&mut self) -> Option<String> {
        let line = self.said("receiving", 60);
        let address = line.split("page at http://").nth(1)?;
        Some(address.trim_end_matches('/').to_owned())
    }

    /// Waits for a line with `words` on standard error.
    pub fn said(&mut self, words: &str, seconds: u64) -> String {
        let found = until(seconds, || {
            let line = self.log().lines().find(|line| line.contains(words)).map(str::to_owned);
            let ended = self.child.try_wait().expect("it is our child").is_some();
            assert!(line.is_some() || !ended, "it ended before {words:?}:\n{}", self.log());
            line
        });
        found.unwrap_or_else(|| panic!("no {words:?} in {seconds} s:\n{}", self.log()))
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP: the configuration is read again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process(pid.expect("a process has a number"), signal);
    }

    /// Waits for its end.
    pub fn end(mut self, seconds: u64) -> Ended {
        let status = until(seconds, || self.child.try_wait().expect("it is our child"));
        let Some(status) = status else {
            panic!("it does not end within {seconds} s:\n{}", self.log());
        };
        let (output, log) = self.readers.take().expect("read once");
        let output = output.join().expect("the reader does not panic");
        log.join().expect("the reader does not panic");
        Ended { code: status.code(), output, log: self.log() }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end, at most two minutes.
pub fn run_to_end(command: Command) -> Ended {
    Probe::start(command).end(120)
}
