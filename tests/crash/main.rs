//! SIGKILL, from outside and from inside: whatever the moment, the output is that of a run that was never
//! killed. A real child process each time, since unwinding runs destructors and a crash does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
mod asked;
mod at_points;
mod at_random;
#[allow(dead_code, reason = "job files are for tests/state_crash")]
mod child;
mod in_recovery;
mod job;
mod killed;
mod process;
mod world;
mod zombies;
