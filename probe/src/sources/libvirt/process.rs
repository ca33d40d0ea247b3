//! Children that are kept short: in time, in what they may say, and in how they end.
//!
//! In: a command of virsh. Out: what it says, or its events as they come.
//! Cost: a process and two threads for each question.
//! Invariants: no child outlives what holds it, nor do its own children (ssh): the whole group is killed.
//! What a child says beyond its limit is not kept. Its texts are English, whatever the system's language.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use crossbeam::channel::{self, Receiver, RecvTimeoutError};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::config::LibvirtPlan;
use crate::sources::handle::SourceHandle;
use crate::time::{Timestamp, monotonic_ns, ms, sleep_ms, wall_clock};

/// What is kept of an answer at most; a domain's description has some thousand bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// What is kept of errors at most.
const ERROR_BYTES_MAX: u64 = 2_048;
/// Longest line of an event.
const LINE_BYTES_MAX: u64 = 4_096;
/// Events that wait at most; what they are about is read anew anyway.
const EVENTS_MAX: usize = 64;
/// How often a child is looked after.
const LOOK_MS: u64 = 5;
/// How often one that says no more is looked after before it is ended.
const END_LOOKS: u32 = 40;
/// What a child may see of the probe's environment: where programs and keys are.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "USER", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK"];

/// Why libvirt gives no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The program cannot be started.
    #[error("{program} does not start: {error}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        error: std::io::Error,
    },
    /// It took too long.
    #[error("no answer in timeout_ms")]
    Timeout,
    /// It said too much.
    #[error("an answer was too large")]
    TooLarge,
    /// It is not UTF-8 text.
    #[error("an answer was no text")]
    NotText,
    /// It said that it failed.
    #[error("{0}")]
    Failed(String),
    /// The probe ends.
    #[error("the probe ends")]
    Stopping,
}

/// A child that ends with this.
struct Held {
    child: Child,
    /// It was waited for, so its number may be another one's.
    waited_for: bool,
}

impl Held {
    fn number(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Whether it has ended. It is not waited for, so its number stays its own.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = self.number().map(|number| waitid(WaitId::Pid(number), options));
        !matches!(status, Some(Ok(None)))
    }

    /// Ends it, if it has not ended, and all of its own children, which may hold its pipes open.
    fn end(&mut self) -> Option<ExitStatus> {
        if let Some(number) = self.number().filter(|_| !self.waited_for) {
            let _ = kill_process_group(number, Signal::KILL);
        }
        self.waited_for = true;
        self.child.wait().ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(plan: &LibvirtPlan, arguments: &[&str]) -> Result<Held, Trouble> {
    let mut command = Command::new(&plan.program);
    command.env_clear().env("LC_ALL", "C").process_group(0);
    command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.args(["--readonly", "--quiet", "--connect", &plan.uri]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command
        .spawn()
        .map_err(|error| Trouble::Start { program: plan.program.display().to_string(), error })?;
    Ok(Held { child, waited_for: false })
}

/// Reads all, but keeps at most one byte more than allowed and reads no further then.
fn reader(from: Option<impl Read + Send + 'static>, bytes_max: u64) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            // What was read before an error is all that there is.
            let _ = from.take(bytes_max + 1).read_to_end(&mut bytes);
        }
        bytes
    })
}

fn text(reader: JoinHandle<Vec<u8>>) -> Result<String, Trouble> {
    let bytes = reader.join().unwrap_or_default();
    if bytes.len() as u64 > ANSWER_BYTES_MAX {
        return Err(Trouble::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_| Trouble::NotText)
}

/// The last line of errors, which is the most specific one.
fn error_text(reader: JoinHandle<Vec<u8>>) -> String {
    let bytes = reader.join().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    line.trim_start_matches("error: ").to_owned()
}

/// What a command says. A failure of one of several commands (a domain that is gone meanwhile) is none
/// where the last one succeeds.
pub(super) fn ask(
    plan: &LibvirtPlan,
    arguments: &[&str],
    handle: &SourceHandle,
) -> Result<String, Trouble> {
    let mut held = spawn(plan, arguments)?;
    let said = reader(held.child.stdout.take(), ANSWER_BYTES_MAX);
    let errors = reader(held.child.stderr.take(), ERROR_BYTES_MAX);
    let end_ns = monotonic_ns() + ms(plan.timeout_ms.into());
    while !held.has_ended() {
        if handle.is_stopping() {
            return Err(Trouble::Stopping);
        }
        if monotonic_ns() >= end_ns {
            return Err(Trouble::Timeout);
        }
        sleep_ms(LOOK_MS);
    }
    let status = held.end();
    let said = text(said)?;
    if status.is_some_and(|status| status.success()) {
        Ok(said)
    } else {
        Err(Trouble::Failed(error_text(errors)))
    }
}

/// Events as they come.
pub(super) struct Events {
    held: Held,
    came: Receiver<Timestamp>,
    errors: Option<JoinHandle<Vec<u8>>>,
}

/// What came of waiting for an event.
pub(super) enum Came {
    /// At least one event; the first one was then.
    Event(Timestamp),
    /// None.
    Nothing,
}

impl Events {
    /// Begins to listen.
    pub(super) fn listen(plan: &LibvirtPlan) -> Result<Self, Trouble> {
        let mut held = spawn(plan, &["event", "--loop", "--all"])?;
        let (into, came) = channel::bounded(EVENTS_MAX);
        let lines = held.child.stdout.take();
        std::thread::spawn(move || {
            let Some(lines) = lines else { return };
            let mut lines = BufReader::new(lines);
            let mut line = Vec::new();
            loop {
                line.clear();
                let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
                if read.unwrap_or(0) == 0 {
                    return;
                }
                if matters(&line)
                    && into.try_send(wall_clock()).is_err_and(|full| full.is_disconnected())
                {
                    return;
                }
            }
        });
        let errors = Some(reader(held.child.stderr.take(), ERROR_BYTES_MAX));
        Ok(Self { held, came, errors })
    }

    /// Waits for events.
    pub(super) fn wait(&mut self, wait_ms: u64) -> Result<Came, Trouble> {
        match self.came.recv_timeout(std::time::Duration::from_millis(wait_ms)) {
            Ok(first) => {
                // All that came meanwhile is read at once.
                while self.came.try_recv().is_ok() {}
                Ok(Came::Event(first))
            }
            Err(RecvTimeoutError::Timeout) => Ok(Came::Nothing),
            Err(RecvTimeoutError::Disconnected) => {
                // Nothing more is said, but what it says of the reason may still come.
                for _ in 0..END_LOOKS {
                    if self.held.has_ended() {
                        break;
                    }
                    sleep_ms(LOOK_MS);
                }
                self.held.end();
                let why = self.errors.take().map(error_text);
                Err(Trouble::Failed(why.unwrap_or_default()))
            }
        }
    }
}

/// Whether an event is of what the inventory holds: `event 'lifecycle' for domain 'web': Started Booted`.
fn matters(line: &[u8]) -> bool {
    const KINDS: [&str; 4] = ["lifecycle", "device-added", "device-removed", "metadata-change"];
    let line = String::from_utf8_lossy(line);
    KINDS.iter().any(|kind| line.contains(&format!("event '{kind}'")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::SourceKind;
    use crate::sources::handle::{Inbox, SourceSpec};

    fn handle() -> SourceHandle {
        let kind = SourceKind::Libvirt;
        let spec = SourceSpec { kind, name: "libvirt:a".to_owned(), rank: 0, stale_after_ms: None };
        Inbox::new(std::sync::Arc::default()).register(spec, Timestamp(1)).expect("room")
    }

    /// A program that does that instead of virsh.
    fn plan(script: &str) -> (std::path::PathBuf, LibvirtPlan) {
        use std::os::unix::fs::PermissionsExt as _;
        let number = monotonic_ns();
        let path = std::env::temp_dir().join(format!("virsh-{}-{number}", std::process::id()));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&path, mode).expect("its owner");
        let mut plan = LibvirtPlan::new("a".to_owned(), "test:///default".to_owned());
        plan.program = path.clone();
        plan.timeout_ms = 300;
        (path, plan)
    }

    /// `timeout_ms` is for one that ends long before, or never.
    fn asked(script: &str, timeout_ms: u32) -> Result<String, String> {
        let (path, mut plan) = plan(script);
        plan.timeout_ms = timeout_ms;
        let said = ask(&plan, &["list"], &handle());
        std::fs::remove_file(path).expect("the file");
        said.map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn a_child_is_bounded_in_all_it_does() {
        let answer = |script| asked(script, 60_000);
        let said = answer("echo $* $LC_ALL");
        assert_eq!(said.as_deref(), Ok("--readonly --quiet --connect test:///default list C\n"));
        assert_eq!(answer("echo 'error: a' >&2; echo 'error: b' >&2; exit 1"), Err("b".to_owned()));
        assert_eq!(answer("exit 3"), Err("no reason given".to_owned()));
        assert_eq!(answer("printf '\\377'"), Err("an answer was no text".to_owned()));
        assert_eq!(asked("sleep 60 & sleep 60", 300), Err("no answer in timeout_ms".to_owned()));
    }

    #[test]
    fn a_program_that_is_not_there_is_said() {
        let (path, plan) = plan("true");
        std::fs::remove_file(path).expect("the file");
        let trouble = ask(&plan, &[], &handle()).expect_err("no program").to_string();
        assert!(trouble.contains("does not start: No such file"), "{trouble}");
    }

    #[test]
    fn events_come_until_the_program_ends() {
        let (path, mut plan) = plan(
            "echo \"event 'rtc-change' for domain 'a': 1\"\n\
             echo \"event 'lifecycle' for domain 'a': Started Booted\"\n\
             head -c 20000 /dev/zero\necho 'error: gone' >&2",
        );
        plan.timeout_ms = 5_000;
        let mut events = Events::listen(&plan).expect("it starts");
        assert!(matches!(events.wait(5_000), Ok(Came::Event(_))));
        let ended = events.wait(5_000).err().map(|trouble| trouble.to_string());
        assert_eq!(ended.as_deref(), Some("gone"));
        std::fs::remove_file(path).expect("the file");
    }
}
