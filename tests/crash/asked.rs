//! Killed with requests in flight: each record is answered, fails or is counted exactly once, whatever the moment.
//!
//! ```text
//! numbers -> throttle -> async_map --+-> asked   the answers (JSON lines)
//!                          |         \-> counted   fold by key, one row an answer
//!                          \-> failed   what has no answer, as it is put aside
//! ```
//! Answers take up to eight milliseconds, so that some thirty requests are in flight at any time, and two requests in
//! three are tried again.
use crate::process;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate::{
    AsyncMap, Collection, FileSink, Job, RestartStrategy, Settings, Stream,
    extend::env::{random, sleep, wall_ms},
};

const ARGUMENTS: &str = "TIDEGATE_TEST_CRASH_ASKED";
const TEST: &str = "asked::an_undisturbed_run_is_exact";
const COUNT: u64 = 4_000;

#[derive(Clone, Debug, Serialize)]
struct Answer {
    n: u64,
    double: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Count {
    key: u64,
    count: u64,
}

fn fails_always(n: u64) -> bool {
    n % 97 == 5
}

fn job(dir: &Path, parallelism: u32, per_second: f64) -> Job {
    let mut settings = Settings { parallelism, ..Settings::default() };
    settings.checkpoint.store = dir.join("checkpoints").display().to_string();
    settings.checkpoint.interval = Duration::from_millis(30);
    settings.checkpoint.retained = 2;
    settings.restart.strategy = RestartStrategy::None;
    let job = Job::new("asked", settings);
    let out = |name: &str| FileSink::json_lines(dir.join("out").join(name).display().to_string());
    let how = if parallelism == 2 { AsyncMap::unordered(30) } else { AsyncMap::ordered(30) };
    let how = how.retries(1, Duration::from_millis(1));
    let tried = Arc::new(Mutex::new(HashMap::<u64, u32>::new()));
    let ask = move |n: u64| {
        let again = {
            let mut tried = tried.lock().unwrap();
            let tries = tried.entry(n).or_default();
            *tries += 1;
            *tries > 1
        };
        async move {
            sleep(Duration::from_millis(random(&mut n.clone()) % 8)).await;
            if fails_always(n) || (!n.is_multiple_of(3) && !again) {
                Err("no")
            } else {
                Ok(Answer { n, double: 2 * n })
            }
        }
    };
    let numbers = job.source("numbers", Collection::new((0..COUNT).collect::<Vec<_>>()).splits(3)).throttle(per_second);
    let mut asked = numbers.async_map("ask", how, ask);
    asked.failed().sink("failed", out("failed"));
    let asked = asked.boxed();
    asked.clone().sink("asked", out("asked"));
    asked
        .key_by(|answer| answer.n % 7)
        .fold("count", 0u64, |count, _| *count += 1)
        .map(|(key, count)| Count { key, count })
        .sink("counted", out("counted"));
    job
}

fn run(dir: &Path, parallelism: u32, per_second: f64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Err(e) = runtime.block_on(job(dir, parallelism, per_second).run()) {
        panic!("{e}");
    }
}

/// Every line of a sink's parts, in no order.
fn lines(dir: &Path, sink: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir.join("out").join(sink)).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_file() {
            lines.extend(fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines
}

fn assert_exact(dir: &Path) {
    let sorted = |lines: &mut dyn Iterator<Item = String>| {
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        lines
    };
    let answered = || (0..COUNT).filter(|n| !fails_always(*n));
    let asked = sorted(&mut answered().map(|n| format!(r#"{{"n":{n},"double":{}}}"#, 2 * n)));
    let failed = (0..COUNT).filter(|n| fails_always(*n));
    let failed = sorted(&mut failed.map(|n| format!(r#"{{"record":{n},"error":"no","attempts":2}}"#)));
    let mut counts = BTreeMap::<u64, u64>::new();
    let counted = answered().map(|n| {
        let count = counts.entry(n % 7).or_default();
        *count += 1;
        format!(r#"{{"key":{},"count":{count}}}"#, n % 7)
    });
    let counted = sorted(&mut counted.collect::<Vec<_>>().into_iter());
    for (sink, expected) in [("asked", asked), ("failed", failed), ("counted", counted)] {
        let found = lines(dir, sink);
        let difference = found.iter().zip(&expected).find(|(a, b)| a != b);
        assert!(found == expected, "{sink}: {} of {} lines; first {difference:?}", found.len(), expected.len());
    }
}

#[test]
fn an_undisturbed_run_is_exact() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let mut arguments = arguments.splitn(3, ',');
        let mut next = || arguments.next().unwrap();
        let (parallelism, per_second) = (next().parse().unwrap(), next().parse().unwrap());
        return run(Path::new(next()), parallelism, per_second);
    }
    for parallelism in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), parallelism, 1e9);
        assert_exact(dir.path());
    }
}

/// The parallelism of each start follows from its number.
fn killed(kills: u32, parallelism: impl Fn(u32) -> u32) {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = wall_ms().unsigned_abs();
    println!("seed {seed}");
    let errors = dir.path().join("errors");
    let start = |n: u32, rate: f64| {
        let arguments = format!("{},{rate},{}", parallelism(n), dir.path().display());
        process::start(TEST, (ARGUMENTS, &arguments), &errors, None)
    };
    let committed = || process::committed(&dir.path().join("checkpoints/asked/commits"));
    let said = || fs::read_to_string(&errors).unwrap_or_default();
    let mut hit = 0;
    for n in 0..kills {
        let mut job = start(n, 900.0);
        if random(&mut seed).is_multiple_of(2) {
            let before = committed();
            job.runs_until(|| committed() > before);
        }
        job.runs_for(Duration::from_micros(random(&mut seed) % 150_000));
        hit += u32::from(job.kill());
    }
    assert!(hit >= kills / 2, "only {hit} of {kills} kills hit a running job\n{}", said());
    let status = start(kills, 1e9).ended();
    assert!(status.success(), "{status}\n{}", said());
    assert_exact(dir.path());
}

#[test]
fn exact_after_fifteen_kills_at_parallelism_1() {
    killed(15, |_| 1);
}

#[test]
fn exact_after_fifteen_kills_at_parallelism_2() {
    killed(15, |_| 2);
}

#[test]
fn exact_after_fifteen_kills_with_another_parallelism_at_each_start() {
    killed(15, |start| start % 3 + 1);
}
