//! tidegate: a checkpointed, exactly-once stream engine that you embed as a library.
//!
//! A job is sources, operators and sinks, run in parallel inside your own process, with event time, keyed
//! state and barrier snapshots. Kill it at any moment and start it again: its output is that of a run that
//! was never killed.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Collect, Collection, Job, Settings, Stream, Tumbling, Watermarks};
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
//! let counts = Collect::new();
//! let job = Job::new("clicks-per-minute", Settings::default());
//! job.source("clicks", Collection::new([("ann", 1_000), ("bob", 2_000), ("ann", 59_000), ("ann", 61_000)]))
//!     .event_time(|click| click.1, Watermarks::bounded(Duration::from_secs(5)))
//!     .key_by(|click| click.0.to_owned())
//!     .window("per-minute", Tumbling::of(Duration::from_secs(60)))
//!     .count()
//!     .map(|w| (w.window.start, w.key, w.value))
//!     .sink("counts", counts.clone());
//! job.run().await?;
//!
//! let mut counts = counts.take();
//! counts.sort();
//! assert_eq!(counts, [(0, "ann".into(), 2), (0, "bob".into(), 1), (60_000, "ann".into(), 1)]);
//! # Ok::<(), tidegate::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
/// The README's code.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
/// The code of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../docs/windows.md")]
pub struct WindowsMd;
/// The code in the page on joins.
#[cfg(doctest)]
#[doc = include_str!("../docs/joins.md")]
pub struct Joins;
/// The code of docs/testing.md.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../docs/testing.md")]
pub struct Testing;

/// The code of docs/process-functions.md.
#[cfg(doctest)]
#[doc = include_str!("../docs/process-functions.md")]
pub struct ProcessFunctions;

mod job;

pub use job::Job;
#[cfg(feature = "kafka")]
pub use tidegate_connectors::kafka;
pub use tidegate_connectors::{
    Collect, Collection, FileSink, FileSource, ForEach, Generator, Stdin, Stdout, generator::random,
};
pub use tidegate_core::operators::aggregate;
pub use tidegate_core::{
    Aggregate, AggregateStream, AsOfJoin, AttemptReport, Batch, BoxedStream, ByteSize, CheckpointMetrics,
    CheckpointReport, CoProcessFunction, Connected, Context, Count, CountWindows, Either, Error, FarFuture, Figure,
    FigureValue, Firing, Global, Hopping, IntervalJoin, JobHandle, JobMetrics, JobState, JobStatus, JobTrigger,
    KeyedStream, Kind, Latency, OperatorMetrics, OutputMode, OutputTag, ProcessFunction, ProcessStream, Result,
    Session, Settings, SourceStream, Stream, TimeToLive, Timer, Timestamp, Trigger, Tumbling, Undecodable,
    WatermarkGenerator, Watermarks, Window, WindowJoin, Windowed, WindowedStream, settings::RestartStrategy,
    state::codec::Codec,
};
pub use tidegate_core::{AsyncMap, Failed, Lookup, Redistribution, SideOutput, SideOutputs};

/// Looking into the state of jobs without their types.
pub mod state {
    pub use tidegate_core::state::savepoint::read as reader;
}

#[cfg(feature = "testing")]
pub mod testing;

/// For those who write connectors and state backends, and for tools.
pub mod extend {
    pub use tidegate_checkpoint as checkpoint;
    pub use tidegate_core::{
        connect, env,
        operators::{keyed::KeyedInput, window::Windows},
        state, time,
    };
    pub use tidegate_state as backends;
}
