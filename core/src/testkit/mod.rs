//! What connectors and state backends are proved with, ours and a user's own: the feature `testkit`.
//!
//! It is the code that asks, and doubles of those who answer ([`entries`], [`store`]): nothing in the engine uses it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that is not satisfied has to panic")]
pub mod backend;
pub mod conformance;
pub mod damage;
pub mod entries;
pub mod harness;
pub mod sink;
pub mod source;
pub mod store;

/// Runs a test on this thread, with a clock that stands while anything is to be done and jumps when all wait for it: as
/// `#[tokio::test(start_paused = true)]` does.
pub fn run<R>(test: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(test)
}

/// Runs a test's future on this thread.
pub fn block_on<R>(future: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
