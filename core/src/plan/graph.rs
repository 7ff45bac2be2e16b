//! The logical graph: every adaptor writes a node down when it is called, so that mistakes are found and
//! the plan can be shown before anything runs.
//!
//! The typed stream values hold the program; this holds only what can be said without types. Mistakes are
//! collected, not returned from the adaptors (a builder that returns `Result` at each step is no pleasure),
//! and come out of `run`, `start` and `explain`.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidegate_checkpoint::{
    commit::OpenCommitPoint,
    error::{Error, Result},
    ids::OperatorId,
};

use crate::runtime::terminal::{SourceNode, Terminal};

/// A node of the graph, numbered in the order of construction (which is a topological order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// What a node is, as far as the plan needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Reads splits; head of a task.
    Source,
    /// Stateless; fused into the task of its input.
    Stateless,
    /// Keyed state: behind an exchange when the job is parallel, else fused.
    Keyed,
    /// Operator state, of no key; fused into the task of its input.
    Stateful,
    /// Several inputs; head of a task.
    Union,
    /// One stream with several consumers; fused.
    Shared,
    /// A side stream of its input (late records, dead letters); fused.
    Side,
    /// Writes; end of a task.
    Sink,
}

/// What keeps an operator's state from growing for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateBound {
    /// Windows: what is in one goes when the watermark has passed its end and the allowed lateness.
    Windows {
        /// The allowed lateness.
        lateness_ms: i64,
    },
    /// Entries go when they have not been used for so long.
    TimeToLive(Duration),
    /// Something else, as it reads behind "bounded by".
    By(String),
}

/// A node as it is shown and checked.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// What it is to the plan.
    pub kind: NodeKind,
    /// What the user called: `map`, `window tumbling 1h`.
    pub operator: String,
    /// The user's name for it, where it has one.
    pub name: Option<String>,
    /// Where its records come from.
    pub inputs: Vec<NodeId>,
    /// Whether its records carry event time.
    pub event_time: bool,
    /// What bounds its state, if it has any; `None`: nothing does.
    pub bound: Option<StateBound>,
}

impl Node {
    /// The name in metrics and errors: the user's, or operator and number.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{}#{}", self.operator, self.id.0))
    }
}

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    mistakes: Vec<Error>,
    /// Where sinks write, and which does.
    destinations: BTreeMap<String, String>,
    /// Where the job commits, and which sink brought it.
    commit_point: Option<(String, Arc<dyn OpenCommitPoint>)>,
    terminals: Vec<Arc<dyn Terminal>>,
    sources: Vec<SourceNode>,
    /// An operator and what it was called before; and those whose state is to go.
    renamed: Vec<(String, String)>,
    dropped: Vec<String>,
}

/// A shared handle: every stream of a job holds one.
#[derive(Clone, Default)]
pub struct Graph(Arc<Mutex<Inner>>);

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.lock().nodes).finish()
    }
}

impl Graph {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a node down; its records carry event time when all its inputs' do.
    pub fn add(&self, kind: NodeKind, operator: impl Into<String>, name: Option<&str>, inputs: &[NodeId]) -> NodeId {
        let mut inner = self.lock();
        let id = NodeId(inner.nodes.len() as u32);
        let event_time = !inputs.is_empty() && inputs.iter().all(|i| inner.nodes[i.0 as usize].event_time);
        if let Some(name) = name {
            if let Err(e) = OperatorId::new(name) {
                inner.mistakes.push(
                    e.hint("every source, sink and stateful operator needs a name: it is the identity of its state"),
                );
            } else if inner.nodes.iter().any(|n| n.name.as_deref() == Some(name)) {
                let e = Error::config(format!("two operators are called {name:?}"));
                inner.mistakes.push(e.hint("give each source, sink and stateful operator a name of its own"));
            }
        }
        let name = name.map(str::to_owned);
        let (operator, inputs, bound) = (operator.into(), inputs.to_vec(), None);
        inner.nodes.push(Node { id, kind, operator, name, inputs, event_time, bound });
        id
    }

    /// Says what bounds the state of a node; an operator of which nobody says so is shown as one without a bound.
    pub fn bound_state(&self, node: NodeId, bound: StateBound) {
        self.lock().nodes[node.0 as usize].bound = Some(bound);
    }

    /// Says whether a node's records carry event time.
    pub fn set_event_time(&self, node: NodeId, event_time: bool) {
        self.lock().nodes[node.0 as usize].event_time = event_time;
    }

    /// Whether both are handles of the same job's graph.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Notes what an operator was called before.
    pub(crate) fn renamed_from(&self, operator: &str, old: &str) {
        self.lock().renamed.push((operator.to_owned(), old.to_owned()));
    }

    /// Notes that the state of an operator is to go.
    pub(crate) fn drop_state(&self, operator: &str) {
        self.lock().dropped.push(operator.to_owned());
    }

    /// All that has been noted: operators and what they were called, and those whose state is to go.
    pub(crate) fn said(&self) -> (Vec<(String, String)>, Vec<String>) {
        let inner = self.lock();
        (inner.renamed.clone(), inner.dropped.clone())
    }

    /// Remembers a mistake for the check.
    pub fn mistake(&self, error: Error) {
        self.lock().mistakes.push(error);
    }

    /// Claims a destination for a sink.
    pub fn destination(&self, sink: &str, destination: String) {
        let mut inner = self.lock();
        if let Some(other) = inner.destinations.insert(destination, sink.to_owned()) {
            // The destination is not shown: a URL may carry credentials.
            let e = Error::config(format!("the sinks {other:?} and {sink:?} write to the same place"));
            inner.mistakes.push(e.hint("give each sink a directory of its own"));
        }
    }

    /// Makes the job commit where a sink's output is.
    pub(crate) fn commits_at(&self, sink: &str, point: Arc<dyn OpenCommitPoint>) {
        let mut inner = self.lock();
        match &inner.commit_point {
            None => inner.commit_point = Some((sink.to_owned(), point)),
            Some((_, first)) if first.place() == point.place() => {}
            Some((other, first)) => {
                let places = (first.place(), point.place());
                let e = Error::config(format!(
                    "the sinks {other:?} and {sink:?} commit to {} and to {}",
                    places.0, places.1
                ));
                inner.mistakes.push(e.hint(
                    "a job commits in one transaction: write to one place, or make one of the sinks at-least-once",
                ));
            }
        }
    }

    /// Where the job commits, if not in the checkpoint store.
    pub(crate) fn commit_point(&self) -> Option<Arc<dyn OpenCommitPoint>> {
        self.lock().commit_point.as_ref().map(|(_, point)| point.clone())
    }

    /// Registers the end of a chain (a sink, or the upstream of a shared stream).
    pub fn terminal(&self, terminal: Arc<dyn Terminal>) {
        self.lock().terminals.push(terminal);
    }

    /// Registers a source, for the discovery of its splits.
    pub(crate) fn source(&self, source: SourceNode) {
        self.lock().sources.push(source);
    }

    pub(crate) fn sources(&self) -> Vec<SourceNode> {
        self.lock().sources.clone()
    }

    /// A node by number.
    pub fn node(&self, id: NodeId) -> Node {
        self.lock().nodes[id.0 as usize].clone()
    }

    /// All nodes, in topological order.
    pub fn nodes(&self) -> Vec<Node> {
        self.lock().nodes.clone()
    }

    pub(crate) fn terminals(&self) -> Vec<Arc<dyn Terminal>> {
        self.lock().terminals.clone()
    }

    /// Names of the nodes of `kind`, those that have one.
    pub fn names(&self, kind: NodeKind) -> BTreeSet<OperatorId> {
        let nodes = self.nodes();
        nodes.iter().filter(|n| n.kind == kind).filter_map(|n| OperatorId::new(n.name.clone()?).ok()).collect()
    }

    /// Everything that can be known to be wrong before the job runs.
    ///
    /// # Errors
    /// The first mistake, with a hint.
    pub fn check(&self) -> Result<()> {
        let inner = self.lock();
        if let Some(mistake) = inner.mistakes.first() {
            return Err(mistake.clone());
        }
        if !inner.nodes.iter().any(|n| n.kind == NodeKind::Source) {
            return Err(Error::config("the job has no source").hint("begin with job.source(name, ...)"));
        }
        let mut consumed = BTreeMap::<NodeId, usize>::new();
        // A side stream takes what its operator puts aside, and nothing of what it sends on.
        for node in inner.nodes.iter().filter(|n| n.kind != NodeKind::Side) {
            for input in &node.inputs {
                *consumed.entry(*input).or_default() += 1;
            }
        }
        for node in &inner.nodes {
            // An unused side stream is fine: its records are counted by the operator they come from.
            if !consumed.contains_key(&node.id) && !matches!(node.kind, NodeKind::Sink | NodeKind::Side) {
                return Err(Error::config(format!("nothing takes the records of {}", node.label()))
                    .hint("every stream must end in .sink(name, ...)"));
            }
        }
        Ok(())
    }
}
