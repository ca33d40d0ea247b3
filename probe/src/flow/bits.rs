//! One bit for each slot of the flow table.
//!
//! In: slots. Out: the next slot whose bit is set, going round.
//! Cost: an eighth of a byte a slot; a scan reads one word for 64 slots.
//! Invariants: bits are of slots below the number given to `new`.

use crate::index::FlowIndex;
use crate::memory;

const BITS: usize = 64;

/// A set of slots.
pub(super) struct SlotBits {
    words: memory::Table<u64>,
    hand: usize,
}

impl SlotBits {
    /// For so many slots, none of them in the set.
    pub(super) fn new(slots: usize) -> Self {
        Self { words: memory::table(slots.div_ceil(BITS).max(1), 0), hand: 0 }
    }

    #[inline]
    pub(super) fn set(&mut self, slot: FlowIndex) {
        self.words[slot.0 as usize / BITS] |= 1 << (slot.0 as usize % BITS);
    }

    /// Takes the next slot out, in order from the one before; looks at `words_max` words at most and
    /// lowers it by those that it looked at. `None`: `words_max` is used up.
    pub(super) fn take_next(&mut self, words_max: &mut usize) -> Option<FlowIndex> {
        loop {
            let word = &mut self.words[self.hand];
            if *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                let slot = self.hand * BITS + bit as usize;
                return u32::try_from(slot).ok().map(FlowIndex);
            }
            if *words_max == 0 {
                return None;
            }
            *words_max -= 1;
            self.hand = if self.hand + 1 == self.words.len() { 0 } else { self.hand + 1 };
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_out_in_order_and_once() {
        let mut bits = SlotBits::new(300);
        for slot in [299, 5, 64, 63, 5] {
            bits.set(FlowIndex(slot));
        }
        let mut words = bits.words.len();
        let mut taken = Vec::new();
        while let Some(slot) = bits.take_next(&mut words) {
            taken.push(slot.0);
        }
        assert_eq!((taken, words), (vec![5, 63, 64, 299], 0));
    }

    #[test]
    fn a_scan_is_bounded_and_goes_on_where_it_stood() {
        let mut bits = SlotBits::new(64 * 10);
        bits.set(FlowIndex(64 * 5));
        let mut words = 3;
        assert_eq!(bits.take_next(&mut words), None);
        words = 3;
        assert_eq!(bits.take_next(&mut words), Some(FlowIndex(320)));
    }
}
