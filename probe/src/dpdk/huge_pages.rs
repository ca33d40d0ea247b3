//! Transparent huge pages for memory that is the probe's own.
//!
//! In: memory that has not been written yet. Out: nothing; pages that come on first use are huge.
//! Cost: one system call.
//! Invariants: what the memory holds does not change.
//! Source: `madvise(2)`, `MADV_HUGEPAGE`.

use std::io;
use std::mem::MaybeUninit;

use rustix::mm::{Advice, madvise};

/// The smallest page of the processors that DPDK knows, in bytes.
const PAGE_BYTES: usize = 4_096;

/// Asks for huge pages under `memory`, but for the parts of pages at its ends.
///
/// # Errors
/// The system's, where it has none to give; the memory is usable all the same.
pub fn prefer_huge_pages<T>(memory: &mut [MaybeUninit<T>]) -> io::Result<()> {
    let bytes = size_of_val(memory);
    let begin = memory.as_mut_ptr().cast::<u8>();
    let skipped = begin.align_offset(PAGE_BYTES);
    let whole = bytes.saturating_sub(skipped) / PAGE_BYTES * PAGE_BYTES;
    if whole == 0 {
        return Ok(());
    }
    let first_page = begin.wrapping_add(skipped);
    // SAFETY: the range lies inside `memory`, which is borrowed exclusively, and this advice
    // changes how pages are backed, not what they hold.
    unsafe { madvise(first_page.cast(), whole, Advice::LinuxHugepage) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_size_may_be_asked_for() {
        for entries in [0, 1, 1 << 10, 3 << 20] {
            let mut memory = Vec::<u16>::with_capacity(entries);
            // A kernel may be built without them; what must hold is that nothing breaks.
            let _ = prefer_huge_pages(memory.spare_capacity_mut());
            memory.resize(entries, 7);
            assert!(memory.iter().all(|entry| *entry == 7));
        }
    }
}
