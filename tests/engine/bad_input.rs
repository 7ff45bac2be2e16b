//! Bad input, bad output, bad settings: a clear error, nothing lost, nothing half-visible.
//!
//! Errors that the user has to mend end the job at once, whatever the restart strategy; the policies for rows
//! that cannot be read hold over a restart, too: a bad row is skipped, or kept as a dead letter, exactly once.
use crate::kit::{Blast, Bomb, Gated, end, finished, run, settings, until};
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};
use tempfile::TempDir;
use tidegate::{
    Collect, Collection, Error, FileSink, FileSource, ForEach, Job, JobState, Kind, RestartStrategy, Settings,
    SourceStream, Stream,
    extend::{env::sleep, state::hash::hash_key},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    id: u64,
    name: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Fail,
    Skip,
    DeadLetters,
}

/// A job that copies `input` to `out`, with its dead letters in `dead`.
fn copy(dir: &TempDir, input: &str, policy: Policy, bomb: &Bomb) -> Job {
    let at = |name: &str| dir.path().join(name).display().to_string();
    let mut settings = settings(1);
    settings.checkpoint.store = at("checkpoints");
    let job = Job::new("copy", settings);
    let mut rows: SourceStream<_> = job.source("rows", FileSource::csv::<Row>(dir.path().join(input)).rate(2_000.0));
    match policy {
        Policy::Fail => {}
        Policy::Skip => rows = rows.skip_undecodable(),
        Policy::DeadLetters => rows.dead_letters().sink("dead-letters", FileSink::csv(at("dead"))),
    }
    let bomb = bomb.clone();
    rows.inspect(move |_| bomb.hit("row")).sink("copies", FileSink::csv(at("out")));
    job
}

/// The lines of all parts of a folder, without headers.
fn lines(dir: &Path, folder: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir.join(folder)).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_file() {
            lines.extend(fs::read_to_string(path).unwrap().lines().skip(1).map(str::to_owned));
        }
    }
    lines.sort();
    lines
}

/// Runs a job that must fail, and at once: nothing that the user has to mend is tried again.
fn refused(job: &Job) -> Error {
    run(async {
        let (result, status) = end(job.start().unwrap()).await;
        let error = result.unwrap_err();
        assert_eq!(status.state, JobState::Failed);
        if matches!(error.kind(), Kind::Config | Kind::Data) {
            assert_eq!(status.restarts, 1, "tried again: {status:?}");
        }
        assert!(error.hint_text().is_some(), "no hint: {error}");
        error
    })
}

/// 400 rows; every 40th is bad, in one of four ways.
fn input_with_bad_rows(dir: &TempDir) -> (Vec<String>, Vec<u64>) {
    let (mut text, mut good, mut bad) = (String::from("id,name\n"), Vec::new(), Vec::new());
    for id in 0..400 {
        let line = match id % 160 {
            7 => format!("{id}"),
            47 => format!("{id},x,y"),
            87 => format!("-{id},negative"),
            127 => String::from("?,no number"),
            _ => {
                good.push(format!("{id},n{id}"));
                format!("{id},n{id}")
            }
        };
        if good.last() != Some(&line) {
            bad.push(id + 2);
        }
        text.push_str(&line);
        text.push('\n');
    }
    fs::write(dir.path().join("in.csv"), text).unwrap();
    good.sort();
    (good, bad)
}

#[test]
fn a_bad_row_fails_the_job_and_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in.csv"), "id,name\n1,one\n2\n3,three\n").unwrap();
    let error = refused(&copy(&dir, "in.csv", Policy::Fail, &Bomb::default()));
    assert_eq!(error.kind(), Kind::Data);
    let text = error.to_string();
    assert!(text.contains("line 3 of in.csv") && text.contains("1 columns, the header has 2"), "{text}");
    assert!(text.contains("skip_undecodable") && text.contains("dead_letters"), "{text}");
    assert_eq!(lines(dir.path(), "out"), Vec::<String>::new(), "output of a failed attempt is visible");
}

/// The job is made to fail in the middle, behind a checkpoint.
fn with_bad_rows(policy: Policy) -> (TempDir, Vec<String>, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = input_with_bad_rows(&dir);
    run(async {
        let bomb = Bomb::default();
        let job = copy(&dir, "in.csv", policy, &bomb);
        let handle = job.start().unwrap();
        until(|| handle.metrics().operator("rows").is_some_and(|o| o.records_out > 100)).await;
        handle.checkpoint_now().await.unwrap();
        bomb.arm("row", Blast::Panic, 1);
        until(|| bomb.is_spent()).await;
        while handle.status().state != JobState::Running {
            sleep(std::time::Duration::from_millis(1)).await;
        }
        let status = finished(handle).await;
        assert_eq!((status.restarts, status.restored), (1, Some(1)), "{status:?}");
    });
    (dir, good, bad)
}

#[test]
fn bad_rows_can_be_skipped_and_the_rest_is_exact_over_a_restart() {
    let (dir, good, _) = with_bad_rows(Policy::Skip);
    assert_eq!(lines(dir.path(), "out"), good);
}

#[test]
fn skipped_rows_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (_, bad) = input_with_bad_rows(&dir);
    run(async {
        let handle = copy(&dir, "in.csv", Policy::Skip, &Bomb::default()).start().unwrap();
        let skipped = || handle.metrics().operator("rows").map_or(0, |o| o.skipped);
        until(|| skipped() == bad.len() as u64 || handle.status().state == JobState::Finished).await;
        assert_eq!(skipped(), bad.len() as u64);
        finished(handle).await;
    });
}

#[test]
fn bad_rows_can_be_kept_as_dead_letters_exactly_once_over_a_restart() {
    let (dir, good, bad) = with_bad_rows(Policy::DeadLetters);
    assert_eq!(lines(dir.path(), "out"), good);
    let mut expected: Vec<_> = bad.iter().map(|line| format!("in.csv,line {line}")).collect();
    expected.sort();
    let place = |line: &String| line.splitn(3, ',').take(2).collect::<Vec<_>>().join(",");
    let mut found: Vec<_> = lines(dir.path(), "dead").iter().map(place).collect();
    found.sort();
    assert_eq!(found, expected);
}

/// Keyed state behind a side stream of a source is captured by nobody else than the source's own task.
#[test]
fn bad_rows_can_be_counted_by_key_and_checkpointed() {
    run(async {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("in.csv"), "id,name\n1,a\nx,b\ny,c\n").unwrap();
        for backend in [("memory", 0), ("entries", 0)] {
            let mut settings = settings(1);
            (settings.state.backend, settings.state.cache) = (backend.0.into(), tidegate::ByteSize(backend.1));
            let job = Job::with_backends(
                "bad",
                settings,
                [std::sync::Arc::new(tidegate_core::testkit::entries::Entries) as _],
            );
            let mut rows = job.source("rows", FileSource::csv::<Row>(dir.path().join("in.csv").to_str().unwrap()));
            let counts = Collect::new();
            rows.dead_letters()
                .key_by(|bad| bad.raw.len() as u64)
                .fold("by-length", 0u64, |n, _| *n += 1)
                .sink("counts", counts.clone());
            rows.map(|row| row.id).sink("good", Collect::new());
            let ended = tokio::time::timeout(std::time::Duration::from_secs(30), job.run()).await;
            ended.expect("its last checkpoint is never made").unwrap();
            assert_eq!(counts.take().len(), 2);
        }
    });
}

#[test]
fn an_empty_file_and_one_with_a_header_alone_give_an_empty_output() {
    for content in ["", "id,name\n", "id,name"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("in.csv"), content).unwrap();
        run(async { finished(copy(&dir, "in.csv", Policy::Fail, &Bomb::default()).start().unwrap()).await });
        assert_eq!(lines(dir.path(), "out"), Vec::<String>::new(), "{content:?}");
    }
}

#[test]
fn a_missing_input_is_named() {
    for input in ["none.csv", "none/", "none/*.csv", "*.csv"] {
        let dir = tempfile::tempdir().unwrap();
        let error = refused(&copy(&dir, input, Policy::Fail, &Bomb::default()));
        assert_eq!(error.kind(), Kind::Config, "{error}");
        let text = error.to_string();
        assert!(text.contains("source rows") && text.contains(input.trim_end_matches("none/*.csv")), "{text}");
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
    }
}

/// A file where a directory should be cannot be written by anybody, root included.
#[test]
fn an_output_or_checkpoint_directory_that_cannot_be_written_is_named() {
    for blocked in ["out", "checkpoints"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("in.csv"), "id,name\n1,one\n").unwrap();
        fs::write(dir.path().join(blocked), "in the way").unwrap();
        let job = copy(&dir, "in.csv", Policy::Fail, &Bomb::default());
        let error = match run(async { job.start() }) {
            Err(error) => error,
            Ok(_) => refused(&job),
        };
        assert_eq!(error.kind(), Kind::Config, "{error}");
        let text = error.to_string();
        assert!(text.contains(&dir.path().join(blocked).display().to_string()), "{text}");
        assert!(error.hint_text().is_some(), "{text}");
    }
}

#[test]
fn an_output_directory_that_holds_another_runs_output_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in.csv"), "id,name\n1,one\n").unwrap();
    run(async { finished(copy(&dir, "in.csv", Policy::Fail, &Bomb::default()).start().unwrap()).await });
    fs::remove_dir_all(dir.path().join("checkpoints")).unwrap();
    let error = refused(&copy(&dir, "in.csv", Policy::Fail, &Bomb::default()));
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("part-00000001-0000-0000.csv"), "{error}");
    assert_eq!(lines(dir.path(), "out"), ["1,one"]);
}

/// The newest commit record is gone: older checkpoints are there, and would do everything since once more.
#[test]
fn output_of_a_checkpoint_that_has_been_lost_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (good, _) = input_with_bad_rows(&dir);
    let start = || copy(&dir, "in.csv", Policy::Skip, &Bomb::default());
    run(async {
        let handle = start().start().unwrap();
        for part in 1..=2 {
            until(|| handle.metrics().operator("rows").is_some_and(|o| o.records_out > 100 * part)).await;
            assert_eq!(handle.checkpoint_now().await.unwrap(), part);
        }
        handle.cancel().await.unwrap();
    });
    let record = dir.path().join("checkpoints/copy/commits/000000000002.commit");
    let kept = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    let error = refused(&start());
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    let text = error.to_string();
    assert!(text.contains("part-00000002") && text.contains("checkpoint 1"), "{text}");
    fs::write(&record, kept).unwrap();
    run(async { finished(start().start().unwrap()).await });
    assert_eq!(lines(dir.path(), "out"), good);
}

#[test]
fn a_misspelt_key_in_a_job_file_is_named_with_the_nearest_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("job.toml");
    for (text, wrong, right) in [
        ("[checkpoint]\nintervall = \"5s\"", "checkpoint.intervall", "checkpoint.interval"),
        ("paralelism = 2", "paralelism", "parallelism"),
        ("[restart]\nstrategi = \"none\"", "restart.strategi", "restart.strategy"),
        ("[chekpoint]\ninterval = \"5s\"", "chekpoint", "checkpoint"),
    ] {
        fs::write(&file, text).unwrap();
        let error = Settings::from_file(&file).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        let text = error.to_string();
        assert!(text.contains("job.toml") && text.contains(&format!("unknown setting {wrong}")), "{text}");
        assert!(text.contains(&format!("did you mean {right}?")), "{text}");
    }
    let missing = Settings::from_file(dir.path().join("none.toml")).unwrap_err();
    assert!(missing.kind() == Kind::Config && missing.to_string().contains("none.toml"), "{missing}");
    fs::write(&file, "[restart]\nstrategy = \"often\"").unwrap();
    let text = Settings::from_file(&file).unwrap_err().to_string();
    assert!(text.contains("often") && text.contains("fixed-delay"), "{text}");
}

/// The environment belongs to a process: the child is this test once more, with a misspelt variable.
#[test]
fn an_unknown_setting_from_the_environment_is_named_with_the_nearest_right_one() {
    const CHILD: &str = "TIDEGATE_TEST_MISSPELT";
    if std::env::var_os(CHILD).is_some() {
        println!("{}", Settings::default().with_env().unwrap_err());
        return;
    }
    let name = "bad_input::an_unknown_setting_from_the_environment_is_named_with_the_nearest_right_one";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env("TIDEGATE_CHECKPOINT__INTERVALL", "5s");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("environment: unknown setting checkpoint.intervall"), "{text}");
    assert!(text.contains("did you mean checkpoint.interval?"), "{text}");
}

/// Serialises as a number that may be a key; 700 as one that may not.
#[derive(Clone, PartialEq, Eq, Deserialize)]
struct Odd(u64);

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.0 == 700 { s.serialize_f64(0.7) } else { s.serialize_u64(self.0) }
    }
}

#[test]
fn a_key_that_cannot_be_hashed_is_refused_whenever_it_comes() {
    for parallelism in [1, 2] {
        let job = Job::new("odd", settings(parallelism));
        job.source("numbers", Collection::new((0u64..1_000).collect::<Vec<_>>()))
            .key_by(|n| Odd(*n))
            .fold("sums", 0, |sum, n| *sum += n)
            .sink("out", Collect::new());
        let (result, _) = run(async { end(job.start().unwrap()).await });
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{error}");
        assert!(error.to_string().contains("Odd cannot be used"), "{error}");
    }
}

/// A sum that cannot be stored when it is this.
#[derive(Clone, Deserialize)]
struct Frail {
    sum: u64,
    bad: u64,
}

impl Serialize for Frail {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.sum == self.bad { Err(S::Error::custom("it is 666")) } else { (self.sum, self.bad).serialize(s) }
    }
}

/// Nothing comes any more that would let the subtask speak of it: it must do so by itself.
#[test]
fn a_value_that_cannot_be_stored_ends_a_job_whose_input_is_idle() {
    const KEYS: u64 = 60_000;
    // It is captured last of all.
    let bad = (0..KEYS).max_by_key(hash_key).unwrap();
    for parallelism in [1, 2] {
        let mut settings = settings(parallelism);
        settings.restart.strategy = RestartStrategy::None;
        let (source, gate) = Gated::new(KEYS + 1, 1);
        gate.open_to(KEYS);
        let seen = Arc::new(AtomicU64::new(0));
        let counts = seen.clone();
        let job = Job::new("frail", settings);
        job.source("numbers", source)
            .key_by(|n| *n)
            .fold("sums", Frail { sum: 0, bad }, |frail, n| frail.sum += n)
            .sink(
                "out",
                ForEach::new(move |_, _| {
                    counts.fetch_add(1, SeqCst);
                }),
            );
        let error = run(async {
            let handle = job.start().unwrap();
            until(|| seen.load(SeqCst) == KEYS).await;
            let _ = handle.checkpoint_now().await;
            end(handle).await.0.unwrap_err()
        });
        assert_eq!(error.kind(), Kind::User, "{error}");
        assert!(error.to_string().contains("it is 666"), "{error}");
    }
}

/// Its state would be lost, and nobody would notice.
#[test]
fn a_job_whose_operator_was_renamed_is_refused_and_both_names_are_told() {
    run(async {
        let store = crate::store::Store::new();
        let job = |operator: &str| {
            let (source, gate) = Gated::new(100, 1);
            let mut job = Job::new("renamed", settings(1));
            job.checkpoint_store(store.checkpoints("renamed"));
            let counts = job.source("numbers", source).key_by(|n| n % 7).fold(operator, 0u64, |count, _| *count += 1);
            counts.sink("out", Collect::new());
            (job, gate)
        };
        let (before, gate) = job("per-number");
        gate.open_to(50);
        let handle = before.start().unwrap();
        handle.checkpoint_now().await.unwrap();
        handle.cancel().await.unwrap();
        let (renamed, gate) = job("by-number");
        gate.open();
        let (result, status) = end(renamed.start().unwrap()).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), status.state), (Kind::Config, JobState::Failed), "{error}");
        assert!(error.to_string().contains("\"per-number\"") && error.to_string().contains("by-number"), "{error}");
        // Nothing of it is lost: under its name it goes on.
        let (again, gate) = job("per-number");
        gate.open();
        assert!(finished(again.start().unwrap()).await.restored.is_some());
    });
}
