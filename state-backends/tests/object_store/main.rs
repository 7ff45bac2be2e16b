//! State in object stores keeps the contract of state backends: the public suite in memory, in a directory and on real
//! servers, and what is its own to keep: nothing leaks, nothing that is needed is deleted, damage is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
mod collected;
mod conforms;
mod kit;
mod refused;
#[cfg(any(feature = "hdfs", feature = "s3"))]
mod servers;
