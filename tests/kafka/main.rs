//! Whole jobs against a real Kafka: what they read and write, who may, and what they say of themselves. That nothing is
//! lost or doubled whatever is killed is tested in `kafka_crash`. One program, since each takes a minute to link.
#![cfg(feature = "kafka")]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "real servers, real processes and the real clock, in a test"
)]
mod access;
mod inputs;
mod metrics;
mod refused;
mod said;
#[cfg(feature = "kafka-schemas")]
mod schemas;
mod sink_faults;
mod sink_jobs;
mod source_jobs;
#[cfg(feature = "kafka-tls")]
mod tls;
mod triggers;
mod until;
