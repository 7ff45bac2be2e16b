//! One job with every operator in it, a bomb in each, and what it must give, by hand.
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tidegate::{Aggregate, Collect, Job, Settings, Stream, Tumbling, Watermarks};

use tidegate_core::testkit::entries::Entries;

use crate::kit::{Bomb, Faulty, Gate, Gated};

pub const COUNT: u64 = 2_000;
const WINDOW_MS: i64 = 100;

/// What the job's sinks have.
pub struct Pipeline {
    pub job: Job,
    pub gate: Gate,
    pub bomb: Bomb,
    pub totals: Collect<(u64, u64, u64)>,
    pub windows: Collect<(u64, i64, u64)>,
}

/// A sum whose every function can go off.
#[derive(Clone)]
struct Sum(Bomb);

#[derive(Clone, Serialize, Deserialize)]
struct Total(u64);

impl Aggregate<(u64, u64)> for Sum {
    type State = Total;
    type Output = u64;
    fn init(&self) -> Total {
        self.0.hit("aggregate init");
        Total(0)
    }
    fn add(&self, state: &mut Total, record: (u64, u64)) {
        self.0.hit("aggregate add");
        state.0 += record.1;
    }
    fn merge(&self, state: &mut Total, other: &Total) {
        state.0 += other.0;
    }
    fn finish(&self, state: &Total) -> u64 {
        self.0.hit("aggregate finish");
        state.0
    }
}

/// Where the bomb can be: the places of the operators' functions.
pub const OPERATORS: [&str; 12] = [
    "event time",
    "map",
    "filter",
    "flat_map",
    "filter_map",
    "try_map",
    "inspect",
    "key",
    "fold",
    "aggregate init",
    "aggregate add",
    "aggregate finish",
];

pub fn pipeline(name: &str, settings: Settings) -> Pipeline {
    let job = Job::with_backends(name, settings, [Arc::new(Entries) as _]);
    let (source, gate) = Gated::new(COUNT, 4);
    let bomb = source.bomb.clone();
    let (totals, windows) = (Collect::new(), Collect::new());
    let b = || bomb.clone();
    let (at, map, filter, flat, filter_map, try_map, inspect, key, fold) =
        (b(), b(), b(), b(), b(), b(), b(), b(), b());
    let records = job
        .source("numbers", source)
        .event_time(
            move |i| {
                at.hit("event time");
                *i as i64
            },
            // Splits are dealt in turn: none runs ahead of the others by more than the whole input.
            Watermarks::bounded(Duration::from_millis(COUNT)),
        )
        .map(move |i| {
            map.hit("map");
            i + 1
        })
        .filter(move |i| {
            filter.hit("filter");
            i % 5 != 0
        })
        .flat_map(move |i| {
            flat.hit("flat_map");
            [(i, 1), (i, 2)]
        })
        .filter_map(move |(i, n)| {
            filter_map.hit("filter_map");
            (i % 7 != 0).then_some((i, n))
        })
        .try_map(move |(i, n)| try_map.trip("try_map").map(|()| (i, i * n)))
        .inspect(move |_| inspect.hit("inspect"))
        .boxed();
    records
        .clone()
        .key_by(move |r| {
            key.hit("key");
            r.0
        })
        .fold("per-number", (0u64, 0u64), move |total, r| {
            fold.hit("fold");
            *total = (total.0 + 1, total.1 + r.1);
        })
        .map(|(i, (count, sum))| (i, count, sum))
        .sink("totals", Faulty(totals.clone(), bomb.clone()));
    records
        .key_by(|r| r.0 % 13)
        .window("per-window", Tumbling::of(Duration::from_millis(WINDOW_MS as u64)))
        .aggregate(Sum(bomb.clone()))
        .map(|w| (w.key, w.window.start, w.value))
        .sink("windows", windows.clone());
    Pipeline { job, gate, bomb, totals, windows }
}

/// What must come out of the two sinks.
pub fn expected() -> (Vec<(u64, u64, u64)>, Vec<(u64, i64, u64)>) {
    let mut totals = Vec::new();
    let mut windows = HashMap::<(u64, i64), u64>::new();
    for at in 0..COUNT as i64 {
        let i = at as u64 + 1;
        if !i.is_multiple_of(5) && !i.is_multiple_of(7) {
            totals.extend([(i, 1, i), (i, 2, 3 * i)]);
            *windows.entry((i % 13, at - at % WINDOW_MS)).or_default() += 3 * i;
        }
    }
    (totals, windows.into_iter().map(|((key, start), sum)| (key, start, sum)).collect())
}

impl Pipeline {
    #[track_caller]
    pub fn assert_exact(&self) {
        let (totals, windows) = expected();
        crate::kit::assert_same(self.totals.take(), totals);
        crate::kit::assert_same(self.windows.take(), windows);
    }
}
