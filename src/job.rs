//! The job of the facade: the engine's, with every state backend that is compiled in.
use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};
use tidegate_core::{Settings, state::backend::StateBackendFactory};

/// A dataflow job: see [`tidegate_core::Job`], whose methods it has.
#[derive(Debug)]
pub struct Job(tidegate_core::Job);

impl Job {
    /// An empty job. The name is what its checkpoints are called after.
    pub fn new(name: &str, settings: Settings) -> Self {
        Self::with_backends(name, settings, [])
    }

    /// As `new`, for a job that may use state backends of one's own too.
    pub fn with_backends(
        name: &str,
        settings: Settings,
        backends: impl IntoIterator<Item = Arc<dyn StateBackendFactory>>,
    ) -> Self {
        let all = tidegate_state::all().into_iter().chain(backends).collect();
        Self(tidegate_core::Job::with_backends(name, settings, all))
    }
}

impl Deref for Job {
    type Target = tidegate_core::Job;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Job {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
