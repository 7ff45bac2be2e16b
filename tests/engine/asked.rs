//! `async_map` and `lookup_join` in jobs: in flight across restores at any parallelism, in order, never answered, tried
//! again.
//!
//! Who is asked is [`Desk`]: it answers what it is let, so that what is in flight at a checkpoint is the test's choice.
use crate::{
    kit::{Blast, Bomb, Faulty, Gate, Gated, assert_same, end, finished, run, settings, until},
    script::{Event, Script, at},
    store::Store,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate::{
    AsyncMap, Collect, Failed, Job, JobHandle, JobState, Kind, Lookup, Settings, Stream, Tumbling, Watermarks,
    extend::env::{random, sleep},
};
use tidegate_core::testkit::entries::Entries;

const COUNT: u64 = 600;

/// See the module.
#[derive(Clone, Default)]
struct Desk {
    /// It answers what is below.
    gate: Gate,
    /// How often it was asked for what.
    calls: Arc<Mutex<HashMap<u64, u32>>>,
    /// How many times it fails first.
    fails: u32,
    /// It takes up to so many ms.
    slow: u64,
}

impl Desk {
    fn open() -> Self {
        let desk = Self::default();
        desk.gate.open();
        desk
    }
    async fn ask(self, n: u64) -> Result<(u64, u64), String> {
        let calls = {
            let mut calls = self.calls.lock().unwrap();
            let calls = calls.entry(n).or_default();
            *calls += 1;
            *calls
        };
        while !self.gate.lets(n) {
            sleep(Duration::from_millis(1)).await;
        }
        if self.slow > 0 {
            sleep(Duration::from_millis(random(&mut n.clone()) % self.slow)).await;
        }
        if calls <= self.fails { Err(format!("call {calls}")) } else { Ok((n, n * 2)) }
    }
    fn calls(&self) -> u32 {
        self.calls.lock().unwrap().values().sum()
    }
}

fn is_restarted(handle: &JobHandle, times: u64) -> bool {
    let status = handle.status();
    status.state == JobState::Running && status.restarts == times
}

fn expected(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    numbers.into_iter().map(|n| (n, n * 2)).collect()
}

/// Numbers, asked about, collected.
fn asking(store: &Store, settings: Settings, how: AsyncMap, desk: &Desk) -> (Job, Gate, Collect<(u64, u64)>) {
    let mut job = Job::with_backends("asking", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("asking"));
    let (source, gate) = Gated::new(COUNT, 4);
    let (out, desk) = (Collect::new(), desk.clone());
    job.source("numbers", source).async_map("ask", how, move |n| desk.clone().ask(n)).sink("out", out.clone());
    (job, gate, out)
}

/// The barrier does not wait for any of them, nor for room for those that wait behind them.
#[test]
fn what_is_in_flight_at_a_checkpoint_is_asked_for_again_at_any_parallelism() {
    run(async {
        for how in [AsyncMap::ordered(20), AsyncMap::unordered(20)] {
            for (before, after) in [(1, 1), (1, 3), (2, 2), (3, 1), (2, 3)] {
                let (store, desk) = (Store::new(), Desk::default());
                desk.gate.open_to(COUNT / 3);
                let (job, gate, first) = asking(&store, settings(before), how, &desk);
                gate.open();
                let handle = job.start().unwrap();
                let in_flight = || handle.metrics().operator("ask").map_or(0, |o| o.state_entries);
                until(|| in_flight() >= 20 * u64::from(before)).await;
                handle.checkpoint_now().await.unwrap();
                handle.checkpoint_now().await.unwrap();
                assert!(in_flight() >= 20);
                handle.cancel().await.unwrap();
                let (job, gate, second) = asking(&store, settings(after), how, &Desk::open());
                gate.open();
                assert!(finished(job.start().unwrap()).await.restored.is_some());
                assert_same([first.take(), second.take()].concat(), expected(0..COUNT));
            }
        }
    });
}

#[test]
fn a_savepoint_has_what_is_in_flight() {
    run(async {
        let (folder, store, desk) = (tempfile::tempdir().unwrap(), Store::new(), Desk::default());
        let place = folder.path().join("saved").display().to_string();
        desk.gate.open_to(COUNT / 3);
        let (job, gate, first) = asking(&store, settings(2), AsyncMap::ordered(20), &desk);
        gate.open();
        let handle = job.start().unwrap();
        until(|| handle.metrics().operator("ask").is_some_and(|o| o.state_entries >= 20)).await;
        handle.savepoint(&place).await.unwrap();
        handle.cancel().await.unwrap();
        let first = first.take();

        let copy = folder.path().join("copy").display().to_string();
        let reader = tidegate::state::reader::Reader::open(&place).await.unwrap();
        reader.write_changed(&copy, |_, entry| Some(entry.value.clone())).await.unwrap();
        for (place, parallelism) in [(&place, 2), (&copy, 3)] {
            let mut settings = settings(parallelism);
            settings.checkpoint.savepoint = place.as_str().into();
            settings.state.backend = "entries".into();
            settings.restart.max_restarts = 1_000;
            // Elsewhere; and its first attempt fails before it has a checkpoint of its own.
            let (store, desk) = (Store::new(), Desk { fails: 1, ..Desk::open() });
            let (job, gate, second) = asking(&store, settings, AsyncMap::ordered(COUNT as usize), &desk);
            gate.open();
            assert!(finished(job.start().unwrap()).await.restarts > 0);
            assert_same([first.clone(), second.take()].concat(), expected(0..COUNT));
        }
    });
}

#[test]
fn in_order_is_in_order_whatever_the_answers_take_and_across_restarts() {
    run(async {
        let (desk, bomb) = (Desk { slow: 5, ..Desk::open() }, Bomb::default());
        let job = Job::new("ordered", settings(1));
        let (source, gate) = Gated::new(COUNT, 1);
        let out = Collect::new();
        let how = AsyncMap::ordered(50);
        let again = desk.clone();
        job.source("numbers", source)
            .async_map("ask", how, move |n| desk.clone().ask(n))
            .async_map("ask-again", how, move |(n, _)| again.clone().ask(n))
            .sink("out", Faulty(out.clone(), bomb.clone()));
        let handle = job.start().unwrap();
        for part in 1..=3 {
            gate.open_to(COUNT / 4 * part);
            until(|| handle.metrics().operator("out").is_some_and(|o| o.records_in > 0)).await;
            handle.checkpoint_now().await.unwrap();
            bomb.arm("write", Blast::Error, 1);
            gate.open_to(COUNT / 4 * part + 50);
            until(|| is_restarted(&handle, part)).await;
        }
        gate.open();
        assert_eq!(finished(handle).await.restarts, 3);
        assert_eq!(out.take(), expected(0..COUNT));
    });
}

/// A window counts what comes before its watermark: were a result behind it, it would be late; and what is counted twice
/// would be seen.
#[test]
fn out_of_order_nothing_crosses_a_watermark() {
    run(async {
        for parallelism in [1, 2] {
            let desk = Desk { slow: 8, ..Desk::open() };
            let script = Script::open(at(0..2_000));
            let job = Job::new("unordered", settings(parallelism));
            let out = Collect::new();
            job.source("events", script)
                .event_time(|e: &Event| e.at, Watermarks::monotonous().every(7))
                .map(|e| e.id)
                .async_map("ask", AsyncMap::unordered(60), move |n| desk.clone().ask(n))
                .key_by(|(n, _)| n % 3)
                .window("per-window", Tumbling::of(Duration::from_millis(10)))
                .count()
                .map(|w| (w.key, w.window.start, w.value))
                .sink("out", out.clone());
            let handle = job.start().unwrap();
            handle.checkpoint_now().await.unwrap();
            until(|| handle.status().state.is_end()).await;
            let metrics = handle.metrics();
            finished(handle).await;
            assert_eq!(metrics.operator("per-window").unwrap().late, 0);
            let mut windows = HashMap::<(u64, i64), u64>::new();
            for n in 0..2_000 {
                *windows.entry((n % 3, (n - n % 10) as i64)).or_default() += 1;
            }
            assert_same(out.take(), windows.into_iter().map(|((key, start), count)| (key, start, count)));
        }
    });
}

#[test]
fn behind_keyed_state_it_is_exact_across_restarts_too() {
    run(async {
        for parallelism in [1, 2] {
            let (desk, bomb) = (Desk { slow: 3, ..Desk::open() }, Bomb::default());
            let job = Job::new("keyed", settings(parallelism));
            let (source, gate) = Gated::new(COUNT, 2);
            let out = Collect::new();
            job.source("numbers", source)
                .key_by(|n| n % 17)
                .fold("sum", 0u64, |sum, n| *sum += n)
                .map(|(_, sum)| sum)
                .async_map("ask", AsyncMap::unordered(30), move |n| desk.clone().ask(n))
                .map(|(sum, _)| sum)
                .key_by(|sum| sum % 5)
                .fold("count", 0u64, |count, _| *count += 1)
                .sink("out", Faulty(out.clone(), bomb.clone()));
            let handle = job.start().unwrap();
            for part in 1..=3 {
                gate.open_to(COUNT / 4 * part);
                handle.checkpoint_now().await.unwrap();
                bomb.arm("write", Blast::Error, 1);
                gate.open_to(COUNT / 4 * part + 50);
                until(|| is_restarted(&handle, part)).await;
            }
            gate.open();
            assert_eq!(finished(handle).await.restarts, 3);
            let found = out.take();
            assert_eq!(found.len() as u64, COUNT);
            // Each count of a key once, up to its last.
            let mut counts = HashMap::<u64, Vec<u64>>::new();
            for (key, count) in found {
                counts.entry(key).or_default().push(count);
            }
            for mut of_key in counts.into_values() {
                of_key.sort_unstable();
                assert_eq!(of_key, (1..=of_key.len() as u64).collect::<Vec<_>>());
            }
        }
    });
}

#[test]
fn what_fails_is_tried_again_and_what_never_answers_is_timed_out_and_then_fails_is_counted_or_goes_aside() {
    run(async {
        let tries = AsyncMap::unordered(100).retries(2, Duration::from_millis(1)).max_backoff(Duration::from_millis(2));
        let desk = Desk { fails: 2, ..Desk::open() };
        let (job, gate, out) = asking(&Store::new(), settings(2), tries, &desk);
        gate.open();
        assert_eq!(finished(job.start().unwrap()).await.restarts, 0);
        assert_same(out.take(), expected(0..COUNT));
        assert_eq!(desk.calls(), 3 * COUNT as u32);

        // One of them never answers.
        let tries = tries.timeout(Duration::from_millis(20)).retries(1, Duration::from_millis(1));
        let desk = Desk::default();
        desk.gate.open_to(COUNT - 1);
        let (job, gate, _) = asking(&Store::new(), settings(1), tries, &desk);
        gate.open();
        let (result, status) = end(job.start().unwrap()).await;
        let e = result.unwrap_err();
        assert!(e.kind() == Kind::User && status.restarts == 4, "{e}: {status:?}");
        assert!(e.to_string().contains("operator ask: a request has failed 2 times: no answer within 20ms"), "{e}");

        for aside in [false, true] {
            let job = Job::new("failing", settings(2));
            let (source, gate) = Gated::new(COUNT, 2);
            gate.open();
            let (out, failed, desk) = (Collect::new(), Collect::<Failed<u64>>::new(), desk.clone());
            let mut asked = job.source("numbers", source).async_map("ask", tries, move |n| desk.clone().ask(n));
            if aside {
                asked.failed().sink("failed", failed.clone());
            } else {
                asked = asked.skip_failed();
            }
            asked.sink("out", out.clone());
            let handle = job.start().unwrap();
            until(|| handle.status().state.is_end()).await;
            let metrics = handle.metrics();
            finished(handle).await;
            assert_same(out.take(), expected(0..COUNT - 1));
            let ask = metrics.operator("ask").unwrap();
            assert_eq!((ask.skipped, ask.dead_letters), if aside { (0, 1) } else { (1, 0) });
            let error = "no answer within 20ms".to_owned();
            let expected = Failed { record: COUNT - 1, error, attempts: 2 };
            assert_eq!(failed.take(), Vec::from_iter(aside.then_some(expected)));
        }
    });
}

#[test]
fn a_lookup_asks_for_a_key_once_and_joins_what_there_is() {
    run(async {
        for parallelism in [1, 2] {
            let (desk, left, inner) = (Desk { slow: 3, ..Desk::open() }, Collect::new(), Collect::new());
            let job = Job::new("lookup", settings(parallelism));
            let (source, gate) = Gated::new(COUNT, 2);
            gate.open();
            let numbers = job.source("numbers", source).boxed();
            let how = Lookup::cached(100, Duration::from_secs(3_600));
            let find = |desk: &Desk| {
                let desk = desk.clone();
                move |key: u64| {
                    let desk = desk.clone();
                    async move { desk.ask(key).await.map(|(key, double)| (key % 2 == 0).then_some(double)) }
                }
            };
            numbers.clone().lookup_join("inner", how, |n| n % 10, find(&desk)).sink("inner-out", inner.clone());
            let other = Desk::open();
            numbers.lookup_left_join("left", how, |n| n % 10, find(&other)).sink("left-out", left.clone());
            finished(job.start().unwrap()).await;
            let found = |n: u64| n.is_multiple_of(2).then_some(n % 10 * 2);
            assert_same(inner.take(), (0..COUNT).filter_map(|n| Some((n, found(n)?))));
            assert_same(left.take(), (0..COUNT).map(|n| (n, found(n))));
            // Also of those who came while the key was asked for.
            assert!(desk.calls() <= 10 * parallelism && other.calls() <= 10 * parallelism, "{}", desk.calls());
        }
    });
}

#[test]
fn what_is_wrong_is_told_before_the_start_and_state_of_another_kind_is_not_taken() {
    run(async {
        let refused = |how: AsyncMap| {
            let e = asking(&Store::new(), settings(1), how, &Desk::default()).0.start().map(drop).unwrap_err();
            assert!(e.kind() == Kind::Config && e.hint_text().is_some() && e.to_string().contains("ask"), "{e}");
            e.to_string()
        };
        assert!(refused(AsyncMap::ordered(0)).contains("no capacity"));
        assert!(refused(AsyncMap::unordered(1).timeout(Duration::ZERO)).contains("time-out of 0s"));
        let settings_of = |toml: &str| settings(1).with_toml(toml).unwrap();
        let of_operator = settings_of("[state.operators.ask]\nbackend = \"entries\"");
        let (job, ..) = asking(&Store::new(), of_operator, AsyncMap::ordered(1), &Desk::open());
        let e = job.start().map(drop).unwrap_err().to_string();
        assert!(e.contains("state.operators.ask") && e.contains("checkpoint store"), "{e}");

        // With something in flight under the name of what is to be keyed.
        let (store, desk) = (Store::new(), Desk::default());
        let (job, gate, _) = asking(&store, settings(1), AsyncMap::ordered(20), &desk);
        gate.open();
        let handle = job.start().unwrap();
        assert!(job.explain().unwrap().contains("async_map \"ask\"   state: in the checkpoint, bounded"));
        until(|| handle.metrics().operator("ask").is_some_and(|o| o.state_entries >= 20)).await;
        handle.checkpoint_now().await.unwrap();
        handle.cancel().await.unwrap();
        for keyed in [true, false] {
            let mut job = Job::new("asking", settings(1));
            job.checkpoint_store(store.checkpoints("asking"));
            let numbers = job.source("numbers", Gated::new(COUNT, 4).0);
            if keyed {
                numbers.key_by(|n| *n).fold("ask", 0u64, |_, _| {}).sink("out", Collect::new());
            } else {
                numbers.sink("out", Collect::new());
            }
            let e = end(job.start().unwrap()).await.0.unwrap_err();
            assert!(e.kind() == Kind::Config && e.to_string().contains("\"ask\""), "{e}");
        }
    });
}
