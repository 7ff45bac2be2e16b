//! What runs: tasks, the channels between them, and the driver that owns an attempt.
//!
//! In reading order: a source task pushes into its chain (`source_task`); an exchange ends the chain
//! (`exchange`, over `channel`); a gate aligns what comes in (`gate`); the sink's end stages it
//! (`sink_output`). `build` instantiates all that once a subtask; `attempt` drives one attempt from
//! recovery to its last barrier; `supervise` restarts attempts.
pub mod attempt;
pub mod build;
pub mod channel;
mod collect;
mod emission;
pub mod exchange;
pub mod gate;
pub mod heartbeat;
mod open_split;
mod recovery;
pub mod reporter;
pub mod restart;
pub mod sink_output;
pub mod source_task;
pub mod split_time;
pub mod supervise;
pub mod terminal;
mod told;
