//! `lookup_join`: each record with what somebody else has under its key, asked for and kept for a while.
//!
//! It is an ordered `async_map` behind a cache. The cache is bounded in entries and time, holds what is not there too,
//! and is no state: after a restore it fills anew. Records that come while their key is being asked for wait for the same
//! request. What is answered is the other side's at the moment of asking: unlike a join of streams it is not a function of
//! the input alone.
//!
//! The hard case is a full cache. The entry that came first goes, unless it has been used since: then it gets a second
//! turn, so that what is asked for often stays.
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{HashMap, VecDeque},
    fmt::Display,
    hash::Hash,
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use tidegate_checkpoint::error::{Error, Result};

use super::{
    async_map::AsyncMap,
    placed,
    requests::{Answer, Ask, Failed, OnFailure, Requests},
    retry::Tries,
    shared::BoxedStream,
};
use crate::{
    api::stream::Stream,
    env::{Instant, now, random, unique},
    plan::{NodeId, NodeKind},
    record::Output,
    runtime::build::Build,
};

/// How a lookup is made: its requests, and what is kept of their answers.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::{AsyncMap, Lookup};
/// let users = Lookup::cached(10_000, Duration::from_secs(300)).requests(AsyncMap::ordered(32).retries(3, Duration::from_millis(50)));
/// # let _ = users;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    requests: AsyncMap,
    entries: usize,
    time_to_live: Duration,
}

impl Lookup {
    /// Keeps up to so many answers a subtask, each for so long.
    pub fn cached(entries: usize, time_to_live: Duration) -> Self {
        Self { requests: AsyncMap::ordered(100), entries, time_to_live }
    }
    /// Asks each time.
    pub fn uncached() -> Self {
        Self::cached(0, Duration::ZERO)
    }
    /// How requests are made; in order, a hundred at once, if nothing else is said.
    pub fn requests(mut self, requests: AsyncMap) -> Self {
        self.requests = requests;
        self
    }
}

/// See [`Stream::lookup_join`] and [`Stream::lookup_left_join`].
pub struct LookupJoin<S: Stream, KF, F, V, E, U> {
    upstream: S,
    key: KF,
    f: Arc<F>,
    options: Lookup,
    emit: fn(S::Item, Option<V>) -> Option<U>,
    name: String,
    node: NodeId,
    on_failure: OnFailure,
    errors: PhantomData<fn() -> E>,
}

impl<S: Stream, KF, F, V, E, U> LookupJoin<S, KF, F, V, E, U> {
    pub(crate) fn new(
        upstream: S,
        name: &str,
        options: Lookup,
        (key, f): (KF, F),
        emit: fn(S::Item, Option<V>) -> Option<U>,
    ) -> Self {
        let graph = upstream.graph();
        let node = graph.add(NodeKind::Stateful, "lookup_join", Some(name), &[upstream.node()]);
        options.requests.check(graph, name);
        if options.entries > 0 && options.time_to_live.is_zero() {
            graph.mistake(
                Error::config(format!("lookup {name:?} has a cache whose entries live for 0s"))
                    .hint("give them a time to live, or take Lookup::uncached()"),
            );
        }
        let (name, f, on_failure, errors) = (name.to_owned(), Arc::new(f), OnFailure::Fail, PhantomData);
        Self { upstream, key, f, options, emit, name, node, on_failure, errors }
    }

    /// As [`AsyncMapped::skip_failed`](super::async_map::AsyncMapped::skip_failed).
    pub fn skip_failed(mut self) -> Self {
        self.on_failure = OnFailure::Skip;
        self
    }

    /// As [`AsyncMapped::failed`](super::async_map::AsyncMapped::failed).
    pub fn failed(&mut self) -> BoxedStream<Failed<S::Item>>
    where
        S::Item: Clone,
    {
        let side = BoxedStream::side(self.upstream.graph(), self.node, "dead letters");
        self.on_failure = OnFailure::Aside(side.node());
        side
    }
}

impl<S, K, KF, F, Fut, V, E, U> Stream for LookupJoin<S, KF, F, V, E, U>
where
    S: Stream,
    S::Item: Clone + Serialize + DeserializeOwned,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    KF: Fn(&S::Item) -> K + Clone + Send + Sync + 'static,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<Option<V>, E>> + Send + 'static,
    V: Clone + Send + Sync + 'static,
    E: Display + 'static,
    U: Send + 'static,
{
    type Item = U;
    placed!();
    fn attach<O: Output<U>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        let ask = AskLookup {
            key: self.key.clone(),
            f: self.f.clone(),
            tries: self.options.requests.tries(),
            seed: unique(),
            emit: self.emit,
            now: now(),
            cache: Cache::new(self.options.entries, self.options.time_to_live),
            asking: HashMap::new(),
            errors: PhantomData,
        };
        let how = (ask, self.options.requests.bounds(), self.on_failure);
        let requests = Requests::new(build, (&self.name, self.node), how, out)?;
        self.upstream.attach(build, requests)
    }
}

type Request<V> = Shared<BoxFuture<'static, Answer<Option<V>>>>;

struct AskLookup<T, K, KF, F, V, E, U> {
    key: KF,
    f: Arc<F>,
    tries: Tries,
    seed: u64,
    emit: fn(T, Option<V>) -> Option<U>,
    /// As of this turn.
    now: Instant,
    cache: Cache<K, Option<V>>,
    /// No more than requests are in flight.
    asking: HashMap<K, Request<V>>,
    errors: PhantomData<fn() -> E>,
}

impl<T, K, KF, F, Fut, V, E, U> Ask<T> for AskLookup<T, K, KF, F, V, E, U>
where
    T: Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    KF: Fn(&T) -> K + Send + 'static,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = std::result::Result<Option<V>, E>> + Send + 'static,
    V: Clone + Send + Sync + 'static,
    E: Display + 'static,
    U: Send + 'static,
{
    type Reply = Option<V>;
    type Out = U;

    fn turn(&mut self) {
        self.now = now();
    }
    fn known(&mut self, record: &T) -> Option<Option<V>> {
        self.cache.get(&(self.key)(record), self.now)
    }
    fn ask(&mut self, record: &T) -> BoxFuture<'static, Answer<Option<V>>> {
        let key = (self.key)(record);
        // It may have come while the record stood in line.
        if let Some(known) = self.cache.get(&key, self.now) {
            return Box::pin(futures::future::ready(Ok(known)));
        }
        let asking = self.asking.entry(key).or_insert_with_key(|key| {
            let (f, key) = (self.f.clone(), key.clone());
            let request = self.tries.of(random(&mut self.seed), move || f(key.clone()));
            request.boxed().shared()
        });
        Box::pin(asking.clone())
    }
    fn answered(&mut self, record: &T, answer: &Answer<Option<V>>) {
        let key = (self.key)(record);
        if self.asking.remove(&key).is_some()
            && let Ok(value) = answer
        {
            self.cache.put(key, value.clone(), self.now);
        }
    }
    fn emit(&mut self, record: T, reply: Option<V>) -> Option<U> {
        (self.emit)(record, reply)
    }
}

struct Cached<V> {
    value: V,
    until: Instant,
    is_used: bool,
}

/// The answers that are kept: bounded in entries and time.
struct Cache<K, V> {
    entries: HashMap<K, Cached<V>>,
    /// The keys of `entries`, each once, from the one that is looked at next.
    turns: VecDeque<K>,
    entries_max: usize,
    time_to_live: Duration,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    fn new(entries_max: usize, time_to_live: Duration) -> Self {
        Self { entries: HashMap::new(), turns: VecDeque::new(), entries_max, time_to_live }
    }

    fn get(&mut self, key: &K, now: Instant) -> Option<V> {
        let cached = self.entries.get_mut(key).filter(|cached| now < cached.until)?;
        cached.is_used = true;
        Some(cached.value.clone())
    }

    fn put(&mut self, key: K, value: V, now: Instant) {
        // What is to live for longer than there is time is kept for a century.
        let until = now.checked_add(self.time_to_live).unwrap_or(now + Duration::from_secs(3_155_760_000));
        let cached = Cached { value, until, is_used: false };
        if self.entries_max == 0 {
            return;
        }
        if let Some(before) = self.entries.get_mut(&key) {
            *before = cached;
            return;
        }
        while self.entries.len() >= self.entries_max
            && let Some(first) = self.turns.pop_front()
        {
            match self.entries.get_mut(&first) {
                Some(entry) if entry.is_used && now < entry.until => {
                    entry.is_used = false;
                    self.turns.push_back(first);
                }
                _ => drop(self.entries.remove(&first)),
            }
        }
        self.turns.push_back(key.clone());
        self.entries.insert(key, cached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_cache_has_no_more_than_its_entries_and_none_that_is_too_old() {
        let (second, mut cache) = (Duration::from_secs(1), Cache::new(3, Duration::from_secs(10)));
        let began = now();
        for key in 0..3 {
            cache.put(key, key * 10, began);
        }
        assert_eq!(cache.get(&0, began), Some(0));
        cache.put(3, 30, began);
        // The first has been used, the second has not.
        let found: Vec<_> = (0..4).map(|key| cache.get(&key, began)).collect();
        assert_eq!(found, [Some(0), None, Some(20), Some(30)]);
        assert_eq!(cache.get(&0, began + 10 * second), None);
        cache.put(0, 1, began + 10 * second);
        assert_eq!(cache.get(&0, began + 19 * second), Some(1));
        for key in 0..1_000 {
            cache.put(key, key, began);
            assert!(cache.get(&key, began) == Some(key) && cache.entries.len() <= 3 && cache.turns.len() <= 3);
        }
        let mut none = Cache::new(0, second);
        none.put(1, 1, began);
        assert_eq!(none.get(&1, began), None);
    }
}
