//! What a connector implements: [`Source`] and [`SplitReader`] to bring records in, [`Sink`],
//! [`OpenSink`] and [`SinkWriter`] to take them out.
pub mod sink;
pub mod source;

pub use sink::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext};
pub use source::{Emit, Progress, Source, Split, SplitReader, Undecodable};
