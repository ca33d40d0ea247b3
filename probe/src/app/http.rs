//! HTTP: request line, status line (RFC 9112 §3, §4), or the preface of HTTP/2 (RFC 9113 §3.4).

pub mod head;

const STARTS: [&[u8]; 11] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PATCH ",
    b"HTTP/1.",
    b"PRI * HTTP/2.0",
];

/// Whether `head` begins like a request, a response or the HTTP/2 preface.
pub(super) fn begins(head: &[u8]) -> bool {
    // Capital letters: most payload has none here, and is told by its first octet.
    head.first().is_some_and(u8::is_ascii_uppercase)
        && STARTS.iter().any(|start| head.starts_with(start))
}

/// What a payload begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A request.
    Request,
    /// A response after which another one comes (RFC 9110 §15.2).
    Interim,
    /// The response after which both ends speak something else (RFC 9110 §15.2.2).
    Switch,
    /// A response.
    Response,
    /// HTTP/2.
    Another,
    /// Nothing of the kind.
    None,
}

/// What `head` begins with.
pub(super) fn start(head: &[u8]) -> Start {
    if !begins(head) {
        return Start::None;
    }
    match head {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'1', b'0', b'1', ..] => Start::Switch,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'1', ..] => Start::Interim,
        [b'H', b'T', b'T', b'P', ..] => Start::Response,
        [b'P', b'R', b'I', ..] => Start::Another,
        _ => Start::Request,
    }
}
