//! First payload octets to application, and to what its messages say.
//!
//! In: the payload head of a flow's first packets. Out: [`Application`]; [`listen`] says which payload
//! holds a message that transactions are told by; parsers of these messages, which the aggregation
//! thread calls.
//! Cost: nothing once a flow is classified and none of its messages is awaited, or [`PACKETS_MAX`]
//! packets with payload were looked at.
//! Invariants: decided by content, never by port alone; what is not recognised stays unknown.
//! Source: each file names the RFC of its protocol.

pub mod dns;
mod excerpt;
pub mod http;
mod listen;
mod ssh;
pub mod tls;

pub use excerpt::{EXCERPT_OCTETS_MAX, Excerpt, Speech};
pub use listen::{Listening, is_to_be_continued, listen, may_be_taken};

use crate::decode::brief::Fields;
use crate::decode::{Brief, Headers, PAYLOAD_HEAD_OCTETS, protocol};

/// Packets with payload that are looked at, per flow.
pub const PACKETS_MAX: u8 = 4;

/// What a flow carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Application {
    /// Not recognised (yet).
    #[default]
    Unknown = 0,
    /// TLS.
    Tls = 1,
    /// HTTP/1 in the clear, or the HTTP/2 preface.
    Http = 2,
    /// SSH.
    Ssh = 3,
    /// DNS.
    Dns = 4,
}

impl Application {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Dns => "dns",
        }
    }
}

impl Application {
    /// Whether records tell of its transactions.
    #[inline]
    pub const fn has_transactions(self) -> bool {
        matches!(self, Self::Dns | Self::Tls | Self::Http)
    }
}

/// The first octets of a packet's payload, and what else says what they may be.
#[derive(Clone, Copy, Debug)]
pub struct FirstWords {
    /// TCP or UDP; anything else is not recognised.
    pub protocol: u8,
    /// Both ports, in any order.
    pub ports: [u16; 2],
    /// The first octets of payload.
    pub head: [u8; PAYLOAD_HEAD_OCTETS],
    /// Octets of payload that were captured, as many of which as `head` has are valid.
    pub captured_octets: u32,
    /// Octets of payload that there were.
    pub payload_octets: u32,
}

impl FirstWords {
    /// Of a packet all of whose headers are known.
    #[inline]
    pub const fn of(headers: &Headers) -> Self {
        Self {
            protocol: headers.protocol,
            ports: [headers.source_port, headers.destination_port],
            head: headers.payload_head,
            captured_octets: headers.payload_captured_octets,
            payload_octets: headers.payload_octets,
        }
    }

    /// Of a packet that is known in brief; it is whole.
    #[inline]
    pub const fn of_brief(brief: &Brief, fields: &Fields) -> Self {
        Self {
            protocol: brief.protocol,
            ports: brief.ports(),
            head: fields.payload_head,
            captured_octets: fields.payload_octets,
            payload_octets: fields.payload_octets,
        }
    }

    /// Those of the first octets that are there.
    #[inline]
    pub fn head(&self) -> &[u8] {
        let captured = usize::try_from(self.captured_octets).unwrap_or(usize::MAX);
        self.head.get(..captured.min(PAYLOAD_HEAD_OCTETS)).unwrap_or_default()
    }
}

/// What the first octets of a packet's payload say.
pub fn classify(words: &FirstWords) -> Application {
    let head = words.head();
    match words.protocol {
        protocol::TCP if tls::begins(head) => Application::Tls,
        protocol::TCP if http::begins(head) => Application::Http,
        protocol::TCP if ssh::begins(head) => Application::Ssh,
        protocol::TCP if dns::begins_over_tcp(head, words.ports) => Application::Dns,
        protocol::UDP if dns::begins_over_udp(head, words.ports) => Application::Dns,
        _ => Application::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, port: u16, payload: &[u8]) -> Headers {
        let mut headers = Headers {
            protocol,
            destination_port: port,
            payload_octets: 100,
            payload_captured_octets: u32::try_from(payload.len()).expect("short"),
            ..Headers::default()
        };
        let kept = payload.len().min(PAYLOAD_HEAD_OCTETS);
        headers.payload_head[..kept].copy_from_slice(&payload[..kept]);
        headers
    }

    #[test]
    fn first_words_are_recognised_on_any_port() {
        let cases: [(u8, u16, &[u8], Application); 8] = [
            (6, 8443, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], Application::Tls),
            (6, 81, b"GET / HTTP/1.1\r\n", Application::Http),
            (6, 81, b"HTTP/1.1 200 OK\r\n", Application::Http),
            (6, 2222, b"SSH-2.0-OpenSSH_9", Application::Ssh),
            (17, 53, &[0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3], Application::Dns),
            (6, 53, &[0, 40, 0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], Application::Dns),
            (6, 443, b"hello", Application::Unknown),
            (17, 9999, &[0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3], Application::Unknown),
        ];
        for (protocol, port, payload, wanted) in cases {
            assert_eq!(
                classify(&FirstWords::of(&packet(protocol, port, payload))),
                wanted,
                "{payload:?}"
            );
        }
    }

    #[test]
    fn no_shorter_payload_panics() {
        let payload = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0];
        for length in 0..=payload.len() {
            classify(&FirstWords::of(&packet(6, 53, &payload[..length])));
            classify(&FirstWords::of(&packet(17, 53, &payload[..length])));
        }
    }
}
