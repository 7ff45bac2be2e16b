//! Real servers for tests, and for people to try jobs out: started in a temporary folder, on free ports of
//! 127.0.0.1, and gone when their owner is, even if it was killed.
//!
//! A double of a server is as wrong as what its author believes. What the engine promises at its edges is
//! therefore shown against the real thing: killed, restarted, and seen through a proxy that loses replies. What a
//! server needs (jars, a binary) is fetched once into `~/.cache/tidegate`. This is no engine code: nothing
//! here is published, and the engine depends on none of it.
#![allow(clippy::disallowed_methods, reason = "no engine code: real processes and the real clock")]
#![allow(clippy::missing_errors_doc, reason = "everything here fails in the same way: see Failed")]

mod cache;
mod go;
pub mod hdfs;
pub mod http;
pub mod kafka;
pub mod line;
mod log;
mod maven;
mod ports;
mod process;
pub mod proxy;
pub mod redis;
pub mod registry;
pub mod s3;
mod tool;
pub mod wheel;
pub mod without;

/// What went wrong, for people: what was tried, why it failed, and what helps.
pub type Failed = String;
