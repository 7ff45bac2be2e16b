//! The memory backend keeps the contract of state backends: the public suite, and what is its own to keep.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
use tidegate_core::testkit::{backend::conformance, damage::damage};
use tidegate_state::Memory;

#[test]
fn the_memory_backend_conforms() {
    conformance(|| Memory, 1000);
}

#[test]
fn damage_to_any_object_is_refused_and_named() {
    assert!(damage(|| Memory) > 1, "an incremental snapshot has several objects");
}

/// The suite itself, by the plainest backend that caches.
#[test]
fn the_backend_of_the_tests_conforms() {
    conformance(|| tidegate_core::testkit::entries::Entries, 500);
}
