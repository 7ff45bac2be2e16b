//! The state backends of tidegate: where keyed state lives below the typed tables.
//!
//! A job names its backend in its settings, and nothing else changes. Every backend passes the public
//! conformance suite `tidegate_core::testkit::backend`.
pub mod memory;
#[cfg(feature = "object-store")]
pub mod object_store;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;

pub use memory::Memory;
#[cfg(feature = "object-store")]
pub use object_store::ObjectStoreState;
#[cfg(feature = "redis")]
pub use redis::Redis;
#[cfg(feature = "rocksdb")]
pub use rocksdb::RocksDb;

use std::sync::Arc;
use tidegate_core::state::backend::StateBackendFactory;

/// All backends that are compiled in.
pub fn all() -> Vec<Arc<dyn StateBackendFactory>> {
    vec![
        Arc::new(Memory),
        #[cfg(feature = "rocksdb")]
        Arc::new(RocksDb::default()),
        #[cfg(feature = "redis")]
        Arc::new(Redis::default()),
        #[cfg(feature = "object-store")]
        Arc::new(ObjectStoreState::default()),
    ]
}
