//! Timestamps that cannot be right: far ahead of the machine's clock, and at the ends of what can be written.
//!
//! The first are guarded against by policy. The second must do no harm whatever they are: no panic (which in
//! release would be a wrong window), and no event that is neither counted in a window nor late.
use super::{Counting, MS, counting};
use crate::{
    kit::{assert_same, end, finished, run, settings},
    script::{Event, Script, at},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate::{
    Collect, FarFuture, ForEach, Job, JobMetrics, Kind, Stream, Tumbling, Watermarks,
    extend::env::{now, wall_ms},
};

const HOUR: i64 = 3_600_000;

/// Ten events in ten windows of a second, an hour ago; the fourth one's clock is days ahead, and so is the sixth's.
fn one_bad_clock() -> (i64, Vec<Event>) {
    let start = (wall_ms() / HOUR - 2) * HOUR;
    let ahead = |i: i64| if i == 3 || i == 5 { start + 240 * HOUR } else { start + 1_000 * i };
    (start, at((0..10).map(ahead)))
}

struct Guarded {
    counts: Vec<(i64, u64)>,
    late: Vec<u64>,
    aside: Vec<u64>,
    metrics: JobMetrics,
}

async fn guarded(policy: Option<FarFuture>, events: Vec<Event>) -> Guarded {
    let (counts, late, aside) = (Collect::new(), Collect::new(), Collect::new());
    let job = Job::new("guarded", settings(1));
    let watermarks = Watermarks::monotonous().every(1);
    let watermarks = match policy {
        Some(policy) => watermarks.guard_future(Duration::from_secs(600), policy),
        None => watermarks,
    };
    let mut source = job.source("events", Script::open(events)).event_time(|e: &Event| e.at, watermarks);
    source.far_future().map(|e| e.id).sink("aside", aside.clone());
    let mut windows = source.key_by(|e| e.key).window("windows", Tumbling::of(1_000 * MS));
    windows.late().map(|e| e.id).sink("late", late.clone());
    windows.count().map(|w| (w.window.start, w.value)).sink("counts", counts.clone());
    let handle = job.start().unwrap();
    let mut status = handle.watch();
    status.wait_for(|s| s.failure.is_some() || s.state == tidegate::JobState::Finished).await.unwrap();
    let metrics = handle.metrics();
    handle.wait().await.unwrap();
    Guarded { counts: counts.take(), late: late.take(), aside: aside.take(), metrics }
}

#[test]
fn without_a_guard_one_bad_clock_closes_every_window() {
    run(async {
        let (start, events) = one_bad_clock();
        let found = guarded(None, events).await;
        assert_eq!(found.late, [4, 6, 7, 8, 9]);
        assert_same(found.counts, [(start, 1), (start + 1_000, 1), (start + 2_000, 1), (start + 240 * HOUR, 2)]);
    });
}

#[test]
fn a_guard_that_counts_passes_the_record_on_and_does_not_believe_it() {
    run(async {
        let (start, events) = one_bad_clock();
        let found = guarded(Some(FarFuture::Count), events).await;
        assert_eq!((found.late, found.aside), (vec![], vec![]));
        let right = [0, 1, 2, 4, 6, 7, 8, 9].map(|i| (start + 1_000 * i, 1));
        assert_same(found.counts, right.into_iter().chain([(start + 240 * HOUR, 2)]));
        let source = found.metrics.operator("events").unwrap();
        assert_eq!((source.far_future, source.records_in, source.records_out), (2, 10, 10));
        let aside = found.metrics.operators.iter().find(|o| o.operator == "far future").unwrap();
        assert_eq!(aside.records_out, 0, "what has been passed on is not aside as well");
    });
}

#[test]
fn a_guard_with_a_side_stream_takes_the_record_out() {
    run(async {
        let (start, events) = one_bad_clock();
        let found = guarded(Some(FarFuture::SideStream), events).await;
        assert_eq!((found.late, found.aside), (vec![], vec![3, 5]));
        assert_same(found.counts, [0, 1, 2, 4, 6, 7, 8, 9].map(|i| (start + 1_000 * i, 1)));
        let source = found.metrics.operator("events").unwrap();
        assert_eq!((source.far_future, source.records_in, source.records_out), (2, 10, 8));
        let of = |name: &str| found.metrics.operator(name).unwrap().records_in;
        assert_eq!((of("windows"), of("aside")), (8, 2));
    });
}

#[test]
fn a_guard_that_fails_names_the_timestamp() {
    run(async {
        let (start, events) = one_bad_clock();
        let script = Script::open(events);
        let watermarks = Watermarks::monotonous().guard_future(Duration::from_secs(600), FarFuture::Fail);
        let job = counting(settings(1), &script, watermarks, 1_000 * MS, Duration::ZERO);
        let error = end(job.job.start().unwrap()).await.0.unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        let text = error.to_string();
        assert!(text.contains(&(start + 240 * HOUR).to_string()) && text.contains("events"), "{text}");
        assert!(text.contains("guard_future"), "{text}");
        assert!(job.counts.is_empty() && job.late.is_empty());
    });
}

/// A sink that keeps what it is given at once would have it for good.
#[test]
fn a_guard_that_fails_lets_nobody_see_the_record() {
    run(async {
        let (_, events) = one_bad_clock();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = seen.clone();
        let watermarks = Watermarks::monotonous().guard_future(Duration::from_secs(600), FarFuture::Fail);
        let job = Job::new("job", settings(1));
        job.source("events", Script::open(events))
            .event_time(|e: &Event| e.at, watermarks)
            .sink("seen", ForEach::new(move |e: Event, _| sees.lock().unwrap().push(e.id)));
        assert_eq!(end(job.start().unwrap()).await.0.unwrap_err().kind(), Kind::Data);
        let seen = seen.lock().unwrap().clone();
        assert!(seen.contains(&0) && !seen.contains(&3) && !seen.contains(&5), "{seen:?}");
    });
}

/// Counts every event once: in a window, as late, or in a later firing of the same window.
async fn all_are_told_of(times: &[i64], length: Duration, lateness: Duration, bound: Duration, parallelism: u32) {
    let events: Vec<_> = at(times.iter().copied()).into_iter().map(|e| Event { key: (e.id % 3) as u8, ..e }).collect();
    let script = Script { fill: 1, ..Script::open(events) };
    let job: Counting = counting(settings(parallelism), &script, Watermarks::bounded(bound), length, lateness);
    finished(job.job.start().unwrap()).await;
    // The last firing of a window has all its events.
    let mut last = std::collections::BTreeMap::new();
    for (key, start, count) in job.counts.take() {
        let count = count.max(*last.get(&(key, start)).unwrap_or(&0));
        last.insert((key, start), count);
    }
    let (counted, late) = (last.values().sum::<u64>(), job.late.len() as u64);
    let what = format!("{times:?} {length:?} {lateness:?} {bound:?}");
    assert_eq!(counted + late, times.len() as u64, "{counted} counted, {late} late of {what}");
    for (key, start) in last.keys() {
        assert!(times.iter().any(|t| t >= start && i128::from(*t) < i128::from(*start) + length.as_millis() as i128));
        assert!(*key < 3);
    }
}

#[test]
fn timestamps_at_the_ends_of_time_neither_panic_nor_vanish() {
    const EXTREMES: [i64; 11] =
        [i64::MIN, i64::MIN + 1, i64::MIN + 999, -1_001, -1_000, -1, 0, 1, i64::MAX - 1_000, i64::MAX - 1, i64::MAX];
    let began = now();
    let longest = Duration::from_millis(i64::MAX as u64);
    run(async {
        let backwards: Vec<_> = EXTREMES.into_iter().rev().collect();
        let inside_out: Vec<_> = (0..11).map(|i| EXTREMES[(5 + i * 7) % 11]).collect();
        for times in [&EXTREMES[..], &backwards, &inside_out] {
            for length in [MS, 7 * MS, 1_000 * MS, longest, Duration::MAX] {
                for lateness in [Duration::ZERO, 1_000 * MS, Duration::MAX] {
                    for bound in [Duration::ZERO, 1_000 * MS, Duration::MAX] {
                        all_are_told_of(times, length, lateness, bound, 1).await;
                    }
                }
                all_are_told_of(times, length, MS, MS, 2).await;
            }
        }
    });
    println!("{:?}", now().duration_since(began));
}

#[test]
fn the_window_of_a_timestamp_is_none_where_there_can_be_none() {
    let windows = Tumbling::of(1_000 * MS);
    assert_eq!(windows.window(-1).map(|w| (w.start, w.end)), Some((-1_000, 0)));
    assert_eq!((windows.window(i64::MIN), windows.window(i64::MAX)), (None, None));
    assert_eq!(Tumbling::of(Duration::ZERO).window(5), None);
}
