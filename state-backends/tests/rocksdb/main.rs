//! The backend `rocksdb` keeps the contract of state backends, and what is its own to keep.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
mod directories;
mod kit;
mod local;
mod measured;
mod snapshots;

use futures::future::BoxFuture;
use std::{path::Path, sync::Arc};
use tidegate_checkpoint::error::Result;
use tidegate_core::{
    state::backend::{OpenContext, RunId, StateBackend, StateBackendFactory},
    testkit::{backend::conformance, damage::damage},
};
use tidegate_state::RocksDb;

/// Where files cost nothing, if there is such a place: the suites open databases by the ten thousand.
const QUICK: &str = "/dev/shm";

#[derive(Default)]
struct Quick(RocksDb);

impl StateBackendFactory for Quick {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn open(&self, mut context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        if Path::new(QUICK).exists() {
            Arc::make_mut(&mut context.settings).rocksdb.directory = QUICK.into();
        }
        self.0.open(context)
    }

    fn ended(&self, run: RunId) -> Option<Box<dyn Send>> {
        self.0.ended(run)
    }
}

#[test]
fn it_conforms() {
    conformance(Quick::default, 100);
}

#[test]
fn damage_to_any_object_is_refused_and_named() {
    // How many files there are depends on what has been made into one by then.
    assert!(damage(Quick::default) > 1, "a snapshot has files, and a manifest that says which");
}
