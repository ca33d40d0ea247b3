//! What a cache line of a large table costs on this machine.
//!
//! In: the size of a table. Out: [`MemoryLatency`].
//! Cost: a table of that size for a moment, and about a quarter of a second.
//! Invariants: the table is made as those of the packet path are ([`memory::table`]), and so stands
//! on huge pages where the kernel has them. The chain of dependent loads goes through all lines in
//! one round, in an order that no prefetcher guesses; updates look at all lines of a group before
//! they change the first, as a worker does with a burst.
//! Source: one round through all places, Sattolo 1986 (An algorithm to generate a random cyclic
//! permutation); numbers, Marsaglia 2003 (Xorshift RNGs).

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use crate::memory;
use crate::time::thread_cpu_ns;

use super::{machine, ratio};

/// Bytes of a table at most; beyond, latency hardly grows: neither caches nor page tables hold it.
pub(super) const TABLE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a table at least.
const TABLE_BYTES_MIN: u64 = 1 << 16;

/// Lines looked at before the first is changed: a burst.
const GROUP: usize = 32;

/// Loads and updates that are measured.
const STEPS: u32 = 1 << 20;

/// One line: where the chain goes on, and what updates change.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    next: u32,
    counts: [u64; 2],
}

/// Nanoseconds of CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryLatency {
    /// Size of the table.
    pub table_bytes: u64,
    /// A load whose address is the load before.
    pub dependent_load_ns: f64,
    /// An update of a line that was looked at with the others of its group.
    pub grouped_update_ns: f64,
}

/// Measures tables of `bytes`, within [`TABLE_BYTES_MAX`] and a quarter of the memory that is free.
pub(super) fn measure(bytes: u64) -> MemoryLatency {
    let free_bytes = machine::available_bytes() / 4;
    let bytes = bytes.min(TABLE_BYTES_MAX).min(free_bytes).max(TABLE_BYTES_MIN);
    let lines = usize::try_from(bytes / 64).unwrap_or(1 << 10);
    let mut table = memory::table(lines, Line { next: 0, counts: [0; 2] });
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    chain(&mut table, &mut numbers);
    let dependent_load_ns = timed(|| follow(&table));
    let grouped_update_ns = timed(|| update(&mut table, &mut numbers));
    MemoryLatency { table_bytes: lines as u64 * 64, dependent_load_ns, grouped_update_ns }
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun_ns = thread_cpu_ns();
    work();
    ratio(thread_cpu_ns() - begun_ns, STEPS.into())
}

/// Makes one round through all lines.
fn chain(table: &mut [Line], numbers: &mut Numbers) {
    for (place, line) in (0..).zip(table.iter_mut()) {
        line.next = place;
    }
    for place in (1..table.len()).rev() {
        let other = numbers.below(place);
        let (head, tail) = table.split_at_mut(place);
        std::mem::swap(&mut head[other].next, &mut tail[0].next);
    }
}

fn follow(table: &[Line]) {
    let mut place = 0;
    for _ in 0..STEPS {
        place = table[place as usize].next;
    }
    black_box(place);
}

fn update(table: &mut [Line], numbers: &mut Numbers) {
    let mut group = [0; GROUP];
    for _ in 0..STEPS as usize / GROUP {
        let mut touched = 0;
        for place in &mut group {
            *place = numbers.below(table.len());
            touched ^= table[*place].next;
        }
        black_box(touched);
        for place in group {
            let line = &mut table[place];
            line.counts[0] += 1;
            line.counts[1] += u64::from(line.next);
        }
    }
    black_box(table);
}

struct Numbers(u64);

impl Numbers {
    #[inline]
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * end as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_round() {
        let mut table = vec![Line { next: 0, counts: [0; 2] }; 1_000];
        chain(&mut table, &mut Numbers(7));
        let (mut place, mut steps) = (0, 0);
        loop {
            place = table[place as usize].next;
            steps += 1;
            if place == 0 {
                break;
            }
        }
        assert_eq!(steps, 1_000);
    }

    #[test]
    fn sizes_are_bounded_and_costs_positive() {
        let small = measure(0);
        assert_eq!(small.table_bytes, TABLE_BYTES_MIN);
        assert!(small.dependent_load_ns > 0.0 && small.grouped_update_ns > 0.0, "{small:?}");
    }
}
