//! Which packets are alike: nobody who sees one at one tap and another at the other can tell them from
//! one packet and its copy.
//!
//! In: the octets of a frame. Out: a hash of what of its innermost packet no hop changes and DESIGN,
//! "Copies", has copies found by.
//! Cost: a hash of some sixty octets.
//! Invariants: knows nothing of the probe's digest or decoder; nor of address spaces, so packets of two
//! tenants with the same addresses may be called alike that are not.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::packet::{Headers, ihl};

/// Payload that is looked at where there are no sequence numbers: the least that a mirror shows.
const HEAD_OCTETS: usize = 16;
const ICMP: [u8; 2] = [1, 58];
const UDP: u8 = 17;
/// Kind of the TCP option with the timestamps (RFC 7323 §3.2).
const TIMESTAMPS: u8 = 8;

/// The hash: the same for two packets that are alike.
pub(super) fn alike(frame: &[u8], headers: &Headers) -> u64 {
    let Headers { source, destination, protocol, source_port, destination_port, .. } = *headers;
    let mut hash = DefaultHasher::new();
    (source, destination, protocol, source_port, destination_port).hash(&mut hash);
    (headers.identification, headers.ip_octets).hash(&mut hash);
    if let Some(tcp) = headers.tcp {
        let options = frame.get(tcp.at + 20..tcp.payload_at).unwrap_or_default();
        (tcp.sequence, tcp.acknowledgement, tcp.flags, tcp.payload_octets).hash(&mut hash);
        timestamp_value(options).hash(&mut hash);
    } else {
        let ip_header_octets =
            if source.is_ipv4() { ihl(frame, headers.ip_at).unwrap_or(0) } else { 40 };
        let further = if protocol == UDP || ICMP.contains(&protocol) { 8 } else { 0 };
        let payload = frame.get(headers.ip_at + ip_header_octets + further..).unwrap_or_default();
        payload[..payload.len().min(HEAD_OCTETS)].hash(&mut hash);
    }
    hash.finish()
}

fn timestamp_value(mut options: &[u8]) -> Option<[u8; 4]> {
    while let [kind, rest @ ..] = options {
        options = match (kind, rest) {
            (0, _) => return None,
            (1, _) => rest,
            (&TIMESTAMPS, [10, a, b, c, d, ..]) => return Some([*a, *b, *c, *d]),
            (_, [octets, ..]) => options.get(usize::from((*octets).max(2))..)?,
            _ => return None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::segment;
    use super::super::packet::{ACK, PSH, decrement_ttl, parse};
    use super::*;

    fn of(frame: &[u8]) -> u64 {
        alike(frame, &parse(frame).expect("IP"))
    }

    #[test]
    fn what_no_hop_changes_tells_packets_apart() {
        let one = segment(100, b"hello", PSH);
        let mut routed = one.clone();
        decrement_ttl(&mut routed, &parse(&one).expect("IP"), 3);
        routed[..6].fill(9);
        assert_eq!(of(&one), of(&routed));
        for other in
            [segment(101, b"hello", PSH), segment(100, b"hell", PSH), segment(100, b"hello", ACK)]
        {
            assert_ne!(of(&one), of(&other));
        }
        // Identification, acknowledgement, timestamp value; not the echoed one, nor the window.
        let at = |place: usize| {
            let mut changed = one.clone();
            changed[place] ^= 1;
            of(&changed) != of(&one)
        };
        let timestamp_at = (54..66).find(|at| one[*at..*at + 2] == [8, 10]).expect("a timestamp");
        let told = [18, 42, timestamp_at + 2, timestamp_at + 6, 48].map(at);
        assert_eq!(told, [true, true, true, false, false]);
    }

    #[test]
    fn options_end_where_they_end() {
        let value = Some([1, 2, 3, 4]);
        assert_eq!(timestamp_value(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]), value);
        assert_eq!(timestamp_value(&[2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0]), value);
        for none in [&[][..], &[0, 8, 10, 1, 2, 3, 4], &[8, 10, 1], &[5], &[5, 0], &[5, 200, 1]] {
            assert_eq!(timestamp_value(none), None, "{none:?}");
        }
    }
}
