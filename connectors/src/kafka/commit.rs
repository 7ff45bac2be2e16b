//! The commit point of a job whose output is in a Kafka transaction.
//!
//! ```text
//! barrier N everywhere -> output of N, and behind it the commit record of N in <job>-commits, drained
//!   -> manifest N written (prepared) -> EndTxn: output, state and positions count
//!   -> a copy of the record into the checkpoint store, for retention
//! ```
//! The record names its manifest before that is there. It says nothing as long as its transaction is open; only whoever
//! has a permit commits that, and a permit takes the manifest.
//!
//! Materialize's sink is the precedent: the record of progress is *inside* the transaction. So there is no moment at
//! which output is visible and the checkpoint does not count, or the other way round; nothing that was prepared ever
//! has to be resumed after a crash (which librdkafka could not do); and a transaction that has timed out costs
//! nothing, since its epoch is done again.
//!
//! Recovery: fence both producers and those that the last record names, which aborts what they had open; then
//! read the topic up to its *high watermark*, as one who reads uncommitted sees it. What is committed then is
//! final: whoever could have changed it is fenced.
//!
//! The hard cases. The reply to `EndTxn` is lost: the attempt ends, and its successor reads what came of it.
//! Another job of the same name, with another checkpoint store: its records name manifests that are not in ours, so it
//! is refused *before* anything of it is fenced. A claim that is overtaken while it fences: it stops when it
//! sees the newer claim, and the newer one, fenced by it, begins again.
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::Message as _,
    topic_partition_list::{Offset, TopicPartitionList},
};
use std::{any::Any, collections::BTreeSet, sync::Arc, task::Poll, time::Duration};
use tidegate_checkpoint::{
    commit::{
        CommitContext, CommitPermit, CommitPoint, CommitRecord, OpenCommitPoint, Sealed, StoreCommitPoint,
        committed_manifest, still_newest,
    },
    error::Kind,
    figure::Figure,
    ids::{Attempt, JobId},
    kill,
    manifest::Manifest,
    store::CheckpointStore,
};
use tidegate_core::{
    Error, Result,
    env::{now, sleep},
};

use super::{
    client::{CALL, CONTACT, Kafka, Role, blocking, is_passing},
    events::Events,
    producer::PartitionCounts,
    transactions::{RecordTemplate, Transactions, fence},
};

type Boxed<'a, T> = futures::future::BoxFuture<'a, Result<T>>;

/// Commits in a transaction of this cluster.
pub(super) struct KafkaTransaction(pub Kafka);

impl OpenCommitPoint for KafkaTransaction {
    fn place(&self) -> String {
        format!("a Kafka transaction at {}", self.0.servers())
    }

    fn open(&self, context: CommitContext) -> Boxed<'_, Arc<dyn CommitPoint>> {
        Box::pin(async move { Ok(Arc::new(open(&self.0, context).await?) as Arc<dyn CommitPoint>) })
    }
}

/// See the module.
pub(super) struct KafkaCommitPoint {
    store: Arc<CheckpointStore>,
    topic: String,
    ids: [String; 2],
    attempt: Attempt,
    latest: Option<CommitRecord>,
    pub transactions: Arc<Transactions>,
}

/// The topic of a job's commit records.
pub(super) fn commits_topic(job: &JobId) -> String {
    format!("{job}-commits")
}

/// The job's transactional ids: the same at every start, so that each fences the one before.
pub(super) fn ids(job: &str) -> [String; 2] {
    [0, 1].map(|n| format!("{job}-{n}"))
}

async fn open(kafka: &Kafka, CommitContext { store, attempt, interval }: CommitContext) -> Result<KafkaCommitPoint> {
    if store.is_volatile() {
        return Err(Error::config("a transactional Kafka sink needs checkpoints that outlast the process")
            .hint("set checkpoint.store to a directory or URL; or make the sink at-least-once"));
    }
    let timeout = timeout(kafka, interval)?;
    let topic = commits_topic(store.job());
    ensure_topic(kafka, &topic).await?;
    let readers = Readers::new(kafka, &topic)?;
    let found = readers.latest(false).await?;
    kill::point("kafka.recover.found");
    check_owner(&store, &topic, found.as_ref()).await?;
    still_newest(&store, attempt).await?;
    let ids = ids(store.job().as_str());
    let named = found.iter().flat_map(|record| record.transactional_ids.iter().cloned());
    let all: BTreeSet<String> = named.chain(ids.iter().cloned()).collect();
    // Side by side: each takes a step of half a second after a crash.
    let counts = PartitionCounts::default();
    let fenced = futures::future::try_join_all(all.iter().map(|id| fence(kafka, id, timeout, &counts))).await?;
    kill::point("kafka.recover.fenced");
    let mut mine = all.iter().zip(fenced).filter(|(id, _)| ids.contains(id)).map(|(_, producer)| producer);
    let (Some(first), Some(second)) = (mine.next(), mine.next()) else {
        return Err(Error::internal("a producer has gone missing while it was fenced"));
    };
    let transactions = Transactions::begin(kafka, ids.clone(), timeout, [first, second]).await?;
    let latest = readers.latest(true).await?;
    for producer in [transactions.lane(0), transactions.lane(1)] {
        producer.learn(&topic).await?;
    }
    kill::point("kafka.recover.read");
    let this = KafkaCommitPoint { store, topic, ids, attempt, latest, transactions };
    if let Some(record) = &this.latest {
        this.copy(record).await?;
    }
    Ok(this)
}

/// The broker's own default for the most that it allows is 15 minutes.
const TIMEOUT_MAX: Duration = Duration::from_secs(15 * 60);

/// How long a transaction may be open: from the first record behind a barrier to the next checkpoint's commit.
fn timeout(kafka: &Kafka, interval: Option<Duration>) -> Result<Duration> {
    let Some(interval) = interval else {
        return Err(Error::config("checkpoint.interval = 0s: a transaction would stay open for ever")
            .hint("a transactional Kafka sink shows its output at each checkpoint: set an interval, as short as readers should wait"));
    };
    let given = kafka.get("transaction.timeout.ms").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let timeout = given.unwrap_or_else(|| (interval * 3).clamp(CALL, TIMEOUT_MAX));
    if timeout <= interval {
        return Err(Error::config(format!(
            "{interval:?} from one checkpoint to the next (checkpoint.interval, checkpoint.min-pause) is no shorter than \
             a transaction may take ({timeout:?}): none would be committed"
        ))
        .hint("checkpoint more often, or raise kafka.transaction.timeout.ms and the broker's transaction.max.timeout.ms"));
    }
    Ok(timeout)
}

/// Makes the topic of commit records if there is none. Also the first time that the cluster is spoken to.
async fn ensure_topic(kafka: &Kafka, topic: &str) -> Result<()> {
    let client: BaseConsumer<Events> = kafka.client(&Role::Admin)?;
    let (asked, name) = (kafka.clone(), topic.to_owned());
    let there = blocking(move || {
        let metadata = asked.contact(&client, |limit| client.fetch_metadata(Some(&name), limit))?;
        let found = metadata.topics().iter().find(|t| t.name() == name);
        match found.and_then(rdkafka::metadata::MetadataTopic::error).map(Code::from) {
            None => Ok(found.is_some()),
            Some(Code::UnknownTopicOrPartition) => Ok(false),
            Some(code) => {
                Err(asked.failed(&format!("topic {name:?} cannot be used"), &KafkaError::MetadataFetch(code)))
            }
        }
    })
    .await?;
    if there {
        return Ok(());
    }
    // One record a checkpoint, of which the last counts: small segments, so that compaction gets at them.
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", "1048576")
        .set("min.cleanable.dirty.ratio", "0.1");
    let options = AdminOptions::new().request_timeout(Some(CONTACT)).operation_timeout(Some(CONTACT));
    let what = format!("topic {topic:?}, for the job's commit records, cannot be made");
    let admin: AdminClient<Events> = kafka.client(&Role::Admin)?;
    let made = admin.create_topics([&new], &options).await.map_err(|e| kafka.failed(&what, &e))?;
    match made.into_iter().next() {
        Some(Err((_, code))) if code != Code::TopicAlreadyExists => Err(kafka
            .failed(&what, &KafkaError::AdminOp(code))
            .hint("allow it (Create on the topic), or make it yourself: one partition, cleanup.policy=compact")),
        _ => Ok(()),
    }
}

/// Those who look at the topic of commit records: one sees what is committed, one everything. Made once a start.
struct Readers {
    kafka: Kafka,
    topic: String,
    committed: BaseConsumer<Events>,
    all: BaseConsumer<Events>,
}

impl Readers {
    fn new(kafka: &Kafka, topic: &str) -> Result<Arc<Self>> {
        let committed = kafka.client(&Role::Consumer { group: "tidegate", committed_only: true })?;
        let all = kafka.client(&Role::Admin)?;
        Ok(Arc::new(Self { kafka: kafka.clone(), topic: topic.to_owned(), committed, all }))
    }

    /// The newest commit record. Where it is to be final, every transaction on the topic has to have ended first: those
    /// who wrote them are fenced.
    async fn latest(self: &Arc<Self>, is_final: bool) -> Result<Option<CommitRecord>> {
        let (topic, deadline) = (&self.topic, now() + CALL);
        loop {
            let this = self.clone();
            match blocking(move || this.look(is_final)).await {
                Ok(Poll::Ready(None)) => return Ok(None),
                Ok(Poll::Ready(Some(bytes))) => {
                    return CommitRecord::decode(&format!("the newest record of topic {topic:?}"), &bytes).map(Some);
                }
                Ok(Poll::Pending) if now() > deadline => {
                    return Err(Error::unavailable(format!("a transaction in topic {topic:?} does not end"))
                        .hint("somebody else writes to it, or the broker's transaction coordinator hangs"));
                }
                Err(error) if error.kind() != Kind::Unavailable || now() > deadline => return Err(error),
                // A topic that has just been made has no leader yet; a transaction that was aborted takes a moment.
                Ok(Poll::Pending) | Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The newest value, if there is one; pending where a transaction is open that has to end first. Blocks.
    fn look(&self, is_final: bool) -> Result<Poll<Option<Vec<u8>>>> {
        let (name, what) = (&self.topic, format!("the job's commit records in topic {:?} cannot be read", self.topic));
        let failed = |e: KafkaError| self.kafka.failed(&what, &e);
        let (low, high) = self.all.fetch_watermarks(name, 0, CONTACT).map_err(failed)?;
        let (_, stable) = self.committed.fetch_watermarks(name, 0, CONTACT).map_err(failed)?;
        if is_final && stable < high {
            return Ok(Poll::Pending);
        }
        // The last one is near the end, but for a long row of transactions that were given up.
        let near = (stable - TAIL).max(low);
        let mut found = records(&self.committed, name, near).map_err(failed)?;
        if found.is_empty() && near > low {
            found = records(&self.committed, name, low).map_err(failed)?;
        }
        // A tombstone is a record too: it says that the job was forgotten.
        Ok(Poll::Ready(found.pop().flatten()))
    }
}

const TAIL: i64 = 200;

/// The values of partition 0 from `from` to its end; `None`: a tombstone.
pub(super) fn records(
    reader: &BaseConsumer<Events>,
    topic: &str,
    from: i64,
) -> Result<Vec<Option<Vec<u8>>>, KafkaError> {
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(topic, 0, Offset::Offset(from))?;
    reader.assign(&start)?;
    let (deadline, mut found) = (now() + CALL, Vec::new());
    loop {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => found.push(message.payload().map(<[u8]>::to_vec)),
            Some(Err(KafkaError::PartitionEOF(0))) => return Ok(found),
            // The client looks for its group's coordinator, though it needs none: the group may be forbidden.
            Some(Err(error)) if error.rdkafka_error_code() == Some(Code::GroupAuthorizationFailed) => {}
            Some(Err(error)) if !is_passing(&error) => return Err(error),
            _ if now() > deadline => return Err(KafkaError::MessageConsumption(Code::OperationTimedOut)),
            _ => {}
        }
    }
}

/// A commit record is ours if the manifest that it names is. Refused before anything is fenced: it may be the living
/// job of somebody else. One that is there and damaged is ours: recovery says what can be done about it.
async fn check_owner(store: &CheckpointStore, topic: &str, found: Option<&CommitRecord>) -> Result<()> {
    let Some(record) = found else { return Ok(()) };
    let Err(cause) = committed_manifest(store, record).await else { return Ok(()) };
    let is_there = store.manifests().await?.iter().any(|(_, _, path)| *path == record.manifest);
    if is_there && cause.kind() == Kind::Corrupt && store.read_manifest(&record.manifest).await.is_err() {
        return Ok(());
    }
    if cause.kind() != Kind::Corrupt || is_there {
        return Err(cause.at(format!("what topic {topic:?} says to be committed")));
    }
    let text = format!(
        "topic {topic:?} says that checkpoint {} of this job is {}, which is not in checkpoint.store",
        record.epoch, record.manifest
    );
    Err(Error::config(text).caused_by(cause).hint(
        "another job has the same name: give this one its own; or its checkpoints are elsewhere, or lost: \
         point checkpoint.store at them, or delete the topic to begin with nothing (its output stays)",
    ))
}

impl KafkaCommitPoint {
    async fn copy(&self, record: &CommitRecord) -> Result<()> {
        match StoreCommitPoint::new(self.store.clone()).create(record).await? {
            None => Ok(()),
            Some(theirs) => Err(Error::corrupt(format!(
                "checkpoint {} was committed in topic {:?} by attempt {}, and in checkpoint.store by attempt {theirs}",
                record.epoch, self.topic, record.attempt
            ))),
        }
    }
}

impl CommitPoint for KafkaCommitPoint {
    fn begins(&self, lineage: &str) {
        let (job, attempt, ids) = (self.store.job().clone(), self.attempt, self.ids.to_vec());
        let (key, lineage) = (job.as_str().to_owned(), lineage.to_owned());
        let of = move |epoch| CommitRecord::of(&job, epoch, attempt, &lineage, ids.clone());
        self.transactions.record_by(RecordTemplate { topic: self.topic.clone(), key, of: Box::new(of) });
    }

    fn commit<'a>(&'a self, permit: &'a CommitPermit) -> Boxed<'a, ()> {
        Box::pin(async move {
            kill::point("kafka.commit.begin");
            let record = CommitRecord { transactional_ids: self.ids.to_vec(), ..permit.record().clone() };
            if let Some(lane) = self.transactions.commit(&record).await? {
                // A process that was stopped in the middle of a commit takes long for it too.
                still_newest(&self.store, self.attempt).await?;
                self.transactions.replace(lane).await?;
            }
            self.copy(&record).await?;
            kill::point("kafka.commit.copied");
            Ok(())
        })
    }

    fn latest(&self) -> Boxed<'_, Option<CommitRecord>> {
        Box::pin(async { Ok(self.latest.clone()) })
    }

    /// Whoever could still commit it is fenced.
    fn seal<'a>(&'a self, _: &'a Manifest) -> Boxed<'a, Sealed> {
        Box::pin(async { Ok(Sealed::Ours) })
    }

    fn is_transactional(&self) -> bool {
        true
    }

    fn figures(&self) -> Vec<Figure> {
        self.transactions.figures()
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_lasts_longer_than_the_way_from_one_checkpoint_to_the_next() {
        let kafka = Kafka::at("a:1");
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(timeout(&kafka, seconds(1)).unwrap(), CALL);
        assert_eq!(timeout(&kafka, seconds(100)).unwrap(), Duration::from_secs(300));
        assert!(timeout(&kafka, seconds(900)).is_err() && timeout(&kafka, None).is_err());
        let short = kafka.set("transaction.timeout.ms", "5000");
        assert_eq!(timeout(&short, seconds(1)).unwrap(), Duration::from_secs(5));
        assert!(timeout(&short, seconds(5)).unwrap_err().to_string().contains("checkpoint.interval"));
    }
}
