//! Keyed streams: what may be done once records are partitioned by key.
use super::{stream::Stream, windowed::WindowedStream};
use crate::{
    operators::{
        aggregate::{Aggregate, Fold, Reduce},
        keyed::KeyedStreamOp,
        running::Running,
        window::Windows,
    },
    plan::NodeId,
    state::hash::Key,
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

    /// Windows: [`Tumbling`](crate::Tumbling), [`Hopping`](crate::Hopping), [`Session`](crate::Session) or
    /// [`Global`](crate::Global).
    pub fn window<W: Windows<S::Item>>(self, name: &str, windows: W) -> WindowedStream<Self, W> {
        WindowedStream::new(self, name, windows)
    }
}
