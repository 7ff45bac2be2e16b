//! Joins against nested loops: on input that is out of order, doubled and late, over every kind of backend, with restores
//! at another parallelism in the middle.
//!
//! What is late at a join may depend on how far its two inputs have come, so the loops leave out what the job says was
//! late. That this is only what may be, and that the late ones have no other part in it, is what is checked.
use crate::{
    kit::{Gate, Gated, assert_same, finished, run, until},
    parts::{BACKENDS, over},
    store::Store,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate::{
    BoxedStream, Collect, Collection, Connected, Either, Hopping, Job, Session, Settings, Stream, Timestamp, Tumbling,
    Watermarks,
};
use tidegate_core::testkit::entries::Entries;

const COUNT: u64 = 500;
const KEYS: u64 = 6;
const LAG: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Event {
    key: u64,
    at: Timestamp,
    id: u64,
}

type Row = (Option<Event>, Option<Event>);

/// Ten a second on each side, somewhere within a second and a half; some twice, and a few far too late.
fn event(number: u64, side: u64) -> Event {
    let id = if number % 25 == 24 { number - 1 } else { number };
    let mixed = (id + 1 + side * 1_000).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let late = if may_be_late(id) { 15_000 } else { 0 };
    let at = id as i64 * 100 + (mixed % 7) as i64 * 250 - late;
    Event { key: mixed / 7 % KEYS, at, id }
}

fn may_be_late(id: u64) -> bool {
    id % 31 == 30
}

fn events(side: u64) -> Vec<Event> {
    (0..COUNT).map(|number| event(number, side)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
}
const KINDS: [Kind; 4] = [Kind::Inner, Kind::Left, Kind::Right, Kind::Full];

/// All pairs that match, and what is left over of the sides that the kind keeps.
fn nested_loops(left: &[Event], right: &[Event], kind: Kind, matches: impl Fn(&Event, &Event) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let fits = |l: &Event, r: &Event| l.key == r.key && matches(l, r);
    for l in left {
        let found: Vec<_> = right.iter().filter(|r| fits(l, r)).collect();
        if found.is_empty() && matches!(kind, Kind::Left | Kind::Full) {
            rows.push((Some(l.clone()), None));
        }
        rows.extend(found.into_iter().map(|r| (Some(l.clone()), Some(r.clone()))));
    }
    if matches!(kind, Kind::Right | Kind::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| fits(l, r)));
        rows.extend(alone.map(|r| (None, Some(r.clone()))));
    }
    rows
}

type Late = BoxedStream<Either<Event, Event>>;

/// The four kinds of a join that has them as methods.
macro_rules! of_kind {
    ($join:expr, $kind:expr, |$($of:ident),*|) => {
        match $kind {
            Kind::Inner => $join.inner(|$($of,)* l: &Event, r: &Event| (Some(l.clone()), Some(r.clone()))).boxed(),
            Kind::Left => $join.left(|$($of,)* l: &Event, r: Option<&Event>| (Some(l.clone()), r.cloned())).boxed(),
            Kind::Right => $join.right(|$($of,)* l: Option<&Event>, r: &Event| (l.cloned(), Some(r.clone()))).boxed(),
            Kind::Full => $join.full(|$($of,)* l: Option<&Event>, r: Option<&Event>| (l.cloned(), r.cloned())).boxed(),
        }
    };
}

#[derive(Clone, Default)]
struct Outputs {
    rows: Collect<Row>,
    late: Collect<Either<Event, Event>>,
    /// Rows counted by key and second.
    counts: Collect<(u64, Timestamp, u64)>,
    late_behind: Collect<Row>,
}

fn key_of((left, right): &Row) -> u64 {
    left.as_ref().or(right.as_ref()).map_or(0, |e| e.key)
}

fn job(
    store: &Store,
    settings: Settings,
    join: impl Fn(BoxedStream<Event>, BoxedStream<Event>) -> (BoxedStream<Row>, Late),
    splits: u64,
) -> (Job, Vec<Gate>, Outputs) {
    let mut job = Job::with_backends("joins", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("joins"));
    let (mut gates, outputs) = (Vec::new(), Outputs::default());
    let mut stream = |side: u64| {
        let (source, gate) = Gated::new(COUNT, splits);
        gates.push(gate);
        job.source(if side == 0 { "left" } else { "right" }, source)
            .event_time(move |number| event(*number, side).at, Watermarks::bounded(LAG).every(1))
            .map(move |number| event(number, side))
            .boxed()
    };
    let (found, late) = join(stream(0), stream(1));
    found.clone().sink("rows", outputs.rows.clone());
    late.sink("late", outputs.late.clone());
    let mut behind = found.key_by(key_of).window("behind", Tumbling::of(Duration::from_secs(1)));
    behind.late().sink("late-behind", outputs.late_behind.clone());
    behind.count().map(|w| (w.key, w.window.start, w.value)).sink("counts", outputs.counts.clone());
    (job, gates, outputs)
}

/// What a join has come to.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    counts: Vec<(u64, Timestamp, u64)>,
    late: [Vec<Event>; 2],
    late_behind: usize,
}

/// Runs a join in three parts.
async fn joined(
    backend: (&str, u64),
    parallelism: [u32; 3],
    splits: u64,
    join: impl Fn(BoxedStream<Event>, BoxedStream<Event>) -> (BoxedStream<Row>, Late),
) -> Found {
    let store = Store::new();
    let mut found = Found::default();
    for (part, parallelism) in (1..).zip(parallelism) {
        let (job, gates, outputs) = job(&store, over(backend, parallelism), &join, splits);
        // One side has come further than the other.
        let end = if part == 3 { COUNT } else { COUNT / 3 * part };
        gates[0].open_to(end);
        gates[1].open_to(end + 40);
        let handle = job.start().unwrap();
        if part == 3 {
            finished(handle).await;
        } else {
            let has_read = |name: &str| handle.metrics().operator(name).is_some_and(|o| o.records_out >= COUNT / 3);
            until(|| has_read("left") && has_read("right")).await;
            handle.checkpoint_now().await.unwrap();
            handle.cancel().await.unwrap();
        }
        found.late_behind += outputs.late_behind.take().len();
        found.rows.extend(outputs.rows.take());
        found.counts.extend(outputs.counts.take());
        for record in outputs.late.take() {
            match record {
                Either::Left(event) => found.late[0].push(event),
                Either::Right(event) => found.late[1].push(event),
            }
        }
    }
    found
}

/// All of a side but for the late ones, which must be among those that may be.
fn in_time(side: u64, late: &[Event]) -> Vec<Event> {
    let mut events = events(side);
    for event in late {
        assert!(may_be_late(event.id), "{event:?}");
        let index = events.iter().position(|e| e == event).expect("it is late once");
        events.swap_remove(index);
    }
    events
}

impl Found {
    fn check(self, kind: Kind, matches: impl Fn(&Event, &Event) -> bool, time: impl Fn(&Row) -> Timestamp) {
        assert_eq!(self.late_behind, 0, "rows are late behind the join");
        let [left, right] = [0, 1].map(|side| in_time(side as u64, &self.late[side]));
        let expected = nested_loops(&left, &right, kind, matches);
        let mut counts = BTreeMap::<_, u64>::new();
        for row in &expected {
            *counts.entry((key_of(row), time(row).div_euclid(1_000) * 1_000)).or_default() += 1;
        }
        assert_same(self.rows, expected);
        assert_same(self.counts, counts.into_iter().map(|((key, start), count)| (key, start, count)));
    }
}

fn runs() -> impl Iterator<Item = ((&'static str, u64), [u32; 3], u64)> {
    BACKENDS.into_iter().flat_map(|backend| [(backend, [1, 3, 2], 1), (backend, [3, 1, 1], 3)])
}

#[test]
fn an_interval_join_finds_what_nested_loops_find() {
    run(async {
        let mut late = 0;
        let bounds = [(-2_000, 3_000), (500, 4_000), (-6_000, -1_000), (0, 0)];
        for (turn, (backend, parallelism, splits)) in runs().enumerate() {
            for (kind, (lower, upper)) in KINDS.into_iter().zip(bounds.into_iter().cycle().skip(turn)) {
                let found = joined(backend, parallelism, splits, |left, right| {
                    let pair = left.key_by(|e| e.key).join(right.key_by(|e| e.key));
                    let mut join = pair.interval("join", lower, upper);
                    let late = join.late();
                    (of_kind!(join, kind, |_key|), late)
                })
                .await;
                late += found.late[0].len() + found.late[1].len();
                let time = |(l, r): &Row| l.iter().chain(r).map(|e| e.at).max().unwrap();
                found.check(kind, |l, r| (l.at + lower..=l.at + upper).contains(&r.at), time);
            }
        }
        assert!(late > 0, "nothing was late");
    });
}

#[test]
fn a_window_join_finds_what_nested_loops_find() {
    const LENGTH: i64 = 4_000;
    run(async {
        let mut late = 0;
        for ((backend, parallelism, splits), kind) in runs().flat_map(|run| KINDS.map(|kind| (run, kind))) {
            let found = joined(backend, parallelism, splits, |left, right| {
                let pair = left.key_by(|e| e.key).join(right.key_by(|e| e.key));
                let mut join = pair.window("join", Tumbling::of(Duration::from_millis(LENGTH as u64)));
                let late = join.late();
                (of_kind!(join, kind, |_key, _window|), late)
            })
            .await;
            late += found.late[0].len() + found.late[1].len();
            let start = |e: &Event| e.at.div_euclid(LENGTH) * LENGTH;
            let time = |(l, r): &Row| start(l.as_ref().or(r.as_ref()).unwrap()) + LENGTH - 1;
            found.check(kind, |l, r| start(l) == start(r), time);
        }
        assert!(late > 0, "nothing was late");
    });
}

#[test]
fn a_join_over_hopping_windows_finds_what_nested_loops_find_in_each() {
    const SIZE: i64 = 4_000;
    const HOP: i64 = 1_500;
    let in_time = |side| events(side).into_iter().filter(|e| !may_be_late(e.id)).collect::<Vec<_>>();
    let millis = |ms: i64| Duration::from_millis(ms as u64);
    run(async {
        for ((backend, parallelism, splits), kind) in runs().zip(KINDS.into_iter().cycle()) {
            let found = joined(backend, parallelism, splits, |left, right| {
                let [left, right] = [left, right].map(|side| side.filter(|e| !may_be_late(e.id)).key_by(|e| e.key));
                let mut join = left.join(right).window("join", Hopping::of(millis(SIZE), millis(HOP)));
                let late = join.late();
                (of_kind!(join, kind, |_key, _window|), late)
            })
            .await;
            assert!(found.late.iter().all(Vec::is_empty));
            assert_eq!(found.late_behind, 0);
            let mut expected = Vec::new();
            for start in (-SIZE / HOP..COUNT as i64 * 100 / HOP + 5).map(|n| n * HOP) {
                let within = |side| in_time(side).into_iter().filter(|e| (start..start + SIZE).contains(&e.at));
                let [left, right] = [0, 1].map(|side| within(side).collect::<Vec<_>>());
                expected.extend(nested_loops(&left, &right, kind, |_, _| true));
            }
            assert_same(found.rows, expected);
        }
    });
}

#[test]
fn a_join_over_sessions_pairs_what_is_of_one_session() {
    run(async {
        for backend in BACKENDS {
            let job = Job::with_backends("sessions", over(backend, 2), [Arc::new(Entries) as _]);
            let stream = |name: &str, events: &[(u64, Timestamp)]| {
                let events = Collection::new(events.to_vec());
                job.source(name, events).event_time(|e| e.1, Watermarks::monotonous().every(1)).key_by(|e| e.0)
            };
            let shown = stream("shown", &[(1, 0), (1, 1_500), (2, 2_000), (1, 10_000)]);
            let clicked = stream("clicked", &[(1, 800), (2, 9_000), (1, 10_500), (1, 11_000)]);
            let found = Collect::new();
            shown
                .join(clicked)
                .window("sessions", Session::gap(Duration::from_secs(1)))
                .full(|_, window, l, r| (window.start, window.end, l.map(|l| l.1), r.map(|r| r.1)))
                .sink("found", found.clone());
            finished(job.start().unwrap()).await;
            assert_same(
                found.take(),
                [
                    (0, 2_500, Some(0), Some(800)),
                    (0, 2_500, Some(1_500), Some(800)),
                    (2_000, 3_000, Some(2_000), None),
                    (9_000, 10_000, None, Some(9_000)),
                    (10_000, 12_000, Some(10_000), Some(10_500)),
                    (10_000, 12_000, Some(10_000), Some(11_000)),
                ],
            );
        }
    });
}

#[test]
fn a_late_record_within_the_allowed_lateness_makes_its_own_pairs_and_no_others() {
    const LENGTH: i64 = 4_000;
    run(async {
        for (backend, parallelism, splits) in runs() {
            let found = joined(backend, parallelism, splits, |left, right| {
                let pair = left.key_by(|e| e.key).join(right.key_by(|e| e.key));
                let windows = Tumbling::of(Duration::from_millis(LENGTH as u64));
                let mut join = pair.window("join", windows).allowed_lateness(Duration::from_secs(60));
                let late = join.late();
                // They are late behind the join, where nobody allows for it.
                let kept = join.inner(|_, _, l, r| (Some(l.clone()), Some(r.clone())));
                (kept.boxed(), late)
            });
            let found = found.await;
            assert!(found.late.iter().all(Vec::is_empty));
            let start = |e: &Event| e.at.div_euclid(LENGTH);
            assert_same(found.rows, nested_loops(&events(0), &events(1), Kind::Inner, |l, r| start(l) == start(r)));
        }
    });
}

/// One version is as good as another of the same time.
fn of_its_time(version: &Event) -> Event {
    Event { id: 0, ..version.clone() }
}

#[test]
fn an_as_of_join_finds_the_version_that_was_in_force() {
    run(async {
        let mut late = 0;
        for ((backend, parallelism, splits), kind) in runs().flat_map(|run| [(run, Kind::Inner), (run, Kind::Left)]) {
            let found = joined(backend, parallelism, splits, |left, right| {
                let versions = right.filter(|e| !may_be_late(e.id)).key_by(|e| e.key);
                let mut join = left.key_by(|e| e.key).join(versions).as_of("join");
                let late = join.late().map(Either::Left).boxed();
                let rows = match kind {
                    Kind::Inner => join.inner(|_, l, r| (Some(l.clone()), Some(of_its_time(r)))).boxed(),
                    _ => join.left(|_, l, r| (Some(l.clone()), r.map(of_its_time))).boxed(),
                };
                (rows, late)
            })
            .await;
            late += found.late[0].len();
            let versions: Vec<_> = events(1).into_iter().filter(|e| !may_be_late(e.id)).collect();
            let mut expected = Vec::new();
            for left in in_time(0, &found.late[0]) {
                let past = versions.iter().filter(|v| v.key == left.key && v.at <= left.at);
                let version = past.max_by_key(|v| v.at).map(of_its_time);
                if version.is_some() || kind == Kind::Left {
                    expected.push((Some(left), version));
                }
            }
            assert!(kind == Kind::Inner || expected.iter().any(|(_, version)| version.is_none()));
            assert_same(found.rows, expected);
        }
        assert!(late > 0, "nothing was late");
    });
}

#[test]
fn an_as_of_join_forgets_keys_that_nobody_has_used_for_their_time_to_live() {
    run(async {
        for backend in BACKENDS {
            let job = Job::with_backends("ttl", over(backend, 2), [Arc::new(Entries) as _]);
            let stream = |name: &str, events: &[(u64, Timestamp)]| {
                let events = Collection::new(events.to_vec());
                job.source(name, events).event_time(|e| e.1, Watermarks::monotonous().every(1)).key_by(|e| e.0)
            };
            let orders = stream("orders", &[(1, 10), (1, 900), (2, 1_000), (1, 5_000), (2, 6_000)]);
            let rates = stream("rates", &[(1, 5), (2, 950), (3, 5_500)]);
            let join = orders.join(rates).as_of("rated").time_to_live(Duration::from_secs(3));
            let found = Collect::new();
            join.left(|_, order, rate| (*order, rate.map(|rate| rate.1))).sink("found", found.clone());
            assert!(job.explain().unwrap().contains("bounded by a time to live of 3s"));
            finished(job.start().unwrap()).await;
            let expected = [((1, 10), Some(5)), ((1, 900), Some(5)), ((2, 1_000), Some(950))];
            assert_same(found.take(), expected.into_iter().chain([((1, 5_000), None), ((2, 6_000), None)]));
        }
    });
}

#[test]
fn an_interval_without_ends_is_a_cross_product() {
    run(async {
        for (lower, upper) in [(i64::MIN, i64::MAX), (-i64::MAX, i64::MAX), (i64::MIN, 0), (0, i64::MAX)] {
            let found = joined(BACKENDS[1], [1, 3, 2], 1, |left, right| {
                let mut join = left.key_by(|e| e.key).join(right.key_by(|e| e.key)).interval("join", lower, upper);
                let late = join.late();
                (join.full(|_, l, r| (l.cloned(), r.cloned())).boxed(), late)
            })
            .await;
            let time = |(l, r): &Row| l.iter().chain(r).map(|e| e.at).max().unwrap();
            found.check(
                Kind::Full,
                |l, r| (l.at.saturating_add(lower)..=l.at.saturating_add(upper)).contains(&r.at),
                time,
            );
        }
    });
}

#[test]
fn the_plan_says_what_bounds_a_joins_state_and_a_job_that_cannot_work_does_not_start() {
    let described = |timed: bool, join: &dyn Fn(Pair) -> BoxedStream<u64>| {
        let job = Job::new("joins", over(BACKENDS[0], 1));
        let left = job.source("left", Collection::new([1u64]));
        let left = left.event_time(|id| *id as i64, Watermarks::monotonous()).boxed();
        let right = job.source("right", Collection::new([1u64]));
        let right =
            if timed { right.event_time(|id| *id as i64, Watermarks::monotonous()).boxed() } else { right.boxed() };
        let key = (|id: &u64| *id) as fn(&u64) -> u64;
        join(left.key_by(key).join(right.key_by(key))).sink("out", Collect::new());
        job.explain().map_err(|e| e.to_string())
    };
    type Pair = Connected<BoxedStream<u64>, fn(&u64) -> u64, BoxedStream<u64>, fn(&u64) -> u64>;
    let second = Duration::from_secs(1);
    let interval =
        |lower, upper| move |pair: Pair| pair.interval("pairs", lower, upper).inner(|key, _, _| *key).boxed();
    let within = |pair: Pair| pair.within("pairs", second).inner(|key, _, _| *key).boxed();
    let window =
        |length| move |pair: Pair| pair.window("pairs", Tumbling::of(length)).inner(|key, _, _, _| *key).boxed();
    let as_of = |pair: Pair| pair.as_of("pairs").inner(|key, _, _| *key).boxed();

    let plan = described(true, &interval(-1_000, 60_000)).unwrap();
    assert!(plan.contains("join interval -1s to 1m") && plan.contains("bounded by an interval of -1s to 1m"), "{plan}");
    assert!(described(true, &within).unwrap().contains("bounded by a time to live of 1s"));
    assert!(described(true, &window(second)).unwrap().contains("bounded by open windows"));
    assert!(described(true, &as_of).unwrap().contains("WITHOUT A BOUND"));

    let error = described(true, &interval(5, 4)).unwrap_err();
    assert!(error.contains("\"pairs\"") && error.contains("ends before it begins: 5ms to 4ms"), "{error}");
    let error = described(true, &window(Duration::ZERO)).unwrap_err();
    assert!(error.contains("has no length"), "{error}");
    let forgetful = |pair: Pair| pair.as_of("pairs").time_to_live(Duration::ZERO).inner(|key, _, _| *key).boxed();
    assert!(described(true, &forgetful).unwrap_err().contains("time to live of nothing"));
    for join in [&interval(0, 1) as &dyn Fn(Pair) -> BoxedStream<u64>, &within, &window(second), &as_of] {
        let error = described(false, join).unwrap_err();
        assert!(error.contains("\"pairs\" needs event time"), "{error}");
    }
}
