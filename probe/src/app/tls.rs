//! TLS: the record header and the kind of the first handshake message (RFC 8446 §5.1, §4).

pub mod hello;
pub mod ja4;

/// Whether `head` begins with a handshake record that holds a `ClientHello` or `ServerHello`.
pub(super) fn begins(head: &[u8]) -> bool {
    // ContentType handshake (22), legacy version 3.x, length, HandshakeType 1 or 2.
    matches!(head, [0x16, 3, 0..=4, _, _, 1 | 2, ..])
}

/// Whether `head` begins with a handshake record that holds a `ClientHello`.
pub(super) fn begins_client(head: &[u8]) -> bool {
    matches!(head, [0x16, 3, 0..=4, _, _, 1, ..])
}
