//! `foreach_batch` under SIGKILL: a child process, killed at random moments and at every step that concerns a batch.
//!
//! ```text
//! in/*.txt (a number a line) -> key_by, fold (so that there is state) -> foreach_batch
//! ```
//! The function does what the documentation tells users to do: it writes the batch to a file of the epoch's number,
//! beside it, and moves it into place. And for the test it keeps each call it gets, complete or not: of one number all
//! that are complete must be equal, and the files together must be the input. It takes its time, so that it is killed
//! as well.
#![allow(clippy::disallowed_methods)] // files are the oracle's
use crate::process::{self, Running};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use tidegate::{
    Batch, Error, FileSource, Job, JobTrigger, RestartStrategy, Settings, Stream,
    extend::env::{random, sleep, unique, wall_ms},
};

/// `PARALLELISM,RATE,TRIGGER,DIR` of a child.
const ARGUMENTS: &str = "TIDEGATE_TEST_MICRO_BATCH";
const TEST: &str = "crash::an_undisturbed_run_is_exact";
const FILES: u64 = 2;

fn job(dir: &Path, parallelism: u32, rate: f64, trigger: JobTrigger) -> Job {
    let mut settings = Settings { parallelism, trigger, ..Settings::default() };
    settings.checkpoint.store = dir.join("checkpoints").display().to_string();
    settings.checkpoint.interval = Duration::from_millis(30);
    settings.checkpoint.retained = 2;
    settings.restart.strategy = RestartStrategy::None;
    let job = Job::new("batches", settings);
    let dir = dir.to_owned();
    job.source("numbers", FileSource::text(dir.join("in")).rate(rate))
        .map(|line| line.parse::<u64>().unwrap())
        .key_by(|n| n % 10)
        .fold("last", 0, |last, n| *last = n)
        .foreach_batch("out", move |batch, epoch| write(dir.clone(), batch, epoch));
    job
}

async fn write(dir: PathBuf, batch: Batch<(u64, u64)>, epoch: u64) -> Result<(), Error> {
    let records = batch.collect().await?;
    let text: String = records.iter().map(|(key, n)| format!("{key},{n}\n")).collect();
    let failed = |e| Error::unavailable("the file cannot be written").caused_by(e);
    let name = format!("{epoch:06}-{:016x}", unique());
    for (folder, name) in [("calls", name.clone()), ("out", format!("{epoch:06}"))] {
        let beside = dir.join("beside").join(&name);
        fs::write(&beside, &text).map_err(failed)?;
        sleep(Duration::from_millis(epoch % 4 * 5)).await;
        fs::rename(beside, dir.join(folder).join(name)).map_err(failed)?;
    }
    Ok(())
}

struct Case {
    dir: TempDir,
    parallelism: u32,
    trigger: JobTrigger,
    count: u64,
}

impl Case {
    fn new(parallelism: u32, count: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["in", "calls", "out", "beside"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for file in 0..FILES {
            let lines: String = (file..count).step_by(FILES as usize).map(|n| format!("{n}\n")).collect();
            fs::write(dir.path().join(format!("in/{file}.txt")), lines).unwrap();
        }
        Self { dir, parallelism, trigger: JobTrigger::Continuous, count }
    }

    fn start(&self, rate: u32, kill_point: Option<&str>) -> Running {
        let arguments = format!("{},{rate},{},{}", self.parallelism, self.trigger, self.dir.path().display());
        process::start(TEST, (ARGUMENTS, &arguments), &self.dir.path().join("errors"), kill_point)
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default()
    }

    fn committed(&self) -> u64 {
        process::committed(&self.dir.path().join("checkpoints/batches/commits"))
    }

    /// By name, in order.
    fn files(&self, folder: &str) -> Vec<(String, String)> {
        let entries = fs::read_dir(self.dir.path().join(folder)).unwrap().map(|e| e.unwrap());
        let mut files: Vec<_> =
            entries.map(|e| (e.file_name().into_string().unwrap(), fs::read_to_string(e.path()).unwrap())).collect();
        files.sort();
        files
    }

    fn finish(&self) {
        let status = self.start(0, None).ended();
        assert!(status.success(), "{status}\n{}", self.errors());
        self.assert_exact();
    }

    /// How many batches there were, and how often one of them came again.
    #[track_caller]
    fn assert_exact(&self) -> (usize, usize) {
        let out: BTreeMap<_, _> = self.files("out").into_iter().collect();
        let calls = self.files("calls");
        for (name, text) in &calls {
            let epoch = &name[..6];
            assert!(out.get(epoch).is_some_and(|first| first == text), "epoch {epoch} has come with other records");
            assert!(!text.is_empty(), "epoch {epoch} has nothing");
        }
        let mut numbers: Vec<u64> = Vec::new();
        for (key, n) in out.values().flat_map(|text| text.lines()).map(|line| line.split_once(',').unwrap()) {
            numbers.push(n.parse().unwrap());
            assert_eq!(key, (numbers.last().unwrap() % 10).to_string());
        }
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..self.count), "lost, doubled or foreign: {} numbers", numbers.len());
        (out.len(), calls.len() - out.len())
    }
}

#[test]
fn an_undisturbed_run_is_exact() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let mut arguments = arguments.splitn(4, ',');
        let mut next = || arguments.next().unwrap();
        let (parallelism, rate) = (next().parse().unwrap(), next().parse().unwrap());
        let trigger = next().parse().unwrap();
        let job = job(Path::new(next()), parallelism, rate, trigger);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        if let Err(e) = runtime.block_on(job.run()) {
            panic!("{e}");
        }
        return;
    }
    for parallelism in [1, 2] {
        let case = Case::new(parallelism, 1_000);
        case.finish();
        assert_eq!(case.assert_exact().1, 0, "nothing has failed, and a batch came twice");
    }
}

/// At random moments, with another parallelism at each start. The seed is printed; `TIDEGATE_TEST_SEED` repeats it.
fn exact_after_twenty_kills(trigger: JobTrigger) {
    let given = std::env::var("TIDEGATE_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let mut seed = given.unwrap_or_else(|| wall_ms().unsigned_abs());
    println!("TIDEGATE_TEST_SEED={seed}");
    let mut case = Case { trigger, ..Case::new(1, 12_000) };
    let mut kills = 0;
    for start in 0..40 {
        case.parallelism = start % 3 + 1;
        let mut job = case.start(900, None);
        if random(&mut seed).is_multiple_of(2) {
            let before = case.committed();
            job.runs_until(|| case.committed() > before);
        }
        job.runs_for(Duration::from_micros(random(&mut seed) % 120_000));
        kills += u32::from(job.kill());
        if kills == 20 {
            break;
        }
    }
    assert_eq!(kills, 20, "too few kills hit a running job: give it more input");
    case.finish();
    let (batches, again) = case.assert_exact();
    println!("{batches} batches, {again} calls for one that had been written before");
    assert!(batches > 10 && again > 0, "the kills have hit nothing: {batches} batches, {again} calls again");
}

#[test]
fn exact_after_twenty_kills_in_a_stream() {
    exact_after_twenty_kills(JobTrigger::Continuous);
}

#[test]
fn exact_after_twenty_kills_in_micro_batches() {
    exact_after_twenty_kills(JobTrigger::Every(Duration::from_millis(40)));
}

#[test]
fn exact_after_twenty_kills_of_what_is_there() {
    exact_after_twenty_kills(JobTrigger::AvailableNow);
}

#[cfg(feature = "failpoints")]
#[test]
fn exact_after_a_kill_at_each_step_of_a_batch() {
    for parallelism in [1, 2] {
        for point in [
            "sink.staged",
            "manifest.after",
            "commit.before",
            "commit.after",
            "finalise.before",
            "finalise.after",
            "collect.before",
            "collect.mid",
        ] {
            let case = Case::new(parallelism, 1_200);
            for nth in [1, 3, 1] {
                case.start(2_000, Some(&format!("{point}:{nth}"))).dies_at(point, || case.errors());
            }
            case.finish();
        }
    }
}
