//! A running job from outside: checkpoints on request, stop, cancel, what it tells of itself.
use crate::{
    kit::{Blast, Gated, MINUTE, assert_same, finished, paused, run, settings, until},
    pipeline::{COUNT, expected, pipeline},
    store::{Fault, Op, Store},
};
use std::time::Duration;
use tidegate::{FileSink, Job, JobState, Kind, Stream};
use tokio::time::timeout;

#[test]
fn status_and_metrics_tell_what_has_happened() {
    run(async {
        for parallelism in [1, 2] {
            let p = pipeline("status", settings(parallelism));
            let handle = p.job.start().unwrap();
            let status = handle.watch();
            p.gate.open_to(COUNT / 2);
            assert_eq!(handle.checkpoint_now().await.unwrap(), 1);
            let seen = handle.status();
            assert_eq!((seen.state, seen.attempt, seen.restored), (JobState::Running, 1, None));
            let checkpoint = seen.last_checkpoint.unwrap();
            assert!(checkpoint.epoch == 1 && checkpoint.bytes > 0, "{checkpoint:?}");
            assert_eq!(handle.metrics().checkpoints.completed, 1);
            p.gate.open();
            // The last watermark has come through: everything has been counted.
            let (totals, windows) = (expected().0.len() as u64, expected().1.len() as u64);
            let taken = |name: &str| handle.metrics().operator(name).map_or(0, |o| o.records_in);
            until(|| {
                (taken("totals"), taken("windows")) == (totals, windows) || status.borrow().state == JobState::Finished
            })
            .await;
            let metrics = handle.metrics();
            let of = |name: &str| metrics.operator(name).unwrap().clone();
            assert_eq!((of("totals").records_in, of("windows").records_in), (totals, windows));
            assert_eq!(of("numbers").records_out, COUNT);
            assert_eq!((of("per-number").records_in, of("per-window").records_in), (totals, totals));
            assert_eq!(of("per-window").late, 0);
            assert_eq!(metrics.operators.iter().find(|o| o.operator == "filter").unwrap().filtered, COUNT / 5);
            assert!(of("numbers").records_per_second > 0.0);
            let end = finished(handle).await;
            assert_eq!((end.restarts, end.failures.len(), end.failure), (0, 0, None));
            p.assert_exact();
        }
    });
}

#[test]
fn stop_commits_all_output_so_far_fires_no_open_window_and_a_later_start_goes_on() {
    run(async {
        for parallelism in [1, 2] {
            let store = Store::new();
            let start = || {
                let mut p = pipeline("stop", settings(parallelism));
                p.job.checkpoint_store(store.checkpoints("stop"));
                p
            };
            let first = start();
            let handle = first.job.start().unwrap();
            let status = handle.watch();
            first.gate.open_to(COUNT / 2);
            let (totals, windows) = expected();
            let so_far: Vec<_> = totals.iter().copied().filter(|t| t.0 <= COUNT / 2).collect();
            until(|| handle.metrics().operator("totals").is_some_and(|o| o.records_in == so_far.len() as u64)).await;
            handle.stop().await.unwrap();
            assert_eq!(status.borrow().state, JobState::Finished);
            let published = first.totals.take();
            assert_same(published.clone(), so_far);
            assert!(first.windows.is_empty(), "the bound is the whole input: no window is complete");
            let second = start();
            second.gate.open();
            assert_eq!(finished(second.job.start().unwrap()).await.restored, Some(1));
            assert_same([published, second.totals.take()].concat(), totals);
            assert_same(second.windows.take(), windows);
        }
    });
}

#[test]
fn cancel_publishes_nothing_more_and_a_later_start_loses_nothing() {
    run(async {
        let store = Store::new();
        let start = || {
            let mut p = pipeline("cancel", settings(2));
            p.job.checkpoint_store(store.checkpoints("cancel"));
            p
        };
        let first = start();
        let handle = first.job.start().unwrap();
        let status = handle.watch();
        first.gate.open_to(COUNT / 4);
        handle.checkpoint_now().await.unwrap();
        let committed = first.totals.len();
        first.gate.open_to(COUNT / 2);
        until(|| handle.metrics().operator("totals").is_some_and(|o| o.records_in > committed as u64)).await;
        handle.cancel().await.unwrap();
        assert_eq!(status.borrow().state, JobState::Cancelled);
        assert_eq!(first.totals.len(), committed);
        // Dropping a handle is cancelling, too.
        let dropped = start();
        dropped.gate.open_to(COUNT / 2);
        drop(dropped.job.start().unwrap());
        let last = start();
        last.gate.open();
        finished(last.job.start().unwrap()).await;
        let (totals, windows) = expected();
        assert_same([first.totals.take(), dropped.totals.take(), last.totals.take()].concat(), totals);
        assert_same(last.windows.take(), windows);
    });
}

/// Nobody looks at what else is asked of it meanwhile, and that is a queue's worth.
#[test]
fn cancel_does_not_wait_for_a_sink_that_never_recovers() {
    paused(async {
        let store = Store::new();
        store.on(Op::Put, "out/.staging/", Fault::Stalls, 1);
        let job = Job::new("hanging", settings(1));
        job.source("numbers", Gated::new(1, 1).0).sink("out", FileSink::json_lines_in(store.objects(), "out"));
        let handle = job.start().unwrap();
        let status = handle.watch();
        store.hit(1).await;
        for _ in 0..20 {
            assert!(timeout(MINUTE, handle.checkpoint_now()).await.is_err());
        }
        timeout(MINUTE, handle.cancel()).await.expect("it waits").unwrap();
        assert_eq!((status.borrow().state, store.hits()), (JobState::Cancelled, 1));
    });
}

#[test]
fn a_job_that_has_finished_has_nothing_to_add_when_it_is_started_again() {
    run(async {
        let store = Store::new();
        let mut p = pipeline("again", settings(2));
        p.job.checkpoint_store(store.checkpoints("again"));
        p.gate.open();
        finished(p.job.start().unwrap()).await;
        p.assert_exact();
        finished(p.job.start().unwrap()).await;
        assert!(p.totals.is_empty() && p.windows.is_empty());
    });
}

#[test]
fn checkpoints_asked_for_at_once_share_one_and_an_ended_job_refuses() {
    run(async {
        let p = pipeline("many", settings(1));
        let handle = p.job.start().unwrap();
        p.gate.open_to(COUNT / 2);
        let epochs = futures::future::join_all((0..10).map(|_| handle.checkpoint_now())).await;
        let epochs: Vec<u64> = epochs.into_iter().map(Result::unwrap).collect();
        assert!(epochs.iter().max().unwrap() <= &3, "one each: {epochs:?}");
        p.gate.open();
        let status = handle.watch();
        until(|| status.borrow().state == JobState::Finished).await;
        let error = handle.checkpoint_now().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("the job has ended"), "{error}");
    });
}

/// Who is told of a checkpoint must not have to wait for the status to tell the same.
#[test]
fn a_checkpoint_that_was_asked_for_is_in_status_and_metrics_when_its_number_comes() {
    run(async {
        let p = pipeline("told", settings(1));
        let handle = p.job.start().unwrap();
        for epoch in 1..=300 {
            assert_eq!(handle.checkpoint_now().await.unwrap(), epoch);
            let (seen, completed) = (handle.status().last_checkpoint, handle.metrics().checkpoints.completed);
            assert_eq!((seen.map(|c| c.epoch), completed), (Some(epoch), epoch));
        }
        handle.cancel().await.unwrap();
    });
}

#[test]
fn checkpoints_come_by_themselves_at_their_interval() {
    run(async {
        let mut settings = settings(2);
        settings.checkpoint.interval = Duration::from_millis(2);
        let p = pipeline("interval", settings);
        let handle = p.job.start().unwrap();
        p.gate.open_to(COUNT / 2);
        until(|| handle.metrics().checkpoints.completed >= 5).await;
        p.gate.open();
        finished(handle).await;
        p.assert_exact();
    });
}

/// A function that never returns cannot be stopped from outside, but it is named.
#[test]
fn a_subtask_that_is_stuck_in_user_code_is_found_and_named() {
    use tidegate::{Collect, Collection, Job, Stream};
    run(async {
        let mut settings = settings(1);
        settings.heartbeat.stuck_after = Duration::from_millis(50);
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
        let job = Job::new("stuck", settings);
        job.source("numbers", Collection::new([1, 2, 3]))
            .map(move |n| {
                // Ends when the test lets go of the other end.
                let _ = wait.lock().unwrap().recv();
                n
            })
            .sink("out", Collect::new());
        let handle = job.start().unwrap();
        let status = handle.watch();
        until(|| !status.borrow().stuck.is_empty()).await;
        let place = status.borrow().stuck[0].clone();
        assert!(place.contains("subtask 0") && place.contains("numbers") && place.contains("map"), "{place}");
        drop(release);
        finished(handle).await;
    });
}

#[test]
fn stop_while_waiting_to_restart_tells_the_failure() {
    run(async {
        let mut settings = settings(1);
        settings.restart.delay = Duration::from_secs(3_600);
        let p = pipeline("stopped", settings);
        p.bomb.arm("map", Blast::Panic, 1);
        p.gate.open();
        let handle = p.job.start().unwrap();
        let status = handle.watch();
        until(|| status.borrow().state == JobState::Restarting).await;
        let error = handle.stop().await.unwrap_err();
        assert!(error.to_string().contains("the bomb at map"), "{error}");
        assert_eq!(status.borrow().state, JobState::Failed);
    });
}
