//! What is held up must hold up nothing else: a source whose sink takes nothing, a split beside one that
//! never pauses, a watermark that stands still beside one that moves.
use crate::kit::{Gated, run, settings, until};
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use tidegate::{
    Collect, Job, JobState, Result, Settings, Stream, Timestamp, Tumbling, Watermarks,
    extend::{
        checkpoint::{commit::CommitPermit, ids::Epoch},
        connect::{Emit, OpenSink, Progress, Sink, SinkContext, SinkWriter, Source, Split, SplitReader, WriterContext},
    },
};

/// Takes a batch, and then no other.
#[derive(Clone)]
struct Full;

impl Sink<u64> for Full {
    type Open = Self;
    fn recover(&self, _: SinkContext, _: Vec<Value>) -> BoxFuture<'_, Result<Self>> {
        Box::pin(ready(Ok(Self)))
    }
}
impl OpenSink<u64> for Full {
    type Writer = FullWriter;
    fn writer(&self, _: WriterContext) -> Result<FullWriter> {
        Ok(FullWriter(false))
    }
    fn commit<'a>(&'a self, _: &'a CommitPermit, _: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(Ok(())))
    }
}
struct FullWriter(bool);
impl SinkWriter<u64> for FullWriter {
    fn write(&mut self, _: u64, _: Timestamp) -> Result<()> {
        self.0 = true;
        Ok(())
    }
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        if self.0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
    fn barrier(&mut self, _: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}

/// The source cannot answer, however many barriers are waiting for it; the driver has more to do than that.
#[test]
fn a_source_that_is_held_up_does_not_hold_up_the_driver() {
    run(async {
        let mut settings = settings(1);
        settings.checkpoint.interval = Duration::from_millis(1);
        settings.checkpoint.timeout = Duration::from_millis(1);
        let job = Job::new("full", settings);
        let (source, gate) = Gated::new(1_000, 1);
        gate.open();
        job.source("numbers", source).sink("out", Full);
        let handle = job.start().unwrap();
        until(|| handle.metrics().checkpoints.abandoned > 40).await;
        let status = handle.watch();
        handle.cancel().await.unwrap();
        assert_eq!(status.borrow().state, JobState::Cancelled);
    });
}

/// What a split of [`Scripted`] does.
#[derive(Clone)]
enum Script {
    /// Emits 0, 1, 2, ... and always has more, until the flag is set; then it ends.
    Busy(Arc<AtomicBool>),
    /// Waits once, though not for long; then emits 0, sets the flag and ends.
    WaitsOnce(Arc<AtomicBool>),
    /// Emits these and has no more for ever.
    Emits(Vec<u64>),
}

struct Scripted(BTreeMap<&'static str, Script>);

struct Reader {
    script: Script,
    next: u64,
    waited: bool,
}

impl Source for Scripted {
    type Item = u64;
    type Reader = Reader;
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        Box::pin(ready(Ok(self.0.keys().map(|id| Split::new(*id)).collect())))
    }
    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<Reader>> {
        let next = position.map_or(0, |p| p.as_u64().unwrap());
        Box::pin(ready(Ok(Reader { script: self.0[&*split.id].clone(), next, waited: false })))
    }
}

impl SplitReader for Reader {
    type Item = u64;
    fn fill<E: Emit<u64>>(&mut self, _: usize, out: &mut E) -> Result<Progress> {
        match &self.script {
            Script::Busy(until) if until.load(SeqCst) => return Ok(Progress::End),
            Script::Busy(_) => out.record(self.next),
            Script::WaitsOnce(_) if !self.waited => {
                self.waited = true;
                return Ok(Progress::Wait);
            }
            Script::WaitsOnce(flag) => {
                out.record(0);
                flag.store(true, SeqCst);
                return Ok(Progress::End);
            }
            Script::Emits(records) => match records.get(self.next as usize) {
                Some(record) => out.record(*record),
                None => return Ok(Progress::Wait),
            },
        }
        self.next += 1;
        Ok(Progress::More)
    }
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        if matches!(self.script, Script::Emits(_)) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
    fn position(&self) -> Value {
        json!(self.next)
    }
}

#[test]
fn a_split_that_has_waited_once_is_read_again_beside_one_that_always_has_more() {
    run(async {
        let read = Arc::new(AtomicBool::default());
        let splits = [("busy", Script::Busy(read.clone())), ("waits", Script::WaitsOnce(read.clone()))];
        let job = Job::new("fair", settings(1));
        job.source("in", Scripted(splits.into())).sink("out", Collect::new());
        job.run().await.unwrap();
        assert!(read.load(SeqCst));
    });
}

#[test]
fn a_split_that_is_silent_becomes_idle_beside_one_that_always_has_more() {
    run(async {
        let fired = Arc::new(AtomicBool::default());
        let splits = [("busy", Script::Busy(fired.clone())), ("silent", Script::Emits(Vec::new()))];
        let job = Job::new("idle", settings(1));
        let flag = fired.clone();
        job.source("in", Scripted(splits.into()))
            .event_time(|n| *n as i64, Watermarks::monotonous().idle_after(Duration::from_millis(1)))
            .key_by(|_| 0u8)
            .window("windows", Tumbling::of(Duration::from_millis(10)))
            .count()
            .inspect(move |_| flag.store(true, SeqCst))
            .sink("out", Collect::new());
        let handle = job.start().unwrap();
        until(|| fired.load(SeqCst)).await;
        handle.cancel().await.unwrap();
    });
}

/// A split that appears while the job is down begins at the beginning of time, and takes the source's
/// watermark back with it. Its records are as late as they would have been had the job never stopped.
#[test]
fn a_window_that_has_fired_does_not_fire_again_after_a_restart_with_a_new_split() {
    for parallelism in [1, 2] {
        run(async {
            let (windows, store) = (Collect::new(), crate::store::Store::new());
            let start = |splits: &[(&'static str, &[u64])], settings: Settings| {
                let splits = splits.iter().map(|(id, records)| (*id, Script::Emits(records.to_vec())));
                let mut job = Job::new("again", settings);
                job.checkpoint_store(store.checkpoints("again"));
                job.source("in", Scripted(splits.collect()))
                    .event_time(|n| *n as i64, Watermarks::monotonous())
                    .key_by(|_| 0u8)
                    .window("windows", Tumbling::of(Duration::from_millis(100)))
                    .count()
                    .map(|w| (w.window.start, w.value))
                    .sink("out", windows.clone());
                job.start().unwrap()
            };
            let count = |handle: &tidegate::JobHandle| {
                handle.metrics().operator("windows").map_or((0, 0), |o| (o.records_in, o.late))
            };
            let a: &[u64] = &[5, 95, 205];
            let first = start(&[("a", a)], settings(parallelism));
            until(|| count(&first).0 == 3).await;
            first.stop().await.unwrap();
            assert_eq!(windows.take(), [(0, 2)]);
            let second = start(&[("a", a), ("b", &[50, 300])], settings(parallelism));
            until(|| count(&second).0 == 2).await;
            assert_eq!(count(&second).1, 1, "50 is late");
            second.stop().await.unwrap();
            assert_eq!(windows.take(), []);
        });
    }
}
