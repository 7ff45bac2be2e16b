//! Windows of every kind against plain models, over every kind of backend, with restores at another parallelism.
use crate::{
    kit::{Gate, Gated, assert_same, finished, run},
    parts::{BACKENDS, in_three_parts, over},
    store::Store,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate::{
    Aggregate, BoxedStream, Collect, CountWindows, Firing, Global, Hopping, Job, KeyedStream, Session, Settings,
    Stream, Timestamp, Trigger, Tumbling, Watermarks, Windowed, WindowedStream,
};
use tidegate_core::testkit::entries::Entries;

const COUNT: u64 = 2_400;
/// How far an event may be behind one that came before it.
const JITTER_MS: i64 = 1_500;

/// An event of a number: its key and its time. A key has bursts, and pauses between them.
fn event(id: u64) -> (u64, Timestamp) {
    let (burst, within) = (id / 120, id % 120);
    (burst * 6 % 60 + within % 12, burst as i64 * 1_000 + (within * 7919 % JITTER_MS as u64) as i64 - 3_000)
}

#[derive(Clone)]
struct CountAndSum;
impl Aggregate<u64> for CountAndSum {
    type State = (u64, u64);
    type Output = (u64, u64);
    fn init(&self) -> (u64, u64) {
        (0, 0)
    }
    fn add(&self, state: &mut (u64, u64), id: u64) {
        *state = (state.0 + 1, state.1 + id);
    }
    fn merge(&self, state: &mut (u64, u64), other: &(u64, u64)) {
        *state = (state.0 + other.0, state.1 + other.1);
    }
    fn finish(&self, state: &(u64, u64)) -> (u64, u64) {
        *state
    }
}

type Row = (u64, Timestamp, Timestamp, (u64, u64), Firing);

fn row(w: Windowed<u64, (u64, u64)>) -> Row {
    (w.key, w.window.start, w.window.end, w.value, w.firing)
}

type Numbers = BoxedStream<u64>;
type Apply = fn(Numbers) -> BoxedStream<Row>;

fn by_key(numbers: Numbers) -> KeyedStream<Numbers, impl Fn(&u64) -> u64 + Clone + Send + Sync> {
    numbers.key_by(|id| event(*id).0)
}

fn job(store: &Store, settings: Settings, splits: u64, bound_ms: i64, apply: Apply) -> (Job, Gate, Collect<Row>) {
    let mut job = Job::with_backends("windows", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("windows"));
    let (source, gate) = Gated::new(COUNT, splits);
    let watermarks = Watermarks::bounded(Duration::from_millis(bound_ms.unsigned_abs())).every(1);
    let numbers = job.source("events", source).event_time(|id| event(*id).1, watermarks).boxed();
    let rows = Collect::new();
    apply(numbers).sink("rows", rows.clone());
    (job, gate, rows)
}

fn all_rows(splits: u64, bound_ms: i64, apply: Apply, each: impl FnMut(Vec<Row>)) {
    in_three_parts("events", COUNT, |store, settings| job(store, settings, splits, bound_ms, apply), each);
}

/// What each window comes to, if nothing is late. `windows` gives starts and ends.
fn in_time(windows: impl Fn(Timestamp) -> Vec<(Timestamp, Timestamp)>) -> Vec<Row> {
    let mut found = BTreeMap::<_, (u64, u64)>::new();
    for id in 0..COUNT {
        let (key, at) = event(id);
        for (start, end) in windows(at) {
            let value = found.entry((key, start, end)).or_default();
            *value = (value.0 + 1, value.1 + id);
        }
    }
    found.into_iter().map(|((key, start, end), value)| (key, start, end, value, Firing::OnTime)).collect()
}

/// Every start, tried.
fn hops(size: i64, hop: i64, offset: i64) -> impl Fn(Timestamp) -> Vec<(Timestamp, Timestamp)> {
    move |at| {
        let starts = at - size + 1..=at;
        starts.filter(|s| (s - offset).rem_euclid(hop) == 0).map(|s| (s, s + size)).collect()
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn hopping_windows_are_those_of_a_plain_model_whether_the_hop_divides_them_or_not() {
    let cases: [(Apply, Vec<Row>); 4] = [
        (
            |n| by_key(n).window("w", Hopping::of(ms(1_000), ms(200))).aggregate(CountAndSum).map(row).boxed(),
            in_time(hops(1_000, 200, 0)),
        ),
        (
            |n| {
                by_key(n)
                    .window("w", Hopping::of(ms(700), ms(300)).offset(ms(50)))
                    .aggregate(CountAndSum)
                    .map(row)
                    .boxed()
            },
            in_time(hops(700, 300, 50)),
        ),
        // There is time between them.
        (
            |n| by_key(n).window("w", Hopping::of(ms(300), ms(1_000))).aggregate(CountAndSum).map(row).boxed(),
            in_time(hops(300, 1_000, 0)),
        ),
        (
            |n| by_key(n).window("w", Tumbling::of(ms(1_000)).offset(ms(250))).aggregate(CountAndSum).map(row).boxed(),
            in_time(hops(1_000, 1_000, 250)),
        ),
    ];
    for (apply, expected) in cases {
        all_rows(3, JITTER_MS, apply, |rows| assert_same(rows, expected.clone()));
    }
}

/// Sessions of each key, if nothing is late.
fn sessions(gap: impl Fn(u64) -> i64) -> Vec<Row> {
    let mut by_key = BTreeMap::<u64, Vec<(Timestamp, Timestamp, u64)>>::new();
    for id in 0..COUNT {
        let (key, at) = event(id);
        by_key.entry(key).or_default().push((at, at + gap(id), id));
    }
    let mut rows = Vec::new();
    for (key, mut events) in by_key {
        events.sort_unstable();
        let mut open: Option<(Timestamp, Timestamp, (u64, u64))> = None;
        for (start, end, id) in events {
            match &mut open {
                Some(session) if start <= session.1 => {
                    *session = (session.0, session.1.max(end), (session.2.0 + 1, session.2.1 + id));
                }
                _ => {
                    let ended = open.replace((start, end, (1, id)));
                    rows.extend(ended.map(|(start, end, value)| (key, start, end, value, Firing::OnTime)));
                }
            }
        }
        rows.extend(open.map(|(start, end, value)| (key, start, end, value, Firing::OnTime)));
    }
    rows
}

#[test]
fn sessions_are_those_of_a_plain_model_with_one_gap_and_with_a_gap_by_record() {
    let same: Apply = |n| by_key(n).window("w", Session::gap(ms(400))).aggregate(CountAndSum).map(row).boxed();
    all_rows(3, JITTER_MS, same, |rows| assert_same(rows, sessions(|_| 400)));
    let by_record: Apply = |n| {
        let gap = |id: &u64| ms(100 + id % 7 * 100);
        by_key(n).window("w", Session::gap_of(gap)).aggregate(CountAndSum).map(row).boxed()
    };
    all_rows(3, JITTER_MS, by_record, |rows| assert_same(rows, sessions(|id| 100 + (id % 7) as i64 * 100)));
}

/// A window of a key in a model that takes records one by one.
#[derive(Clone, Debug)]
struct Pane {
    start: Timestamp,
    end: Timestamp,
    value: (u64, u64),
}

/// One split, whose watermark follows each record: what comes out, and how many records are late. `windows` gives those of
/// a record; where they merge, it is one.
fn one_by_one(
    bound_ms: i64,
    lateness_ms: i64,
    merges: bool,
    windows: impl Fn(Timestamp) -> Vec<(Timestamp, Timestamp)>,
) -> (Vec<Row>, u64) {
    let (mut open, mut rows, mut late, mut watermark) = (BTreeMap::<u64, Vec<Pane>>::new(), Vec::new(), 0, i64::MIN);
    for id in 0..=COUNT {
        // At the end of the input nothing is still to come.
        let (key, at) = if id == COUNT { (0, i64::MAX) } else { event(id) };
        let (panes, mut is_late) = (open.entry(key).or_default(), true);
        for (mut start, mut end) in if id == COUNT { Vec::new() } else { windows(at) } {
            let touched =
                |p: &Pane| if merges { p.start <= end && p.end >= start } else { (p.start, p.end) == (start, end) };
            let (merged, rest): (Vec<_>, Vec<_>) = panes.iter().cloned().partition(touched);
            (start, end) = merged.iter().fold((start, end), |(s, e), p| (s.min(p.start), e.max(p.end)));
            if end - 1 + lateness_ms <= watermark {
                continue;
            }
            is_late = false;
            let value = merged.iter().fold((1, id), |(count, sum), p| (count + p.value.0, sum + p.value.1));
            *panes = rest;
            panes.push(Pane { start, end, value });
            if end - 1 <= watermark {
                rows.push((key, start, end, value, Firing::Late));
            }
        }
        late += u64::from(is_late && id < COUNT);
        let before = watermark;
        watermark = watermark.max(if id == COUNT { i64::MAX } else { at - bound_ms - 1 });
        for (key, panes) in &mut open {
            let fires = |p: &&Pane| before < p.end - 1 && p.end - 1 <= watermark;
            rows.extend(panes.iter().filter(fires).map(|p| (*key, p.start, p.end, p.value, Firing::OnTime)));
            panes.retain(|p| p.end - 1 + lateness_ms > watermark);
        }
    }
    (rows, late)
}

#[test]
fn late_records_update_windows_within_the_lateness_and_are_told_behind_it() {
    const BOUND_MS: i64 = 100;
    let gap = |at| vec![(at, at + 300)];
    let cases: [(Apply, (Vec<Row>, u64)); 4] = [
        (
            |n| {
                let windows = by_key(n).window("w", Hopping::of(ms(500), ms(200)));
                windows.allowed_lateness(ms(400)).aggregate(CountAndSum).map(row).boxed()
            },
            one_by_one(BOUND_MS, 400, false, hops(500, 200, 0)),
        ),
        (
            |n| {
                let windows = by_key(n).window("w", Session::gap(ms(300)));
                windows.allowed_lateness(ms(400)).aggregate(CountAndSum).map(row).boxed()
            },
            one_by_one(BOUND_MS, 400, true, gap),
        ),
        (
            |n| {
                let windows = by_key(n).window("w", Tumbling::of(ms(500)));
                windows.allowed_lateness(ms(400)).aggregate(CountAndSum).map(row).boxed()
            },
            one_by_one(BOUND_MS, 400, false, hops(500, 500, 0)),
        ),
        // The same as a process function: nothing may come of it but the same.
        (
            |n| {
                let windows = by_key(n).window("w", Hopping::of(ms(500), ms(200))).allowed_lateness(ms(400));
                windows.trigger(Trigger::on_watermark()).aggregate(CountAndSum).map(row).boxed()
            },
            one_by_one(BOUND_MS, 400, false, hops(500, 200, 0)),
        ),
    ];
    for (apply, (expected, late)) in cases {
        assert!(expected.iter().any(|row| row.4 == Firing::Late) && late > 0, "the model has what is to be shown");
        all_rows(1, BOUND_MS, apply, |rows| assert_same(rows, expected.clone()));
    }
}

#[test]
fn late_records_are_counted_and_go_to_the_late_stream() {
    fn late<I, W>(mut windows: WindowedStream<I, W>) -> (BoxedStream<u64>, WindowedStream<I, W>)
    where
        I: tidegate::extend::KeyedInput<u64, Record = u64>,
        W: tidegate::extend::Windows<u64>,
    {
        (windows.late(), windows)
    }
    run(async {
        for parallelism in [1, 2] {
            let job = Job::with_backends("late", over(BACKENDS[0], parallelism), [Arc::new(Entries) as _]);
            let (source, gate) = Gated::new(COUNT, 1);
            let watermarks = Watermarks::bounded(ms(100)).every(1);
            let numbers = job.source("events", source).event_time(|id| event(*id).1, watermarks).boxed();
            let found = [Collect::new(), Collect::new(), Collect::new()];
            let (hopping, w) = late(by_key(numbers.clone()).window("hopping", Hopping::of(ms(500), ms(200))));
            w.count().sink("hopping-out", Collect::new());
            let (session, w) = late(by_key(numbers.clone()).window("session", Session::gap(ms(300))));
            w.count().sink("session-out", Collect::new());
            let (tumbling, w) = late(by_key(numbers).window("tumbling", Tumbling::of(ms(500))));
            w.count().sink("tumbling-out", Collect::new());
            for (late, (name, found)) in
                [hopping, session, tumbling].into_iter().zip(["a", "b", "c"].iter().zip(&found))
            {
                late.sink(name, found.clone());
            }
            gate.open();
            let handle = job.start().unwrap();
            let metrics = handle.watch();
            drop(metrics);
            finished(handle).await;
            let model = [
                one_by_one(100, 0, false, hops(500, 200, 0)).1,
                one_by_one(100, 0, true, |at| vec![(at, at + 300)]).1,
                one_by_one(100, 0, false, hops(500, 500, 0)).1,
            ];
            assert_eq!(found.map(|found| found.take().len() as u64), model);
        }
    });
}

#[test]
fn triggers_fire_early_with_every_so_many_records_and_give_up_what_they_have_told_if_so_asked() {
    let accumulating: Apply = |n| {
        let windows = by_key(n).window("w", Tumbling::of(ms(1_000)));
        windows.trigger(Trigger::on_watermark().every_records(3)).aggregate(CountAndSum).map(row).boxed()
    };
    // In which order the records of a key come, the splits do not say: only how many there are.
    let count = |rows: Vec<Row>| {
        rows.into_iter().map(|(key, start, _, (n, _), firing)| (key, start, n, firing)).collect::<Vec<_>>()
    };
    let totals = in_time(hops(1_000, 1_000, 0));
    let mut expected = Vec::new();
    for (key, start, _, (n, _), _) in &totals {
        expected.extend((1..=n / 3).map(|thirds| (*key, *start, thirds * 3, Firing::Early)));
        expected.push((*key, *start, *n, Firing::OnTime));
    }
    all_rows(3, JITTER_MS, accumulating, |rows| assert_same(count(rows), expected.clone()));
    let discarding: Apply = |n| {
        let windows = by_key(n).window("w", Tumbling::of(ms(1_000)));
        windows.trigger(Trigger::on_watermark().every_records(3).discarding()).aggregate(CountAndSum).map(row).boxed()
    };
    all_rows(3, JITTER_MS, discarding, |rows| {
        let mut sums = BTreeMap::<_, (u64, u64)>::new();
        for (key, start, end, (n, sum), firing) in rows {
            assert!(if firing == Firing::Early { n == 3 } else { n < 3 && n > 0 }, "{n} records, {firing:?}");
            let total = sums.entry((key, start, end)).or_default();
            *total = (total.0 + n, total.1 + sum);
        }
        assert_same(sums, totals.iter().map(|(key, start, end, value, _)| ((*key, *start, *end), *value)));
    });
}

#[test]
fn triggers_of_event_time_fire_at_their_multiples_and_only_if_there_is_something_new() {
    let every: Apply = |n| {
        let windows = by_key(n).window("w", Tumbling::of(ms(1_000)));
        windows.trigger(Trigger::on_watermark().every(ms(250))).aggregate(CountAndSum).map(row).boxed()
    };
    // With a bound that nothing is behind, a firing at t has all that is before or at t: later ones may be in it too.
    let totals = in_time(hops(1_000, 1_000, 0));
    all_rows(1, JITTER_MS, every, |rows| {
        let (early, on_time): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.4 == Firing::Early);
        assert_same(on_time, totals.clone());
        assert!(early.len() > totals.len() / 2, "{} early", early.len());
        for (key, start, end, (n, _), _) in early {
            let total = totals.iter().find(|row| (row.0, row.1, row.2) == (key, start, end)).expect("its window");
            assert!(n <= total.3.0, "no more than in the end");
        }
    });
}

#[test]
fn the_window_of_all_time_fires_at_the_end_of_the_input() {
    let global: Apply = |n| by_key(n).window("w", Global).aggregate(CountAndSum).map(row).boxed();
    let expected = in_time(|_| vec![(i64::MIN, i64::MAX)]);
    all_rows(3, JITTER_MS, global, |rows| assert_same(rows, expected.clone()));
    let job = Job::with_backends("global", over(BACKENDS[0], 1), [Arc::new(Entries) as _]);
    let (source, _) = Gated::new(COUNT, 1);
    let numbers = job.source("events", source).boxed();
    by_key(numbers)
        .window("all", Global)
        .trigger(Trigger::never().every_records(10))
        .count()
        .sink("out", Collect::new());
    let plan = job.explain().unwrap();
    assert!(plan.contains("without a bound") || plan.contains("unbounded") || plan.contains("for ever"), "{plan}");
}

/// From one split, whose records come in their order.
#[test]
fn windows_of_records_are_the_last_so_many() {
    let cases: [(Apply, u64, u64); 3] = [
        (|n| counted(by_key(n).count_window("w", CountWindows::of(5), CountAndSum)), 5, 5),
        (|n| counted(by_key(n).count_window("w", CountWindows::of(6).slide(4), CountAndSum)), 6, 4),
        (|n| counted(by_key(n).count_window("w", CountWindows::of(2).slide(7), CountAndSum)), 2, 7),
    ];
    for (apply, size, slide) in cases {
        let mut by_key = BTreeMap::<u64, Vec<u64>>::new();
        (0..COUNT).for_each(|id| by_key.entry(event(id).0).or_default().push(id));
        let mut expected = Vec::new();
        for (key, ids) in by_key {
            for end in (1..=ids.len() as u64).filter(|end| end % slide == 0) {
                let last = &ids[end.saturating_sub(size) as usize..end as usize];
                expected.push((key, 0, 0, (last.len() as u64, last.iter().sum()), Firing::OnTime));
            }
        }
        all_rows(1, JITTER_MS, apply, |rows| assert_same(rows, expected.clone()));
    }
}

fn counted(windows: impl Stream<Item = (u64, (u64, u64))>) -> BoxedStream<Row> {
    windows.map(|(key, value)| (key, 0, 0, value, Firing::OnTime)).boxed()
}

#[test]
fn windows_that_cannot_be_are_refused_before_the_job_starts() {
    let refused = |apply: Apply| {
        let store = Store::new();
        let error = job(&store, over(BACKENDS[0], 1), 1, 0, apply).0.explain().unwrap_err().to_string();
        assert!(error.contains("\"w\"") && error.contains("hint"), "{error}");
        error
    };
    refused(|n| by_key(n).window("w", Session::gap(Duration::ZERO)).aggregate(CountAndSum).map(row).boxed());
    refused(|n| by_key(n).window("w", Hopping::of(Duration::ZERO, ms(1))).aggregate(CountAndSum).map(row).boxed());
    refused(|n| by_key(n).window("w", Hopping::of(ms(1), Duration::ZERO)).aggregate(CountAndSum).map(row).boxed());
    refused(|n| by_key(n).window("w", Global).trigger(Trigger::never()).aggregate(CountAndSum).map(row).boxed());
    refused(|n| {
        let windows = by_key(n).window("w", Tumbling::of(ms(1)));
        windows.trigger(Trigger::on_watermark().every_records(0)).aggregate(CountAndSum).map(row).boxed()
    });
}
