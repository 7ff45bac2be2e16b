//! The state backends of tidegate: where keyed state lives below the typed tables.
//!
//! A job names its backend in its settings, and nothing else changes. Every backend passes the public
//! conformance suite `tidegate_core::testkit::backend`.
pub mod memory;
#[cfg(feature = "object-store")]
pub mod object_store;

pub use memory::Memory;
#[cfg(feature = "object-store")]
pub use object_store::ObjectStoreState;

use std::sync::Arc;
use tidegate_core::state::backend::StateBackendFactory;

/// All backends that are compiled in.
pub fn all() -> Vec<Arc<dyn StateBackendFactory>> {
    vec![
        Arc::new(Memory),
        #[cfg(feature = "object-store")]
        Arc::new(ObjectStoreState::default()),
    ]
}
