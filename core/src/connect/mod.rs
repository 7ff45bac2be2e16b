//! What a connector implements: [`Source`] and [`SplitReader`] to bring records in, [`Sink`],
//! [`OpenSink`] and [`SinkWriter`] to take them out. What it has to say of itself are [`Figure`]s.
pub mod sink;
pub mod source;

pub use sink::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext};
pub use source::{Emit, Progress, Source, Split, SplitReader, Undecodable};
pub use tidegate_checkpoint::figure::{Figure, FigureValue};
