//! Memory that will be needed soon.
//!
//! In: places. Out: nothing; their cache lines are on the way.
//! Cost: one instruction a line, which waits for nothing.
//! Invariants: changes nothing that a program can see.
//! Source: `prefetcht0` and `prefetchw`; DPDK's `rte_prefetch0` and `rte_prefetch0_write` are the same.

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
    each_line::<T>(core::ptr::from_ref(place), line_to_read);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The same of the entry at `place` of a table. Behind its end it asks for what may be nobody's: that
/// costs a comparison less, and time where it is often.
#[inline]
pub fn prefetch_at<T>(table: &[T], place: usize) {
    #[cfg(target_arch = "x86_64")]
    each_line::<T>(table.as_ptr().wrapping_add(place), line_to_read);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (table, place);
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line_to_read(line: *const i8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it neither reads nor writes anything, and any address may be given.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
}

/// The same for what will be written: no other core has the lines any more, so that a store need not
/// ask for them.
#[inline]
pub fn prefetch_to_write<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // The compiler knows the instruction only where it may expect a processor that has it; all others
    // that DPDK runs on take it for one that does nothing.
    each_line::<T>(core::ptr::from_ref(place), |line| {
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                "prefetchw [{line}]",
                line = in(reg) line.addr(),
                options(nostack, preserves_flags, nomem)
            );
        };
    });
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is nothing but its loop, which is no loop")]
fn each_line<T>(place: *const T, fetch: impl Fn(*const i8)) {
    let begin = place.cast::<i8>();
    let mut offset = 0;
    while offset < lines_end::<T>() {
        fetch(begin.wrapping_add(offset.min(size_of::<T>() - 1)));
        offset += LINE_BYTES;
    }
}
