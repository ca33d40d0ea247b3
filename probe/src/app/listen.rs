//! Which payload of a flow holds a message that its transactions are told by.
//!
//! In: the first octets of a payload, and the flow's application. Out: whether it is taken, and whose
//! payload is looked at from now on.
//! Cost: some comparisons, only for the senders of a flow that are listened to.
//! Invariants: decided by the octets and the application alone, so that a worker that passes a packet on
//! knows as well whether its owner may take it ([`may_be_taken`]).
//! Source: RFC 8446 §4; RFC 9110 §15.2 (interim responses).

use super::{Application, FirstWords, PACKETS_MAX};
use super::{dns, http, tls};
use crate::decode::protocol;

/// What becomes of a payload, and of listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The payload goes to the aggregation thread.
    pub takes: bool,
    /// The sender's next payload is looked at.
    pub goes_on: bool,
    /// The other end's next payload is looked at; `None`: as before.
    pub to_other: Option<bool>,
}

const NOBODY: Listening = Listening { takes: false, goes_on: false, to_other: Some(false) };
const GO_ON: Listening = Listening { takes: false, goes_on: true, to_other: None };
const TAKE: Listening = Listening { takes: true, goes_on: true, to_other: None };
const TAKE_LAST: Listening = Listening { takes: true, goes_on: false, to_other: None };

/// What becomes of a payload of a flow that is known to carry `application`, after so many packets were
/// looked at. `transactions`: records tell of them.
pub fn listen(
    application: Application,
    words: &FirstWords,
    looked_at_packets: u8,
    transactions: bool,
) -> Listening {
    match application {
        Application::Unknown if looked_at_packets >= PACKETS_MAX => NOBODY,
        Application::Unknown => GO_ON,
        Application::Ssh => NOBODY,
        _ if !transactions => NOBODY,
        Application::Dns if is_dns(words) => TAKE,
        Application::Dns => GO_ON,
        Application::Tls => tls(words),
        Application::Http => http(words),
    }
}

/// Whether the worker that owns the flow may take this payload, as far as its first octets say; what
/// follows a message that is not whole they do not say.
pub fn may_be_taken(words: &FirstWords) -> bool {
    super::classify(words).has_transactions()
}

/// Whether it begins a message that goes on in the sender's next packet.
pub fn is_to_be_continued(words: &FirstWords) -> bool {
    words.protocol == protocol::TCP
        && tls::begins_client(words.head())
        && tls::hello::record_octets(words.head())
            .is_some_and(|octets| octets > words.payload_octets as usize)
}

fn is_dns(words: &FirstWords) -> bool {
    match words.protocol {
        protocol::UDP => dns::begins_over_udp(words.head(), words.ports),
        _ => dns::begins_over_tcp(words.head(), words.ports),
    }
}

/// A hello of each end; a client's may take two segments.
fn tls(words: &FirstWords) -> Listening {
    if is_to_be_continued(words) { TAKE } else { TAKE_LAST }
}

/// Requests all along, and after each of them a response that is no interim one; nothing once both ends have
/// agreed on something else.
fn http(words: &FirstWords) -> Listening {
    match http::start(words.head()) {
        http::Start::Request => Listening { to_other: Some(true), ..TAKE },
        http::Start::Interim => TAKE,
        http::Start::Switch => Listening { takes: true, ..NOBODY },
        http::Start::Response => TAKE_LAST,
        http::Start::Another => NOBODY,
        http::Start::None => GO_ON,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(protocol: u8, port: u16, payload: &[u8], payload_octets: u32) -> FirstWords {
        let mut head = [0; 16];
        let kept = payload.len().min(16);
        head[..kept].copy_from_slice(&payload[..kept]);
        let captured_octets = payload_octets;
        FirstWords { protocol, ports: [40_000, port], head, captured_octets, payload_octets }
    }

    #[test]
    fn a_hello_of_two_segments_is_taken_whole() {
        let hello = [22, 3, 1, 6, 0xc0, 1, 0, 6, 0xbc, 3, 3, 0, 0, 0, 0, 0];
        let (cut, whole) = (words(6, 443, &hello, 1_400), words(6, 443, &hello, 1_733));
        let tls = |words| listen(Application::Tls, words, 1, true);
        assert_eq!((tls(&cut), tls(&whole)), (TAKE, TAKE_LAST));
        assert!(is_to_be_continued(&cut) && !is_to_be_continued(&whole));
        let rest = words(6, 443, &[1, 2, 3], 333);
        assert_eq!(tls(&rest), TAKE_LAST);
        assert!(may_be_taken(&cut) && !may_be_taken(&rest));
    }

    #[test]
    fn a_response_is_listened_for_after_each_request() {
        let http = |payload: &[u8]| listen(Application::Http, &words(6, 80, payload, 900), 1, true);
        assert_eq!(http(b"GET / HTTP/1.1\r\n"), Listening { to_other: Some(true), ..TAKE });
        assert_eq!(http(b"HTTP/1.1 100 Continue\r\n"), TAKE);
        assert_eq!(http(b"HTTP/1.1 200 OK\r\n"), TAKE_LAST);
        let switch = Listening { takes: true, goes_on: false, to_other: Some(false) };
        assert_eq!(http(b"HTTP/1.1 101 Switching Protocols\r\n"), switch);
        assert_eq!(http(b"HTTP/1.1 103 Early Hints\r\n"), TAKE);
        assert_eq!(http(b"some part of a body"), GO_ON);
        assert_eq!(http(b"PRI * HTTP/2.0\r\n"), NOBODY);
    }

    #[test]
    fn nobody_is_listened_to_for_nothing() {
        let query = words(17, 53, &[1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0], 30);
        assert_eq!(listen(Application::Dns, &query, 1, true), TAKE);
        assert_eq!(listen(Application::Dns, &query, 1, false), NOBODY);
        assert_eq!(listen(Application::Ssh, &query, 1, true), NOBODY);
        assert_eq!(listen(Application::Unknown, &query, PACKETS_MAX - 1, true), GO_ON);
        assert_eq!(listen(Application::Unknown, &query, PACKETS_MAX, true), NOBODY);
    }
}
