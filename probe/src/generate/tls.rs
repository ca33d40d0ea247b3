//! TLS 1.3 records that look like a browser's.
//!
//! In: server name, random octets. Out: `ClientHello` and the server's first flight.
//! Source: RFC 8446 sections 4.1.2, 4.1.3 and 5.1; server name, RFC 6066 section 3.

use super::random::{Random, low16};

const HANDSHAKE: u8 = 22;
const CHANGE_CIPHER_SPEC: u8 = 20;
const APPLICATION: u8 = 23;

/// Largest record that a script makes; the limit is 2^14 octets (RFC 8446 section 5.1).
pub(super) const RECORD_OCTETS_MAX: usize = 16_000;

/// The record with a `ClientHello` for that server name.
pub(super) fn client_hello(server_name: &str, random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(octets::<32>(random));
    body.push(32);
    body.extend(octets::<32>(random));
    body.extend([0, 8, 0x13, 0x01, 0x13, 0x02, 0x13, 0x03, 0xc0, 0x2f]);
    body.extend([1, 0]);
    let mut extensions = Vec::new();
    let name = server_name.as_bytes();
    let entry = [&[0][..], &length16(name.len()), name].concat();
    extension(&mut extensions, 0, &[&length16(entry.len())[..], &entry].concat());
    extension(&mut extensions, 10, &[0, 4, 0, 0x1d, 0, 0x17]);
    extension(&mut extensions, 13, &[0, 6, 4, 3, 8, 4, 4, 1]);
    extension(&mut extensions, 16, b"\x00\x0c\x02h2\x08http/1.1");
    extension(&mut extensions, 43, &[4, 3, 4, 3, 3]);
    extension(&mut extensions, 45, &[1, 1]);
    let share = [&[0, 36, 0, 0x1d, 0, 32][..], &octets::<32>(random)].concat();
    extension(&mut extensions, 51, &share);
    body.extend(length16(extensions.len()));
    body.extend(extensions);
    record(HANDSHAKE, &handshake(1, &body))
}

/// `ServerHello`, the change of cipher, and the head of the encrypted rest, whose
/// `encrypted_octets` follow.
pub(super) fn server_flight(encrypted_octets: usize, random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(octets::<32>(random));
    body.push(32);
    body.extend(octets::<32>(random));
    body.extend([0x13, 0x01, 0]);
    let mut extensions = Vec::new();
    extension(&mut extensions, 43, &[3, 4]);
    let share = [&[0, 0x1d, 0, 32][..], &octets::<32>(random)].concat();
    extension(&mut extensions, 51, &share);
    body.extend(length16(extensions.len()));
    body.extend(extensions);
    let mut flight = record(HANDSHAKE, &handshake(2, &body));
    flight.extend(record(CHANGE_CIPHER_SPEC, &[1]));
    flight.extend(application_head(encrypted_octets));
    flight
}

/// The head of a record with application data, whose octets follow.
pub(super) fn application_head(octets: usize) -> [u8; 5] {
    let [high, low] = length16(octets);
    [APPLICATION, 3, 3, high, low]
}

/// The client's change of cipher.
pub(super) fn change_cipher() -> Vec<u8> {
    record(CHANGE_CIPHER_SPEC, &[1])
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, if kind == HANDSHAKE { 1 } else { 3 }][..], &length16(content.len()), content]
        .concat()
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = length16(body.len());
    [&[kind, 0, high, low][..], body].concat()
}

fn extension(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    out.extend([0, kind]);
    out.extend(length16(content.len()));
    out.extend(content);
}

fn length16(length: usize) -> [u8; 2] {
    low16(length as u64).to_be_bytes()
}

fn octets<const N: usize>(random: &mut Random) -> [u8; N] {
    let mut octets = [0; N];
    random.fill(&mut octets);
    octets
}
