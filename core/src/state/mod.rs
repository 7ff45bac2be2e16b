//! Keyed state: typed tables in memory over a small byte-keyed backend.
//!
//! Operators work on Rust values in [`table::Table`]s. Below them a [`backend::StateBackend`] keeps bytes;
//! between the two, [`keyed::KeyedState`] freezes the tables at a barrier, serialises what changed piece by
//! piece while the operator goes on, and seals the backend's snapshot. In reading order: the key's hash,
//! the encoding, the table, its shards, the backend, and what holds them together.
pub mod backend;
pub mod codec;
mod cursor;
pub mod hash;
pub mod keyed;
mod prefetch;
mod shard;
pub mod table;
