//! A job under test: the real engine, driven step by step.
//!
//! The job runs as any job does, as tasks with channels, barriers and checkpoints. Only its ends are the test's: inputs into
//! which records and watermarks are pushed ([`TestInput`]), outputs from which they are taken ([`TestOutput`]), a
//! checkpoint store in memory. Nothing interprets an operator a second time, so what holds here holds in production.
//!
//! The hard case is to know when everything that was pushed has been processed. Nothing waits for a time. `settle` waits
//! until the sources have read all of it, and then makes a checkpoint: its barrier is behind everything, passes every
//! channel and every buffer, and the outputs become visible when it has committed. That the sources were there is
//! read from the manifest, as an attempt may have failed in between and have gone back.
//!
//! Time stands still on a paused clock (`#[tokio::test(start_paused = true)]`, or [`run`](super::run)) and goes on only
//! when all tasks wait for it. `advance` is nothing but a sleep: whatever is due within it happens at its own moment,
//! one after the other. The machine's clock goes with it, and begins at 0.
use std::{fmt::Debug, marker::PhantomData, ops::Deref, sync::Arc};

use tidegate_checkpoint::error::Result;

use crate::{
    Settings, Stream, settings::RestartStrategy, state::backend::StateBackendFactory, testkit::entries::Entries,
    time::Timestamp,
};

mod input;
mod output;
mod running;
mod wiring;

pub use input::{TestInput, TestStream};
pub use output::TestOutput;
pub use running::{JobHarness, Snapshot};
pub use wiring::TestJob;

/// The state backends that a harness has to choose from; the first is the one that is taken if the settings name none
/// of them.
pub trait Backends: 'static {
    /// All of them.
    fn all() -> Vec<Arc<dyn StateBackendFactory>>;
}

impl Backends for Entries {
    fn all() -> Vec<Arc<dyn StateBackendFactory>> {
        vec![Arc::new(Self)]
    }
}

/// What a job under test is started from; see [`Harness::new`] and [`JobHarness::new`].
#[derive(Clone)]
pub struct Setup<H> {
    plan: Plan,
    snapshot: Option<Snapshot>,
    harness: PhantomData<fn() -> H>,
}

/// All that is needed to start the job once more.
#[derive(Clone)]
struct Plan {
    build: Arc<dyn Fn(&TestJob) + Send + Sync>,
    backends: Vec<Arc<dyn StateBackendFactory>>,
    settings: Settings,
    splits: usize,
    is_reluctant: bool,
}

impl<H> std::fmt::Debug for Setup<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("settings", &self.plan.settings).finish_non_exhaustive()
    }
}

impl<H> Setup<H> {
    fn new<B: Backends>(build: impl Fn(&TestJob) + Send + Sync + 'static) -> Self {
        let mut settings = Settings::default();
        settings.restart.strategy = RestartStrategy::None;
        let (build, backends) = (Arc::new(build), B::all());
        let plan = Plan { build, backends, settings, splits: 1, is_reluctant: false };
        Self { plan, snapshot: None, harness: PhantomData }
    }

    /// So many subtasks of every operator; 1 if nothing is said.
    pub fn parallelism(mut self, parallelism: u32) -> Self {
        self.plan.settings.parallelism = parallelism;
        self
    }

    /// The job's settings: its state backend, its codec, its restarts. Checkpoints are made by the harness, in memory,
    /// whatever they say. Without this the first failure ends the job.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.plan.settings = settings;
        self
    }

    /// Deals the records of each input to so many splits, which subtasks read beside each other; 1 if nothing is said.
    /// With one, records arrive in the order in which they were pushed. With more, the order between splits is not
    /// defined, so what a watermark makes late is only certain for what is pushed after a `settle`.
    pub fn splits(mut self, splits: usize) -> Self {
        self.plan.splits = splits.max(1);
        self
    }

    /// Chooses from state backends of one's own instead.
    pub fn backends(mut self, backends: impl IntoIterator<Item = Arc<dyn StateBackendFactory>>) -> Self {
        self.plan.backends = backends.into_iter().collect();
        self
    }

    /// Makes every output refuse the first call after anything has come: as a slow sink would.
    pub fn reluctant_outputs(mut self) -> Self {
        self.plan.is_reluctant = true;
        self
    }

    /// Goes on from a snapshot, perhaps one of another version of the job.
    pub fn from_snapshot(mut self, snapshot: &Snapshot) -> Self {
        self.snapshot = Some(snapshot.clone());
        self
    }
}

impl<B: Backends> Setup<JobHarness<B>> {
    /// Starts the job, and returns when its state has been loaded.
    ///
    /// # Errors
    /// A mistake in the graph or the settings, or what the job fails with.
    pub async fn start(self) -> Result<JobHarness<B>> {
        JobHarness::launch(self.plan, self.snapshot.as_ref()).await
    }
}

impl<I: Clone + Send + 'static, O: Debug + Send + 'static, B: Backends> Setup<Harness<I, O, B>> {
    /// Starts the job, and returns when its state has been loaded.
    ///
    /// # Errors
    /// A mistake in the graph or the settings, or what the job fails with.
    pub async fn start(self) -> Result<Harness<I, O, B>> {
        JobHarness::launch(self.plan, self.snapshot.as_ref()).await.map(Harness::of)
    }
}

/// An operator, or a chain of them, under test: one input, called `input`, and one output, called `output`.
///
/// Everything that a [`JobHarness`] does it does too.
pub struct Harness<I, O, B: Backends = Entries> {
    job: JobHarness<B>,
    input: TestInput<I>,
    output: TestOutput<O>,
}

impl<I, O, B: Backends> std::fmt::Debug for Harness<I, O, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.job.fmt(f)
    }
}

const INPUT: &str = "input";
const OUTPUT: &str = "output";

impl<I: Clone + Send + 'static, O: Debug + Send + 'static, B: Backends> Harness<I, O, B> {
    /// The operators that `build` chains to its input. It is called once more for every restore.
    #[allow(clippy::new_ret_no_self, reason = "the builder of one")]
    pub fn new<S, F>(build: F) -> Setup<Self>
    where
        S: Stream<Item = O>,
        F: Fn(TestStream<I>) -> S + Send + Sync + 'static,
    {
        Setup::new::<B>(move |job| job.output(OUTPUT, build(job.input(INPUT))))
    }

    fn of(job: JobHarness<B>) -> Self {
        let (input, output) = (job.input(INPUT), job.output(OUTPUT));
        Self { job, input, output }
    }

    /// Pushes a record with its event time, in ms since 1970.
    pub fn push(&self, record: I, at: Timestamp) {
        self.input.push(record, at);
    }

    /// Pushes records with their event times.
    pub fn push_all(&self, records: impl IntoIterator<Item = (I, Timestamp)>) {
        self.input.push_all(records);
    }

    /// Takes what has come out since the last time, up to the last `settle`.
    pub fn take(&self) -> Vec<O> {
        self.output.take()
    }

    /// As [`take`](Self::take), sorted: the order over keys and subtasks is not the job's to promise.
    pub fn take_sorted(&self) -> Vec<O>
    where
        O: Ord,
    {
        self.output.take_sorted()
    }

    /// As [`take`](Self::take), with each record's event time.
    pub fn take_timed(&self) -> Vec<(O, Timestamp)> {
        self.output.take_timed()
    }

    /// As [`JobHarness::restore`].
    ///
    /// # Errors
    /// As there.
    pub async fn restore(&self, snapshot: &Snapshot, parallelism: u32) -> Result<Self> {
        self.job.restore(snapshot, parallelism).await.map(Self::of)
    }
}

impl<I, O, B: Backends> Deref for Harness<I, O, B> {
    type Target = JobHarness<B>;
    fn deref(&self) -> &JobHarness<B> {
        &self.job
    }
}

impl<I, O, B: Backends> std::ops::DerefMut for Harness<I, O, B> {
    fn deref_mut(&mut self) -> &mut JobHarness<B> {
        &mut self.job
    }
}
