//! Writes one subtask's records: encodes them into a buffer, and hands them over in batches.
//!
//! What is in flight is bounded, since a drain has to wait for it. Handing over happens in `poll_ready`, behind every
//! batch of the engine's, and in between when much has come. The hard case is a lane that is not open yet
//! (see `transactions`), or a topic whose partitions are not known: then records stay in
//! the buffer, and the engine is told to wait when it is full. A barrier takes the buffer with it, so that what it cuts
//! off is handed over by it and by nobody else.
use futures::future::BoxFuture;
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
};
use serde_json::Value;
use std::{
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_checkpoint::ids::Epoch;
use tidegate_core::{Error, Result, Timestamp, connect::SinkWriter, env::sleep};

use super::{
    codec::Encode,
    native::{Span, Topic},
    partition::of_key,
    producer::Producer,
    sink::{HeadersOut, Layout},
    transactions::Transactions,
    written::{Tally, Written},
};

/// Messages in flight from one producer, and when a writer that has waited goes on: what a drain waits for. With ten
/// times as many a commit takes twice as long, with no gain in throughput; with 20,000 it takes 3 ms more.
const IN_FLIGHT_MAX: usize = 14_000;
const IN_FLIGHT_LOW: usize = 10_000;
/// And bytes, about.
const BYTES_IN_FLIGHT_MAX: u64 = 64 << 20;
const BYTES_IN_FLIGHT_LOW: u64 = 48 << 20;
/// Messages and bytes in the buffer: it is handed over at either of the first, and the engine waits at the second.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
const BUFFERED_MAX: usize = 4 << 20;
const BUFFERED_COUNT_MAX: usize = 16_384;
/// How often a writer that waits for room looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Where a writer hands its records over.
pub(super) enum Route {
    Transactions { all: Arc<Transactions>, turn: u64 },
    Plain(Arc<Producer>),
}

/// Records for one topic that have not been handed over.
struct Outbox {
    name: String,
    /// The topic at the producer of now, and how many partitions it has, once that is known.
    topic: Option<(Topic, i32)>,
    spans: Vec<Span>,
    /// Beside `spans`, where the sink gives messages more than key and value.
    extras: Vec<(Option<i64>, Option<HeadersOut>)>,
    /// Where records without a key go, until the next batch.
    sticky: u32,
    tally: Tally,
}

/// What has not been handed over.
struct Buffer {
    outboxes: Vec<Outbox>,
    written: Arc<Written>,
    bytes: Vec<u8>,
    count: usize,
}

/// See the module.
pub struct KafkaWriter<T, E> {
    route: Route,
    producer: Arc<Producer>,
    codec: E,
    layout: Arc<Layout<T>>,
    buffer: Buffer,
    bytes_written: u64,
    subtask: u32,
    waiting: Option<BoxFuture<'static, Result<()>>>,
}

/// A partition that is chosen when the record is handed over.
const LATER: i32 = i32::MIN;

impl<T: Send + 'static, E: Encode<T>> KafkaWriter<T, E> {
    pub(super) fn new(
        route: Route,
        topic: &str,
        codec: E,
        layout: Arc<Layout<T>>,
        written: Arc<Written>,
        subtask: u32,
    ) -> Self {
        let producer = match &route {
            Route::Transactions { all, turn } => all.lane(*turn),
            Route::Plain(producer) => producer.clone(),
        };
        let buffer = Buffer { outboxes: vec![Outbox::new(topic, subtask)], written, bytes: Vec::new(), count: 0 };
        Self { route, producer, codec, layout, buffer, bytes_written: 0, subtask, waiting: None }
    }

    fn is_open(&self) -> bool {
        match &self.route {
            Route::Transactions { all, turn } => all.is_open(*turn),
            Route::Plain(_) => true,
        }
    }

    /// Changes to the lane of the turn that has begun: what was known of topics was the other producer's.
    fn change_lane(&mut self, producer: Arc<Producer>) {
        if !Arc::ptr_eq(&self.producer, &producer) {
            self.producer = producer;
            self.buffer.outboxes.iter_mut().for_each(|o| o.topic = None);
        }
    }

    /// Ready when the buffer has been handed over, or may wait.
    fn poll_handed_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                let waited = waiting.as_mut().poll(cx);
                // Behind a barrier there is no hurry, while there is room: nobody sees it before the next one.
                let is_patient = matches!(self.route, Route::Transactions { .. });
                if waited.is_pending() && is_patient && !self.buffer.is_full() {
                    self.producer.check()?;
                    return Poll::Ready(Ok(()));
                }
                let waited = ready!(waited);
                self.waiting = None;
                waited?;
            }
            if self.buffer.count == 0 {
                return Poll::Ready(Ok(()));
            }
            if let (Route::Transactions { all, turn }, false) = (&self.route, self.is_open()) {
                self.waiting = Some(Box::pin(all.clone().drained(*turn)));
            } else if let Some(topic) = self.buffer.unknown(&self.producer)? {
                let producer = self.producer.clone();
                self.waiting = Some(Box::pin(async move { producer.learn(&topic).await }));
            } else if !self.producer.has_less(IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MAX) {
                let producer = self.producer.clone();
                self.waiting = Some(Box::pin(async move {
                    while !producer.has_less(IN_FLIGHT_LOW, BYTES_IN_FLIGHT_LOW) {
                        producer.check()?;
                        sleep(LOOK_EVERY).await;
                    }
                    Ok(())
                }));
            } else {
                self.buffer.hand_over(&self.producer)?;
            }
        }
    }

    /// Hands the rest over: at once, as ever, or as soon as its topics are known. In the meantime nothing else is.
    fn hand_over_rest(&mut self) -> Result<BoxFuture<'static, Result<()>>> {
        self.waiting = None;
        if !self.is_open() {
            return Err(Error::internal("a barrier has come before the one before it was drained"));
        }
        if self.buffer.unknown(&self.producer)?.is_none() {
            self.buffer.hand_over(&self.producer)?;
            return Ok(Box::pin(futures::future::ready(Ok(()))));
        }
        let handed_over = self.buffer.cut().hand_over_once_known(self.producer.clone());
        if let Route::Transactions { .. } = self.route {
            // What comes next waits for the lane's turn, and so for this.
            return Ok(Box::pin(handed_over));
        }
        let (done, heard) = tokio::sync::oneshot::channel::<()>();
        self.waiting =
            Some(Box::pin(async move { heard.await.map_err(|_| Error::unavailable("a barrier was given up")) }));
        Ok(Box::pin(async move {
            handed_over.await?;
            // The writer may have gone.
            let _ = done.send(());
            Ok(())
        }))
    }
}

impl Buffer {
    /// The place of a topic's outbox.
    fn outbox(&mut self, name: &str, subtask: u32) -> usize {
        if let Some(index) = self.outboxes.iter().position(|o| o.name == name) {
            return index;
        }
        self.outboxes.push(Outbox::new(name, subtask));
        self.outboxes.len() - 1
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= BUFFERED_MAX || self.count >= BUFFERED_COUNT_MAX
    }

    /// The topic of the first outbox that cannot be handed over because its partitions are not known.
    fn unknown(&mut self, producer: &Producer) -> Result<Option<String>> {
        for outbox in self.outboxes.iter_mut().filter(|o| !o.spans.is_empty() && o.topic.is_none()) {
            outbox.topic = producer.topic(&outbox.name)?;
            if outbox.topic.is_none() {
                return Ok(Some(outbox.name.clone()));
            }
        }
        Ok(None)
    }

    /// Hands everything over. All topics must be known.
    fn hand_over(&mut self, producer: &Producer) -> Result<()> {
        producer.check()?;
        producer.handed(self.count, self.bytes.len());
        for outbox in self.outboxes.iter_mut().filter(|o| !o.spans.is_empty()) {
            outbox.hand_over(producer, &self.bytes, &self.written)?;
        }
        self.bytes.clear();
        self.count = 0;
        Ok(())
    }

    /// As `hand_over`, once all topics are known.
    async fn hand_over_once_known(mut self, producer: Arc<Producer>) -> Result<()> {
        while let Some(topic) = self.unknown(&producer)? {
            producer.clone().learn(&topic).await?;
        }
        self.hand_over(&producer)
    }

    /// Takes everything, and leaves an empty one for the same topics.
    fn cut(&mut self) -> Self {
        let empty = |o: &Outbox| Outbox::new(&o.name, o.sticky);
        let outboxes = self.outboxes.iter().map(empty).collect();
        let written = self.written.clone();
        std::mem::replace(self, Self { outboxes, written, bytes: Vec::new(), count: 0 })
    }
}

impl Outbox {
    fn new(name: &str, subtask: u32) -> Self {
        let (spans, extras, tally) = (Vec::new(), Vec::new(), Tally::default());
        Self { name: name.to_owned(), topic: None, spans, extras, sticky: subtask, tally }
    }

    fn hand_over(&mut self, producer: &Producer, bytes: &[u8], written: &Written) -> Result<()> {
        let Some((topic, partitions)) = &mut self.topic else {
            return Err(Error::internal(format!("records for topic {:?} were handed over too early", self.name)));
        };
        let partitions = *partitions;
        if self.tally.partitions() != partitions.unsigned_abs() as usize {
            self.tally = written.tally(&self.name, partitions);
        }
        self.sticky = self.sticky.wrapping_add(1);
        for span in &mut self.spans {
            if span.partition == LATER {
                span.partition = match span.key_end {
                    Some(end) => of_key(&bytes[span.start..end], partitions),
                    None => (self.sticky % partitions.unsigned_abs()) as i32,
                };
            } else if !(0..partitions).contains(&span.partition) {
                return Err(Error::user(format!(
                    "partition_by has chosen partition {} of topic {:?}, which has {partitions}",
                    span.partition, self.name
                ))
                .hint("choose one from 0 to below the number that it is given"));
            }
            self.tally.add(span.partition, span.end - span.start);
        }
        let sent = if self.extras.is_empty() {
            producer.send(|_| topic.produce(bytes, &self.spans))
        } else {
            let name = &self.name;
            self.spans.iter().zip(self.extras.drain(..)).try_for_each(|(span, extra)| {
                producer.send(|client| client.send(message(name, bytes, span, extra)).map_err(|(error, _)| error))
            })
        };
        self.spans.clear();
        self.tally.publish();
        sent.map_err(|e| e.at(format!("topic {}", self.name)))
    }
}

fn message<'a>(
    topic: &'a str,
    bytes: &'a [u8],
    span: &Span,
    (timestamp_ms, headers): (Option<i64>, Option<HeadersOut>),
) -> BaseRecord<'a, [u8], [u8]> {
    let mut message = BaseRecord::to(topic).partition(span.partition);
    if let Some(end) = span.key_end {
        message = message.key(&bytes[span.start..end]);
    }
    if !span.tombstone {
        message = message.payload(&bytes[span.key_end.unwrap_or(span.start)..span.end]);
    }
    if let Some(ms) = timestamp_ms {
        message = message.timestamp(ms);
    }
    if let Some(headers) = headers {
        let all = headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
            all.insert(Header { key, value: value.as_ref() })
        });
        message = message.headers(all);
    }
    message
}

impl<T: Send + 'static, E: Encode<T>> SinkWriter<T> for KafkaWriter<T, E> {
    #[inline]
    fn write(&mut self, record: T, _: Timestamp) -> Result<()> {
        let (layout, buffer) = (&self.layout, &mut self.buffer);
        let index = match &layout.topic {
            None => 0,
            Some(topic) => buffer.outbox(topic(&record), self.subtask),
        };
        let start = buffer.bytes.len();
        let key_end = layout.key.as_ref().map(|key| {
            buffer.bytes.extend_from_slice(key(&record));
            buffer.bytes.len()
        });
        let tombstone = !self.codec.encode(&record, &mut buffer.bytes)?;
        let end = buffer.bytes.len();
        let outbox = &mut buffer.outboxes[index];
        let mut partition = LATER;
        if let Some(choose) = &layout.partition {
            if outbox.topic.is_none() {
                outbox.topic = self.producer.topic(&outbox.name)?;
            }
            let Some((_, count)) = &outbox.topic else {
                return Err(Error::config("partition_by needs to know the topic's partitions before the first record")
                    .hint("leave topic_by out, or partition_by"));
            };
            partition = choose(&record, *count);
        }
        if layout.timestamp_ms.is_some() || layout.headers.is_some() {
            let extra = (layout.timestamp_ms.as_ref().map(|f| f(&record)), layout.headers.as_ref().map(|f| f(&record)));
            outbox.extras.push(extra);
        }
        outbox.spans.push(Span { partition, key_end, start, end, tombstone });
        buffer.count += 1;
        self.bytes_written += (end - start) as u64;
        let much = (self.buffer.count >= BATCH || self.buffer.bytes.len() >= BATCH_BYTES) && self.waiting.is_none();
        if much
            && self.is_open()
            && self.producer.has_less(IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MAX)
            && self.buffer.unknown(&self.producer)?.is_none()
        {
            self.buffer.hand_over(&self.producer)?;
        }
        Ok(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.buffer.count == 0 && self.waiting.is_none() {
            return Poll::Ready(self.producer.check());
        }
        self.poll_handed_over(cx)
    }

    /// The rest is handed over whatever is in flight: it is no more than the buffer.
    fn barrier(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        let handed_over = match self.hand_over_rest() {
            Ok(handed_over) => handed_over,
            Err(error) => return Box::pin(futures::future::ready(Err(error))),
        };
        match &mut self.route {
            Route::Plain(producer) => {
                let producer = producer.clone();
                Box::pin(async move {
                    handed_over.await?;
                    producer.drain().await.map(|()| Vec::new())
                })
            }
            Route::Transactions { all, turn } => {
                let (all, this) = (all.clone(), *turn);
                *turn += 1;
                let lane = all.lane(*turn);
                self.change_lane(lane);
                Box::pin(async move {
                    handed_over.await?;
                    all.arrive(this, epoch);
                    all.drained(this + 1).await.map(|()| Vec::new())
                })
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes_written
    }
}
