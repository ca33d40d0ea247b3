//! The time that the whole command may take.
//!
//! In: seconds. Out: what is left of them, and the end of the command once nothing is.
//! Cost: a thread that sleeps.
//! Invariants: all that a command does shares one; so what it does first leaves less for what comes after.
//! It begins before anything is waited for: a disk, a probe, a server, or whoever writes the standard
//! input or reads the answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::anyhow;

/// How long after the time limit the program ends by force where what it does can stop by itself: DuckDB looks
/// now and then whether it shall, and a server that is silent is told of before.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How often DuckDB is told meanwhile: what is told between two statements is forgotten.
const TOLD_AGAIN: Duration = Duration::from_millis(100);

/// From when on, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    begun: Instant,
    time: Duration,
}

impl Deadline {
    /// Begins now.
    #[expect(clippy::disallowed_methods, reason = "a limit of real time; no record depends on it")]
    fn in_s(seconds: u32) -> Self {
        Self { begun: Instant::now(), time: Duration::from_secs(seconds.into()) }
    }

    /// What is left; zero when it is over.
    pub(crate) fn left(&self) -> Duration {
        self.time.saturating_sub(self.begun.elapsed())
    }

    /// The limit, in seconds.
    pub(crate) fn seconds(&self) -> u64 {
        self.time.as_secs()
    }
}

/// Ends the command when its time is over; dropped where it ends by itself.
pub(crate) struct Watch {
    stop: Stop,
    _done: Sender<()>,
}

/// Whether the command's time is over, and what it does that can be told so.
#[derive(Clone)]
pub(crate) struct Stop(Arc<Shared>);

struct Shared {
    deadline: Deadline,
    is_over: AtomicBool,
    interrupt: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Watch {
    /// Begins now. A server may be late beyond the limit, for it is waited for a little longer than it is told to
    /// take; all else ends then, unless it can be told.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub(crate) fn in_s(seconds: u32, asks_server: bool) -> std::io::Result<Self> {
        let (sender, done) = channel();
        let stop = Stop(Arc::new(Shared {
            deadline: Deadline::in_s(seconds),
            is_over: AtomicBool::new(false),
            interrupt: OnceLock::new(),
        }));
        let told = stop.clone();
        std::thread::Builder::new()
            .name("time limit".to_owned())
            .spawn(move || told.watch(&done, asks_server))?;
        Ok(Self { stop, _done: sender })
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.stop.0.deadline
    }

    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }
}

impl Stop {
    /// What stops the work that begins now. It is called more than once.
    ///
    /// # Errors
    /// The time is over.
    pub(crate) fn by(&self, interrupt: impl Fn() + Send + Sync + 'static) -> anyhow::Result<()> {
        // A command has one database.
        let _ = self.0.interrupt.set(Box::new(interrupt));
        self.check()
    }

    /// An error once work was stopped: what it gave by then may be anything.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.is_over() { Err(self.too_slow()) } else { Ok(()) }
    }

    /// Whether work was stopped.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::SeqCst)
    }

    /// The same in words.
    pub(crate) fn too_slow(&self) -> anyhow::Error {
        let seconds = self.0.deadline.seconds();
        anyhow!("stopped after {seconds} s (--timeout-s sets the limit)")
    }

    fn watch(&self, done: &Receiver<()>, asks_server: bool) {
        let timeout = Err(RecvTimeoutError::Timeout);
        if done.recv_timeout(self.0.deadline.left()) != timeout {
            return;
        }
        self.0.is_over.store(true, Ordering::SeqCst);
        let mut grace = STOP_GRACE;
        while !grace.is_zero() && (asks_server || self.0.interrupt.get().is_some()) {
            if let Some(interrupt) = self.0.interrupt.get() {
                interrupt();
            }
            if done.recv_timeout(TOLD_AGAIN) != timeout {
                return;
            }
            grace = grace.saturating_sub(TOLD_AGAIN);
        }
        eprintln!("vmprobe-query: {}", self.too_slow());
        std::process::exit(1);
    }
}
