//! The engine of tidegate.
//!
//! Two walks explain it. **A record**: a split's reader fills the chain of its source task
//! ([`runtime::source_task`]); stateless operators are one monomorphised loop ([`record`], [`operators`]);
//! a keyed exchange hands batches to the subtask that owns the key ([`runtime::exchange`],
//! [`runtime::gate`]); the keyed operator updates typed state ([`state`]); a sink's writer takes the result
//! ([`runtime::sink_output`]). **A barrier**: the coordinator triggers ([`runtime::attempt`]), sources note
//! their positions, gates align, state is frozen and captured, sinks stage, all acknowledge; the manifest is
//! written, committed, published, and what is old is collected.
//!
//! Users depend on the facade `tidegate`, which re-exports this.
pub mod api;
pub mod connect;
pub mod env;
pub mod foreach_batch;
pub mod metrics;
pub mod operators;
pub mod plan;
pub mod properties;
pub mod record;
pub mod runtime;
pub mod settings;
pub mod state;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod time;

pub use api::{
    AsOfJoin, AttemptReport, CheckpointReport, CoProcessFunction, IntervalJoin, Job, JobHandle, JobState, JobStatus,
    KeyedStream, ProcessStream, SourceStream, Stream, WindowJoin, WindowedStream,
};
pub use bytesize::ByteSize;
pub use connect::Undecodable;
pub use foreach_batch::Batch;
pub use metrics::{CheckpointMetrics, Figure, FigureValue, JobMetrics, Latency, OperatorMetrics};
pub use operators::{
    aggregate::{Aggregate, Count},
    connected::{Connected, Either},
    process::{Context, OutputTag, ProcessFunction, TimeToLive, Timer},
    running::{AggregateStream, OutputMode},
    shared::BoxedStream,
    window::{CountWindows, Firing, Global, Hopping, Session, Trigger, Tumbling, Windowed},
};
pub use operators::{
    async_map::AsyncMap,
    lookup_join::Lookup,
    requests::Failed,
    side_output::{SideOutput, SideOutputs},
};
pub use settings::{JobTrigger, Settings};
pub use state::operator::Redistribution;
pub use tidegate_checkpoint::error::{Error, Kind, Result};
pub use time::{FarFuture, Timestamp, WatermarkGenerator, Watermarks, Window};
