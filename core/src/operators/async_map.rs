//! `async_map`: asks somebody else about each record, many at once, and goes on with the answers.
//!
//! How requests live is in `requests`, their order in `line`, how one is tried in `retry`. The function is called at
//! least once for each record: what was in flight when a job died is asked for again. Its result goes on exactly once.
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Display, marker::PhantomData, sync::Arc, time::Duration};

use tidegate_checkpoint::error::{Error, Result};

use super::{
    placed,
    requests::{Answer, Ask, Bounds, Failed, OnFailure, Requests},
    retry::Tries,
    shared::BoxedStream,
};
use crate::{
    api::stream::Stream,
    env::{random, unique},
    plan::{Graph, NodeId, NodeKind},
    record::Output,
    runtime::build::Build,
};

/// How requests are made: in which order their results go on, how many at once, how each is tried.
///
/// A batch of records may stand in line beyond the capacity; then the upstream waits. Each attempt has a time-out, a
/// minute if nothing else is said.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::AsyncMap;
/// let calls = AsyncMap::unordered(64).timeout(Duration::from_secs(2)).retries(5, Duration::from_millis(100));
/// # let _ = calls;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AsyncMap {
    bounds: Bounds,
    tries: Tries,
}

impl AsyncMap {
    fn new(is_ordered: bool, capacity: usize) -> Self {
        let (timeout, backoff) = (Duration::from_secs(60), Duration::from_millis(100));
        let tries = Tries { timeout, retries: 0, backoff, backoff_max: Duration::from_secs(60) };
        Self { bounds: Bounds { is_ordered, capacity }, tries }
    }

    /// Results go on in the order of the records: one that takes long holds back those behind it. Up to `capacity`
    /// requests a subtask at once.
    pub fn ordered(capacity: usize) -> Self {
        Self::new(true, capacity)
    }
    /// Results go on as they come, but never across a watermark. Up to `capacity` requests a subtask at once.
    pub fn unordered(capacity: usize) -> Self {
        Self::new(false, capacity)
    }
    /// An attempt that has not answered after so long has failed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.tries.timeout = timeout;
        self
    }
    /// Tries a request that fails so many times more, after a pause that begins with `backoff` and doubles, with jitter,
    /// up to a minute.
    pub fn retries(mut self, retries: u32, backoff: Duration) -> Self {
        (self.tries.retries, self.tries.backoff) = (retries, backoff);
        self
    }
    /// The longest pause between two attempts.
    pub fn max_backoff(mut self, longest: Duration) -> Self {
        self.tries.backoff_max = longest;
        self
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }
    pub(super) fn tries(&self) -> Tries {
        self.tries
    }

    /// Notes what is wrong with it.
    pub(super) fn check(&self, graph: &Graph, name: &str) {
        if self.bounds.capacity == 0 {
            graph.mistake(
                Error::config(format!("operator {name:?} has no capacity: it could not ask for anything"))
                    .hint("let it have at least one request in flight"),
            );
        }
        if self.tries.timeout.is_zero() {
            graph.mistake(
                Error::config(format!("operator {name:?} has a time-out of 0s: every request would fail at once"))
                    .hint("give a request as long as the other side may take to answer"),
            );
        }
    }
}

/// See [`Stream::async_map`].
pub struct AsyncMapped<S, F, U, E> {
    upstream: S,
    f: Arc<F>,
    options: AsyncMap,
    name: String,
    node: NodeId,
    on_failure: OnFailure,
    results: PhantomData<fn() -> (U, E)>,
}

impl<S: Stream, F, U, E> AsyncMapped<S, F, U, E> {
    pub(crate) fn new(upstream: S, name: &str, options: AsyncMap, f: F) -> Self {
        let graph = upstream.graph();
        let node = graph.add(NodeKind::Stateful, "async_map", Some(name), &[upstream.node()]);
        options.check(graph, name);
        let (name, on_failure, results) = (name.to_owned(), OnFailure::Fail, PhantomData);
        Self { upstream, f: Arc::new(f), options, name, node, on_failure, results }
    }

    /// Leaves out and counts the records whose requests fail, after all their attempts. Without this (or `failed`) the
    /// first of them fails the attempt of the job.
    pub fn skip_failed(mut self) -> Self {
        self.on_failure = OnFailure::Skip;
        self
    }

    /// The records whose requests fail, after all their attempts, as a stream.
    pub fn failed(&mut self) -> BoxedStream<Failed<S::Item>>
    where
        S::Item: Clone,
    {
        let side = BoxedStream::side(self.upstream.graph(), self.node, "dead letters");
        self.on_failure = OnFailure::Aside(side.node());
        side
    }
}

impl<S, F, Fut, U, E> Stream for AsyncMapped<S, F, U, E>
where
    S: Stream,
    S::Item: Clone + Serialize + DeserializeOwned,
    F: Fn(S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<U, E>> + Send + 'static,
    U: Send + 'static,
    E: Display + 'static,
{
    type Item = U;
    placed!();
    fn attach<O: Output<U>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let call = Call { f: self.f.clone(), tries: self.options.tries, seed: unique(), results: PhantomData };
        let how = (call, self.options.bounds, self.on_failure);
        let requests = Requests::new(build, (&self.name, self.node), how, out)?;
        self.upstream.attach(build, requests)
    }
}

/// Calls the user's function.
struct Call<F, U, E> {
    f: Arc<F>,
    tries: Tries,
    seed: u64,
    results: PhantomData<fn() -> (U, E)>,
}

impl<T, F, Fut, U, E> Ask<T> for Call<F, U, E>
where
    T: Clone + Send + 'static,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<U, E>> + Send + 'static,
    U: Send + 'static,
    E: Display + 'static,
{
    type Reply = U;
    type Out = U;

    fn ask(&mut self, record: &T) -> BoxFuture<'static, Answer<U>> {
        let (f, record) = (self.f.clone(), record.clone());
        Box::pin(self.tries.of(random(&mut self.seed), move || f(record.clone())))
    }
    fn emit(&mut self, _: T, reply: U) -> Option<U> {
        Some(reply)
    }
}
