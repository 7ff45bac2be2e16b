//! The trigger `every`: when batches begin, and what is in them. On a paused clock, so that a moment is a moment.
use crate::{
    foreach_batch::Calls,
    kit::{Blast, Bomb, Gate, assert_same, finished, paused, run, settings, until},
    shelf::Shelf,
    store::{Fault, Op, Store},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate::{
    Batch, Collect, Error, Generator, Job, JobTrigger, Settings, Stream, Tumbling, Watermarks,
    extend::env::{Instant, now, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

fn every(parallelism: u32, pause: Duration) -> Settings {
    // The interval is nothing to a job that reads in batches.
    let mut settings = Settings { trigger: JobTrigger::Every(pause), ..settings(parallelism) };
    settings.checkpoint.interval = Duration::from_millis(1);
    settings
}

/// Calls, and when they were made.
#[derive(Clone)]
struct Timed {
    calls: Calls,
    began: Instant,
    at: Arc<Mutex<Vec<u64>>>,
    /// How long the function takes.
    takes: Duration,
}

impl Timed {
    fn new(takes: Duration) -> Self {
        Self { calls: Calls::default(), began: now(), at: Arc::default(), takes }
    }
    fn records(&self) -> Vec<Vec<u64>> {
        self.calls.all().into_iter().map(|(_, records)| records).collect()
    }
    /// In seconds.
    fn times(&self) -> Vec<u64> {
        self.at.lock().unwrap().clone()
    }
    fn sink(&self, stream: impl Stream<Item = u64>) {
        let this = self.clone();
        stream.foreach_batch("out", move |batch: Batch<u64>, epoch| {
            let this = this.clone();
            async move {
                this.at.lock().unwrap().push(now().duration_since(this.began).as_secs());
                this.calls.add(epoch, batch.collect().await?);
                sleep(this.takes).await;
                Ok::<_, Error>(())
            }
        });
    }
    async fn at(&self, second: u64) {
        sleep((self.began + SECOND * second as u32).saturating_duration_since(now())).await;
    }
}

#[test]
fn a_batch_is_what_is_there_when_it_begins_and_nothing_is_read_between_two() {
    paused(async {
        for parallelism in [1, 2] {
            let shelf = Shelf::with([(0..50).collect(), (50..100).collect()]).discovering();
            let (timed, grown) = (Timed::new(Duration::ZERO), shelf.clone());
            let job = Job::new("every", every(parallelism, SECOND * 10));
            let stream = job.source("numbers", shelf.clone()).inspect(move |n| {
                // In the middle of the first batch.
                if *n == 7 {
                    grown.put(0, 100..110);
                }
            });
            timed.sink(stream);
            let handle = job.start().unwrap();
            let read = || handle.metrics().operator("numbers").map_or(0, |o| o.records_in);
            timed.at(1).await;
            assert_eq!(read(), 100);
            shelf.put(1, 110..120);
            shelf.put(2, 120..130);
            timed.at(9).await;
            assert_eq!(read(), 100, "read between two batches");
            timed.at(15).await;
            // Nothing for the third; the fourth.
            timed.at(25).await;
            shelf.put(0, [130]);
            timed.at(35).await;
            handle.stop().await.unwrap();
            let records = timed.records();
            for (found, expected) in records.iter().zip([0..100, 100..130, 130..131]) {
                assert_same(found.clone(), expected);
            }
            assert_eq!((records.len(), timed.times()), (3, vec![0, 10, 30]));
        }
    });
}

#[test]
fn a_batch_that_is_late_begins_at_once_and_the_next_is_counted_from_it() {
    paused(async {
        let shelf = Shelf::with([vec![0]]);
        let timed = Timed::new(SECOND * 25);
        let job = Job::new("late", every(1, SECOND * 10));
        timed.sink(job.source("numbers", shelf.clone()));
        let handle = job.start().unwrap();
        for second in [2, 27] {
            timed.at(second).await;
            shelf.put(0, [second]);
        }
        timed.at(80).await;
        // From 0 to 25, then at once to 50, and again.
        assert_eq!((timed.times(), timed.records()), (vec![0, 25, 50], vec![vec![0], vec![2], vec![27]]));
        shelf.put(0, [80]);
        timed.at(99).await;
        // Empty ones have begun at 75 and 85.
        assert_eq!(timed.times(), [0, 25, 50, 85]);
        handle.cancel().await.unwrap();
    });
}

#[test]
fn every_batch_is_one_checkpoint() {
    paused(async {
        let (store, shelf, timed) = (Store::new(), Shelf::with([vec![0]]), Timed::new(Duration::ZERO));
        let mut job = Job::new("counted", every(2, SECOND * 10));
        job.checkpoint_store(store.checkpoints("counted"));
        timed.sink(job.source("numbers", shelf.clone()));
        let handle = job.start().unwrap();
        for batch in 1..5u64 {
            timed.at(batch * 10 - 5).await;
            assert_eq!(handle.metrics().checkpoints.completed, batch);
            assert_eq!(timed.calls.all().last().unwrap().0, batch);
            shelf.put(0, [batch]);
        }
        // One that is asked for is made between two batches, and has nothing.
        assert_eq!(handle.checkpoint_now().await.unwrap(), 5);
        assert_eq!(timed.calls.all().len(), 4);
        timed.at(45).await;
        assert_eq!((timed.calls.all().last().unwrap().0, timed.times()), (6, vec![0, 10, 20, 30, 40]));
        handle.stop().await.unwrap();
        timed.calls.assert_exact(0..5);
    });
}

#[test]
fn a_maximum_divides_what_is_there() {
    paused(async {
        for (parallelism, sizes) in [(1, vec![30, 30, 30, 10]), (2, vec![30, 30, 30, 10])] {
            let (timed, settings) = (Timed::new(Duration::ZERO), every(parallelism, SECOND));
            let job = Job::new("maximum", settings);
            let shelf = Shelf::with([(0..50).collect(), (50..100).collect()]);
            timed.sink(job.source("numbers", shelf).max_per_batch(30));
            let handle = job.start().unwrap();
            timed.at(10).await;
            handle.stop().await.unwrap();
            assert_eq!(timed.records().iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            assert_eq!(timed.times(), [0, 1, 2, 3]);
            timed.calls.assert_exact(0..100);
        }
        // One record a subtask at least, or it would never read any.
        let (timed, job) = (Timed::new(Duration::ZERO), Job::new("least", every(3, SECOND)));
        timed.sink(job.source("numbers", Shelf::with([vec![0, 1], vec![2, 3], vec![4, 5]])).max_per_batch(0));
        let handle = job.start().unwrap();
        timed.at(5).await;
        handle.stop().await.unwrap();
        assert_eq!(timed.records().iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        timed.calls.assert_exact(0..6);
    });
}

/// Nor does one whose split has been read to its bound: see `aligned_splits_are_read_to_their_ends`.
#[test]
fn a_subtask_that_has_read_its_maximum_holds_no_aligned_split_back() {
    paused(async {
        let timed = Timed::new(Duration::ZERO);
        let job = Job::new("aligned", every(2, SECOND));
        let shelf = Shelf::with([(0..50).collect(), (1..=50).map(|n| n * 100).collect()]);
        let aligned = Watermarks::monotonous().align(Duration::from_millis(10));
        timed.sink(job.source("numbers", shelf).max_per_batch(10).event_time(|n| *n as i64, aligned));
        let handle = job.start().unwrap();
        timed.at(30).await;
        handle.stop().await.unwrap();
        timed.calls.assert_exact((0..50).chain((1..=50).map(|n| n * 100)));
        assert!(timed.records().iter().all(|batch| batch.len() <= 10));
    });
}

/// A source that ends by itself ends the job, in as many batches as it takes; its end is the end of the input.
#[test]
fn a_bounded_source_ends_the_job() {
    paused(async {
        let timed = Timed::new(Duration::ZERO);
        let job = Job::new("bounded", every(2, SECOND));
        timed.sink(job.source("numbers", Generator::new(100, |n| n).splits(2)).max_per_batch(40));
        finished(job.start().unwrap()).await;
        timed.calls.assert_exact(0..100);
        assert_eq!(timed.times(), [0, 1, 2]);
        // What the clock grants is what is there.
        let timed = Timed::new(Duration::ZERO);
        let job = Job::new("paced", every(1, SECOND));
        timed.sink(job.source("numbers", Generator::new(100, |n| n).rate(20.0)));
        finished(job.start().unwrap()).await;
        timed.calls.assert_exact(0..100);
        let sizes: Vec<_> = timed.records().iter().map(Vec::len).collect();
        assert!(sizes.len() >= 6 && sizes[1..5].iter().all(|size| (19..=21).contains(size)), "{sizes:?}");
    });
}

/// One that never has nothing, and does not know what there is, reads until the next batch is due.
#[test]
fn an_endless_source_gets_on_in_batches() {
    run(async {
        let job = Job::new("endless", every(2, Duration::from_millis(50)));
        let sums = Collect::new();
        job.source("numbers", Generator::new(u64::MAX, |n| n).splits(2))
            .key_by(|_| 0u8)
            .fold("count", 0u64, |count, _| *count += 1)
            .filter(|(_, count)| count % 1_000 == 0)
            .map(|(_, count)| count)
            .sink("counts", sums.clone());
        let handle = job.start().unwrap();
        until(|| handle.metrics().checkpoints.completed >= 4).await;
        handle.stop().await.unwrap();
        let counts = sums.take();
        assert!(!counts.is_empty() && counts.iter().zip(1..).all(|(count, n)| *count == n * 1_000));
    });
}

#[test]
fn a_failed_batch_is_read_again_and_an_abandoned_one_goes_with_the_next() {
    paused(async {
        let (store, shelf, timed) = (Store::new(), Shelf::with([(0..10).collect()]), Timed::new(Duration::ZERO));
        let mut job = Job::new("failed", every(2, SECOND * 10));
        job.checkpoint_store(store.checkpoints("failed"));
        let bomb = Bomb::default();
        let armed = bomb.clone();
        timed.sink(job.source("numbers", shelf.clone()).inspect(move |_| armed.hit("inspect")));
        bomb.arm("inspect", Blast::Panic, 1);
        let handle = job.start().unwrap();
        timed.at(5).await;
        assert_eq!((handle.status().restarts, timed.records().len()), (1, 1));
        shelf.put(0, 10..20);
        store.on(Op::Put, "/manifests/", Fault::Fails, 1);
        timed.at(15).await;
        assert_eq!((handle.status().last_abandoned.is_some(), timed.records().len()), (true, 1));
        shelf.put(0, 20..30);
        timed.at(25).await;
        assert_same(timed.records()[1].clone(), 10..30);
        handle.stop().await.unwrap();
        timed.calls.assert_exact(0..30);
    });
}

/// It does not wait for a source that keeps the batch waiting.
#[test]
fn stop_cuts_a_batch_that_is_being_read() {
    paused(async {
        for parallelism in [1, 2] {
            let (timed, gate) = (Timed::new(Duration::ZERO), Gate::default());
            let held = Held(gate.clone());
            let job = Job::new("stopped", every(parallelism, SECOND));
            timed.sink(job.source("numbers", held));
            gate.open_to(5);
            let handle = job.start().unwrap();
            timed.at(3).await;
            assert_eq!((handle.metrics().checkpoints.completed, timed.records().len()), (0, 0));
            handle.stop().await.unwrap();
            assert_same(timed.records().concat(), 0..5);
        }
    });
}

/// Knows of ten numbers, and has those that the gate lets through.
struct Held(Gate);

struct HeldReader(Gate, u64);

impl tidegate::extend::connect::Source for Held {
    type Item = u64;
    type Reader = HeldReader;
    fn discover(&self) -> futures::future::BoxFuture<'_, tidegate::Result<Vec<tidegate::extend::connect::Split>>> {
        Box::pin(std::future::ready(Ok(vec![tidegate::extend::connect::Split::new("0")])))
    }
    fn open(
        &self,
        _: tidegate::extend::connect::Split,
        position: Option<serde_json::Value>,
    ) -> futures::future::BoxFuture<'_, tidegate::Result<HeldReader>> {
        let next = position.map_or(0, |p| p.as_u64().unwrap());
        Box::pin(std::future::ready(Ok(HeldReader(self.0.clone(), next))))
    }
}

impl tidegate::extend::connect::SplitReader for HeldReader {
    type Item = u64;
    fn fill<E: tidegate::extend::connect::Emit<u64>>(
        &mut self,
        _: usize,
        out: &mut E,
    ) -> tidegate::Result<tidegate::extend::connect::Progress> {
        while self.0.lets(self.1) {
            out.record(self.1);
            self.1 += 1;
        }
        Ok(tidegate::extend::connect::Progress::Wait)
    }
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<tidegate::Result<()>> {
        std::task::Poll::Pending
    }
    fn bound(&mut self) -> bool {
        true
    }
    fn is_at_bound(&self) -> bool {
        self.1 >= 10
    }
    fn position(&self) -> serde_json::Value {
        serde_json::json!(self.1)
    }
}

/// Batches are further apart than the idle time-out: that nothing is read meanwhile says nothing of a split. One that
/// has had nothing in a batch is idle.
#[test]
fn no_split_becomes_idle_by_waiting_for_the_next_batch() {
    paused(async {
        for parallelism in [1, 2] {
            // Each batch has the times of one minute, in both splits; the third split has nothing after the first.
            let times = |batch: u64| (batch * 60..(batch + 1) * 60).map(|second| second * 1_000);
            let shelf = Shelf::with([times(0).collect(), times(0).collect(), vec![0]]);
            let counts = Collect::new();
            let job = Job::new("idle", every(parallelism, SECOND * 60));
            let watermarks = Watermarks::monotonous().idle_after(SECOND * 5);
            job.source("times", shelf.clone())
                .event_time(|at| *at as i64, watermarks)
                .key_by(|_| 0u8)
                .window("minutes", Tumbling::of(SECOND * 60))
                .count()
                .map(|w| (w.window.start / 60_000, w.value))
                .sink("counts", counts.clone());
            let began = now();
            let handle = job.start().unwrap();
            for batch in 1..6 {
                sleep((began + SECOND * (60 * batch - 30)).saturating_duration_since(now())).await;
                for split in [0, 1] {
                    shelf.put(split, times(u64::from(batch)));
                }
            }
            sleep((began + SECOND * 330).saturating_duration_since(now())).await;
            assert_eq!(handle.metrics().operator("minutes").unwrap().late, 0, "parallelism {parallelism}");
            handle.stop().await.unwrap();
            let found = counts.take();
            assert_same(found, [(0, 121), (1, 120), (2, 120), (3, 120), (4, 120)]);
        }
    });
}
