//! Rankings, over every kind of backend, with restores at another parallelism, against sorting.
use crate::{
    kit::{Gate, Gated, assert_same, finished, run, settings},
    parts::{BACKENDS, in_three_parts, over},
    store::Store,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate::{Collect, Job, Settings, Stream, Tumbling, Watermarks, aggregate::TopK};
use tidegate_core::testkit::entries::Entries;

const COUNT: u64 = 3_000;
const KEYS: u64 = 40;
const N: usize = 4;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Scored {
    id: u64,
    score: f64,
}

/// Many have the same score, and some have none.
fn scored(id: u64) -> Scored {
    let score = if id.is_multiple_of(211) { f64::NAN } else { (id * 7919 % 500) as f64 / 10.0 - 20.0 };
    Scored { id, score }
}

fn ids((key, ranking): (u64, Vec<Scored>)) -> (u64, Vec<u64>) {
    (key, ranking.into_iter().map(|scored| scored.id).collect())
}

fn job(store: &Store, settings: Settings) -> (Job, Gate, Collect<(u64, Vec<u64>)>) {
    let mut job = Job::with_backends("top", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("top"));
    let (source, gate) = Gated::new(COUNT, 1);
    let found = Collect::new();
    job.source("ids", source)
        .map(scored)
        .key_by(|s| s.id % KEYS)
        .top_n("top", N, |s| s.score)
        .map(ids)
        .sink("found", found.clone());
    (job, gate, found)
}

/// The ranking of some records, sorted anew: NaN first, then the greatest, and of equals the first to come.
fn ranking(ids: &[u64]) -> Vec<u64> {
    let mut ids = ids.to_vec();
    ids.sort_by(|a, b| {
        let (a, b) = (scored(*a).score, scored(*b).score);
        b.is_nan().cmp(&a.is_nan()).then(b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal))
    });
    ids.truncate(N);
    ids
}

fn expected() -> Vec<(u64, Vec<u64>)> {
    let (mut seen, mut last, mut told) = (BTreeMap::<u64, Vec<u64>>::new(), BTreeMap::new(), Vec::new());
    for id in 0..COUNT {
        let of_key = seen.entry(id % KEYS).or_default();
        of_key.push(id);
        let now = ranking(of_key);
        if last.insert(id % KEYS, now.clone()).is_none_or(|before| before != now) {
            told.push((id % KEYS, now));
        }
    }
    told
}

#[test]
fn each_change_of_a_ranking_is_told_once_over_every_backend_and_across_restores() {
    let expected = expected();
    assert!(expected.len() > 400 && expected.len() < COUNT as usize / 2, "{}", expected.len());
    in_three_parts("ids", COUNT, job, |found| assert_same(found, expected.iter().cloned()));
}

#[test]
fn a_window_has_a_ranking_of_its_own() {
    run(async {
        for (backend, parallelism) in BACKENDS.into_iter().flat_map(|b| [(b, 1), (b, 3)]) {
            let job = Job::with_backends("top-window", over(backend, parallelism), [Arc::new(Entries) as _]);
            let (source, gate) = Gated::new(COUNT, 1);
            let found = Collect::new();
            job.source("ids", source)
                .event_time(|id| *id as i64, Watermarks::monotonous())
                .map(scored)
                .key_by(|s| s.id % KEYS)
                .window("top", Tumbling::of(Duration::from_secs(1)))
                .aggregate(TopK::largest_by(N, |s: &Scored| s.score))
                .map(|w| ids((w.window.start as u64, w.value)))
                .sink("found", found.clone());
            gate.open();
            finished(job.start().unwrap()).await;
            let mut windows = BTreeMap::<(u64, u64), Vec<u64>>::new();
            for id in 0..COUNT {
                windows.entry((id / 1_000 * 1_000, id % KEYS)).or_default().push(id);
            }
            assert_same(found.take(), windows.into_iter().map(|((start, _), ids)| (start, ranking(&ids))));
        }
    });
}

#[test]
fn a_ranking_of_nothing_is_refused_before_the_start() {
    run(async {
        let job = Job::new("refused", settings(1));
        let (source, _) = Gated::new(1, 1);
        job.source("ids", source).key_by(|id| *id).top_n("top", 0, |id| *id).sink("found", Collect::new());
        let error = job.run().await.unwrap_err().to_string();
        assert!(error.contains("ranks no records") && error.contains("hint"), "{error}");
    });
}
