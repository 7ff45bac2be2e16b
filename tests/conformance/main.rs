//! Every operator is put through one conformance harness: each in a script whose answer must be the same in every way in
//! which the engine could run it (`tidegate::testing::Conformance` lists them), over tables that hold all of the state and over
//! a backend of entries, which has to be waited for.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may
mod keyed;
mod process;
mod stateless;
mod the_kit;
mod windows;

use std::{fmt::Debug, sync::Arc};
use tidegate::{
    Settings,
    extend::state::backend::StateBackendFactory,
    testing::{Backends, CompiledIn, entries::Entries},
};

/// What the operators are tried over.
pub struct Both;

impl Backends for Both {
    fn all() -> Vec<Arc<dyn StateBackendFactory>> {
        CompiledIn::all().into_iter().chain([Arc::new(Entries) as _]).collect()
    }
}

/// With both to choose from.
pub type Conformance<I = ()> = tidegate_core::testkit::conformance::Conformance<I, Both>;

/// Over memory, and over a backend of entries.
#[track_caller]
pub fn over_both<I: Clone + Debug + Send + 'static>(script: impl Fn() -> Conformance<I>) {
    for backend in ["memory", "entries"] {
        let mut settings = Settings::default();
        settings.state.backend = backend.into();
        println!("over {backend}");
        script().run_with(&settings);
    }
}
