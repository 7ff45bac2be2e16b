//! What aggregations emit when an epoch ends, over every kind of backend, with restores at another parallelism.
use crate::{
    kit::{Gate, Gated, assert_same, finished, run, settings, until},
    parts::{BACKENDS, over},
    store::Store,
};
use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};
use tidegate::{Collect, Count, Job, OutputMode, Settings, Stream, Tumbling, Watermarks};
use tidegate_core::testkit::entries::Entries;

const COUNT: u64 = 4_000;

/// Some keys come in every part of the input, some in one only.
fn key(id: u64) -> u64 {
    if id.is_multiple_of(3) { id % 20 } else { 100 + id / 5 }
}

fn job(store: &Store, settings: Settings, mode: OutputMode) -> (Job, Gate, Collect<(u64, u64)>) {
    let mut job = Job::with_backends("modes", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("modes"));
    let (source, gate) = Gated::new(COUNT, 3);
    let found = Collect::new();
    job.source("ids", source)
        .event_time(|id| *id as i64, Watermarks::bounded(Duration::from_millis(50)).every(7))
        .key_by(|id| key(*id))
        .aggregate("totals", Count)
        .output_mode(mode)
        .sink("found", found.clone());
    (job, gate, found)
}

/// The rows that an epoch ends with whose records are these.
fn expected(mode: OutputMode, epoch: Range<u64>) -> Vec<(u64, u64)> {
    let mut totals = BTreeMap::<u64, (u64, bool)>::new();
    for id in 0..epoch.end {
        let total = totals.entry(key(id)).or_default();
        *total = (total.0 + 1, total.1 || epoch.contains(&id));
    }
    let rows = totals.into_iter().filter(|(_, (_, changed))| *changed || mode == OutputMode::Complete);
    rows.map(|(key, (total, _))| (key, total)).collect()
}

#[test]
fn each_epoch_ends_with_its_rows_once_over_every_backend_and_across_restores() {
    run(async {
        for mode in [OutputMode::Update, OutputMode::Complete] {
            for backend in BACKENDS {
                for parallelism in [[1, 3], [3, 1]] {
                    let store = Store::new();
                    let mut committed = 0;
                    for (part, parallelism) in (1..).zip(parallelism) {
                        let (job, gate, found) = job(&store, over(backend, parallelism), mode);
                        let handle = job.start().unwrap();
                        let begin = committed;
                        let read = |limit: u64| {
                            gate.open_to(limit);
                            let handle = &handle;
                            async move {
                                let come = limit - begin;
                                until(|| {
                                    handle
                                        .metrics()
                                        .operators
                                        .iter()
                                        .any(|o| o.name == "totals" && o.records_in >= come)
                                })
                                .await;
                            }
                        };
                        for step in [600, 900] {
                            read(committed + step).await;
                            handle.checkpoint_now().await.unwrap();
                            assert_same(found.take(), expected(mode, committed..committed + step));
                            committed += step;
                        }
                        // An epoch in which nothing has come.
                        handle.checkpoint_now().await.unwrap();
                        assert_same(found.take(), expected(mode, committed..committed));
                        if part == 1 {
                            // What is of no checkpoint comes again.
                            read(committed + 300).await;
                            handle.cancel().await.unwrap();
                            assert!(found.take().is_empty());
                        } else {
                            gate.open();
                            finished(handle).await;
                            assert_same(found.take(), expected(mode, committed..COUNT));
                        }
                    }
                }
            }
        }
    });
}

/// The rows of windows of a second that an epoch ends with, or that have gone in it: in one split, in order, so that the
/// watermark is one behind the newest.
fn expected_windows(mode: OutputMode, epoch: Range<u64>) -> Vec<(u64, u64, u64)> {
    let mut windows = BTreeMap::<(u64, u64), (u64, bool)>::new();
    for id in 0..epoch.end {
        let window = windows.entry((id / 1_000 * 1_000, key(id))).or_default();
        *window = (window.0 + 1, window.1 || epoch.contains(&id));
    }
    let is_kept = |start: u64| epoch.end < COUNT && start + 1_000 > epoch.end - 1;
    let complete = mode == OutputMode::Complete;
    let told = windows.into_iter().filter(|((start, _), (_, changed))| *changed || (complete && is_kept(*start)));
    told.map(|((start, key), (count, _))| (start, key, count)).collect()
}

#[test]
fn windows_tell_what_has_changed_or_all_that_are_kept() {
    run(async {
        for mode in [OutputMode::Update, OutputMode::Complete] {
            for backend in BACKENDS {
                for parallelism in [[1, 3], [3, 1]] {
                    let store = Store::new();
                    let mut committed = 0;
                    for (part, parallelism) in (1..).zip(parallelism) {
                        let mut job =
                            Job::with_backends("windows", over(backend, parallelism), [Arc::new(Entries) as _]);
                        job.checkpoint_store(store.checkpoints("windows"));
                        let (source, gate) = Gated::new(COUNT, 1);
                        let found = Collect::new();
                        job.source("ids", source)
                            .event_time(|id| *id as i64, Watermarks::monotonous().every(1))
                            .key_by(|id| key(*id))
                            .window("seconds", Tumbling::of(Duration::from_secs(1)))
                            .output_mode(mode)
                            .count()
                            .map(|w| (w.window.start as u64, w.key, w.value))
                            .sink("found", found.clone());
                        let handle = job.start().unwrap();
                        let begin = committed;
                        for step in [700, 800] {
                            gate.open_to(committed + step);
                            let come = committed + step - begin;
                            until(|| {
                                handle.metrics().operators.iter().any(|o| o.name == "seconds" && o.records_in >= come)
                            })
                            .await;
                            handle.checkpoint_now().await.unwrap();
                            assert_same(found.take(), expected_windows(mode, committed..committed + step));
                            committed += step;
                        }
                        if part == 1 {
                            handle.cancel().await.unwrap();
                        } else {
                            gate.open();
                            finished(handle).await;
                            assert_same(found.take(), expected_windows(mode, committed..COUNT));
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn what_has_changed_is_in_time_for_windows_downstream() {
    run(async {
        for (backend, parallelism) in BACKENDS.into_iter().flat_map(|b| [(b, 1), (b, 3)]) {
            let store = Store::new();
            let mut job = Job::with_backends("downstream", over(backend, parallelism), [Arc::new(Entries) as _]);
            job.checkpoint_store(store.checkpoints("downstream"));
            let (source, gate) = Gated::new(COUNT, 1);
            let found = Collect::new();
            job.source("ids", source)
                .event_time(|id| *id as i64, Watermarks::monotonous().every(1))
                .key_by(|id| key(*id))
                .aggregate("totals", Count)
                .output_mode(OutputMode::Update)
                .key_by(|(key, _)| *key)
                .window("rows", Tumbling::of(Duration::from_millis(100)))
                .reduce(|_, last| last)
                .map(|w| w.value)
                .sink("found", found.clone());
            gate.open_to(COUNT / 2);
            let handle = job.start().unwrap();
            until(|| handle.metrics().operators.iter().any(|o| o.name == "totals" && o.records_in >= COUNT / 2)).await;
            handle.checkpoint_now().await.unwrap();
            gate.open();
            finished(handle).await;
            let both = [0..COUNT / 2, COUNT / 2..COUNT].map(|epoch| expected(OutputMode::Update, epoch));
            assert_same(found.take(), both.concat());
        }
    });
}

#[test]
fn a_running_aggregation_appends_nothing_and_says_so() {
    run(async {
        let job = Job::new("append", settings(1));
        let (source, _) = Gated::new(1, 1);
        let totals = job.source("ids", source).key_by(|id| *id).aggregate("totals", Count);
        totals.output_mode(OutputMode::Append).sink("found", Collect::new());
        let error = job.run().await.unwrap_err().to_string();
        assert!(error.contains("totals") && error.contains("never append") && error.contains("Update"), "{error}");
    });
}
