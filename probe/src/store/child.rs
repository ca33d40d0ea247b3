//! A round in a process of its own, seen by the one that started it.
//!
//! In: a [`Round`]. Out: its steps as they come, and how it ended.
//! Cost: a thread that waits for lines.
//! Invariants: nobody waits for it; it ends after its time, and with this value; what it said before its
//! end is heard, however it ended.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::tidy::{Round, Step, Tidied};
use crate::time::{monotonic_ns, ms};

/// Command of the program that runs a round.
pub const COMMAND: &str = "tidy-store";
/// Longest step: problems and names.
const STEP_OCTETS_MAX: u64 = 1 << 20;
/// Steps that wait to be looked at.
const STEPS_MAX: usize = 64;
/// The pipe of one that has ended is closed; who else holds it is not waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A round under way.
pub(super) struct Running {
    child: Child,
    steps: Receiver<Step>,
    until_ns: u64,
    /// The hour that it is at.
    at: Option<String>,
}

/// What a look at it showed.
#[derive(Debug, Default)]
pub(super) struct News {
    /// What was done, and at which hour.
    pub(super) done: Vec<(Option<String>, Tidied)>,
    /// Whether and how it ended.
    pub(super) ended: Option<Ended>,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All is done.
    Well,
    /// Why, and the hour that it was at.
    Badly(String, Option<String>),
}

impl Running {
    /// Starts `program` with it; it is ended after `time_ms`.
    pub(super) fn start(program: &Path, round: &Round, time_ms: u64) -> io::Result<Self> {
        let round = serde_json::to_vec(round)?;
        let mut command = Command::new(program);
        let command = command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (sender, steps) = bounded(STEPS_MAX);
        let until_ns = monotonic_ns().saturating_add(ms(time_ms));
        // From here on its end is seen to, whatever happens.
        let running = Self { child, steps, until_ns, at: None };
        let reader = std::thread::Builder::new().name("upkeep-steps".to_owned());
        reader.spawn(move || output.map(|output| read(output, &sender)))?;
        // It reads all before it does anything.
        input.map(|mut input| input.write_all(&round)).transpose()?;
        Ok(running)
    }

    /// What it told since the last look.
    pub(super) fn look(&mut self) -> News {
        let end = self.end();
        let mut done = Vec::new();
        loop {
            let step = match end {
                Some(_) => self.steps.recv_timeout(LAST_WORDS).ok(),
                None => self.steps.try_recv().ok(),
            };
            match step {
                Some(Step::At(hour)) => self.at = Some(hour),
                Some(Step::Done(tidied)) => done.push((self.at.take(), tidied)),
                None => break,
            }
        }
        let ended = end.map(|end| match end {
            Ok(()) => Ended::Well,
            Err(why) => Ended::Badly(why, self.at.take()),
        });
        News { done, ended }
    }

    fn end(&mut self) -> Option<Result<(), String>> {
        let why = match self.child.try_wait() {
            Ok(Some(status)) if status.success() => return Some(Ok(())),
            Ok(Some(status)) => return Some(Err(status.to_string())),
            Ok(None) if monotonic_ns() < self.until_ns => return None,
            Ok(None) => "it takes too long".to_owned(),
            Err(error) => error.to_string(),
        };
        self.kill();
        Some(Err(why))
    }

    /// Ends it.
    pub(super) fn kill(&mut self) {
        // Nothing happens to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Hands on what it says, until it says too much at once or nobody listens.
fn read(output: impl Read, steps: &Sender<Step>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = String::new();
        if !matches!(output.by_ref().take(STEP_OCTETS_MAX).read_line(&mut line), Ok(1..)) {
            return;
        }
        let step = serde_json::from_str(&line).unwrap_or_else(|error| {
            let problems = vec![format!("a round says what is no step: {error}")];
            Step::Done(Tidied { problems, ..Tidied::default() })
        });
        if steps.send(step).is_err() {
            return;
        }
    }
}
