//! Restart inside the process: after a panic or an error anywhere, the output is exact and the cause is told.
//!
//! Each test commits a checkpoint in the middle of the input and then lets the bomb go off, so the next
//! attempt has state, positions and output to go on from. A bomb that never went off fails its test.
use crate::{
    kit::{Blast, end, finished, run, settings},
    pipeline::{COUNT, OPERATORS, pipeline},
};

/// Fails twice at `place`, the second time while the first restart is running; returns the causes.
fn exact_after(place: &str, blast: Blast, parallelism: u32) -> Vec<String> {
    run(async {
        let p = pipeline("restart", settings(parallelism));
        let handle = p.job.start().unwrap();
        p.gate.open_to(COUNT / 2);
        let committed = handle.checkpoint_now().await.unwrap();
        p.bomb.arm(place, blast, 2);
        p.gate.open();
        let status = finished(handle).await;
        assert!(p.bomb.is_spent(), "the bomb at {place} never went off");
        p.assert_exact();
        // Both times in one attempt, where two subtasks came upon the bomb at once.
        assert!((1..=2).contains(&status.restarts), "{status:?}");
        assert_eq!(status.restored, Some(committed), "{status:?}");
        assert!(status.failures.iter().map(|f| f.attempt).eq(1..=status.restarts), "{status:?}");
        assert_eq!(status.attempt, status.restarts + 1);
        status.failures.into_iter().map(|f| f.cause).collect()
    })
}

#[test]
fn a_panic_in_any_function_of_any_operator_is_restarted_from_and_named() {
    for place in OPERATORS {
        for parallelism in [1, 2] {
            for cause in exact_after(place, Blast::Panic, parallelism) {
                assert!(cause.contains("panicked") && cause.contains(&format!("the bomb at {place}")), "{cause}");
                assert!(cause.contains("subtask"), "it does not say where: {cause}");
            }
        }
    }
}

#[test]
fn an_error_of_a_function_is_restarted_from_and_named() {
    for parallelism in [1, 2] {
        for cause in exact_after("try_map", Blast::Error, parallelism) {
            assert!(cause.contains("the bomb at try_map"), "{cause}");
        }
    }
}

#[test]
fn an_error_or_panic_while_a_source_reads_is_restarted_from_and_named() {
    for blast in [Blast::Error, Blast::Panic] {
        for parallelism in [1, 2] {
            for cause in exact_after("fill", blast, parallelism) {
                assert!(cause.contains("numbers") && cause.contains("the bomb at fill"), "{cause}");
            }
        }
    }
}

#[test]
fn an_error_or_panic_while_a_sink_writes_is_restarted_from_and_named() {
    for blast in [Blast::Error, Blast::Panic] {
        for parallelism in [1, 2] {
            for cause in exact_after("write", blast, parallelism) {
                assert!(cause.contains("the bomb at write"), "{cause}");
                assert!(blast == Blast::Panic || cause.contains("sink totals"), "{cause}");
            }
        }
    }
}

#[test]
fn an_error_or_panic_while_a_sink_stages_is_restarted_from_and_named() {
    for place in ["barrier", "stage"] {
        for blast in [Blast::Error, Blast::Panic] {
            for parallelism in [1, 2] {
                for cause in exact_after(place, blast, parallelism) {
                    assert!(cause.contains(&format!("the bomb at {place}")), "{cause}");
                }
            }
        }
    }
}

/// The commit record is written, the output is not published: the next attempt has to.
#[test]
fn an_error_or_panic_while_a_sink_publishes_loses_nothing() {
    for blast in [Blast::Error, Blast::Panic] {
        run(async {
            let p = pipeline("publish", settings(1));
            let handle = p.job.start().unwrap();
            p.gate.open_to(COUNT / 2);
            handle.checkpoint_now().await.unwrap();
            p.bomb.arm("commit", blast, 1);
            p.gate.open();
            let status = finished(handle).await;
            assert!(p.bomb.is_spent());
            p.assert_exact();
            assert_eq!(status.restarts, 1);
            assert!(status.failures[0].cause.contains("the bomb at commit"), "{status:?}");
        });
    }
}

/// What fails while an attempt is being set up is a failure of the attempt like any other.
#[test]
fn an_error_or_panic_during_recovery_is_followed_by_another_attempt() {
    for place in ["discover", "open", "recover", "writer"] {
        for blast in [Blast::Error, Blast::Panic] {
            run(async {
                let p = pipeline("recovery", settings(2));
                let handle = p.job.start().unwrap();
                p.gate.open_to(COUNT / 2);
                handle.checkpoint_now().await.unwrap();
                // One failure to bring recovery about, one in it.
                p.bomb.arm_all([("map", Blast::Panic, 1), (place, blast, 1)]);
                p.gate.open();
                let (result, status) = end(handle).await;
                assert!(result.is_ok(), "{place} {blast:?}: {result:?}");
                p.assert_exact();
                assert!(status.failures[0].cause.contains("the bomb at map"), "{status:?}");
                assert!(p.bomb.is_spent(), "the bomb at {place} never went off");
                assert!(status.failures[1].cause.contains(&format!("the bomb at {place}")), "{status:?}");
            });
        }
    }
}

/// Its coordinator dies with the attempt: who waits must be told, not left waiting.
#[test]
fn who_waits_for_a_checkpoint_is_told_when_the_attempt_fails_instead() {
    run(async {
        let p = pipeline("asked", settings(1));
        let handle = p.job.start().unwrap();
        p.gate.open_to(COUNT / 2);
        p.bomb.arm("stage", Blast::Error, 1);
        let error = handle.checkpoint_now().await.unwrap_err();
        assert!(error.to_string().contains("the bomb at stage"), "{error}");
        p.gate.open();
        assert_eq!(finished(handle).await.restarts, 1);
        p.assert_exact();
    });
}
