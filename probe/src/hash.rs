//! Maps by keys that strangers choose.
//!
//! In: keys. Out: [`KeyedMap`], [`KeyedSet`]: the standard ones with a cheaper hash.
//! Cost: one multiplication for eight octets of a key.
//! Invariants: each map has a secret of its own, so nobody can choose keys that collide; the order
//! of such a map is the order of nothing: who gives out what is in it sorts it first.
//! Source: folded multiplication, as in wyhash and aHash.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map with a keyed hash.
pub type KeyedMap<K, V> = HashMap<K, V, Keyed>;

/// A set with a keyed hash.
pub type KeyedSet<K> = HashSet<K, Keyed>;

/// The secret of a map.
#[derive(Clone, Copy, Debug)]
pub struct Keyed(u64, u64);

impl Default for Keyed {
    fn default() -> Self {
        // `RandomState` is keyed by the operating system.
        let random = RandomState::new();
        Self(random.hash_one(0_u64), random.hash_one(1_u64) | 1)
    }
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    #[inline]
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.0, factor: self.1 }
    }
}

/// The hash of one key.
#[derive(Clone, Copy, Debug)]
pub struct KeyedHasher {
    state: u64,
    factor: u64,
}

impl Hasher for KeyedHasher {
    #[inline]
    fn finish(&self) -> u64 {
        // The table takes its tag from the high bits and its place from the low ones.
        fold(self.state, self.factor).rotate_left(23) ^ self.state
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.state = fold(self.state ^ value, self.factor);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        // Lengths stand before texts and arrays; adding them is enough, what follows is mixed.
        self.state = self.state.wrapping_add(value as u64).rotate_left(5);
    }
}

/// Both halves of a product.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves of the product are taken")]
pub const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_key_moves_tag_and_place() {
        let keyed = Keyed::default();
        let key = |bit: usize| {
            let mut octets = [0_u8; 20];
            octets[bit / 8] |= 1 << (bit % 8);
            octets
        };
        let nothing = keyed.hash_one([0_u8; 20]);
        for bit in 0..160 {
            let moved = keyed.hash_one(key(bit)) ^ nothing;
            assert!(moved.count_ones() > 8, "bit {bit}: {moved:016x}");
        }
        let all: HashSet<u64> = (0..160).map(|bit| keyed.hash_one(key(bit)) >> 40).collect();
        assert!(all.len() > 150, "{}", all.len());
    }

    #[test]
    fn numbers_in_a_row_fill_the_table_evenly() {
        let keyed = Keyed::default();
        let mut counts = [0_u32; 64];
        for number in 0..64_000_u64 {
            let place = usize::try_from(keyed.hash_one(number) & 63).expect("small");
            counts[place] += 1;
        }
        assert!(counts.iter().all(|count| (700..1_300).contains(count)), "{counts:?}");
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(Keyed::default().hash_one(1_u64), Keyed::default().hash_one(1_u64));
    }
}
