//! Where librdkafka is called by hand: records in batches, in both directions, and a flush that waits.
//!
//! A call for every message is most of what a Kafka job costs: with batches a consume-and-produce loop does
//! 1,030 k records a CPU-second where one call each does 662 k (100-byte records, lz4). The `rdkafka` crate has no
//! batches, and its flush polls ten times a second.
//!
//! Why it is sound: a [`Topic`] and a [`Queue`] own what they were given by librdkafka and keep the client
//! that it belongs to alive; librdkafka's producer and queues may be used from any thread. Messages of a [`Queue`] are
//! lent, and destroyed by it only when it is asked for more or dropped, which takes it by `&mut`.
use futures::task::AtomicWaker;
use rdkafka::{
    bindings as sys,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{Producer, ThreadedProducer},
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
pub(super) fn flush(producer: &ThreadedProducer<Events>, limit: Duration) -> Result<(), KafkaError> {
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
    /// Reused from batch to batch: it is empty in between.
    messages: Vec<sys::rd_kafka_message_t>,
    /// Dropped last: the topic belongs to it.
    _producer: ThreadedProducer<Events>,
}

// SAFETY: librdkafka's topics may be used from any thread; `messages` is empty but within `produce`.
unsafe impl Send for Topic {}

impl Topic {
    /// # Errors
    /// A name that cannot be one.
    pub(super) fn new(producer: &ThreadedProducer<Events>, name: &str) -> Result<Self, KafkaError> {
        let invalid = || KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTopic);
        let c_name = CString::new(name).map_err(|_| invalid())?;
        // SAFETY: the client is alive and the name ends with a zero; no configuration is handed over.
        let raw = unsafe { sys::rd_kafka_topic_new(producer.client().native_ptr(), c_name.as_ptr(), ptr::null_mut()) };
        if raw.is_null() {
            return Err(invalid());
        }
        Ok(Self { raw, messages: Vec::new(), _producer: producer.clone() })
    }

    /// Hands messages over, in order; their bytes are copied. There must be room for all of them: librdkafka
    /// goes on behind one that it refuses, and so would change their order. And the producer must know the topic's
    /// partitions (fetch its metadata after `new`): else a transaction is told of partition -1.
    ///
    /// # Errors
    /// That of the first one which was refused. Others may have been taken.
    pub(super) fn produce(&mut self, bytes: &[u8], spans: &[Span]) -> Result<(), KafkaError> {
        self.messages.clear();
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
            message.partition = span.partition;
            self.messages.push(message);
        }
        let flags = (sys::RD_KAFKA_MSG_F_COPY | sys::RD_KAFKA_MSG_F_PARTITION) as i32;
        let (first, count) = (self.messages.as_mut_ptr(), self.messages.len());
        // SAFETY: the pointers lead into `bytes`, which outlives the call, and F_COPY says that it keeps none of
        // them; it writes to nothing but the messages' own fields.
        let taken = unsafe { sys::rd_kafka_produce_batch(self.raw, 0, flags, first, count as i32) };
        let refused = self.messages.iter().find(|m| m.err != FINE).map(|m| m.err);
        self.messages.clear();
        match refused {
            None if taken as usize == count => Ok(()),
            None => Err(KafkaError::MessageProduction(RDKafkaErrorCode::Fail)),
            Some(code) => Err(KafkaError::MessageProduction(code.into())),
        }
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

/// Whether a queue may have something, and who waits for it.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

extern "C" fn ring(_: *mut sys::rd_kafka_t, bell: *mut c_void) {
    // SAFETY: it is the queue's `Bell`, which is not freed before the queue has been told to ring no more.
    let bell = unsafe { &*bell.cast::<Bell>() };
    bell.rung.store(true, SeqCst);
    bell.waker.wake();
}

/// The messages of one partition, apart from those of the others.
pub(super) struct Queue {
    raw: *mut sys::rd_kafka_queue_t,
    bell: Box<Bell>,
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
        let bell = Box::<Bell>::default();
        // SAFETY: the queue is ours. It is given the bell's address, which does not move, until `drop` takes it back.
        unsafe {
            sys::rd_kafka_queue_forward(raw, ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(raw, Some(ring), (&raw const *bell).cast_mut().cast());
        }
        let messages = vec![ptr::null_mut(); BATCH];
        Ok(Self { raw, bell, topic: topic.to_owned(), messages, len: 0, next: 0, _consumer: consumer.clone() })
    }

    /// The next message, of those that have arrived: does not wait.
    pub(super) fn next(&mut self) -> Option<Result<Message<'_>, KafkaError>> {
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
        if message.err != FINE {
            return Some(Err(KafkaError::MessageConsumption(message.err.into())));
        }
        // SAFETY: pointer and length belong together, and point into the message.
        let bytes = |start: *mut c_void, length: usize| {
            (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>().cast_const(), length) })
        };
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: as above.
        let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
        Some(Ok(Message {
            topic: &self.topic,
            partition: message.partition,
            offset: message.offset,
            timestamp_ms: (timestamp_ms >= 0).then_some(timestamp_ms),
            key: bytes(message.key, message.key_len),
            value: bytes(message.payload, message.len),
            headers: Headers(Some(message)),
        }))
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
