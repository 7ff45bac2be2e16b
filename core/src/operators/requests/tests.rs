//! The operator by hand: requests that are answered when the test likes, an output that refuses every other call.
use futures::task::noop_waker;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::{
    metrics::stats::StatsRegistry,
    plan::Graph,
    record::BatchOutput,
    runtime::{
        attempt::TaskEvent,
        build::{AttemptContext, Wiring},
    },
    settings::JobTrigger,
    state::backend::Backends,
};
use tidegate_checkpoint::{
    error::Kind,
    ids::{Attempt, Epoch, JobId, Subtask},
    manifest::{Manifest, StateHandle},
    store::CheckpointStore,
};

#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Record(u32),
    Failed(u32, String),
    Control(Control),
}
use Seen::{Control as C, Record as R};

const fn watermark(at: Timestamp) -> Control {
    Control::Watermark(at)
}
fn barrier(epoch: u64, last: bool) -> Control {
    Control::Barrier(Barrier { epoch: Epoch(epoch), last })
}

/// What comes out; every other call of `poll_ready` is refused.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<(Vec<Seen>, u32)>>);

impl Out {
    fn lock(&self) -> MutexGuard<'_, (Vec<Seen>, u32)> {
        self.0.lock().unwrap()
    }
    /// Without the flushes.
    fn take(&self) -> Vec<Seen> {
        let mut seen = std::mem::take(&mut self.lock().0);
        seen.retain(|seen| *seen != C(Control::Flush));
        seen
    }
    fn refuses(&self) -> Poll<Result<()>> {
        self.lock().1 += 1;
        if self.lock().1 % 2 == 1 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}
impl Output<u32> for Out {
    fn record(&mut self, record: u32, _: Timestamp) {
        self.lock().0.push(R(record));
    }
    fn control(&mut self, control: Control) {
        self.lock().0.push(C(control));
    }
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.refuses()
    }
    fn sweep(&mut self) -> bool {
        false
    }
}

/// Where failures go.
struct Aside(Out);
impl BatchOutput<(Failed<u32>, Timestamp)> for Aside {
    fn batch(&mut self, batch: &mut Vec<(Failed<u32>, Timestamp)>) {
        self.0.lock().0.extend(batch.drain(..).map(|(failed, _)| Seen::Failed(failed.record, failed.error)));
    }
    fn control(&mut self, control: Control) {
        self.0.lock().0.push(C(control));
    }
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.refuses()
    }
    fn sweep(&mut self) -> bool {
        false
    }
}

/// Who is asked: what has been asked for waits until the test answers.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<BTreeMap<u32, oneshot::Sender<Answer<u32>>>>>);

impl Desk {
    fn asked(&self) -> Vec<u32> {
        self.0.lock().unwrap().keys().copied().collect()
    }
    fn answer(&self, record: u32) {
        let asked = self.0.lock().unwrap().remove(&record).unwrap();
        asked.send(Ok(record * 10)).unwrap();
    }
    fn refuse(&self, record: u32) {
        let asked = self.0.lock().unwrap().remove(&record).unwrap();
        asked.send(Err(Failure { error: "no".into(), attempts: 3 })).unwrap();
    }
}
impl Ask<u32> for Desk {
    type Reply = u32;
    type Out = u32;
    fn ask(&mut self, record: &u32) -> BoxFuture<'static, Answer<u32>> {
        let (sender, answer) = oneshot::channel();
        self.0.lock().unwrap().insert(*record, sender);
        Box::pin(async move { answer.await.unwrap() })
    }
    fn emit(&mut self, _: u32, reply: u32) -> Option<u32> {
        Some(reply)
    }
}

struct World {
    store: Arc<CheckpointStore>,
    desk: Desk,
    out: Out,
    aside: Out,
    operator: Requests<u32, Desk, Out>,
    events: mpsc::Receiver<TaskEvent>,
    held: Arc<AtomicBool>,
}

/// An operator in the subtask of a job, which goes on from these handles.
async fn world(
    store: Option<Arc<CheckpointStore>>,
    (is_ordered, capacity): (bool, usize),
    on_failure: OnFailure,
    (handles, before): (Vec<StateHandle>, u32),
) -> World {
    let job = JobId::new("j").unwrap();
    let store = store.unwrap_or_else(|| Arc::new(CheckpointStore::open("memory:", job.clone()).unwrap()));
    let (sender, events) = mpsc::channel(16);
    let mut manifest = Manifest::empty(&job, "l", 128, before);
    manifest.states = [(OperatorId::new("ask").unwrap(), handles)].into();
    let context = Arc::new(AttemptContext {
        job,
        attempt: Attempt(1),
        parallelism: 1,
        key_groups: 128,
        trigger: JobTrigger::default(),
        state: Arc::default(),
        lineage: "l".into(),
        store: store.clone(),
        backends: Backends::default(),
        savepoint: None,
        restored: Some(Arc::new(manifest)),
        graph: Graph::default(),
        stats: StatsRegistry::default(),
        events: sender,
        assignments: BTreeMap::new(),
    });
    let mut wiring = Wiring::default();
    let mut build = Build::new(&context, Subtask(0), &mut wiring);
    let (desk, out, aside) = (Desk::default(), Out::default(), Out::default());
    if let OnFailure::Aside(node) = on_failure {
        build.port(node).connect(Box::new(Aside(aside.clone())));
    }
    let how = (desk.clone(), Bounds { is_ordered, capacity }, on_failure);
    let operator = Requests::new(&mut build, ("ask", NodeId(0)), how, out.clone()).unwrap();
    let mut world = World { store, desk, out, aside, operator, events, held: build.held() };
    while world.operator.state.is_none() {
        world.turn().unwrap();
        tokio::task::yield_now().await;
    }
    world
}

impl World {
    /// Polls until nothing moves; whether it is ready then.
    fn turn(&mut self) -> Result<bool> {
        let waker = noop_waker();
        let mut ready = false;
        for _ in 0..8 {
            ready |= Output::poll_ready(&mut self.operator, &mut Context::from_waker(&waker))?.is_ready();
        }
        Ok(ready)
    }
    fn records(&mut self, records: impl IntoIterator<Item = u32>) {
        for record in records {
            Output::record(&mut self.operator, record, record.into());
        }
    }
    fn control(&mut self, control: Control) {
        Output::control(&mut self.operator, control);
    }
    async fn acknowledged(&mut self, epoch: u64) -> Vec<StateHandle> {
        match self.events.recv().await {
            Some(TaskEvent::Ack { epoch: of, ack, .. }) if of == Epoch(epoch) => ack.states,
            other => panic!("{other:?}"),
        }
    }
}

const NOTHING: (Vec<StateHandle>, u32) = (Vec::new(), 1);

#[tokio::test]
async fn a_barrier_overtakes_the_line_which_is_the_state_and_comes_back_behind_its_watermarks() {
    for (is_ordered, before) in [(true, 1), (false, 1), (true, 3)] {
        let mut w = world(None, (is_ordered, 2), OnFailure::Fail, NOTHING).await;
        w.control(watermark(0));
        w.records([1, 2]);
        w.control(watermark(5));
        w.records([3, 4]);
        assert!(!w.turn().unwrap(), "there is room");
        w.desk.answer(1);
        w.turn().unwrap();
        assert_eq!(w.out.take(), [C(watermark(0)), R(10)]);
        w.control(barrier(7, false));
        w.control(watermark(9));
        assert_eq!(w.out.take(), [C(barrier(7, false))]);
        let handles = w.acknowledged(7).await;
        assert_eq!(handles.len(), 1);
        // The first life goes on.
        for record in [2, 3, 4] {
            w.desk.answer(record);
            w.turn().unwrap();
        }
        let rest = [R(20), C(watermark(5)), R(30), R(40), C(watermark(9))];
        assert_eq!(w.out.take(), rest);

        let mut w = world(Some(w.store), (is_ordered, 9), OnFailure::Fail, (handles, before)).await;
        assert_eq!(w.desk.asked(), [2, 3, 4]);
        // What the sources have restored; one of them was idle, and is behind.
        w.control(watermark(3));
        w.turn().unwrap();
        for record in [2, 3, 4] {
            w.desk.answer(record);
        }
        w.turn().unwrap();
        let again = [C(watermark(0)), R(20), C(watermark(5)), R(30), R(40), C(watermark(5))];
        assert_eq!(w.out.take(), again);
    }
}

/// Each list has its own time; what is in the other may be behind it.
#[tokio::test]
async fn of_several_restored_lists_the_watermarks_are_left_out() {
    let mut handles = Vec::new();
    let mut w = world(None, (true, 9), OnFailure::Fail, NOTHING).await;
    for subtask in 0..2 {
        w = world(Some(w.store), (true, 9), OnFailure::Fail, NOTHING).await;
        w.control(watermark(10 - i64::from(subtask)));
        w.records([subtask + 1]);
        w.control(barrier(u64::from(subtask) + 1, false));
        let mut states = w.acknowledged(u64::from(subtask) + 1).await;
        states[0].subtask = Subtask(subtask);
        handles.append(&mut states);
    }
    let mut w = world(Some(w.store), (true, 9), OnFailure::Fail, (handles, 2)).await;
    for record in [1, 2] {
        w.desk.answer(record);
    }
    w.turn().unwrap();
    assert_eq!(w.out.take(), [C(watermark(MIN)), R(10), R(20)]);
}

#[tokio::test]
async fn the_last_barrier_waits_for_all_and_those_behind_it_do_not_overtake_it() {
    let mut w = world(None, (true, 9), OnFailure::Fail, NOTHING).await;
    w.records([1, 2]);
    w.control(watermark(crate::time::MAX));
    w.control(barrier(1, true));
    w.control(barrier(2, true));
    w.turn().unwrap();
    w.desk.answer(2);
    w.turn().unwrap();
    assert_eq!(w.out.take(), []);
    w.desk.answer(1);
    w.turn().unwrap();
    let all = [R(10), R(20), C(watermark(crate::time::MAX)), C(barrier(1, true)), C(barrier(2, true))];
    assert_eq!(w.out.take(), all);
    assert!(w.acknowledged(1).await.is_empty() && w.acknowledged(2).await.is_empty());
}

#[tokio::test]
async fn no_more_is_asked_than_there_is_capacity_and_upstream_is_told_that_it_is_held() {
    let mut w = world(None, (true, 3), OnFailure::Fail, NOTHING).await;
    w.records(1..=2);
    assert!(w.turn().unwrap() && !w.held.load(Relaxed));
    w.records(3..=9);
    assert!(!w.turn().unwrap() && w.held.load(Relaxed));
    assert_eq!(w.desk.asked(), [1, 2, 3]);
    for record in 1..=9 {
        let asked = w.desk.asked();
        assert!(asked.len() <= 3 && asked.contains(&record), "{asked:?}");
        w.desk.answer(record);
        assert_eq!(w.turn().unwrap(), 9 - record < 3);
    }
    assert_eq!(w.out.take(), (1..=9).map(|record| R(record * 10)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_that_fails_fails_the_attempt_or_its_record_is_counted_or_goes_aside_in_its_place() {
    let mut w = world(None, (true, 9), OnFailure::Fail, NOTHING).await;
    w.records([1, 2]);
    w.turn().unwrap();
    w.desk.refuse(2);
    let e = w.turn().unwrap_err();
    assert!(e.kind() == Kind::User && e.to_string().contains("operator ask: a request has failed 3 times: no"), "{e}");

    for on_failure in [OnFailure::Skip, OnFailure::Aside(NodeId(5))] {
        let mut w = world(None, (true, 9), on_failure, NOTHING).await;
        w.records([1, 2, 3]);
        w.control(watermark(4));
        w.turn().unwrap();
        w.desk.refuse(2);
        w.turn().unwrap();
        assert_eq!(w.aside.take(), [], "it has overtaken the first");
        w.desk.answer(3);
        w.desk.answer(1);
        w.control(barrier(1, false));
        w.turn().unwrap();
        let mut seen = w.out.take();
        seen.retain(|seen| *seen != C(barrier(1, false)));
        assert_eq!(seen, [R(10), R(30), C(watermark(4))]);
        let stats = &w.operator.stats;
        let counted = (stats.skipped.load(Relaxed), stats.dead_letters.load(Relaxed));
        if on_failure == OnFailure::Skip {
            assert_eq!((counted, w.aside.take()), ((1, 0), vec![]));
        } else {
            let aside = [C(barrier(1, false)), Seen::Failed(2, "no".into()), C(watermark(4))];
            assert_eq!((counted, w.aside.take()), ((0, 1), aside.into()));
        }
    }
}

/// Else results would wait in a buffer behind for a batch to become full.
#[tokio::test]
async fn what_is_answered_while_upstream_is_quiet_or_held_is_flushed() {
    let mut w = world(None, (true, 2), OnFailure::Fail, NOTHING).await;
    w.records([1]);
    w.turn().unwrap();
    w.desk.answer(1);
    w.turn().unwrap();
    assert_eq!(w.out.lock().0, [R(10)], "upstream has more");
    w.records([2, 3, 4]);
    w.turn().unwrap();
    w.desk.answer(2);
    w.turn().unwrap();
    assert_eq!(w.out.lock().0[1..], [C(Control::Flush), R(20), C(Control::Flush)]);
    w.desk.answer(3);
    w.turn().unwrap();
    w.control(Control::Flush);
    w.desk.answer(4);
    w.turn().unwrap();
    assert_eq!(w.out.lock().0[4..], [R(30), C(Control::Flush), R(40), C(Control::Flush)]);
}
