//! A run that is overtaken while it has hardly begun: between its claim and its first record.
//!
//! A newer run has then claimed the job, recovered and perhaps committed before the older one does its next
//! step of recovery. The hard case is that this step is meant for what *older* attempts have left, and finds
//! what the newer one is just making: it must neither take its epoch nor sweep its staged output.
use crate::{
    kit::{Blast, Gate, Gated, assert_same, end, finished, run, settings, until},
    pipeline::{COUNT, expected, pipeline},
    store::{Fault, Op, Store},
};
use tidegate::{FileSink, Job, Kind, Stream, extend::env::spawn};

const NUMBERS: u64 = 1_000;

/// Numbers into files of a store.
fn into_files(checkpoints: &Store, files: &Store) -> (Job, Gate) {
    let mut job = Job::new("files", settings(1));
    job.checkpoint_store(checkpoints.checkpoints("files"));
    let (source, gate) = Gated::new(NUMBERS, 2);
    job.source("numbers", source).sink("out", FileSink::json_lines_in(files.objects(), "out"));
    (job, gate)
}

async fn published(files: &Store) -> Vec<u64> {
    let parts = files.contents().await.into_iter().filter(|(path, _)| path.starts_with("out/part-"));
    let text: Vec<_> = parts.map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect();
    text.iter().flat_map(|t| t.lines()).map(|line| line.parse().unwrap()).collect()
}

/// The newer run's output is staged and its commit is on its way when the older one comes to its sweep.
#[test]
fn a_run_that_is_overtaken_in_recovery_sweeps_nothing_of_its_successor() {
    run(async {
        let (store, files) = (Store::new(), Store::new());
        let ((older, older_gate), (newer, newer_gate)) = (into_files(&store, &files), into_files(&store, &files));
        files.on(Op::Put, "000001/probe", Fault::Stalls, 1);
        let first = older.start().unwrap();
        files.hit(1).await;
        let second = newer.start().unwrap();
        newer_gate.open_to(NUMBERS / 2);
        until(|| second.metrics().operator("out").is_some_and(|o| o.records_in == NUMBERS / 2)).await;
        store.on(Op::Put, "/commits/", Fault::Stalls, 1);
        let second = spawn(async move {
            second.checkpoint_now().await.unwrap();
            second
        });
        store.hit(1).await;
        files.heal();
        older_gate.open();
        assert_eq!(end(first).await.0.unwrap_err().kind(), Kind::Fenced);
        store.heal();
        newer_gate.open();
        finished(second.await.unwrap()).await;
        assert_same(published(&files).await, 0..NUMBERS);
    });
}

/// It finds a manifest that is prepared and not committed, as a dead attempt leaves one; but it is its successor's.
#[test]
fn a_run_that_is_overtaken_in_recovery_takes_no_epoch_from_its_successor() {
    run(async {
        let store = Store::new();
        let (mut older, mut newer) = (pipeline("overtaken", settings(1)), pipeline("overtaken", settings(1)));
        older.job.checkpoint_store(store.checkpoints("overtaken"));
        newer.job.checkpoint_store(store.checkpoints("overtaken"));
        store.on(Op::List, "overtaken/manifests", Fault::Stalls, 1);
        let first = older.job.start().unwrap();
        store.hit(1).await;
        let second = newer.job.start().unwrap();
        newer.gate.open_to(COUNT / 2);
        store.on(Op::Put, "/commits/", Fault::Stalls, 1);
        let second = spawn(async move {
            second.checkpoint_now().await.unwrap();
            second
        });
        store.hit(1).await;
        store.release("overtaken/manifests");
        older.gate.open();
        assert_eq!(end(first).await.0.unwrap_err().kind(), Kind::Fenced);
        store.heal();
        newer.gate.open();
        finished(second.await.unwrap()).await;
        newer.assert_exact();
        assert!(older.totals.is_empty() && older.windows.is_empty());
    });
}

/// The number that it wanted was taken meanwhile, and the claim has been deleted again by the one that came next.
#[test]
fn a_claim_that_arrives_behind_newer_ones_is_made_again() {
    run(async {
        let store = Store::new();
        let (mut late, mut early) = (pipeline("claim", settings(1)), pipeline("claim", settings(1)));
        late.job.checkpoint_store(store.checkpoints("claim"));
        early.job.checkpoint_store(store.checkpoints("claim"));
        store.on(Op::Put, "/attempts/", Fault::Stalls, 1);
        let last = late.job.start().unwrap();
        store.hit(1).await;
        let first = early.job.start().unwrap();
        early.gate.open_to(COUNT / 4);
        first.checkpoint_now().await.unwrap();
        early.bomb.arm("map", Blast::Panic, 1);
        early.gate.open_to(COUNT / 2);
        until(|| first.status().restarts == 1).await;
        while first.checkpoint_now().await.is_err() {}
        let claims = || async { store.checkpoints("claim").attempts().await.unwrap() };
        while claims().await.len() > 1 {
            tokio::task::yield_now().await;
        }
        store.heal();
        late.gate.open();
        let status = finished(last).await;
        assert_eq!((status.attempt, status.restored), (3, Some(2)), "{status:?}");
        early.gate.open();
        assert_eq!(end(first).await.0.unwrap_err().kind(), Kind::Fenced);
        let (totals, windows) = expected();
        assert_same([early.totals.take(), late.totals.take()].concat(), totals);
        assert_same([early.windows.take(), late.windows.take()].concat(), windows);
    });
}
