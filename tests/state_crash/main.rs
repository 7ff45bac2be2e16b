//! The job of the crash tests, killed over every backend that keeps state elsewhere than in the process, with tables
//! so small that most of the state is.
//!
//! What is killed, and what it is held against, is in tests/crash; a backend adds a job file, and what it might leave
//! lying about.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
#[path = "../crash/child.rs"]
#[allow(dead_code, reason = "kill points are not named here")]
mod child;
#[path = "../crash/job.rs"]
mod job;
#[path = "../crash/killed.rs"]
mod killed;
mod over;
#[path = "../crash/process.rs"]
#[allow(dead_code, reason = "kill points are not named here")]
mod process;
#[path = "../crash/world.rs"]
mod world;

mod memory;
mod moves;
#[cfg(feature = "object-store")]
mod object_store;
#[cfg(feature = "redis")]
mod redis;
#[cfg(all(feature = "hdfs", feature = "object-store"))]
mod remote;
mod renamed;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "s3")]
mod s3;
