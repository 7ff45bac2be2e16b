//! The one home of clock, randomness and spawning.
//!
//! Everything that could make two runs differ passes through here, so that the simulation can run the
//! engine on a paused clock and one seed; a lint keeps `Instant::now`, `sleep` and `spawn` out of every
//! other file. Operators call none of these: they get their time as an argument.
//!
//! A paused tokio clock holds `now` and `sleep` still, and a runtime of one thread the order of tasks. Two
//! things are left that differ from run to run: the machine's clock, and what has to be unlike everything
//! else. `simulated` holds those; it is compiled into tests only (the feature `testkit`).
#![allow(clippy::disallowed_methods)]
use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
pub use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep},
};

/// The monotonic clock; virtual while tokio's clock is paused.
pub fn now() -> Instant {
    Instant::now()
}

/// The machine's clock, in milliseconds since 1970-01-01 UTC. For people to read and for the guard
/// against far-future timestamps; nothing is ever ordered by it.
pub fn wall_ms() -> i64 {
    #[cfg(feature = "testkit")]
    if let Some(ms) = simulated::wall_ms() {
        return ms;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// A number unlike any other, in this process or another: for names of which no two may be equal. The
/// standard library's hash keys come from the operating system, and differ from call to call.
pub fn unique() -> u64 {
    #[cfg(feature = "testkit")]
    if let Some(drawn) = simulated::unique() {
        return drawn;
    }
    RandomState::new().hash_one(std::process::id())
}

/// Waits for `duration`.
pub fn sleep(duration: Duration) -> Sleep {
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

/// Runs work on a thread of its own: what has to go on where no runtime is, as in a destructor.
///
/// # Errors
/// The operating system's, when it grants no thread.
pub fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// One output of splitmix64, for jitter: `seed` is advanced.
pub fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What a paused clock does not hold still, for this thread.
#[cfg(feature = "testkit")]
pub mod simulated {
    use super::{Instant, now, random};
    use std::cell::Cell;

    thread_local! {
        static SEED: Cell<Option<u64>> = const { Cell::new(None) };
        static WALL: Cell<Option<(i64, Instant)>> = const { Cell::new(None) };
        static LIVING: Cell<usize> = const { Cell::new(0) };
    }

    /// While it lives, this thread's machine clock goes with the paused one and all numbers come from a seed.
    #[derive(Debug)]
    pub struct Simulated(());

    /// Begins, at this reading of the machine's clock. To be called inside of the runtime whose clock is paused.
    pub fn begin(seed: u64, wall_ms: i64) -> Simulated {
        LIVING.set(0);
        let simulated = wall(wall_ms);
        SEED.set(Some(seed));
        simulated
    }

    /// As `begin` with numbers as they are otherwise, for more than one at a time: while another one lives, time goes on
    /// from where that one is.
    pub fn wall(wall_ms: i64) -> Simulated {
        if LIVING.replace(LIVING.get() + 1) == 0 {
            WALL.set(Some((wall_ms, now())));
        }
        Simulated(())
    }

    /// Whether the clock of this runtime is paused: then it stands while the machine's goes on.
    pub fn is_paused() -> bool {
        let (before, real) = (now(), std::time::Instant::now());
        while real.elapsed() < std::time::Duration::from_micros(1) {
            std::hint::spin_loop();
        }
        now() == before
    }

    impl Drop for Simulated {
        fn drop(&mut self) {
            LIVING.set(LIVING.get().saturating_sub(1));
            if LIVING.get() == 0 {
                SEED.set(None);
                WALL.set(None);
            }
        }
    }

    pub(super) fn wall_ms() -> Option<i64> {
        WALL.get().map(|(ms, at)| ms + now().duration_since(at).as_millis() as i64)
    }

    pub(super) fn unique() -> Option<u64> {
        let mut seed = SEED.get()?;
        let drawn = random(&mut seed);
        SEED.set(Some(seed));
        Some(drawn)
    }
}
