//! An operator is renamed over each backend, and later another gets the name that it had.
//!
//! The hard case is a backend that keeps state in a place that is called after the operator: what is renamed must go on
//! there, whoever comes next must not find it, and what it has left must go when no checkpoint needs it.
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate::{
    ForEach, Generator, Job, JobHandle, Settings, Stream, random,
    state::reader::{Read, Reader},
};

use crate::{moves::checkpoints, over::CACHE};

const USERS: u64 = 1_200;

type Counts = Arc<Mutex<BTreeMap<String, HashMap<u64, u64>>>>;

/// Counts users with each of these operators.
fn start(settings: Settings, operators: &[&str], renamed: &[(&str, &str)], counts: &Counts) -> JobHandle {
    let job = Job::new("renamed", settings);
    let users = Generator::new(u64::MAX, |n| random(11, n) % USERS).splits(3).rate(20_000.0);
    let users = job.source("events", users).boxed();
    for operator in operators {
        let (counts, name) = (counts.clone(), (*operator).to_owned());
        users.clone().key_by(|user| *user).fold(operator, 0u64, |count, _| *count += 1).sink(
            &format!("newest-{operator}"),
            ForEach::new(move |(user, count): (u64, u64), _| {
                counts.lock().unwrap().entry(name.clone()).or_default().insert(user, count);
            }),
        );
    }
    for (operator, old) in renamed {
        job.renamed_from(operator, old);
    }
    job.start().unwrap()
}

fn exact(folder: &Path, job_file: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let counts = Counts::default();
        let at = |what: &str| folder.join(what).display().to_string();
        let settings = |parallelism| {
            let mut settings = Settings::from_toml(job_file).unwrap();
            settings.parallelism = parallelism;
            settings.checkpoint.interval = Duration::from_millis(50);
            settings.checkpoint.store = at("checkpoints");
            settings
        };
        let renamed = [("totals", "counts")];
        // It stays in the program, and when it is gone from there the old name is free.
        for (parallelism, operators, renamed) in [
            (2, &["counts"][..], &[][..]),
            (3, &["totals"], &renamed),
            (1, &["totals"], &renamed),
            (2, &["totals", "counts"], &[]),
        ] {
            let handle = start(settings(parallelism), operators, renamed, &counts);
            checkpoints(&handle, 4).await;
            // What has come since is lost, and has to come again.
            handle.cancel().await.unwrap();
        }
        let handle = start(settings(3), &["totals", "counts"], &[], &counts);
        checkpoints(&handle, 2).await;
        handle.stop_with_savepoint(&at("savepoint")).await.unwrap();

        let reader = Reader::open(&at("savepoint")).await.unwrap();
        let positions = reader.positions().values().flat_map(|splits| splits.values());
        let read: u64 = positions.map(|split| split["position"]["made"].as_u64().unwrap()).sum();
        let mut sums = Vec::new();
        for operator in ["totals", "counts"] {
            let mut saved = HashMap::new();
            let keep = |entry: Read| {
                saved.insert(entry.key.as_u64().unwrap(), entry.value.as_u64().unwrap());
                true
            };
            reader.each(operator, keep).await.unwrap();
            let newest = counts.lock().unwrap()[operator].clone();
            let differing = saved.iter().filter(|(user, count)| newest.get(user) != Some(count)).count();
            // Of the first operator of the name there may be more than of the one that has it now.
            assert_eq!(differing, 0, "{operator}");
            sums.push(saved.values().sum::<u64>());
        }
        assert_eq!(sums[0], read, "the one that was renamed has counted all");
        assert!(sums[1] > 0 && sums[1] < read, "the other one has begun with nothing: {sums:?}");
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
    let keys: Vec<String> =
        server.ask(&["KEYS", "*:counts#*:b"]).unwrap().list().iter().filter_map(|key| key.text()).collect();
    let homes: std::collections::BTreeSet<&str> = keys.iter().filter_map(|key| key.split(':').nth(3)).collect();
    assert_eq!(homes.len(), 2, "{homes:?}");
}
