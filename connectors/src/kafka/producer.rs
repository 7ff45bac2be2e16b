//! A producer as the sink needs it: one that hands over, drains, and knows what has failed.
//!
//! Its calls block, so they run beside the engine. Its events are served by a thread of its own, without which a
//! drain would never end (not by rdkafka's `ThreadedProducer`, which looks ten times a second whether it is over, and
//! spins for a millisecond each time). The hard case is the delivery that has failed after everybody thought it done:
//! no drain succeeds while there is one, and a producer with a fault is never used again.
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{BaseProducer, Producer as _},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};
use tidegate_core::{
    Error, Kind, Result,
    connect::Figure,
    env::{Instant, now, spawn_thread},
};

use super::{
    client::{CALL, CONTACT, Kafka, NAME, Role, blocking, lock},
    events::{Events, is_fenced},
    native::{self, Topic},
    place::is_name,
};

/// How long a call keeps its thread after nobody waits for it any more.
const STEP: Duration = Duration::from_millis(500);

/// Whether a call has only run out of time, and may be made again to go on. Of a transaction's it may tell what it was
/// waiting for.
fn is_unfinished(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(e) => e.is_retriable(),
        other => matches!(other, KafkaError::Flush(Code::OperationTimedOut)),
    }
}

/// Ends the thread that serves a client's events, some time after it is dropped.
struct Serving(Arc<AtomicBool>);

/// How long the thread may not notice.
const TURN: Duration = Duration::from_secs(1);

fn serve(client: &Arc<BaseProducer<Events>>) -> Result<Serving> {
    let (client, over) = (client.clone(), Arc::new(AtomicBool::new(false)));
    let serving = Serving(over.clone());
    let serve = move || {
        while !over.load(Acquire) {
            client.poll(TURN);
        }
    };
    spawn_thread("kafka-events", serve)
        .map_err(|e| Error::unavailable("there is no thread for a Kafka client").caused_by(e))?;
    Ok(serving)
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

/// How many partitions topics have, by name, as whoever asked first was told. Producers that write for one job share
/// it: a topic that grows meanwhile must not have other partitions for one of them, or a key would go to and fro.
pub(super) type PartitionCounts = Arc<Mutex<BTreeMap<String, i32>>>;

pub(super) struct Producer {
    kafka: Kafka,
    /// `None` only while it is dropped.
    client: Option<Arc<BaseProducer<Events>>>,
    /// Its events are served as long as this is there.
    serving: Option<Serving>,
    transactional: bool,
    /// When its transaction came into being at the broker, with the first record.
    opened: Mutex<Option<Instant>>,
    /// Topics whose partitions it knows. A handle of each is kept, so that it goes on to.
    topics: Mutex<BTreeMap<String, Topic>>,
    counts: PartitionCounts,
    /// About how many bytes a message has, lately.
    message_bytes: AtomicU64,
}

impl Producer {
    pub(super) fn new(kafka: &Kafka, role: &Role<'_>, counts: PartitionCounts) -> Result<Arc<Self>> {
        let client = Arc::new(kafka.client(role)?);
        let serving = Some(serve(&client)?);
        let transactional = matches!(role, Role::Transactional { .. });
        let (kafka, client) = (kafka.clone(), Some(client));
        let (opened, topics, message_bytes) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        Ok(Arc::new(Self { kafka, client, serving, transactional, opened, topics, counts, message_bytes }))
    }

    fn client(&self) -> Result<&Arc<BaseProducer<Events>>> {
        self.client.as_ref().ok_or_else(|| Error::internal("a producer is used while it is dropped"))
    }

    /// Messages that have been handed over and not acknowledged.
    fn in_flight(&self) -> usize {
        self.client.as_ref().map_or(0, |client| client.in_flight_count().max(0) as usize)
    }

    /// Whether fewer messages are in flight, and about fewer bytes. What librdkafka does not tell is how many bytes
    /// those are; it is taken for too many rather than for too few.
    pub(super) fn has_less(&self, messages: usize, bytes: u64) -> bool {
        let in_flight = self.in_flight();
        in_flight < messages && (in_flight as u64).saturating_mul(self.message_bytes.load(Relaxed)) < bytes
    }

    /// So much is handed over.
    pub(super) fn handed(&self, messages: usize, bytes: usize) {
        let average = (bytes / messages.max(1)) as u64;
        let lately = self.message_bytes.load(Relaxed);
        self.message_bytes.store(average.max(lately - lately / 8), Relaxed);
    }

    /// How its client is.
    pub(super) fn figures(&self) -> Vec<Figure> {
        self.client.as_ref().map_or_else(Vec::new, |client| client.context().figures())
    }

    /// How long its transaction has been open; `None`: there is none.
    pub(super) fn open_for(&self) -> Option<Duration> {
        lock(&self.opened).map(|opened| now().duration_since(opened))
    }

    /// Its transaction has ended.
    pub(super) fn ended(&self) {
        *lock(&self.opened) = None;
    }

    /// What makes it useless, if anything does.
    ///
    /// # Errors
    /// That.
    pub(super) fn check(&self) -> Result<()> {
        let client = self.client()?;
        match client.context().fault() {
            None => Ok(()),
            Some(fault) => Err(self.failed("a record could not be delivered", &fault)),
        }
    }

    /// A zombie rarely hears that it is fenced: it sees purged messages, or a call that fails for no reason. So the
    /// client is asked whether that is it.
    pub(super) fn failed(&self, what: &str, error: &KafkaError) -> Error {
        let fatal = self.client.as_ref().and_then(|client| client.client().fatal_error());
        let fatal = fatal.map(|(code, _)| KafkaError::Global(code));
        if fatal.as_ref().is_some_and(is_fenced) || is_fenced(error) {
            return fenced(what);
        }
        let cause = fatal.or_else(|| self.cause(error));
        let error = cause.as_ref().unwrap_or(error);
        if error.rdkafka_error_code() == Some(Code::TopicAuthorizationFailed) {
            // It does not say which.
            let topics: Vec<_> = self.topics().keys().map(|name| format!("{name:?}")).collect();
            return self.kafka.failed(&format!("{what} (one of {})", topics.join(", ")), error);
        }
        self.kafka.failed(what, error)
    }

    /// Of a transaction that is dead its messages only tell that they were purged. Why it is, says whoever is to do
    /// anything but to abort it: here, to begin one, which would be of no consequence.
    fn cause(&self, error: &KafkaError) -> Option<KafkaError> {
        let purged = matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight));
        let client = self.client.as_ref().filter(|_| self.transactional && purged)?;
        let cause = client.begin_transaction().err()?;
        matches!(&cause, KafkaError::Transaction(e) if e.txn_requires_abort()).then_some(cause)
    }

    /// Hands a batch over with `work`.
    ///
    /// # Errors
    /// What `work` fails with.
    pub(super) fn send(&self, work: impl FnOnce(&BaseProducer<Events>) -> Result<(), KafkaError>) -> Result<()> {
        if self.transactional {
            lock(&self.opened).get_or_insert_with(now);
        }
        work(self.client()?).map_err(|e| self.failed("a record cannot be handed to Kafka", &e))
    }

    /// Waits until everything that was handed over has been acknowledged.
    ///
    /// # Errors
    /// When something was not, by now or ever.
    pub(super) async fn drain(self: Arc<Self>) -> Result<()> {
        self.call("records cannot be delivered", native::flush).await
    }

    /// Runs a call that blocks, in steps, of which each goes on with what the one before has begun: whoever waits no
    /// more, since the attempt is over, is not to be kept by a broker that is away. It has failed, too, if a delivery
    /// has.
    ///
    /// # Errors
    /// As the call, saying what could not be done.
    pub(super) async fn call(
        self: Arc<Self>,
        what: impl Into<String>,
        step: impl Fn(&BaseProducer<Events>, Duration) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<()> {
        let what = what.into();
        // Dropped with this future.
        let waiting = Arc::new(());
        let waits = Arc::downgrade(&waiting);
        let done = blocking(move || {
            let deadline = now() + CALL;
            loop {
                match step(self.client()?, STEP) {
                    Err(error) if is_unfinished(&error) && waits.strong_count() > 0 && now() < deadline => {}
                    done => return done.map_err(|e| self.failed(&what, &e)).and_then(|()| self.check()),
                }
            }
        })
        .await;
        drop(waiting);
        done
    }

    /// Makes the client know a topic's partitions: it must, before it is handed a batch.
    ///
    /// # Errors
    /// [`Kind::Config`] when there is no such topic, or it may not be seen.
    pub(super) async fn learn(self: Arc<Self>, topic: &str) -> Result<()> {
        let name = topic.to_owned();
        blocking(move || {
            if self.topics().contains_key(&name) {
                return Ok(());
            }
            let client = self.client()?;
            let what = format!("topic {name:?} cannot be written");
            let failed = |e: KafkaError| self.failed(&what, &e);
            if !is_name(&name) {
                return Err(Error::config(format!("no topic can have the name {name:?}")).hint(NAME));
            }
            let deadline = now() + CONTACT;
            there(client, &name, deadline).map_err(failed)?;
            // In this order: what metadata says of a topic that the client has no handle of is forgotten.
            let handle = Topic::new(client, &name).map_err(failed)?;
            let count = fetch(client, &name, deadline).map_err(failed)?;
            let mut counts = lock(&self.counts);
            counts.entry(name.clone()).or_insert(i32::try_from(count).unwrap_or(i32::MAX));
            drop(counts);
            self.topics().insert(name, handle);
            Ok(())
        })
        .await
    }

    /// Of the topics that it and those beside it write to.
    pub(super) fn counts(&self) -> &PartitionCounts {
        &self.counts
    }

    /// Makes the client know what another one does, whose place it takes.
    ///
    /// # Errors
    /// As `learn`.
    pub(super) async fn learn_as(self: &Arc<Self>, other: &Self) -> Result<()> {
        let names: Vec<_> = other.topics().keys().cloned().collect();
        for name in names {
            self.clone().learn(&name).await?;
        }
        Ok(())
    }

    /// A handle of a topic whose partitions are known, and their number.
    ///
    /// # Errors
    /// As librdkafka.
    pub(super) fn topic(&self, name: &str) -> Result<Option<(Topic, i32)>> {
        if !self.topics().contains_key(name) {
            return Ok(None);
        }
        let count = lock(&self.counts).get(name).copied();
        let Some(count) = count else { return Ok(None) };
        let topic = Topic::new(self.client()?, name).map_err(|e| self.failed("a topic cannot be opened", &e))?;
        Ok(Some((topic, count)))
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<String, Topic>> {
        lock(&self.topics)
    }
}

/// Makes sure that a topic exists. A producer that asks for the metadata of one that does not has it made, where the
/// broker allows that: a name that is mistyped would become a topic.
///
/// # Errors
/// `UnknownTopicOrPartition` when there is none; else as librdkafka.
fn there(client: &BaseProducer<Events>, topic: &str, deadline: Instant) -> Result<(), KafkaError> {
    let described = native::describe(client.client(), &[topic.to_owned()], left(deadline))?;
    match described.into_iter().next() {
        // One that has just been made has no leader yet.
        Some(Ok(_) | Err(Code::LeaderNotAvailable)) => Ok(()),
        Some(Err(code)) => Err(KafkaError::MetadataFetch(code)),
        None => Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)),
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(now()).max(Duration::from_millis(1))
}

/// The number of partitions. A topic that has just been made is not known everywhere at once.
fn fetch(client: &BaseProducer<Events>, topic: &str, deadline: Instant) -> Result<usize, KafkaError> {
    loop {
        let metadata = client.client().fetch_metadata(Some(topic), left(deadline))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let error = found.and_then(rdkafka::metadata::MetadataTopic::error).map(Code::from);
        match (error, found.map(|t| t.partitions().len())) {
            (None, Some(count)) if count > 0 => return Ok(count),
            (Some(Code::LeaderNotAvailable), _) if now() < deadline => {}
            (Some(error), _) => return Err(KafkaError::MetadataFetch(error)),
            (None, _) => return Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)),
        }
    }
}

/// The error of a producer that a newer one of its id has replaced. It is no [`Kind::Fenced`], which never restarts:
/// it may be this job's own next attempt that did it, and only the store knows.
pub(super) fn fenced(what: &str) -> Error {
    Error::new(Kind::Unavailable, format!("{what}: a newer producer with this job's transactional id has taken over"))
        .hint(
            "if another process runs this job, let one of them go on; if another job has the same name, rename one; if \
             neither, the transaction has timed out: checkpoint more often, or raise kafka.transaction.timeout.ms",
        )
}

/// Dropping a producer waits for what is in flight to be given up: not on the engine's threads. What it has begun is
/// aborted, or readers would wait for its time-out where no successor fences it; where one has, or the outcome of a
/// commit is not known, that does nothing.
impl Drop for Producer {
    fn drop(&mut self) {
        let (client, serving) = (self.client.take(), self.serving.take());
        let topics = std::mem::take(self.topics.get_mut().unwrap_or_else(PoisonError::into_inner));
        let transactional = self.transactional;
        let dropped = spawn_thread("kafka-drop", move || {
            if let Some(client) = client.filter(|_| transactional)
                && let Err(error) = client.abort_transaction(CONTACT)
            {
                tracing::debug!(%error, "a transaction was not aborted by its own producer");
            }
            drop((topics, serving));
        });
        if let Err(error) = dropped {
            tracing::debug!(%error, "no thread to drop a Kafka producer on: it was dropped here");
        }
    }
}
