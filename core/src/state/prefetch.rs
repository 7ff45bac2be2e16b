//! The one place of this crate that is `unsafe`: asking the processor for a cache line before it is needed.
//!
//! A load would do the same, but holds up whatever comes behind it until its line is there; a request does not.
//! With 5 million keys that makes keyed state 1.6 times as fast (docs/design/0002).

/// Asks for the cache line at a reference. Does nothing on processors where nobody has measured it.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn prefetch<T>(at: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is a part of every x86-64, and a prefetch changes nothing that a program can see, whatever the
        // address; this one is a live reference's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) };
    }
    let _ = at;
}
