//! The canonical key of a biflow, and its hash.
//!
//! In: headers. Out: [`FlowKey`], equal for both directions and all copies; a 64-bit hash of it.
//! Cost: one 128-bit comparison and four multiplications.
//! Invariants: `FlowKey` of a packet and of its answer are equal; the hash is seeded at start, so
//! nobody outside can aim at one bucket, and it shows in no output.
//! Source: biflow, RFC 5103 §2; multiply-and-fold mixing as in wyhash (Wang Yi, public domain).

use crate::decode::{Address, Headers};
use crate::inventory::AddressSpace;

/// Which of the two endpoints of a [`FlowKey`] sent a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Sender {
    /// The endpoint with the lower (address, port).
    #[default]
    Low = 0,
    /// The endpoint with the higher (address, port).
    High = 1,
}

impl Sender {
    /// The other endpoint.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }

    /// Place in arrays of two.
    #[inline]
    pub const fn place(self) -> usize {
        self as usize
    }
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
        let source = (u128::from_be_bytes(headers.source.0), headers.source_port);
        let destination = (u128::from_be_bytes(headers.destination.0), headers.destination_port);
        let sender = if source <= destination { Sender::Low } else { Sender::High };
        let key = match sender {
            Sender::Low => Self {
                space: headers.space,
                low: headers.source,
                high: headers.destination,
                low_port: headers.source_port,
                high_port: headers.destination_port,
                protocol: headers.protocol,
                ip_version: headers.ip_version,
            },
            Sender::High => Self {
                space: headers.space,
                low: headers.destination,
                high: headers.source,
                low_port: headers.destination_port,
                high_port: headers.source_port,
                protocol: headers.protocol,
                ip_version: headers.ip_version,
            },
        };
        (key, sender)
    }

    /// Hash of the key under `seed`.
    #[inline]
    pub fn hash(&self, seed: HashSeed) -> u64 {
        let [low_head, low_tail] = halves(self.low);
        let [high_head, high_tail] = halves(self.high);
        let ports = (u64::from(self.low_port) << 48)
            | (u64::from(self.high_port) << 32)
            | (u64::from(self.protocol) << 8)
            | u64::from(self.ip_version);
        let heads = fold(low_head ^ seed.0, high_head ^ seed.1);
        let tails = fold(low_tail ^ seed.2, high_tail ^ seed.3);
        let rest = fold(self.space.bits() ^ seed.1, ports ^ seed.2);
        fold(heads ^ tails ^ seed.0, rest ^ seed.3)
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
    let first = fold(a ^ seed.0, b ^ seed.1);
    let second = fold(c ^ seed.2, d ^ seed.3);
    let third = fold(e ^ seed.1, f ^ seed.2);
    fold(first ^ second ^ seed.0, third ^ seed.3)
}

/// Both halves of an address as words.
#[inline]
pub fn halves(address: Address) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.0;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p])]
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves of the product are taken")]
const fn fold(a: u64, b: u64) -> u64 {
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
    fn equal_endpoints_are_one_flow() {
        let mut to_itself = packet();
        to_itself.destination = to_itself.source;
        to_itself.destination_port = to_itself.source_port;
        assert_eq!(FlowKey::of(&to_itself).0, FlowKey::of(&answer(&to_itself)).0);
    }
}
