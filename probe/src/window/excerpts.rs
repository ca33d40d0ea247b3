//! Payload on its way to the aggregation thread.
//!
//! In: excerpts of packets. Out: the same, a block at a time.
//! Cost: one copy of the octets; the memory of a block is taken at start.
//! Invariants: a block has [`EXCERPTS_PER_BLOCK`] excerpts and [`OCTETS_PER_BLOCK`] octets at most.
//! Source: none.

use crate::app::{EXCERPT_OCTETS_MAX, Excerpt};

const EXCERPTS_PER_BLOCK: usize = 64;
const OCTETS_PER_BLOCK: usize = 32 << 10;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = EXCERPTS_PER_BLOCK * size_of::<Excerpt>() + OCTETS_PER_BLOCK;

const _: () = assert!(EXCERPT_OCTETS_MAX <= OCTETS_PER_BLOCK, "an empty block has room for any");

/// Payload of packets, in the order in which they came.
#[derive(Debug, Default)]
pub struct ExcerptBlock {
    excerpts: Vec<Excerpt>,
    octets: Vec<u8>,
}

impl ExcerptBlock {
    pub(super) fn empty() -> Self {
        Self {
            excerpts: Vec::with_capacity(EXCERPTS_PER_BLOCK),
            octets: Vec::with_capacity(OCTETS_PER_BLOCK),
        }
    }

    /// One alone.
    pub fn of(excerpt: &Excerpt, payload: &[u8]) -> Self {
        let mut block = Self::empty();
        // An empty block has room.
        let _ = block.push(excerpt, payload);
        block
    }

    /// Adds one, of which as much is kept as there may be; `false` where there is no room.
    pub(super) fn push(&mut self, excerpt: &Excerpt, payload: &[u8]) -> bool {
        let octets = payload.len().min(EXCERPT_OCTETS_MAX);
        if self.excerpts.len() >= EXCERPTS_PER_BLOCK
            || self.octets.len() + octets > OCTETS_PER_BLOCK
        {
            return false;
        }
        self.octets.extend_from_slice(payload.get(..octets).unwrap_or_default());
        let octets = u16::try_from(octets).unwrap_or(u16::MAX);
        self.excerpts.push(Excerpt { octets, ..*excerpt });
        true
    }

    /// Each with its octets.
    pub fn iter(&self) -> impl Iterator<Item = (&Excerpt, &[u8])> {
        let mut rest = &self.octets[..];
        self.excerpts.iter().map(move |excerpt| {
            let (own, others) = rest.split_at(usize::from(excerpt.octets).min(rest.len()));
            rest = others;
            (excerpt, own)
        })
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.excerpts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.excerpts.is_empty()
    }

    /// Whether memory was taken for any.
    pub(super) fn has_memory(&self) -> bool {
        self.octets.capacity() > 0
    }

    pub(super) fn clear(&mut self) {
        self.excerpts.clear();
        self.octets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_come_out_as_they_went_in() {
        let mut block = ExcerptBlock::empty();
        let long = vec![7; EXCERPT_OCTETS_MAX + 5];
        let payloads: [&[u8]; 4] = [b"one", b"", &long, b"four"];
        for (sequence, payload) in (0..).zip(payloads) {
            assert!(block.push(&Excerpt { sequence, ..Excerpt::default() }, payload));
        }
        let out: Vec<_> = block.iter().map(|(it, octets)| (it.sequence, octets.len())).collect();
        assert_eq!(out, [(0, 3), (1, 0), (2, EXCERPT_OCTETS_MAX), (3, 4)]);
        assert_eq!(block.iter().nth(3).map(|(_, octets)| octets), Some(&b"four"[..]));
        block.clear();
        let taken = (0..100).take_while(|_| block.push(&Excerpt::default(), &long)).count();
        assert_eq!(taken, OCTETS_PER_BLOCK / EXCERPT_OCTETS_MAX);
        block.clear();
        let taken = (0..100).take_while(|_| block.push(&Excerpt::default(), b"a")).count();
        assert_eq!(taken, EXCERPTS_PER_BLOCK);
    }
}
