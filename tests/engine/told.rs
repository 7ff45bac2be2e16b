//! What a source is told of completed checkpoints, and how it is opened when a job that has ended is run again.
//!
//! The last checkpoint is the hard case: it must be told before the job ends, and a source that does not listen must
//! not keep the job from ending.
use crate::{
    kit::{Gate, Gated, GatedReader, finished, paused, settings},
    store::Store,
};
use futures::future::{BoxFuture, pending, ready};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tidegate::{
    Collect, Error, Job, Result, Stream,
    extend::{
        connect::{Source, Split},
        env::{now, sleep},
    },
};

#[derive(Clone, Copy, PartialEq)]
enum Listens {
    AtOnce,
    Slowly,
    Never,
    Badly,
}

#[derive(Clone, Default)]
struct Seen {
    /// By call: the splits' positions.
    told: Arc<Mutex<Vec<Vec<u64>>>>,
    again: Arc<Mutex<Vec<String>>>,
}

struct Watched(Gated, Listens, Seen);

impl Source for Watched {
    type Item = u64;
    type Reader = GatedReader;
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        self.0.discover()
    }
    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<GatedReader>> {
        self.0.open(split, position)
    }
    fn open_again(&self, split: Split, position: Value) -> BoxFuture<'_, Result<GatedReader>> {
        self.2.again.lock().unwrap().push(split.id.clone());
        self.0.open(split, Some(position))
    }
    fn committed(&self, positions: Vec<(String, Value)>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            match self.1 {
                Listens::Never => pending().await,
                Listens::Slowly => sleep(std::time::Duration::from_secs(5)).await,
                Listens::AtOnce | Listens::Badly => {}
            }
            let positions = positions.into_iter().map(|(_, position)| position.as_u64().unwrap()).collect();
            self.2.told.lock().unwrap().push(positions);
            ready(if self.1 == Listens::Badly { Err(Error::unavailable("deaf")) } else { Ok(()) }).await
        })
    }
}

fn job(store: &Store, listens: Listens, count: u64) -> (Job, Gate, Seen) {
    let (source, gate) = Gated::new(count, 2);
    let seen = Seen::default();
    let mut job = Job::new("told", settings(1));
    job.checkpoint_store(store.checkpoints("told"));
    job.source("in", Watched(source, listens, seen.clone())).sink("out", Collect::new());
    (job, gate, seen)
}

#[test]
fn a_source_is_told_of_every_checkpoint_that_it_has_time_for_and_of_the_last() {
    paused(async {
        for listens in [Listens::AtOnce, Listens::Slowly, Listens::Never, Listens::Badly] {
            let (job, gate, seen) = job(&Store::new(), listens, 100);
            let began = now();
            let handle = job.start().unwrap();
            for limit in [20, 40, 60] {
                gate.open_to(limit);
                sleep(std::time::Duration::from_millis(100)).await;
                handle.checkpoint_now().await.unwrap();
            }
            gate.open();
            finished(handle).await;
            let told = seen.told.lock().unwrap().clone();
            let (first, second, third, last) = (vec![20, 21], vec![40, 41], vec![60, 61], vec![100, 101]);
            match listens {
                Listens::AtOnce | Listens::Badly => assert_eq!(told, [first, second, third, last]),
                Listens::Slowly => assert_eq!(told, [first, last]),
                Listens::Never => assert_eq!(told, Vec::<Vec<u64>>::new()),
            }
            assert!(now().duration_since(began).as_secs() < 12);
        }
    });
}

#[test]
fn a_split_that_had_ended_is_opened_again_only_when_the_job_had_too() {
    paused(async {
        let store = Store::new();
        let (first, gate, seen) = job(&store, Listens::AtOnce, 3);
        gate.open();
        finished(first.start().unwrap()).await;
        assert!(seen.again.lock().unwrap().is_empty());
        let (second, gate, seen) = job(&store, Listens::AtOnce, 5);
        gate.open_to(4);
        let handle = second.start().unwrap();
        sleep(std::time::Duration::from_millis(100)).await;
        handle.checkpoint_now().await.unwrap();
        handle.cancel().await.unwrap();
        assert_eq!(*seen.again.lock().unwrap(), ["0", "1"]);
        // Split 1 has ended here too, but not the job.
        let (third, gate, seen) = job(&store, Listens::AtOnce, 5);
        gate.open();
        finished(third.start().unwrap()).await;
        assert!(seen.again.lock().unwrap().is_empty());
    });
}
