//! Memory of a block of rows, which are written where they will be read.
//!
//! In: who wants the next row. Out: its place, with what an older row left there; the rows so far.
//! Cost: a row's octets are written once.
//! Invariants: the memory is written at start, and never changes its size.

use std::ops::Deref;

use crate::memory::{self, Piece};

use super::Row;

/// Rows in a block.
pub const ROWS_PER_BLOCK: usize = 256;

/// Rows whose memory is fetched before they are summed up.
const SUM_AHEAD: usize = 16;

/// Rows of one block.
#[derive(Debug)]
pub struct Rows {
    memory: Piece<[Row; ROWS_PER_BLOCK]>,
    count: usize,
}

impl Rows {
    /// No rows, and room for all.
    pub fn new() -> Self {
        Self::of_blocks(1).next().unwrap_or_else(|| unreachable!("it is one"))
    }

    /// The same for so many blocks, whose memory lies side by side.
    #[expect(
        clippy::large_stack_arrays,
        reason = "32 KiB, at start: what the blocks are filled with"
    )]
    pub fn of_blocks(blocks: usize) -> impl Iterator<Item = Self> {
        let memories = memory::pieces(blocks, [Row::default(); ROWS_PER_BLOCK]);
        memories.map(|memory| Self { memory, count: 0 })
    }

    /// Whether another row can be begun.
    #[inline]
    pub const fn has_room(&self) -> bool {
        self.count < ROWS_PER_BLOCK
    }

    /// Begins the next row; an older one's fields stand in it. `None` without room.
    #[inline]
    pub fn begin(&mut self) -> Option<&mut Row> {
        let row = self.memory.get_mut(self.count)?;
        self.count += 1;
        Some(row)
    }

    /// The row whose place among all has these low bits, if it was begun.
    #[inline]
    pub fn at_mut(&mut self, place: usize) -> Option<&mut Row> {
        let place = place % ROWS_PER_BLOCK;
        if place < self.count { Some(&mut self.memory[place]) } else { None }
    }

    /// Has the memory of a row fetched that is begun `ahead` rows behind the next one.
    #[inline]
    pub fn fetch_ahead(&self, ahead: usize) {
        if let Some(row) = self.memory.get(self.count + ahead) {
            memory::fetch_to_write(row);
        }
    }

    /// Has what packets touch fetched of the row whose place among all has these low bits, whether it was
    /// begun or not.
    #[inline]
    pub fn fetch(&self, place: usize) {
        self.memory[place % ROWS_PER_BLOCK].fetch_counts();
    }

    /// Packets of all rows. They may have been written long ago: lines are fetched ahead.
    pub fn packets_sum(&self) -> u64 {
        let packets = self.iter().enumerate().map(|(place, row)| {
            if let Some(later) = self.memory.get(place + SUM_AHEAD) {
                memory::fetch_to_write(later);
            }
            row.packets_sum()
        });
        packets.sum()
    }

    /// Forgets all rows.
    pub const fn clear(&mut self) {
        self.count = 0;
    }
}

impl Deref for Rows {
    type Target = [Row];

    #[inline]
    fn deref(&self) -> &[Row] {
        self.memory.get(..self.count).unwrap_or_default()
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_begun_one_behind_the_other_until_there_is_no_room() {
        let mut rows = Rows::new();
        assert!(rows.is_empty() && rows.at_mut(0).is_none());
        for place in 0..ROWS_PER_BLOCK {
            assert!(rows.has_room());
            rows.begin().expect("there is room").late_packets = 7;
            assert!(rows.at_mut(place).is_some_and(|row| row.late_packets == 7));
        }
        assert!(!rows.has_room() && rows.begin().is_none());
        assert_eq!(rows.len(), ROWS_PER_BLOCK);
        rows.clear();
        assert!(rows.is_empty() && rows.at_mut(0).is_none(), "what stands there is nobody's");
    }
}
