//! What users write: a [`Job`], its sources, streams and sinks, and the handle of what runs.
pub mod handle;
pub mod job;
pub mod join;
pub mod keyed;
pub mod process;
pub mod source;
pub mod stream;
pub mod windowed;

pub use handle::{AttemptReport, CheckpointReport, JobHandle, JobState, JobStatus};
pub use job::Job;
pub use join::{AsOfJoin, IntervalJoin, WindowJoin};
pub use keyed::KeyedStream;
pub use process::{CoProcessFunction, ProcessStream};
pub use source::{SourceStream, Stamp, Timed, Untimed};
pub use stream::Stream;
pub use windowed::WindowedStream;
