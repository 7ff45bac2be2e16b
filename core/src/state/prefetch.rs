//! The one place of this crate that is `unsafe`: asking the processor for a cache line before it is needed.
//!
//! A load would do the same, but holds up whatever comes behind it until the line is there, a request does
//! not: with 5 million keys a batch of look-ups takes two thirds of the time (docs/design/0002).

/// Asks for the cache line at a reference.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) fn prefetch<T>(at: &T) {
    let at = &raw const *at;
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is a part of every x86-64, and a prefetch changes nothing that a program can see, whatever the
        // address; this one is a live reference's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above; the instruction has no operand but the address, and no effect on memory or flags.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, readonly, preserves_flags));
    }
    let _ = at;
}
