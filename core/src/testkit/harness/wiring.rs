//! The job under test while it is being described: its inputs and outputs by name.
use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

use super::{
    Plan, TestOutput, TestStream,
    input::{AnyInput, Queue},
    output::{AnyOutput, Reluctant},
};
use crate::{Job, Stream, env::simulated};

/// The inputs and outputs of a job.
#[derive(Clone, Default)]
pub(super) struct Ends {
    pub inputs: BTreeMap<String, Arc<dyn AnyInput>>,
    pub outputs: BTreeMap<String, Arc<dyn AnyOutput>>,
    /// Told whenever a source has got on.
    pub moved: Arc<Notify>,
}

/// A job that is being described for a test: see [`JobHarness::new`](super::JobHarness::new).
pub struct TestJob {
    job: Job,
    splits: usize,
    is_reluctant: bool,
    /// How far each split of each input had been read, where the job goes on from a snapshot.
    read: BTreeMap<String, Vec<u64>>,
    ends: Mutex<Ends>,
}

impl std::fmt::Debug for TestJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.job.fmt(f)
    }
}

/// The name of every job under test.
pub(super) const JOB: &str = "test";

impl TestJob {
    /// With `ends` of an earlier run, its inputs and outputs are these.
    pub(super) fn new(plan: &Plan, read: BTreeMap<String, Vec<u64>>, ends: Ends) -> Self {
        let mut settings = plan.settings.clone();
        settings.checkpoint.interval = Duration::ZERO;
        if simulated::is_paused() {
            // No time passes while a function runs, however long.
            settings.heartbeat.stuck_after = Duration::MAX;
        }
        if let (false, Some(first)) =
            (plan.backends.iter().any(|b| b.name() == settings.state.backend), plan.backends.first())
        {
            settings.state.backend = first.name().into();
        }
        let job = Job::with_backends(JOB, settings, plan.backends.clone());
        Self { job, splits: plan.splits, is_reluctant: plan.is_reluctant, read, ends: Mutex::new(ends) }
    }

    pub(super) fn described(self) -> (Job, Ends) {
        (self.job, self.ends.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// An input: the test pushes its records and watermarks.
    ///
    /// # Panics
    /// An earlier version of the job had records of another type there.
    pub fn input<T: Clone + Send + 'static>(&self, name: &str) -> TestStream<T> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let mut read = self.read.get(name).cloned().unwrap_or_default();
            read.resize(self.splits.max(read.len()), 0);
            Arc::new(Queue::<T>::new(&read, &ends.moved))
        };
        let queue = ends.inputs.get(name).map_or_else(new, |input| typed(name, input));
        ends.inputs.insert(name.into(), queue.clone());
        TestStream::new(&self.job, name, queue)
    }

    /// An output: the test takes the records of `stream`, which may be any: a side stream, late records.
    pub fn output<T: Debug + Send + 'static>(&self, name: &str, stream: impl Stream<Item = T>) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ends.outputs.get(name).and_then(|output| output.as_any().downcast_ref::<TestOutput<T>>());
        let output = known.cloned().unwrap_or_default();
        ends.outputs.insert(name.into(), Arc::new(output.clone()));
        Reluctant { stream, is_reluctant: self.is_reluctant }.sink(name, output);
    }

    /// The job itself, for sources and sinks of another kind.
    pub fn job(&self) -> &Job {
        &self.job
    }
}

#[track_caller]
pub(super) fn typed<T: Clone + Send + 'static>(name: &str, input: &Arc<dyn AnyInput>) -> Arc<Queue<T>> {
    let other = || panic!("the input {name:?} has records of another type than {}", std::any::type_name::<T>());
    input.clone().as_any().downcast().unwrap_or_else(|_| other())
}
