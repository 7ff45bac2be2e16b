//! Keyed streams: what may be done once records are partitioned by key.
use std::time::Duration;

use tidegate_checkpoint::error::Error;

use super::stream::Stream;
use crate::{
    operators::{
        aggregate::{Aggregate, Count, Fold, Reduce},
        keyed::KeyedStreamOp,
        running::Running,
        shared::BoxedStream,
        window::{Tumbling, WindowSpec, Windowed},
    },
    plan::{NodeId, StateBound},
    state::hash::Key,
    time::millis,
};
use serde::{Serialize, de::DeserializeOwned};

/// See [`Stream::key_by`].
#[derive(Debug)]
pub struct KeyedStream<S, F> {
    pub(crate) upstream: S,
    pub(crate) key: F,
}

impl<S, K, F> KeyedStream<S, F>
where
    S: Stream,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
{
    pub(crate) fn new(upstream: S, key: F) -> Self {
        Self { upstream, key }
    }

    fn node(&self, operator: &str, name: &str) -> NodeId {
        super::process::node(self, operator, name)
    }

    /// A running aggregation: for each record, its key and the result so far.
    pub fn aggregate<A: Aggregate<S::Item>>(self, name: &str, aggregate: A) -> impl Stream<Item = (K, A::Output)> {
        let node = self.node("aggregate", name);
        let spec = Running { aggregate, emit: |key: K, value: A::Output| (key, value) };
        KeyedStreamOp::new(self, spec, name, node)
    }

    /// A running fold: for each record, its key and the accumulator so far.
    pub fn fold<A, G>(self, name: &str, init: A, f: G) -> impl Stream<Item = (K, A)>
    where
        A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        G: Fn(&mut A, S::Item) + Clone + Send + Sync + 'static,
    {
        let node = self.node("fold", name);
        let spec = Running { aggregate: Fold { init, f }, emit: |key: K, value: A| (key, value) };
        KeyedStreamOp::new(self, spec, name, node)
    }

    /// A running reduction: for each record, the reduction of all of its key so far.
    pub fn reduce<G>(self, name: &str, f: G) -> impl Stream<Item = S::Item>
    where
        S::Item: Serialize + DeserializeOwned + Clone,
        G: Fn(S::Item, S::Item) -> S::Item + Clone + Send + Sync + 'static,
    {
        let node = self.node("reduce", name);
        // A reduction has a value from its first record on.
        let spec = Running { aggregate: Reduce(f), emit: |_: K, value: Option<S::Item>| value };
        KeyedStreamOp::new(self, spec, name, node).filter_map(|value| value)
    }

    /// Windows of event time.
    pub fn window(self, name: &str, windows: Tumbling) -> WindowedStream<S, F> {
        let length = humantime::format_duration(Duration::from_millis(windows.length_ms.unsigned_abs())).to_string();
        let node = self.node(&format!("window tumbling {length}"), name);
        let graph = self.upstream.graph();
        graph.bound_state(node, StateBound::Windows { lateness_ms: 0 });
        if !graph.node(self.upstream.node()).event_time {
            graph.mistake(
                Error::config(format!("window {name:?} needs event time, and its records have none"))
                    .hint("call .event_time(|record| ..., Watermarks::bounded(...)) on the source"),
            );
        }
        if windows.length_ms <= 0 {
            graph.mistake(Error::config(format!("window {name:?} has no length")).hint("use at least a millisecond"));
        }
        WindowedStream { keyed: self, name: name.to_owned(), node, windows, lateness_ms: 0, late: None }
    }
}

/// Windows waiting for what to compute: see [`KeyedStream::window`].
#[derive(Debug)]
pub struct WindowedStream<S, F> {
    keyed: KeyedStream<S, F>,
    name: String,
    node: NodeId,
    windows: Tumbling,
    lateness_ms: i64,
    late: Option<NodeId>,
}

impl<S, K, F> WindowedStream<S, F>
where
    S: Stream,
    S::Item: Clone,
    K: Key,
    F: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
{
    /// Keeps a window for this long after it has fired: records that come until then update it, and it
    /// fires again for their key.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness_ms = millis(lateness);
        let bound = StateBound::Windows { lateness_ms: self.lateness_ms };
        self.keyed.upstream.graph().bound_state(self.node, bound);
        self
    }

    /// The records that come too late for their window, as a stream. They are counted in any case.
    pub fn late(&mut self) -> BoxedStream<S::Item> {
        let late = BoxedStream::side(self.keyed.upstream.graph(), self.node, "late");
        self.late = Some(late.node());
        late
    }

    /// One result for each key and window.
    pub fn aggregate<A: Aggregate<S::Item>>(self, aggregate: A) -> impl Stream<Item = Windowed<K, A::Output>> {
        let Self { keyed, name, node, windows, lateness_ms, late } = self;
        let spec = WindowSpec { windows, lateness_ms, late, aggregate };
        KeyedStreamOp::new(keyed, spec, &name, node)
    }

    /// The reduction of each key's records in each window.
    pub fn reduce<G>(self, f: G) -> impl Stream<Item = Windowed<K, S::Item>>
    where
        S::Item: Serialize + DeserializeOwned,
        G: Fn(S::Item, S::Item) -> S::Item + Clone + Send + Sync + 'static,
    {
        self.aggregate(Reduce(f)).filter_map(|w| Some(Windowed { key: w.key, window: w.window, value: w.value? }))
    }

    /// How many records each key has in each window.
    pub fn count(self) -> impl Stream<Item = Windowed<K, u64>> {
        self.aggregate(Count)
    }
}
