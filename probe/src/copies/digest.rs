//! Digest of the fields that no hop changes.
//!
//! In: headers. Out: place, tag and strict check of a packet.
//! Cost: four multiplications for IPv4.
//! Invariants: equal at all taps and probes of a domain with one seed and one
//! `digest_payload_octets`. Neither TTL, traffic class, MAC, VLAN nor VNI is in it, and no TCP
//! option but the timestamp value (MSS clamping rewrites options).
//! Source: RFC 5475 §6.2.1 (which fields are invariant), ARCHITECTURE.md "Copies".

use crate::decode::brief::{Fields, end_of};
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

/// What of a packet no hop changes, and what else its duplicates share. Each word holds fields side
/// by side: what differs in one field differs in its word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invariant {
    /// Both endpoints, who sent it, protocol, and how much payload there is.
    ends: [u64; 2],
    space: u64,
    /// Identification, TCP flags, offset of a fragment.
    rest: u64,
    /// TCP sequence and acknowledgement, timestamp value; nothing for others.
    numbers: Option<[u64; 2]>,
    payload_head: [u8; PAYLOAD_HEAD_OCTETS],
    /// Timestamps; TCP flags, window and whether there are SACK blocks.
    options: [u64; 2],
    /// See [`Digest::distinguishes`].
    distinguishes: bool,
}

impl Invariant {
    /// Of a packet all of whose headers are known.
    #[inline]
    pub fn of(headers: &Headers, seed: HashSeed) -> Self {
        let fields = Fields::of_headers(headers);
        let numbers = [fields.tcp_numbers, u64::from(headers.tcp_timestamp_value)];
        let sack = u64::from(headers.marks.has(Marks::TCP_SACK)) << 32;
        Self {
            ends: ends(headers, seed),
            space: headers.space.bits(),
            rest: rest(headers.ip_identification, headers.tcp_flags)
                | u64::from(headers.fragment_offset >> 3),
            numbers: is_tcp(headers).then_some(numbers),
            payload_head: headers.payload_head,
            options: [fields.tcp_stamps, u64::from(fields.tcp_word()) | sack],
            distinguishes: distinguishes(headers),
        }
    }

    /// The same of a packet that is known in brief, whose flow is named.
    #[inline]
    pub fn of_brief(brief: &Brief, fields: &Fields) -> Self {
        let is_tcp = brief.protocol == protocol::TCP;
        let numbers = [fields.tcp_numbers, fields.tcp_stamps >> 32];
        let identification = u32::from(fields.ip_identification);
        let stamped_octets = if fields.is_stamped() { fields.payload_octets } else { 0 };
        Self {
            ends: ends_v4(brief.ends, (brief.sender, brief.protocol), fields.payload_octets),
            space: brief.space.bits(),
            rest: rest(identification, fields.tcp_flags()),
            numbers: is_tcp.then_some(numbers),
            payload_head: fields.payload_head,
            options: [fields.tcp_stamps, u64::from(fields.tcp_word())],
            distinguishes: identification | stamped_octets != 0,
        }
    }
}

/// Of IPv4, where address and port have 48 bits, so there is room above them: of the length for the 16
/// bits that a packet on a wire has of it.
#[inline]
const fn ends_v4(
    [low, high]: [u64; 2],
    (sender, protocol): (Sender, u8),
    payload_octets: u32,
) -> [u64; 2] {
    let sent = ((protocol as u64) << 8) | sender as u64;
    [low | sent << 48, high | (payload_octets as u64) << 48]
}

/// Flags stand as in the word of their header; an offset in units of eight octets has room below.
#[inline]
const fn rest(identification: u32, tcp_flags: u16) -> u64 {
    ((identification as u64) << 32) | ((tcp_flags as u64) << 16)
}

impl Digest {
    /// Digest over address space, addresses, ports, protocol, length, identification and, for TCP,
    /// sequence, acknowledgement, flags and timestamp value; for the rest the first octets of payload
    /// that the mask has.
    #[inline]
    pub fn of(invariant: &Invariant, payload_mask: PayloadMask, seed: HashSeed) -> Self {
        let [a, b, c, d] = seed.words();
        let Invariant { ends, space, rest, numbers, options, .. } = *invariant;
        let payload = payload_mask.words(invariant.payload_head);
        let [first, second] = numbers.unwrap_or(payload);
        let mut hash = mix(ends[0] ^ a, ends[1] ^ b);
        hash = mix(hash ^ rest, space ^ c);
        hash = mix(hash ^ first, second ^ d);
        let strict = mix(payload[0] ^ options[0] ^ b, payload[1] ^ options[1] ^ c);
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

/// Both endpoints and the length of the payload: for IPv4 as they are, for IPv6 addresses hashed.
#[inline]
fn ends(headers: &Headers, seed: HashSeed) -> [u64; 2] {
    let Headers { source, destination, source_port, destination_port, .. } = *headers;
    if headers.ip_version == 4 {
        let source = end_of(source, source_port);
        let destination = end_of(destination, destination_port);
        let ends = match headers.sender {
            Sender::Low => [source, destination],
            Sender::High => [destination, source],
        };
        return ends_v4(ends, (headers.sender, headers.protocol), headers.payload_octets);
    }
    let [a, b, c, d] = seed.words();
    let [source_head, source_tail] = halves(source);
    let [destination_head, destination_tail] = halves(destination);
    let heads = mix(source_head ^ a, destination_head ^ b);
    let addresses =
        mix(heads ^ source_tail, destination_tail ^ c) ^ d ^ u64::from(headers.protocol);
    let ports = (u64::from(source_port) << 16) | u64::from(destination_port);
    [addresses, (ports << 32) | u64::from(headers.payload_octets)]
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
