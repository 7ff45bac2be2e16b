//! The Redis backend against a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
#![allow(clippy::disallowed_methods, reason = "real servers, and the real clock")]
mod conformance;
mod faults;
mod history;
mod refusals;
mod told;
mod world;
