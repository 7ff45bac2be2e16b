//! The triggers `available-now` and `once`: what is there is read, and nothing that comes meanwhile.
//!
//! "Meanwhile" is made by the job itself: a record puts others on the shelf as it passes, so they are there long before
//! the reader has come to its end.
use crate::{
    foreach_batch::Calls,
    kit::{Blast, Bomb, assert_same, finished, paused, run, settings},
    shelf::Shelf,
    store::Store,
};
use futures::future::BoxFuture;
use std::{fs, sync::Arc, time::Duration};
use tidegate::{
    Batch, Collect, FileSource, Generator, Job, JobTrigger, Kind, Settings, Stream, Tumbling, Watermarks,
    extend::{
        checkpoint::{
            commit::{CommitContext, CommitPoint, OpenCommitPoint},
            manifest::Manifest,
        },
        connect::{Sink, SinkContext},
    },
};

fn triggered(parallelism: u32, trigger: JobTrigger) -> Settings {
    let mut settings = Settings { trigger, ..settings(parallelism) };
    settings.checkpoint.interval = Duration::from_millis(1);
    settings.checkpoint.retained = 1_000;
    settings
}

/// Over a shelf that grows by 500 while it is read; a bomb in the function.
fn growing(store: &Store, shelf: &Shelf, settings: Settings) -> (Job, Calls, Bomb) {
    let (calls, bomb) = (Calls::default(), Bomb::default());
    let mut job = Job::new("growing", settings);
    job.checkpoint_store(store.checkpoints("growing"));
    let (grown, noted, armed) = (shelf.clone(), calls.clone(), bomb.clone());
    job.source("numbers", shelf.clone())
        .inspect(move |n| {
            if *n == 3 {
                grown.put(0, 1_000..1_400);
                grown.put(9, 1_400..1_500);
            }
        })
        .foreach_batch("out", move |batch: Batch<u64>, epoch| {
            let (noted, armed) = (noted.clone(), armed.clone());
            async move {
                noted.add(epoch, batch.collect().await?);
                armed.trip("function")
            }
        });
    (job, calls, bomb)
}

async fn commits(store: &Store) -> Vec<Manifest> {
    let contents = store.contents().await;
    let epochs = contents.keys().filter(|path| path.contains("/commits/")).count();
    let manifests = contents.iter().filter(|(path, _)| path.contains("/manifests/"));
    let manifests: Vec<_> = manifests.map(|(_, bytes)| Manifest::decode(bytes).unwrap()).collect();
    assert_eq!(manifests.len(), epochs, "prepared and not committed");
    manifests
}

#[test]
fn what_comes_while_it_is_read_is_the_next_starts() {
    run(async {
        for trigger in [JobTrigger::AvailableNow, JobTrigger::Once] {
            for parallelism in [1, 2, 3] {
                let (store, shelf) =
                    (Store::new(), Shelf::with([(0..80).collect(), (80..100).collect()]).discovering());
                let (job, calls, _) = growing(&store, &shelf, triggered(parallelism, trigger));
                finished(job.start().unwrap()).await;
                calls.assert_exact(0..100);
                let (job, rest, _) = growing(&store, &shelf, triggered(parallelism, trigger));
                finished(job.start().unwrap()).await;
                let new = rest.batches().into_iter().filter(|(epoch, _)| !calls.batches().contains_key(epoch));
                assert_same(new.flat_map(|(_, records)| records), 1_000..1_500);
                let (job, none, _) = growing(&store, &shelf, triggered(parallelism, trigger));
                finished(job.start().unwrap()).await;
                assert!(none.batches().keys().all(|epoch| rest.batches().contains_key(epoch)), "nothing has come");
            }
        }
    });
}

#[test]
fn once_is_exactly_one_checkpoint_however_short_the_interval_and_whoever_asks_for_one() {
    run(async {
        let (store, shelf) = (Store::new(), Shelf::with([(0..5_000).collect(), (5_000..9_000).collect()]));
        let (job, calls, _) = growing(&store, &shelf, triggered(2, JobTrigger::Once));
        let handle = job.start().unwrap();
        assert_eq!(handle.checkpoint_now().await.unwrap(), 1);
        finished(handle).await;
        let made = commits(&store).await;
        assert_eq!(made.iter().map(|m| (m.epoch.0, m.last)).collect::<Vec<_>>(), [(1, true)]);
        assert_eq!(calls.all().len(), 1);
        calls.assert_exact(0..9_000);
        let (job, again, _) = growing(&store, &shelf, triggered(1, JobTrigger::Once));
        finished(job.start().unwrap()).await;
        assert_eq!(commits(&store).await.len(), 2);
        assert_eq!(again.batches().keys().copied().collect::<Vec<_>>(), [1, 2]);
    });
}

/// Whatever fails: an attempt before anything has been committed begins again; one whose checkpoint has been, and whose
/// batch has not been taken, has only to hand it over.
#[test]
fn once_is_one_checkpoint_when_attempts_fail_too() {
    run(async {
        for place in ["fill", "open", "function"] {
            let (store, shelf) = (Store::new(), Shelf::with([(10..500).collect()]));
            let (job, calls, function) = growing(&store, &shelf, triggered(1, JobTrigger::Once));
            let bomb = if place == "function" { &function } else { &shelf.bomb };
            bomb.arm(place, Blast::Error, 3);
            let status = finished(job.start().unwrap()).await;
            assert_eq!(status.restarts, 3, "{place}: {status:?}");
            let made = commits(&store).await;
            assert_eq!(made.iter().filter(|m| m.last).count(), 1, "{place}");
            assert_eq!(calls.batches().len(), 1, "{place}");
            assert_eq!(calls.all().len(), if place == "function" { 4 } else { 1 }, "{place}");
            calls.assert_exact(10..500);
        }
    });
}

/// In any trigger: what is left to do is to publish.
#[test]
fn an_attempt_after_the_last_checkpoint_makes_no_other() {
    run(async {
        for trigger in [JobTrigger::Continuous, JobTrigger::AvailableNow] {
            let store = Store::new();
            let bomb = Bomb::default();
            let mut settings = triggered(2, trigger);
            settings.checkpoint.interval = Duration::ZERO;
            let mut job = Job::new("last", settings);
            job.checkpoint_store(store.checkpoints("last"));
            let out = Collect::new();
            job.source("numbers", Generator::new(100, |n| n).splits(2))
                .sink("out", crate::kit::Faulty(out.clone(), bomb.clone()));
            bomb.arm("commit", Blast::Error, 1);
            assert_eq!(finished(job.start().unwrap()).await.restarts, 1);
            assert_eq!(commits(&store).await.len(), 1);
            assert_same(out.take(), 0..100);
            // It has cleaned up behind the one before, as the last one of any run does.
            let claims: Vec<_> =
                store.contents().await.into_keys().filter(|path| path.contains("/attempts/")).collect();
            assert!(claims.len() == 1 && claims[0].ends_with('2'), "{claims:?}");
        }
    });
}

#[test]
fn available_now_makes_checkpoints_at_the_interval() {
    paused(async {
        let store = Store::new();
        let mut settings = triggered(1, JobTrigger::AvailableNow);
        settings.checkpoint.interval = Duration::from_millis(100);
        let mut job = Job::new("interval", settings);
        job.checkpoint_store(store.checkpoints("interval"));
        let out = Collect::new();
        // Two seconds of records.
        job.source("numbers", Generator::new(100, |n| n).rate(50.0)).sink("out", out.clone());
        finished(job.start().unwrap()).await;
        assert_same(out.take(), 0..100);
        let made = commits(&store).await.len();
        assert!((15..=22).contains(&made), "{made}");
    });
}

#[test]
fn a_watched_directory_ends_with_the_files_and_the_lines_that_were_there() {
    run(async {
        for trigger in [JobTrigger::AvailableNow, JobTrigger::Once] {
            let (directory, store) = (tempfile::tempdir().unwrap(), Store::new());
            let path = directory.path().to_owned();
            // Many chunks, so that the reader is far from the end when the line is added.
            let lines = |from: u64, to: u64| (from..to).map(|n| format!("{n}\n")).collect::<String>();
            fs::write(path.join("a.txt"), lines(0, 20_000)).unwrap();
            let start = |out: &Collect<u64>| {
                let mut job = Job::new("files", triggered(2, trigger));
                job.checkpoint_store(store.checkpoints("files"));
                let grown = path.clone();
                job.source("lines", FileSource::text(path.join("*.txt")).watch(Duration::from_millis(1)))
                    .map(|line| line.parse::<u64>().unwrap())
                    .inspect(move |n| {
                        if *n == 1 {
                            fs::write(grown.join("b.txt"), "100000\n").unwrap();
                            let mut file = fs::OpenOptions::new().append(true).open(grown.join("a.txt")).unwrap();
                            std::io::Write::write_all(&mut file, b"20000\n20001\n").unwrap();
                        }
                    })
                    .sink("out", out.clone());
                job.start().unwrap()
            };
            let out = Collect::new();
            finished(start(&out)).await;
            assert_same(out.take(), 0..20_000);
            finished(start(&out)).await;
            assert_same(out.take(), [20_000, 20_001, 100_000]);
        }
    });
}

/// It has been cut, not ended: windows that are open are gone on with by the next start, and fire once, complete.
#[test]
fn open_windows_wait_for_the_next_start() {
    run(async {
        for parallelism in [1, 2] {
            let (store, shelf) = (Store::new(), Shelf::with([(0..25).collect()]));
            let start = |counts: &Collect<(i64, u64)>| {
                let mut job = Job::new("open", triggered(parallelism, JobTrigger::AvailableNow));
                job.checkpoint_store(store.checkpoints("open"));
                job.source("numbers", shelf.clone())
                    .event_time(|n| *n as i64, Watermarks::monotonous())
                    .key_by(|_| 0u8)
                    .window("tens", Tumbling::of(Duration::from_millis(10)))
                    .count()
                    .map(|w| (w.window.start, w.value))
                    .sink("counts", counts.clone());
                job.start().unwrap()
            };
            let counts = Collect::new();
            finished(start(&counts)).await;
            assert_same(counts.take(), [(0, 10), (10, 10)]);
            finished(start(&counts)).await;
            assert_same(counts.take(), []);
            shelf.put(0, 25..41);
            finished(start(&counts)).await;
            assert_same(counts.take(), [(20, 10), (30, 10)]);
        }
    });
}

/// A split that has been read holds back nobody whose records are still to be read.
#[test]
fn aligned_splits_are_read_to_their_ends() {
    run(async {
        for parallelism in [1, 2] {
            let shelf = Shelf::with([vec![0], (0..10_000).collect()]);
            let job = Job::new("aligned", triggered(parallelism, JobTrigger::AvailableNow));
            let out = Collect::new();
            let aligned = Watermarks::monotonous().align(Duration::from_millis(10));
            job.source("numbers", shelf).event_time(|n| *n as i64, aligned).sink("out", out.clone());
            finished(job.start().unwrap()).await;
            assert_eq!(out.len(), 10_001);
        }
    });
}

struct Endless;

impl tidegate::extend::connect::Source for Endless {
    type Item = u64;
    type Reader = crate::shelf::ShelfReader;
    fn discover(&self) -> BoxFuture<'_, tidegate::Result<Vec<tidegate::extend::connect::Split>>> {
        unreachable!("it must not be asked")
    }
    fn open(
        &self,
        _: tidegate::extend::connect::Split,
        _: Option<serde_json::Value>,
    ) -> BoxFuture<'_, tidegate::Result<Self::Reader>> {
        unreachable!("it must not be opened")
    }
}

/// A place with transactions, which is not to be reached.
struct Transactions;

impl OpenCommitPoint for Transactions {
    fn place(&self) -> String {
        "a database".into()
    }
    fn open(&self, _: CommitContext) -> BoxFuture<'_, tidegate::Result<Arc<dyn CommitPoint>>> {
        unreachable!("it must not be opened")
    }
}

struct Transactional(Collect<u64>);

impl Sink<u64> for Transactional {
    type Open = <Collect<u64> as Sink<u64>>::Open;
    fn commit_point(&self) -> Option<Arc<dyn OpenCommitPoint>> {
        Some(Arc::new(Transactions))
    }
    fn recover(
        &self,
        context: SinkContext,
        restored: Vec<serde_json::Value>,
    ) -> BoxFuture<'_, tidegate::Result<Self::Open>> {
        self.0.recover(context, restored)
    }
}

#[test]
fn a_source_without_an_end_and_a_transaction_as_long_as_the_job_are_refused_before_the_start() {
    run(async {
        let refused = |job: Job, words: &[&str]| {
            let error = job.start().unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.hint_text().is_some(), "{error}");
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            assert!(job.explain().is_err());
        };
        for (trigger, name) in [(JobTrigger::AvailableNow, "available-now"), (JobTrigger::Once, "once")] {
            let job = Job::new("endless", triggered(1, trigger));
            job.source("mine", Endless).sink("out", Collect::new());
            refused(job, &[name, "source mine", "Source::can_end"]);
            let job = Job::new("endless", triggered(1, trigger));
            job.source("made", Generator::new(u64::MAX, |n| n)).sink("out", Collect::new());
            refused(job, &[name, "source made", "for ever"]);
        }
        let job = Job::new("transactional", triggered(1, JobTrigger::Once));
        job.source("numbers", Generator::new(1, |n| n)).sink("out", Transactional(Collect::new()));
        refused(job, &["once", "a database", "available-now"]);
    });
}

#[test]
fn the_plan_shows_the_trigger() {
    let job = Job::new("shown", triggered(1, JobTrigger::Every(Duration::from_secs(90))));
    job.source("numbers", Generator::new(1, |n| n)).sink("out", Collect::new());
    let plan = job.explain().unwrap();
    assert!(plan.contains("trigger every 1m 30s\n"), "{plan}");
}
