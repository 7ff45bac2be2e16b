//! Thin handles around librdkafka's batch calls, for the hand-written loop and for whoever fills and reads topics
//! here. The engine has its own; a yardstick must not be made of what it measures.
//!
//! Why it is sound: each handle owns what librdkafka gave it, and its client, which outlives it; a message is looked at
//! before it is given back.
#![allow(unsafe_code, reason = "the batch calls that rdkafka has not")]
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList, bindings as sys,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseProducer, Producer},
};
use std::{ffi::CString, ptr, slice, time::Duration};

use super::Failed;

const FINE: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A message, while it is looked at.
pub struct Seen<'a> {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub value: &'a [u8],
}

/// Reads some partitions of a topic from given offsets, batch by batch.
pub struct Reader {
    consumer: BaseConsumer,
    queue: *mut sys::rd_kafka_queue_t,
    batch: Vec<*mut sys::rd_kafka_message_t>,
}

impl Reader {
    pub fn new(servers: &str, topic: &str, from: &[i64], committed_only: bool) -> Result<Self, Failed> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", "bench")
            .set("isolation.level", if committed_only { "read_committed" } else { "read_uncommitted" })
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            .create()
            .map_err(text)?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from.iter().enumerate() {
            list.add_partition_offset(topic, partition as i32, Offset::Offset(*offset)).map_err(text)?;
        }
        consumer.assign(&list).map_err(text)?;
        // SAFETY: the client is alive, and the reference that this makes is given back in `drop`.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Ok(Self { consumer, queue, batch: vec![ptr::null_mut(); 1024] })
    }

    /// Where the partitions end for this reader.
    pub fn ends(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, Failed> {
        let limit = Duration::from_secs(30);
        (0..partitions)
            .map(|p| self.consumer.fetch_watermarks(topic, p, limit).map(|(_, end)| end).map_err(text))
            .collect()
    }

    /// Hands on what is there; waits for a message where nothing is.
    pub fn next(&mut self, wait_ms: i32, mut see: impl FnMut(Seen<'_>) -> Result<(), Failed>) -> Result<(), Failed> {
        // Waiting is for a full batch: take what is there first, and wait for a single one only where nothing is.
        for (count, wait) in [(self.batch.len(), 0), (1, wait_ms)] {
            // SAFETY: the queue is ours, and `batch` has room for `count`.
            let taken = unsafe { sys::rd_kafka_consume_batch_queue(self.queue, wait, self.batch.as_mut_ptr(), count) };
            let mut done = Ok(());
            for raw in &self.batch[..taken.max(0) as usize] {
                // SAFETY: it is ours until it is destroyed below, and lent no longer than that.
                let message = unsafe { &**raw };
                if passes(message.err) {
                    // Tried again by the client itself.
                } else if message.err != FINE || message.payload.is_null() {
                    done = Err(text(KafkaError::MessageConsumption(message.err.into())));
                } else if done.is_ok() {
                    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
                    let value =
                        // SAFETY: pointer and length belong together, and are not null.
                        unsafe { slice::from_raw_parts(message.payload.cast::<u8>().cast_const(), message.len) };
                    // SAFETY: the message is alive.
                    let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
                    done = see(Seen { partition: message.partition, offset: message.offset, timestamp_ms, value });
                }
                // SAFETY: it is ours, and lent to nobody any more.
                unsafe { sys::rd_kafka_message_destroy(*raw) }
            }
            done?;
            if taken > 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Whether an error is one that clients say in passing: of a connection, or of a topic that has just been made.
fn passes(error: sys::rd_kafka_resp_err_t) -> bool {
    use sys::rd_kafka_resp_err_t as Code;
    [
        Code::RD_KAFKA_RESP_ERR__TRANSPORT,
        Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
        Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
    ]
    .contains(&error)
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used no more.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) }
    }
}

/// Writes values to a topic's partitions, batch by batch.
pub struct Writer {
    producer: BaseProducer,
    topic: *mut sys::rd_kafka_topic_t,
    /// What has not been handed over, by partition: a call each costs less than one for messages of all.
    lots: Vec<Lot>,
    buffered: usize,
    messages: Vec<sys::rd_kafka_message_t>,
}

#[derive(Default)]
struct Lot {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Messages in flight at most. More than the engine's, whose bound is for its drains.
const IN_FLIGHT_MAX: usize = 20_000;

impl Writer {
    pub fn new(servers: &str, topic: &str, linger_ms: u32) -> Result<Self, Failed> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("compression.codec", "lz4")
            .set("linger.ms", linger_ms.to_string())
            .set("queue.buffering.max.messages", "0")
            .set("delivery.report.only.error", "true")
            .create()
            .map_err(text)?;
        let name = CString::new(topic).map_err(text)?;
        // SAFETY: the client is alive and the name ends with a zero; no configuration is handed over.
        let raw = unsafe { sys::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        producer.client().fetch_metadata(Some(topic), Duration::from_secs(30)).map_err(text)?;
        Ok(Self { producer, topic: raw, lots: Vec::new(), buffered: 0, messages: Vec::new() })
    }

    /// One more message, which `encode` appends to the buffer.
    #[inline]
    pub fn write(
        &mut self,
        partition: i32,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>,
    ) -> Result<(), Failed> {
        let partition = partition as usize;
        if self.lots.len() <= partition {
            self.lots.resize_with(partition + 1, Lot::default);
        }
        let Lot { bytes, ends } = &mut self.lots[partition];
        encode(bytes).map_err(text)?;
        ends.push(bytes.len());
        self.buffered += 1;
        Ok(())
    }

    /// Messages that have not been handed over.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Hands over what was written.
    pub fn hand_over(&mut self) -> Result<(), Failed> {
        self.producer.poll(Duration::ZERO);
        if self.buffered == 0 {
            return Ok(());
        }
        while self.producer.in_flight_count() as usize > IN_FLIGHT_MAX {
            super::sleep(Duration::from_millis(1));
            self.producer.poll(Duration::ZERO);
        }
        self.buffered = 0;
        for (partition, Lot { bytes, ends }) in (0..).zip(&mut self.lots).filter(|(_, lot)| !lot.ends.is_empty()) {
            let mut start = 0;
            self.messages.clear();
            for end in ends.drain(..) {
                // SAFETY: all its fields are numbers and pointers, for which zero is a value.
                let mut message: sys::rd_kafka_message_t = unsafe { std::mem::zeroed() };
                message.payload = bytes[start..end].as_mut_ptr().cast();
                message.len = end - start;
                self.messages.push(message);
                start = end;
            }
            let (first, count) = (self.messages.as_mut_ptr(), self.messages.len() as i32);
            // SAFETY: the pointers lead into `bytes`, which is not touched before the call is over; F_COPY keeps none.
            let taken =
                unsafe { sys::rd_kafka_produce_batch(self.topic, partition, sys::RD_KAFKA_MSG_F_COPY, first, count) };
            bytes.clear();
            if taken != count {
                return Err(format!("{} of {count} messages were refused", count - taken));
            }
        }
        Ok(())
    }

    /// Waits until everything has been acknowledged.
    pub fn flush(&mut self) -> Result<(), Failed> {
        self.hand_over()?;
        self.producer.flush(Duration::from_secs(60)).map_err(text)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used no more.
        unsafe { sys::rd_kafka_topic_destroy(self.topic) }
    }
}

fn text(error: impl std::fmt::Display) -> Failed {
    error.to_string()
}
