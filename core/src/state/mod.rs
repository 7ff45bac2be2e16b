//! Keyed state: typed tables in memory over a small byte-keyed backend.
//!
//! Operators work on Rust values in [`table::Table`]s. Below them a [`backend::StateBackend`] keeps bytes;
//! between the two, [`keyed::KeyedState`] freezes the tables at a barrier, serialises what changed piece by
//! piece while the operator goes on, and seals the backend's snapshot. In reading order: the key's hash,
//! the encoding, the table, its shards, the backend, what holds them together, and what does so where the tables hold
//! only a part ([`cached`]).
pub mod backend;
pub mod cached;
pub mod codec;
mod cursor;
pub mod hash;
pub mod keyed;
pub mod operator;
pub(crate) mod prefetch;
pub mod savepoint;
mod shard;
pub mod table;
