//! Process functions: state and timers of one's own, over every kind of backend, with restores at another parallelism.
use crate::{
    kit::{Gate, Gated, assert_same, finished, run, until},
    parts::{BACKENDS, over},
    store::Store,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate::{
    BoxedStream, CoProcessFunction, Collect, Context, Job, OutputTag, ProcessFunction, Settings, Stream, TimeToLive,
    Timer, Timestamp, Watermarks,
};
use tidegate_core::testkit::entries::Entries;

const COUNT: u64 = 3_000;
const KEYS: u64 = 150;
/// Between the bursts of a key; those within it are closer.
const GAP_MS: i64 = 4_000;

/// An event: its number says which key it is of, and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Event {
    key: u64,
    at: Timestamp,
    id: u64,
}

/// Each hundred are of ten keys, somewhere within a second and a half; the same keys come again after fifteen seconds.
fn event(id: u64) -> Event {
    let (burst, within) = (id / 100, id % 100);
    let at = burst as i64 * 1_000 + (within * 7919 % 1_500) as i64;
    Event { key: burst * 10 % KEYS + within % 10, at, id }
}

/// Of several splits, one may be read far ahead of another: then an event that is old comes behind newer ones, and is in
/// time all the same.
fn events(job: &Job, splits: u64) -> (BoxedStream<Event>, Gate) {
    let (source, gate) = Gated::new(COUNT, splits);
    let watermarks = Watermarks::bounded(Duration::from_secs(3)).every(1);
    (
        job.source(&format!("events-{splits}"), source).event_time(|id| event(*id).at, watermarks).map(event).boxed(),
        gate,
    )
}

/// Gives each key's events in their order, with their number.
#[derive(Clone)]
struct Sorted {
    seen: OutputTag<u64>,
}
#[derive(Default, Serialize, Deserialize)]
struct Waiting {
    events: Vec<Event>,
    given: u64,
}
impl ProcessFunction<u64, Event> for Sorted {
    type State = Waiting;
    type Output = (Event, u64);
    fn process(&mut self, event: Event, state: &mut Waiting, ctx: &mut Context<'_, u64, (Event, u64)>) {
        assert_eq!(*ctx.key(), event.key);
        ctx.set_timer(event.at);
        ctx.side(&self.seen, event.id);
        state.events.push(event);
    }
    fn on_timer(&mut self, timer: Timer, state: &mut Waiting, ctx: &mut Context<'_, u64, (Event, u64)>) {
        assert_eq!(timer, Timer::Event(ctx.timestamp()));
        let (mut due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.events).into_iter().partition(|event| event.at == ctx.timestamp());
        due.sort();
        state.events = rest;
        for event in due {
            state.given += 1;
            ctx.emit((event, state.given));
        }
    }
}

/// Tells when a key has been silent, and since when; keeps nothing then.
#[derive(Clone)]
struct Silence;
impl ProcessFunction<u64, Event> for Silence {
    type State = Option<(Timestamp, u64)>;
    type Output = (u64, Timestamp, u64);
    fn process(&mut self, event: Event, state: &mut Self::State, ctx: &mut Context<'_, u64, Self::Output>) {
        let (last, count) = state.unwrap_or((event.at, 0));
        ctx.delete_timer(last + GAP_MS);
        *state = Some((last.max(event.at), count + 1));
        ctx.set_timer(last.max(event.at) + GAP_MS);
    }
    fn on_timer(&mut self, _: Timer, state: &mut Self::State, ctx: &mut Context<'_, u64, Self::Output>) {
        let (last, count) = state.take().expect("a silence is told once");
        ctx.emit((*ctx.key(), last, count));
        ctx.clear();
    }
}

struct Outputs {
    job: Job,
    gates: [Gate; 2],
    sorted: Collect<(Event, u64)>,
    seen: Collect<u64>,
    silences: Collect<(u64, Timestamp, u64)>,
}

fn job(store: &Store, settings: Settings) -> Outputs {
    let mut job = Job::with_backends("process", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("process"));
    let ((apart, gate), (together, gate_of_one)) = (events(&job, 3), events(&job, 1));
    let (sorted, seen, silences) = (Collect::new(), Collect::new(), Collect::new());
    let tag = OutputTag::new("seen");
    let mut in_order = apart.key_by(|e| e.key).process("sorted", Sorted { seen: tag.clone() });
    in_order.side_output(&tag).sink("seen", seen.clone());
    in_order.sink("in-order", sorted.clone());
    together.key_by(|e| e.key).process("silence", Silence).sink("silences", silences.clone());
    Outputs { job, gates: [gate, gate_of_one], sorted, seen, silences }
}

fn expected() -> (Vec<(Event, u64)>, Vec<(u64, Timestamp, u64)>) {
    let mut by_key = BTreeMap::<u64, Vec<Event>>::new();
    for id in 0..COUNT {
        by_key.entry(event(id).key).or_default().push(event(id));
    }
    let (mut sorted, mut silences) = (Vec::new(), Vec::new());
    for (key, mut events) in by_key {
        events.sort_by_key(|e| (e.at, e.id));
        let ends = events.chunk_by(|a, b| b.at - a.at < GAP_MS);
        silences.extend(ends.map(|burst| (key, burst[burst.len() - 1].at, burst.len() as u64)));
        sorted.extend(events.into_iter().zip(1..));
    }
    (sorted, silences)
}

#[test]
fn timers_fire_once_and_in_order_over_every_backend_and_across_restores() {
    run(async {
        for backend in BACKENDS {
            for parallelism in [[1, 3, 2], [3, 1, 1]] {
                let store = Store::new();
                let (mut sorted, mut seen, mut silences) = (Vec::new(), Vec::new(), Vec::new());
                for (part, parallelism) in (1..).zip(parallelism) {
                    let p = job(&store, over(backend, parallelism));
                    p.gates.iter().for_each(|gate| gate.open_to(if part == 3 { COUNT } else { COUNT / 3 * part }));
                    let handle = p.job.start().unwrap();
                    if part == 3 {
                        finished(handle).await;
                    } else {
                        handle.checkpoint_now().await.unwrap();
                        handle.cancel().await.unwrap();
                    }
                    sorted.extend(p.sorted.take());
                    seen.extend(p.seen.take());
                    silences.extend(p.silences.take());
                }
                let (expected_sorted, expected_silences) = expected();
                assert_same(sorted, expected_sorted);
                assert_same(seen, 0..COUNT);
                assert_same(silences, expected_silences);
            }
        }
    });
}

/// Counts, and never clears.
#[derive(Clone)]
struct Counting;
impl ProcessFunction<u64, Event> for Counting {
    type State = u64;
    type Output = (u64, u64);
    fn process(&mut self, _: Event, state: &mut u64, ctx: &mut Context<'_, u64, (u64, u64)>) {
        *state += 1;
        ctx.emit((*ctx.key(), *state));
    }
}

#[test]
fn state_goes_when_nobody_has_used_it_for_its_time_to_live() {
    run(async {
        for backend in BACKENDS {
            let job = Job::with_backends("ttl", over(backend, 2), [Arc::new(Entries) as _]);
            let (events, gate) = events(&job, 1);
            let counts = Collect::new();
            let counting = events.key_by(|e| e.key).process("count", Counting);
            let live = Duration::from_millis(GAP_MS as u64);
            counting.time_to_live(TimeToLive::EventTime(live)).sink("counts", counts.clone());
            assert!(job.explain().unwrap().contains("4s"), "{}", job.explain().unwrap());
            gate.open();
            finished(job.start().unwrap()).await;
            // Each burst of a key begins anew.
            let bursts = expected().1;
            assert_same(
                counts.take(),
                bursts.into_iter().flat_map(|(key, _, count)| (1..=count).map(move |n| (key, n))),
            );
        }
    });
}

#[test]
fn timers_of_processing_time_fire_while_nothing_comes_and_after_a_restore() {
    #[derive(Clone)]
    struct Later;
    impl ProcessFunction<u64, Event> for Later {
        type State = u64;
        type Output = (u64, u64);
        fn process(&mut self, event: Event, state: &mut u64, ctx: &mut Context<'_, u64, (u64, u64)>) {
            *state += 1;
            let due = ctx.processing_time() + if event.id < 100 { 50 } else { 1_000 };
            ctx.set_processing_timer(due);
        }
        fn on_timer(&mut self, timer: Timer, state: &mut u64, ctx: &mut Context<'_, u64, (u64, u64)>) {
            let Timer::Processing(at) = timer else { panic!("{timer:?}") };
            assert!(at <= ctx.processing_time());
            if *state > 0 {
                ctx.emit((*ctx.key(), std::mem::take(state)));
            }
        }
    }
    run(async {
        for backend in BACKENDS {
            let store = Store::new();
            let make = |parallelism| {
                let mut job = Job::with_backends("later", over(backend, parallelism), [Arc::new(Entries) as _]);
                job.checkpoint_store(store.checkpoints("later"));
                let (events, gate) = events(&job, 1);
                let found = Collect::new();
                events.key_by(|e| e.key).process("later", Later).sink("found", found.clone());
                (job, gate, found)
            };
            let (job, gate, found) = make(2);
            gate.open_to(100);
            let handle = job.start().unwrap();
            // What has been emitted comes with the next checkpoint.
            let mut sum = 0;
            while sum < 100 {
                handle.checkpoint_now().await.unwrap();
                sum += found.take().into_iter().map(|(_, count): (u64, u64)| count).sum::<u64>();
            }
            gate.open_to(200);
            until(|| handle.metrics().operators.iter().any(|o| o.name == "later" && o.records_in >= 200)).await;
            handle.checkpoint_now().await.unwrap();
            handle.cancel().await.unwrap();
            sum += found.take().into_iter().map(|(_, count): (u64, u64)| count).sum::<u64>();
            let (job, _gate, found) = make(3);
            let handle = job.start().unwrap();
            while sum < 200 {
                handle.checkpoint_now().await.unwrap();
                sum += found.take().into_iter().map(|(_, count): (u64, u64)| count).sum::<u64>();
            }
            assert_eq!(sum, 200);
            handle.cancel().await.unwrap();
        }
    });
}

#[test]
fn two_streams_meet_at_their_key() {
    #[derive(Clone)]
    struct Sums;
    impl CoProcessFunction<u64, Event, u64> for Sums {
        type State = (u64, u64);
        type Output = (u64, u64, u64);
        fn left(&mut self, _: Event, state: &mut (u64, u64), ctx: &mut Context<'_, u64, (u64, u64, u64)>) {
            state.0 += 1;
            ctx.set_timer(i64::MAX - 1);
        }
        fn right(&mut self, n: u64, state: &mut (u64, u64), ctx: &mut Context<'_, u64, (u64, u64, u64)>) {
            state.1 += n;
            ctx.set_timer(i64::MAX - 1);
        }
        fn on_timer(&mut self, _: Timer, state: &mut (u64, u64), ctx: &mut Context<'_, u64, (u64, u64, u64)>) {
            ctx.emit((*ctx.key(), state.0, state.1));
        }
    }
    run(async {
        for (backend, parallelism) in BACKENDS.into_iter().flat_map(|b| [(b, 1), (b, 3)]) {
            let job = Job::with_backends("two", over(backend, parallelism), [Arc::new(Entries) as _]);
            let (events, gate) = events(&job, 1);
            let sums = Collect::new();
            let numbers = events.clone().filter(|e| e.id % 3 == 0).map(|e| e.id).key_by(|id| event(*id).key);
            events.key_by(|e| e.key).connect(numbers).process("both", Sums).sink("sums", sums.clone());
            gate.open();
            finished(job.start().unwrap()).await;
            let mut expected = BTreeMap::<u64, (u64, u64)>::new();
            for id in 0..COUNT {
                let sums = expected.entry(event(id).key).or_default();
                *sums = (sums.0 + 1, sums.1 + if id % 3 == 0 { id } else { 0 });
            }
            assert_same(sums.take(), expected.into_iter().map(|(key, (a, b))| (key, a, b)));
        }
    });
}

#[test]
fn an_error_of_the_functions_fails_the_attempt_and_says_where() {
    #[derive(Clone)]
    struct Failing;
    impl ProcessFunction<u64, Event> for Failing {
        type State = ();
        type Output = u64;
        fn process(&mut self, _: Event, (): &mut (), ctx: &mut Context<'_, u64, u64>) {
            ctx.fail("no such event");
        }
    }
    run(async {
        let job = Job::with_backends("failing", over(BACKENDS[0], 1), [Arc::new(Entries) as _]);
        let (events, gate) = events(&job, 1);
        events.key_by(|e| e.key).process("failing", Failing).sink("out", Collect::new());
        gate.open();
        let error = job.run().await.unwrap_err().to_string();
        assert!(error.contains("operator failing") && error.contains("no such event"), "{error}");
    });
}
