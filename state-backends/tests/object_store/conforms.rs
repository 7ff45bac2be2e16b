//! The public suite. Every store a little: what differs is the store, and it has suites of its own.
use tidegate_core::testkit::backend::conformance;
use tidegate_state::ObjectStoreState;

#[test]
fn in_memory() {
    conformance(|| ObjectStoreState::at("memory:"), 40);
}

#[test]
fn in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    conformance(|| ObjectStoreState::at(&url), 5);
}
