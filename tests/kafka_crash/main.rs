//! Kafka to Kafka, killed: the job, the broker, the connection. What is judged is read with `read_committed` by
//! Kafka's own Java client, against a reference that shares no code with the engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
mod broker;
mod child;
mod cluster;
mod job;
mod kills;
mod others;
#[path = "../crash/process.rs"]
mod process;
mod refused;
mod world;
mod zombies;
