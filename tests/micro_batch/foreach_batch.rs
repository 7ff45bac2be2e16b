//! `foreach_batch` in one process: what the function gets, how often, and under which number.
//!
//! The function writes down every call. Whatever fails, the calls of one number must be equal, and one call of each
//! number together must be the input.
use crate::{
    kit::{Blast, Bomb, Gated, assert_same, end, finished, run, settings, until},
    store::{Fault, Op, Store},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tidegate::{
    Batch, Error, Job, JobHandle, JobState, Kind, Settings, Stream, extend::checkpoint::manifest::Manifest,
};

/// Every call: the number, and the records.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<(u64, Vec<u64>)>>>);

impl Calls {
    pub fn all(&self) -> Vec<(u64, Vec<u64>)> {
        self.0.lock().unwrap().clone()
    }

    pub fn add(&self, epoch: u64, records: Vec<u64>) {
        self.0.lock().unwrap().push((epoch, records));
    }

    /// One call of each number.
    #[track_caller]
    pub fn batches(&self) -> BTreeMap<u64, Vec<u64>> {
        let mut batches = BTreeMap::new();
        for (epoch, records) in self.all() {
            assert!(!records.is_empty(), "an empty batch of epoch {epoch}");
            let first = batches.entry(epoch).or_insert_with(|| records.clone());
            assert_eq!(*first, records, "epoch {epoch} has come with other records");
        }
        batches
    }

    #[track_caller]
    pub fn assert_exact(&self, expected: impl IntoIterator<Item = u64>) {
        assert_same(self.batches().into_values().flatten(), expected);
    }
}

struct Listed {
    job: Job,
    gate: crate::kit::Gate,
    source: Bomb,
    function: Bomb,
    calls: Calls,
}

fn listed(store: &Store, settings: Settings, count: u64) -> Listed {
    let (source, gate) = Gated::new(count, 3);
    let (bomb, function, calls) = (source.bomb.clone(), Bomb::default(), Calls::default());
    let mut job = Job::new("listed", settings);
    job.checkpoint_store(store.checkpoints("listed"));
    let (armed, noted) = (function.clone(), calls.clone());
    job.source("numbers", source).foreach_batch("out", move |batch: Batch<u64>, epoch| {
        let (armed, noted) = (armed.clone(), noted.clone());
        async move {
            armed.trip("before")?;
            let len = batch.len();
            let records = batch.collect().await?;
            assert_eq!(len, records.len() as u64);
            noted.add(epoch, records);
            armed.trip("after")
        }
    });
    Listed { job, gate, source: bomb, function, calls }
}

async fn taken(handle: &JobHandle, count: u64) {
    until(|| handle.metrics().operator("out").is_some_and(|o| o.records_in == count)).await;
}

#[test]
fn a_batch_is_all_records_of_an_epoch_and_an_epoch_without_any_has_none() {
    run(async {
        for parallelism in [1, 2, 3] {
            let l = listed(&Store::new(), settings(parallelism), 100);
            let handle = l.job.start().unwrap();
            for limit in [10, 10, 10, 55] {
                l.gate.open_to(limit);
                taken(&handle, limit).await;
                handle.checkpoint_now().await.unwrap();
            }
            l.gate.open();
            finished(handle).await;
            let calls = l.calls.all();
            let epochs: Vec<_> = calls.iter().map(|c| c.0).collect();
            assert_eq!(epochs, [1, 4, 5], "parallelism {parallelism}");
            for ((_, records), expected) in calls.iter().zip([0..10, 10..55, 55..100]) {
                assert_same(records.clone(), expected);
            }
        }
    });
}

#[test]
fn what_has_failed_is_called_again_with_the_same_number_and_records_in_the_same_order() {
    run(async {
        for (place, blast) in [("before", Blast::Error), ("after", Blast::Error), ("after", Blast::Panic)] {
            let l = listed(&Store::new(), settings(2), 100);
            let handle = l.job.start().unwrap();
            l.gate.open_to(50);
            taken(&handle, 50).await;
            // Once when it commits, and once when it recovers.
            l.function.arm(place, blast, 2);
            handle.checkpoint_now().await.unwrap_err();
            until(|| l.function.is_spent()).await;
            l.gate.open();
            let status = finished(handle).await;
            assert_eq!(status.restarts, 2, "{status:?}");
            assert!(status.failures.iter().all(|f| f.kind == Kind::User), "{:?}", status.failures);
            let cause = &status.failures[0].cause;
            let named = ["the bomb", "sink out", "epoch 1"].iter().all(|part| cause.contains(part));
            assert!(blast == Blast::Panic || named, "{cause}");
            l.calls.assert_exact(0..100);
            let first = l.calls.all().iter().filter(|c| c.0 == 1).count();
            assert_eq!(first, if place == "before" { 1 } else { 3 });
        }
    });
}

#[test]
fn a_function_that_always_fails_ends_the_job_and_a_later_start_goes_on_with_it() {
    run(async {
        let store = Store::new();
        let l = listed(&store, settings(1), 100);
        l.function.arm("before", Blast::Error, 4);
        l.gate.open_to(50);
        let handle = l.job.start().unwrap();
        taken(&handle, 50).await;
        handle.checkpoint_now().await.unwrap_err();
        let (result, status) = end(handle).await;
        assert_eq!((result.unwrap_err().kind(), status.state, status.restarts), (Kind::User, JobState::Failed, 4));
        let again = listed(&store, settings(2), 100);
        again.gate.open();
        finished(again.job.start().unwrap()).await;
        again.calls.assert_exact(0..100);
        assert_same(again.calls.all()[0].1.clone(), 0..50);
    });
}

#[test]
fn the_records_of_an_abandoned_checkpoint_come_with_the_next() {
    run(async {
        for more in [true, false] {
            let store = Store::new();
            let l = listed(&store, settings(2), 100);
            let handle = l.job.start().unwrap();
            l.gate.open_to(30);
            taken(&handle, 30).await;
            store.on(Op::Put, "/manifests/", Fault::Fails, 1);
            handle.checkpoint_now().await.unwrap_err();
            assert!(l.calls.all().is_empty());
            if more {
                l.gate.open_to(40);
                taken(&handle, 40).await;
            }
            assert_eq!(handle.checkpoint_now().await.unwrap(), 2);
            let calls = l.calls.all();
            let (epoch, records) = &calls[0];
            // Alone, they have the number of the barrier that has cut them, which was never handed over.
            assert_eq!((calls.len(), *epoch), (1, if more { 2 } else { 1 }));
            assert_same(records.clone(), 0..if more { 40 } else { 30 });
            l.gate.open();
            finished(handle).await;
            l.calls.assert_exact(0..100);
        }
    });
}

/// Recovery commits the restored content once more, under the number of what a dead attempt has prepared.
#[test]
fn a_batch_keeps_its_number_when_its_checkpoint_gets_another() {
    run(async {
        let store = Store::new();
        let l = listed(&store, settings(2), 100);
        let handle = l.job.start().unwrap();
        l.gate.open_to(30);
        taken(&handle, 30).await;
        handle.checkpoint_now().await.unwrap();
        // Prepared, and nobody knows whether it has been committed; the attempt after it fails as it opens.
        store.on(Op::Put, "/commits/", Fault::Fails, 1);
        l.source.arm("open", Blast::Error, 1);
        l.gate.open_to(60);
        taken(&handle, 60).await;
        handle.checkpoint_now().await.unwrap_err();
        until(|| l.source.is_spent()).await;
        l.gate.open();
        let status = finished(handle).await;
        assert_eq!((status.restarts, status.restored), (2, Some(2)), "{status:?}");
        let epochs: Vec<_> = l.calls.all().iter().map(|c| c.0).collect();
        assert_eq!(epochs, [1, 1, 1, 3]);
        l.calls.assert_exact(0..100);
    });
}

#[test]
fn a_long_epoch_is_staged_in_several_objects_which_go_with_their_checkpoint() {
    run(async {
        let store = Store::new();
        let (source, gate) = Gated::new(41, 2);
        let mut settings = settings(1);
        settings.checkpoint.retained = 2;
        let mut job = Job::new("long", settings);
        job.checkpoint_store(store.checkpoints("long"));
        let calls = Calls::default();
        let noted = calls.clone();
        job.source("numbers", source).map(|n| (n, "x".repeat(1 << 20))).foreach_batch(
            "out",
            move |mut batch: Batch<(u64, String)>, epoch| {
                let noted = noted.clone();
                async move {
                    let mut numbers = Vec::new();
                    while let Some((n, text)) = batch.next().await? {
                        assert_eq!(text.len(), 1 << 20);
                        numbers.push(n);
                    }
                    noted.add(epoch, numbers);
                    Ok::<_, Error>(())
                }
            },
        );
        let handle = job.start().unwrap();
        for limit in [20, 40] {
            gate.open_to(limit);
            taken(&handle, limit).await;
            handle.checkpoint_now().await.unwrap();
        }
        let objects = async || {
            let contents = store.contents().await;
            let staged: Vec<_> = contents.keys().filter(|p| p.contains("/state/out/")).cloned().collect();
            let manifests = contents.iter().filter(|(path, _)| path.contains("/manifests/"));
            let kept: Vec<_> =
                manifests.flat_map(|(_, m)| Manifest::decode(m).unwrap().staged().collect::<Vec<_>>()).collect();
            assert!(kept.iter().all(|o| contents[&o.path].len() as u64 == o.bytes), "{kept:?}");
            staged.len()
        };
        // 20 MB, in objects of 8.
        assert_eq!(objects().await, 6);
        gate.open();
        finished(handle).await;
        calls.assert_exact(0..41);
        // The last one has one record.
        assert_eq!(objects().await, 4);
    });
}

#[test]
fn a_batch_that_is_damaged_or_missing_is_refused_whatever_the_function_makes_of_it() {
    run(async {
        for missing in [false, true] {
            let store = Store::new();
            let l = listed(&store, settings(1), 100);
            let handle = l.job.start().unwrap();
            l.gate.open_to(50);
            taken(&handle, 50).await;
            l.function.arm("before", Blast::Error, 4);
            handle.checkpoint_now().await.unwrap_err();
            end(handle).await.0.unwrap_err();

            let mut contents = store.contents().await;
            let path = contents.keys().find(|p| p.contains("/state/out/")).unwrap().clone();
            let mut bytes = contents.remove(&path).unwrap().to_vec();
            if !missing {
                *bytes.last_mut().unwrap() ^= 1;
                contents.insert(path.clone(), bytes.into());
            }
            let store = Store::with(&contents).await;
            let (source, gate) = Gated::new(100, 3);
            let mut job = Job::new("listed", settings(1));
            job.checkpoint_store(store.checkpoints("listed"));
            job.source("numbers", source).foreach_batch("out", async |batch: Batch<u64>, _| {
                // It takes no notice.
                let _ = batch.collect().await;
                Ok::<_, Error>(())
            });
            gate.open();
            let (result, status) = end(job.start().unwrap()).await;
            let error = result.unwrap_err();
            assert_eq!((error.kind(), status.restarts), (Kind::Corrupt, 1));
            let text = error.to_string();
            let what = if missing { "is missing" } else { "its checksum does not match" };
            assert!(text.contains(&path) && text.contains(what) && text.contains("sink out"), "{text}");
        }
    });
}

/// What the function did is not known to the job: the last batch comes once more when it is started again.
#[test]
fn a_job_that_has_finished_hands_over_its_last_batch_again_and_nothing_else() {
    run(async {
        let store = Store::new();
        let first = listed(&store, settings(2), 100);
        first.gate.open();
        finished(first.job.start().unwrap()).await;
        let again = listed(&store, settings(3), 100);
        again.gate.open();
        finished(again.job.start().unwrap()).await;
        assert_eq!(again.calls.all(), first.calls.all());
        // That start has made a checkpoint behind it, which has nothing.
        let last = listed(&store, settings(1), 100);
        last.gate.open();
        finished(last.job.start().unwrap()).await;
        assert_eq!(last.calls.all(), []);
    });
}
