//! One attempt, from its claim to its last barrier: the driver of the coordinator.
//!
//! The coordinator decides, this acts: it sends barriers, writes the manifest, commits, publishes,
//! collects. All I/O of a checkpoint runs beside the event loop and comes back as an event, so that a slow
//! store delays checkpoints and nothing else.
//!
//! An attempt ends in one of four ways: done (the last checkpoint has committed), cancelled (it is dropped,
//! wherever it is), failed (the first error of any task, or of the protocol), or fenced. In each case its
//! tasks are aborted, which neither commits nor rolls back anything: what was not committed is swept by the
//! next attempt.
use futures::{FutureExt, future::BoxFuture};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};

use tidegate_checkpoint::{
    commit::{CommitPermit, CommitPoint},
    coordinator::{Ack, Command, Config, Coordinator, Cut, Event, Participant},
    error::{Error, Result},
    ids::{Attempt, Epoch, OperatorId, Subtask},
    kill,
    manifest::Manifest,
    store::CheckpointStore,
};

use super::{
    build::{AttemptContext, Build, SourceAssignment, SourceHandle, Wiring},
    collect,
    heartbeat::{Beat, Beating},
    recovery::{self, Run, Start},
    source_task::SourceControl,
    supervise::{Contributing, Request, Shared},
    terminal::Opened,
    told::Told,
};
use crate::{
    env::{Instant, now, sleep, spawn, wall_ms},
    metrics::{contributors::Contributors, stats::StatsRegistry},
    plan::NodeKind,
    record::Barrier,
    settings::JobTrigger,
};

/// What tasks tell the driver.
#[derive(Debug)]
pub enum TaskEvent {
    /// A participant has made its part of an epoch durable.
    Ack {
        /// Who.
        participant: Participant,
        /// Of which epoch.
        epoch: Epoch,
        /// What.
        ack: Ack,
    },
    /// A participant cannot; the attempt goes on.
    Declined {
        /// Who.
        participant: Participant,
        /// Of which epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// All splits of a source's subtask have ended.
    Exhausted {
        /// Who.
        participant: Participant,
    },
    /// A source's subtask has read its part of a batch.
    Read {
        /// Who.
        participant: Participant,
    },
    /// A task, or the background work of one, has failed.
    Failed {
        /// The operator, or the head of the task.
        label: String,
        /// Its subtask.
        subtask: Subtask,
        /// Why.
        error: Error,
    },
}

/// What the loop waits for.
enum Wake {
    Task(Option<TaskEvent>),
    Request(Request),
    Io(Result<Event>),
    Deadline,
    Beat,
    Discover(Result<Vec<(OperatorId, Subtask, crate::connect::Split)>>),
}

const BEAT_EVERY: Duration = Duration::from_millis(500);
/// Where nobody is to be found stuck, as on a clock that jumps over hours.
const HARDLY_EVER: Duration = Duration::from_secs(86_400);

/// Aborts everything it has spawned when it is dropped.
struct Tasks {
    set: JoinSet<()>,
    beats: Vec<(String, Subtask, Arc<Beat>)>,
    began: Instant,
}

pub(super) struct Driver<'a> {
    /// First, so that it is dropped while everything is still there to be asked.
    _contributing: Contributing<'a>,
    shared: &'a Shared,
    store: Arc<CheckpointStore>,
    commits: Arc<dyn CommitPoint>,
    start: Start,
    coordinator: Coordinator,
    sinks: Arc<BTreeMap<OperatorId, Arc<dyn Opened>>>,
    sources: Vec<SourceHandle>,
    tasks: Tasks,
    events: mpsc::Receiver<TaskEvent>,
    io: JoinSet<Event>,
    garbage: Option<crate::env::JoinHandle<()>>,
    /// Whether a checkpoint has completed since it began.
    missed: bool,
    told: Told,
    began: Instant,
    parent: Option<Epoch>,
    /// The one in flight: its committables are what the sinks have to publish.
    manifest: Option<Arc<Manifest>>,
    permit: Option<Arc<CommitPermit>>,
    /// Since when it is being committed.
    committing: Instant,
    manifest_bytes: u64,
    next_beat: Instant,
    /// Every split that has been assigned, or had ended.
    known: Arc<Mutex<BTreeSet<(OperatorId, String)>>>,
    /// The next look for new splits, and when the last one was.
    discovery: Discovery,
    looked: Instant,
    /// The sources are to read a batch when what is new has been assigned.
    reads: bool,
}

impl<'a> Driver<'a> {
    /// Recovers and builds, for the next attempt of `run`; nothing runs yet but the sources' and sinks' own opening.
    /// `None`: an attempt before had committed the last checkpoint of the run, and did not get to publish it.
    pub(super) async fn open(shared: &'a Shared, store: Arc<CheckpointStore>, run: &mut Run) -> Result<Option<Self>> {
        let settings = &shared.settings;
        let (start, commits) = recovery::begin(&store, &shared.graph, settings, run).await?;
        shared.attempt_began(start.attempt, start.restored.as_ref().map(|m| m.epoch));
        let sinks = recovery::open_sinks(&shared.graph, &store, &start, &commits).await?;
        if let Some(last) = start.restored.clone().filter(|restored| shared.has_ended_with(restored)) {
            let mut told = Told::new(shared.graph.sources());
            told.completed(last);
            collection(shared, &store, start.attempt).await;
            told.finish().await;
            return Ok(None);
        }
        let assignments = recovery::assign(&shared.graph.sources(), &start, settings.parallelism).await?;
        let known = known_splits(&assignments);
        let (sender, events) = mpsc::channel(1024);
        let context = Arc::new(AttemptContext {
            job: store.job().clone(),
            attempt: start.attempt,
            parallelism: settings.parallelism,
            key_groups: settings.key_groups,
            trigger: settings.trigger,
            state: Arc::new(settings.state.clone()),
            lineage: start.lineage.clone(),
            store: store.clone(),
            backends: shared.backends.clone(),
            savepoint: if start.saved { recovery::savepoint(&store, settings)? } else { None },
            restored: start.restored.clone(),
            graph: shared.graph.clone(),
            stats: StatsRegistry::default(),
            events: sender.clone(),
            assignments,
        });
        shared.metrics_of(context.stats.clone());
        let mut wiring = Wiring::default();
        for subtask in (0..settings.parallelism).map(Subtask) {
            let mut build = Build::new(&context, subtask, &mut wiring);
            for terminal in shared.graph.terminals() {
                let opened = terminal.sink().and_then(|s| sinks.get(s));
                terminal.instantiate(&mut build, opened.map(AsRef::as_ref))?;
            }
        }
        kill::point("recover.built");
        let began = now();
        let coordinator = coordinator(shared, &start, !commits.is_transactional());
        let mut tasks = Tasks { set: JoinSet::new(), beats: Vec::new(), began };
        for task in wiring.tasks {
            tasks.beats.push((task.label.clone(), task.subtask, task.beat.clone()));
            tasks.spawn(task.label, task.subtask, Beating::new(task.future, task.beat, began), sender.clone());
        }
        let parent = start.parent;
        let (sinks, sources) = (Arc::new(sinks), shared.graph.sources());
        let contributors = Contributors { sources, sinks: sinks.clone(), commits: commits.clone() };
        Ok(Some(Self {
            _contributing: shared.contributors_of(contributors),
            shared,
            store,
            commits,
            start,
            coordinator,
            sinks,
            sources: wiring.sources,
            tasks,
            events,
            io: JoinSet::new(),
            garbage: None,
            missed: false,
            told: Told::new(shared.graph.sources()),
            began,
            parent,
            manifest: None,
            permit: None,
            committing: began,
            manifest_bytes: 0,
            next_beat: began + BEAT_EVERY,
            known: Arc::new(Mutex::new(known)),
            discovery: never(),
            looked: began,
            reads: false,
        }))
    }

    fn now_ms(&self) -> u64 {
        now().duration_since(self.began).as_millis() as u64
    }

    /// Runs until the last checkpoint has committed, at the end of the input or after `stop`.
    pub(super) async fn run(mut self, requests: &mut mpsc::Receiver<Request>) -> Result<()> {
        if self.shared.settings.trigger == JobTrigger::Continuous {
            self.discovery = self.look(true);
        }
        loop {
            let wake = self.wait(requests).await;
            let event = match wake {
                Wake::Task(Some(TaskEvent::Ack { participant, epoch, ack })) => {
                    Event::Acknowledged(participant, epoch, ack)
                }
                Wake::Task(Some(TaskEvent::Declined { participant, epoch, reason })) => {
                    Event::Declined(participant, epoch, reason)
                }
                Wake::Task(Some(TaskEvent::Exhausted { participant })) => Event::Exhausted(participant),
                Wake::Task(Some(TaskEvent::Read { participant })) => Event::Read(participant),
                Wake::Task(Some(TaskEvent::Failed { label, subtask, error })) => {
                    return Err(error.at(format!("{label} (subtask {subtask})")));
                }
                Wake::Task(None) => return Err(Error::internal("all tasks have gone without an error")),
                Wake::Request(Request::Checkpoint(token)) => Event::Requested { token },
                Wake::Request(Request::Stop) => Event::StopRequested,
                Wake::Io(event) => {
                    let event = event?;
                    if let Event::Committed(_, Ok(())) = event {
                        self.shared.committed(now().duration_since(self.committing));
                    }
                    event
                }
                Wake::Deadline => Event::Tick,
                Wake::Beat => {
                    self.check_beats()?;
                    continue;
                }
                Wake::Discover(found) => {
                    self.assign_new(found?);
                    self.looked = now();
                    self.discovery =
                        if self.shared.settings.trigger == JobTrigger::Continuous { self.look(true) } else { never() };
                    if std::mem::take(&mut self.reads) {
                        self.tell_to_read();
                    }
                    continue;
                }
            };
            let at = self.now_ms();
            let mut done = false;
            for command in self.coordinator.on(event, at) {
                done |= self.act(command)?;
            }
            if done {
                while let Some(garbage) = self.garbage.take() {
                    // It reports its own errors; here it only has to have ended.
                    let _ = garbage.await;
                    // There is no next one.
                    if std::mem::take(&mut self.missed) {
                        self.collect_garbage();
                    }
                }
                self.told.finish().await;
                return Ok(());
            }
        }
    }

    async fn wait(&mut self, requests: &mut mpsc::Receiver<Request>) -> Wake {
        let deadline = self.coordinator.deadline_ms().map(|d| Duration::from_millis(d.saturating_sub(self.now_ms())));
        tokio::select! {
            biased;
            Some(done) = self.io.join_next() => Wake::Io(done.map_err(|e| match e.try_into_panic() {
                Ok(panic) => caught(panic.as_ref()),
                Err(e) => Error::internal("the writing of a checkpoint was cut off").caused_by(e),
            })),
            event = self.events.recv() => Wake::Task(event),
            Some(request) = requests.recv() => Wake::Request(request),
            found = &mut self.discovery => Wake::Discover(found),
            () = sleep(deadline.unwrap_or(Duration::from_secs(3600))) => Wake::Deadline,
            () = sleep(self.next_beat.saturating_duration_since(now())) => Wake::Beat,
        }
    }

    /// Carries a command out; true when there is nothing more to do.
    fn act(&mut self, command: Command) -> Result<bool> {
        match command {
            Command::Read => self.begin_batch(),
            Command::Trigger { epoch, last } => {
                kill::point("trigger");
                self.shared.checkpoint_began(self.start.attempt, epoch, last);
                for source in &self.sources {
                    // A source task that has gone has failed: its event is on the way.
                    let _ = source.control.send(SourceControl::Barrier(Barrier { epoch, last }));
                }
            }
            Command::WriteManifest { epoch, last, acks } => self.write_manifest(epoch, last, acks),
            Command::Commit(permit) => {
                let (commits, permit) = (self.commits.clone(), Arc::new(permit));
                (self.permit, self.committing) = (Some(permit.clone()), now());
                self.io.spawn(async move {
                    let result = commits.commit(&permit).await;
                    Event::Committed(permit.epoch(), result)
                });
            }
            Command::Finalise(epoch) => self.finalise(epoch),
            Command::Completed { epoch, duration_ms, tokens } => {
                self.parent = Some(epoch);
                self.shared.checkpoint_completed(epoch, duration_ms, self.manifest_bytes, &tokens);
                self.collect_garbage();
                if let Some(manifest) = self.manifest.take() {
                    self.told.completed(manifest);
                }
            }
            Command::Abandoned { epoch, reason, tokens } => self.shared.checkpoint_abandoned(epoch, &reason, &tokens),
            Command::Fail(error) => return Err(error),
            Command::Done => return Ok(true),
        }
        Ok(false)
    }

    fn write_manifest(&mut self, epoch: Epoch, last: bool, acks: BTreeMap<Participant, Ack>) {
        let settings = &self.shared.settings;
        let (job, lineage) = (self.store.job(), &self.start.lineage);
        let mut manifest = Manifest {
            epoch,
            parent: self.parent,
            attempt: self.start.attempt,
            last,
            created_ms: wall_ms(),
            ..Manifest::empty(job, lineage, settings.key_groups, settings.parallelism)
        };
        let sources = self.shared.graph.names(NodeKind::Source);
        for (Participant { operator, .. }, ack) in acks {
            if sources.contains(&operator) {
                manifest.sources.entry(operator.clone()).or_default().extend(ack.splits);
            }
            if !ack.states.is_empty() {
                manifest.states.entry(operator.clone()).or_default().extend(ack.states);
            }
            if !ack.committables.is_empty() {
                manifest.sinks.entry(operator.clone()).or_default().extend(ack.committables);
            }
            let counters = manifest.counters.entry(operator).or_default();
            for (name, count) in ack.counters {
                *counters.entry(name).or_default() += count;
            }
        }
        self.manifest_bytes = manifest.objects().map(|o| o.bytes).sum();
        let manifest = Arc::new(manifest);
        self.manifest = Some(manifest.clone());
        let store = self.store.clone();
        self.io.spawn(async move { Event::ManifestWritten(epoch, store.put_manifest(&manifest).await) });
    }

    fn finalise(&mut self, epoch: Epoch) {
        let (Some(permit), Some(manifest)) = (self.permit.take(), self.manifest.clone()) else { return };
        let sinks = self.sinks.clone();
        self.io.spawn(async move {
            for (sink, committables) in &manifest.sinks {
                if let Some(open) = sinks.get(sink)
                    && let Err(e) = open.commit(&permit, committables.clone()).await
                {
                    return Event::Finalised(epoch, Err(e.at(format!("sink {sink}"))));
                }
            }
            Event::Finalised(epoch, Ok(()))
        });
    }

    /// One collection at a time, beside everything else; what it misses the next one gets.
    fn collect_garbage(&mut self) {
        self.missed = self.garbage.as_ref().is_some_and(|g| !g.is_finished());
        if self.missed {
            return;
        }
        self.garbage = Some(spawn(collection(self.shared, &self.store, self.start.attempt)));
    }

    fn check_beats(&mut self) -> Result<()> {
        let heartbeat = &self.shared.settings.heartbeat;
        self.next_beat = now() + if heartbeat.stuck_after == Duration::MAX { HARDLY_EVER } else { BEAT_EVERY };
        let mut stuck = Vec::new();
        for (label, subtask, beat) in &self.tasks.beats {
            let Some(inside) = beat.inside(self.tasks.began).filter(|i| *i >= heartbeat.stuck_after) else { continue };
            let operators = self.shared.fused(label);
            let place = format!("subtask {subtask} of {operators}");
            if heartbeat.fail_after > Duration::ZERO && inside >= heartbeat.fail_after {
                return Err(Error::user(format!("{place} has been stuck for {} s", inside.as_secs())).hint(
                    "a function given to one of these operators loops or blocks; it cannot be stopped from outside",
                ));
            }
            stuck.push(format!("{place} has not returned for {} s", inside.as_secs()));
        }
        self.shared.stuck(stuck);
        self.shared.report_progress();
        Ok(())
    }

    /// What is there when the batch begins belongs to it, also in splits that nobody has seen yet: so there is a look
    /// for those first, unless sources want that less often.
    fn begin_batch(&mut self) {
        let pause = self.shared.settings.epoch_interval().unwrap_or_default();
        let is_due = |interval| interval <= pause || now().duration_since(self.looked) >= interval;
        if self.look_interval().is_some_and(is_due) {
            (self.discovery, self.reads) = (self.look(false), true);
        } else {
            self.tell_to_read();
        }
    }

    fn tell_to_read(&self) {
        for source in &self.sources {
            // A source task that has gone has failed: its event is on the way.
            let _ = source.control.send(SourceControl::Read);
        }
    }

    fn look_interval(&self) -> Option<Duration> {
        self.shared.graph.sources().iter().filter_map(super::terminal::SourceNode::interval).min()
    }

    /// Looks for new splits: now, or when the sources want it.
    fn look(&self, later: bool) -> Discovery {
        let Some(interval) = self.look_interval() else { return never() };
        let sources: Vec<_> = self.shared.graph.sources().into_iter().filter(|s| s.interval().is_some()).collect();
        let parallelism = self.shared.settings.parallelism;
        let known = self.known.clone();
        Box::pin(async move {
            if later {
                sleep(interval).await;
            }
            let mut new = Vec::new();
            for source in sources {
                for split in source.discover().await? {
                    if known
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert((source.name.clone(), split.id.clone()))
                    {
                        let owner = Subtask(crc32fast::hash(split.id.as_bytes()) % parallelism);
                        new.push((source.name.clone(), owner, split));
                    }
                }
            }
            Ok(new)
        })
    }

    fn assign_new(&self, found: Vec<(OperatorId, Subtask, crate::connect::Split)>) {
        for (source, subtask, split) in found {
            for handle in self.sources.iter().filter(|h| h.source == source && h.subtask == subtask) {
                // A source task that has gone has failed: its event is on the way.
                let _ = handle.control.send(SourceControl::Assign(split.clone()));
            }
        }
    }
}

/// Collects once.
fn collection(
    shared: &Shared,
    store: &Arc<CheckpointStore>,
    attempt: Attempt,
) -> impl Future<Output = ()> + Send + use<> {
    let (store, backends) = (store.clone(), shared.backends.clone());
    let (retained, readers) = (shared.settings.checkpoint.retained, shared.readers());
    let is_read = move || readers.load(std::sync::atomic::Ordering::SeqCst) > 0;
    async move {
        if let Err(error) = collect::collect(&store, attempt, retained, &backends, is_read).await {
            tracing::warn!(%error, "old checkpoints could not be deleted; the next checkpoint tries again");
        }
    }
}

fn never() -> Discovery {
    Box::pin(std::future::pending())
}

type Discovery = BoxFuture<'static, Result<Vec<(OperatorId, Subtask, crate::connect::Split)>>>;

fn known_splits(assignments: &BTreeMap<OperatorId, SourceAssignment>) -> BTreeSet<(OperatorId, String)> {
    let mut known = BTreeSet::new();
    for (source, assignment) in assignments {
        let open = assignment.splits.iter().flatten().map(|(split, _)| &split.id);
        known.extend(open.chain(assignment.finished.keys()).map(|id| (source.clone(), id.clone())));
    }
    known
}

impl Tasks {
    /// A panic is caught where it happens, and named like any other error of the task.
    fn spawn(
        &mut self,
        label: String,
        subtask: Subtask,
        task: impl Future<Output = Result<()>> + Send + 'static,
        events: mpsc::Sender<TaskEvent>,
    ) {
        self.set.spawn(async move {
            let error = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(panic) => caught(panic.as_ref()),
            };
            let _ = events.send(TaskEvent::Failed { label, subtask, error }).await;
        });
    }
}

/// The error that a panic is: it fails the attempt, wherever it was.
pub(super) fn caught(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Error::user(format!("panicked: {}", text.unwrap_or_else(|| "(no message)".into())))
}

fn coordinator(shared: &Shared, start: &Start, carries: bool) -> Coordinator {
    let settings = &shared.settings.checkpoint;
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let (trigger, interval) = (shared.settings.trigger, shared.settings.epoch_interval());
    let config = Config {
        cut: match trigger {
            JobTrigger::Every(_) => Cut::Batches,
            JobTrigger::Once => Cut::End,
            JobTrigger::Continuous | JobTrigger::AvailableNow => Cut::Anywhere,
        },
        interval_ms: interval.map(|interval| ms(interval).max(1)),
        timeout_ms: ms(settings.timeout),
        min_pause_ms: ms(settings.min_pause),
        tolerated_failures: settings.tolerated_failures,
        first_epoch: start.next,
        attempt: start.attempt,
        lineage: start.lineage.clone(),
        carries,
    };
    let of = |kind| -> BTreeSet<Participant> {
        let names = shared.graph.names(kind);
        let subtasks = (0..shared.settings.parallelism).map(Subtask);
        subtasks
            .flat_map(|subtask| names.iter().map(move |operator| Participant { operator: operator.clone(), subtask }))
            .collect()
    };
    let sources = of(NodeKind::Source);
    let all = [sources.clone(), of(NodeKind::Keyed), of(NodeKind::Stateful), of(NodeKind::Sink)]
        .into_iter()
        .flatten()
        .collect();
    Coordinator::new(config, all, sources, 0)
}
