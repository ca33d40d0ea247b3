//! Transparent huge pages for memory that is the probe's own.
//!
//! In: how many entries. Out: their memory, on huge pages from its beginning on, as one table or in
//! pieces that go their own ways.
//! Cost: one system call a table; an access is that of a slice, or of a box.
//! Invariants: large tables begin where a huge page does, else a part of a page at either end would be
//! of small ones; advice comes before memory is written, so that pages come huge.
//! Source: `madvise(2)`, `MADV_HUGEPAGE`.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{Advice, madvise};

/// A huge page of x86-64, and of ARM with pages of 4 KiB, in bytes.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Tables below half a huge page stay on small ones.
const HUGE_BYTES_MIN: usize = HUGE_PAGE_BYTES / 2;

/// Entries side by side, as many for good as there were at first.
pub struct HugeTable<T: Copy> {
    begin: NonNull<T>,
    entries: usize,
    layout: Layout,
}

// SAFETY: it owns its entries as a boxed slice does.
unsafe impl<T: Copy + Send> Send for HugeTable<T> {}
// SAFETY: the same.
unsafe impl<T: Copy + Sync> Sync for HugeTable<T> {}

impl<T: Copy> HugeTable<T> {
    /// So many entries, all of them `fill`. All their memory is written.
    ///
    /// # Panics
    /// Where they are more than memory can address.
    pub fn new(entries: usize, fill: T) -> Self {
        let layout = Layout::array::<T>(entries).expect("more than memory can address");
        let huge_bytes = huge_bytes(layout.size());
        let layout = if huge_bytes == 0 { layout } else { on_huge_pages(layout, huge_bytes) };
        let mut begin = NonNull::<T>::dangling();
        if layout.size() != 0 {
            // SAFETY: its size is not 0.
            let memory = unsafe { alloc(layout) };
            begin = NonNull::new(memory.cast()).unwrap_or_else(|| handle_alloc_error(layout));
        }
        if huge_bytes != 0 {
            // SAFETY: so many bytes are this table's own and begin a page, and the advice changes how pages
            // are backed, not what they hold. A kernel without huge pages refuses, and nothing else changes.
            let _ = unsafe { madvise(begin.as_ptr().cast(), huge_bytes, Advice::LinuxHugepage) };
        }
        for place in 0..entries {
            // SAFETY: `entries` of them lie there, as the layout was made for.
            let entry = unsafe { begin.add(place) };
            // SAFETY: the same; nobody else knows of it yet.
            unsafe { entry.write(fill) };
        }
        Self { begin, entries, layout }
    }

    /// Each entry by itself. The memory is given back with the last of them.
    pub fn into_pieces(self) -> impl ExactSizeIterator<Item = HugePiece<T>> {
        let table = Arc::new(self);
        (0..table.entries).map(move |place| HugePiece {
            // SAFETY: it is one of the table's entries.
            entry: unsafe { table.begin.add(place) },
            _table: Arc::clone(&table),
        })
    }
}

/// Bytes that huge pages are asked for, of so many: whole pages, of which the last is used at least by
/// half.
const fn huge_bytes(bytes: usize) -> usize {
    bytes.saturating_add(HUGE_BYTES_MIN) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
}

fn on_huge_pages(layout: Layout, huge_bytes: usize) -> Layout {
    let align = HUGE_PAGE_BYTES.max(layout.align());
    let layout = Layout::from_size_align(layout.size().max(huge_bytes), align);
    layout.expect("more than memory can address")
}

impl<T: Copy> Deref for HugeTable<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `entries` of them lie there and were written; pieces take the table away.
        unsafe { std::slice::from_raw_parts(self.begin.as_ptr(), self.entries) }
    }
}

impl<T: Copy> DerefMut for HugeTable<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the table is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.begin.as_ptr(), self.entries) }
    }
}

impl<T: Copy> Drop for HugeTable<T> {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            // SAFETY: it was allocated with this layout, and nothing of it is used any more.
            unsafe { dealloc(self.begin.as_ptr().cast(), self.layout) };
        }
    }
}

/// One entry of a table that was taken apart: used as a box is.
pub struct HugePiece<T: Copy> {
    entry: NonNull<T>,
    /// Keeps the memory; it is not used as a table any more.
    _table: Arc<HugeTable<T>>,
}

// SAFETY: it owns its entry as a box does; of the table nothing is shared but who is the last.
unsafe impl<T: Copy + Send> Send for HugePiece<T> {}
// SAFETY: the same.
unsafe impl<T: Copy + Sync> Sync for HugePiece<T> {}

impl<T: Copy> Deref for HugePiece<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the entry is this piece's alone, and its memory stays as long as `_table` does.
        unsafe { self.entry.as_ref() }
    }
}

impl<T: Copy> DerefMut for HugePiece<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the piece is borrowed exclusively.
        unsafe { self.entry.as_mut() }
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for HugePiece<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pages_are_asked_for() {
        const MIB: usize = 1 << 20;
        for (bytes, pages) in [(0, 0), (MIB - 1, 0), (MIB, 1), (2 * MIB, 1), (3 * MIB - 1, 1)] {
            assert_eq!(huge_bytes(bytes), pages * HUGE_PAGE_BYTES, "{bytes}");
        }
        assert_eq!(huge_bytes(44 << 20), 44 << 20);
    }

    #[test]
    fn tables_are_full_whatever_their_size() {
        for entries in [0, 1, 1 << 10, 700_001, 3 << 20] {
            let mut table = HugeTable::new(entries, 7_u16);
            assert_eq!(table.len(), entries);
            if huge_bytes(entries * 2) != 0 {
                assert_eq!(table.as_ptr().addr() % HUGE_PAGE_BYTES, 0);
            }
            assert!(table.iter().all(|entry| *entry == 7));
            table.fill(8);
            assert!(table.iter().all(|entry| *entry == 8));
        }
        assert_eq!(HugeTable::new(5, ()).len(), 5);
    }

    #[test]
    fn pieces_are_apart_and_outlive_each_other() {
        for entries in [0, 1, 200] {
            let mut pieces: Vec<_> =
                HugeTable::new(entries, [1_u64; 1_024]).into_pieces().collect();
            assert_eq!(pieces.len(), entries);
            for (piece, number) in pieces.iter_mut().zip(2..) {
                piece[1_023] = number;
            }
            let last = pieces.pop();
            let other = std::thread::spawn(move || pieces.iter().map(|piece| piece[1_023]).sum());
            let sum: u64 = other.join().expect("it ends");
            let all = 2 + entries as u64;
            let told = last.map_or(0, |last| last[1_023] + last[0] - 1);
            assert_eq!(sum + told, (2..all).sum::<u64>());
        }
    }
}
