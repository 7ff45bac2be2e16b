//! The one home of clock, randomness and spawning.
//!
//! Everything that could make two runs differ passes through here, so that the simulation can run the
//! engine on a paused clock and one seed; a lint keeps `Instant::now`, `sleep` and `spawn` out of every
//! other file. Operators call none of these: they get their time as an argument.
#![allow(clippy::disallowed_methods)]
use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
pub use tokio::{task::JoinHandle, time::Instant};

/// The monotonic clock; virtual while tokio's clock is paused.
pub fn now() -> Instant {
    Instant::now()
}

/// The machine's clock, in milliseconds since 1970-01-01 UTC. For people to read and for the guard
/// against far-future timestamps; nothing is ever ordered by it.
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// Waits for `duration`.
pub fn sleep(duration: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(duration)
}

/// Starts a tokio task on the current runtime.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// A spawned task that ends with its owner: what a dead attempt had running must not go on.
#[derive(Debug)]
pub struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}
impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}
impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// As [`spawn`], owned.
pub fn spawn_owned<F>(future: F) -> AbortOnDrop<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    AbortOnDrop(spawn(future))
}

/// Runs blocking work (files, decompression) on tokio's pool for it.
pub fn spawn_blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    tokio::task::spawn_blocking(work)
}

/// One output of splitmix64, for jitter: `seed` is advanced.
pub fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
