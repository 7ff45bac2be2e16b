//! What sources, sinks and the commit point say of themselves in a job's metrics.
//!
//! The hard case is the end: of an attempt, after which its figures are gone with it, and of the job, after which they
//! are still there, although what they speak of is not.
use crate::kit::{Blast, Bomb, Gate, Gated, GatedReader, end, run, settings, until};
use futures::future::{BoxFuture, ready};
use serde_json::Value;
use std::{
    any::Any,
    sync::{Arc, Mutex, Weak},
};
use tidegate::{
    Collect, Figure, Job, JobMetrics, JobState, Result, Stream,
    extend::{
        checkpoint::{
            commit::{
                CommitContext, CommitPermit, CommitPoint, CommitRecord, OpenCommitPoint, Sealed, StoreCommitPoint,
            },
            manifest::Manifest,
        },
        connect::{OpenSink, Sink, SinkContext, Source, Split, WriterContext},
    },
};

/// Those of its attempts that are still there.
#[derive(Clone, Default)]
struct Alive(Arc<Mutex<Vec<Weak<u64>>>>);

impl Alive {
    fn begin(&self, attempt: u64) -> Arc<u64> {
        let begun = Arc::new(attempt);
        self.0.lock().unwrap().push(Arc::downgrade(&begun));
        begun
    }
    fn count(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|attempt| attempt.strong_count() > 0).count()
    }
}

struct Telling<S>(S, Alive);

impl Source for Telling<Gated> {
    type Item = u64;
    type Reader = GatedReader;
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        self.0.discover()
    }
    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<GatedReader>> {
        self.0.open(split, position)
    }
    fn figures(&self) -> Vec<Figure> {
        vec![Figure::gauge("source", 0.5).with("client", "reader")]
    }
}

struct Open<O>(O, Arc<u64>);

impl Sink<u64> for Telling<Collect<u64>> {
    type Open = Open<<Collect<u64> as Sink<u64>>::Open>;
    fn commit_point(&self) -> Option<Arc<dyn OpenCommitPoint>> {
        Some(Arc::new(Point(self.1.clone())))
    }
    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<Self::Open>> {
        Box::pin(async move {
            let attempt = self.1.begin(context.attempt.0);
            Ok(Open(self.0.recover(context, restored).await?, attempt))
        })
    }
}

impl<O: OpenSink<u64>> OpenSink<u64> for Open<O> {
    type Writer = O::Writer;
    fn writer(&self, context: WriterContext) -> Result<O::Writer> {
        self.0.writer(context)
    }
    fn commit<'a>(&'a self, permit: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        self.0.commit(permit, committables)
    }
    fn figures(&self) -> Vec<Figure> {
        vec![Figure::count("sink", *self.1)]
    }
}

struct Point(Alive);

impl OpenCommitPoint for Point {
    fn place(&self) -> String {
        "the store, and tells".into()
    }
    fn open(&self, context: CommitContext) -> BoxFuture<'_, Result<Arc<dyn CommitPoint>>> {
        let opened = Opened(StoreCommitPoint::new(context.store), self.0.begin(context.attempt.0));
        Box::pin(ready(Ok(Arc::new(opened) as Arc<dyn CommitPoint>)))
    }
}

struct Opened(StoreCommitPoint, Arc<u64>);

impl CommitPoint for Opened {
    fn commit<'a>(&'a self, permit: &'a CommitPermit) -> BoxFuture<'a, Result<()>> {
        self.0.commit(permit)
    }
    fn latest(&self) -> BoxFuture<'_, Result<Option<CommitRecord>>> {
        self.0.latest()
    }
    fn seal<'a>(&'a self, manifest: &'a Manifest) -> BoxFuture<'a, Result<Sealed>> {
        self.0.seal(manifest)
    }
    fn figures(&self) -> Vec<Figure> {
        vec![Figure::count("commits", *self.1)]
    }
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

fn job() -> (Job, Gate, Bomb, Alive) {
    let ((source, gate), alive) = (Gated::new(100, 4), Alive::default());
    let bomb = source.bomb.clone();
    let job = Job::new("told-of", settings(2));
    job.source("in", Telling(source, Alive::default())).sink("out", Telling(Collect::new(), alive.clone()));
    (job, gate, bomb, alive)
}

/// What the source, the sink and the commit point say.
fn told(metrics: &JobMetrics) -> [Option<f64>; 3] {
    let of = |figures: &[Figure], name| figures.iter().find(|f| f.name == name).map(|f| f.value.as_f64());
    let operator = |name| metrics.operator(name).map(|o| o.figures.clone()).unwrap_or_default();
    [of(&operator("in"), "source"), of(&operator("out"), "sink"), of(&metrics.figures, "commits")]
}

fn read(metrics: &JobMetrics) -> Vec<(String, f64)> {
    let all = metrics.operator("in").map(|o| o.figures.clone()).unwrap_or_default();
    let records = all.iter().filter(|f| f.name == "tidegate_split_records_total");
    let mut read: Vec<_> = records.map(|f| (f.label("split").unwrap().to_owned(), f.value.as_f64())).collect();
    read.sort_by(|a, b| a.0.cmp(&b.0));
    read
}

#[test]
fn figures_are_those_of_the_attempt_and_stay_when_the_job_has_ended() {
    run(async {
        let (job, gate, bomb, alive) = job();
        let handle = job.start().unwrap();
        gate.open_to(40);
        until(|| read(&handle.metrics()).iter().map(|(_, n)| n).sum::<f64>() >= 40.0).await;
        assert_eq!(told(&handle.metrics()), [Some(0.5), Some(1.0), Some(1.0)]);
        assert_eq!(read(&handle.metrics()), ["0", "1", "2", "3"].map(|split| (split.to_owned(), 10.0)));
        assert_eq!((alive.count(), handle.metrics().checkpoints.commit), (2, None));
        handle.checkpoint_now().await.unwrap();
        let checkpoints = handle.metrics().checkpoints;
        // To two digits, and rounded up.
        assert!(checkpoints.commit.unwrap().max.as_micros() >= checkpoints.last_commit.as_micros(), "{checkpoints:?}");

        bomb.arm("fill", Blast::Error, 1);
        gate.open();
        let status = handle.watch();
        until(|| status.borrow().state.is_end()).await;
        assert_eq!((status.borrow().state, status.borrow().restarts), (JobState::Finished, 1));
        // Of the second attempt, which has read the rest.
        let metrics = handle.metrics();
        assert_eq!(told(&metrics), [Some(0.5), Some(2.0), Some(2.0)]);
        assert_eq!(read(&metrics), ["0", "1", "2", "3"].map(|split| (split.to_owned(), 15.0)));
        assert_eq!((metrics.operator("in").unwrap().lag, metrics.operator("in").unwrap().records_in), (None, 60));
        until(|| alive.count() == 0).await;
        end(handle).await.0.unwrap();
    });
}
