//! Where librdkafka is called by hand: records in batches, in both directions, and a flush that waits.
//!
//! A call for every message is most of what a Kafka job costs: with batches a consume-and-produce loop does
//! 1,030 k records a CPU-second where one call each does 662 k (100-byte records, lz4). The `rdkafka` crate has no
//! batches, and its flush polls ten times a second.
//!
//! Two questions are asked here besides, since the crate cannot ask them: a topic's id, and where a partition ends.
//!
//! Why it is sound: a [`Topic`] and a [`Queue`] own what they were given by librdkafka and keep the client
//! that it belongs to alive; librdkafka's producer and queues may be used from any thread. Messages of a [`Queue`] are
//! lent, and destroyed by it only when it is asked for more or dropped, which takes it by `&mut`.
use futures::task::AtomicWaker;
use rdkafka::{
    bindings as sys,
    client::Client,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer},
};
use std::{
    ffi::{CStr, CString, c_void},
    fmt, ptr, slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use super::{codec::Message, events::Events};

type Code = sys::rd_kafka_resp_err_t;
const FINE: Code = Code::RD_KAFKA_RESP_ERR_NO_ERROR;

/// Waits until nothing is in flight any more, and hurries what lingers. Failed deliveries count as done.
///
/// # Errors
/// `OperationTimedOut` after `limit`.
pub(super) fn flush(producer: &BaseProducer<Events>, limit: Duration) -> Result<(), KafkaError> {
    let ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as `producer`. Delivery reports are served by its own thread meanwhile, as
    // flush wants it of clients that use events.
    match unsafe { sys::rd_kafka_flush(producer.client().native_ptr(), ms) } {
        FINE => Ok(()),
        code => Err(KafkaError::Flush(code.into())),
    }
}

/// Where the bytes of a message are in a buffer, and which partition it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub partition: i32,
    /// The key begins at `start` and ends here; `None`: there is none.
    pub key_end: Option<usize>,
    pub start: usize,
    /// The value begins where the key ends.
    pub end: usize,
    pub tombstone: bool,
}

/// A topic that a producer writes to.
pub(super) struct Topic {
    raw: *mut sys::rd_kafka_topic_t,
    /// By partition; reused from batch to batch: they are empty in between.
    messages: Vec<Vec<sys::rd_kafka_message_t>>,
    /// Dropped last: the topic belongs to it.
    _producer: Arc<BaseProducer<Events>>,
}

// SAFETY: librdkafka's topics may be used from any thread; `messages` is empty but within `produce`.
unsafe impl Send for Topic {}

impl Topic {
    /// # Errors
    /// A name that cannot be one.
    pub(super) fn new(producer: &Arc<BaseProducer<Events>>, name: &str) -> Result<Self, KafkaError> {
        let invalid = || KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTopic);
        let c_name = CString::new(name).map_err(|_| invalid())?;
        // SAFETY: the client is alive and the name ends with a zero; no configuration is handed over.
        let raw = unsafe { sys::rd_kafka_topic_new(producer.client().native_ptr(), c_name.as_ptr(), ptr::null_mut()) };
        if raw.is_null() {
            return Err(invalid());
        }
        Ok(Self { raw, messages: Vec::new(), _producer: producer.clone() })
    }

    /// Hands messages over, in order within each partition; their bytes are copied. There must be room for all of
    /// them: librdkafka goes on behind one that it refuses, and so would change their order. And the producer must know
    /// the topic's partitions (fetch its metadata after `new`): else they are kept for a partition -1.
    ///
    /// A call for each partition: one for all of them would look for the partition, and lock it to see whether the
    /// transaction knows it, message by message.
    ///
    /// # Errors
    /// That of the first one which was refused. Others may have been taken.
    pub(super) fn produce(&mut self, bytes: &[u8], spans: &[Span]) -> Result<(), KafkaError> {
        self.messages.iter_mut().for_each(Vec::clear);
        for span in spans {
            let key = span.key_end.map(|end| &bytes[span.start..end]);
            let value = &bytes[span.key_end.unwrap_or(span.start)..span.end];
            // SAFETY: all its fields are numbers and pointers, for which zero is a value.
            let mut message: sys::rd_kafka_message_t = unsafe { std::mem::zeroed() };
            if let Some(key) = key {
                (message.key, message.key_len) = (key.as_ptr().cast_mut().cast(), key.len());
            }
            if !span.tombstone {
                (message.payload, message.len) = (value.as_ptr().cast_mut().cast(), value.len());
            }
            let partition = usize::try_from(span.partition)
                .map_err(|_| KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition))?;
            if self.messages.len() <= partition {
                self.messages.resize_with(partition + 1, Vec::new);
            }
            self.messages[partition].push(message);
        }
        let mut refused = None;
        for (partition, messages) in (0..).zip(&mut self.messages).filter(|(_, messages)| !messages.is_empty()) {
            let (first, count) = (messages.as_mut_ptr(), messages.len());
            // SAFETY: the pointers lead into `bytes`, which outlives the call, and F_COPY says that it keeps none of
            // them; it writes to nothing but the messages' own fields.
            let taken = unsafe {
                sys::rd_kafka_produce_batch(self.raw, partition, sys::RD_KAFKA_MSG_F_COPY, first, count as i32)
            };
            let error = messages.iter().find(|m| m.err != FINE).map(|m| m.err.into());
            let error = error.or((taken as usize != count).then_some(RDKafkaErrorCode::Fail));
            messages.clear();
            refused = refused.or(error);
        }
        refused.map_or(Ok(()), |code| Err(KafkaError::MessageProduction(code)))
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used no more.
        unsafe { sys::rd_kafka_topic_destroy(self.raw) }
    }
}

/// The headers of a message, looked at where they lie.
#[derive(Clone, Copy)]
pub struct Headers<'a>(Option<&'a sys::rd_kafka_message_t>);

impl<'a> Headers<'a> {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let mut headers = ptr::null_mut();
        let found = self.0.is_some_and(|message| {
            // SAFETY: the message is one of librdkafka's and alive for 'a; the headers belong to it.
            unsafe { sys::rd_kafka_message_headers(message, &raw mut headers) == FINE }
        });
        (0..).map_while(move |index| {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null::<c_void>(), 0);
            // SAFETY: `headers` is valid where it was found, and what comes out is part of the message.
            unsafe {
                if !found
                    || sys::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut length)
                        != FINE
                {
                    return None;
                }
                let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), length));
                Some((CStr::from_ptr(name).to_str().unwrap_or("(not UTF-8)"), value))
            }
        })
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What the cluster says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Differs between two topics of one name, of which one was deleted; brokers before 2.8 have none.
    pub id: Option<String>,
    /// Its partitions, and whether each has a broker that leads it.
    pub partitions: Vec<(i32, bool)>,
}

/// What a topic's id is where the broker gives none: zeros.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Asks what topics are, in the order of their names; creates none. Blocks.
///
/// # Errors
/// That of the request; each topic has its own besides.
pub(super) fn describe(
    client: &Client<Events>,
    names: &[String],
    limit: Duration,
) -> Result<Vec<Result<Described, RDKafkaErrorCode>>, KafkaError> {
    let failed = |code: Code| KafkaError::MetadataFetch(code.into());
    let names: Result<Vec<_>, _> = names.iter().map(|name| CString::new(name.as_str())).collect();
    let names = names.map_err(|_| failed(Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION))?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let client = client.native_ptr();
    let ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive. Names are copied into the collection. Queue, options and collection are ours and
    // destroyed below; the request keeps none of them but the queue, which counts its references.
    let event = unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let options =
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_AdminOptions_set_request_timeout(options, ms, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(client, topics, options, queue);
        // Answered in any case when the request has timed out.
        let event = sys::rd_kafka_queue_poll(queue, ms.saturating_add(1000));
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        event
    };
    if event.is_null() {
        return Err(failed(Code::RD_KAFKA_RESP_ERR__TIMED_OUT));
    }
    // SAFETY: the event is ours until it is destroyed, and what is read of it is copied before.
    unsafe {
        let described = match sys::rd_kafka_event_error(event) {
            FINE => {
                let mut count = 0;
                let result = sys::rd_kafka_event_DescribeTopics_result(event);
                let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
                Ok(list(topics, count).iter().map(|topic| described(*topic)).collect())
            }
            code => Err(failed(code)),
        };
        sys::rd_kafka_event_destroy(event);
        described
    }
}

/// # Safety
/// `first` must point to `count` values, or `count` be 0, for as long as the slice is used.
unsafe fn list<'a, T>(first: *mut T, count: usize) -> &'a [T] {
    // SAFETY: as the caller promises; null is no start of a slice.
    if first.is_null() { &[] } else { unsafe { slice::from_raw_parts(first, count) } }
}

/// # Safety
/// `topic` must be a live description.
unsafe fn described(topic: *const sys::rd_kafka_TopicDescription_t) -> Result<Described, RDKafkaErrorCode> {
    // SAFETY: everything asked of it lives as long as it does, and is copied.
    unsafe {
        let error = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic));
        if error != FINE {
            return Err(error.into());
        }
        let id = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(topic));
        let id = (!id.is_null()).then(|| CStr::from_ptr(id).to_string_lossy().into_owned());
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let partitions = list(partitions, count).iter().map(|partition| {
            let leader = sys::rd_kafka_TopicPartitionInfo_leader(*partition);
            (sys::rd_kafka_TopicPartitionInfo_partition(*partition), !leader.is_null())
        });
        Ok(Described { id: id.filter(|id| id != NO_ID), partitions: partitions.collect() })
    }
}

/// Where a partition ends, as of the last reply to the fetcher: asks nobody.
pub(super) fn known_end(client: &BaseConsumer<Events>, topic: &CStr, partition: i32) -> Option<i64> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive, the name ends with a zero, and both numbers are ours.
    let code = unsafe {
        let client = client.client().native_ptr();
        sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &raw mut low, &raw mut high)
    };
    (code == FINE && high >= 0).then_some(high)
}

/// Whether a queue may have something, and who waits for it.
#[derive(Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

extern "C" fn ring(_: *mut sys::rd_kafka_t, bell: *mut c_void) {
    // SAFETY: it is the queue's `Bell`, which is not freed before the queue has been told to ring no more.
    unsafe { &*bell.cast::<Bell>() }.ring();
}

/// The messages of one partition, apart from those of the others.
pub(super) struct Queue {
    raw: *mut sys::rd_kafka_queue_t,
    bell: Arc<Bell>,
    topic: String,
    /// Those before `len` are ours to destroy; those before `next` have been lent.
    messages: Vec<*mut sys::rd_kafka_message_t>,
    len: usize,
    next: usize,
    /// Dropped last: the queue belongs to it.
    _consumer: Arc<BaseConsumer<Events>>,
}

// SAFETY: librdkafka's queues and messages may be used from any thread, by one at a time: `&mut self`.
unsafe impl Send for Queue {}

/// Messages that are taken from a queue at once.
const BATCH: usize = 1024;

/// What a partition has next.
pub(super) enum Next<'a> {
    Message(Message<'a>),
    /// Nothing, for now: everything before this offset has been read. Records of aborted transactions are passed
    /// over without a word, so this is how a reader knows that it is behind them.
    End(i64),
}

impl Bell {
    /// Has the queue's owner look, for another reason than a message.
    pub(super) fn ring(&self) {
        self.rung.store(true, SeqCst);
        self.waker.wake();
    }
}

impl Queue {
    /// Takes the partition's messages out of the consumer's common queue. To be called before it is assigned.
    ///
    /// # Errors
    /// A name or partition that cannot be one.
    pub(super) fn new(consumer: &Arc<BaseConsumer<Events>>, topic: &str, partition: i32) -> Result<Self, KafkaError> {
        let invalid = || KafkaError::MessageConsumption(RDKafkaErrorCode::InvalidTopic);
        let name = CString::new(topic).map_err(|_| invalid())?;
        // SAFETY: the client is alive and the name ends with a zero.
        let raw =
            unsafe { sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition) };
        if raw.is_null() {
            return Err(invalid());
        }
        let bell = Arc::<Bell>::default();
        // SAFETY: the queue is ours. It is given the bell's address, which does not move, until `drop` takes it back.
        unsafe {
            sys::rd_kafka_queue_forward(raw, ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(raw, Some(ring), Arc::as_ptr(&bell).cast_mut().cast());
        }
        let messages = vec![ptr::null_mut(); BATCH];
        Ok(Self { raw, bell, topic: topic.to_owned(), messages, len: 0, next: 0, _consumer: consumer.clone() })
    }

    /// What rings when there may be more.
    pub(super) fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// What is next, of what has arrived: does not wait.
    pub(super) fn next(&mut self) -> Option<Result<Next<'_>, KafkaError>> {
        if self.next == self.len {
            self.take();
        }
        if self.next == self.len {
            return None;
        }
        let raw = self.messages[self.next];
        self.next += 1;
        // SAFETY: it is one of the messages that we own, and lives until `take` or `drop`, for which `self` must not be
        // borrowed any more.
        let message = unsafe { &*raw };
        if message.err == Code::RD_KAFKA_RESP_ERR__PARTITION_EOF {
            return Some(Ok(Next::End(message.offset)));
        }
        if message.err != FINE {
            return Some(Err(KafkaError::MessageConsumption(message.err.into())));
        }
        let bytes = |start: *mut c_void, length: usize| {
            // SAFETY: pointer and length belong together, and point into the message.
            (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>().cast_const(), length) })
        };
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: as above.
        let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
        Some(Ok(Next::Message(Message {
            topic: &self.topic,
            partition: message.partition,
            offset: message.offset,
            timestamp_ms: (timestamp_ms >= 0).then_some(timestamp_ms),
            key: bytes(message.key, message.key_len),
            value: bytes(message.payload, message.len),
            headers: Headers(Some(message)),
        })))
    }

    /// Lends the last message once more.
    pub(super) fn again(&mut self) {
        self.next = self.next.saturating_sub(1);
    }

    fn take(&mut self) {
        self.give_back();
        // Before the look: what comes after it rings again.
        self.bell.rung.store(false, SeqCst);
        // Waiting would be for a full batch: take what is there.
        // SAFETY: the queue is ours, and `messages` has room for BATCH.
        let taken = unsafe { sys::rd_kafka_consume_batch_queue(self.raw, 0, self.messages.as_mut_ptr(), BATCH) };
        (self.len, self.next) = (taken.max(0) as usize, 0);
    }

    fn give_back(&mut self) {
        for message in &self.messages[..self.len] {
            // SAFETY: it is ours, is lent to nobody, and is forgotten below.
            unsafe { sys::rd_kafka_message_destroy(*message) }
        }
        (self.len, self.next) = (0, 0);
    }

    /// Ready when there may be more.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.bell.waker.register(cx.waker());
        if self.next < self.len || self.bell.rung.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.give_back();
        // SAFETY: it is ours, used no more, and rings no more when the bell is freed after this.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.raw, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.raw);
        }
    }
}
