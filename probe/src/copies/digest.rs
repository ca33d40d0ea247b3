//! Digest of the fields that no hop changes.
//!
//! In: headers. Out: place, tag and strict check of a packet.
//! Cost: five multiplications for IPv4.
//! Invariants: equal at all taps and probes of a domain with one seed and one
//! `digest_payload_octets`. Neither TTL, traffic class, MAC, VLAN nor VNI is in it, and no TCP
//! option but the timestamp value (MSS clamping rewrites options).
//! Source: RFC 5475 §6.2.1 (which fields are invariant), ARCHITECTURE.md "Copies".

use crate::decode::brief::Fields;
use crate::decode::{Address, Brief, Headers, Marks, PAYLOAD_HEAD_OCTETS, protocol};
use crate::index::Sender;
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

/// What of a packet no hop changes, and what else its duplicates share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invariant {
    /// Both addresses, for IPv6 by a hash.
    addresses: u64,
    space: u64,
    /// Identification and ports.
    identity: u64,
    /// Protocol, offset of a fragment, TCP flags.
    rest: u64,
    /// TCP sequence and acknowledgement; nothing for others.
    numbers: Option<u64>,
    stamp_value: u32,
    payload_octets: u32,
    payload_head: [u8; PAYLOAD_HEAD_OCTETS],
    /// Window, echoed timestamp, whether there are SACK blocks.
    options: u64,
    /// See [`Digest::distinguishes`].
    distinguishes: bool,
}

impl Invariant {
    /// Of a packet all of whose headers are known.
    #[inline]
    pub fn of(headers: &Headers, seed: HashSeed) -> Self {
        let ports = (u64::from(headers.source_port) << 16) | u64::from(headers.destination_port);
        Self {
            addresses: addresses(headers, seed),
            space: headers.space.bits(),
            identity: (u64::from(headers.ip_identification) << 32) | ports,
            rest: rest(headers.protocol, headers.fragment_offset, headers.tcp_flags),
            numbers: is_tcp(headers)
                .then(|| numbers(headers.tcp_sequence, headers.tcp_acknowledgement)),
            stamp_value: headers.tcp_timestamp_value,
            payload_octets: headers.payload_octets,
            payload_head: headers.payload_head,
            options: options(headers.tcp_window, headers.tcp_timestamp_echo)
                | u64::from(headers.marks.has(Marks::TCP_SACK)),
            distinguishes: distinguishes(headers),
        }
    }

    /// The same of a packet that is known in brief, whose flow is named.
    #[inline]
    pub fn of_brief(brief: &Brief, fields: &Fields) -> Self {
        let [low, high] = brief.ends;
        let (source, destination) = match brief.sender {
            Sender::Low => (low, high),
            Sender::High => (high, low),
        };
        let is_tcp = brief.protocol == protocol::TCP;
        let identified = fields.ip_identification != 0;
        let (value, echo) = fields.tcp_timestamps.unwrap_or_default();
        let stamped = fields.tcp_timestamps.is_some() && fields.payload_octets > 0;
        let ports = ((source & 0xffff) << 16) | (destination & 0xffff);
        Self {
            addresses: swapped(source) | (swapped(destination) << 32),
            space: brief.space.bits(),
            identity: (u64::from(fields.ip_identification) << 32) | ports,
            rest: rest(brief.protocol, 0, fields.tcp_flags),
            numbers: is_tcp.then(|| numbers(fields.tcp_sequence, fields.tcp_acknowledgement)),
            stamp_value: value,
            payload_octets: fields.payload_octets,
            payload_head: fields.payload_head,
            options: options(fields.tcp_window, echo),
            distinguishes: identified || stamped,
        }
    }
}

/// The address of an endpoint in the order of octets that [`addresses`] has.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the address has 32 bits above the port")]
const fn swapped(end: u64) -> u64 {
    ((end >> 16) as u32).swap_bytes() as u64
}

#[inline]
const fn rest(protocol: u8, fragment_offset: u16, tcp_flags: u16) -> u64 {
    ((fragment_offset as u64) << 16) | ((tcp_flags as u64) << 32) | protocol as u64
}

#[inline]
const fn numbers(sequence: u32, acknowledgement: u32) -> u64 {
    ((sequence as u64) << 32) | acknowledgement as u64
}

#[inline]
const fn options(window: u16, echo: u32) -> u64 {
    ((window as u64) << 32) | ((echo as u64) << 1)
}

impl Digest {
    /// Digest over address space, addresses, protocol, identification and, for TCP, ports,
    /// sequence, acknowledgement, flags, length and timestamp value; for the rest the first
    /// octets of payload that the mask has.
    #[inline]
    pub fn of(invariant: &Invariant, payload_mask: PayloadMask, seed: HashSeed) -> Self {
        let [a, b, c, d] = seed.words();
        let Invariant { addresses, space, identity, rest, options, .. } = *invariant;
        let payload = payload_mask.words(invariant.payload_head);
        let length = u64::from(invariant.payload_octets);
        // Each word holds fields side by side: what differs in one field differs in its word.
        let mut hash = mix(addresses ^ a, space ^ b);
        if let Some(numbers) = invariant.numbers {
            let stamp = (u64::from(invariant.stamp_value) << 32) | length;
            hash = mix(hash ^ identity, numbers ^ c);
            hash = mix(hash ^ rest, stamp ^ d);
        } else {
            hash = mix(hash ^ identity, payload[0] ^ c);
            hash = mix(hash ^ rest, payload[1] ^ d);
            hash = mix(hash ^ length, a);
        }
        let strict = mix(mix(payload[0] ^ b, payload[1] ^ c) ^ options, d);
        Self {
            place: low_half(hash) as usize,
            tag: low_half(hash >> 32),
            strict: strict.to_le_bytes()[0],
            distinguishes: invariant.distinguishes,
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
    fn words(self, payload_head: [u8; PAYLOAD_HEAD_OCTETS]) -> [u64; 2] {
        let [head, tail] = halves(Address(payload_head));
        [head & self.0[0], tail & self.0[1]]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}
