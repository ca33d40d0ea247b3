//! What stands between a probe and a real server, or in the place of one, for faults that a real server
//! cannot be made to show.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use vmprobe::time::sleep_ms;

/// Accepts connections on 127.0.0.1 and gives each to a function on a thread of its own; ended with all of
/// them when dropped.
pub(crate) struct Double {
    pub(crate) port: u16,
    stop: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Double {
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        listener.set_nonblocking(true).expect("it need not wait");
        let (stop, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stopped, to_cut) = (Arc::clone(&stop), Arc::clone(&cut));
        let serve = Arc::new(serve);
        let thread = std::thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(false).expect("it may wait");
                    open.push(stream.try_clone().expect("a second handle"));
                    let serve = Arc::clone(&serve);
                    std::thread::spawn(move || serve(stream));
                }
                if to_cut.swap(false, Ordering::Relaxed) {
                    close(&mut open);
                }
                sleep_ms(10);
            }
            close(&mut open);
        });
        Self { port, stop, cut, thread: Some(thread) }
    }

    /// Passes everything on to a server on 127.0.0.1, but answers for it that it does not know `unknown`
    /// methods, as an old server does.
    pub(crate) fn relay(to: u16, unknown: &'static [&'static str]) -> Self {
        Self::start(move |client| {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
            let back = (server.try_clone(), client.try_clone());
            let (Ok(mut from_server), Ok(mut to_client)) = back else { return };
            let answers = std::thread::spawn(move || {
                let _ = io::copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Both);
            });
            let refused = |message: &Value| {
                let method = message["method"].as_str().unwrap_or_default();
                unknown.contains(&method).then(|| refusal(message))
            };
            let mut server_end = server;
            each_message(&client, |message| match refused(message) {
                Some(answer) => (&client).write_all(&answer),
                None => server_end.write_all(message.to_string().as_bytes()),
            });
            let _ = server_end.shutdown(Shutdown::Both);
            let _ = answers.join();
        })
    }

    /// Answers each question as `answer` says; `None`: not at all.
    pub(crate) fn answering(
        answer: impl Fn(&Value) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |client| {
            each_message(&client, |message| match answer(message) {
                Some(octets) => (&client).write_all(&octets),
                None => Ok(()),
            });
        })
    }

    /// Says the same to everyone and listens to nobody.
    pub(crate) fn saying(octets: Vec<u8>) -> Self {
        Self::start(move |mut client| {
            let _ = client.write_all(&octets);
            let _ = io::copy(&mut client, &mut io::sink());
        })
    }

    /// Ends all connections; new ones are accepted.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn close(open: &mut Vec<TcpStream>) {
    for stream in open.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn each_message(client: &TcpStream, mut take: impl FnMut(&Value) -> io::Result<()>) {
    let messages = serde_json::Deserializer::from_reader(client).into_iter::<Value>();
    for message in messages.map_while(Result::ok) {
        if take(&message).is_err() {
            return;
        }
    }
}

/// The answer to a question.
pub(crate) fn result(message: &Value, result: &Value) -> Vec<u8> {
    json!({"id": message["id"], "result": result, "error": null}).to_string().into_bytes()
}

fn refusal(message: &Value) -> Vec<u8> {
    json!({"id": message["id"], "result": null, "error": "unknown method"}).to_string().into_bytes()
}

/// The schema that Open vSwitch comes with.
pub(crate) fn schema() -> Value {
    let text = fs::read_to_string("/usr/share/openvswitch/vswitch.ovsschema").expect("a schema");
    serde_json::from_str(&text).expect("JSON")
}
