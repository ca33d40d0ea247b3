//! The door by which a query asks for what is not in a file yet.
//!
//! In: a line `flush` over a socket in the folder of the records. Out: once all rows are in files,
//! a line of JSON: whether they are, why not, and the cores that are not the workers'.
//! Cost: a thread that sleeps; the store's thread closes its files, at most once in
//! [`FLUSH_REST_MS`].
//! Invariants: one asks at a time, for [`PATIENCE_MS`] at most; nothing but this can be asked; the
//! socket is there while the run lasts, and what a crash leaves of it is refused by the system.

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
use serde_json::json;

use crate::cores;
use crate::time::sleep_ms;

/// Between two times that files are closed early.
pub(super) const FLUSH_REST_MS: u64 = 1_000;
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
            UnixStream::connect(address.join(name)).ok()
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
    for stream in listener.incoming() {
        if ending.load(Ordering::Relaxed) {
            return;
        }
        match stream {
            // Whoever asks and goes away before the answer has no use for it.
            Ok(stream) => drop(answer(&stream, asks)),
            Err(_) => sleep_ms(FAILURE_REST_MS),
        }
    }
}

fn answer(mut stream: &UnixStream, asks: &Sender<Ask>) -> io::Result<()> {
    let patience = Duration::from_millis(PATIENCE_MS);
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut question = String::new();
    BufReader::new(stream.take(QUESTION_OCTETS_MAX)).read_line(&mut question)?;
    if question != "flush\n" {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (sender, answer) = bounded(1);
    let asked = asks.send_timeout(sender, patience).is_ok();
    let flushed = asked.then(|| answer.recv_timeout(patience).ok()).flatten();
    let problem = match flushed {
        Some(Flushed { problem }) => problem,
        None => Some("the store is busy".to_owned()),
    };
    let line = json!({
        "stored": problem.is_none(), "problem": problem, "cores": cores::allowed(),
    });
    writeln!(stream, "{line}")
}
