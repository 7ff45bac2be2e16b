//! The job that is killed: two Kafka sinks in one transaction, and keyed state in between.
//!
//! ```text
//! in (3 partitions) --+--> copies   each record, by its key
//!                     \--> counts   the running count of its key, one row a record
//! ```
//! The child process is this very test binary, told to run the one test below, with its arguments in the environment.
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidegate::{
    Job, RestartStrategy, Settings, Stream,
    kafka::{Json, Kafka},
};

use crate::child::Case;

/// What a child is told to run, and its settings in TOML.
pub const TEST: &str = "job::an_undisturbed_run_is_exact";
pub const ARGUMENTS: &str = "TIDEGATE_TEST_KAFKA_JOB";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    pub id: u64,
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Count {
    pub key: String,
    pub count: u64,
}

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arguments {
    pub bootstrap: String,
    pub store: String,
    pub parallelism: u32,
    /// Records that a subtask lets through each millisecond; 0: all.
    pub pace: u32,
    /// Attempts after the first.
    pub restarts: u32,
    pub transaction_timeout_ms: u64,
    /// Whether it goes on behind what is there, and never ends.
    pub follow: bool,
}

pub fn job(arguments: &Arguments) -> Job {
    let mut settings = Settings { parallelism: arguments.parallelism, ..Settings::default() };
    settings.checkpoint.store.clone_from(&arguments.store);
    settings.checkpoint.interval = Duration::from_millis(50);
    settings.restart.strategy = RestartStrategy::FixedDelay;
    settings.restart.max_restarts = arguments.restarts;
    let job = Job::new("crash", settings);
    let timeout = arguments.transaction_timeout_ms.to_string();
    let kafka = Kafka::at(&arguments.bootstrap).set("transaction.timeout.ms", &timeout);
    let (pace, mut passed) = (arguments.pace, 0);
    let source = kafka.source("in", Json::<Event>::new());
    let events = job.source("in", if arguments.follow { source } else { source.available_now() });
    let events = events
        .inspect(move |_| {
            passed += 1;
            if pace > 0 && passed % pace == 0 {
                // A slow function of the user's, so that a kill finds the job at work.
                #[allow(clippy::disallowed_methods)]
                std::thread::sleep(Duration::from_millis(1));
            }
        })
        .boxed();
    events.clone().sink("copies", kafka.sink("copies", Json::<Event>::new()).key(|e| e.key.as_bytes()));
    events
        .key_by(|e| e.key.clone())
        .fold("counts-by-key", 0, |count, _| *count += 1)
        .map(|(key, count)| Count { key, count })
        .sink("counts", kafka.sink("counts", Json::<Count>::new()).key(|c| c.key.as_bytes()));
    job
}

pub fn run(arguments: &Arguments) -> Result<(), tidegate::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { job(arguments).run().await })
}

#[test]
fn an_undisturbed_run_is_exact() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        if let Err(e) = run(&serde_json::from_str(&arguments).unwrap()) {
            panic!("{e}");
        }
        return;
    }
    for parallelism in [1, 2] {
        Case::new(parallelism, 3_000).finish();
    }
}
