//! Two transactional producers that take turns, so that records flow while a transaction commits.
//!
//! ```text
//! turn 0   lane 0: output of the first epoch, its commit record, drained | commit | (lane 0 is free again)
//! turn 1                                                     lane 1: output of the second epoch, ... drained | ...
//! ```
//! A writer changes lanes at each barrier. The hard case is order: two producers' records for one key must not pass
//! each other, so what is written behind a barrier is held back until **every** record before it has been
//! acknowledged ([`Transactions::drained`]). That takes a round trip or two; the commit itself holds nobody up.
//! A lane's turn comes again only when its transaction has been committed, since the coordinator has one checkpoint
//! in flight; what fails in between ends the attempt, and all lanes with it.
//!
//! The other hard case is a commit that was sent twice: the copy may come late, and commit the lane's *next*
//! transaction, half-written as it is. Its only sign is how long it took (`SUSPICIOUS`); such a lane gets a new
//! producer.
use rdkafka::producer::{BaseRecord, Producer as _};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tidegate_checkpoint::{commit::CommitRecord, ids::Epoch, kill};
use tidegate_core::{
    Error, Result,
    connect::{Figure, FigureValue},
    env::{now, spawn},
};
use tokio::sync::watch;

use super::{
    client::{Kafka, RETRY, Role, lock},
    producer::{PartitionCounts, Producer},
};

/// Both producers, and whose turn it is.
pub(super) struct Transactions {
    kafka: Kafka,
    ids: [String; 2],
    timeout: Duration,
    lanes: [Mutex<Arc<Producer>>; 2],
    writers: AtomicUsize,
    turns: Mutex<Turns>,
    /// Set by the engine before the first barrier.
    template: OnceLock<RecordTemplate>,
    past: Mutex<Past>,
    /// The first turn that may be written in: all before it have been drained.
    open: watch::Sender<u64>,
}

/// What ends each transaction: the record that its epoch is committed.
pub(super) struct RecordTemplate {
    pub topic: String,
    pub key: String,
    pub of: Box<dyn Fn(Epoch) -> CommitRecord + Send + Sync>,
}

/// What the figures are made of that nobody else remembers.
#[derive(Default)]
struct Past {
    /// How long the broker took to end a transaction, the last time and the longest.
    ended_in: Duration,
    ended_in_max: Duration,
    recycled: u64,
    /// What the producers had counted that had each lane before the one of now.
    counts: [BTreeMap<&'static str, u64>; 2],
}

#[derive(Default)]
struct Turns {
    /// Writers that have come to the end of each turn.
    arrived: BTreeMap<u64, usize>,
    /// The turn in which an epoch's output is, and the record behind it.
    recorded: BTreeMap<Epoch, (u64, CommitRecord)>,
    failed: Option<Error>,
}

/// Makes a producer that has fenced every older one of this id, and aborted what that had begun.
pub(super) async fn fence(
    kafka: &Kafka,
    id: &str,
    timeout: Duration,
    counts: &PartitionCounts,
) -> Result<Arc<Producer>> {
    let producer = Producer::new(kafka, &Role::Transactional { id, timeout }, counts.clone())?;
    let what = format!("an older producer with the job's transactional id {id:?} cannot be fenced");
    producer.clone().call(what, rdkafka::producer::Producer::init_transactions).await?;
    Ok(producer)
}

impl Transactions {
    /// Takes two producers that have just been made, and begins.
    pub(super) async fn begin(
        kafka: &Kafka,
        ids: [String; 2],
        timeout: Duration,
        producers: [Arc<Producer>; 2],
    ) -> Result<Arc<Self>> {
        for producer in &producers {
            begin(producer).await?;
        }
        Ok(Arc::new(Self {
            kafka: kafka.clone(),
            ids,
            timeout,
            lanes: producers.map(Mutex::new),
            writers: AtomicUsize::new(0),
            turns: Mutex::default(),
            template: OnceLock::new(),
            past: Mutex::default(),
            open: watch::Sender::new(0),
        }))
    }

    /// Says what is to be recorded: before the first barrier.
    pub(super) fn record_by(&self, template: RecordTemplate) {
        self.template.get_or_init(|| template);
    }

    /// One more writer takes part. All are there before the first barrier.
    pub(super) fn enlist(&self) {
        self.writers.fetch_add(1, SeqCst);
    }

    /// The producer of a turn.
    pub(super) fn lane(&self, turn: u64) -> Arc<Producer> {
        lock(&self.lanes[(turn % 2) as usize]).clone()
    }

    /// Whether what belongs to `turn` may be handed over.
    pub(super) fn is_open(&self, turn: u64) -> bool {
        *self.open.borrow() >= turn
    }

    /// A writer has handed over everything that it has for `turn`, which is `epoch`'s. The last one to do so puts the
    /// commit record behind it, and drains.
    pub(super) fn arrive(self: &Arc<Self>, turn: u64, epoch: Epoch) {
        let mut turns = lock(&self.turns);
        let arrived = turns.arrived.entry(turn).or_default();
        *arrived += 1;
        if *arrived < self.writers.load(SeqCst) {
            return;
        }
        turns.arrived.remove(&turn);
        drop(turns);
        let this = self.clone();
        // It reports to those who wait for the turn.
        spawn(async move {
            match this.complete(turn, epoch).await {
                Ok(()) => drop(this.open.send_replace(turn + 1)),
                Err(error) => {
                    lock(&this.turns).failed.get_or_insert(error);
                    // Wakes those who wait, to find it.
                    this.open.send_modify(|_| {});
                }
            }
        });
    }

    /// Waits until everything that was written before `turn` is in its transaction.
    ///
    /// # Errors
    /// When something could not be delivered.
    pub(super) async fn drained(self: Arc<Self>, turn: u64) -> Result<()> {
        let mut open = self.open.subscribe();
        loop {
            if *open.borrow_and_update() >= turn {
                return Ok(());
            }
            if let Some(error) = lock(&self.turns).failed.clone() {
                return Err(error);
            }
            // The sender is in `self`.
            let _ = open.changed().await;
        }
    }

    /// Puts the commit record behind an epoch's output, and waits until all of it is in the log.
    async fn complete(&self, turn: u64, epoch: Epoch) -> Result<()> {
        let Some(RecordTemplate { topic, key, of }) = self.template.get() else {
            return Err(Error::internal("a barrier has come before the attempt has begun"));
        };
        let (producer, record) = (self.lane(turn), of(epoch));
        let value = record.encode()?;
        producer.send(|client| {
            let record = BaseRecord::to(topic).partition(0).key(key.as_bytes()).payload(&value);
            client.send(record).map_err(|(error, _)| error)
        })?;
        lock(&self.turns).recorded.insert(epoch, (turn, record));
        kill::point("kafka.sink.recorded");
        producer.drain().await?;
        kill::point("kafka.sink.drained");
        Ok(())
    }

    /// Commits the output of an epoch with its record, after which the lane is ready for its next turn; but where it
    /// returns the lane, that has to be replaced first.
    ///
    /// # Errors
    /// The attempt must end: the outcome is unknown and has to be read back, or the lane is lost.
    pub(super) async fn commit(&self, record: &CommitRecord) -> Result<Option<usize>> {
        let epoch = record.epoch;
        let Some((turn, sent)) = lock(&self.turns).recorded.remove(&epoch) else {
            return Err(Error::internal(format!("no output of epoch {epoch} has been drained")));
        };
        if sent != *record {
            return Err(Error::internal(format!("the transaction of epoch {epoch} holds another record: {sent:?}")));
        }
        let producer = self.lane(turn);
        let began = now();
        let what = "the commit of the job's transaction has failed, and nobody knows whether it counts";
        producer.clone().call(what, rdkafka::producer::Producer::commit_transaction).await?;
        kill::point("kafka.commit.ended");
        let took = now().duration_since(began);
        producer.ended();
        lock(&self.past).ended(took);
        if took > SUSPICIOUS {
            // The request may have been sent twice. A copy that is still on its way would commit the next transaction
            // of this producer, half-written as it is: so there is none.
            return Ok(Some((turn % 2) as usize));
        }
        begin(&producer).await.map(|()| None)
    }

    /// Gives a lane, whose transaction is over, a new producer, which fences the one it had. To be called by whoever is
    /// sure that the job is still his: it would fence a successor too.
    ///
    /// # Errors
    /// The attempt must end: the lane is lost.
    pub(super) async fn replace(&self, lane: usize) -> Result<()> {
        let old = lock(&self.lanes[lane]).clone();
        let fresh = fence(&self.kafka, &self.ids[lane], self.timeout, old.counts()).await?;
        fresh.learn_as(&old).await?;
        begin(&fresh).await?;
        // Both at once for who asks for figures, or the producer would be counted twice.
        let mut past = lock(&self.past);
        past.recycled(lane, &old);
        *lock(&self.lanes[lane]) = fresh;
        Ok(())
    }

    /// Of the transactions, and of both clients.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let past = lock(&self.past);
        let lanes = [self.lane(0), self.lane(1)];
        let oldest = lanes.iter().filter_map(|producer| producer.open_for()).max().unwrap_or_default();
        let mut figures = vec![
            Figure::gauge("tidegate_kafka_open_transaction_seconds", oldest.as_secs_f64()),
            Figure::gauge("tidegate_kafka_end_transaction_last_seconds", past.ended_in.as_secs_f64()),
            Figure::gauge("tidegate_kafka_end_transaction_max_seconds", past.ended_in_max.as_secs_f64()),
            Figure::count("tidegate_kafka_producers_recycled_total", past.recycled),
        ];
        for (producer, before) in lanes.iter().zip(&past.counts) {
            for mut figure in producer.figures() {
                if let FigureValue::Count(n) = &mut figure.value {
                    *n += before.get(figure.name).copied().unwrap_or(0);
                }
                figures.push(figure);
            }
        }
        figures
    }
}

impl Past {
    fn ended(&mut self, took: Duration) {
        (self.ended_in, self.ended_in_max) = (took, self.ended_in_max.max(took));
    }

    /// A count that begins anew with each producer would fall.
    fn recycled(&mut self, lane: usize, producer: &Producer) {
        self.recycled += 1;
        for figure in producer.figures() {
            if let FigureValue::Count(n) = figure.value {
                *self.counts[lane].entry(figure.name).or_default() += n;
            }
        }
    }
}

/// A commit that takes longer may have been sent more than once: with a margin, the shortest time until a retry.
const SUSPICIOUS: Duration = Duration::from_millis(RETRY.as_millis() as u64 * 7 / 10);

/// Begins a transaction, which the broker learns of with its first record.
async fn begin(producer: &Arc<Producer>) -> Result<()> {
    producer.clone().call("a transaction cannot be begun", |client, _| client.begin_transaction()).await
}
