//! Micro-batches: what `foreach_batch` hands over, what the triggers read, how a job ends by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
mod bounded;
mod bounded_triggers;
mod crash;
mod every;
mod example;
mod foreach_batch;
#[path = "../engine/kit.rs"]
#[allow(dead_code, reason = "it is the engine's tests'")]
mod kit;
#[path = "../crash/process.rs"]
#[allow(dead_code, reason = "it is the crash tests'")]
mod process;
mod shelf;
#[path = "../engine/store.rs"]
#[allow(dead_code, reason = "it is the engine's tests'")]
mod store;
