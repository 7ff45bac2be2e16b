//! Avro and Protobuf, whose schemas are in a schema registry: Confluent's, or one that speaks its HTTP API.
//!
//! In reading order: what stands before the bytes of a record (`wire`); the registry over HTTP (`http`), and
//! what is remembered of it (`registry`); the two formats (`avro`, with schemas that name others in
//! `references` and records that are too deep in `depth`; `protobuf`, with the names in a schema's text in `proto`).
//!
//! The hard case is a registry that is away when a record with an unknown schema comes. The record is good: it
//! may be neither skipped nor dead-lettered, and the engine's threads may not wait for HTTP. So the codec says
//! [`NotDecoded::Yet`](super::NotDecoded) with the request, which is tried again until the registry answers; the reader
//! stands before the record meanwhile, and event time with it; other partitions are read on. What the registry itself
//! denies is undecodable.
mod avro;
mod depth;
mod http;
mod proto;
mod protobuf;
mod references;
mod registry;
mod wire;

pub use avro::Avro;
pub use protobuf::Protobuf;
pub use registry::Registry;
