//! What is kept in a checkpoint store and what can be done with it: another parallelism, an earlier one,
//! retention.
//!
//! The hard case of retention is sharing: a kept checkpoint refers to state objects of checkpoints that are
//! gone. So what is there at the end must be what the kept manifests refer to: no less, and no more.
use crate::{
    kit::{Blast, assert_same, end, finished, run, settings},
    pipeline::{COUNT, Pipeline, expected, pipeline},
    store::Store,
};
use std::collections::BTreeSet;
use tidegate::{Kind, Settings, extend::checkpoint::manifest::Manifest};

fn over(store: &Store, settings: Settings) -> Pipeline {
    let mut p = pipeline("kept", settings);
    p.job.checkpoint_store(store.checkpoints("kept"));
    p
}

/// A job's totals, by the checkpoint they were published with.
type Published = Vec<Vec<(u64, u64, u64)>>;

/// Makes so many checkpoints, evenly over half of the input, and is cancelled.
async fn checkpoints(store: &Store, settings: Settings, count: u64) -> Published {
    let p = over(store, settings);
    let handle = p.job.start().unwrap();
    let mut published = Vec::new();
    for epoch in 1..=count {
        p.gate.open_to(COUNT / 2 / count * epoch);
        assert_eq!(handle.checkpoint_now().await.unwrap(), epoch);
        published.push(p.totals.take());
    }
    handle.cancel().await.unwrap();
    published
}

#[track_caller]
fn assert_exact(before: &[Vec<(u64, u64, u64)>], rest: &Pipeline) {
    let (totals, windows) = expected();
    assert_same([before.concat(), rest.totals.take()].concat(), totals);
    assert_same(rest.windows.take(), windows);
}

#[test]
fn one_checkpoint_can_be_gone_on_from_at_any_parallelism() {
    run(async {
        for made_at in [1, 2, 3] {
            let store = Store::new();
            let published = checkpoints(&store, settings(made_at), 2).await;
            let contents = store.contents().await;
            for parallelism in [1, 2, 3, 7] {
                let p = over(&Store::with(&contents).await, settings(parallelism));
                p.gate.open();
                assert_eq!(finished(p.job.start().unwrap()).await.restored, Some(2));
                assert_exact(&published, &p);
            }
        }
    });
}

#[test]
fn more_subtasks_than_key_groups_and_other_key_groups_are_refused() {
    run(async {
        let store = Store::new();
        checkpoints(&store, settings(1), 1).await;
        let error = over(&store, settings(129)).job.start().unwrap_err();
        assert!(error.kind() == Kind::Config && error.to_string().contains("parallelism = 129"), "{error}");
        let other = Settings { key_groups: 64, ..settings(1) };
        let error = end(over(&store, other).job.start().unwrap()).await.0.unwrap_err();
        assert!(error.kind() == Kind::Config && error.to_string().contains("key-groups = 128"), "{error}");
    });
}

fn from(epoch: u64) -> Settings {
    let mut settings = settings(2);
    settings.checkpoint.from = epoch;
    settings.checkpoint.retained = 10;
    settings
}

#[test]
fn any_kept_checkpoint_can_be_gone_on_from() {
    run(async {
        let store = Store::new();
        let published = checkpoints(&store, from(0), 4).await;
        let contents = store.contents().await;
        for epoch in 1..=4 {
            let p = over(&Store::with(&contents).await, from(epoch));
            p.gate.open();
            assert_eq!(finished(p.job.start().unwrap()).await.restored, Some(epoch));
            assert_exact(&published[..epoch as usize], &p);
        }
        let error = end(over(&store, from(9)).job.start().unwrap()).await.0.unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        let text = error.to_string();
        assert!(text.contains("no committed checkpoint 9") && text.contains("1, 2, 3, 4"), "{text}");
    });
}

/// The checkpoint that was asked for, until the run has made one of its own.
#[test]
fn a_restart_goes_on_from_the_checkpoint_asked_for_or_from_its_own() {
    run(async {
        let store = Store::new();
        let published = checkpoints(&store, from(0), 4).await;
        let p = over(&store, from(2));
        p.bomb.arm("map", Blast::Panic, 1);
        let handle = p.job.start().unwrap();
        p.gate.open_to(COUNT * 3 / 4);
        crate::kit::until(|| handle.status().restarts == 1).await;
        while handle.checkpoint_now().await.is_err() {}
        assert_eq!(handle.status().restored, Some(2), "{:?}", handle.status());
        p.bomb.arm("map", Blast::Panic, 1);
        p.gate.open();
        let status = finished(handle).await;
        assert_eq!((status.restarts, status.restored), (2, Some(5)), "{status:?}");
        assert_exact(&published[..2], &p);
    });
}

#[test]
fn retention_keeps_what_it_says_all_that_this_refers_to_and_nothing_else() {
    run(async {
        for retained in [1, 2, 5] {
            let mut settings = settings(2);
            settings.checkpoint.retained = retained;
            let store = Store::new();
            let published = checkpoints(&store, settings.clone(), 12).await;
            let p = over(&store, settings);
            // Two dead attempts leave what they have stored on their way to a checkpoint.
            p.bomb.arm_all([("stage", Blast::Error, 1), ("stage", Blast::Panic, 1)]);
            p.gate.open();
            assert!(finished(p.job.start().unwrap()).await.restarts > 0);
            assert_exact(&published, &p);

            let contents = store.contents().await;
            let of = |folder: &str| -> BTreeSet<&String> { contents.keys().filter(|p| p.contains(folder)).collect() };
            assert_eq!(of("/commits/").len(), retained, "{:?}", of("/commits/"));
            let manifests: Vec<_> =
                of("/manifests/").into_iter().map(|path| Manifest::decode(&contents[path]).unwrap()).collect();
            let committed: BTreeSet<_> = manifests.iter().map(|m| m.epoch).collect();
            assert_eq!(committed.len(), retained);
            let referred: BTreeSet<_> = manifests.iter().flat_map(|m| m.objects().map(|o| &o.path)).collect();
            let kept = of("/state/");
            assert!(referred.is_subset(&kept), "deleted, and needed: {:?}", referred.difference(&kept));
            assert!(kept.is_subset(&referred), "orphans: {:?}", kept.difference(&referred));
            assert_eq!(of("/attempts/").len(), 1);
        }
    });
}
