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
        async_map::{AsyncMap, AsyncMapped},
        filter::Filter,
        filter_map::FilterMap,
        flat_map::FlatMap,
        inspect::Inspect,
        lookup_join::{Lookup, LookupJoin},
        map::Map,
        sample::Sample,
        shared::BoxedStream,
        side_output::{Processed, SideOutputs},
        split::split,
        stateful::ProcessWithState,
        throttle::Throttle,
        try_map::TryMap,
        union::Union,
    },
    plan::{Graph, NodeId, NodeKind},
    record::Output,
    runtime::{build::Build, terminal::SinkTerminal},
    state::operator::Redistribution,
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

    /// Asks an asynchronous function about each record, many at once, and goes on with its answers. What is in flight is
    /// part of the checkpoint, and asked for again after a restore; each result goes on exactly once. At another
    /// parallelism what was in flight comes before or behind the records that come then, in no certain order.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::{AsyncMap, Stream};
    /// # async fn price_of(article: u64) -> Result<u64, std::io::Error> { Ok(article) }
    /// fn prices(articles: impl Stream<Item = u64>) -> impl Stream<Item = (u64, u64)> {
    ///     let calls = AsyncMap::ordered(100).timeout(Duration::from_secs(5)).retries(3, Duration::from_millis(200));
    ///     articles.async_map("prices", calls, |article| async move {
    ///         Ok::<_, std::io::Error>((article, price_of(article).await?))
    ///     })
    /// }
    /// ```
    fn async_map<U, E, F, Fut>(self, name: &str, how: AsyncMap, f: F) -> AsyncMapped<Self, F, U, E>
    where
        Self::Item: Clone + Serialize + DeserializeOwned,
        U: Send + 'static,
        E: std::fmt::Display + 'static,
        F: Fn(Self::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<U, E>> + Send + 'static,
    {
        AsyncMapped::new(self, name, how, f)
    }

    /// Each record with what an asynchronous function has for its key, which a cache keeps for a while; records for
    /// which it has nothing are left out.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate_core::{Lookup, Stream};
    /// # async fn name_of(user: u32) -> Result<Option<String>, std::io::Error> { Ok(None) }
    /// fn named(clicks: impl Stream<Item = (u32, u64)>) -> impl Stream<Item = ((u32, u64), String)> {
    ///     clicks.lookup_join("users", Lookup::cached(10_000, Duration::from_secs(60)), |click| click.0, name_of)
    /// }
    /// ```
    fn lookup_join<K, V, E, KF, F, Fut>(
        self,
        name: &str,
        how: Lookup,
        key: KF,
        f: F,
    ) -> LookupJoin<Self, KF, F, V, E, (Self::Item, V)>
    where
        Self::Item: Clone + Serialize + DeserializeOwned,
        K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        E: std::fmt::Display + 'static,
        KF: Fn(&Self::Item) -> K + Clone + Send + Sync + 'static,
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Option<V>, E>> + Send + 'static,
    {
        LookupJoin::new(self, name, how, (key, f), |record, value| Some((record, value?)))
    }

    /// As `lookup_join`, and the records for which there is nothing go on too.
    fn lookup_left_join<K, V, E, KF, F, Fut>(
        self,
        name: &str,
        how: Lookup,
        key: KF,
        f: F,
    ) -> LookupJoin<Self, KF, F, V, E, (Self::Item, Option<V>)>
    where
        Self::Item: Clone + Serialize + DeserializeOwned,
        K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        E: std::fmt::Display + 'static,
        KF: Fn(&Self::Item) -> K + Clone + Send + Sync + 'static,
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Option<V>, E>> + Send + 'static,
    {
        LookupJoin::new(self, name, how, (key, f), |record, value| Some((record, value)))
    }

    /// A function with a list of its own in each subtask, of no key, which is part of the checkpoint: it is given the
    /// list, a record, and what to put its results into.
    ///
    /// ```
    /// use tidegate_core::{Redistribution, Stream};
    /// /// Every number that is larger than all before it (of its subtask).
    /// fn records(numbers: impl Stream<Item = u64>) -> impl Stream<Item = u64> {
    ///     numbers.process_with_state("records", Redistribution::Split, |best: &mut Vec<u64>, n, out| {
    ///         if best.iter().all(|best| *best < n) {
    ///             *best = vec![n];
    ///             out.push(n);
    ///         }
    ///     })
    /// }
    /// ```
    fn process_with_state<E, U, F>(
        self,
        name: &str,
        redistribution: Redistribution,
        f: F,
    ) -> ProcessWithState<Self, F, E, U>
    where
        E: Serialize + DeserializeOwned + Send + 'static,
        U: Send + 'static,
        F: FnMut(&mut Vec<E>, Self::Item, &mut Vec<U>) + Clone + Send + Sync + 'static,
    {
        ProcessWithState::new(self, "process_with_state", name, redistribution, f)
    }

    /// A function that puts any number of results into its first argument's place, and others into side outputs of other
    /// types: one [`SideOutput`](crate::SideOutput), or a tuple of them. Returns the main stream and the side streams.
    ///
    /// ```
    /// use tidegate_core::{BoxedStream, SideOutput, Stream};
    /// type Parts = (BoxedStream<u64>, BoxedStream<String>, BoxedStream<f64>);
    /// fn parse(words: impl Stream<Item = String>) -> Parts {
    ///     let (whole, (bad, broken)) = words.process(
    ///         |word, out: &mut Vec<u64>, (bad, broken): &mut (SideOutput<String>, SideOutput<f64>)| {
    ///             match (word.parse(), word.parse()) {
    ///                 (Ok(n), _) => out.push(n),
    ///                 (_, Ok(x)) => broken.emit(x),
    ///                 _ => bad.emit(word),
    ///             }
    ///         },
    ///     );
    ///     (whole.boxed(), bad, broken)
    /// }
    /// ```
    fn process<U, W, F>(self, f: F) -> (Processed<Self, F, U, W>, W::Streams)
    where
        U: Send + 'static,
        W: SideOutputs,
        F: FnMut(Self::Item, &mut Vec<U>, &mut W) + Clone + Send + Sync + 'static,
    {
        Processed::new(self, f)
    }

    /// Sends each record to one of several streams, which the function numbers from 0; a number that is too high fails
    /// the attempt.
    ///
    /// ```
    /// use tidegate_core::{BoxedStream, Stream};
    /// fn by_size(numbers: impl Stream<Item = u64>) -> [BoxedStream<u64>; 3] {
    ///     numbers.split(|n| match n { 0..10 => 0, 10..100 => 1, _ => 2 })
    /// }
    /// ```
    fn split<F, const N: usize>(self, f: F) -> [BoxedStream<Self::Item>; N]
    where
        Self::Item: Clone,
        F: FnMut(&Self::Item) -> usize + Clone + Send + Sync + 'static,
    {
        split(self, f)
    }

    /// As `split`, into the records for which `f` holds and the others.
    ///
    /// ```
    /// use tidegate_core::{BoxedStream, Stream};
    /// fn even_and_odd(numbers: impl Stream<Item = u64>) -> (BoxedStream<u64>, BoxedStream<u64>) {
    ///     numbers.partition(|n| n % 2 == 0)
    /// }
    /// ```
    fn partition<F>(self, mut f: F) -> (BoxedStream<Self::Item>, BoxedStream<Self::Item>)
    where
        Self::Item: Clone,
        F: FnMut(&Self::Item) -> bool + Clone + Send + Sync + 'static,
    {
        let [those, others] = split(self, move |record| usize::from(!f(record)));
        (those, others)
    }

    /// Keeps the records of a fraction of all keys, chosen by the key's hash: the same ones at every run. The others are
    /// counted as filtered.
    ///
    /// ```
    /// use tidegate_core::Stream;
    /// fn one_user_in_ten(clicks: impl Stream<Item = (u32, String)>) -> impl Stream<Item = (u32, String)> {
    ///     clicks.sample(0.1, |click| click.0)
    /// }
    /// ```
    fn sample<K, F>(self, fraction: f64, key: F) -> Sample<Self, F>
    where
        K: crate::state::hash::Key,
        F: Fn(&Self::Item) -> K + Clone + Send + Sync + 'static,
    {
        Sample::new(self, fraction, key)
    }

    /// Keeps the first record of each subtask and every `n`-th behind it. The count is part of the checkpoint; at another
    /// parallelism it is dealt out anew.
    ///
    /// ```
    /// use tidegate_core::Stream;
    /// fn some(numbers: impl Stream<Item = u64>) -> impl Stream<Item = u64> {
    ///     numbers.sample_every("one-in-a-hundred", 100)
    /// }
    /// ```
    fn sample_every(self, name: &str, n: u64) -> impl Stream<Item = Self::Item> + use<Self> {
        if n == 0 {
            let mistake = crate::Error::config(format!("sample_every({name:?}, 0) would keep nothing"));
            self.graph().mistake(mistake.hint("1 keeps every record"));
        }
        let next = move |count: &mut Vec<u64>, record, out: &mut Vec<_>| {
            let skipped = count.pop().unwrap_or_default();
            if skipped == 0 {
                out.push(record);
            }
            *count = vec![(skipped + 1) % n.max(1)];
        };
        ProcessWithState::new(self, "sample_every", name, Redistribution::Split, next)
    }

    /// Lets no more than so many records a second through, in all subtasks together; the upstream waits. Barriers do not.
    ///
    /// ```
    /// use tidegate_core::Stream;
    /// fn slowly(numbers: impl Stream<Item = u64>) -> impl Stream<Item = u64> {
    ///     numbers.throttle(500.0)
    /// }
    /// ```
    fn throttle(self, per_second: f64) -> Throttle<Self> {
        Throttle::new(self, per_second)
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
