//! Instantiating the plan: once a subtask, every chain is wrapped up from its end to its head.
//!
//! `attach` calls run through here: they ask for their channels, counters, ports, restored state and
//! reporters, and leave finished tasks. Channels between subtasks are made by whoever asks first.
use futures::future::BoxFuture;
use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::mpsc;

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Attempt, JobId, KeyGroupRange, OperatorId, Subtask},
    manifest::{Manifest, StateHandle},
    store::CheckpointStore,
};

use super::{
    attempt::TaskEvent,
    channel::{self, Inlet, Lane},
    heartbeat::Beat,
    reporter::Reporter,
    source_task::SourceControl,
    split_time::Alignment,
};
use crate::{
    connect::Split,
    env::{Instant, now},
    metrics::stats::{OperatorStats, StatsRegistry},
    operators::side::SidePort,
    plan::{Graph, NodeId},
    record::Keyed,
    settings::{JobTrigger, StateSettings},
    state::backend::Backends,
};

/// What all subtasks of an attempt share.
pub struct AttemptContext {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: Attempt,
    /// Subtasks of every operator.
    pub parallelism: u32,
    /// Key groups of the job.
    pub key_groups: u16,
    /// When sources read.
    pub trigger: JobTrigger,
    /// What the job file says of state.
    pub state: Arc<StateSettings>,
    /// The lineage of the job's checkpoints.
    pub lineage: String,
    /// Where checkpoints live.
    pub store: Arc<CheckpointStore>,
    /// Makes the operators' states.
    pub backends: Backends,
    /// Where the savepoint is that the job was started from, if it was.
    pub savepoint: Option<Arc<CheckpointStore>>,
    /// The checkpoint that the attempt starts from.
    pub restored: Option<Arc<Manifest>>,
    pub(crate) graph: Graph,
    pub(crate) stats: StatsRegistry,
    pub(crate) events: mpsc::Sender<TaskEvent>,
    pub(crate) assignments: BTreeMap<OperatorId, SourceAssignment>,
}

/// Where a split is begun.
#[derive(Clone, Debug)]
pub(crate) enum Begin {
    /// Where the job begins: no checkpoint knows its source.
    Job,
    /// At its own beginning: it has come since.
    New,
    /// Where the checkpoint says.
    Saved(serde_json::Value),
    /// Where it had ended when the job did.
    Again(serde_json::Value),
}

/// The splits of one source at the start of an attempt.
#[derive(Default)]
pub(crate) struct SourceAssignment {
    /// By subtask.
    pub splits: Vec<Vec<(Split, Begin)>>,
    /// Finished splits that are no longer listed: carried along in the checkpoint by subtask 0.
    pub finished: BTreeMap<String, serde_json::Value>,
    /// Whether more splits may appear.
    pub discovers: bool,
    /// Alignment over the subtasks, if the source has one.
    pub alignment: std::sync::OnceLock<Arc<Alignment>>,
}

/// A finished task, ready to be spawned.
pub(crate) struct TaskSpec {
    pub label: String,
    pub subtask: Subtask,
    pub beat: Arc<Beat>,
    pub future: BoxFuture<'static, Result<()>>,
}

/// Channels that were made for a subtask that has not been built yet.
#[derive(Default)]
pub(crate) struct Wiring {
    exchanges: BTreeMap<(NodeId, u8), Box<dyn Any + Send>>,
    pub(crate) sources: Vec<SourceHandle>,
    pub(crate) tasks: Vec<TaskSpec>,
}

/// How the driver speaks to the source task of one subtask. The one channel without a bound: the driver must
/// never wait for a source, which may be waiting for what only the driver can end. What piles up before a
/// source that takes nothing is a barrier for each checkpoint that was abandoned, and the splits there are.
pub(crate) struct SourceHandle {
    pub source: OperatorId,
    pub subtask: Subtask,
    pub control: mpsc::UnboundedSender<SourceControl>,
}

struct Lanes<E> {
    /// `[from][to]`, taken by the sender `from`.
    lanes: Vec<Option<Vec<Lane<E>>>>,
    /// `[to][from]`, taken by the receiver `to`.
    inlets: Vec<Option<Vec<Inlet<E>>>>,
}

/// Builds one subtask of the whole job.
pub struct Build<'a> {
    context: &'a Arc<AttemptContext>,
    subtask: Subtask,
    wiring: &'a mut Wiring,
    ports: BTreeMap<NodeId, Box<dyn Any>>,
    held: Arc<AtomicBool>,
}

impl<'a> Build<'a> {
    pub(crate) fn new(context: &'a Arc<AttemptContext>, subtask: Subtask, wiring: &'a mut Wiring) -> Self {
        Self { context, subtask, wiring, ports: BTreeMap::new(), held: Arc::default() }
    }

    /// What all subtasks share.
    pub fn context(&self) -> &Arc<AttemptContext> {
        self.context
    }
    /// The subtask that is being built.
    pub fn subtask(&self) -> Subtask {
        self.subtask
    }
    /// Subtasks of every operator.
    pub fn parallelism(&self) -> u32 {
        self.context.parallelism
    }
    /// The key groups that this subtask owns.
    pub fn key_group_range(&self) -> KeyGroupRange {
        KeyGroupRange::of(self.subtask, self.context.parallelism, self.context.key_groups)
    }

    /// The restored state of an operator that this subtask's key groups are in.
    pub fn restored_state(&self, operator: &OperatorId) -> Vec<StateHandle> {
        let range = self.key_group_range();
        let handles = self.context.restored.as_ref().and_then(|m| m.states.get(operator));
        handles.into_iter().flatten().filter(|h| h.key_groups.overlaps(&range)).cloned().collect()
    }

    /// The counters of an operator in this subtask.
    pub fn stats(&self, node: NodeId) -> Arc<OperatorStats> {
        self.context.stats.of(node, self.subtask.0)
    }

    /// One counter of an operator, counted in a plain integer and published once a batch.
    pub fn counter(&self, node: NodeId, which: fn(&OperatorStats) -> &AtomicU64) -> Counter {
        Counter { n: 0, published: 0, stats: self.stats(node), which }
    }

    /// The end of an operator's acknowledgements.
    pub(crate) fn reporter(&self, operator: OperatorId) -> Reporter {
        Reporter::new(self.context.events.clone(), operator, self.subtask)
    }

    /// Set by an operator that is not ready though everything behind it is: it waits for requests of its own, or for its
    /// time. A source that finds it set lets a barrier through, which need not wait with the records.
    pub(crate) fn held(&self) -> Arc<AtomicBool> {
        self.held.clone()
    }

    /// The port of a shared or side stream in this subtask.
    pub fn port<T: Clone + Send + 'static>(&mut self, node: NodeId) -> SidePort<T> {
        let port = self.ports.entry(node).or_insert_with(|| Box::new(SidePort::<T>::default()));
        // The node was made with this type: a port of another one would be unconnected, never wrong.
        port.downcast_ref::<SidePort<T>>().cloned().unwrap_or_default()
    }

    /// The channels of a keyed exchange: this subtask's lanes to all, and its inlets from all. A node that has several
    /// inputs has one for each.
    ///
    /// # Errors
    /// [`Kind::Internal`](tidegate_checkpoint::error::Kind) when a subtask is built twice.
    pub(crate) fn exchange<K: Send + 'static, T: Send + 'static>(
        &mut self,
        node: NodeId,
        input: u8,
    ) -> Result<(Vec<Lane<Keyed<K, T>>>, Vec<Inlet<Keyed<K, T>>>)> {
        let count = self.context.parallelism as usize;
        let made = self.wiring.exchanges.entry((node, input)).or_insert_with(|| Box::new(mesh::<Keyed<K, T>>(count)));
        let me = self.subtask.0 as usize;
        made.downcast_mut::<Lanes<Keyed<K, T>>>()
            .and_then(|mesh| Some((mesh.lanes[me].take()?, mesh.inlets[me].take()?)))
            .ok_or_else(|| Error::internal(format!("subtask {me} of node {} was built twice", node.0)))
    }

    /// The clock of the task that begins at `node`.
    pub(crate) fn task_clock(&self, node: NodeId) -> TaskClock {
        TaskClock { stats: self.stats(node) }
    }

    /// Leaves a finished task that begins at `node`.
    pub(crate) fn task(&mut self, node: NodeId, future: BoxFuture<'static, Result<()>>) {
        let label = self.context.graph.node(node).label();
        self.wiring.tasks.push(TaskSpec { label, subtask: self.subtask, beat: Arc::default(), future });
    }

    pub(crate) fn source_handle(&mut self, handle: SourceHandle) {
        self.wiring.sources.push(handle);
    }
}

fn mesh<E>(count: usize) -> Lanes<E> {
    let mut lanes: Vec<_> = (0..count).map(|_| Vec::new()).collect();
    let mut inlets: Vec<_> = (0..count).map(|_| Vec::new()).collect();
    for from in &mut lanes {
        for to in &mut inlets {
            let (lane, inlet) = channel::bounded();
            from.push(lane);
            to.push(inlet);
        }
    }
    Lanes { lanes: lanes.into_iter().map(Some).collect(), inlets: inlets.into_iter().map(Some).collect() }
}

/// A counter of the hot path: `n` is incremented, `publish` makes it visible once a batch.
#[derive(Debug)]
pub struct Counter {
    /// Counted so far.
    pub n: u64,
    published: u64,
    stats: Arc<OperatorStats>,
    which: fn(&OperatorStats) -> &AtomicU64,
}

impl Counter {
    /// Makes the count visible to readers of metrics.
    pub fn publish(&mut self) {
        if self.n != self.published {
            OperatorStats::add((self.which)(&self.stats), self.n - self.published);
            self.published = self.n;
        }
    }
}

/// Divides a task's time into work, waiting for input, and waiting for its output.
pub(crate) struct TaskClock {
    stats: Arc<OperatorStats>,
}

impl TaskClock {
    fn lap(counter: &AtomicU64, since: Instant) -> Instant {
        let until = now();
        counter.fetch_add(until.duration_since(since).as_nanos() as u64, Relaxed);
        until
    }
    pub(crate) fn busy(&self, since: Instant) -> Instant {
        Self::lap(&self.stats.busy_ns, since)
    }
    pub(crate) fn idle(&self, since: Instant) -> Instant {
        Self::lap(&self.stats.idle_ns, since)
    }
    pub(crate) fn backpressured(&self, since: Instant) -> Instant {
        Self::lap(&self.stats.backpressured_ns, since)
    }
}
