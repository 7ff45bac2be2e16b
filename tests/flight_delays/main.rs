//! The main job, as its users start it: `examples/flight_delays.rs` as a child process on the real input,
//! killed, resumed, fed with bad input, and judged by a reference that shares no code with the engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
mod child;
mod exact;
mod killed;
#[path = "../crash/process.rs"]
#[allow(dead_code, reason = "the crash tests need more of it")]
mod process;
#[path = "../../examples/flight_delays.rs"]
#[allow(dead_code, reason = "its main")]
mod program;
mod reference;
mod refused;
