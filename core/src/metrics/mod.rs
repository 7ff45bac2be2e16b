//! What a running job can be asked: counters of every operator, and the three figures that engines are
//! compared by (throughput, latency, capacity).
//!
//! The hot path counts in plain local integers and publishes them once a batch (`poll_ready`); readers sum
//! over subtasks. Nothing here takes part in the checkpoint protocol.
pub mod report;
pub mod snapshot;
pub mod stats;

pub use snapshot::{CheckpointMetrics, JobMetrics, Latency, OperatorMetrics};
pub use stats::{OperatorStats, StatsRegistry};
