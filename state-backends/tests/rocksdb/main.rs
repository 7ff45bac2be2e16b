//! The backend `rocksdb` keeps the contract of state backends, and what is its own to keep.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
mod directories;
mod kit;
mod measured;
mod snapshots;

use tidegate_core::testkit::{backend::conformance, damage::damage};
use tidegate_state::RocksDb;

#[test]
fn it_conforms() {
    conformance(|| RocksDb, 24);
}

#[test]
fn damage_to_any_object_is_refused_and_named() {
    assert!(damage(|| RocksDb) > 3, "a snapshot has files of several checkpoints, and a manifest");
}
