//! What a checkpoint, a restart and another parallelism cost where most of a state has not changed, over every backend.
//!
//! A job counts in three runs, each of which goes on from the last checkpoint of the one before: every key once; then one
//! key in a hundred, picked at random; then as many again, with two subtasks instead of one. A run ends with a checkpoint
//! of its own, and there is no other: its bytes are those of all files that are new then, in the checkpoint store and in
//! the state's own place. A start is over when the first record that needs the restored state has left the job.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tidegate::{ForEach, Generator, Job, Stream, random};

use crate::{
    Args,
    backends::{Case, NAMES},
    engine::settings,
    events::BIDDERS,
    measure::finish,
};

/// Of how many keys one is changed.
const DELTA: u64 = 100;
const SPLITS: u64 = 2;

/// A run's figures.
struct Run {
    /// From its start to its first row.
    first_row: Duration,
    checkpoint_ms: u64,
    /// Bytes of files that were not there before it.
    written: u64,
}

/// Files, by path and size.
fn files(of: &Path) -> BTreeSet<(PathBuf, u64)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(of).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(file) if file.is_dir() => found.extend(files(&entry.path())),
            Ok(file) => drop(found.insert((entry.path(), file.len()))),
            Err(_) => {}
        }
    }
    found
}

/// Counts on to `events`, of which the first `keys` are of a key each.
fn run(case: &Case, folder: &Path, keys: u64, events: u64, parallelism: u32) -> Result<Run, String> {
    let before = files(folder);
    let settings = settings(parallelism, &folder.join("checkpoints"), "0s", &case.toml)?;
    let (began, first) = (Instant::now(), Arc::new(OnceLock::new()));
    let seen = first.clone();
    let job = Job::new("deltas", settings);
    let key = move |i: u64| if i < keys { i } else { random(1, i) % keys };
    job.source("keys", Generator::new(events, key).splits(SPLITS))
        .key_by(|key| *key)
        .fold("count", (0u64, 0u64), |count, key| {
            count.0 += 1;
            count.1 += key;
        })
        .sink("rows", ForEach::new(move |_: (u64, (u64, u64)), _| _ = seen.get_or_init(Instant::now)));
    let metrics = finish(job)?;
    let first = first.get().ok_or("no record has left the job")?;
    Ok(Run {
        first_row: first.duration_since(began),
        checkpoint_ms: metrics.checkpoints.last_duration_ms,
        written: files(folder).difference(&before).map(|(_, bytes)| bytes).sum(),
    })
}

pub fn compare(args: &Args) -> Result<(), String> {
    println!(
        "{:<8} {:>9} {:>9} {:>9} {:>6} {:>9} {:>9} {:>10} {:>10}",
        "", "keys", "full MB", "1 % MB", "%", "full ms", "1 % ms", "restore ms", "rescale ms"
    );
    for name in NAMES.into_iter().filter(|name| args.wants(name)) {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let case = Case::start(name, folder.path())?;
        let keys = args.keys.unwrap_or(BIDDERS);
        let (keys, changed) = (keys / SPLITS * SPLITS, keys / DELTA / SPLITS * SPLITS);
        let run = |runs: u64, parallelism| run(&case, folder.path(), keys, keys + runs * changed, parallelism);
        let (full, delta, rescaled) = (run(0, 1)?, run(1, 1)?, run(2, 2)?);
        let mb = |bytes: u64| bytes as f64 / 1e6;
        // Redis has it all itself.
        let part = (full.written >> 20 > 0).then(|| format!("{:.1}", 100.0 * mb(delta.written) / mb(full.written)));
        println!(
            "{name:<8} {keys:>9} {:>9.1} {:>9.2} {:>6} {:>9} {:>9} {:>10} {:>10}",
            mb(full.written),
            mb(delta.written),
            part.unwrap_or_else(|| "-".into()),
            full.checkpoint_ms,
            delta.checkpoint_ms,
            delta.first_row.as_millis(),
            rescaled.first_row.as_millis()
        );
    }
    Ok(())
}
