//! k1 and k2: orders out of a real Kafka broker and payments into it, exactly once, beside a hand-written loop
//! without transactions (k1's for both: k2's state has no hand-written twin); and what cannot be told per CPU-second:
//! latency, recovery, and whether a commit stops the flow.
//!
//!     cargo run --release -p tidegate-bench -- k1 --rounds 3
//!     cargo run --release -p tidegate-bench -- k2
//!     cargo run --release -p tidegate-bench -- latency --events 1500000
//!     cargo run --release -p tidegate-bench -- recovery --rounds 30
//!
//! Each starts a broker of its own, and runs this program again as the client, with `--at` and the broker's address, so
//! that the CPU time that counts is the client's alone. Every run's output is read back with `read_committed` and
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

use std::{path::PathBuf, time::Duration};

use crate::Args;

type Failed = String;

/// One run of a client.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub workload: String,
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
pub const COMMANDS: [&str; 4] = ["k1", "k2", "latency", "recovery"];

pub fn run(args: &Args) -> Result<(), Failed> {
    if let Some(run) = &args.client {
        let (workload, interval, events) =
            (args.command.clone(), args.interval.clone(), args.events.unwrap_or_default());
        let (parallelism, kafka) = (args.parallelism, args.kafka.clone());
        let partitions = args.partitions.unwrap_or(stand::PARTITIONS);
        let run = Run { workload, interval, parallelism, partitions, events, kafka, ..run.clone() };
        let line = if args.baseline { hand::run(&run)? } else { job::run(&run)? };
        println!("{line}");
        return Ok(());
    }
    match &*args.command {
        "latency" => latency::run(args),
        "recovery" => recovery::run(args),
        _ => compare::run(args),
    }
}

#[allow(clippy::disallowed_methods, reason = "a benchmark paces itself by the real clock")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}
