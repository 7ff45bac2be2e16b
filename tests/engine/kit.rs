//! What the tests of this binary share: a source that waits to be let on, a bomb, a sink that can fail.
//!
//! Nothing is timed. A test lets the source on to a record, asks for a checkpoint, arms the bomb, lets the
//! source on: so what was committed before the failure, and what was not, is the test's choice.
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    fmt::Debug,
    hash::Hash,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use tidegate::{
    Collect, Error, JobHandle, JobState, JobStatus, RestartStrategy, Result, Settings,
    extend::{
        checkpoint::commit::CommitPermit,
        connect::{Emit, OpenSink, Progress, Sink, SinkContext, SinkWriter, Source, Split, SplitReader, WriterContext},
        env::sleep,
    },
};

/// For tests that run [`paused`].
pub const MINUTE: Duration = Duration::from_secs(60);

/// Only asked-for checkpoints, restarts without delay.
pub fn settings(parallelism: u32) -> Settings {
    let mut settings = Settings { parallelism, ..Settings::default() };
    settings.checkpoint.interval = Duration::ZERO;
    settings.restart.strategy = RestartStrategy::FixedDelay;
    settings.restart.delay = Duration::from_millis(1);
    settings.restart.max_restarts = 3;
    settings
}

pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") })
}

/// As [`run`], on a clock that stands while anything is to be done and jumps when all wait for it: a minute is
/// nothing, and what has not come after a minute does not come.
pub fn paused<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let day = Duration::from_secs(86_400);
    runtime.block_on(async { tokio::time::timeout(day, test).await.expect("the test hangs") })
}

/// Waits for a condition; `run` has the deadline.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Ends the job as `wait` does, and returns its last status too.
pub async fn end(handle: JobHandle) -> (Result<()>, JobStatus) {
    let status = handle.watch();
    let result = handle.wait().await;
    (result, status.borrow().clone())
}

pub async fn finished(handle: JobHandle) -> JobStatus {
    let (result, status) = end(handle).await;
    result.unwrap();
    assert_eq!(status.state, JobState::Finished);
    status
}

/// How often each occurs.
pub fn counted<T: Hash + Eq>(items: impl IntoIterator<Item = T>) -> HashMap<T, u32> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

#[track_caller]
pub fn assert_same<T: Hash + Eq + Debug + Clone>(
    found: impl IntoIterator<Item = T>,
    expected: impl IntoIterator<Item = T>,
) {
    let (found, expected) = (counted(found), counted(expected));
    let lost: Vec<_> = expected.iter().filter(|(k, n)| found.get(k).unwrap_or(&0) < n).take(5).collect();
    let doubled: Vec<_> = found.iter().filter(|(k, n)| expected.get(k).unwrap_or(&0) < n).take(5).collect();
    assert!(lost.is_empty() && doubled.is_empty(), "lost, for example, {lost:?}; doubled or foreign {doubled:?}");
}

/// How far all splits of a [`Gated`] source may read.
#[derive(Clone, Default)]
pub struct Gate(Arc<AtomicU64>);

impl Gate {
    /// Lets the source read all records below `limit`.
    pub fn open_to(&self, limit: u64) {
        self.0.fetch_max(limit, SeqCst);
    }
    pub fn open(&self) {
        self.open_to(u64::MAX);
    }
    pub fn lets(&self, record: u64) -> bool {
        record < self.0.load(SeqCst)
    }
}

/// Records `0..count`, dealt to the splits in turn, as far as the gate is open.
pub struct Gated {
    pub gate: Gate,
    pub count: u64,
    pub splits: u64,
    pub bomb: Bomb,
}

impl Gated {
    pub fn new(count: u64, splits: u64) -> (Self, Gate) {
        let gate = Gate::default();
        (Self { gate: gate.clone(), count, splits, bomb: Bomb::default() }, gate)
    }
}

impl Source for Gated {
    type Item = u64;
    type Reader = GatedReader;
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        let found = self.bomb.trip("discover").map(|()| (0..self.splits).map(|s| Split::new(s.to_string())).collect());
        Box::pin(ready(found))
    }
    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<GatedReader>> {
        let next = position.map_or_else(|| split.id.parse().unwrap(), |p| p.as_u64().unwrap());
        let reader = GatedReader {
            gate: self.gate.clone(),
            bomb: self.bomb.clone(),
            next,
            step: self.splits,
            end: self.count,
            wait: None,
        };
        Box::pin(ready(self.bomb.trip("open").map(|()| reader)))
    }
}

pub struct GatedReader {
    gate: Gate,
    bomb: Bomb,
    next: u64,
    step: u64,
    end: u64,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl SplitReader for GatedReader {
    type Item = u64;
    fn fill<E: Emit<u64>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        for _ in 0..budget.min(50) {
            if self.next >= self.end {
                return Ok(Progress::End);
            }
            if !self.gate.lets(self.next) {
                return Ok(Progress::Wait);
            }
            self.bomb.trip("fill")?;
            out.record(self.next);
            self.next += self.step;
        }
        Ok(Progress::More)
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(1))));
        wait.as_mut().poll(cx).map(|()| {
            self.wait = None;
            Ok(())
        })
    }
    fn position(&self) -> Value {
        json!(self.next)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blast {
    Panic,
    Error,
}

/// Goes off at a place by name, so many times, then at the next, one place after the other.
#[derive(Clone, Default)]
pub struct Bomb(Arc<Mutex<VecDeque<(String, Blast, u32)>>>);

impl Bomb {
    pub fn arm(&self, place: &str, blast: Blast, times: u32) {
        self.arm_all([(place, blast, times)]);
    }
    pub fn arm_all<const N: usize>(&self, places: [(&str, Blast, u32); N]) {
        self.0.lock().unwrap().extend(places.map(|(place, blast, times)| (place.to_owned(), blast, times)));
    }
    /// Whether it has gone off as often as it was to.
    pub fn is_spent(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
    pub fn trip(&self, place: &str) -> Result<()> {
        let blast = {
            let mut armed = self.0.lock().unwrap();
            let Some((_, blast, left)) = armed.front_mut().filter(|(at, _, _)| at == place) else { return Ok(()) };
            let blast = *blast;
            *left -= 1;
            if *left == 0 {
                armed.pop_front();
            }
            blast
        };
        match blast {
            Blast::Panic => panic!("the bomb at {place}"),
            Blast::Error => Err(Error::unavailable(format!("the bomb at {place}"))),
        }
    }
    /// For places that cannot return an error.
    pub fn hit(&self, place: &str) {
        self.trip(place).unwrap();
    }
}

/// Collects, and fails where the bomb is.
pub struct Faulty<T>(pub Collect<T>, pub Bomb);

pub struct FaultyOpen<O>(O, Bomb);

pub struct FaultyWriter<W>(W, Bomb);

impl<T: Send + 'static> Sink<T> for Faulty<T> {
    type Open = FaultyOpen<<Collect<T> as Sink<T>>::Open>;
    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<Self::Open>> {
        Box::pin(async move {
            self.1.trip("recover")?;
            Ok(FaultyOpen(self.0.recover(context, restored).await?, self.1.clone()))
        })
    }
}

impl<T: Send + 'static, O: OpenSink<T>> OpenSink<T> for FaultyOpen<O> {
    type Writer = FaultyWriter<O::Writer>;
    fn writer(&self, context: WriterContext) -> Result<Self::Writer> {
        self.1.trip("writer")?;
        Ok(FaultyWriter(self.0.writer(context)?, self.1.clone()))
    }
    fn commit<'a>(&'a self, permit: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.1.trip("commit")?;
            self.0.commit(permit, committables).await
        })
    }
}

impl<T: Send + 'static, W: SinkWriter<T>> SinkWriter<T> for FaultyWriter<W> {
    fn write(&mut self, record: T, at: tidegate::Timestamp) -> Result<()> {
        self.1.trip("write")?;
        self.0.write(record, at)
    }
    fn barrier(&mut self, epoch: tidegate::extend::checkpoint::ids::Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        // In the call and in what it returns: the one is on the subtask, the other in the background.
        if let Err(e) = self.1.trip("barrier") {
            return Box::pin(ready(Err(e)));
        }
        let (staged, bomb) = (self.0.barrier(epoch), self.1.clone());
        Box::pin(async move {
            bomb.trip("stage")?;
            staged.await
        })
    }
}
