//! The state backends of tidegate: where keyed state lives below the typed tables.
//!
//! A job names its backend in its settings, and nothing else changes. Every backend passes the public
//! conformance suite `tidegate_core::testkit::backend`.
pub mod memory;

pub use memory::Memory;

use std::sync::Arc;
use tidegate_core::state::backend::StateBackendFactory;

/// All backends that are compiled in.
pub fn all() -> Vec<Arc<dyn StateBackendFactory>> {
    vec![Arc::new(Memory)]
}
