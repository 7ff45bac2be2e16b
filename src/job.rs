//! The job of the facade: the engine's, with every state backend that is compiled in.
use std::ops::{Deref, DerefMut};
use tidegate_core::Settings;

/// A dataflow job: see [`tidegate_core::Job`], whose methods it has.
#[derive(Debug)]
pub struct Job(tidegate_core::Job);

impl Job {
    /// An empty job. The name is what its checkpoints are called after.
    pub fn new(name: &str, settings: Settings) -> Self {
        Self(tidegate_core::Job::with_backends(name, settings, tidegate_state::all()))
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
