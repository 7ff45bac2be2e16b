//! Several splits: their watermarks' minimum, splits that are idle, end, come late or run ahead.
//!
//! Most of it is told on a paused clock: what has not happened after a minute of it does not happen.
use super::{Counting, MS, counting, late_so_far};
use crate::{
    kit::{Blast, MINUTE, assert_same, finished, paused, run, settings, until},
    script::{Event, Script, at},
    store::Store,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tidegate::{Collect, Job, JobHandle, JobState, Stream, Tumbling, Watermarks, extend::env::sleep};

/// Events every ten milliseconds, with ids from `first` on.
fn steps(first: u64, count: u64) -> Vec<Event> {
    (0..count).map(|i| Event { id: first + i, key: 0, at: 10 * i as i64 }).collect()
}

fn ten_ms(parallelism: u32, script: &Script, watermarks: Watermarks) -> Counting {
    counting(settings(parallelism), script, watermarks.every(1), 10 * MS, Duration::ZERO)
}

/// What is committed by now.
async fn so_far(job: &Counting, handle: &JobHandle) -> usize {
    handle.checkpoint_now().await.unwrap();
    job.counts.len()
}

#[test]
fn the_slowest_split_holds_the_windows_back_until_it_moves_or_ends() {
    for parallelism in [1, 2] {
        paused(async {
            let script = Script::new([steps(0, 100), steps(100, 100)]);
            let job = ten_ms(parallelism, &script, Watermarks::monotonous());
            let handle = job.job.start().unwrap();
            script.gates[0].open_to(50);
            sleep(MINUTE).await;
            assert_eq!(so_far(&job, &handle).await, 0, "the other split has not said anything");
            script.gates[1].open_to(20);
            sleep(MINUTE).await;
            // Both have said 190: the window before it has fired.
            assert_eq!(so_far(&job, &handle).await, 19);
            script.gates[1].open();
            sleep(MINUTE).await;
            assert_eq!(so_far(&job, &handle).await, 49, "a split that has ended counts no more");
            script.gates[0].open();
            finished(handle).await;
            assert_same(job.counts.take(), (0..100).map(|i| (0, 10 * i, 2)));
        });
    }
}

/// The silent one comes back: what its windows have missed is late, and it counts again.
#[test]
fn a_split_that_is_idle_is_left_out_until_it_comes_back() {
    for (parallelism, polls) in [(1, false), (1, true), (2, false), (2, true), (3, true)] {
        paused(async {
            let script = Script { polls, ..Script::new([steps(0, 100), steps(100, 100)]) };
            let job = ten_ms(parallelism, &script, Watermarks::monotonous().idle_after(Duration::from_secs(5)));
            let handle = job.job.start().unwrap();
            script.gates[1].open_to(10);
            script.gates[0].open_to(50);
            sleep(Duration::from_secs(2)).await;
            assert_eq!(so_far(&job, &handle).await, 9, "not idle yet");
            sleep(Duration::from_secs(10)).await;
            let fired = so_far(&job, &handle).await;
            // Both are idle by now. What the silent one held back has come, if it was the first to be idle.
            assert!(fired == 9 || fired == 49, "{fired}");
            script.gates[0].open_to(60);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(so_far(&job, &handle).await, 59, "the silent split holds the windows back");
            script.gates[1].open_to(20);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(late_so_far(&handle), 10);
            script.gates[0].open_to(70);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(so_far(&job, &handle).await, 59, "it is back, and slow");
            script.gates[1].open();
            sleep(Duration::from_secs(1)).await;
            script.gates[0].open();
            finished(handle).await;
            assert_same(job.late.take(), 110..159);
            let both = |i| if (10..59).contains(&i) { 1 } else { 2 };
            assert_same(job.counts.take(), (0..100).map(|i| (0, 10 * i, both(i))));
        });
    }
}

/// Nor does a record become late because it had to wait before it could be emitted.
#[test]
fn a_split_that_holds_a_record_is_not_idle() {
    for (parallelism, polls) in [(1, false), (1, true), (2, false)] {
        paused(async {
            let script = Script { polls, holds: true, ..Script::new([steps(0, 100), steps(100, 100)]) };
            let job = ten_ms(parallelism, &script, Watermarks::monotonous().idle_after(Duration::from_secs(5)));
            let handle = job.job.start().unwrap();
            script.gates[1].open_to(10);
            script.gates[0].open_to(50);
            sleep(MINUTE).await;
            assert_eq!(so_far(&job, &handle).await, 9, "time has passed by what is held");
            script.gates[0].open();
            script.gates[1].open();
            finished(handle).await;
            assert_same(job.late.take(), []);
            assert_same(job.counts.take(), (0..100).map(|i| (0, 10 * i, 2)));
        });
    }
}

/// A subtask that has ended, or has had no split from the beginning, promises that nothing more comes *from it*.
/// When all others are idle, that must not be taken for the end of time.
#[test]
fn an_ended_split_beside_an_idle_one_does_not_end_time() {
    for parallelism in [1, 2, 5] {
        paused(async {
            let script = Script::new([steps(0, 20), steps(20, 100)]);
            let job = ten_ms(parallelism, &script, Watermarks::monotonous().idle_after(Duration::from_secs(5)));
            let handle = job.job.start().unwrap();
            script.gates[0].open();
            script.gates[1].open_to(10);
            sleep(MINUTE).await;
            let fired = so_far(&job, &handle).await;
            assert!(fired <= 19, "{fired} windows have fired");
            script.gates[1].open();
            finished(handle).await;
            assert!(job.late.is_empty());
            assert_same(job.counts.take(), (0..100).map(|i| (0, 10 * i, if i < 20 { 2 } else { 1 })));
        });
    }
}

/// The watermark of the job has passed the split's own. After a restart only the split's is restored with it.
#[test]
fn what_was_late_of_an_idle_split_is_late_after_a_restart() {
    for parallelism in [1, 2] {
        paused(async {
            let script = Script::new([steps(0, 100), steps(100, 100)]);
            let job = ten_ms(parallelism, &script, Watermarks::monotonous().idle_after(Duration::from_secs(5)));
            let handle = job.job.start().unwrap();
            script.gates[0].open_to(50);
            sleep(Duration::from_secs(20)).await;
            script.gates[0].open_to(60);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(so_far(&job, &handle).await, 59);
            script.bomb.arm("fill", Blast::Panic, 1);
            script.gates[1].open_to(40);
            until(|| handle.status().restarts == 1 && handle.status().state == JobState::Running).await;
            sleep(Duration::from_secs(1)).await;
            assert_eq!(late_so_far(&handle), 40);
            script.gates[1].open();
            sleep(Duration::from_secs(1)).await;
            script.gates[0].open();
            finished(handle).await;
            assert_same(job.late.take(), 100..159);
            assert_same(job.counts.take(), (0..100).map(|i| (0, 10 * i, if i < 59 { 1 } else { 2 })));
        });
    }
}

/// A split that always has something keeps its task from ever waiting.
#[test]
fn a_busy_neighbour_keeps_no_split_from_being_read_nor_from_being_idle() {
    for polls in [false, true] {
        run(async {
            let script = Script { endless: true, polls, ..Script::new([steps(0, 100), steps(100, 100)]) };
            let job = ten_ms(1, &script, Watermarks::monotonous().idle_after(MS));
            let handle = job.job.start().unwrap();
            script.gates[0].open();
            let windows = || handle.metrics().operator("windows").cloned().unwrap_or_default();
            // The busy one is at 990; the window before fires, whatever the silent one says.
            until(|| windows().records_out == 99).await;
            script.gates[1].open_to(50);
            until(|| windows().late == 50).await;
            handle.cancel().await.unwrap();
        });
    }
}

#[test]
fn a_split_that_runs_ahead_is_paused_until_the_others_have_come_up() {
    for parallelism in [1, 2, 3] {
        paused(async {
            let script = Script::new([steps(0, 1_000), steps(1_000, 1_000)]);
            let job = ten_ms(parallelism, &script, Watermarks::monotonous().align(300 * MS));
            let handle = job.job.start().unwrap();
            let read = || handle.metrics().operator("events").map_or(0, |o| o.records_out);
            for gate in &script.gates {
                gate.open_to(1);
            }
            until(|| read() == 2).await;
            script.gates[0].open();
            sleep(MINUTE).await;
            // 30 events are in the lead; the fill in which it is passed may add another ten.
            let ahead = read() - 2;
            assert!((30..=40).contains(&ahead), "{ahead} ahead");
            script.gates[1].open_to(501);
            sleep(MINUTE).await;
            let ahead = read() - 1_002;
            assert!((30..=40).contains(&ahead), "{ahead} ahead");
            script.gates[1].open();
            finished(handle).await;
            assert_same(job.counts.take(), (0..1_000).map(|i| (0, 10 * i, 2)));
            assert!(job.late.is_empty());
        });
    }
}

/// An idle split holds nobody: else one that never comes back would stop the job.
#[test]
fn splits_are_aligned_with_those_that_are_not_idle() {
    paused(async {
        let script = Script::new([steps(0, 1_000), steps(1_000, 10)]);
        let watermarks = Watermarks::monotonous().align(300 * MS).idle_after(Duration::from_secs(5));
        let job = ten_ms(1, &script, watermarks);
        let handle = job.job.start().unwrap();
        script.gates[0].open_to(1_000);
        sleep(MINUTE).await;
        assert_eq!(handle.metrics().operator("events").map(|o| o.records_out), Some(1_000));
        handle.cancel().await.unwrap();
    });
}

#[test]
fn an_idle_stream_does_not_hold_a_union_back() {
    for parallelism in [1, 2] {
        paused(async {
            let (busy, idle) = (Script::new([steps(0, 100)]), Script::new([steps(100, 100)]));
            let counts = Collect::new();
            let job = Job::new("union", settings(parallelism));
            let timed = |name, script: &Script| {
                let watermarks = Watermarks::monotonous().every(1).idle_after(Duration::from_secs(5));
                job.source(name, script.clone()).event_time(|e: &Event| e.at, watermarks)
            };
            timed("busy", &busy)
                .union(timed("idle", &idle))
                .key_by(|e| e.key)
                .window("windows", Tumbling::of(10 * MS))
                .count()
                .map(|w| (w.window.start, w.value))
                .sink("counts", counts.clone());
            let handle = job.start().unwrap();
            sleep(Duration::from_secs(20)).await;
            busy.gates[0].open_to(60);
            sleep(Duration::from_secs(1)).await;
            handle.checkpoint_now().await.unwrap();
            assert_eq!(counts.len(), 59, "the idle stream holds the windows back");
            idle.gates[0].open_to(70);
            sleep(Duration::from_secs(1)).await;
            busy.gates[0].open();
            sleep(Duration::from_secs(1)).await;
            handle.checkpoint_now().await.unwrap();
            assert_eq!(counts.len(), 69, "it is back");
            idle.gates[0].open();
            finished(handle).await;
            assert_same(counts.take(), (0..100).map(|i| (10 * i, if i < 59 { 1 } else { 2 })));
        });
    }
}

/// A source that looks for new splits has none for the moment: that is idle, and not the end of time.
#[test]
fn an_ended_split_of_a_source_that_looks_for_more_does_not_end_time_after_a_restart() {
    for parallelism in [1, 2] {
        run(async {
            let (store, listed) = (Store::new(), Arc::new(AtomicUsize::new(1)));
            let script = Script { listed: Some(listed.clone()), ..Script::new([steps(0, 10), steps(10, 20)]) };
            let mut job = ten_ms(parallelism, &script, Watermarks::monotonous());
            job.job.checkpoint_store(store.checkpoints("counting"));
            let read = |handle: &JobHandle| handle.metrics().operator("events").map_or(0, |o| o.records_out);
            let handle = job.job.start().unwrap();
            script.gates[0].open();
            until(|| read(&handle) == 10).await;
            // At the latest between these two the split is found to have ended.
            handle.checkpoint_now().await.unwrap();
            handle.stop().await.unwrap();
            assert_same(job.counts.take(), (0..9).map(|i| (0, 10 * i, 1)));

            let handle = job.job.start().unwrap();
            handle.checkpoint_now().await.unwrap();
            handle.checkpoint_now().await.unwrap();
            assert!(job.counts.is_empty(), "the last window is still open");
            listed.store(2, SeqCst);
            script.gates[1].open_to(15);
            until(|| read(&handle) == 15).await;
            handle.checkpoint_now().await.unwrap();
            assert_same(job.late.take(), 10..19);
            assert_same(job.counts.take(), (9..14).map(|i| (0, 10 * i, if i == 9 { 2 } else { 1 })));
            handle.cancel().await.unwrap();
        });
    }
}

/// Who looks at the metrics of an operator never sees time run backwards, whoever comes back.
#[test]
fn the_watermark_never_goes_back() {
    paused(async {
        let script = Script { fill: 1, ..Script::new([steps(0, 100), steps(100, 100)]) };
        let job = Job::new("monotonous", settings(1));
        let watermarks = Watermarks::monotonous().every(1).idle_after(Duration::from_secs(5));
        job.source("events", script.clone()).event_time(|e: &Event| e.at, watermarks).sink("out", Collect::new());
        let handle = job.start().unwrap();
        let seen = || handle.metrics().operator("out").and_then(|o| o.watermark);
        script.gates[0].open_to(50);
        sleep(Duration::from_secs(20)).await;
        script.gates[0].open_to(51);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(seen(), Some(499));
        script.gates[1].open_to(3);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(seen(), Some(499));
        handle.cancel().await.unwrap();
    });
}

/// Several windows at once, with everything that can be said of one event.
#[test]
fn events_without_neighbours_fire_windows_that_are_far_apart() {
    run(async {
        let times = [-1_000_000_007, -20, -11, -10, -1, 0, 9, 10, 1_000_000_007];
        let script = Script::open(at(times));
        let job = ten_ms(1, &script, Watermarks::monotonous());
        finished(job.job.start().unwrap()).await;
        let starts = [-1_000_000_010, -20, -10, 0, 10, 1_000_000_000];
        let count = |start| times.iter().filter(|t| (start..start + 10).contains(*t)).count() as u64;
        assert_same(job.counts.take(), starts.map(|start| (0, start, count(start))));
        assert!(job.late.is_empty());
    });
}

/// That the input had ended is not known of the input there is now.
#[test]
fn a_job_that_has_ended_goes_on_with_more_input() {
    for parallelism in [1, 2] {
        let store = Store::new();
        let mut windows = Vec::new();
        for count in [100, 250, 300] {
            run(async {
                let script = Script::open(steps(0, count));
                let mut job =
                    counting(settings(parallelism), &script, Watermarks::monotonous(), 100 * MS, Duration::ZERO);
                job.job.checkpoint_store(store.checkpoints("counting"));
                finished(job.job.start().unwrap()).await;
                assert_eq!(job.late.take().len(), 0, "with {count}");
                windows.extend(job.counts.take());
            });
        }
        assert_same(windows, (0..30).map(|n| (0, 100 * n, 10)));
    }
}
