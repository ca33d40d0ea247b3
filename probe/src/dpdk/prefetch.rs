//! Memory that will be needed soon.
//!
//! In: places. Out: nothing; their cache lines are on the way.
//! Cost: one instruction a line, which waits for nothing.
//! Invariants: changes nothing that a program can see.
//! Source: `prefetcht0`; DPDK's `rte_prefetch0` is the same.

/// Octets of a cache line.
const LINE_BYTES: usize = 64;

/// What does not stand on a line of its own may end in one more than its size needs.
const fn last_byte<T>() -> Option<usize> {
    if align_of::<T>() < LINE_BYTES { size_of::<T>().checked_sub(1) } else { None }
}

/// Asks for all cache lines of `place`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is a few instructions")]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES).chain(last_byte::<T>()) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = core::ptr::from_ref(place).cast::<i8>().wrapping_add(offset);
        // SAFETY: a hint; it neither reads nor writes anything, and any address may be given.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
