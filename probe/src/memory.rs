//! Memory of the tables that packets touch at random.
//!
//! In: how many entries, and the entry that fills them. Out: a boxed slice, all of it resident; lines
//! of it fetched before they are needed.
//! Cost: all memory is written once, at start, so that no packet meets a page fault later. Fetching
//! ahead is one instruction a line, which waits for nothing.
//! Invariants: where the kernel has huge pages for the asking, large tables stand on them: a
//! random access then needs no walk through the page tables. Where not, they stand on ordinary
//! pages and all but the speed is the same.
//! Source: `madvise(2)`, `MADV_HUGEPAGE`.

/// Tables below this gain nothing from huge pages.
const HUGE_BYTES_MIN: usize = 4 << 20;

/// A table of `entries` entries.
pub fn table<T: Clone>(entries: usize, fill: T) -> Box<[T]> {
    let mut table = Vec::with_capacity(entries);
    if entries.saturating_mul(size_of::<T>()) >= HUGE_BYTES_MIN {
        prefer_huge_pages(&mut table);
    }
    table.resize(entries, fill);
    table.into_boxed_slice()
}

/// Has the cache lines of `place` fetched, while the program goes on. Without DPDK nothing is done,
/// and all but the speed is the same.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is a few instructions")]
pub fn fetch<T>(place: &T) {
    #[cfg(feature = "dpdk")]
    crate::dpdk::prefetch(place);
    #[cfg(not(feature = "dpdk"))]
    let _ = place;
}

/// The same for what will be written. Another thread read that memory last, so its lines are asked
/// for as one's own.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see `fetch`")]
pub fn fetch_to_write<T>(place: &T) {
    #[cfg(feature = "dpdk")]
    crate::dpdk::prefetch_to_write(place);
    #[cfg(not(feature = "dpdk"))]
    let _ = place;
}

/// The same for what is written when `ahead` more entries stand in a block.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see `fetch`")]
pub fn fetch_ahead<T>(block: &mut Vec<T>, ahead: usize) {
    if let Some(place) = block.spare_capacity_mut().get(ahead) {
        fetch_to_write(place);
    }
}

#[cfg(feature = "dpdk")]
fn prefer_huge_pages<T>(table: &mut Vec<T>) {
    // Only advice: a kernel without huge pages refuses, and nothing else changes.
    let _ = crate::dpdk::prefer_huge_pages(table.spare_capacity_mut());
}

#[cfg(not(feature = "dpdk"))]
fn prefer_huge_pages<T>(_: &mut Vec<T>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_full_whatever_their_size() {
        for entries in [0, 1, 3 << 20] {
            let table = table(entries, 7_u16);
            assert_eq!(table.len(), entries);
            assert!(table.iter().all(|entry| *entry == 7));
        }
    }
}
