//! The store fails, is full, loses a reply or stalls, once, at each kind of object that is written, read or
//! deleted: the job lives, the next checkpoint works, the output is exact, and the status tells what was.
//!
//! Checkpoints and the file sink's output are in one store. A checkpoint that cannot be made is abandoned and
//! the job goes on. The attempt is restarted only where it cannot go on by design: the outcome of a commit is
//! not known, or what a sink has staged or was to publish is in doubt.
use crate::{
    kit::{Gate, Gated, MINUTE, assert_same, finished, paused, run, settings, until},
    store::{Fault, Op, Store},
};
use bytes::Bytes;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tidegate::{
    FileSink, Job, JobHandle, JobState, Settings, Stream,
    extend::{checkpoint::manifest::Manifest, env::sleep},
};
use tokio::time::timeout;

const COUNT: u64 = 1_000;

/// A sum so far of the numbers with this last digit.
#[derive(Clone, Debug, Serialize)]
struct Row {
    number: u64,
    sum: u64,
}

struct Summing {
    job: Job,
    gate: Gate,
    store: Store,
}

/// The state's name must not be taken for what is wrong with it: see `a_store_that_fails_at_the_start`.
const OPERATOR: &str = "sums-by-range";

fn summing(store: &Store, settings: Settings) -> Summing {
    let (source, gate) = Gated::new(COUNT, 1);
    let mut job = Job::new("summing", settings);
    job.checkpoint_store(store.checkpoints("summing"));
    job.source("numbers", source)
        .key_by(|n| n % 10)
        .fold(OPERATOR, (0, 0), |(number, sum), n| (*number, *sum) = (n, *sum + n))
        .map(|(_, (number, sum))| Row { number, sum })
        .sink("out", FileSink::csv_in(store.objects(), "out"));
    Summing { job, gate, store: store.clone() }
}

/// The rows of all published parts.
fn rows(contents: &BTreeMap<String, Bytes>) -> Vec<String> {
    let parts = contents.iter().filter(|(path, _)| path.starts_with("out/part-"));
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    parts.flat_map(|(_, bytes)| text(bytes).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn expected(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("{n},{}", (n % 10..=n).step_by(10).sum::<u64>())).collect()
}

/// All of the output, and of what is stored no more than is needed.
async fn assert_exact(store: &Store) {
    let contents = store.contents().await;
    assert_same(rows(&contents), expected(COUNT));
    let of = |part: &str| contents.keys().filter(|p| p.contains(part)).cloned().collect::<Vec<_>>();
    assert_eq!(of(".staging"), Vec::<String>::new());
}

/// There is one checkpoint, and what it refers to, and nothing else.
async fn assert_one_checkpoint(store: &Store, when: &str) {
    let contents = store.contents().await;
    let of = |part: &str| contents.keys().filter(|p| p.contains(part)).cloned().collect::<Vec<_>>();
    assert_eq!((of("/commits/").len(), of("/manifests/").len()), (1, 1), "{when}");
    let manifest = Manifest::decode(&contents[&of("/manifests/")[0]]).unwrap();
    let referred: BTreeSet<_> = manifest.objects().map(|o| o.path.clone()).collect();
    assert_eq!(of("/state/"), referred.into_iter().collect::<Vec<_>>(), "{when}");
}

/// What becomes of the checkpoint in which the store does not work.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Completes,
    Abandoned,
    /// The attempt fails; the output of this checkpoint is published by the next one, or made again.
    Restarts,
}
use Outcome::{Abandoned, Completes, Restarts};

/// What the store is asked to do in a checkpoint, and what becomes of it when that fails, and when only the
/// reply is lost.
const STEPS: [(Op, &str, Outcome, Outcome); 6] = [
    (Op::Put, "/state/", Abandoned, Abandoned),
    (Op::Put, "/manifests/", Abandoned, Completes),
    (Op::Put, "/commits/", Restarts, Completes),
    (Op::Put, "out/.staging/", Restarts, Restarts),
    (Op::Copy, "out/part-", Restarts, Restarts),
    (Op::Delete, "out/.staging/", Restarts, Restarts),
];

impl Summing {
    /// Lets so many numbers be read, and waits until all have been written.
    async fn write(&self, handle: &JobHandle, count: u64) {
        self.gate.open_to(count);
        until(|| handle.metrics().operator("out").is_some_and(|o| o.records_in == count)).await;
    }
}

/// Asks until it is done: between two attempts it is refused.
async fn checkpoint(handle: &JobHandle) -> u64 {
    loop {
        match handle.checkpoint_now().await {
            Ok(epoch) => return epoch,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

#[test]
fn a_fault_at_any_object_of_a_checkpoint_is_survived_and_told() {
    for (op, path, when_it_fails, when_the_reply_is_lost) in STEPS {
        for (fault, outcome, told) in [
            (Fault::Fails, when_it_fails, "the store fails"),
            (Fault::DiskFull, when_it_fails, "no storage space"),
            (Fault::LosesReply, when_the_reply_is_lost, "the reply is lost"),
        ] {
            let what = format!("{fault:?} at {op:?} of {path}");
            run(async {
                let s = summing(&Store::new(), settings(1));
                let handle = s.job.start().unwrap();
                s.write(&handle, COUNT / 4).await;
                assert_eq!(handle.checkpoint_now().await.unwrap(), 1);
                let before = s.store.contents().await;
                s.write(&handle, COUNT / 2).await;
                s.store.on(op, path, fault, 1);
                let asked = handle.checkpoint_now().await;
                assert_eq!(s.store.hits(), 1, "{what}: it did not happen");
                let text = asked.as_ref().err().map(ToString::to_string).unwrap_or_default();
                match outcome {
                    Completes => assert_eq!(asked.ok(), Some(2), "{what}: {text}"),
                    Abandoned | Restarts => assert!(text.contains(told), "{what}: {text}"),
                }
                // The last one is as it was.
                let after = s.store.contents().await;
                let kept = before.iter().filter(|(p, _)| ["/commits/", "part-"].iter().any(|part| p.contains(part)));
                assert!(kept.clone().count() > 1 && kept.clone().all(|(path, bytes)| after.get(path) == Some(bytes)));
                s.gate.open_to(COUNT * 3 / 4);
                match outcome {
                    // Not just some later one.
                    Completes | Abandoned => assert_eq!(handle.checkpoint_now().await.unwrap(), 3, "{what}"),
                    Restarts => assert!(checkpoint(&handle).await > 1, "{what}"),
                }
                let status = handle.status();
                let (restarts, abandoned) = (status.restarts, status.last_abandoned.unwrap_or_default());
                assert_eq!(restarts, u64::from(outcome == Restarts), "{what}: {:?}", status.failures);
                assert_eq!(abandoned.contains(told), outcome == Abandoned, "{what}: {abandoned:?}");
                assert_eq!(handle.metrics().checkpoints.abandoned, u64::from(outcome == Abandoned), "{what}");
                let causes: Vec<_> = status.failures.iter().filter(|f| f.cause.contains(told)).collect();
                assert_eq!(causes.len() as u64, restarts, "{what}: {:?}", status.failures);
                s.gate.open();
                finished(handle).await;
                assert_exact(&s.store).await;
            });
        }
    }
}

/// On a paused clock; a checkpoint may take ten seconds of it.
#[test]
fn a_stall_before_the_commit_abandons_the_checkpoint_and_the_next_one_works() {
    for (op, path, until_released) in [
        (Op::Put, "/state/", "its last snapshot is still being stored"),
        (Op::Put, "/manifests/", ""),
        (Op::Put, "out/.staging/", "waiting for answers for earlier abandoned checkpoints"),
    ] {
        paused(async {
            let mut settings = settings(1);
            settings.checkpoint.timeout = Duration::from_secs(10);
            let s = summing(&Store::new(), settings);
            let handle = s.job.start().unwrap();
            s.write(&handle, COUNT / 4).await;
            handle.checkpoint_now().await.unwrap();
            s.write(&handle, COUNT / 2).await;
            s.store.on(op, path, Fault::Stalls, 1);
            let error = handle.checkpoint_now().await.unwrap_err().to_string();
            assert_eq!(s.store.hits(), 1, "{path}: it did not happen");
            assert!(error.contains("not complete after 10000 ms"), "{path}: {error}");
            // It goes on reading and writing meanwhile.
            s.write(&handle, COUNT * 3 / 4).await;
            let second = handle.checkpoint_now().await;
            if until_released.is_empty() {
                assert_eq!(second.unwrap(), 3, "{path}: only what stalls has to wait");
            } else {
                let error = second.unwrap_err().to_string();
                assert!(error.contains(until_released), "{path}: {error}");
            }
            s.store.heal();
            sleep(MINUTE).await;
            assert_eq!(handle.checkpoint_now().await.unwrap(), 4, "{path}");
            let status = handle.status();
            assert_eq!((status.restarts, status.state), (0, JobState::Running), "{path}: {:?}", status.failures);
            assert!(status.last_abandoned.is_some());
            s.gate.open();
            finished(handle).await;
            assert_exact(&s.store).await;
        });
    }
}

/// Nobody can say then that it has not happened: it is waited for, and the job goes on meanwhile.
#[test]
fn a_stall_from_the_commit_on_is_waited_for() {
    for (op, path) in [(Op::Put, "/commits/"), (Op::Copy, "out/part-"), (Op::Delete, "out/.staging/")] {
        paused(async {
            let mut settings = settings(1);
            settings.checkpoint.timeout = Duration::from_secs(10);
            let s = summing(&Store::new(), settings);
            let handle = s.job.start().unwrap();
            s.write(&handle, COUNT / 4).await;
            handle.checkpoint_now().await.unwrap();
            s.store.on(op, path, Fault::Stalls, 1);
            s.write(&handle, COUNT / 2).await;
            let mut asked = Box::pin(handle.checkpoint_now());
            assert!(timeout(MINUTE, &mut asked).await.is_err(), "{path}");
            assert_eq!(s.store.hits(), 1);
            s.write(&handle, COUNT * 3 / 4).await;
            s.store.heal();
            assert_eq!(asked.await.unwrap(), 2, "{path}");
            assert_eq!(handle.checkpoint_now().await.unwrap(), 3, "{path}");
            s.gate.open();
            let status = finished(handle).await;
            assert_eq!((status.restarts, status.last_abandoned), (0, None), "{path}");
            assert_exact(&s.store).await;
        });
    }
}

/// What a start asks of the store; the first start finds nothing, the second one a checkpoint.
#[test]
fn a_store_that_fails_at_the_start_is_tried_again_as_the_restart_strategy_says() {
    let fresh = [
        (Op::List, "summing/attempts"),
        (Op::Put, "summing/attempts"),
        (Op::List, "summing/manifests"),
        (Op::List, "summing/commits"),
        (Op::Put, "out/.staging/"),
        (Op::Delete, "out/.staging/"),
        (Op::List, "out"),
        (Op::List, "out/.staging/"),
    ];
    let resumed = [(Op::Get, "/commits/"), (Op::Get, "/manifests/"), (Op::Get, "/state/"), (Op::Get, "/state/")];
    let kinds = [Fault::Fails, Fault::DiskFull];
    paused(async {
        let all = fresh.iter().map(|step| (step, false)).chain(fresh.iter().chain(&resumed).map(|step| (step, true)));
        for ((op, path), resumes) in all {
            for fault in kinds {
                let store = Store::new();
                if resumes {
                    let first = summing(&store, settings(1));
                    first.gate.open_to(COUNT / 2);
                    let handle = first.job.start().unwrap();
                    handle.checkpoint_now().await.unwrap();
                    handle.cancel().await.unwrap();
                    // Its last collection may still be on its way.
                    sleep(MINUTE).await;
                }
                let s = summing(&store, settings(1));
                s.gate.open();
                store.on(*op, path, fault, 1);
                let status = finished(s.job.start().unwrap()).await;
                let what = format!("{fault:?} at {op:?} of {path}, resumes: {resumes}");
                assert_eq!((store.hits(), status.restarts), (1, 1), "{what}: {:?}", status.failures);
                assert_eq!(status.restored, resumes.then_some(1), "{what}");
                assert_exact(&store).await;
            }
        }
    });
}

#[test]
fn a_claim_whose_reply_is_lost_is_ones_own() {
    run(async {
        let s = summing(&Store::new(), settings(1));
        s.gate.open();
        s.store.on(Op::Put, "summing/attempts", Fault::LosesReply, 1);
        let status = finished(s.job.start().unwrap()).await;
        assert_eq!((s.store.hits(), status.restarts, status.attempt), (1, 0, 1));
        assert_exact(&s.store).await;
    });
}

/// A job that cannot even begin ends with the cause when no more restarts are granted.
#[test]
fn a_store_that_is_gone_ends_the_job_with_the_cause() {
    run(async {
        let s = summing(&Store::new(), settings(1));
        s.store.on(Op::List, "", Fault::Fails, u32::MAX);
        let (result, status) = crate::kit::end(s.job.start().unwrap()).await;
        let error = result.unwrap_err();
        assert!(error.to_string().contains("the store fails"), "{error}");
        assert_eq!((error.kind(), status.state, status.restarts), (tidegate::Kind::Unavailable, JobState::Failed, 4));
    });
}

/// Paused, because a collection runs beside the job: a minute later it has done what it could.
#[test]
fn what_a_collection_could_not_delete_the_next_one_does() {
    for path in ["/commits/", "/manifests/", "/state/"] {
        for fault in [Fault::Fails, Fault::LosesReply, Fault::Stalls] {
            paused(async {
                let mut settings = settings(1);
                settings.checkpoint.retained = 1;
                let s = summing(&Store::new(), settings);
                let handle = s.job.start().unwrap();
                s.store.on(Op::Delete, path, fault, 2);
                for part in 1..=6 {
                    s.write(&handle, COUNT / 10 * part).await;
                    assert_eq!(handle.checkpoint_now().await.unwrap(), part, "{path} {fault:?}");
                    sleep(MINUTE).await;
                }
                assert!(s.store.hits() > 0, "{path} {fault:?}: it did not happen");
                s.store.heal();
                sleep(MINUTE).await;
                s.gate.open();
                let status = finished(handle).await;
                assert_eq!((status.restarts, status.last_abandoned), (0, None), "{path} {fault:?}");
                assert_one_checkpoint(&s.store, &format!("{path} {fault:?}")).await;
                assert_exact(&s.store).await;
            });
        }
    }
}

/// No checkpoint comes after the last one, whose collection would do it.
#[test]
fn what_a_collection_has_missed_is_collected_before_the_job_ends() {
    paused(async {
        let mut settings = settings(1);
        settings.checkpoint.retained = 1;
        let s = summing(&Store::new(), settings);
        let handle = s.job.start().unwrap();
        s.store.on(Op::Delete, "/commits/", Fault::Stalls, 1);
        for part in 1..=3 {
            s.write(&handle, COUNT / 10 * part).await;
            assert_eq!(handle.checkpoint_now().await.unwrap(), part);
        }
        s.store.hit(1).await;
        s.gate.open();
        until(|| handle.status().last_checkpoint.is_some_and(|last| last.epoch == 4)).await;
        s.store.heal();
        finished(handle).await;
        assert_one_checkpoint(&s.store, "the last").await;
        assert_exact(&s.store).await;
    });
}
