//! Kafka as a sink: what a record becomes, and where it goes.
//!
//! Exactly once by default: the records of all Kafka sinks of a job are in the job's one transaction, which is its
//! commit point (`commit`). At least once on request: then a checkpoint waits until everything is
//! acknowledged, and what was written since the last one is written again after a crash.
use futures::future::{BoxFuture, ready};
use serde_json::Value;
use std::sync::Arc;
use tidegate_checkpoint::commit::{CommitPermit, OpenCommitPoint};
use tidegate_core::{
    Error, Result,
    connect::{Figure, OpenSink, Sink, SinkContext, WriterContext},
};

use super::{
    client::{Kafka, Role},
    codec::Encode,
    commit::{KafkaCommitPoint, KafkaTransaction},
    producer::Producer,
    transactions::Transactions,
    writer::{KafkaWriter, Route},
    written::Written,
};

/// Headers of a message that is written: names with values.
pub type HeadersOut = Vec<(String, Option<Vec<u8>>)>;

type Bytes<T> = Arc<dyn for<'a> Fn(&'a T) -> &'a [u8] + Send + Sync>;
type Text<T> = Arc<dyn for<'a> Fn(&'a T) -> &'a str + Send + Sync>;
type Of<T, R> = Arc<dyn Fn(&T) -> R + Send + Sync>;

/// How a record becomes a message.
pub(super) struct Layout<T> {
    pub key: Option<Bytes<T>>,
    pub topic: Option<Text<T>>,
    pub partition: Option<Arc<dyn Fn(&T, i32) -> i32 + Send + Sync>>,
    pub timestamp_ms: Option<Of<T, i64>>,
    pub headers: Option<Of<T, HeadersOut>>,
}

/// Writes records to Kafka: made by [`Kafka::sink`].
///
/// ```
/// use tidegate_connectors::kafka::{Json, Kafka};
/// #[derive(serde::Serialize)]
/// struct Payment { user: String, cents: u64 }
/// let sink = Kafka::at("127.0.0.1:9092").sink("payments", Json::<Payment>::new()).key(|p| p.user.as_bytes());
/// # let _ = sink;
/// ```
pub struct KafkaSink<T, E> {
    kafka: Kafka,
    topic: String,
    codec: E,
    layout: Layout<T>,
    transactional: bool,
}

impl Kafka {
    /// Writes to a topic, which must exist; exactly once.
    pub fn sink<T: 'static, E: Encode<T>>(&self, topic: &str, codec: E) -> KafkaSink<T, E> {
        let layout = Layout { key: None, topic: None, partition: None, timestamp_ms: None, headers: None };
        KafkaSink { kafka: self.clone(), topic: topic.to_owned(), codec, layout, transactional: true }
    }
}

impl<T: 'static, E: Encode<T>> KafkaSink<T, E> {
    /// Messages with a key: equal keys go to the same partition, as with Kafka's Java client (murmur2), and keep
    /// their order. Without a key partitions are filled in turn.
    pub fn key(mut self, key: impl Fn(&T) -> &[u8] + Send + Sync + 'static) -> Self {
        self.layout.key = Some(Arc::new(key));
        self
    }
    /// Chooses each record's topic; all must exist.
    pub fn topic_by(mut self, topic: impl Fn(&T) -> &str + Send + Sync + 'static) -> Self {
        self.layout.topic = Some(Arc::new(topic));
        self
    }
    /// Chooses each record's partition, out of as many as the second argument says.
    pub fn partition_by(mut self, partition: impl Fn(&T, i32) -> i32 + Send + Sync + 'static) -> Self {
        self.layout.partition = Some(Arc::new(partition));
        self
    }
    /// Messages with this timestamp (ms since 1970-01-01 UTC) instead of the time at which they are written. They are
    /// handed over one by one, which costs about a third more than without.
    pub fn timestamp(mut self, timestamp_ms: impl Fn(&T) -> i64 + Send + Sync + 'static) -> Self {
        self.layout.timestamp_ms = Some(Arc::new(timestamp_ms));
        self
    }
    /// Messages with headers. They are handed over one by one, as with `timestamp`.
    pub fn headers(mut self, headers: impl Fn(&T) -> HeadersOut + Send + Sync + 'static) -> Self {
        self.layout.headers = Some(Arc::new(headers));
        self
    }
    /// Writes outside of the job's transaction: readers see records at once, and some of them twice after a crash.
    pub fn at_least_once(mut self) -> Self {
        self.transactional = false;
        self
    }
}

impl<T: Send + 'static, E: Encode<T>> Sink<T> for KafkaSink<T, E> {
    type Open = OpenKafka<T, E>;

    fn commit_point(&self) -> Option<Arc<dyn OpenCommitPoint>> {
        self.transactional.then(|| Arc::new(KafkaTransaction(self.kafka.clone())) as Arc<dyn OpenCommitPoint>)
    }

    fn recover(&self, context: SinkContext, _: Vec<Value>) -> BoxFuture<'_, Result<OpenKafka<T, E>>> {
        Box::pin(async move {
            let topic = self.layout.topic.is_none().then_some(self.topic.as_str());
            let codec = self.codec.prepare(topic).await?;
            let (producers, transactions) = if self.transactional {
                let point = context.commits.as_any().downcast::<KafkaCommitPoint>();
                let point = point.map_err(|_| Error::internal("the job does not commit where its Kafka sink is"))?;
                let transactions = point.transactions.clone();
                (vec![transactions.lane(0), transactions.lane(1)], Some(transactions))
            } else {
                (vec![Producer::new(&self.kafka, &Role::Producer, Arc::default())?], None)
            };
            if self.layout.topic.is_none() {
                for producer in &producers {
                    producer.clone().learn(&self.topic).await?;
                }
            }
            let route = match (transactions, producers.into_iter().next()) {
                (Some(transactions), _) => Opened::Transactions(transactions),
                (None, Some(producer)) => Opened::Plain(producer),
                (None, None) => return Err(Error::internal("a Kafka sink was opened without a producer")),
            };
            let layout = Arc::new(Layout {
                key: self.layout.key.clone(),
                topic: self.layout.topic.clone(),
                partition: self.layout.partition.clone(),
                timestamp_ms: self.layout.timestamp_ms.clone(),
                headers: self.layout.headers.clone(),
            });
            let (topic, written) = (self.topic.clone(), Arc::default());
            Ok(OpenKafka { route, topic, codec, layout, written })
        })
    }
}

enum Opened {
    Transactions(Arc<Transactions>),
    Plain(Arc<Producer>),
}

/// A Kafka sink in one attempt.
pub struct OpenKafka<T, E> {
    route: Opened,
    topic: String,
    codec: E,
    layout: Arc<Layout<T>>,
    written: Arc<Written>,
}

impl<T: Send + 'static, E: Encode<T>> OpenSink<T> for OpenKafka<T, E> {
    type Writer = KafkaWriter<T, E>;

    fn writer(&self, context: WriterContext) -> Result<KafkaWriter<T, E>> {
        let route = match &self.route {
            Opened::Transactions(transactions) => {
                transactions.enlist();
                Route::Transactions { all: transactions.clone(), turn: 0 }
            }
            Opened::Plain(producer) => Route::Plain(producer.clone()),
        };
        let (codec, layout, written) = (self.codec.clone(), self.layout.clone(), self.written.clone());
        Ok(KafkaWriter::new(route, &self.topic, codec, layout, written, context.subtask.0))
    }

    /// Nothing is left to be published: the commit has shown everything.
    fn commit<'a>(&'a self, _: &'a CommitPermit, _: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    /// What has been handed over; and of a client of its own, how that is. Clients of transactions are the commit
    /// point's.
    fn figures(&self) -> Vec<Figure> {
        let mut figures = self.written.figures();
        if let Opened::Plain(producer) = &self.route {
            figures.extend(producer.figures());
        }
        figures
    }
}
