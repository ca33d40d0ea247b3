//! Memory of the tables that packets touch at random.
//!
//! In: how many entries, and the entry that fills them. Out: a table, all of it resident, or its entries
//! each by itself; lines of it fetched before they are needed.
//! Cost: all memory is written once, at start, so that no packet meets a page fault later. Fetching
//! ahead is one instruction a line, which waits for nothing.
//! Invariants: where the kernel has huge pages for the asking, large tables stand on them: a
//! random access then needs no walk through the page tables. Where not, they stand on ordinary
//! pages and all but the speed is the same.
//! Source: `madvise(2)`, `MADV_HUGEPAGE`.

/// Entries side by side, used as a slice is.
#[cfg(feature = "dpdk")]
pub type Table<T> = crate::dpdk::HugeTable<T>;

/// Entries side by side, used as a slice is.
#[cfg(not(feature = "dpdk"))]
pub type Table<T> = Box<[T]>;

/// One of several entries whose memory lies side by side, used as a box is.
#[cfg(feature = "dpdk")]
pub type Piece<T> = crate::dpdk::HugePiece<T>;

/// One of several entries, used as a box is.
#[cfg(not(feature = "dpdk"))]
pub type Piece<T> = Box<T>;

/// A table of `entries` entries.
#[cfg(feature = "dpdk")]
pub fn table<T: Copy>(entries: usize, fill: T) -> Table<T> {
    crate::dpdk::HugeTable::new(entries, fill)
}

/// A table of `entries` entries.
#[cfg(not(feature = "dpdk"))]
pub fn table<T: Copy>(entries: usize, fill: T) -> Table<T> {
    vec![fill; entries].into_boxed_slice()
}

/// So many entries that go their own ways.
#[cfg(feature = "dpdk")]
pub fn pieces<T: Copy>(entries: usize, fill: T) -> impl Iterator<Item = Piece<T>> {
    table(entries, fill).into_pieces()
}

/// So many entries that go their own ways.
#[cfg(not(feature = "dpdk"))]
pub fn pieces<T: Copy>(entries: usize, fill: T) -> impl Iterator<Item = Piece<T>> {
    (0..entries).map(move |_| Box::new(fill))
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

/// The same of the entry at `place` of a table, without a look at whether it has so many: behind its end
/// something is fetched in vain, and nothing else happens.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see `fetch`")]
pub fn fetch_at<T>(table: &[T], place: usize) {
    #[cfg(feature = "dpdk")]
    crate::dpdk::prefetch_at(table, place);
    #[cfg(not(feature = "dpdk"))]
    let _ = (table, place);
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

    #[test]
    fn pieces_are_as_many_as_were_asked_for() {
        let mut pieces: Vec<_> = pieces(3, [7_u16; 4]).collect();
        pieces[1][2] = 8;
        let all: Vec<_> = pieces.iter().map(|piece| **piece).collect();
        assert_eq!(all, [[7; 4], [7, 7, 8, 7], [7; 4]]);
    }
}
