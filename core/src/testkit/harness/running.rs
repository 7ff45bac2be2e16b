//! A job under test while it runs.
use object_store::memory::InMemory;
use std::{collections::BTreeMap, marker::PhantomData, pin::pin, sync::Arc, time::Duration};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Epoch, JobId},
    store::CheckpointStore,
};

use super::{
    Backends, Plan, Setup, TestInput, TestJob, TestOutput,
    wiring::{Ends, JOB, typed},
};
use crate::{
    Job, JobHandle, JobMetrics, JobState, JobStatus,
    env::{self, simulated},
    runtime::supervise::Shared,
    state::savepoint::{
        read::{Read, Reader},
        write::write,
    },
    testkit::entries::Entries,
    time::Timestamp,
};

/// A checkpoint, and what of the inputs is behind it. It stays what it is, however the job goes on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    objects: Arc<InMemory>,
    read: BTreeMap<String, Vec<u64>>,
}

/// Checkpoints that are abandoned, or restarts, before `settle` gives up.
const TRIES: u32 = 20;

/// A whole job under test, with any number of inputs and outputs.
pub struct JobHarness<B: Backends = Entries> {
    plan: Plan,
    job: Job,
    ends: Ends,
    objects: Arc<InMemory>,
    store: Arc<CheckpointStore>,
    shared: Arc<Shared>,
    /// `None`: the job has ended, with this outcome.
    handle: Option<JobHandle>,
    outcome: Result<()>,
    _wall: Option<simulated::Simulated>,
    backends: PhantomData<fn() -> B>,
}

impl<B: Backends> std::fmt::Debug for JobHarness<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobHarness").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl<B: Backends> JobHarness<B> {
    /// The job that `build` describes. It is called once more for every restore.
    #[allow(clippy::new_ret_no_self, reason = "the builder of one")]
    pub fn new(build: impl Fn(&TestJob) + Send + Sync + 'static) -> Setup<Self> {
        Setup::new::<B>(build)
    }

    pub(super) async fn launch(plan: Plan, snapshot: Option<&Snapshot>) -> Result<Self> {
        let objects = snapshot.map_or_else(InMemory::new, |snapshot| snapshot.objects.fork());
        let read = snapshot.map(|snapshot| snapshot.read.clone()).unwrap_or_default();
        Self::begin(plan, Arc::new(objects), read, Ends::default()).await
    }

    async fn begin(plan: Plan, objects: Arc<InMemory>, read: BTreeMap<String, Vec<u64>>, ends: Ends) -> Result<Self> {
        let wall = simulated::is_paused().then(|| simulated::wall(0));
        let described = TestJob::new(&plan, read, ends);
        (plan.build)(&described);
        let (mut job, ends) = described.described();
        let store = CheckpointStore::new(objects.clone(), "", JobId::new(JOB)?);
        job.checkpoint_store(store.clone());
        let handle = job.start()?;
        let mut harness = Self {
            plan,
            job,
            ends,
            objects,
            store: Arc::new(store),
            shared: handle.shared.clone(),
            handle: Some(handle),
            outcome: Ok(()),
            _wall: wall,
            backends: PhantomData,
        };
        harness.settle().await?;
        Ok(harness)
    }

    /// The input of this name.
    ///
    /// # Panics
    /// There is none, or its records are of another type.
    #[track_caller]
    pub fn input<T: Clone + Send + 'static>(&self, name: &str) -> TestInput<T> {
        match self.ends.inputs.get(name) {
            Some(input) => TestInput(typed(name, input)),
            None => panic!("there is no input {name:?}; there are {:?}", self.ends.inputs.keys()),
        }
    }

    /// The output of this name.
    ///
    /// # Panics
    /// There is none, or its records are of another type.
    #[track_caller]
    pub fn output<T: Send + 'static>(&self, name: &str) -> TestOutput<T> {
        let Some(output) = self.ends.outputs.get(name) else {
            panic!("there is no output {name:?}; there are {:?}", self.ends.outputs.keys())
        };
        match output.as_any().downcast_ref::<TestOutput<T>>() {
            Some(output) => output.clone(),
            None => panic!("the output {name:?} has records of another type than {}", std::any::type_name::<T>()),
        }
    }

    /// Everything that has been written to each output and not been taken, committed or not, as text.
    pub(crate) fn written(&self) -> BTreeMap<String, Vec<(String, Timestamp)>> {
        self.ends.outputs.iter().map(|(name, output)| (name.clone(), output.written())).collect()
    }

    /// Pushes a watermark to every input: no record at or before `at` is still to come. Those that come all the same are
    /// late.
    pub fn watermark(&self, at: Timestamp) {
        self.ends.inputs.values().for_each(|input| input.watermark(at));
    }

    /// Returns when everything that has been pushed has been processed, and its output can be taken: a checkpoint has been
    /// made behind it. Not waited for are those who wait for a time: see [`advance`](Self::advance).
    ///
    /// # Errors
    /// What the job has failed with. It has restarted too often, or could make no checkpoint.
    pub async fn settle(&mut self) -> Result<()> {
        self.checkpoint().await.map(drop)
    }

    /// As `settle`; the checkpoint, unless the job has finished.
    async fn checkpoint(&mut self) -> Result<Option<Epoch>> {
        let pushed = self.pushed();
        let mut why = Error::unavailable("the job has failed again and again");
        for _ in 0..TRIES {
            if self.has_ended_while_reading(&pushed).await {
                return self.ended().await.map(|()| None);
            }
            let Some(handle) = &self.handle else { continue };
            match handle.checkpoint_now().await {
                Ok(epoch) if self.is_behind(Epoch(epoch), &pushed).await? => return Ok(Some(Epoch(epoch))),
                // An attempt has gone back to before.
                Ok(_) => {}
                Err(error) => {
                    why = error;
                    self.wait_for_a_turn().await;
                }
            }
        }
        Err(why.hint("the harness waits for a checkpoint behind everything that has been pushed, and none was made"))
    }

    fn pushed(&self) -> BTreeMap<String, Vec<u64>> {
        self.ends.inputs.iter().map(|(name, input)| (name.clone(), input.pushed())).collect()
    }

    /// Waits until so much has been read; true where the job has ended before.
    async fn has_ended_while_reading(&self, pushed: &BTreeMap<String, Vec<u64>>) -> bool {
        let Some(handle) = &self.handle else { return true };
        let mut status = handle.watch();
        loop {
            let mut moved = pin!(self.ends.moved.notified());
            moved.as_mut().enable();
            if status.borrow_and_update().state.is_end() {
                return true;
            }
            if self.ends.inputs.iter().all(|(name, input)| input.has_read(&pushed[name])) {
                return false;
            }
            tokio::select! {
                () = moved => {}
                changed = status.changed() => if changed.is_err() { return true },
            }
        }
    }

    /// Waits until an attempt runs, or the job has ended.
    async fn wait_for_a_turn(&self) {
        if let Some(handle) = &self.handle {
            let there = |status: &JobStatus| status.state == JobState::Running || status.state.is_end();
            // It fails when the job has gone.
            let _ = handle.watch().wait_for(there).await;
        }
    }

    /// Whether a checkpoint has all that had been pushed.
    async fn is_behind(&self, epoch: Epoch, pushed: &BTreeMap<String, Vec<u64>>) -> Result<bool> {
        let record = self.store.read_commit(epoch).await?;
        let manifest = self.store.read_manifest(&record.manifest).await?;
        let is_read = |name: &str, split: usize, pushed: u64| {
            let source = manifest.sources.iter().find(|(source, _)| source.as_str() == name);
            let saved = source.and_then(|(_, splits)| splits.get(&split.to_string()));
            saved.and_then(|saved| saved.get("position")?.as_u64()).is_some_and(|position| position >= pushed)
        };
        Ok(pushed.iter().all(|(name, splits)| splits.iter().enumerate().all(|(n, pushed)| is_read(name, n, *pushed))))
    }

    /// How the job has ended.
    async fn ended(&mut self) -> Result<()> {
        if let Some(handle) = self.handle.take() {
            self.outcome = handle.wait().await;
        }
        self.outcome.clone()
    }

    /// Lets so much time pass, of a paused clock, and settles before and after it: whatever is due meanwhile happens, at its
    /// own moment. On a clock that is not paused it takes as long.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub async fn advance(&mut self, time: Duration) -> Result<()> {
        self.settle().await?;
        env::sleep(time).await;
        // Once so that every task has looked at the clock, once more behind what that has brought.
        self.settle().await?;
        self.settle().await
    }

    /// The processing time, in ms: 0 when the first harness of the test was started, unless its clock is not paused.
    pub fn processing_time(&self) -> Timestamp {
        env::wall_ms()
    }

    /// Settles, and keeps what there is: the state, and how far the inputs have been read.
    ///
    /// # Errors
    /// As [`settle`](Self::settle); and there is nothing to go on from when the job has finished.
    pub async fn snapshot(&mut self) -> Result<Snapshot> {
        if self.checkpoint().await?.is_none() {
            return Err(Error::config("the job has finished").hint("make the snapshot before the end of the input"));
        }
        Ok(Snapshot { objects: Arc::new(self.objects.fork()), read: self.pushed() })
    }

    /// Starts the job from a snapshot at this parallelism, with inputs and outputs of its own that are empty. This one
    /// goes on as it is.
    ///
    /// # Errors
    /// What the job fails with while it starts.
    pub async fn restore(&self, snapshot: &Snapshot, parallelism: u32) -> Result<Self> {
        let mut plan = self.plan.clone();
        plan.settings.parallelism = parallelism;
        Self::launch(plan, Some(snapshot)).await
    }

    /// Ends the job as a kill would, and starts it again at this parallelism from its last checkpoint, which is the last
    /// time that it was settled. What was pushed since is read again; what has come out and was not committed comes out
    /// again, and outputs see it once.
    ///
    /// # Errors
    /// What the job fails with while it starts.
    pub async fn kill(&mut self, parallelism: u32) -> Result<()> {
        if let Some(handle) = self.handle.take() {
            // Whatever it ends with: it is killed.
            drop(handle.cancel().await);
        }
        self.plan.settings.parallelism = parallelism;
        let (plan, objects, ends) = (self.plan.clone(), self.objects.clone(), self.ends.clone());
        *self = Self::begin(plan, objects, BTreeMap::new(), ends).await?;
        Ok(())
    }

    /// The state of an operator, as JSON: its entries, in the order of their namespaces and keys. Settles before.
    ///
    /// # Errors
    /// As [`settle`](Self::settle); the job has no state of this name; its codec is not one that can be read.
    pub async fn state(&mut self, operator: &str) -> Result<Vec<Read>> {
        let made = self.checkpoint().await?;
        let newest = if made.is_none() { self.store.commits().await?.last().copied() } else { made };
        let epoch = newest.ok_or_else(|| Error::unavailable("the job has ended without a checkpoint"))?;
        let place = Arc::new(CheckpointStore::new(Arc::new(InMemory::new()), "", JobId::new(JOB)?));
        let settings = Arc::new(self.shared.settings.state.clone());
        let goes_on = self.handle.is_some();
        let _reading = self.shared.read();
        write(&self.store, epoch, &self.shared.backends, &settings, &place, goes_on).await?;
        let mut entries = Vec::new();
        let reader = Reader::of(place).await?;
        reader
            .each(operator, |entry| {
                entries.push(entry);
                true
            })
            .await?;
        entries.sort_by_cached_key(|entry| (entry.namespace, entry.key.to_string()));
        Ok(entries)
    }

    /// Ends the inputs, and waits until the job has ended by itself, with its last checkpoint committed. What comes out at
    /// the end of time can be taken then, and the state still be read.
    ///
    /// # Errors
    /// What the job fails with.
    pub async fn finish(&mut self) -> Result<()> {
        self.ends.inputs.values().for_each(|input| input.end());
        self.ended().await
    }

    /// The plan: tasks, exchanges, parallelism, and the backend of each operator with state.
    ///
    /// # Errors
    /// As [`Job::explain`].
    pub fn explain(&self) -> Result<String> {
        self.job.explain()
    }

    /// The job's metrics now.
    pub fn metrics(&self) -> JobMetrics {
        JobMetrics::of(&self.shared)
    }

    /// The job at a glance.
    pub fn status(&self) -> JobStatus {
        self.shared.status.borrow().clone()
    }
}
