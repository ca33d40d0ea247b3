//! Memory that will be needed soon.
//!
//! In: places. Out: nothing; their cache lines are on the way.
//! Cost: one instruction, which waits for nothing.
//! Invariants: changes nothing that a program can see.
//! Source: `prefetcht0`; DPDK's `rte_prefetch0` is the same.

/// Asks for the cache line in which `place` begins.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is one instruction")]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; it neither reads nor writes anything, and any address may be given.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
