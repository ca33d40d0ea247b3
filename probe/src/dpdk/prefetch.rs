//! Memory that will be needed soon.
//!
//! In: places. Out: nothing; their cache lines are on the way.
//! Cost: one instruction a line, which waits for nothing.
//! Invariants: changes nothing that a program can see.
//! Source: `prefetcht0`; DPDK's `rte_prefetch0` is the same.

/// Octets of a cache line.
const LINE_BYTES: usize = 64;

/// What does not begin where a line does may end in one more than its size needs.
const fn lines_end<T>() -> usize {
    let straddles = align_of::<T>() < LINE_BYTES && size_of::<T>() > align_of::<T>();
    if straddles { size_of::<T>() + LINE_BYTES - 1 } else { size_of::<T>() }
}

/// Asks for all cache lines of `place`.
#[inline]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let begin = core::ptr::from_ref(place).cast::<i8>();
        let mut offset = 0;
        while offset < lines_end::<T>() {
            let line = begin.wrapping_add(offset.min(size_of::<T>() - 1));
            // SAFETY: a hint; it neither reads nor writes anything, and any address may be given.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
            offset += LINE_BYTES;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
