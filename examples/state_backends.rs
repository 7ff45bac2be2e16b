//! One keyed job on one state backend after the other: it is moved between them by savepoints, and goes on where it was.
//!
//! ```sh
//! cargo run --release --example state_backends                                      # memory, and back
//! cargo run --release --features rocksdb --example state_backends -- rocksdb
//! cargo xtask redis --port 6379                                                     # a server, until Ctrl-C
//! cargo run --release --features redis,rocksdb --example state_backends -- rocksdb redis=redis://127.0.0.1:6379
//! cargo run --release --features object-store --example state_backends -- object-store=file:///tmp/state
//! ```
//! It begins in memory, goes through what is named, and ends in memory. On each backend it counts a million events of
//! 100,000 users, with a checkpoint every second and tables that have room for a fifth of them (but in memory), at twice
//! the parallelism on every other one. At the end each user's count is what it has to be.
#![allow(clippy::disallowed_methods, reason = "no engine code: the real clock")]
use std::{
    collections::HashMap,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tidegate::{ByteSize, Error, ForEach, Generator, Job, JobHandle, Result, Settings, Stream, random};

const USERS: u64 = 100_000;
const EVENTS_A_STAGE: u64 = 1_000_000;

/// Each user's newest count.
type Counts = Arc<Mutex<HashMap<u64, u64>>>;

fn user(n: u64) -> u64 {
    random(42, n) % USERS
}

/// A stage: the name in the table, and the settings that make it.
fn settings(stage: &str, number: usize) -> Result<Settings> {
    let (name, url) = stage.split_once('=').unwrap_or((stage, ""));
    let mut settings = Settings { parallelism: 1 + (number % 2) as u32, ..Settings::default() };
    let state = &mut settings.state;
    state.cache = ByteSize::mb(1);
    match name {
        "memory" | "rocksdb" => state.backend = name.into(),
        "redis" => (state.backend, state.redis.url) = (name.into(), url.into()),
        "object-store" => (state.backend, state.object_store.url) = (name.into(), url.into()),
        _ => {
            return Err(Error::config(format!("there is no stage {name:?}"))
                .hint("memory, rocksdb, redis=URL, object-store=URL"));
        }
    }
    settings.checkpoint.interval = Duration::from_secs(1);
    Ok(settings)
}

fn job(settings: Settings, counts: &Counts) -> Job {
    let (job, counts) = (Job::new("state-backends", settings), counts.clone());
    // Without an end, so that it is stopped and not over: each stage stops it when it has come so far.
    let events = Generator::new(u64::MAX, user).splits(4).rate(2_000_000.0);
    job.source("events", events).key_by(|user| *user).fold("counts", 0u64, |count, _| *count += 1).sink(
        "newest",
        ForEach::new(move |(user, count): (u64, u64), _| {
            counts.lock().unwrap_or_else(PoisonError::into_inner).insert(user, count);
        }),
    );
    job
}

fn counted(handle: &JobHandle) -> u64 {
    handle.metrics().operators.iter().filter(|o| o.operator == "source").map(|o| o.records_out).sum()
}

async fn run(stages: &[String], folder: &Path) -> Result<()> {
    let (counts, mut before, mut expected): (Counts, Option<String>, HashMap<u64, u64>) = Default::default();
    println!(
        "{:<12} {:>3} {:>9} {:>12} {:>11} {:>11} {:>10}",
        "backend", "P", "start ms", "events/s", "state kB", "savepoint", "entries"
    );
    for (number, stage) in stages.iter().enumerate() {
        let place = |what: &str| folder.join(format!("{number}-{what}")).display().to_string();
        let mut settings = settings(stage, number)?;
        settings.checkpoint.store = place("checkpoints");
        settings.checkpoint.savepoint = before.as_deref().unwrap_or_default().into();
        let parallelism = settings.parallelism;
        let began = Instant::now();
        let handle = job(settings, &counts).start()?;
        let ended = || handle.status().state.is_end();
        while counted(&handle) == 0 && !ended() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let started = began.elapsed();
        while counted(&handle) < EVENTS_A_STAGE && !ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let speed = counted(&handle) as f64 / began.elapsed().saturating_sub(started).as_secs_f64();
        if ended() {
            return handle.wait().await.and(Err(Error::internal("the job has ended")));
        }
        let bytes = handle.status().last_checkpoint.map_or(0, |checkpoint| checkpoint.bytes);
        let (saving, saved) = (Instant::now(), place("savepoint"));
        handle.stop_with_savepoint(&saved).await?;
        let reader = tidegate::state::reader::Reader::open(&saved).await?;
        let entries: u64 = reader.operators().map(|(_, entries)| entries).sum();
        println!(
            "{:<12} {parallelism:>3} {:>9} {speed:>12.0} {:>11} {:>8} ms {entries:>10}",
            stage.split('=').next().unwrap_or_default(),
            started.as_millis(),
            bytes / 1000,
            saving.elapsed().as_millis(),
        );
        expected = read(&reader);
        before = Some(saved);
    }
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let events: u64 = expected.values().sum();
    println!("{events} events were read, of {} users", expected.len());
    if *counts == expected { Ok(()) } else { Err(Error::internal("an event was lost or counted twice")) }
}

/// How many events of each user have been read, as the savepoint's positions say: split `p/4` makes `p`, `p + 4`, ...
fn read(reader: &tidegate::state::reader::Reader) -> HashMap<u64, u64> {
    let mut counts = HashMap::new();
    for (id, split) in reader.positions().values().flatten() {
        let (part, of) = id.split_once('/').unwrap_or((id, "1"));
        let (part, of) = (part.parse().unwrap_or(0), of.parse().unwrap_or(1));
        for n in 0..split["position"]["made"].as_u64().unwrap_or(0) {
            *counts.entry(user(part + of * n)).or_default() += 1;
        }
    }
    counts
}

#[tokio::main]
async fn main() -> ExitCode {
    let named = std::env::args().skip(1);
    let stages: Vec<String> = ["memory".to_owned()].into_iter().chain(named).chain(["memory".to_owned()]).collect();
    let result = match tempfile::tempdir() {
        Ok(folder) => run(&stages, folder.path()).await,
        Err(e) => Err(Error::unavailable("there is no temporary folder").caused_by(e)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
