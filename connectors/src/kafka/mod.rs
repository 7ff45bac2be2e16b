//! Kafka in, Kafka out, exactly once. Two ways lead through it.
//!
//! **A record.** `source` lists partitions as splits (`cluster` asks, `start` decides where one begins, `place` is its
//! name and position); `consumer` fetches for all of them, `health` judges what it sees; `reader` takes one partition's
//! messages, and a [`codec`], or one of `schemas`, makes records of them. `sink` says what a record becomes,
//! [`partition`] where it goes; `writer` hands it over, `written` counts it.
//!
//! **A barrier.** `writer` cuts; `transactions` puts the commit record behind the output, and drains; `commit` ends the
//! transaction, and argues why nothing is lost or doubled whatever is killed.
//!
//! Under both: [`client`], `producer`, `events`, `statistics`, and `native`, the one module in which librdkafka is
//! called by hand. Beside them [`admin`], for people.
mod cluster;
mod place;
mod source;
mod start;

mod consumer;
mod health;

pub mod codec;
mod reader;
#[cfg(feature = "kafka-schemas")]
pub mod schemas;

pub mod partition;
mod sink;
mod writer;
mod written;

mod commit;
mod transactions;

pub mod client;
mod events;
#[allow(unsafe_code)]
mod native;
mod producer;
mod statistics;

pub mod admin;

pub use admin::{Admin, HeldBack, Lag};
pub use client::Kafka;
pub use codec::{Bytes, Decode, Encode, Json, Message, NotDecoded, Nullable, Record, Utf8, Whole};
pub use place::{Offsets, offsets};
pub use reader::KafkaReader;
#[cfg(feature = "kafka-schemas")]
pub use schemas::{Avro, Protobuf, Registry};
pub use sink::{HeadersOut, KafkaSink, OpenKafka};
pub use source::KafkaSource;
pub use start::{Gap, Start};
pub use writer::KafkaWriter;
