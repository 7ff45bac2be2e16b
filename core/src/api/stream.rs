//! [`Stream`]: what users write. Adaptors compose as `Iterator`'s do.
//!
//! A stream is a description that holds its upstream by value. Nothing runs until a sink has been given
//! and the job is started; then [`Stream::attach`] is called once a subtask, from the end of each chain to
//! its head, and wraps the output it is given in its own: the finished chain is one type, and only the
//! finished task is boxed.
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Display, sync::Arc};

use tidegate_checkpoint::error::Result;

use crate::{
    connect::Sink,
    foreach_batch::{Batch, ForeachBatch},
    operators::{
        filter::Filter, filter_map::FilterMap, flat_map::FlatMap, inspect::Inspect, map::Map, shared::BoxedStream,
        try_map::TryMap, union::Union,
    },
    plan::{Graph, NodeId, NodeKind},
    record::Output,
    runtime::{build::Build, terminal::SinkTerminal},
};

use super::keyed::KeyedStream;

/// A stream of records.
///
/// Write `impl Stream<Item = T>` in signatures; where a name is needed, or several consumers, call
/// [`boxed`](Stream::boxed).
///
/// ```
/// use tidegate_core::Stream;
/// fn enrich(words: impl Stream<Item = String>) -> impl Stream<Item = (String, usize)> {
///     words.filter(|w| !w.is_empty()).map(|w| (w.clone(), w.len()))
/// }
/// ```
pub trait Stream: Sized + Send + Sync + 'static {
    /// What a record is.
    type Item: Send + 'static;

    /// The graph it belongs to.
    #[doc(hidden)]
    fn graph(&self) -> &Graph;
    /// Its node there.
    #[doc(hidden)]
    fn node(&self) -> NodeId;
    /// Instantiates the chain up to its head for one subtask, with `out` behind it.
    #[doc(hidden)]
    fn attach<O: Output<Self::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()>;

    /// Turns each record into another.
    fn map<U, F>(self, f: F) -> Map<Self, F>
    where
        U: Send + 'static,
        F: FnMut(Self::Item) -> U + Clone + Send + Sync + 'static,
    {
        Map::new(self, f)
    }

    /// Turns each record into another, or fails the attempt with an error.
    fn try_map<U, E, F>(self, f: F) -> TryMap<Self, F>
    where
        U: Send + 'static,
        E: std::fmt::Display,
        F: FnMut(Self::Item) -> std::result::Result<U, E> + Clone + Send + Sync + 'static,
    {
        TryMap::new(self, f)
    }

    /// Keeps the records for which `f` holds; the others are counted as filtered.
    fn filter<F>(self, f: F) -> Filter<Self, F>
    where
        F: FnMut(&Self::Item) -> bool + Clone + Send + Sync + 'static,
    {
        Filter::new(self, f)
    }

    /// Turns each record into another or into none.
    fn filter_map<U, F>(self, f: F) -> FilterMap<Self, F>
    where
        U: Send + 'static,
        F: FnMut(Self::Item) -> Option<U> + Clone + Send + Sync + 'static,
    {
        FilterMap::new(self, f)
    }

    /// Turns each record into any number of others.
    fn flat_map<I, F>(self, f: F) -> FlatMap<Self, F>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: FnMut(Self::Item) -> I + Clone + Send + Sync + 'static,
    {
        FlatMap::new(self, f)
    }

    /// Looks at each record on its way.
    fn inspect<F>(self, f: F) -> Inspect<Self, F>
    where
        F: FnMut(&Self::Item) + Clone + Send + Sync + 'static,
    {
        Inspect::new(self, f)
    }

    /// Merges two streams; the order between them is not defined. A stream may be merged with itself only
    /// through [`boxed`](Stream::boxed).
    fn union<S: Stream<Item = Self::Item>>(self, other: S) -> Union<Self, S> {
        Union::new(self, other)
    }

    /// Forgets the type, at the cost of one dynamic call a batch. The result is `Clone`: each clone is
    /// another consumer of the same stream.
    fn boxed(self) -> BoxedStream<Self::Item>
    where
        Self::Item: Clone,
    {
        BoxedStream::new(self)
    }

    /// Partitions by key: what follows keeps state for each key apart. The key's hash is stable for ever
    /// (see [`hash_key`](crate::state::hash::hash_key)).
    fn key_by<K, F>(self, key: F) -> KeyedStream<Self, F>
    where
        K: crate::state::hash::Key,
        F: Fn(&Self::Item) -> K + Clone + Send + Sync + 'static,
    {
        KeyedStream::new(self, key)
    }

    /// Ends the stream in a sink. The name is the identity of the sink in checkpoints.
    fn sink<K: Sink<Self::Item>>(self, name: &str, sink: K) {
        let graph = self.graph().clone();
        let node = graph.add(NodeKind::Sink, "sink", Some(name), &[self.node()]);
        if let Some(destination) = sink.destination() {
            graph.destination(name, destination);
        }
        if let Some(point) = sink.commit_point() {
            graph.commits_at(name, point);
        }
        graph.terminal(Arc::new(SinkTerminal::new(self, node, name, sink)));
    }

    /// Ends the stream in a function that gets the records of one epoch after the other: those of all subtasks at
    /// once, when the epoch's checkpoint has committed. The name is the identity of the sink in checkpoints.
    ///
    /// After a failure, or when the job is started again, a batch may be handed over again: with the same number, the
    /// same records, in the same order. The number is greater each time there is another batch, and may leave some out.
    /// So a function whose write replaces what it wrote under the same number before is exactly once. It
    /// is not called for an epoch without records. An error fails the attempt, and the next one calls it again; the
    /// next epoch waits until it has returned.
    ///
    /// ```
    /// # use tidegate_core::{Error, Stream};
    /// # fn job(totals: impl Stream<Item = (String, u64)>) {
    /// totals.foreach_batch("totals", async |batch, epoch| {
    ///     let totals = batch.collect().await?;
    ///     println!("epoch {epoch}: {} totals", totals.len());
    ///     Ok::<(), Error>(())
    /// });
    /// # }
    /// ```
    fn foreach_batch<F, Fut, E>(self, name: &str, f: F)
    where
        Self::Item: Serialize + DeserializeOwned,
        F: Fn(Batch<Self::Item>, u64) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), E>> + Send + 'static,
        E: Display,
    {
        self.sink(name, ForeachBatch::new(f));
    }
}
