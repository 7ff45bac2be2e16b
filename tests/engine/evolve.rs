//! State that outlives a version of the program: operators that are renamed or gone, types that have changed.
//!
//! What a checkpoint has and nobody claims is an error, and what is said of it is said for good: so each job here is
//! started once more when a checkpoint has been made under the new names.
use crate::{
    kit::{Blast, Bomb, Faulty, Gate, Gated, assert_same, end, finished, run, settings, until},
    parts::over,
    store::{Fault, Op, Store},
};
use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};
use tidegate::{
    Codec, Collect, Error, FileSink, Job, JobHandle, JobState, Kind, RestartStrategy, Settings, Stream, Tumbling,
    Watermarks,
};
use tidegate_core::testkit::entries::Entries;

const COUNT: u64 = 900;
const BACKENDS: [(&str, u64); 3] = [("memory", 0), ("entries", 0), ("entries", 1_000_000)];

struct Names {
    source: &'static str,
    counts: &'static str,
    windows: &'static str,
    sink: &'static str,
}

const OLD: Names = Names { source: "numbers", counts: "per-number", windows: "per-window", sink: "counted" };
const NEW: Names = Names { source: "integers", counts: "by-number", windows: "by-window", sink: "results" };

struct Version {
    job: Job,
    gate: Gate,
    bomb: Bomb,
    counted: Collect<(u64, u64)>,
    windows: Collect<(u64, i64, u64)>,
}

/// A running count by key, and one in windows.
fn version(store: &Store, settings: Settings, names: &Names) -> Version {
    let mut job = Job::with_backends("evolving", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("evolving"));
    let (source, gate) = Gated::new(COUNT, 3);
    let bomb = source.bomb.clone();
    let (counted, windows) = (Collect::new(), Collect::new());
    let numbers = job
        .source(names.source, source)
        .event_time(|n| *n as i64, Watermarks::bounded(Duration::from_millis(COUNT)))
        .boxed();
    numbers
        .clone()
        .key_by(|n| n % 7)
        .fold(names.counts, 0u64, |count, _| *count += 1)
        .sink(names.sink, Faulty(counted.clone(), bomb.clone()));
    numbers
        .key_by(|n| n % 5)
        .window(names.windows, Tumbling::of(Duration::from_millis(100)))
        .count()
        .map(|w| (w.key, w.window.start, w.value))
        .sink("windows", windows.clone());
    Version { job, gate, bomb, counted, windows }
}

/// Starts a job that has read all before these records, and makes a checkpoint when it has read them.
async fn part(job: &Job, gate: &Gate, records: Range<u64>) -> JobHandle {
    let handle = read(job, gate, records).await;
    handle.checkpoint_now().await.unwrap();
    handle
}

async fn read(job: &Job, gate: &Gate, records: Range<u64>) -> JobHandle {
    gate.open_to(records.end);
    let handle = job.start().unwrap();
    let read = || handle.metrics().operators.iter().find(|o| o.operator == "source").map_or(0, |o| o.records_out);
    until(|| read() == records.end - records.start).await;
    handle
}

impl Version {
    /// Reads some records, makes a checkpoint, and is cut off.
    async fn reads(&self, records: Range<u64>) {
        part(&self.job, &self.gate, records).await.cancel().await.unwrap();
    }
    async fn to_the_end(&self) {
        self.gate.open();
        finished(self.job.start().unwrap()).await;
    }
    async fn refused(&self) -> Error {
        self.gate.open();
        let (result, status) = end(self.job.start().unwrap()).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), status.state), (Kind::Config, JobState::Failed), "{error}");
        assert!(error.hint_text().is_some(), "{error}");
        error
    }
}

fn renamed(job: &Job) {
    job.renamed_from(NEW.source, OLD.source);
    job.renamed_from(NEW.counts, OLD.counts);
    job.renamed_from(NEW.windows, OLD.windows);
    job.renamed_from(NEW.sink, OLD.sink);
    // Names that no checkpoint has, or had longer ago.
    job.renamed_from(NEW.counts, "per-integer");
}

const RENAMED: &str = "[state.operators.integers]\nrenamed-from = [\"numbers\"]\n\
    [state.operators.by-number]\nrenamed-from = [\"per-integer\", \"per-number\"]\n\
    [state.operators.by-window]\nrenamed-from = [\"per-window\"]\n\
    [state.operators.results]\nrenamed-from = [\"counted\"]";

fn expected() -> (Vec<(u64, u64)>, Vec<(u64, i64, u64)>) {
    let (mut counts, mut windows) = (HashMap::<u64, u64>::new(), HashMap::<(u64, i64), u64>::new());
    let mut counted = Vec::new();
    for n in 0..COUNT {
        let count = counts.entry(n % 7).or_default();
        *count += 1;
        counted.push((n % 7, *count));
        *windows.entry((n % 5, (n - n % 100) as i64)).or_default() += 1;
    }
    (counted, windows.into_iter().map(|((key, start), count)| (key, start, count)).collect())
}

#[track_caller]
fn assert_exact(versions: &[&Version]) {
    let (counted, windows) = expected();
    assert_same(versions.iter().flat_map(|v| v.counted.take()).collect::<Vec<_>>(), counted);
    assert_same(versions.iter().flat_map(|v| v.windows.take()).collect::<Vec<_>>(), windows);
}

#[test]
fn operators_that_are_renamed_go_on_and_the_names_stay_in_the_program() {
    run(async {
        for backend in BACKENDS {
            for in_job_file in [false, true] {
                let store = Store::new();
                let before = version(&store, over(backend, 2), &OLD);
                before.reads(0..COUNT / 3).await;
                let next = |parallelism| {
                    let settings = over(backend, parallelism);
                    if in_job_file {
                        return version(&store, settings.with_toml(RENAMED).unwrap(), &NEW);
                    }
                    let version = version(&store, settings, &NEW);
                    renamed(&version.job);
                    version
                };
                let (after, again) = (next(3), next(1));
                after.reads(COUNT / 3..COUNT / 2).await;
                again.to_the_end().await;
                assert_exact(&[&before, &after, &again]);
            }
        }
    });
}

/// The new program has the old names' state in another backend, and takes it over; and back.
#[test]
fn a_rename_and_another_backend_go_together() {
    run(async {
        for (from, to) in [(BACKENDS[0], BACKENDS[1]), (BACKENDS[1], BACKENDS[0])] {
            let store = Store::new();
            let before = version(&store, over(from, 2), &OLD);
            before.reads(0..COUNT / 3).await;
            let after = version(&store, over(to, 1), &NEW);
            renamed(&after.job);
            after.to_the_end().await;
            assert_exact(&[&before, &after]);
        }
    });
}

#[test]
fn a_savepoint_is_gone_on_from_under_other_names() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("saved").display().to_string();
        let before = version(&Store::new(), over(BACKENDS[0], 2), &OLD);
        let handle = part(&before.job, &before.gate, 0..COUNT / 3).await;
        handle.savepoint(&place).await.unwrap();
        handle.cancel().await.unwrap();
        let with = |names: &Names, store: &Store| {
            let mut settings = over(BACKENDS[1], 3);
            settings.checkpoint.savepoint = place.as_str().into();
            version(store, settings, names)
        };
        let store = Store::new();
        let error = with(&NEW, &store).refused().await;
        assert!(error.to_string().contains("per-number"), "{error}");
        let after = with(&NEW, &store);
        renamed(&after.job);
        after.reads(COUNT / 3..COUNT / 2).await;
        // The checkpoint is the job's own by now.
        let again = with(&NEW, &store);
        renamed(&again.job);
        again.to_the_end().await;
        assert_exact(&[&before, &after, &again]);
    });
}

#[test]
fn state_that_nobody_claims_is_refused_and_all_of_it_is_named() {
    run(async {
        let store = Store::new();
        let before = version(&store, over(BACKENDS[0], 1), &OLD);
        before.reads(0..COUNT / 3).await;
        let error = version(&store, over(BACKENDS[0], 1), &NEW).refused().await.to_string();
        for word in
            ["source \"numbers\"", "\"per-number\"", "\"per-window\"", "sink \"counted\"", "renamed_from", "drop_state"]
        {
            assert!(error.contains(word), "{word}: {error}");
        }
        // A misspelt rename is none.
        let typo = version(&store, over(BACKENDS[0], 1), &NEW);
        renamed(&typo.job);
        let text = RENAMED.replace("per-window", "per-windows");
        let typo = version(&store, over(BACKENDS[0], 1).with_toml(text).unwrap(), &NEW);
        let error = typo.refused().await.to_string();
        assert!(error.contains("\"per-window\"") && !error.contains("\"per-number\""), "{error}");
        // Nothing of it is lost.
        let rest = version(&store, over(BACKENDS[0], 1), &OLD);
        rest.to_the_end().await;
        assert_exact(&[&before, &rest]);
    });
}

/// Without the windows and their sink.
fn smaller(store: &Store, settings: Settings) -> (Job, Gate, Collect<(u64, u64)>) {
    let mut job = Job::with_backends("evolving", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("evolving"));
    let ((source, gate), counted) = (Gated::new(COUNT, 3), Collect::new());
    job.source(OLD.source, source)
        .key_by(|n| n % 7)
        .fold(OLD.counts, 0u64, |count, _| *count += 1)
        .sink(OLD.sink, counted.clone());
    (job, gate, counted)
}

#[test]
fn an_operator_that_is_gone_is_dropped_when_that_is_said_and_the_rest_goes_on() {
    run(async {
        for backend in BACKENDS {
            let store = Store::new();
            let before = version(&store, over(backend, 2), &OLD);
            before.reads(0..COUNT / 3).await;
            let (job, gate, _) = smaller(&store, over(backend, 2));
            gate.open();
            let error = end(job.start().unwrap()).await.0.unwrap_err().to_string();
            assert!(error.contains("\"per-window\"") && error.contains("job.drop_state(\"per-window\")"), "{error}");
            let (first, first_gate, some) = smaller(&store, over(backend, 3));
            first.drop_state("per-window");
            first.drop_state("windows");
            part(&first, &first_gate, COUNT / 3..COUNT / 2).await.cancel().await.unwrap();
            let file = "[state]\ndrop-state = [\"per-window\", \"windows\"]";
            let (again, gate, rest) = smaller(&store, over(backend, 1).with_toml(file).unwrap());
            gate.open();
            finished(again.start().unwrap()).await;
            assert_same([before.counted.take(), some.take(), rest.take()].concat(), expected().0);
            // It is gone for good: what comes back under its name begins with nothing.
            let (job, gate, _) = smaller(&store, over(backend, 1));
            gate.open();
            finished(job.start().unwrap()).await;
        }
    });
}

/// An attempt that has not come to a checkpoint of its own changes nothing, not even where it takes an epoch from a dead
/// one: whoever finds that too much was dropped takes the words away.
#[test]
fn nothing_is_dropped_before_the_program_has_made_a_checkpoint() {
    run(async {
        let store = Store::new();
        let mut none = over(BACKENDS[0], 2);
        none.restart.strategy = RestartStrategy::None;
        let before = version(&store, none, &OLD);
        before.reads(0..COUNT / 3).await;
        let dying = before.job.start().unwrap();
        store.on(Op::Put, "commits", Fault::Fails, 1);
        // The second is prepared, and not committed.
        assert!(dying.checkpoint_now().await.is_err());
        assert!(end(dying).await.0.is_err());
        store.heal();
        let prepared = store.contents().await.keys().filter(|path| path.contains("/manifests/")).count();
        let (job, _, _) = smaller(&store, over(BACKENDS[0], 2));
        job.drop_state("per-window");
        job.drop_state("windows");
        let handle = job.start().unwrap();
        handle.watch().wait_for(|status| status.state == JobState::Running).await.unwrap();
        handle.cancel().await.unwrap();
        let contents = store.contents().await;
        let commits = contents.keys().filter(|path| path.contains("/commits/")).count();
        assert!(prepared > 1 && commits > 1, "no epoch was taken: {:?}", contents.keys());
        let rest = version(&store, over(BACKENDS[0], 2), &OLD);
        rest.to_the_end().await;
        assert_exact(&[&before, &rest]);
    });
}

/// Its output is committed and not published when it is killed: that is done under the new name.
#[test]
fn a_sink_that_is_renamed_publishes_what_it_had_committed() {
    run(async {
        let store = Store::new();
        let mut none = over(BACKENDS[0], 2);
        none.restart.strategy = RestartStrategy::None;
        let before = version(&store, none, &OLD);
        before.bomb.arm("commit", Blast::Error, 1);
        let handle = read(&before.job, &before.gate, 0..COUNT / 3).await;
        let _ = handle.checkpoint_now().await;
        assert!(end(handle).await.0.is_err() && before.bomb.is_spent());
        assert!(before.counted.is_empty(), "it has been published");
        let mut after = version(&store, over(BACKENDS[0], 1), &NEW);
        renamed(&after.job);
        // What is staged is in the collection: the new program has the same.
        after.counted = before.counted.clone();
        let job = with_sinks(&store, &after);
        after.gate = job.1;
        after.job = job.0;
        after.to_the_end().await;
        assert_same(after.counted.take(), expected().0);
    });
}

/// The new version without windows, with a sink of its own.
fn with_sinks(store: &Store, version: &Version) -> (Job, Gate) {
    let mut job = Job::with_backends("evolving", over(BACKENDS[0], 1), [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("evolving"));
    let (source, gate) = Gated::new(COUNT, 3);
    job.source(NEW.source, source)
        .key_by(|n| n % 7)
        .fold(NEW.counts, 0u64, |count, _| *count += 1)
        .sink(NEW.sink, version.counted.clone());
    job.renamed_from(NEW.source, OLD.source);
    job.renamed_from(NEW.counts, OLD.counts);
    job.renamed_from(NEW.sink, OLD.sink);
    job.drop_state(OLD.windows);
    job.drop_state("windows");
    (job, gate)
}

#[test]
fn a_file_sink_that_is_renamed_goes_on_in_its_directory() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let job = |sink: &str| {
            let mut settings = settings(2);
            settings.checkpoint.store = at("checkpoints");
            let (job, (source, gate)) = (Job::new("files", settings), Gated::new(400, 2));
            job.source("numbers", source).sink(sink, FileSink::csv(at("out")));
            (job, gate)
        };
        let (before, gate) = job("copies");
        part(&before, &gate, 0..200).await.cancel().await.unwrap();
        let (refused, gate) = job("written");
        gate.open();
        let error = end(refused.start().unwrap()).await.0.unwrap_err();
        assert!(error.kind() == Kind::Config && error.to_string().contains("sink \"copies\""), "{error}");
        let (after, gate) = job("written");
        after.renamed_from("written", "copies");
        gate.open();
        finished(after.start().unwrap()).await;
        let parts =
            std::fs::read_dir(at("out")).unwrap().map(|part| part.unwrap().path()).filter(|part| part.is_file());
        let found: Vec<u64> = parts
            .flat_map(|part| {
                std::fs::read_to_string(part).unwrap().lines().map(|n| n.parse().unwrap()).collect::<Vec<_>>()
            })
            .collect();
        assert_same(found, 0..400);
    });
}

#[test]
fn what_is_said_of_operators_is_checked_before_the_start() {
    let told = |say: fn(&Job)| {
        let version = version(&Store::new(), over(BACKENDS[0], 1), &NEW);
        say(&version.job);
        let error = version.job.explain().unwrap_err();
        assert!(error.kind() == Kind::Config && error.hint_text().is_some(), "{error}");
        error.to_string()
    };
    // The arguments the wrong way round.
    assert!(told(|job| job.renamed_from("per-number", "by-number")).contains("which the job has too"));
    assert!(told(|job| job.renamed_from("nobody", "per-number")).contains("\"nobody\""));
    assert!(told(|job| job.drop_state("by-number")).contains("\"by-number\" is said to be dropped"));
    assert!(told(|job| job.renamed_from("by-number", "per/number")).contains("per/number"));
    let both = told(|job| {
        job.renamed_from("by-number", "per-number");
        job.renamed_from("by-window", "per-number");
    });
    assert!(both.contains("\"by-number\" and \"by-window\""), "{both}");
    let file = over(BACKENDS[0], 1).with_toml("[state.operators.nobody]\nrenamed-from = [\"per-number\"]").unwrap();
    let error = version(&Store::new(), file, &NEW).job.explain().unwrap_err().to_string();
    assert!(error.contains("nobody"), "{error}");
    let error = Settings::from_toml("[state.operators.a]\nrenamed-from = \"b\"").unwrap_err().to_string();
    assert!(error.contains("state.operators.a.renamed-from"), "{error}");
    let error = Settings::from_toml("[state]\ndrop-sate = [\"b\"]").unwrap_err().to_string();
    assert!(error.contains("did you mean state.drop-state?"), "{error}");
}

/// Two states for one operator: neither is the right one.
#[test]
fn an_operator_with_a_state_of_its_own_gets_no_other() {
    run(async {
        let store = Store::new();
        version(&store, over(BACKENDS[0], 1), &OLD).reads(0..COUNT / 3).await;
        let kept = Names { counts: "per-window", windows: "by-window", ..OLD };
        let both = version(&store, over(BACKENDS[0], 1), &kept);
        both.job.renamed_from("per-window", "per-number");
        let error = both.refused().await.to_string();
        assert!(error.contains("\"per-window\" is said to be renamed from \"per-number\""), "{error}");
        assert!(error.contains("state of \"per-window\" too"), "{error}");
    });
}

/// It dies before its first checkpoint. That it had a savepoint's number was once taken for a lost commit record.
#[test]
fn a_job_without_keyed_state_starts_from_its_savepoint_again() {
    run(async {
        let (folder, store) = (tempfile::tempdir().unwrap(), Store::new());
        let place = folder.path().join("saved").display().to_string();
        let job = |store: &Store, savepoint: &str| {
            let mut settings = settings(1);
            settings.checkpoint.savepoint = savepoint.into();
            let mut job = Job::new("stateless", settings);
            job.checkpoint_store(store.checkpoints("stateless"));
            let ((source, gate), numbers) = (Gated::new(400, 2), Collect::new());
            job.source("numbers", source).sink("out", numbers.clone());
            (job, gate, numbers)
        };
        let (before, gate, some) = job(&Store::new(), "");
        let handle = part(&before, &gate, 0..200).await;
        handle.savepoint(&place).await.unwrap();
        handle.cancel().await.unwrap();
        store.on(Op::Put, "commits", Fault::Fails, 2);
        let (after, gate, rest) = job(&store, &place);
        gate.open();
        assert!(finished(after.start().unwrap()).await.restarts > 0);
        assert_same([some.take(), rest.take()].concat(), 0..400u64);
    });
}

mod types;
