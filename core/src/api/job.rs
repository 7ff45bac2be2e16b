//! The job: a graph, its settings, and the start button.
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{mpsc, oneshot};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::JobId,
    store::CheckpointStore,
};

use super::{handle::JobHandle, source::SourceStream};
use crate::{
    connect::Source,
    env::{spawn, unique},
    plan::{Graph, NodeKind, changes::changes, explain::explain},
    runtime::supervise::{Shared, Supervised, supervise},
    settings::{JobTrigger, OperatorStateSettings, Settings},
    state::backend::{Backends, RunId, StateBackendFactory},
};

/// A dataflow job that is being described, and can be started.
pub struct Job {
    name: String,
    settings: Settings,
    graph: Graph,
    backends: Vec<Arc<dyn StateBackendFactory>>,
    store: Option<Arc<CheckpointStore>>,
    /// The run that was started last.
    run: Mutex<Weak<Shared>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("name", &self.name).field("graph", &self.graph).finish_non_exhaustive()
    }
}

impl Job {
    /// An empty job that may use any of `backends`; the facade's `Job::new` brings those compiled in.
    pub fn with_backends(name: &str, settings: Settings, backends: Vec<Arc<dyn StateBackendFactory>>) -> Self {
        Self { name: name.to_owned(), settings, graph: Graph::default(), backends, store: None, run: Mutex::default() }
    }

    /// Keeps checkpoints in this store instead of the one that the settings name: for tests that look into
    /// it or make it fail.
    pub fn checkpoint_store(&mut self, store: CheckpointStore) {
        self.store = Some(Arc::new(store));
    }

    /// Reads from a source. The name is the identity of its positions in checkpoints.
    pub fn source<S: Source>(&self, name: &str, source: S) -> SourceStream<S> {
        SourceStream::new(&self.graph, name, source)
    }

    /// Says that the source, sink or keyed operator `operator` was called `old` in an earlier version of the program: it
    /// goes on from what a checkpoint or savepoint has under that name. Said several times it has several old names. It may
    /// stay when no checkpoint has the old name any more; `old` cannot be another operator's name meanwhile. The job file
    /// can say it too: `renamed-from = ["old"]` below `[state.operators.operator]`.
    ///
    /// ```
    /// # use tidegate_core::{Job, Settings};
    /// # let job = Job::with_backends("job", Settings::default(), Vec::new());
    /// // was: .fold("by-user", ...)
    /// job.renamed_from("per-user", "by-user");
    /// ```
    pub fn renamed_from(&self, operator: &str, old: &str) {
        self.graph.renamed_from(operator, old);
    }

    /// Says that the job has the source, sink or keyed operator `operator` no more, and that what a checkpoint or savepoint
    /// has of it is to go. Without that, state that no operator claims is an error when the job starts. It may stay when no
    /// checkpoint has it any more. The job file can say it too: `drop-state = ["operator"]` below `[state]`.
    ///
    /// What a sink had committed and not published yet is never published then: `stop` the job before, which publishes it.
    pub fn drop_state(&self, operator: &str) {
        self.graph.drop_state(operator);
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plan: tasks with their fused operators, exchanges, parallelism, and the backend of each operator with state.
    ///
    /// # Errors
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind): a mistake in the graph or the settings.
    pub fn explain(&self) -> Result<String> {
        self.check()?;
        Ok(explain(&self.name, &self.graph, &self.settings))
    }

    fn check(&self) -> Result<(JobId, Backends)> {
        let id = JobId::new(&*self.name)?;
        self.graph.check()?;
        self.settings.clone().checked()?;
        self.check_trigger()?;
        let state = &self.settings.state;
        let keyed = self.graph.names(NodeKind::Keyed);
        let is_unknown = |(name, own): &(&String, &OperatorStateSettings)| {
            // Sources and sinks have no backend, and nothing else is said there but what they were called.
            !keyed.iter().any(|k| k.as_str() == *name) && (own.renamed_from.is_empty() || !own.backend.is_empty())
        };
        if let Some((unknown, _)) = state.operators.iter().find(is_unknown) {
            if self.graph.names(NodeKind::Stateful).iter().any(|name| name.as_str() == *unknown) {
                return Err(Error::config(format!("state.operators.{unknown}: its state is of no key"))
                    .hint("such state lies in the checkpoint store, whatever the backend: leave the section out"));
            }
            let known: Vec<_> = keyed.iter().map(|k| format!("{:?}", k.as_str())).collect();
            return Err(Error::config(format!(
                "state.operators.{unknown}: the job has no operator with state of this name"
            ))
            .hint(format!("it has {}", known.join(", "))));
        }
        changes(&self.graph, state)?;
        let mut backends = Backends { all: self.backends.clone(), ..Backends::default() };
        backends.named(&state.backend)?;
        let chosen = keyed.iter().map(|k| Ok((k.clone(), backends.named(state.backend_of(k.as_str()))?.clone())));
        backends.chosen = Arc::new(chosen.collect::<Result<_>>()?);
        Ok((id, backends))
    }

    /// Whether every part of the job can do what the trigger says.
    fn check_trigger(&self) -> Result<()> {
        let trigger = self.settings.trigger;
        if !trigger.is_bounded() {
            return Ok(());
        }
        let refused = |e: Error| e.at(format!("trigger = \"{trigger}\""));
        self.graph.sources().iter().try_for_each(|source| source.can_end().map_err(refused))?;
        if trigger == JobTrigger::Once
            && let Some(point) = self.graph.commit_point()
        {
            let open = format!("one transaction of {} would be open from the job's start to its end", point.place());
            return Err(refused(Error::config(open)).hint("use available-now, or make the sink at-least-once"));
        }
        Ok(())
    }

    /// Starts the job on the current tokio runtime. It can be started again when that run has ended.
    ///
    /// # Errors
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind): a mistake in the graph or the settings. What goes
    /// wrong from recovery on comes out of the handle.
    pub fn start(&self) -> Result<JobHandle> {
        let (id, mut backends) = self.check()?;
        backends.run = RunId(unique());
        tokio::runtime::Handle::try_current().map_err(|e| {
            Error::config("a job is started inside a tokio runtime").caused_by(e).hint("use #[tokio::main]")
        })?;
        let store = match &self.store {
            Some(store) => store.clone(),
            None => Arc::new(
                CheckpointStore::open(&self.settings.checkpoint.store, id.clone())
                    .map_err(|e| e.at("checkpoint.store"))?,
            ),
        };
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if run.upgrade().is_some_and(|shared| !shared.status.borrow().state.is_end()) {
            return Err(Error::config(format!("job {id} is running: it has been started from here before"))
                .hint("wait for its end, or stop or cancel it, before it is started again"));
        }
        let shared = Arc::new(Shared::new(id, self.graph.clone(), self.settings.clone(), backends));
        *run = Arc::downgrade(&shared);
        let (requests, receiver) = mpsc::channel(16);
        let (running, cancelled) = oneshot::channel();
        let supervised = Supervised::new(&shared);
        let (supervising, checkpoints) = (supervise(shared.clone(), store.clone(), receiver, cancelled), store);
        let task = spawn(async move {
            let running = supervised;
            let ended = supervising.await;
            running.end().await;
            ended
        });
        Ok(JobHandle { shared, checkpoints, requests, running: Some(running), task: Some(task) })
    }

    /// Starts the job and waits for its end.
    ///
    /// # Errors
    /// As `start`, and what the job fails with.
    pub async fn run(&self) -> Result<()> {
        self.start()?.wait().await
    }
}
