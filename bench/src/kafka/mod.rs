//! k1 and k2: orders out of a real Kafka broker and payments into it, exactly once, beside a hand-written loop
//! without transactions (k1's for both: k2's state has no hand-written twin); and what cannot be told per CPU-second:
//! latency, recovery, and whether a commit stops the flow.
//!
//!     cargo run --release -p tidegate-bench -- k1 --rounds 3
//!     cargo run --release -p tidegate-bench -- k2
//!     cargo run --release -p tidegate-bench -- latency --events 1500000
//!     cargo run --release -p tidegate-bench -- recovery --rounds 30
//!
//! Each starts a broker of its own, and runs this program again as the client (`client` and a [`Run`]), so that the CPU time that counts is the client's alone. Every run's output is read back with `read_committed` and
//! compared with what it has to be.
mod batches;
mod compare;
mod hand;
mod job;
mod latency;
mod meter;
mod recovery;
mod stand;
mod work;

use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::Args;

type Failed = String;

/// One run of a client, which gets it as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    pub workload: String,
    /// By the hand-written loop.
    pub by_hand: bool,
    /// The broker.
    pub at: String,
    pub input: String,
    pub output: String,
    /// The job's name.
    pub job: String,
    pub interval: String,
    pub parallelism: u32,
    /// Of the output.
    pub partitions: usize,
    /// How many orders there are in the input.
    pub events: u64,
    /// Does not end with what is there, but when its stdin does.
    pub endless: bool,
    /// Properties of librdkafka's besides.
    pub kafka: Vec<(String, String)>,
    /// Where checkpoints are kept; without it, in a folder that goes with the run.
    pub store: Option<PathBuf>,
}

/// The names of what there is to run.
pub const COMMANDS: [&str; 5] = ["k1", "k2", "latency", "recovery", "client"];

pub fn run(args: &Args) -> Result<(), Failed> {
    match &*args.command {
        "client" => {
            let run = args.workloads.first().ok_or("client: what to run?")?;
            let run: Run = serde_json::from_str(run).map_err(|e| e.to_string())?;
            println!("{}", if run.by_hand { hand::run(&run)? } else { job::run(&run)? });
            Ok(())
        }
        "latency" => latency::run(args),
        "recovery" => recovery::run(args),
        _ => compare::run(args),
    }
}

/// Since 1970, by the clock that the broker stamps with.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[allow(clippy::disallowed_methods, reason = "a benchmark paces itself by the real clock")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}
