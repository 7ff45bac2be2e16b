//! One job, two runs at once: never do both write.
//!
//! The newer run owns the job. The older one finds out at its next commit at the latest and stops with an
//! error that says so. The hard case is a commit that is already on its way when the newer run looks: either
//! the newer one sees it, or it must never come to count.
use crate::{
    kit::{Blast, end, finished, run, settings},
    pipeline::{COUNT, Pipeline, expected, pipeline},
    store::{Fault, Op, Store},
};
use async_trait::async_trait;
use bytes::Bytes;
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use std::sync::{Arc, Mutex};
use tidegate::{
    Kind,
    extend::{
        checkpoint::{ids::JobId, store::CheckpointStore},
        env::spawn,
    },
};
use tidegate_core::testkit::store::{Faults, FaultyStore, Reply};

/// Two runs of one job that share checkpoints; their sinks are shared too.
fn twins(store: &Store, parallelism: u32) -> (Pipeline, Pipeline) {
    let (mut older, mut newer) = (pipeline("twin", settings(parallelism)), pipeline("twin", settings(parallelism)));
    older.job.checkpoint_store(store.checkpoints("twin"));
    newer.job.checkpoint_store(store.checkpoints("twin"));
    (older, newer)
}

/// What both have published is what one of them should have.
#[track_caller]
fn assert_exact_together(a: &Pipeline, b: &Pipeline) {
    let (totals, windows) = expected();
    crate::kit::assert_same([a.totals.take(), b.totals.take()].concat(), totals);
    crate::kit::assert_same([a.windows.take(), b.windows.take()].concat(), windows);
}

#[test]
fn the_older_run_is_fenced_and_the_newer_goes_on_from_its_last_checkpoint() {
    run(async {
        for parallelism in [1, 2] {
            let store = Store::new();
            let (older, newer) = twins(&store, parallelism);
            let first = older.job.start().unwrap();
            older.gate.open_to(COUNT / 2);
            first.checkpoint_now().await.unwrap();
            let second = newer.job.start().unwrap();
            newer.gate.open_to(COUNT / 2 + 100);
            second.checkpoint_now().await.unwrap();
            older.gate.open();
            let (result, status) = end(first).await;
            let error = result.unwrap_err();
            assert_eq!(error.kind(), Kind::Fenced);
            assert!(error.to_string().contains("attempt 2 of the same job has taken over"), "{error}");
            assert_eq!(status.restarts, 1, "a fenced run must not start again: {status:?}");
            newer.gate.open();
            assert_eq!(finished(second).await.restored, Some(1));
            assert_exact_together(&older, &newer);
        }
    });
}

/// The older run has made sure that nobody is newer, and then its commit record takes its time.
#[test]
fn a_commit_that_is_on_its_way_while_a_newer_run_starts_never_counts() {
    run(async {
        for parallelism in [1, 2] {
            let store = Store::new();
            let (older, newer) = twins(&store, parallelism);
            let first = older.job.start().unwrap();
            older.gate.open_to(COUNT / 4);
            first.checkpoint_now().await.unwrap();
            older.gate.open_to(COUNT / 2);
            store.on(Op::Put, "/commits/000000000002", Fault::Stalls, 1);
            let first = spawn(async move {
                first.checkpoint_now().await.expect_err("it has committed behind the newer run's back");
                end(first).await.0
            });
            store.hit(1).await;
            let second = newer.job.start().unwrap();
            newer.gate.open_to(COUNT / 2);
            second.checkpoint_now().await.unwrap();
            store.heal();
            let error = first.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), Kind::Fenced, "{error}");
            newer.gate.open();
            finished(second).await;
            assert_exact_together(&older, &newer);
        }
    });
}

/// As before, but the newer run dies too before it has made a checkpoint of its own.
#[test]
fn a_third_run_finds_the_same_after_such_a_commit() {
    run(async {
        let store = Store::new();
        let (older, newer) = twins(&store, 1);
        let first = older.job.start().unwrap();
        older.gate.open_to(COUNT / 4);
        first.checkpoint_now().await.unwrap();
        older.gate.open_to(COUNT / 2);
        store.on(Op::Put, "/commits/000000000002", Fault::Stalls, 1);
        let first = spawn(async move {
            first.checkpoint_now().await.expect_err("it has committed behind the newer run's back");
            end(first).await.0
        });
        store.hit(1).await;
        let second = newer.job.start().unwrap();
        let status = second.watch();
        crate::kit::until(|| status.borrow().attempt == 2).await;
        store.heal();
        assert_eq!(first.await.unwrap().unwrap_err().kind(), Kind::Fenced);
        second.cancel().await.unwrap();
        newer.gate.open();
        finished(newer.job.start().unwrap()).await;
        assert_exact_together(&older, &newer);
    });
}

/// The very first checkpoint: there is nothing to go on from, and the newer run begins with nothing too.
#[test]
fn a_first_commit_that_is_on_its_way_while_a_newer_run_starts_never_counts() {
    run(async {
        let store = Store::new();
        let (older, newer) = twins(&store, 1);
        let first = older.job.start().unwrap();
        older.gate.open_to(COUNT / 4);
        store.on(Op::Put, "/commits/", Fault::Stalls, 1);
        let first = spawn(async move {
            first.checkpoint_now().await.expect_err("it has committed behind the newer run's back");
            end(first).await.0
        });
        store.hit(1).await;
        let second = newer.job.start().unwrap();
        newer.gate.open_to(COUNT / 2);
        second.checkpoint_now().await.unwrap();
        store.heal();
        assert_eq!(first.await.unwrap().unwrap_err().kind(), Kind::Fenced);
        newer.gate.open();
        finished(second).await;
        assert_exact_together(&older, &newer);
    });
}

#[test]
fn many_starts_at_once_leave_one_that_finishes() {
    run(async {
        let store = Store::new();
        let mut all = Vec::new();
        for _ in 0..6 {
            let mut p = pipeline("twin", settings(1));
            p.job.checkpoint_store(store.checkpoints("twin"));
            p.gate.open();
            all.push(p);
        }
        let running: Vec<_> = all.iter().map(|p| p.job.start().unwrap()).collect();
        let ended = futures::future::join_all(running.into_iter().map(end)).await;
        for (result, status) in &ended {
            if let Err(e) = result {
                assert_eq!(e.kind(), Kind::Fenced, "{status:?}");
            }
        }
        assert!(ended.iter().any(|(r, _)| r.is_ok()), "none has finished");
        let (totals, windows) = expected();
        crate::kit::assert_same(all.iter().flat_map(|p| p.totals.take()), totals);
        crate::kit::assert_same(all.iter().flat_map(|p| p.windows.take()), windows);
    });
}

/// It would be granted a restart, and with it would fence the one that has replaced it.
#[test]
fn an_older_run_that_fails_does_not_take_the_job_back() {
    run(async {
        let store = Store::new();
        let (older, newer) = twins(&store, 1);
        let first = older.job.start().unwrap();
        older.gate.open_to(COUNT / 2);
        first.checkpoint_now().await.unwrap();
        let second = newer.job.start().unwrap();
        newer.gate.open_to(COUNT / 2 + 100);
        second.checkpoint_now().await.unwrap();
        older.bomb.arm("map", Blast::Panic, 1);
        older.gate.open();
        let (result, status) = end(first).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Fenced);
        assert!(error.to_string().contains("the bomb at map"), "the cause has to be told as well: {error}");
        assert_eq!(status.restarts, 1, "{status:?}");
        newer.gate.open();
        finished(second).await;
        assert_exact_together(&older, &newer);
    });
}

/// The restart has claimed the job, and then cannot see whether its claim is the newest.
#[test]
fn a_restart_that_fails_after_its_claim_is_not_fenced_by_it() {
    run(async {
        let store = Store::new();
        let mut p = pipeline("twin", settings(1));
        p.job.checkpoint_store(store.checkpoints("twin"));
        let handle = p.job.start().unwrap();
        p.gate.open_to(COUNT / 2);
        handle.checkpoint_now().await.unwrap();
        let claim = "/attempts/000000000002";
        store.on(Op::Put, claim, Fault::Stalls, 1);
        p.bomb.arm("map", Blast::Error, 1);
        p.gate.open();
        store.hit(1).await;
        store.on(Op::List, "/attempts", Fault::Fails, 1);
        store.release(claim);
        let status = finished(handle).await;
        assert_eq!(store.hits(), 1);
        let kinds: Vec<_> = status.failures.iter().map(|f| f.kind).collect();
        assert_eq!((kinds, status.attempt), (vec![Kind::User, Kind::Unavailable], 3), "{:?}", status.failures);
        p.assert_exact();
    });
}

/// As before, but it is the sweep of the directory that fails: something in it cannot be deleted.
#[test]
fn a_restart_that_cannot_sweep_its_store_is_not_fenced_by_its_claim() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(1);
        settings.checkpoint.store = dir.path().to_str().unwrap().to_owned();
        settings.restart.max_restarts = u32::MAX;
        let p = pipeline("twin", settings);
        let handle = p.job.start().unwrap();
        let status = handle.watch();
        p.gate.open_to(COUNT / 2);
        handle.checkpoint_now().await.unwrap();
        // No directory can be listed below a file.
        let (manifests, aside) = (dir.path().join("twin/manifests"), dir.path().join("aside"));
        std::fs::rename(&manifests, &aside).unwrap();
        std::fs::write(&manifests, "").unwrap();
        p.bomb.arm("map", Blast::Error, 1);
        p.gate.open();
        crate::kit::until(|| status.borrow().failures.len() > 2 || status.borrow().state.is_end()).await;
        std::fs::remove_file(&manifests).unwrap();
        std::fs::rename(&aside, &manifests).unwrap();
        finished(handle).await;
        p.assert_exact();
    });
}

/// Checkpoint 2 commits, and 1 is collected, in the very moment in which the record of 1 is to be read.
#[derive(Debug)]
struct Overtaken {
    objects: Arc<InMemory>,
    commit: Mutex<Option<(Path, Bytes)>>,
}

#[async_trait]
impl Faults for Overtaken {
    async fn before(&self, op: Op, path: &str) -> object_store::Result<Reply> {
        if op == Op::Get && path.contains("/commits/000000000001") {
            let commit = self.commit.lock().unwrap().take();
            if let Some((record, bytes)) = commit {
                self.objects.put(&record, bytes.into()).await?;
                self.objects.delete(&Path::from(path)).await?;
            }
        }
        Ok(Reply::Comes)
    }
}

#[test]
fn a_checkpoint_that_is_superseded_and_collected_while_a_newer_run_looks_at_it_is_no_damage() {
    run(async {
        let store = Store::new();
        let (older, mut newer) = twins(&store, 1);
        let first = older.job.start().unwrap();
        for epoch in 1..=2 {
            older.gate.open_to(COUNT / 4 * epoch);
            first.checkpoint_now().await.unwrap();
        }
        first.cancel().await.unwrap();
        let objects = Arc::new(InMemory::new());
        let mut commit = None;
        for (path, bytes) in store.contents().await {
            if path.contains("/commits/000000000002") {
                commit = Some((Path::from(path), bytes));
            } else {
                objects.put(&Path::from(path), bytes.into()).await.unwrap();
            }
        }
        let overtaken = Overtaken { objects: objects.clone(), commit: Mutex::new(commit) };
        let overtaken = FaultyStore::with(objects, overtaken);
        newer.job.checkpoint_store(CheckpointStore::new(Arc::new(overtaken), "", JobId::new("twin").unwrap()));
        newer.gate.open();
        assert_eq!(finished(newer.job.start().unwrap()).await.restored, Some(2));
        assert_exact_together(&older, &newer);
    });
}
