//! The canonical key of a biflow, and its hash.
//!
//! In: headers. Out: [`FlowKey`], equal for both directions and all copies; a 64-bit hash of it.
//! Cost: a comparison, and two multiplications for IPv4, four for IPv6.
//! Invariants: `FlowKey` of a packet and of its answer are equal; the hash is seeded at start, so
//! nobody outside can aim at one bucket, and it shows in no output.
//! Source: biflow, RFC 5103 §2; multiply-and-fold mixing as in wyhash (Wang Yi, public domain).

use crate::decode::brief::{address_of, end_of};
use crate::decode::{Address, Brief, Headers};
use crate::index::Sender;
use crate::inventory::AddressSpace;

/// Which endpoint sent this packet.
#[inline]
fn sender_of(headers: &Headers) -> Sender {
    let source = u128::from_be_bytes(headers.source.0);
    let destination = u128::from_be_bytes(headers.destination.0);
    let is_low = if source == destination {
        headers.source_port <= headers.destination_port
    } else {
        source < destination
    };
    if is_low { Sender::Low } else { Sender::High }
}

/// Writes what names the flow of a packet: who of its endpoints sent it, and the hash of its key.
#[inline]
pub fn name_flow(headers: &mut Headers, seed: HashSeed) {
    if headers.ip_version == IPV4 {
        let source = end_of(headers.source, headers.source_port);
        let destination = end_of(headers.destination, headers.destination_port);
        let is_low = source <= destination;
        let (low, high) = if is_low { (source, destination) } else { (destination, source) };
        headers.sender = if is_low { Sender::Low } else { Sender::High };
        headers.hash = hash_v4(low, high, headers.protocol, headers.space, seed);
    } else {
        let (key, sender) = FlowKey::of(headers);
        headers.sender = sender;
        headers.hash = key.hash(seed);
    }
}

/// The same for what is known in brief.
#[inline]
pub fn name_brief(brief: &mut Brief, seed: HashSeed) {
    let [source, destination] = brief.ends;
    let is_low = source <= destination;
    let (low, high) = if is_low { (source, destination) } else { (destination, source) };
    brief.sender = if is_low { Sender::Low } else { Sender::High };
    brief.ends = [low, high];
    brief.hash = hash_v4(low, high, brief.protocol, brief.space, seed);
}

/// Hash of an IPv4 key from its endpoints in order.
#[inline]
fn hash_v4(low: u64, high: u64, protocol: u8, space: AddressSpace, seed: HashSeed) -> u64 {
    // What an IPv6 key is made of is put together in another way, and need not be told apart here.
    let low = low | (u64::from(protocol) << 48);
    mix(mix(low ^ seed.0, high ^ seed.1) ^ seed.2, space.bits() ^ seed.3)
}

const IPV4: u8 = 4;

#[inline]
fn differences(one: &Address, other: &Address) -> [u64; 2] {
    let ([head, tail], [other_head, other_tail]) = (halves(*one), halves(*other));
    [head ^ other_head, tail ^ other_tail]
}

/// Address space, both endpoints in order, protocol: what makes two packets one biflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Address space.
    pub space: AddressSpace,
    /// Address of the lower endpoint.
    pub low: Address,
    /// Address of the higher endpoint.
    pub high: Address,
    /// Port of the lower endpoint.
    pub low_port: u16,
    /// Port of the higher endpoint.
    pub high_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6; an IPv4 address is no IPv6 address with the same number.
    pub ip_version: u8,
}

impl FlowKey {
    /// The key of a packet, and which endpoint sent it.
    #[inline]
    pub fn of(headers: &Headers) -> (Self, Sender) {
        let sender = sender_of(headers);
        let addresses = [headers.source, headers.destination];
        let ports = [headers.source_port, headers.destination_port];
        let (low, high) = (sender.place(), sender.other().place());
        let key = Self {
            space: headers.space,
            low: addresses[low],
            high: addresses[high],
            low_port: ports[low],
            high_port: ports[high],
            protocol: headers.protocol,
            ip_version: headers.ip_version,
        };
        (key, sender)
    }

    /// The key of a packet whose flow is named.
    #[inline]
    pub const fn of_named(headers: &Headers) -> Self {
        let source = (headers.source, headers.source_port);
        let destination = (headers.destination, headers.destination_port);
        let ((low, low_port), (high, high_port)) = match headers.sender {
            Sender::Low => (source, destination),
            Sender::High => (destination, source),
        };
        let Headers { space, protocol, ip_version, .. } = *headers;
        Self { space, low, high, low_port, high_port, protocol, ip_version }
    }

    /// The key of a packet known in brief, whose flow is named.
    #[inline]
    pub const fn of_brief(brief: &Brief) -> Self {
        let [low_port, high_port] = brief.ports();
        Self {
            space: brief.space,
            low: address_of(brief.ends[0]),
            high: address_of(brief.ends[1]),
            low_port,
            high_port,
            protocol: brief.protocol,
            ip_version: IPV4,
        }
    }

    /// Whether this is the key of a packet whose sender is known, without making the packet's own.
    #[inline]
    pub fn is_of(&self, headers: &Headers) -> bool {
        let source = (&headers.source, headers.source_port);
        let destination = (&headers.destination, headers.destination_port);
        let ((low, low_port), (high, high_port)) = match headers.sender {
            Sender::Low => (source, destination),
            Sender::High => (destination, source),
        };
        let [low_head, low_tail] = differences(&self.low, low);
        let [high_head, high_tail] = differences(&self.high, high);
        let port_differences = u64::from(self.low_port ^ low_port)
            | u64::from(self.high_port ^ high_port)
            | u64::from(self.protocol ^ headers.protocol)
            | u64::from(self.ip_version ^ headers.ip_version);
        let space = self.space.bits() ^ headers.space.bits();
        (low_head | low_tail | high_head | high_tail | port_differences | space) == 0
    }

    /// Whether this is the key of a packet known in brief, whose flow is named.
    #[inline]
    pub fn is_of_brief(&self, brief: &Brief) -> bool {
        let low = end_of(self.low, self.low_port) ^ brief.ends[0];
        let high = end_of(self.high, self.high_port) ^ brief.ends[1];
        let space = self.space.bits() ^ brief.space.bits();
        // Both octets at once.
        let kind = u16::from_le_bytes([self.protocol, self.ip_version])
            ^ u16::from_le_bytes([brief.protocol, IPV4]);
        (low | high | space | u64::from(kind)) == 0
    }

    /// Hash of the key under `seed`.
    #[inline]
    pub fn hash(&self, seed: HashSeed) -> u64 {
        if self.ip_version == IPV4 {
            let low = end_of(self.low, self.low_port);
            let high = end_of(self.high, self.high_port);
            return hash_v4(low, high, self.protocol, self.space, seed);
        }
        let [low_head, low_tail] = halves(self.low);
        let [high_head, high_tail] = halves(self.high);
        let ports = (u64::from(self.low_port) << 48)
            | (u64::from(self.high_port) << 32)
            | (u64::from(self.protocol) << 8)
            | u64::from(self.ip_version);
        let heads = mix(low_head ^ seed.0, high_head ^ seed.1);
        let tails = mix(low_tail ^ seed.2, high_tail ^ seed.3);
        let rest = mix(self.space.bits() ^ seed.1, ports ^ seed.2);
        mix(heads ^ tails ^ seed.0, rest ^ seed.3)
    }

    /// Address of an endpoint.
    pub const fn address(&self, endpoint: Sender) -> Address {
        match endpoint {
            Sender::Low => self.low,
            Sender::High => self.high,
        }
    }

    /// Port of an endpoint.
    pub const fn port(&self, endpoint: Sender) -> u16 {
        match endpoint {
            Sender::Low => self.low_port,
            Sender::High => self.high_port,
        }
    }
}

/// Secret of one run of the probe, the same for all its workers.
#[derive(Clone, Copy, Debug)]
pub struct HashSeed(u64, u64, u64, u64);

impl HashSeed {
    /// From the operating system's randomness.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        // `RandomState` is keyed by the operating system; four of its hashes make a seed.
        let word = |number: u64| RandomState::new().hash_one(number) | 1;
        Self(word(0), word(1), word(2), word(3))
    }

    /// From a secret that several probes share.
    pub fn of_secret(secret: &str) -> Self {
        let fixed = Self::fixed();
        let word = |start: u64| {
            let step = |word, octet: &u8| mix(word ^ u64::from(*octet) ^ fixed.0, fixed.1);
            secret.as_bytes().iter().fold(start, step) | 1
        };
        Self(word(fixed.0), word(fixed.1), word(fixed.2), word(fixed.3))
    }

    /// The words.
    #[inline]
    pub const fn words(self) -> [u64; 4] {
        [self.0, self.1, self.2, self.3]
    }

    /// The same on every run: for tests and benchmarks, which must be repeatable.
    pub const fn fixed() -> Self {
        Self(
            0x2d35_8dcc_aa6c_78a5,
            0x8bb8_4b93_962e_acc9,
            0x4b33_a62e_d433_d4a3,
            0x4d5a_2da5_1de1_aa47,
        )
    }
}

/// Hash of a few words under `seed`, for digests and fragment owners.
#[inline]
pub fn hash_words(words: [u64; 6], seed: HashSeed) -> u64 {
    let [a, b, c, d, e, f] = words;
    let first = mix(a ^ seed.0, b ^ seed.1);
    let second = mix(c ^ seed.2, d ^ seed.3);
    let third = mix(e ^ seed.1, f ^ seed.2);
    mix(first ^ second ^ seed.0, third ^ seed.3)
}

/// Both halves of an address as words.
#[inline]
pub fn halves(address: Address) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.0;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p])]
}

/// One step of the hash: both halves of a product.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves of the product are taken")]
pub const fn mix(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Segment, SegmentKind};

    fn packet() -> Headers {
        Headers {
            source: Address::v4([10, 0, 0, 2]),
            destination: Address::v4([10, 0, 0, 1]),
            source_port: 40_000,
            destination_port: 443,
            protocol: 6,
            ip_version: 4,
            ..Headers::default()
        }
    }

    fn answer(to: &Headers) -> Headers {
        Headers {
            source: to.destination,
            destination: to.source,
            source_port: to.destination_port,
            destination_port: to.source_port,
            ..*to
        }
    }

    #[test]
    fn both_directions_have_one_key_and_one_hash() {
        let (there, sender) = FlowKey::of(&packet());
        let (back, answerer) = FlowKey::of(&answer(&packet()));
        assert_eq!(there, back);
        assert_eq!(sender, answerer.other());
        let seed = HashSeed::random();
        assert_eq!(there.hash(seed), back.hash(seed));
    }

    #[test]
    fn each_part_of_the_key_changes_the_hash() {
        let seed = HashSeed::fixed();
        let base = FlowKey::of(&packet()).0;
        let other_space = AddressSpace::of_segment(Segment::new(0, SegmentKind::Vxlan, 4242));
        let variants = [
            FlowKey { space: other_space, ..base },
            FlowKey { low: Address::v4([10, 0, 0, 3]), ..base },
            FlowKey { high: Address::v4([10, 0, 1, 2]), ..base },
            FlowKey { low_port: 444, ..base },
            FlowKey { high_port: 1, ..base },
            FlowKey { protocol: 17, ..base },
            FlowKey { ip_version: 6, ..base },
        ];
        for variant in variants {
            assert_ne!(variant.hash(seed), base.hash(seed), "{variant:?}");
        }
    }

    #[test]
    fn a_key_knows_its_packets() {
        let seed = HashSeed::fixed();
        let mut there = packet();
        name_flow(&mut there, seed);
        let mut back = answer(&packet());
        name_flow(&mut back, seed);
        assert_eq!((there.hash, there.sender), (back.hash, back.sender.other()));
        let key = FlowKey::of(&there).0;
        assert!(key.is_of(&there) && key.is_of(&back));
        let others = [
            Headers { destination: Address::v4([10, 0, 1, 2]), ..there },
            Headers { source_port: 1, ..there },
            Headers { destination_port: 1, ..there },
            Headers { protocol: 17, ..there },
            Headers { ip_version: 6, ..there },
            Headers { sender: there.sender.other(), ..there },
            Headers {
                space: AddressSpace::of_segment(Segment::new(0, SegmentKind::Vlan, 1)),
                ..there
            },
        ];
        for other in others {
            assert!(!key.is_of(&other), "{other:?}");
        }
    }

    #[test]
    fn equal_endpoints_are_one_flow() {
        let mut to_itself = packet();
        to_itself.destination = to_itself.source;
        to_itself.destination_port = to_itself.source_port;
        assert_eq!(FlowKey::of(&to_itself).0, FlowKey::of(&answer(&to_itself)).0);
    }
}
