//! What a running job can be asked: counters of every operator, and the three figures that engines are
//! compared by (throughput, latency, capacity).
//!
//! The hot path counts in plain local integers and publishes them once a batch (`poll_ready`); readers sum
//! over subtasks. What a connector or the commit point knows beyond that it says itself, when it is asked
//! (`contributors`). Nothing here takes part in the checkpoint protocol.
pub(crate) mod contributors;
pub(crate) mod export;
pub mod report;
pub mod snapshot;
pub mod splits;
pub mod stats;

pub use snapshot::{CheckpointMetrics, JobMetrics, Latency, OperatorMetrics};
pub use stats::{OperatorStats, StatsRegistry};
pub use tidegate_checkpoint::figure::{Figure, FigureValue};
