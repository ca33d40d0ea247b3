//! DNS: header with a question, on the DNS ports (RFC 1035 §4.1.1; RFC 6762 for 5353).
//!
//! Twelve octets of numbers prove little, so here the port is asked for beside the content.

pub mod message;

const PORTS: [u16; 3] = [53, 5353, 5355];

/// Whether a UDP payload begins with a DNS header.
pub(super) fn begins_over_udp(head: &[u8], ports: [u16; 2]) -> bool {
    on_port(ports) && is_header(head)
}

/// Whether a TCP payload begins with a length and a DNS header (RFC 1035 §4.2.2).
pub(super) fn begins_over_tcp(head: &[u8], ports: [u16; 2]) -> bool {
    on_port(ports) && head.split_first_chunk::<2>().is_some_and(|(_, rest)| is_header(rest))
}

fn on_port(ports: [u16; 2]) -> bool {
    let [one, other] = ports;
    PORTS.iter().any(|port| *port == one || *port == other)
}

fn is_header(head: &[u8]) -> bool {
    let Some(header) = head.first_chunk::<12>() else { return false };
    let opcode = (header[2] >> 3) & 0xf;
    let counts = [4, 6, 8].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
    let [questions, answers, authorities] = counts;
    opcode <= 6 && questions <= 16 && (questions > 0 || answers > 0 || authorities > 0)
}
