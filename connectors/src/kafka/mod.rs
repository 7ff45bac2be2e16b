//! Kafka in, Kafka out, exactly once.
//!
//! In reading order: how clients are made and what their errors mean ([`client`]); how a record is read and
//! written ([`codec`], [`partition`]); the two places where librdkafka is called by hand (`native`).
//! [`KafkaSource`] reads partitions as splits, whose positions are in the checkpoint and nowhere else.
//! [`KafkaSink`] writes into the job's one transaction; what that is, and why nothing is lost or doubled
//! whatever is killed, is argued in `commit`. What all of them say of themselves while they run is in
//! `statistics` and `written`.
pub mod admin;
pub mod client;
mod cluster;
pub mod codec;
mod commit;
mod consumer;
mod events;
mod health;
#[allow(unsafe_code)]
mod native;
pub mod partition;
mod place;
mod producer;
mod reader;
#[cfg(feature = "kafka-schemas")]
pub mod schemas;
mod sink;
mod source;
mod start;
mod statistics;
mod transactions;
mod writer;
mod written;

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
