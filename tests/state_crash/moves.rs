//! A job is moved through all backends that are compiled in, by savepoints and by its job file alone, and counts on.
use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};
use tidegate::{ForEach, Generator, Job, JobHandle, Kind, Settings, Stream, random};

const USERS: u64 = 3_000;

type Counts = Arc<std::sync::Mutex<HashMap<u64, u64>>>;

fn start(settings: Settings, counts: &Counts) -> JobHandle {
    let (job, counts) = (Job::new("moved", settings), counts.clone());
    let users = Generator::new(u64::MAX, |n| random(7, n) % USERS).splits(3).rate(30_000.0);
    job.source("events", users).key_by(|user| *user).fold("counts", 0u64, |count, _| *count += 1).sink(
        "newest",
        ForEach::new(move |(user, count): (u64, u64), _| {
            counts.lock().unwrap().insert(user, count);
        }),
    );
    job.start().unwrap()
}

/// Waits for so many more checkpoints.
pub async fn checkpoints(handle: &JobHandle, count: u64) {
    let mut status = handle.watch();
    let newest = |status: &tidegate::JobStatus| status.last_checkpoint.as_ref().map_or(0, |c| c.epoch);
    let first = newest(&status.borrow_and_update());
    while newest(&status.borrow_and_update()) < first.max(1) + count {
        assert!(!handle.status().state.is_end(), "{:?}", handle.status());
        status.changed().await.unwrap();
    }
}

/// `stages` are job files; each is run from the savepoint of the one before, in a store of its own; and every second one
/// goes on in the next one's backend from its own checkpoint first.
fn moved(folder: &Path, stages: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (counts, mut before) = (Counts::default(), String::new());
        for (n, stage) in stages.iter().enumerate() {
            let place = |what: &str| folder.join(format!("{n}-{what}")).display().to_string();
            let with = |stage: &str, parallelism| {
                let mut settings = Settings::from_toml(stage).unwrap();
                settings.parallelism = parallelism;
                settings.checkpoint.interval = Duration::from_millis(50);
                settings.checkpoint.store = place("checkpoints");
                settings.checkpoint.savepoint = before.as_str().into();
                settings
            };
            let mut handle = start(with(stage, 1 + n as u32 % 3), &counts);
            checkpoints(&handle, 3).await;
            let made = handle.savepoint(&place("on-the-way")).await;
            if stage.contains("backend = \"redis\"") {
                let error = made.unwrap_err();
                assert!(error.kind() == Kind::Config && error.to_string().contains("stop_with_savepoint"), "{error}");
            } else {
                made.unwrap();
            }
            if let (1, Some(next)) = (n % 2, stages.get(n + 1)) {
                handle.stop().await.unwrap();
                handle = start(with(next, 2), &counts);
                checkpoints(&handle, 2).await;
            }
            handle.stop_with_savepoint(&place("savepoint")).await.unwrap();
            before = place("savepoint");
        }
        let reader = tidegate::state::reader::Reader::open(&before).await.unwrap();
        let positions = reader.positions().values().flat_map(|splits| splits.values());
        let read: u64 = positions.map(|split| split["position"]["made"].as_u64().unwrap()).sum();
        let mut saved = HashMap::new();
        let keep = |entry: tidegate::state::reader::Read| {
            saved.insert(entry.key.as_u64().unwrap(), entry.value.as_u64().unwrap());
            true
        };
        reader.each("counts", keep).await.unwrap();
        assert_eq!(saved.values().sum::<u64>(), read);
        assert_eq!(saved, *counts.lock().unwrap());
        assert!(saved.len() > 2_900 && read > 10_000, "{} users, {read} events", saved.len());
    });
}

#[test]
fn a_job_is_moved_through_all_backends() {
    let folder = tempfile::tempdir().unwrap();
    let mut backends = vec!["memory"];
    // A job that leaves a backend has to find it: so what they need is in every job file.
    let mut rest = vec![
        format!("[state.rocksdb]\ndirectory = {:?}", folder.path().join("db")),
        format!("[state.object-store]\nurl = \"file://{}\"", folder.path().join("objects").display()),
    ];
    if cfg!(feature = "rocksdb") {
        backends.push("rocksdb");
    }
    if cfg!(feature = "object-store") {
        backends.push("object-store");
    }
    #[cfg(feature = "redis")]
    let _server = (!tidegate_testbed::without::left_out("redis")).then(|| {
        let server = tidegate_testbed::redis::Redis::start(&tidegate_testbed::redis::Options::default()).unwrap();
        rest.push(format!("[state.redis]\nurl = {:?}", server.url()));
        backends.push("redis");
        server
    });
    backends.push("memory");
    let stage = |backend| format!("[state]\nbackend = \"{backend}\"\ncache = \"4KB\"\n{}", rest.join("\n"));
    let stages: Vec<String> = backends.into_iter().map(stage).collect();
    moved(folder.path(), &stages);
}
