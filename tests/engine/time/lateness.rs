//! When windows fire, which records are late, and that this is a matter of the data alone.
//!
//! The hard case is a restart: the records that were late are late again, a window that has fired does not
//! fire once more, and a generator of the user's own goes on with what it had seen.
use super::{Counting, Expected, MS, counting};
use crate::{
    kit::{Blast, finished, run, settings, until},
    script::{Event, Script, at},
};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate::{Watermarks, extend::time::WatermarkGenerator, random};

const SEED: u64 = 0x71de;

/// Times that advance by about a millisecond each, and are up to 60 back.
fn disordered(count: u64) -> Vec<Event> {
    println!("seed {SEED:#x}");
    (0..count)
        .map(|id| {
            let random = |k| random(SEED, 3 * id + k);
            let back = if random(0).is_multiple_of(4) { random(1) % 60 } else { 0 };
            Event { id, key: (random(2) % 5) as u8, at: id as i64 - back as i64 - 100 }
        })
        .collect()
}

/// Runs it to its end; fails once at `cut` on the way, behind a checkpoint at half of that, if there is one.
async fn exact(job: &Counting, cut: Option<u64>, expected: &Expected) {
    let handle = job.job.start().unwrap();
    if let Some(cut) = cut {
        job.script.gates[0].open_to(cut / 2);
        until(|| handle.metrics().operator("events").is_some_and(|o| o.records_out == cut / 2)).await;
        handle.checkpoint_now().await.unwrap();
        job.script.gates[0].open_to(cut);
        until(|| handle.metrics().operator("events").is_some_and(|o| o.records_out == cut)).await;
        job.script.bomb.arm("fill", Blast::Panic, 1);
    }
    job.script.gates[0].open();
    assert_eq!(finished(handle).await.restarts, u64::from(cut.is_some()));
    expected.assert(job);
}

#[test]
fn the_same_records_are_late_whatever_the_batches_the_parallelism_and_the_restarts() {
    let events = disordered(1_500);
    for (every, lateness) in [(1, 0), (7, 0), (100, 0), (1, 25), (7, 10)] {
        let expected = Expected::bounded(&events, 20, lateness, 10, every);
        assert!(!expected.late.is_empty(), "nothing is late with {every} {lateness}: it proves nothing");
        for (fill, parallelism, cut) in
            [(1, 1, None), (1_000, 1, None), (13, 3, None), (10, 1, Some(703)), (64, 2, Some(1_201))]
        {
            run(async {
                let script = Script { fill, ..Script::new([events.clone()]) };
                let watermarks = Watermarks::bounded(10 * MS).every(every as u32);
                let lateness = MS * lateness as u32;
                let job = counting(settings(parallelism), &script, watermarks, 20 * MS, lateness);
                exact(&job, cut, &expected).await;
            });
        }
    }
}

#[test]
fn a_watermark_at_the_end_of_each_batch_is_one_every_so_many_records() {
    run(async {
        let events = disordered(1_500);
        for fill in [1, 10, 50] {
            let script = Script { fill, ..Script::open(events.clone()) };
            let job = counting(settings(1), &script, Watermarks::bounded(10 * MS), 20 * MS, Duration::ZERO);
            exact(&job, None, &Expected::bounded(&events, 20, 0, 10, fill)).await;
        }
    });
}

/// A bound of 5: the watermark reaches 9 with the event at 15, and not with the one at 14.
#[test]
fn a_window_fires_when_the_watermark_reaches_its_last_millisecond_and_not_before() {
    for (newest, is_late) in [(14, false), (15, true)] {
        run(async {
            let script = Script::open(at([0, newest, 9]));
            let job = counting(settings(1), &script, Watermarks::bounded(5 * MS).every(1), 10 * MS, Duration::ZERO);
            finished(job.job.start().unwrap()).await;
            let first = if is_late { 1 } else { 2 };
            crate::kit::assert_same(job.counts.take(), [(0, 0, first), (0, 10, 1)]);
            assert_eq!(job.late.take(), if is_late { vec![2] } else { vec![] });
        });
    }
}

/// With windows of a millisecond: an event as new as the newest is in time, one a millisecond older is not.
#[test]
fn monotonous_timestamps_may_repeat() {
    run(async {
        let script = Script::open(at([5, 5, 6, 6, 5, 6, 8, 7]));
        let job = counting(settings(1), &script, Watermarks::monotonous().every(1), MS, Duration::ZERO);
        finished(job.job.start().unwrap()).await;
        crate::kit::assert_same(job.counts.take(), [(0, 5, 2), (0, 6, 3), (0, 8, 1)]);
        assert_eq!(job.late.take(), [4, 7]);
    });
}

/// Within the allowed lateness each late event updates its window, which fires again; behind it there is no
/// window any more.
#[test]
fn a_window_fires_again_for_each_record_within_the_allowed_lateness() {
    run(async {
        // The window [0, 10) fires at 11, and is kept until the watermark is 14: the event at 15.
        let script = Script::open(at([1, 11, 2, 14, 3, 15, 4]));
        let job = counting(settings(1), &script, Watermarks::monotonous().every(1), 10 * MS, 5 * MS);
        finished(job.job.start().unwrap()).await;
        crate::kit::assert_same(job.counts.take(), [(0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 10, 3)]);
        assert_eq!(job.late.take(), [6]);
    });
}

/// The least of the last four timestamps, less a millisecond: what it needs to know is more than the newest.
#[derive(Default)]
struct LeastOfFour(Vec<i64>);

impl WatermarkGenerator for LeastOfFour {
    fn observe(&mut self, at: i64) {
        self.0.push(at);
        if self.0.len() > 4 {
            self.0.remove(0);
        }
    }
    fn watermark(&self) -> i64 {
        self.0.iter().min().map_or(i64::MIN, |at| at - 1)
    }
    fn save(&self) -> Value {
        json!(self.0)
    }
    fn restore(&mut self, saved: &Value) {
        self.0 = serde_json::from_value(saved.clone()).unwrap();
    }
}

#[test]
fn a_generator_of_ones_own_goes_on_with_what_it_had_seen() {
    let events = disordered(1_000);
    let mut last = Vec::new();
    let expected = Expected::of(&events, 3, 0, |event| {
        last.push(i128::from(event.at));
        last.iter().rev().take(4).min().map(|at| at - 1)
    });
    assert!(!expected.late.is_empty());
    for (parallelism, cut) in [(1, None), (1, Some(402)), (2, Some(810))] {
        run(async {
            let script = Script::new([events.clone()]);
            let watermarks = Watermarks::custom(LeastOfFour::default).every(1);
            let job = counting(settings(parallelism), &script, watermarks, 3 * MS, Duration::ZERO);
            exact(&job, cut, &expected).await;
        });
    }
}
