//! The engine in one process, from the facade: restarts, control, fencing, damaged checkpoints, bad input,
//! a store that fails, a run that is overtaken, a source that is held up. What needs a process to be killed is in `tests/crash`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
mod asked;
mod bad_input;
mod checkpoints;
mod control;
mod damage;
mod dedup;
mod evolve;
mod faults;
mod fencing;
mod figures;
mod file_jobs;
mod full_disk;
mod graph;
mod joins;
mod kept;
mod kit;
#[cfg(feature = "rocksdb")]
mod local;
mod metrics;
mod output_modes;
mod parts;
mod pipeline;
mod pressure;
mod process;
mod restart;
mod savepoints;
mod script;
mod shapes;
mod store;
mod strategies;
mod takeover;
mod time;
mod told;
mod top_n;
mod two_jobs;
mod unsaved;
mod windows;
