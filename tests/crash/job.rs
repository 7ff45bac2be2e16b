//! The job that the crash tests kill: everything that could lose or double a record, in one graph.
//!
//! ```text
//! left  (files) --\                            /-> events   the records themselves (CSV)
//!                  union -> filter -> boxed --+--> running  fold by key, one row a record (JSON lines)
//! right (files) --/                            \-> windows  sum by key and second, rolled (CSV)
//! ```
//! It never restarts in process: what ends it must be seen by the test that started it.
//!
//! The child process is this very test binary, told to run the one test below, with its arguments in the
//! environment: whatever builds the tests has built the job, and there is no program to be found or stale.
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use tidegate::{FileSink, FileSource, Job, RestartStrategy, Settings, Stream, Tumbling, Watermarks};

use crate::world;

/// `PARALLELISM,RATE,DIR` of a child.
pub const ARGUMENTS: &str = "TIDEGATE_TEST_CRASH_JOB";
/// What a child is told to run.
pub const TEST: &str = "job::an_undisturbed_run_is_exact";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    id: u64,
    key: u64,
    at: i64,
    value: i64,
}

#[derive(Clone, Debug, Serialize)]
struct Running {
    key: u64,
    count: u64,
    sum: i64,
}

#[derive(Clone, Debug, Serialize)]
struct Sum {
    key: u64,
    start: i64,
    sum: i64,
}

pub fn job(dir: &Path, settings: Settings, rate: f64) -> Job {
    let job = Job::new("crash", settings);
    let source = |name: &str| {
        let files = FileSource::csv::<Event>(dir.join("in").join(name)).rate(rate);
        job.source(name, files).event_time(|e| e.at, Watermarks::bounded(Duration::from_millis(500)).every(20))
    };
    let out = |name: &str| dir.join("out").join(name).display().to_string();
    let events = source("left").union(source("right")).filter(|e| e.value % 7 != 0).boxed();
    events.clone().sink("events", FileSink::csv(out("events")));
    events
        .clone()
        .key_by(|e| e.key)
        .fold("fold", (0u64, 0i64), |total, e| {
            total.0 += 1;
            total.1 += e.value;
        })
        .map(|(key, (count, sum))| Running { key, count, sum })
        .sink("running", FileSink::json_lines(out("running")));
    events
        .key_by(|e| e.key % 50)
        .window("per-second", Tumbling::of(Duration::from_secs(1)))
        .reduce(|a, b| Event { value: a.value + b.value, ..a })
        .map(|w| Sum { key: w.key, start: w.window.start, sum: w.value.value })
        .sink("windows", FileSink::csv(out("windows")).roll_bytes(400));
    job
}

/// A job file, where a case has one: what it says of state.
pub const JOB_FILE: &str = "job.toml";

pub fn settings(dir: &Path, parallelism: u32) -> Settings {
    let file = dir.join(JOB_FILE);
    let given = if file.exists() { Settings::from_file(file).unwrap() } else { Settings::default() };
    let mut settings = Settings { parallelism, ..given };
    if settings.checkpoint.store == "memory:" {
        settings.checkpoint.store = dir.join("checkpoints").display().to_string();
    }
    settings.checkpoint.interval = Duration::from_millis(30);
    settings.checkpoint.retained = 2;
    settings.restart.strategy = RestartStrategy::None;
    settings
}

fn run(dir: &Path, parallelism: u32, rate: f64) -> Result<(), tidegate::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { job(dir, settings(dir, parallelism), rate).run().await })
}

#[test]
fn an_undisturbed_run_is_exact() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let mut arguments = arguments.splitn(3, ',');
        let mut next = || arguments.next().unwrap();
        let (parallelism, rate) = (next().parse().unwrap(), next().parse().unwrap());
        if let Err(e) = run(Path::new(next()), parallelism, rate) {
            panic!("{e}");
        }
        return;
    }
    for parallelism in [1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let expected = world::make(dir.path(), 3, 500);
        run(dir.path(), parallelism, 0.0).unwrap();
        world::compare(&expected, &world::found(dir.path())).unwrap();
    }
}
