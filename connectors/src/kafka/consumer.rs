//! The clients that the splits of a source share: one that fetches for all of them, one that asks.
//!
//! Partitions are assigned to the fetching client one by one, each with a queue of its own, and never through the
//! group: the checkpoint says who reads what. A thread serves the clients' events and looks at the cluster now and
//! then, since librdkafka keeps a broker's absence to itself and goes on trying. A broker that is away is waited
//! for; only when nothing has been heard or read for too long the readers are told to fail. What a look finds is
//! judged by [`health`](super::health).
//!
//! The hard case is the end. Closing a client blocks, which a reader that is dropped on the engine's thread must not:
//! the last one is closed by the thread. And a reader of a dead attempt may live a little longer than the next
//! one's: a partition is therefore assigned to a client once and never again, and whoever comes for it a second time
//! gets clients of his own.
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode as Code},
    topic_partition_list::Offset,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};
use tidegate_core::{
    Error, Result,
    connect::Figure,
    env::{now, spawn_thread},
};

use super::{
    client::{CONTACT, Kafka, Role, lock},
    events::Events,
    health::{Health, Look},
    native::{self, Bell, Queue},
    place::Place,
    start::Terms,
};

type Client = Arc<BaseConsumer<Events>>;

/// What is the same for all of a source's clients.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub kafka: Kafka,
    pub group: Option<String>,
    pub committed_only: bool,
    pub give_up_after: Duration,
    pub terms: Terms,
}

/// Positions are committed to no group then, but librdkafka wants a name.
const NO_GROUP: &str = "tidegate";
/// The thread looks for partitions to give up, and for its own end, this often.
const TURN: Duration = Duration::from_millis(100);
/// Events that are served at once: in an outage there are always more.
const EVENTS: usize = 1000;
/// A look every so often, or four times within the patience that there is; but where there is doubt.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const DOUBT_EVERY: Duration = Duration::from_secs(1);

/// The clients, and who reads what with them.
pub(super) struct Shared {
    shape: Arc<Shape>,
    pub admin: Client,
    pub consumer: Client,
    partitions: Mutex<BTreeMap<Place, Reading>>,
    failed: AtomicBool,
    fault: Mutex<Option<Error>>,
    /// Fills that brought something.
    fills: AtomicU64,
    /// The fetcher has been told that something is not there, and may have stopped asking.
    doubted: AtomicBool,
}

/// What becomes of a partition.
enum Reading {
    /// A reader is being opened, or has not come about.
    Claimed,
    Here {
        topic_id: Option<String>,
        bell: Arc<Bell>,
    },
    /// Its reader has gone.
    Leaving,
    Left,
}

impl Shape {
    fn look_every(&self) -> Duration {
        LOOK_EVERY.min(self.give_up_after / 4).max(DOUBT_EVERY)
    }

    /// A client that asks, and sees open transactions too.
    pub(super) fn admin(&self) -> Result<BaseConsumer<Events>> {
        self.kafka.client(&Role::Admin)
    }
}

impl Shared {
    /// Makes the clients, and starts the thread that serves them until nobody has this any more.
    pub(super) fn new(shape: &Arc<Shape>) -> Result<Arc<Self>> {
        let group = shape.group.as_deref().unwrap_or(NO_GROUP);
        let role = Role::Consumer { group, committed_only: shape.committed_only };
        let consumer: Client = Arc::new(shape.kafka.client(&role)?);
        let admin = Arc::new(shape.admin()?);
        let shared = Arc::new(Self {
            shape: shape.clone(),
            admin: admin.clone(),
            consumer: consumer.clone(),
            partitions: Mutex::default(),
            failed: AtomicBool::new(false),
            fault: Mutex::default(),
            fills: AtomicU64::new(0),
            doubted: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&shared);
        spawn_thread("tidegate-kafka", move || serve(&weak, admin, consumer))
            .map_err(|e| Error::unavailable("there is no thread for a Kafka client").caused_by(e))?;
        Ok(shared)
    }

    /// How both clients are.
    pub(super) fn figures(&self) -> Vec<Figure> {
        [&self.consumer, &self.admin].into_iter().flat_map(|client| client.context().figures()).collect()
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<Place, Reading>> {
        lock(&self.partitions)
    }

    /// Takes a partition; false: somebody reads it with these clients, or has.
    pub(super) fn claim(&self, place: &Place) -> bool {
        let mut partitions = self.partitions();
        let free = !partitions.contains_key(place);
        if free {
            partitions.insert(place.clone(), Reading::Claimed);
        }
        free
    }

    /// Begins to fetch a partition that was claimed. Blocks for a moment.
    pub(super) fn assign(&self, place: &Place, offset: i64, topic_id: Option<String>) -> Result<Queue> {
        let failed = |e| self.shape.kafka.failed(&format!("{place} cannot be read"), &e);
        let queue = Queue::new(&self.consumer, &place.topic, place.partition).map_err(failed)?;
        self.partitions().insert(place.clone(), Reading::Here { topic_id, bell: queue.bell() });
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&place.topic, place.partition, Offset::Offset(offset)).map_err(failed)?;
        self.consumer.incremental_assign(&list).map_err(failed)?;
        Ok(queue)
    }

    /// Nothing of a partition is wanted any more. Does not block.
    pub(super) fn leave(&self, place: &Place) {
        self.partitions().insert(place.clone(), Reading::Leaving);
    }

    /// What is read may be gone: look at once.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Release);
    }

    /// A fill has brought something.
    pub(super) fn progressed(&self) {
        self.fills.fetch_add(1, Relaxed);
    }

    /// What all readers fail with, if anything.
    #[inline]
    pub(super) fn fault(&self) -> Option<Error> {
        if !self.failed.load(Acquire) {
            return None;
        }
        lock(&self.fault).clone()
    }

    /// Lets all readers fail.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.fault).get_or_insert(error);
        self.failed.store(true, Release);
        for reading in self.partitions().values() {
            if let Reading::Here { bell, .. } = reading {
                bell.ring();
            }
        }
    }

    /// Ends the fetching of partitions whose readers have gone.
    fn give_up(&self) {
        let mut list = TopicPartitionList::new();
        for (place, reading) in self.partitions().iter_mut().filter(|(_, r)| matches!(r, Reading::Leaving)) {
            list.add_partition(&place.topic, place.partition);
            *reading = Reading::Left;
        }
        if list.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(&list)
        {
            self.fail(self.shape.kafka.failed("partitions cannot be given up", &error));
        }
    }

    /// Asks the cluster for what is being read.
    fn look(&self) -> Look {
        let mut read = BTreeMap::<_, Vec<_>>::new();
        for (place, reading) in self.partitions().iter() {
            if let Reading::Here { topic_id, .. } = reading {
                read.entry(place.topic.clone()).or_default().push((place.partition, topic_id.clone()));
            }
        }
        if read.is_empty() {
            return Look::Well;
        }
        let topics: Vec<_> = read.keys().cloned().collect();
        if self.doubted.swap(false, Acquire)
            && let Some(e) = topics.iter().find_map(|t| self.consumer.fetch_metadata(Some(t), CONTACT).err())
        {
            self.doubt();
            return Look::of(&self.shape.kafka, "the cluster", &e);
        }
        match native::describe(self.admin.client(), &topics, CONTACT.min(self.shape.give_up_after)) {
            Err(error) => Look::of(&self.shape.kafka, "the cluster", &error),
            Ok(found) => read.iter().zip(found).fold(Look::Well, |worst, ((topic, read), found)| {
                worst.or(match found {
                    Ok(found) => Look::at(topic, read, &found),
                    Err(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Look::Missing(topic.clone()),
                    Err(code) => {
                        let error = KafkaError::MetadataFetch(code);
                        Look::of(&self.shape.kafka, &format!("topic {topic}"), &error)
                    }
                })
            }),
        }
    }
}

fn serve(shared: &Weak<Shared>, admin: Client, consumer: Client) {
    let mut health = Health::new(now());
    let (mut looked, mut fills, mut forbidden) = (now(), 0, false);
    while let Some(shared) = shared.upgrade() {
        shared.give_up();
        if forbidden && let Some(group) = &shared.shape.group {
            let error = KafkaError::MetadataFetch(Code::GroupAuthorizationFailed);
            shared.fail(shared.shape.kafka.failed(&format!("group {group:?} cannot be used"), &error));
        }
        let every = if shared.doubted.load(Relaxed) { DOUBT_EVERY } else { shared.shape.look_every() };
        if now().duration_since(looked) >= every {
            let look = shared.look();
            let progressed = std::mem::replace(&mut fills, shared.fills.load(Relaxed)) != fills;
            if let Some(error) = health.after(look, progressed, now(), &shared.shape) {
                shared.fail(error);
            }
            looked = now();
        }
        drop(shared);
        forbidden |= poll(&consumer, TURN);
        poll(&admin, Duration::ZERO);
    }
    // The readers' part of it goes with them. Only then can it be closed, which blocks.
    while Arc::strong_count(&consumer) > 1 || Arc::strong_count(&admin) > 1 {
        poll(&consumer, TURN);
    }
}

/// Serves events. Errors come to the clients' [`Events`], which say them, and their consequences to the queues; but
/// not that the group is forbidden, which is said here, once: whoever asks for its positions waits in vain.
fn poll(client: &Client, limit: Duration) -> bool {
    let limits = std::iter::once(limit).chain(std::iter::repeat_n(Duration::ZERO, EVENTS));
    let events = limits.map(|limit| client.poll(limit)).take_while(Option::is_some).flatten();
    let is_forbidden = |event: Result<_, KafkaError>| {
        event.is_err_and(|e| e.rdkafka_error_code() == Some(Code::GroupAuthorizationFailed))
    };
    events.fold(false, |forbidden, event| forbidden | is_forbidden(event.map(drop)))
}
