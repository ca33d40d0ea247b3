//! The door by which a query asks for what is not in a file yet.
//!
//! In: a line `flush` over a socket in the folder of the records. Out: once all rows are in files,
//! a line of JSON: whether they are, why not, and the cores that are not the workers'.
//! Cost: a thread that sleeps; the store's thread closes its files, at most once in
//! [`FLUSH_REST_MS`]: who asks sooner waits for that, and all who wait have one answer.
//! Invariants: a question, and the store, are waited for [`PATIENCE_MS`] at most; nothing but this can be
//! asked; the socket is there while the run lasts, and what a crash leaves of it is refused by the system.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use serde_json::{Value as Json, json};

use crate::cores;
use crate::time::{monotonic_ns, ms, sleep_ms};

/// Between two times that files are closed early: who asks all the time makes no flood of small files.
const FLUSH_REST_MS: u64 = 1_000;
/// How often, meanwhile, it is looked whether the run ends.
const LOOK_MS: u64 = 20;
/// How many have one answer.
const ASKING_MAX: usize = 64;
/// How long a question, or the answer of the store, is waited for.
const PATIENCE_MS: u64 = 2_000;
/// Length of a question.
const QUESTION_OCTETS_MAX: u64 = 16;
/// After a failure of the system to take in a question.
const FAILURE_REST_MS: u64 = 200;

/// A question: whoever closes the files answers it.
pub(super) type Ask = Sender<Flushed>;

/// Whether all rows are in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flushed {
    /// Why not.
    pub(super) problem: Option<String>,
}

/// The open door.
pub(super) struct Door {
    socket: PathBuf,
    ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Name of the socket of a probe.
pub fn socket_name(safe_id: &str) -> String {
    format!(".live-{safe_id}.sock")
}

/// Opens it.
///
/// # Errors
/// The system's, where the folder takes no sockets.
pub(super) fn open(root: &Path, safe_id: &str) -> io::Result<(Door, Receiver<Ask>)> {
    let socket = root.join(socket_name(safe_id));
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A socket's address has room for a hundred octets, and a folder's name for more.
    let folder = File::open(root)?;
    let address = short(&folder, safe_id);
    let listener = UnixListener::bind(&address)?;
    let (sender, asks) = bounded(1);
    let ending = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ending);
    let thread = std::thread::Builder::new()
        .name("store-live".to_owned())
        .spawn(move || listen(&listener, &sender, &told))?;
    Ok((Door { socket, ending, thread }, asks))
}

impl Door {
    /// Closes it.
    pub(super) fn close(self) {
        self.ending.store(true, Ordering::Relaxed);
        let woken = self.socket.parent().map(File::open).and_then(Result::ok).and_then(|folder| {
            let name = self.socket.file_name()?;
            let address = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
            UnixStream::connect(address.join(name)).map(drop).ok()
        });
        // Where the socket is gone nobody can wake it, and it goes with the process.
        if woken.is_some() {
            let _ = self.thread.join();
        }
        let _ = fs::remove_file(self.socket);
    }
}

fn short(folder: &File, safe_id: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), socket_name(safe_id)))
}

fn listen(listener: &UnixListener, asks: &Sender<Ask>, ending: &AtomicBool) {
    let is_ending = || ending.load(Ordering::Relaxed);
    let mut flushed_ns = None;
    while !is_ending() {
        let Ok((first, _)) = listener.accept() else {
            sleep_ms(FAILURE_REST_MS);
            continue;
        };
        if is_ending() {
            return;
        }
        let Some(first) = understood(first) else { continue };
        while !is_ending() && flushed_ns.is_some_and(is_too_soon) {
            sleep_ms(LOOK_MS);
        }
        let others: Vec<_> = waiting(listener).into_iter().filter_map(understood).collect();
        flushed_ns = Some(monotonic_ns());
        let line = flush(asks);
        for mut stream in std::iter::once(first).chain(others) {
            // Whoever asks and goes away before the answer has no use for it.
            let _ = writeln!(stream, "{line}");
        }
    }
}

fn is_too_soon(flushed_ns: u64) -> bool {
    monotonic_ns() - flushed_ns < ms(FLUSH_REST_MS)
}

/// Who has come meanwhile.
fn waiting(listener: &UnixListener) -> Vec<UnixStream> {
    let mut come = Vec::new();
    if listener.set_nonblocking(true).is_ok() {
        let accepted = std::iter::from_fn(|| listener.accept().ok());
        come.extend(accepted.map(|(stream, _)| stream).take(ASKING_MAX - 1));
        // Where it stays so, the next one is looked for now and then.
        let _ = listener.set_nonblocking(false);
    }
    come
}

/// Who asks what can be asked.
fn understood(stream: UnixStream) -> Option<UnixStream> {
    let patience = Duration::from_millis(PATIENCE_MS);
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.set_write_timeout(Some(patience)).ok()?;
    let mut question = String::new();
    BufReader::new((&stream).take(QUESTION_OCTETS_MAX)).read_line(&mut question).ok()?;
    (question == "flush\n").then_some(stream)
}

/// Has files closed; the answer.
fn flush(asks: &Sender<Ask>) -> Json {
    let patience = Duration::from_millis(PATIENCE_MS);
    let (sender, answer) = bounded(1);
    let asked = asks.send_timeout(sender, patience).is_ok();
    let flushed = asked.then(|| answer.recv_timeout(patience).ok()).flatten();
    let problem = match flushed {
        Some(Flushed { problem }) => problem,
        None => Some("the store is busy".to_owned()),
    };
    json!({ "stored": problem.is_none(), "problem": problem, "cores": cores::allowed() })
}
