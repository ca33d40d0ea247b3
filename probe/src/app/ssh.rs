//! SSH: the identification string (RFC 4253 §4.2).

/// Whether `head` begins with the identification string of protocol 2.0 or 1.99.
pub(super) fn begins(head: &[u8]) -> bool {
    head.starts_with(b"SSH-2.0-") || head.starts_with(b"SSH-1.99-")
}
