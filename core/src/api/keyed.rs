//! Keyed streams: what may be done once records are partitioned by key.
use super::{process::ProcessStream, stream::Stream, windowed::WindowedStream};
use crate::{
    operators::{
        aggregate::{Aggregate, Fold, Reduce},
        keyed::KeyedStreamOp,
        process::ProcessSpec,
        running::{AggregateStream, Running},
        window::{CountFunction, CountWindows, Windows},
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

    /// A running aggregation: for each record, its key and the result so far; or what an
    /// [`output_mode`](AggregateStream::output_mode) says.
    pub fn aggregate<A: Aggregate<S::Item>>(self, name: &str, aggregate: A) -> AggregateStream<Self, A, K> {
        let node = self.node("aggregate", name);
        KeyedStreamOp::new(self, Running::new(aggregate), name, node)
    }

    /// A running fold: for each record, its key and the accumulator so far; or what an
    /// [`output_mode`](AggregateStream::output_mode) says.
    pub fn fold<A, G>(self, name: &str, init: A, f: G) -> AggregateStream<Self, Fold<A, G>, K>
    where
        A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        G: Fn(&mut A, S::Item) + Clone + Send + Sync + 'static,
    {
        let node = self.node("fold", name);
        KeyedStreamOp::new(self, Running::new(Fold { init, f }), name, node)
    }

    /// A running reduction: for each record, the reduction of all of its key so far.
    pub fn reduce<G>(self, name: &str, f: G) -> impl Stream<Item = S::Item>
    where
        S::Item: Serialize + DeserializeOwned + Clone,
        G: Fn(S::Item, S::Item) -> S::Item + Clone + Send + Sync + 'static,
    {
        let node = self.node("reduce", name);
        // A reduction has a value from its first record on.
        KeyedStreamOp::new(self, Running::new(Reduce(f)), name, node).filter_map(|(_, value)| value)
    }

    /// Windows of so many records of a key: for each, the key and the result.
    pub fn count_window<A: Aggregate<S::Item>>(
        self,
        name: &str,
        windows: CountWindows,
        aggregate: A,
    ) -> ProcessStream<Self, CountFunction<A>, K> {
        let node = self.node(&windows.describe(), name);
        if let Some(mistake) = windows.mistake(name) {
            self.upstream.graph().mistake(mistake);
        }
        KeyedStreamOp::new(self, ProcessSpec::new(CountFunction { windows, aggregate }), name, node)
    }

    /// Windows: [`Tumbling`](crate::Tumbling), [`Hopping`](crate::Hopping), [`Session`](crate::Session) or
    /// [`Global`](crate::Global).
    pub fn window<W: Windows<S::Item>>(self, name: &str, windows: W) -> WindowedStream<Self, W> {
        WindowedStream::new(self, name, windows)
    }
}
