//! What can be known to be wrong is an error with a hint before anything runs; what is right can be shown, and
//! written down without naming a type of the engine's.
use crate::{
    kit::{Gated, finished, paused, run, settings},
    script::Event,
};
use futures::FutureExt;
use std::{sync::Arc, time::Duration};
use tidegate::{
    BoxedStream, Collect, Collection, Error, FileSink, Job, JobState, Kind, Settings, Stream, Tumbling, Watermarks,
    Windowed,
};
use tidegate_core::testkit::entries::Entries;

fn job() -> Job {
    Job::new("job", settings(1))
}

fn numbers(job: &Job) -> tidegate::SourceStream<Collection<u64>> {
    job.source("numbers", Collection::new([1, 2, 3]))
}

/// The error of `explain` and of `start`, which are the same; it has a hint, and it says `what`.
#[track_caller]
fn refused(job: &Job, what: &str) -> Error {
    let error = job.explain().unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Config, "{text}");
    assert!(error.hint_text().is_some(), "no hint: {text}");
    assert!(text.contains(what), "{what:?} is not in: {text}");
    let started = run(async { job.start().map(drop) }).unwrap_err();
    assert_eq!(started.to_string(), text);
    error
}

#[test]
fn names_that_cannot_be_used_are_refused() {
    for name in ["", " ", "a b", ".hidden", "a/b", "ü", &"x".repeat(101)] {
        let j = job();
        j.source(name, Collection::new([1u64])).sink("out", Collect::new());
        refused(&j, &format!("{name:?} cannot be used as a name"));
        let j = job();
        numbers(&j).sink(name, Collect::new());
        refused(&j, &format!("{name:?} cannot be used as a name"));
        let j = job();
        numbers(&j).key_by(|n| *n).reduce(name, |a, b| a + b).sink("out", Collect::new());
        refused(&j, &format!("{name:?} cannot be used as a name"));
        let j = Job::new(name, settings(1));
        numbers(&j).sink("out", Collect::new());
        refused(&j, &format!("the job's name {name:?} cannot be used"));
    }
}

#[test]
fn a_name_is_given_once_whatever_has_it() {
    let j = job();
    numbers(&j).sink("numbers", Collect::new());
    refused(&j, "two operators are called \"numbers\"");
    let j = job();
    let stream = numbers(&j).boxed();
    stream.clone().sink("out", Collect::new());
    stream.sink("out", Collect::new());
    refused(&j, "two operators are called \"out\"");
    let j = job();
    let sums = numbers(&j).key_by(|n| *n).reduce("sums", |a, b| a + b);
    sums.key_by(|n| *n).reduce("sums", |a, b| a + b).sink("out", Collect::new());
    refused(&j, "two operators are called \"sums\"");
}

/// They would publish parts of the same names.
#[test]
fn a_directory_is_given_to_one_sink_however_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for other in [dir.to_owned(), format!("{dir}/"), format!("file://{dir}"), format!("{dir}/.")] {
        let j = job();
        let stream = numbers(&j).boxed();
        stream.clone().sink("one", FileSink::json_lines(dir));
        stream.sink("two", FileSink::csv(&*other));
        let error = refused(&j, "the sinks \"one\" and \"two\" write to the same place").to_string();
        assert!(!error.contains(dir), "a URL may carry credentials: {error}");
    }
    let (j, store) = (job(), Arc::new(object_store::memory::InMemory::new()));
    let stream = numbers(&j).boxed();
    stream.clone().sink("one", FileSink::json_lines_in(store.clone(), "out"));
    stream.clone().sink("apart", FileSink::json_lines_in(store.clone(), "apart"));
    stream.sink("two", FileSink::json_lines_in(store, "out"));
    refused(&j, "the sinks \"one\" and \"two\" write to the same place");
}

#[test]
fn a_job_without_a_source_is_refused() {
    refused(&job(), "the job has no source");
}

#[test]
fn a_stream_that_ends_nowhere_is_named() {
    let j = job();
    drop(numbers(&j));
    refused(&j, "nothing takes the records of numbers");
    let j = job();
    drop(numbers(&j).map(|n| n));
    refused(&j, "nothing takes the records of map#1");
    let j = job();
    drop(numbers(&j).key_by(|n| *n).fold("sums", 0, |sum, n| *sum += n));
    refused(&j, "nothing takes the records of sums");
    let j = job();
    let boxed = numbers(&j).boxed();
    boxed.clone().sink("out", Collect::new());
    drop(boxed.filter(|_| true));
    refused(&j, "nothing takes the records of filter#3");
}

/// Its sink would wait for ever for a source that nobody reads.
#[test]
fn a_side_stream_alone_does_not_end_a_stream() {
    let j = job();
    let mut source = numbers(&j);
    source.dead_letters().sink("dead", Collect::new());
    drop(source);
    refused(&j, "nothing takes the records of numbers");
    let j = job();
    let mut windows =
        numbers(&j).event_time(|n| *n as i64, Watermarks::monotonous()).key_by(|n| *n).window("w", seconds(1));
    windows.late().sink("late", Collect::new());
    drop(windows);
    refused(&j, "nothing takes the records of w");
}

fn seconds(n: u64) -> Tumbling {
    Tumbling::of(Duration::from_secs(n))
}

#[test]
fn a_window_needs_event_time_and_a_length() {
    let j = job();
    numbers(&j).key_by(|n| *n).window("w", seconds(1)).count().sink("out", Collect::new());
    refused(&j, "window \"w\" needs event time");
    let timed =
        |j: &Job, name| j.source(name, Collection::new([1u64])).event_time(|n| *n as i64, Watermarks::monotonous());
    let j = job();
    timed(&j, "timed").union(numbers(&j)).key_by(|n| *n).window("w", seconds(1)).count().sink("out", Collect::new());
    refused(&j, "window \"w\" needs event time");
    // What cannot be decoded has no time, though the others of its source have.
    let j = job();
    let mut source = timed(&j, "timed");
    let dead = source.dead_letters();
    source.sink("out", Collect::new());
    dead.key_by(|d| d.split.clone()).window("w", seconds(1)).count().sink("dead", Collect::new());
    refused(&j, "window \"w\" needs event time");
    for length in [Duration::ZERO, Duration::from_micros(999)] {
        let j = job();
        let keyed = timed(&j, "timed").key_by(|n| *n);
        keyed.window("w", Tumbling::of(length)).count().sink("out", Collect::new());
        refused(&j, "window \"w\" has no length");
    }
    // In the other order it has time as well.
    let j = job();
    let mut source = numbers(&j);
    let far = source.far_future();
    source.event_time(|n| *n as i64, Watermarks::monotonous()).sink("out", Collect::new());
    far.key_by(|n| *n).window("w", seconds(1)).count().sink("far", Collect::new());
    j.explain().unwrap();
}

#[test]
fn streams_of_two_jobs_cannot_be_merged() {
    // The other one's nodes have numbers that this one has not.
    for more in [0, 5] {
        let (a, b) = (job(), Job::new("other", settings(1)));
        let mut others = numbers(&b).boxed();
        for _ in 0..more {
            others = others.map(|n| n).boxed();
        }
        numbers(&a).union(others).sink("out", Collect::new());
        refused(&a, "two different jobs");
        refused(&b, "two different jobs");
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let with = |change: fn(&mut Settings), what: &str| {
        let mut settings = settings(1);
        change(&mut settings);
        let j = Job::new("job", settings.clone());
        numbers(&j).sink("out", Collect::new());
        let error = refused(&j, what);
        assert_eq!(settings.checked().unwrap_err().to_string(), error.to_string());
    };
    with(|s| s.parallelism = 0, "parallelism = 0");
    with(|s| s.parallelism = 129, "parallelism = 129");
    with(|s| s.key_groups = 100, "key-groups = 100");
    with(|s| s.checkpoint.retained = 0, "checkpoint.retained = 0");
    with(|s| s.checkpoint.timeout = Duration::ZERO, "checkpoint.timeout = 0s");
    let mut settings = settings(1);
    settings.state.backend = "papyrus".into();
    let j = Job::new("job", settings);
    numbers(&j).sink("out", Collect::new());
    assert!(refused(&j, "no state backend \"papyrus\"").to_string().contains("memory"));
}

#[test]
fn settings_from_text_are_refused_with_the_name_of_what_is_wrong() {
    for (text, what) in [
        ("checkpoints = 3", "unknown setting checkpoints"),
        ("[state]\nbackends = \"memory\"", "did you mean state.backend?"),
        ("[checkpoint]\ninterval = \"soon\"", "soon"),
        ("[checkpoint]\ninterval = 10", "write \"500ms\", \"10s\" or \"2h\""),
        ("parallelism = -1", "parallelism"),
        ("parallelism = \"two\"", "parallelism"),
        ("key-groups = 65536", "key-groups"),
        ("[restart]\nstrategy = \"hope\"", "fixed-delay"),
        ("checkpoint = \"10s\"", "checkpoint is a section"),
        ("parallelism 2", "not TOML"),
    ] {
        let error = Settings::from_toml(text).unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{text}");
        let shown = error.to_string();
        assert!(shown.contains(what), "{text}: {what:?} is not in: {shown}");
        assert!(error.hint_text().is_some(), "{text}: no hint: {shown}");
    }
}

#[test]
fn a_backend_is_chosen_by_operator_and_what_is_wrong_with_the_choice_is_told() {
    let with = |text: &str| {
        let j = Job::new("j", Settings::from_toml(text).unwrap());
        numbers(&j).key_by(|n| *n).fold("a.b", 0u64, |sum, n| *sum += n).sink("out", Collect::new());
        j
    };
    with("[state.operators.\"a.b\"]\nbackend = \"memory\"").explain().unwrap();
    let error = refused(&with("[state.operators.\"a.b\"]\nbackend = \"papyrus\""), "no state backend \"papyrus\"");
    assert!(error.to_string().contains("memory"), "{error}");
    let error = refused(&with("[state.operators.other]\nbackend = \"memory\""), "state.operators.other");
    assert!(error.to_string().contains("\"a.b\""), "{error}");
    let error = Settings::from_toml("[state.operators.\"a.b\"]\nbackends = \"memory\"").unwrap_err().to_string();
    assert!(error.contains("state.operators.a.b.backends") && error.contains("did you mean"), "{error}");
    let error = Settings::from_toml("[state]\ncache = \"much\"").unwrap_err().to_string();
    assert!(error.contains("state.cache"), "{error}");
    let settings = Settings::from_toml("[state.redis]\nurl = \"rediss://me:canary@host:1/0\"").unwrap();
    assert!(!format!("{settings:?}").contains("canary"), "{settings:?}");
}

/// The job's, an operator's own, and nothing of how to come in there.
#[test]
fn the_plan_shows_the_backend_of_each_operator_with_state_and_no_secret() {
    let text = "[state]\nbackend = \"entries\"\n[state.operators.\"a.b\"]\nbackend = \"memory\"\n\
                [state.redis]\nurl = \"redis://me:canary@host:1/0\"";
    let j = Job::with_backends("j", Settings::from_toml(text).unwrap(), [Arc::new(Entries) as _]);
    let sums = numbers(&j).key_by(|n| *n).fold("a.b", 0u64, |sum, n| *sum += n);
    sums.key_by(|s| s.0).reduce("c", |a, _| a).sink("out", Collect::new());
    let plan = j.explain().unwrap();
    assert!(plan.contains("\"a.b\"   state: memory, WITHOUT A BOUND: one entry a key, for ever\n"), "{plan}");
    assert!(plan.contains("\"c\"   state: entries, WITHOUT A BOUND: one entry a key, for ever\n"), "{plan}");
    assert!(!plan.contains("canary"), "{plan}");
}

#[test]
fn a_checkpoint_store_that_is_none_is_refused() {
    // The last one takes a feature that no test is built with.
    for store in ["", "ftp://host/dir", "gs://bucket/dir"] {
        let mut settings = settings(1);
        settings.checkpoint.store = store.into();
        let j = Job::new("job", settings);
        numbers(&j).sink("out", Collect::new());
        let error = run(async { j.start().map(drop) }).unwrap_err();
        assert!(error.kind() == Kind::Config && error.hint_text().is_some(), "{store}: {error}");
        assert!(error.to_string().contains("checkpoint.store"), "{error}");
    }
}

#[test]
fn a_job_is_started_inside_a_runtime() {
    let j = job();
    numbers(&j).sink("out", Collect::new());
    for error in [j.start().unwrap_err(), j.run().now_or_never().unwrap().unwrap_err()] {
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("inside a tokio runtime") && error.hint_text().is_some(), "{error}");
    }
}

/// Both would write into the same sinks, and with checkpoints in memory nothing would part them.
#[test]
fn a_job_that_is_running_is_not_started_once_more() {
    paused(async {
        let (source, gate) = Gated::new(100, 1);
        let (j, out) = (job(), Collect::new());
        j.source("numbers", source).sink("out", out.clone());
        let first = j.start().unwrap();
        let error = j.start().unwrap_err();
        assert!(error.kind() == Kind::Config && error.hint_text().is_some(), "{error}");
        assert!(error.to_string().contains("job job is running"), "{error}");
        assert_eq!(j.run().await.unwrap_err().to_string(), error.to_string());
        gate.open();
        finished(first).await;
        assert_eq!(out.take().len(), 100);
        // Ended, dropped, cancelled: each time it may be started again, even while somebody still holds the handle.
        let again = j.start().unwrap();
        let status = again.watch();
        drop(again);
        assert_eq!(status.borrow().state, JobState::Cancelled);
        j.start().unwrap().cancel().await.unwrap();
        let ended = j.start().unwrap();
        ended.watch().wait_for(|s| s.state.is_end()).await.unwrap();
        finished(j.start().unwrap()).await;
        drop(ended);
    });
}

/// What a user would write: items are named, streams are not.
struct Parts {
    even: BoxedStream<Event>,
    odd: BoxedStream<Event>,
}

fn parts(events: impl Stream<Item = Event>) -> Parts {
    let events = events.filter(|e| e.id > 0).boxed();
    Parts { even: events.clone().filter(|e| e.id % 2 == 0).boxed(), odd: events.filter(|e| e.id % 2 == 1).boxed() }
}

fn per_second(events: impl Stream<Item = Event>) -> impl Stream<Item = Windowed<u8, u64>> {
    events.key_by(|e| e.key).window("per-second", seconds(1)).count()
}

fn shown(parallelism: u32) -> String {
    let j = Job::new("plan", settings(parallelism));
    let events = || Collection::new(crate::script::at([1, 2, 3]));
    let timed = |name| j.source(name, events()).event_time(|e: &Event| e.at, Watermarks::monotonous());
    let mut left = timed("left");
    left.dead_letters().sink("dead", Collect::new());
    let Parts { even, odd } = parts(left.union(timed("right")));
    per_second(even).sink("counts", Collect::new());
    let mut late = odd.key_by(|e| e.key).window("per-minute", seconds(60)).allowed_lateness(Duration::from_secs(5));
    late.late().sink("late", Collect::new());
    late.count().map(|w| (w.key, w.value)).key_by(|w| w.0).reduce("most", Ord::max).sink("out", Collect::new());
    j.explain().unwrap()
}

#[test]
fn the_plan_is_shown_for_one_subtask() {
    assert_eq!(
        shown(1),
        r#"job plan · parallelism 1
task 1 × 1
  source "left" (event time)
  dead letters
  sink "dead"
task 2 × 1
  source "right" (event time)
task 3 × 1   <- task 1, task 2 (in the same subtask)
  union
  filter
  boxed
  filter
  boxed
  filter   <- boxed#6
  boxed
  window tumbling 1s "per-second"   state: memory, bounded by open windows   <- boxed#8
  sink "counts"
  window tumbling 1m "per-minute"   state: memory, bounded by open windows and 5s of lateness   <- boxed#10
  late
  sink "late"
  map   <- per-minute
  reduce "most"   state: memory, WITHOUT A BOUND: one entry a key, for ever
  filter_map
  sink "out"
"#
    );
}

#[test]
fn the_plan_is_shown_for_two_subtasks() {
    assert_eq!(
        shown(2),
        r#"job plan · parallelism 2
task 1 × 2
  source "left" (event time)
  dead letters
  sink "dead"
task 2 × 2
  source "right" (event time)
task 3 × 2   <- task 1, task 2 (in the same subtask)
  union
  filter
  boxed
  filter
  boxed
  filter   <- boxed#6
  boxed
task 4 × 2   <- task 3 (exchange by key group)
  window tumbling 1s "per-second"   state: memory, bounded by open windows
  sink "counts"
task 5 × 2   <- task 3 (exchange by key group)
  window tumbling 1m "per-minute"   state: memory, bounded by open windows and 5s of lateness
  late
  sink "late"
  map   <- per-minute
task 6 × 2   <- task 5 (exchange by key group)
  reduce "most"   state: memory, WITHOUT A BOUND: one entry a key, for ever
  filter_map
  sink "out"
"#
    );
}
