//! Kafka's topics as a source: each partition is a split.
//!
//! Positions are in the checkpoint and nowhere else; what is committed to a group is for people who watch the group.
//! The hard case is that the cluster changes while the job runs and while it does not: partitions are added, topics
//! come, go, and come again under the same name, a broker is away. What is new is found by [`Source::discover`] and
//! read from its beginning; where a partition is begun and what has vanished is decided in [`start`](super::start);
//! and a cluster that is away is told at once when a job starts, and waited for when it runs (see
//! [`consumer`](super::consumer)).
use futures::future::BoxFuture;
use rdkafka::{
    TopicPartitionList,
    consumer::{CommitMode, Consumer as _},
    topic_partition_list::Offset,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tidegate_core::{
    Error, Kind, Result,
    connect::{Figure, Source, Split},
    env::{Instant, now, spawn_thread},
};
use tokio::sync::oneshot;

use super::{
    client::{Kafka, blocking, lock},
    cluster::{self, Topics},
    codec::Decode,
    consumer::{Shape, Shared},
    place::{Offsets, Place, Position},
    reader::KafkaReader,
    start::{Gap, Opening, Start, Terms, Until},
};

/// Reads topics, with [`Kafka::source`] and its like. What transactions have not committed is not read, and never
/// waited past: records behind an open transaction come when it has ended.
///
/// ```
/// use tidegate_connectors::kafka::{Gap, Json, Kafka, Start};
/// #[derive(Clone, serde::Deserialize)]
/// struct Order { id: u64 }
/// let kafka = Kafka::at("127.0.0.1:9092");
/// let follow = kafka.source("orders", Json::<Order>::new()).from(Start::Latest).group("orders-per-hour");
/// let all_of_today = kafka.source_matching("orders-*", Json::<Order>::new()).available_now();
/// # let _ = (follow, all_of_today.on_gap(Gap::Earliest));
/// ```
pub struct KafkaSource<C> {
    topics: Topics,
    codec: C,
    shape: Arc<Shape>,
    discovery: Duration,
    share: Arc<Share>,
}

/// What the splits of one source have together.
#[derive(Default)]
struct Share {
    clients: Mutex<Weak<Shared>>,
    listed: Mutex<Listed>,
    /// Where the job has begun. An attempt that fails before the first checkpoint must not move that: what has come
    /// since would be left out. To the engine the next attempt begins the job, also with what this one has found.
    begun: Mutex<BTreeMap<Place, Position>>,
}

/// What there was to read.
#[derive(Default)]
struct Listed {
    /// When the job began: all else has come since.
    first: Option<BTreeSet<String>>,
    last: Vec<Split>,
    /// Since when the cluster has not answered.
    away: Option<Instant>,
}

impl Kafka {
    /// A topic as a source.
    pub fn source<C: Decode>(&self, topic: impl Into<String>, codec: C) -> KafkaSource<C> {
        self.source_of([topic], codec)
    }
    /// Several topics as one source. One that is named twice is read once.
    pub fn source_of<C: Decode>(
        &self,
        topics: impl IntoIterator<Item = impl Into<String>>,
        codec: C,
    ) -> KafkaSource<C> {
        KafkaSource::new(self, Topics::Named(topics.into_iter().map(Into::into).collect()), codec)
    }
    /// All topics of a name in which each `*` stands for any text, also those that come later. Kafka's own (`__…`)
    /// only where the pattern begins so.
    pub fn source_matching<C: Decode>(&self, pattern: impl Into<String>, codec: C) -> KafkaSource<C> {
        KafkaSource::new(self, Topics::Matching(pattern.into()), codec)
    }
}

impl<C> KafkaSource<C> {
    fn new(kafka: &Kafka, topics: Topics, codec: C) -> Self {
        let shape = Shape {
            kafka: kafka.clone(),
            group: None,
            committed_only: true,
            give_up_after: Duration::from_secs(300),
            terms: Terms::default(),
        };
        let discovery = Duration::from_secs(30);
        Self { topics, codec, shape: Arc::new(shape), discovery, share: Arc::default() }
    }
    fn shape(mut self, change: impl FnOnce(&mut Shape)) -> Self {
        change(Arc::make_mut(&mut self.shape));
        self
    }

    /// Where the job begins; without this, at the first record that there is. It is remembered by the first
    /// checkpoint: a process that ends before that begins anew, and so later where it begins at the end.
    pub fn from(self, start: Start) -> Self {
        self.shape(|s| s.terms.start = start)
    }
    /// The group that [`Start::Group`] means, and to which the positions of every completed checkpoint are committed,
    /// so that whoever watches the group sees how far the job is. The job itself goes on from its checkpoint and
    /// never from there; a group with members of its own refuses the positions, which is logged. On a cluster with
    /// ACLs, name a group that may be read in any case: the client wants one.
    pub fn group(self, name: impl Into<String>) -> Self {
        self.shape(|s| s.group = Some(name.into()))
    }
    /// Ends at what is there when the job begins. A restart ends at the same place; a job that has ended and is run
    /// again goes on with what has come since. The job's trigger `available-now` is for all its sources, and differs in
    /// that this is the end of the input, with which all windows are complete.
    pub fn available_now(self) -> Self {
        self.shape(|s| s.terms.until = Until::Now)
    }
    /// Ends before these offsets; partitions that are not named are not read.
    pub fn until(self, offsets: Offsets) -> Self {
        self.shape(|s| s.terms.until = Until::Offsets(offsets))
    }
    /// Reads also what transactions have not committed, or have aborted.
    pub fn read_uncommitted(self) -> Self {
        self.shape(|s| s.committed_only = false)
    }
    /// Looks for new topics and partitions at this interval, 30 s without this. A source that ends never looks.
    pub fn discover_every(mut self, interval: Duration) -> Self {
        self.discovery = interval.max(Duration::from_millis(1));
        self
    }
    /// What becomes of a position that is not there any more; without this it is an error.
    ///
    /// That a topic has been created again is noticed by its id, when a reader is opened and within 10 s while it
    /// reads. With a broker before Kafka 2.8, which has no ids, it is noticed only where the new topic is shorter.
    pub fn on_gap(self, gap: Gap) -> Self {
        self.shape(|s| s.terms.gap = gap)
    }
    /// How long a cluster may be away while the job runs, 5 min without this. After that the attempt fails, and what
    /// then happens is up to the job's restarts.
    pub fn give_up_after(self, limit: Duration) -> Self {
        self.shape(|s| s.give_up_after = limit)
    }
}

/// A clone has clients of its own.
impl<C: Clone> Clone for KafkaSource<C> {
    fn clone(&self) -> Self {
        let Self { topics, codec, shape, discovery, .. } = self;
        let (topics, codec, shape) = (topics.clone(), codec.clone(), shape.clone());
        Self { topics, codec, shape, discovery: *discovery, share: Arc::default() }
    }
}

impl<C> fmt::Debug for KafkaSource<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("topics", &self.topics).field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Share {
    fn live(&self) -> Option<Arc<Shared>> {
        lock(&self.clients).upgrade()
    }

    /// Clients, for any purpose or with a partition that nobody has read with them.
    fn clients(&self, shape: &Arc<Shape>, place: Option<&Place>) -> Result<Arc<Shared>> {
        let mut clients = lock(&self.clients);
        let claimed = |shared: &Arc<Shared>| place.is_none_or(|place| shared.claim(place));
        if let Some(shared) = clients.upgrade().filter(claimed) {
            return Ok(shared);
        }
        let shared = Shared::new(shape)?;
        claimed(&shared);
        *clients = Arc::downgrade(&shared);
        Ok(shared)
    }
}

impl Listed {
    /// What there is to read, after a look that began at a time.
    ///
    /// While readers are at work, their clients judge the cluster's health, and nothing is new meanwhile. A source that
    /// still waits for its first topic has none, and is as patient by itself. In any other case a job is about to start,
    /// and is told at once.
    fn after(&mut self, look: Result<Vec<Split>>, began: Instant, read: bool, shape: &Shape) -> Result<Vec<Split>> {
        let error = match look {
            Ok(splits) => {
                self.first.get_or_insert_with(|| splits.iter().map(|split| split.id.clone()).collect());
                self.last.clone_from(&splits);
                self.away = None;
                return Ok(splits);
            }
            Err(error) => error,
        };
        let away = *self.away.get_or_insert(began);
        let waits = self.first.is_some() && self.last.is_empty() && shape.terms.until == Until::Never;
        let patient = error.kind().is_retriable() && now().duration_since(away) < shape.give_up_after;
        if read || (waits && patient) {
            tracing::debug!(%error, "no look for new partitions");
            return Ok(self.last.clone());
        }
        Err(error)
    }

    /// Whether something was not there when the job began.
    fn is_new(&self, split: &Split) -> bool {
        self.first.as_ref().is_some_and(|first| !first.contains(&split.id))
    }
}

impl<C: Decode> Source for KafkaSource<C> {
    type Item = C::Item;
    type Reader = KafkaReader<C>;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        let (topics, shape, share) = (self.topics.clone(), self.shape.clone(), self.share.clone());
        Box::pin(blocking(move || {
            let (live, began) = (share.live(), now());
            let listed = match &live {
                Some(shared) => cluster::list(&topics, &shape, &shared.admin),
                None => cluster::list(&topics, &shape, &shape.admin()?),
            };
            lock(&share.listed).after(listed, began, live.is_some(), &shape)
        }))
    }

    fn discovery_interval(&self) -> Option<Duration> {
        (self.shape.terms.until == Until::Never).then_some(self.discovery)
    }

    fn can_end(&self) -> Result<()> {
        Ok(())
    }

    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<KafkaReader<C>>> {
        match position.map(Position::parse) {
            None => self.opened(split, Opening::Job),
            Some(Ok(position)) => self.opened(split, Opening::Saved(position)),
            Some(Err(error)) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn open_new(&self, split: Split) -> BoxFuture<'_, Result<KafkaReader<C>>> {
        self.opened(split, Opening::New)
    }

    fn open_again(&self, split: Split, position: Value) -> BoxFuture<'_, Result<KafkaReader<C>>> {
        match Position::parse(position) {
            Ok(position) => self.opened(split, Opening::Again(position)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn committed(&self, positions: Vec<(String, Value)>) -> BoxFuture<'_, Result<()>> {
        if self.shape.group.is_none() || positions.is_empty() {
            return Box::pin(std::future::ready(Ok(())));
        }
        let (shape, share) = (self.shape.clone(), self.share.clone());
        let commit = move || {
            let failed = |e| shape.kafka.failed("the positions of a checkpoint cannot be committed to the group", &e);
            let mut list = TopicPartitionList::new();
            for (id, position) in positions {
                let (place, position) = (Place::parse(&id)?, Position::parse(position)?);
                list.add_partition_offset(&place.topic, place.partition, Offset::Offset(position.offset))
                    .map_err(failed)?;
            }
            let shared = share.clients(&shape, None)?;
            let committed = shared.consumer.commit(&list, CommitMode::Sync).map_err(failed);
            if let Err(error) = &committed
                && error.kind() == Kind::Config
            {
                // It will be so at each checkpoint, and nobody would see the lag that he asked for.
                shared.fail(error.clone());
            }
            committed
        };
        Box::pin(async move {
            // Not on the runtime's threads: while the group's broker is away it lasts, and a job that ends does not wait.
            let (done, result) = oneshot::channel();
            spawn_thread("tidegate-kafka-commit", move || drop(done.send(commit())))
                .map_err(|e| Error::unavailable("there is no thread to commit to a group").caused_by(e))?;
            result.await.map_err(|e| Error::internal("a commit to a group has panicked").caused_by(e))?
        })
    }

    fn figures(&self) -> Vec<Figure> {
        self.share.live().map_or_else(Vec::new, |shared| shared.figures())
    }
}

impl<C: Decode> KafkaSource<C> {
    fn opened(&self, split: Split, opening: Opening) -> BoxFuture<'_, Result<KafkaReader<C>>> {
        let (codec, shape, share) = (self.codec.clone(), self.shape.clone(), self.share.clone());
        Box::pin(async move {
            codec.prepare(&Place::parse(&split.id)?.topic).await?;
            blocking(move || open(&split, codec, &shape, &share, opening)).await
        })
    }
}

fn open<C: Decode>(
    split: &Split,
    codec: C,
    shape: &Arc<Shape>,
    share: &Share,
    opening: Opening,
) -> Result<KafkaReader<C>> {
    let place = Place::parse(&split.id)?;
    let begins = matches!(opening, Opening::Job | Opening::New);
    let opening = match opening {
        Opening::Job => match lock(&share.begun).get(&place) {
            Some(begun) => Opening::Saved(begun.clone()),
            None if lock(&share.listed).is_new(split) => Opening::New,
            None => Opening::Job,
        },
        other => other,
    };
    if let Opening::Saved(position) = &opening
        && shape.terms.until == Until::Now
        && position.has_ended()
    {
        return Ok(KafkaReader::at_end(place, codec, position.clone(), shape.clone(), None));
    }
    let shared = share.clients(shape, Some(&place))?;
    let Some(facts) = cluster::facts(shape, &shared, &place)? else {
        shape.terms.gap(&format!("{place} is gone"))?;
        let position = match opening {
            Opening::Saved(position) | Opening::Again(position) => position,
            Opening::Job | Opening::New => Position { offset: 0, end: None, topic_id: None },
        };
        return Ok(KafkaReader::at_end(place, codec, position, shape.clone(), Some(shared)));
    };
    let mut ask = |what| cluster::ask(shape, &shared, &place, what);
    let position = shape.terms.position(&place, &facts, opening, &mut ask)?;
    if begins {
        lock(&share.begun).entry(place.clone()).or_insert_with(|| position.clone());
    }
    if position.has_ended() {
        return Ok(KafkaReader::at_end(place, codec, position, shape.clone(), Some(shared)));
    }
    KafkaReader::open(place, codec, position, facts.low, shape.clone(), shared)
}
