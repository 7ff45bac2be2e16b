//! An operator is renamed over each backend, and later another gets the name that it had.
//!
//! The hard case is a backend that keeps state in a place that is called after the operator: what is renamed must go on
//! there, whoever comes next must not find it, and what it has left must go when no checkpoint needs it.
use std::{collections::BTreeMap, path::Path, time::Duration};
use tidegate::{
    ForEach, Generator, Job, JobHandle, Settings, Stream, random,
    state::reader::{Read, Reader},
};

use crate::{moves::checkpoints, over::CACHE};

const USERS: u64 = 1_200;
const SPLITS: u64 = 3;

type Counts = BTreeMap<u64, u64>;

fn user(n: u64) -> u64 {
    random(11, n) % USERS
}

/// Counts users with each of these operators.
fn start(settings: Settings, operators: &[&str], renamed: &[(&str, &str)]) -> JobHandle {
    let job = Job::new("renamed", settings);
    let users = job.source("events", Generator::new(u64::MAX, user).splits(SPLITS).rate(20_000.0)).boxed();
    for operator in operators {
        let counts = users.clone().key_by(|user| *user).fold(operator, 0u64, |count, _| *count += 1);
        counts.sink(&format!("newest-{operator}"), ForEach::new(|_: (u64, u64), _| {}));
    }
    for (operator, old) in renamed {
        job.renamed_from(operator, old);
    }
    job.start().unwrap()
}

/// The counts of all that had been read when a savepoint was made.
fn read(reader: &Reader) -> Counts {
    let mut counts = Counts::new();
    for (split, position) in reader.positions().values().flatten() {
        let split: u64 = split.split('/').next().unwrap().parse().unwrap();
        for k in 0..position["position"]["made"].as_u64().unwrap() {
            *counts.entry(user(split + k * SPLITS)).or_default() += 1;
        }
    }
    counts
}

async fn saved(reader: &Reader, operator: &str) -> Counts {
    let mut counts = Counts::new();
    let keep = |entry: Read| {
        counts.insert(entry.key.as_u64().unwrap(), entry.value.as_u64().unwrap());
        true
    };
    reader.each(operator, keep).await.unwrap();
    counts
}

fn exact(folder: &Path, job_file: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let at = |what: &str| folder.join(what).display().to_string();
        let settings = |parallelism| {
            let mut settings = Settings::from_toml(job_file).unwrap();
            settings.parallelism = parallelism;
            settings.checkpoint.interval = Duration::from_millis(50);
            settings.checkpoint.store = at("checkpoints");
            settings
        };
        // It stays in the program, and when it is gone from there the old name is free.
        let renamed = [("totals", "counts")];
        for (parallelism, operator, renamed) in [(2, "counts", &[][..]), (3, "totals", &renamed)] {
            let handle = start(settings(parallelism), &[operator], renamed);
            checkpoints(&handle, 4).await;
            // What has come since is lost, and has to come again.
            handle.cancel().await.unwrap();
        }
        let handle = start(settings(1), &["totals"], &renamed);
        checkpoints(&handle, 2).await;
        handle.stop_with_savepoint(&at("before")).await.unwrap();
        let handle = start(settings(2), &["totals", "counts"], &[]);
        checkpoints(&handle, 4).await;
        handle.cancel().await.unwrap();
        let handle = start(settings(3), &["totals", "counts"], &[]);
        checkpoints(&handle, 2).await;
        handle.stop_with_savepoint(&at("after")).await.unwrap();

        let (before, after) = (Reader::open(&at("before")).await.unwrap(), Reader::open(&at("after")).await.unwrap());
        assert_eq!(saved(&before, "totals").await, read(&before));
        let all = read(&after);
        assert_eq!(saved(&after, "totals").await, all, "the one that was renamed has counted all");
        let mut since = all;
        for (user, count) in read(&before) {
            *since.get_mut(&user).unwrap() -= count;
        }
        since.retain(|_, count| *count > 0);
        assert!(since.len() > 100, "{} users", since.len());
        assert_eq!(saved(&after, "counts").await, since, "the other one has begun with nothing");
    });
}

fn over(state: impl FnOnce(&Path) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let state = state(folder.path());
    exact(folder.path(), &state);
}

#[test]
fn exact_over_memory() {
    over(|_| "[state]\nbackend = \"memory\"".into());
}

#[cfg(feature = "rocksdb")]
#[test]
fn exact_over_rocksdb() {
    over(|folder| {
        let directory = folder.join("db");
        format!("[state]\nbackend = \"rocksdb\"\n{CACHE}\n[state.rocksdb]\ndirectory = {directory:?}")
    });
}

#[cfg(feature = "object-store")]
#[test]
fn exact_over_an_object_store() {
    over(|folder| {
        let url = format!("file://{}", folder.join("objects").display());
        format!("[state]\nbackend = \"object-store\"\n{CACHE}\n[state.object-store]\nurl = {url:?}")
    });
}

#[cfg(feature = "redis")]
#[test]
fn exact_over_redis() {
    if tidegate_testbed::without::left_out("redis") {
        return;
    }
    let server = tidegate_testbed::redis::Redis::start(&tidegate_testbed::redis::Options::default()).unwrap();
    over(|_| format!("[state]\nbackend = \"redis\"\n{CACHE}\n[state.redis]\nurl = {:?}", server.url()));
    // The last one lives where it began, under the first name; the other one in a place of its own.
    let keys: Vec<String> = server
        .ask(&["KEYS", "*:counts#*:b"])
        .unwrap()
        .list()
        .iter()
        .filter_map(tidegate_testbed::redis::Value::text)
        .collect();
    let homes: std::collections::BTreeSet<&str> = keys.iter().filter_map(|key| key.split(':').nth(3)).collect();
    assert_eq!(homes.len(), 2, "{homes:?}");
}
