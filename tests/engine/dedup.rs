//! Duplicates, over every kind of backend, with restores at another parallelism, against a model.
use crate::{
    kit::{Gate, Gated, assert_same, finished, run, settings},
    parts::{BACKENDS, in_three_parts, over},
    store::Store,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate::{Collect, Job, JobState, Settings, Stream, TimeToLive, Timestamp, Watermarks};
use tidegate_core::testkit::entries::Entries;

const COUNT: u64 = 3_000;
const BOUND_MS: i64 = 3_000;
const WITHIN_MS: i64 = 2_000;

fn key(id: u64) -> u64 {
    id * 31 % 97
}
/// Up to five seconds out of order, where three are allowed.
fn at(id: u64) -> Timestamp {
    (id * 10 + id * 7919 % 5_000) as i64
}

fn job(store: &Store, settings: Settings, count: u64) -> (Job, Gate, Collect<u64>) {
    let mut job = Job::with_backends("dedup", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("dedup"));
    let (source, gate) = Gated::new(count, 1);
    let found = Collect::new();
    let watermarks = Watermarks::bounded(Duration::from_millis(BOUND_MS as u64)).every(1);
    job.source("ids", source)
        .event_time(|id| at(*id), watermarks)
        .key_by(|id| key(*id))
        .dedup("once", TimeToLive::EventTime(Duration::from_millis(WITHIN_MS as u64)))
        .sink("found", found.clone());
    (job, gate, found)
}

/// What passes, how many are late and how many are duplicates.
fn expected(count: u64) -> (Vec<u64>, u64, u64) {
    let (mut passed, mut late, mut duplicates) = (Vec::new(), 0, 0);
    let mut last = BTreeMap::<u64, Timestamp>::new();
    for id in 0..count {
        let newest = (0..id).map(at).max();
        if newest.is_some_and(|newest| at(id) < newest - BOUND_MS) {
            late += 1;
        } else if last.get(&key(id)).is_some_and(|first| at(id) < first + WITHIN_MS) {
            duplicates += 1;
        } else {
            last.insert(key(id), at(id));
            passed.push(id);
        }
    }
    (passed, late, duplicates)
}

#[test]
fn the_first_of_a_key_passes_wherever_batches_watermarks_and_restores_fall() {
    let (passed, late, duplicates) = expected(COUNT);
    assert!(passed.len() > 500 && late > 100 && duplicates > 500, "{} {late} {duplicates}", passed.len());
    in_three_parts(
        "ids",
        COUNT,
        |store, settings| job(store, settings, COUNT),
        |found| assert_same(found, passed.iter().copied()),
    );
}

#[test]
fn what_is_dropped_is_counted_and_what_has_passed_is_known_when_more_input_comes() {
    let (passed, late, duplicates) = expected(COUNT);
    run(async {
        for (backend, parallelism) in BACKENDS.into_iter().flat_map(|b| [(b, 1), (b, 3)]) {
            let store = Store::new();
            let (mut found, mut counted) = (Vec::new(), (0, 0));
            // Each of these comes to the end of its input: all time is over, but not for the state.
            for count in [COUNT / 2, COUNT] {
                let (job, gate, some) = job(&store, over(backend, parallelism), count);
                gate.open();
                let handle = job.start().unwrap();
                let mut status = handle.watch();
                while status.borrow_and_update().state != JobState::Finished {
                    status.changed().await.unwrap();
                }
                let metrics = handle.metrics();
                let once = metrics.operators.iter().find(|o| o.name == "once").unwrap();
                counted = (counted.0 + once.late, counted.1 + once.skipped);
                finished(handle).await;
                found.extend(some.take());
            }
            assert_same(found, passed.iter().copied());
            assert_eq!(counted, (late, duplicates));
        }
    });
}

#[test]
fn by_the_clock_nothing_passes_twice_within_an_hour_and_state_is_kept_over_a_restart() {
    run(async {
        for (backend, parallelism) in BACKENDS.into_iter().flat_map(|b| [(b, 1), (b, 3)]) {
            let store = Store::new();
            let mut found = Vec::new();
            for part in [1, 2] {
                let mut job = Job::with_backends("clock", over(backend, parallelism), [Arc::new(Entries) as _]);
                job.checkpoint_store(store.checkpoints("clock"));
                let (source, gate) = Gated::new(COUNT, 3);
                let some = Collect::new();
                job.source("ids", source)
                    .map(key)
                    .key_by(|key| *key)
                    .dedup("once", TimeToLive::ProcessingTime(Duration::from_secs(3600)))
                    .sink("found", some.clone());
                gate.open_to(if part == 1 { 50 } else { COUNT });
                let handle = job.start().unwrap();
                if part == 1 {
                    handle.checkpoint_now().await.unwrap();
                    handle.cancel().await.unwrap();
                } else {
                    finished(handle).await;
                }
                found.extend(some.take());
            }
            assert_same(found, 0..97);
        }
    });
}

#[test]
fn no_time_and_no_event_time_are_refused_before_the_start() {
    run(async {
        for (within, what) in [
            (TimeToLive::ProcessingTime(Duration::ZERO), "every record pass"),
            (TimeToLive::EventTime(Duration::from_secs(1)), "needs event time"),
        ] {
            let job = Job::new("refused", settings(1));
            let (source, _) = Gated::new(1, 1);
            job.source("ids", source).key_by(|id| *id).dedup("once", within).sink("found", Collect::new());
            let error = job.run().await.unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("hint"), "{error}");
        }
    });
}
