//! The life of a job: attempt after attempt, until one ends without failing or no more are granted.
use futures::FutureExt;
use hdrhistogram::Histogram;
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Attempt, Epoch, JobId},
    manifest::Manifest,
    store::CheckpointStore,
};

use super::{
    attempt::{Driver, caught},
    recovery::Run,
    restart::Restarts,
};
use crate::{
    api::handle::{AttemptReport, CheckpointReport, JobState, JobStatus},
    env::{Instant, now, sleep, spawn_blocking, unique},
    metrics::{
        contributors::{Contributed, Contributors},
        report::Reporting,
        snapshot::{CheckpointMetrics, Latency},
        stats::{StatsRegistry, latency_histogram},
    },
    plan::{Graph, NodeKind},
    settings::Settings,
    state::backend::Backends,
};

/// What a handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Request {
    /// Make a checkpoint now; the token finds who waits for it.
    Checkpoint(u64),
    /// Make a last checkpoint and end.
    Stop,
}

/// Nothing ever comes of it: the job is cancelled when the other end is dropped. It is no [`Request`], since it waits
/// neither for those before it nor for somebody to look at them, which nobody does while an attempt is opened.
pub(crate) type Cancelled = oneshot::Receiver<Infallible>;

/// Reports of failed attempts that are kept.
const REPORTS_MAX: usize = 100;

/// What the driver and the handles of a job share.
pub(crate) struct Shared {
    pub job: JobId,
    pub graph: Graph,
    pub settings: Settings,
    pub backends: Backends,
    pub began: Instant,
    pub status: watch::Sender<JobStatus>,
    live: Mutex<Live>,
    reporting: Reporting,
    /// How many are reading a checkpoint of this job's.
    readers: Arc<AtomicUsize>,
    /// How many may open its state.
    users: AtomicUsize,
}

/// See [`Shared::read`].
pub(crate) struct Reading(Using);

impl Reading {
    /// Done.
    pub(crate) async fn end(mut self) {
        self.0.end().await;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.shared.readers.fetch_sub(1, SeqCst);
    }
}

/// Held by who may open the state of a run: the task that runs the job, and who reads a checkpoint beside it or behind
/// it. With the last of them goes what backends keep on this machine for whoever opens it next.
struct Using {
    shared: Arc<Shared>,
    is_over: bool,
}

impl Using {
    fn of(shared: &Arc<Shared>) -> Self {
        shared.users.fetch_add(1, SeqCst);
        Self { shared: shared.clone(), is_over: false }
    }

    /// What there is to be given up, once.
    fn kept(&mut self) -> Vec<Box<dyn Send>> {
        let is_last = !std::mem::replace(&mut self.is_over, true) && self.shared.users.fetch_sub(1, SeqCst) == 1;
        let Backends { all, run, .. } = &self.shared.backends;
        all.iter().filter(|_| is_last).filter_map(|backend| backend.ended(*run)).collect()
    }

    /// Gives it up where that is in nobody's way; it may be much to delete.
    async fn end(&mut self) {
        let kept = self.kept();
        if !kept.is_empty() {
            // Should it panic, all has been told, and it is over.
            let _ = spawn_blocking(move || drop(kept)).await;
        }
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        // Cut off: there may be no runtime any more that could do it elsewhere.
        drop(self.kept());
    }
}

#[derive(Default)]
struct Live {
    stats: StatsRegistry,
    /// Those of the attempt that is open, and what those of the last one said at its end.
    contributors: Option<Arc<Contributors>>,
    contributed: Contributed,
    checkpoints: CheckpointMetrics,
    commits_us: Option<Histogram<u64>>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Epoch>>>,
    next_token: u64,
    completed_in_attempt: bool,
    /// The last checkpoint of the run, if one has been begun.
    last: Option<(Attempt, Epoch)>,
}

impl Shared {
    /// Nothing of a checkpoint is deleted as long as this is held.
    pub(crate) fn read(self: &Arc<Self>) -> Reading {
        self.readers.fetch_add(1, SeqCst);
        Reading(Using::of(self))
    }
    pub(crate) fn readers(&self) -> Arc<AtomicUsize> {
        self.readers.clone()
    }
    pub(crate) fn new(job: JobId, graph: Graph, settings: Settings, backends: Backends) -> Self {
        let reporting = Reporting::new(&settings.report);
        let (status, _) = watch::channel(JobStatus::default());
        Self {
            job,
            graph,
            settings,
            backends,
            began: now(),
            status,
            live: Mutex::default(),
            reporting,
            readers: Arc::default(),
            users: AtomicUsize::new(0),
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job has been ended from outside.
    pub(crate) fn cut_off(&self) {
        self.status.send_if_modified(|s| {
            let runs = !s.state.is_end();
            if runs {
                s.state = JobState::Cancelled;
            }
            runs
        });
    }

    pub(super) fn attempt_began(&self, attempt: Attempt, restored: Option<Epoch>) {
        let mut live = self.live();
        // From now on the status speaks of this attempt, and so must the metrics.
        (live.completed_in_attempt, live.stats) = (false, StatsRegistry::default());
        live.contributed = Contributed::default();
        drop(live);
        tracing::info!(job = %self.job, %attempt, restored = restored.map(|e| e.0), "attempt begins");
        self.status.send_modify(|s| {
            (s.state, s.attempt, s.restored) = (JobState::Running, attempt.0, restored.map(|e| e.0));
        });
    }

    pub(super) fn metrics_of(&self, stats: StatsRegistry) {
        self.live().stats = stats;
    }

    pub(crate) fn stats(&self) -> (StatsRegistry, CheckpointMetrics) {
        let live = self.live();
        (live.stats.clone(), live.checkpoints.clone())
    }

    /// From now on these are asked, until what is returned is dropped.
    pub(super) fn contributors_of(&self, contributors: Contributors) -> Contributing<'_> {
        self.live().contributors = Some(Arc::new(contributors));
        Contributing(self)
    }

    pub(crate) fn contributed(&self) -> Contributed {
        let contributors = self.live().contributors.clone();
        // They are asked without the lock: what they do to answer is theirs.
        contributors.map_or_else(|| self.live().contributed.clone(), |c| c.figures())
    }

    pub(super) fn committed(&self, took: Duration) {
        let mut live = self.live();
        live.commits_us = live.commits_us.take().or_else(latency_histogram);
        if let Some(times) = &mut live.commits_us {
            times.saturating_record((took.as_micros() as u64).max(1));
        }
        live.checkpoints.commit = live.commits_us.as_ref().and_then(Latency::of);
        live.checkpoints.last_commit = took;
    }

    pub(super) fn checkpoint_began(&self, attempt: Attempt, epoch: Epoch, last: bool) {
        tracing::debug!(job = %self.job, %epoch, last, "checkpoint begins");
        if last {
            self.live().last = Some((attempt, epoch));
        }
    }

    /// Whether this is the last checkpoint of this run. Its content alone does not say so: the run before may have ended
    /// with the same.
    pub(super) fn has_ended_with(&self, restored: &Manifest) -> bool {
        self.live().last == Some((restored.attempt, restored.epoch))
    }

    pub(super) fn checkpoint_completed(&self, epoch: Epoch, duration_ms: u64, bytes: u64, tokens: &[u64]) {
        let mut live = self.live();
        live.completed_in_attempt = true;
        live.checkpoints.completed(duration_ms, bytes);
        drop(live);
        let report = CheckpointReport { epoch: epoch.0, duration_ms, bytes };
        self.reporting.checkpoint(self, &report);
        self.status.send_modify(|s| s.last_checkpoint = Some(report));
        self.answer(tokens, || Ok(epoch));
    }

    pub(super) fn checkpoint_abandoned(&self, epoch: Epoch, reason: &str, tokens: &[u64]) {
        tracing::warn!(job = %self.job, %epoch, reason, "checkpoint abandoned; the job goes on");
        self.live().checkpoints.abandoned += 1;
        self.reporting.abandoned(epoch, reason);
        self.status.send_modify(|s| s.last_abandoned = Some(format!("checkpoint {epoch}: {reason}")));
        self.answer(tokens, || Err(Error::unavailable(format!("checkpoint {epoch} was abandoned: {reason}"))));
    }

    /// Answers those who wait for a checkpoint, after status and metrics know of it: they are the next thing that
    /// is looked at.
    fn answer(&self, tokens: &[u64], outcome: impl Fn() -> Result<Epoch>) {
        let mut live = self.live();
        for waiting in tokens.iter().filter_map(|token| live.waiting.remove(token)) {
            // Nobody waiting any more is fine.
            let _ = waiting.send(outcome());
        }
    }

    /// Registers somebody who waits for a checkpoint.
    pub(crate) fn wait_for_checkpoint(&self) -> (u64, oneshot::Receiver<Result<Epoch>>) {
        let (sender, receiver) = oneshot::channel();
        let mut live = self.live();
        live.next_token += 1;
        let token = live.next_token;
        live.waiting.insert(token, sender);
        (token, receiver)
    }

    pub(super) fn stuck(&self, stuck: Vec<String>) {
        self.status.send_if_modified(|s| {
            for place in stuck.iter().filter(|p| s.stuck.len() < stuck.len() || !s.stuck.contains(p)) {
                tracing::warn!(job = %self.job, place, "a subtask is stuck in user code");
            }
            let changed = s.stuck != stuck;
            s.stuck = stuck;
            changed
        });
    }

    pub(super) fn report_progress(&self) {
        self.reporting.progress(self);
        crate::metrics::export::export(self);
    }

    /// The operators that run in the task which begins at `head`, as a person would name them.
    pub(super) fn fused(&self, head: &str) -> String {
        let nodes = self.graph.nodes();
        let parallel = self.settings.parallelism > 1;
        let is_head = |kind: NodeKind| {
            matches!(kind, NodeKind::Source | NodeKind::Union) || (parallel && kind == NodeKind::Keyed)
        };
        let mut inside: Vec<&crate::plan::Node> = nodes.iter().filter(|n| n.label() == head).collect();
        for node in &nodes {
            if !is_head(node.kind) && node.inputs.iter().any(|i| inside.iter().any(|n| n.id == *i)) {
                inside.push(node);
            }
        }
        let labels: Vec<_> = inside.iter().map(|n| n.label()).collect();
        format!("[{}]", labels.join(" -> "))
    }
}

/// While it is held, an attempt's parts are asked for what they say of themselves. Then they have said their last.
pub(super) struct Contributing<'a>(&'a Shared);

impl Drop for Contributing<'_> {
    fn drop(&mut self) {
        let contributed = self.0.contributed();
        let mut live = self.0.live();
        (live.contributed, live.contributors) = (contributed, None);
    }
}

/// Held by the task that runs the job: where that is aborted, or its runtime goes away, the job has ended.
pub(crate) struct Supervised(Using);

impl Supervised {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self(Using::of(shared))
    }

    /// The job has ended by itself.
    pub(crate) async fn end(mut self) {
        self.0.end().await;
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.shared.cut_off();
    }
}

/// Runs the job to its end.
pub(crate) async fn supervise(
    shared: Arc<Shared>,
    store: Arc<CheckpointStore>,
    mut requests: mpsc::Receiver<Request>,
    mut cancelled: Cancelled,
) -> Result<()> {
    let mut restarts = Restarts::new(shared.settings.restart.clone(), unique());
    let mut run = Run::new();
    let result = loop {
        let outcome = tokio::select! {
            biased;
            _ = &mut cancelled => break Ok(JobState::Cancelled),
            outcome = attempt(&shared, &store, &mut requests, &mut run) => outcome,
        };
        let Err(error) = outcome else { break Ok(JobState::Finished) };
        if shared.live().completed_in_attempt {
            restarts.healthy();
        }
        // What cannot even begin in this run is the user's to mend, unless it may pass.
        let delay = restarts.after(&error, now());
        shared.attempt_failed(&error);
        let Some(delay) = delay else { break Err(error) };
        tracing::warn!(job = %shared.job, %error, ?delay, "attempt failed; restarting");
        shared.reporting.restarting(&error, delay);
        shared.status.send_modify(|s| s.state = JobState::Restarting);
        let mut waited = pin!(sleep(delay));
        let stopped = loop {
            tokio::select! {
                biased;
                _ = &mut cancelled => break Some(Ok(JobState::Cancelled)),
                Some(request) = requests.recv() => match request {
                    // The delay goes on: who asks for checkpoints must not speed restarts up.
                    Request::Checkpoint(token) => shared.checkpoint_refused(token),
                    Request::Stop => break Some(Err(error.hint("the job was stopped while it waited to restart"))),
                },
                () = &mut waited => break None,
            }
        };
        if let Some(end) = stopped {
            break end;
        }
    };
    shared.reporting.finished(&shared);
    crate::metrics::export::export(&shared);
    let state = match &result {
        Ok(state) => *state,
        Err(_) => JobState::Failed,
    };
    // In this order: who asks from now on is refused at once, who has asked before finds out here.
    requests.close();
    shared.live().waiting.clear();
    shared.status.send_modify(|s| (s.state, s.failure) = (state, result.as_ref().err().map(ToString::to_string)));
    result.map(drop)
}

/// One attempt of `run`; where it fails, with the error that explains it best.
async fn attempt(
    shared: &Shared,
    store: &Arc<CheckpointStore>,
    requests: &mut mpsc::Receiver<Request>,
    run: &mut Run,
) -> Result<()> {
    let driven = async {
        match Driver::open(shared, store.clone(), run).await? {
            Some(driver) => driver.run(requests).await,
            None => Ok(()),
        }
    };
    // Connectors are called in here as well as in tasks of their own.
    let outcome = AssertUnwindSafe(driven).catch_unwind().await.unwrap_or_else(|p| Err(caught(p.as_ref())));
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => Err(run.explain(store, error).await),
    }
}

impl Shared {
    fn attempt_failed(&self, error: &Error) {
        let report = |attempt| AttemptReport { attempt, cause: error.to_string(), kind: error.kind() };
        self.status.send_modify(|s| {
            let mut failures: VecDeque<_> = std::mem::take(&mut s.failures).into();
            failures.push_back(report(s.attempt));
            if failures.len() > REPORTS_MAX {
                failures.pop_front();
            }
            s.restarts += 1;
            s.failures = failures.into();
        });
        // The next attempt's coordinator knows nothing of who asked this one's.
        for waiting in std::mem::take(&mut self.live().waiting).into_values() {
            // Nobody waiting any more is fine.
            let _ = waiting.send(Err(Error::unavailable(format!("the attempt has failed: {error}"))));
        }
    }

    fn checkpoint_refused(&self, token: u64) {
        if let Some(waiting) = self.live().waiting.remove(&token) {
            let _ = waiting.send(Err(Error::unavailable("the job is restarting")));
        }
    }
}
