//! Both directions and all copies of a flow to one worker.
//!
//! In: headers. Out: their flow key and hash, and the worker that owns it.
//! Cost: the hash; a copy of the headers where another worker owns the flow.
//! Invariants: the owner depends on the address space and the inner key alone. With one receiving
//! worker, fragments are resolved there; with several, at the owner of their datagram.
//! Source: symmetric hashing, METHODS of RSS (Woo & Park 2012); here in software because few NICs
//! hash inside tunnels.

pub mod fragments;
pub mod key;
pub mod ring;
pub mod shed;

pub use crate::index::Sender;
pub use key::{FlowKey, HashSeed, hash_words, name_brief, name_flow};

use crate::decode::Headers;

/// The worker that owns what has this hash, of `workers`.
#[inline]
pub fn owner(hash: u64, workers: usize) -> usize {
    // The high half picks the worker, the low half the place in its table (multiply-shift).
    (((hash >> 32) * workers as u64) >> 32) as usize
}

/// Hash of the datagram that a fragment belongs to.
pub fn datagram_hash(headers: &Headers, seed: HashSeed) -> u64 {
    let [source_head, source_tail] = key::halves(headers.source);
    let [destination_head, destination_tail] = key::halves(headers.destination);
    let rest = (u64::from(headers.ip_identification) << 8) | u64::from(headers.protocol);
    hash_words(
        [headers.space.bits(), source_head, source_tail, destination_head, destination_tail, rest],
        seed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_in_range_and_even() {
        let mut packets = [0_u32; 3];
        for port in 0..30_000 {
            let headers = Headers { source_port: port, protocol: 6, ..Headers::default() };
            let hash = FlowKey::of(&headers).0.hash(HashSeed::fixed());
            packets[owner(hash, 3)] += 1;
        }
        assert!(packets.iter().all(|count| (9_000..11_000).contains(count)), "{packets:?}");
    }
}
