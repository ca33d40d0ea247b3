//! The smallest HTTP client, for the probe's API on loopback.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value as Json;

use super::program::until;

/// How long an answer is waited for, in seconds: a graph may take the probe 30, and 5 until it gives up.
const ANSWER_S: u64 = 40;

/// What the probe answered.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The headers, each on a line of its own.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, wanted: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(':'));
        let found = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim())
    }

    /// The body as JSON.
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Asks for `path` at `address`.
pub fn get(address: &str, path: &str) -> Answer {
    send(address, "GET", path, "", "")
}

/// Asks again until the answer is as wanted, for `seconds` at most.
pub fn answer_within(
    seconds: u64,
    address: &str,
    path: &str,
    wanted: impl Fn(&Json) -> bool,
) -> Json {
    let mut last = Json::Null;
    let found = until(seconds, || {
        last = get(address, path).json();
        wanted(&last).then(|| last.clone())
    });
    found.unwrap_or_else(|| panic!("{path}: {last}"))
}

/// Sends JSON.
pub fn send_json(address: &str, method: &str, path: &str, body: &Json) -> Answer {
    send(address, method, path, "Content-Type: application/json\r\n", &body.to_string())
}

/// Sends a request; each of `headers` ends its line.
pub fn send(address: &str, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the page listens");
    stream.set_read_timeout(Some(Duration::from_secs(ANSWER_S))).expect("a time limit can be set");
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n{headers}{length}\r\n{body}"
    )
    .expect("the request can be sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
