//! Digest of the fields that no hop changes.
//!
//! In: headers. Out: place, tag and strict check of a packet.
//! Cost: five multiplications for IPv4.
//! Invariants: equal at all taps and probes of a domain with one seed and one
//! `digest_payload_octets`. Neither TTL, traffic class, MAC, VLAN nor VNI is in it, and no TCP
//! option but the timestamp value (MSS clamping rewrites options).
//! Source: RFC 5475 §6.2.1 (which fields are invariant), ARCHITECTURE.md "Copies".

use crate::decode::{Address, Headers, Marks, PAYLOAD_HEAD_OCTETS, protocol};
use crate::spread::HashSeed;
use crate::spread::key::{halves, mix};

/// Digest of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Place in a table, before masking.
    pub place: usize,
    /// What is compared inside a bucket.
    pub tag: u32,
    /// Hash of what else must be equal before a packet is called a duplicate at one tap.
    pub strict: u8,
    /// Whether two separate packets would differ in the digest: an IPv4 identification that is
    /// set, or a TCP timestamp with payload.
    pub distinguishes: bool,
}

impl Digest {
    /// Digest over address space, addresses, protocol, identification and, for TCP, ports,
    /// sequence, acknowledgement, flags, length and timestamp value; for the rest the first
    /// octets of payload that the mask has.
    #[inline]
    pub fn of(headers: &Headers, payload_mask: PayloadMask, seed: HashSeed) -> Self {
        let [a, b, c, d] = seed.words();
        let payload = payload_mask.words(headers);
        let ports = (u64::from(headers.source_port) << 16) | u64::from(headers.destination_port);
        let identity = (u64::from(headers.ip_identification) << 32) | ports;
        let rest = (u64::from(headers.fragment_offset) << 16)
            | (u64::from(headers.tcp_flags) << 32)
            | u64::from(headers.protocol);
        let length = u64::from(headers.payload_octets);
        // Each word holds fields side by side: what differs in one field differs in its word.
        let mut hash = mix(addresses(headers, seed) ^ a, headers.space.bits() ^ b);
        if is_tcp(headers) {
            let numbers =
                (u64::from(headers.tcp_sequence) << 32) | u64::from(headers.tcp_acknowledgement);
            let stamp = (u64::from(headers.tcp_timestamp_value) << 32) | length;
            hash = mix(hash ^ identity, numbers ^ c);
            hash = mix(hash ^ rest, stamp ^ d);
        } else {
            hash = mix(hash ^ identity, payload[0] ^ c);
            hash = mix(hash ^ rest, payload[1] ^ d);
            hash = mix(hash ^ length, a);
        }
        let options = (u64::from(headers.tcp_window) << 32)
            | (u64::from(headers.tcp_timestamp_echo) << 1)
            | u64::from(headers.marks.has(Marks::TCP_SACK));
        let strict = mix(mix(payload[0] ^ b, payload[1] ^ c) ^ options, d);
        Self {
            place: low_half(hash) as usize,
            tag: low_half(hash >> 32),
            strict: strict.to_le_bytes()[0],
            distinguishes: distinguishes(headers),
        }
    }
}

impl Digest {
    /// Both halves of it in one number.
    pub const fn bits(&self) -> u64 {
        ((self.tag as u64) << 32) | (self.place as u64 & 0xffff_ffff)
    }
}

/// Both addresses in a word: for IPv4 as they are, for IPv6 hashed.
#[inline]
fn addresses(headers: &Headers, seed: HashSeed) -> u64 {
    let [source_head, source_tail] = halves(headers.source);
    let [destination_head, destination_tail] = halves(headers.destination);
    if headers.ip_version == 4 {
        // The four octets are the last of sixteen, which a little-endian word has on top.
        return (source_tail >> 32) | (destination_tail & !u64::from(u32::MAX));
    }
    let [a, b, c, d] = seed.words();
    let heads = mix(source_head ^ a, destination_head ^ b);
    mix(heads ^ source_tail, destination_tail ^ c) ^ d
}

fn is_tcp(headers: &Headers) -> bool {
    headers.protocol == protocol::TCP && !headers.marks.has(Marks::LATER_FRAGMENT)
}

fn distinguishes(headers: &Headers) -> bool {
    let identified = headers.ip_version == 4 && headers.ip_identification != 0;
    let stamped = headers.marks.has(Marks::TCP_TIMESTAMP) && headers.payload_octets > 0;
    identified || stamped
}

/// Which of the payload's first octets are in the digest.
#[derive(Clone, Copy, Debug)]
pub struct PayloadMask([u64; 2]);

impl PayloadMask {
    /// The first `octets`, at most [`PAYLOAD_HEAD_OCTETS`].
    pub fn first(octets: u8) -> Self {
        let mut bytes = [0; PAYLOAD_HEAD_OCTETS];
        for byte in bytes.iter_mut().take(usize::from(octets)) {
            *byte = u8::MAX;
        }
        Self(halves(Address(bytes)))
    }

    /// Those octets as words; what was not captured reads as 0 in [`Headers`].
    #[inline]
    fn words(self, headers: &Headers) -> [u64; 2] {
        let [head, tail] = halves(Address(headers.payload_head));
        [head & self.0[0], tail & self.0[1]]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}
