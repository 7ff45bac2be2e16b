//! Windows.
use crate::{Conformance, over_both};
use std::time::Duration;
use tidegate::{
    Firing::{self, Early, Late, OnTime},
    Global, Hopping, Session, Stream, Trigger, Tumbling, Windowed,
    testing::TestStream,
};

type Click = (&'static str, u32);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn tumbling() {
    over_both(|| {
        Conformance::of(|s: TestStream<Click>| {
            let windows = s.key_by(|c| c.0.to_owned()).window("counts", Tumbling::of(SECOND));
            windows.count().map(|w| (w.window.start, w.key, w.value))
        })
        .push(("ann", 1), 0)
        .push(("ann", 2), 999)
        .push(("ann", 3), 1_000)
        .push(("bob", 1), 500)
        .watermark(998)
        .watermark(999)
        .emits((0, "ann", 2))
        .emits((0, "bob", 1))
        .push(("ann", 4), 1_500)
        .watermark(5_000)
        .emits((1_000, "ann", 2))
        .push(("bob", 2), 7_000)
        .end()
        .emits((7_000, "bob", 1))
    });
}

#[test]
fn tumbling_with_lateness_and_late_records() {
    over_both(|| {
        Conformance::of_job(|job| {
            let clicks = job.input::<Click>("input").key_by(|c| c.0.to_owned());
            let mut windows = clicks.window("counts", Tumbling::of(SECOND)).allowed_lateness(SECOND);
            job.output("late", windows.late());
            job.output("output", windows.count().map(|w| (w.window.start, w.key, w.value)));
        })
        .push_to("input", ("ann", 1u32), 100)
        .watermark(999)
        .emits((0, "ann", 1))
        // Late, and allowed: the window fires again.
        .push_to("input", ("ann", 2u32), 200)
        .emits((0, "ann", 2))
        .push_to("input", ("bob", 1u32), 300)
        .emits((0, "bob", 1))
        .watermark(1_998)
        .push_to("input", ("ann", 3u32), 999)
        .emits((0, "ann", 3))
        .watermark(1_999)
        // Too late.
        .push_to("input", ("ann", 4u32), 999)
        .emits_to("late", ("ann", 4))
        .push_to("input", ("ann", 5u32), 2_000)
        .end()
        .emits((2_000, "ann", 1))
    });
}

fn counted<K: Into<String>>(w: Windowed<K, u64>) -> (i64, String, u64, Firing) {
    (w.window.start, w.key.into(), w.value, w.firing)
}

#[test]
fn hopping() {
    over_both(|| {
        Conformance::of(|s: TestStream<Click>| {
            let hops = Hopping::of(SECOND, SECOND / 2);
            s.key_by(|c| c.0.to_owned()).window("counts", hops).count().map(counted)
        })
        .push(("ann", 1), 100)
        .push(("ann", 2), 600)
        .push(("bob", 1), 700)
        .watermark(499)
        .emits((-500, "ann", 1, OnTime))
        .watermark(999)
        .emits((0, "ann", 2, OnTime))
        .emits((0, "bob", 1, OnTime))
        .push(("ann", 3), 1_400)
        .watermark(1_499)
        .emits((500, "ann", 2, OnTime))
        .emits((500, "bob", 1, OnTime))
        .end()
        .emits((1_000, "ann", 1, OnTime))
    });
}

#[test]
fn hopping_by_what_does_not_divide_the_size_and_late() {
    over_both(|| {
        Conformance::of_job(|job| {
            let hops = Hopping::of(SECOND, Duration::from_millis(300));
            let keyed = job.input::<Click>("input").key_by(|c| c.0.to_owned());
            let mut windows = keyed.window("counts", hops).allowed_lateness(Duration::from_millis(100));
            job.output("late", windows.late());
            job.output("output", windows.count().map(counted));
        })
        .push_to("input", ("ann", 1u32), 1_000)
        .watermark(1_299)
        .emits((300, "ann", 1, OnTime))
        // In 300, which may still be late, and in 600.
        .push_to("input", ("ann", 2u32), 850)
        .emits((300, "ann", 2, Late))
        .watermark(1_598)
        .push_to("input", ("bob", 1u32), 599)
        .emits_to("late", ("bob", 1))
        .watermark(1_599)
        .emits((600, "ann", 2, OnTime))
        .end()
        .emits((900, "ann", 1, OnTime))
    });
}

#[test]
fn sessions() {
    over_both(|| {
        Conformance::of(|s: TestStream<Click>| {
            let sessions = s.key_by(|c| c.0.to_owned()).window("sessions", Session::gap(SECOND));
            sessions.count().map(|w| (w.window.start, w.window.end, w.key, w.value))
        })
        .push(("ann", 1), 0)
        .push(("ann", 2), 500)
        .push(("bob", 1), 100)
        .watermark(1_099)
        .emits((100, 1_100, "bob", 1))
        .watermark(1_499)
        .emits((0, 1_500, "ann", 2))
        .push(("ann", 3), 3_000)
        .push(("ann", 4), 4_500)
        // It bridges the gap between the two.
        .push(("ann", 5), 3_800)
        .watermark(4_000)
        .push(("bob", 2), 9_000)
        .watermark(5_499)
        .emits((3_000, 5_500, "ann", 3))
        .end()
        .emits((9_000, 10_000, "bob", 1))
    });
}

#[test]
fn sessions_with_a_gap_by_record_and_late_ones() {
    over_both(|| {
        Conformance::of_job(|job| {
            let gap = Session::gap_of(|c: &Click| Duration::from_millis(u64::from(c.1)));
            let keyed = job.input::<Click>("input").key_by(|c| c.0.to_owned());
            let mut windows = keyed.window("sessions", gap).allowed_lateness(SECOND);
            job.output("late", windows.late());
            job.output("output", windows.count().map(|w| (w.window.start, w.window.end, w.value, w.firing)));
        })
        .push_to("input", ("ann", 100u32), 0)
        .push_to("input", ("ann", 500u32), 50)
        .watermark(549)
        .emits((0, 550, 2, OnTime))
        .push_to("input", ("ann", 100u32), 400)
        .emits((0, 550, 3, Late))
        .watermark(1_549)
        .push_to("input", ("ann", 10u32), 300)
        .emits_to("late", ("ann", 10))
        .end()
    });
}

#[test]
fn early_firings_by_records() {
    for discards in [false, true] {
        over_both(|| {
            Conformance::of(move |s: TestStream<Click>| {
                let pairs = Trigger::on_watermark().every_records(2);
                let pairs = if discards { pairs.discarding() } else { pairs };
                s.key_by(|c| c.0.to_owned()).window("counts", Tumbling::of(SECOND)).trigger(pairs).count().map(counted)
            })
            .push(("ann", 1), 0)
            .push(("ann", 2), 1)
            .emits((0, "ann", 2, Early))
            .push(("bob", 1), 1)
            .push(("ann", 3), 2)
            .watermark(999)
            .emits((0, "ann", if discards { 1 } else { 3 }, OnTime))
            .emits((0, "bob", 1, OnTime))
        });
    }
}

#[test]
fn early_firings_by_event_time() {
    over_both(|| {
        Conformance::of(|s: TestStream<Click>| {
            let often = Trigger::on_watermark().every(Duration::from_millis(300));
            s.key_by(|c| c.0.to_owned()).window("counts", Tumbling::of(SECOND)).trigger(often).count().map(counted)
        })
        .push(("ann", 1), 10)
        .watermark(290)
        .watermark(310)
        .emits((0, "ann", 1, Early))
        .watermark(620)
        .push(("ann", 2), 700)
        .watermark(950)
        .emits((0, "ann", 2, Early))
        .watermark(999)
        .emits((0, "ann", 2, OnTime))
    });
}

#[test]
fn early_firings_by_processing_time() {
    let half = Duration::from_millis(500);
    over_both(|| {
        Conformance::of(move |s: TestStream<Click>| {
            let often = Trigger::on_watermark().every_processing(half);
            s.key_by(|c| c.0.to_owned()).window("counts", Tumbling::of(SECOND)).trigger(often).count().map(counted)
        })
        .push(("ann", 1), 10)
        .advance(Duration::from_millis(499))
        .advance(Duration::from_millis(1))
        .emits((0, "ann", 1, Early))
        .advance(SECOND)
        .push(("ann", 2), 20)
        .advance(half)
        .emits((0, "ann", 2, Early))
        .watermark(999)
        .emits((0, "ann", 2, OnTime))
    });
}

#[test]
fn the_global_window() {
    over_both(|| {
        Conformance::of(|s: TestStream<Click>| {
            let pairs = Trigger::on_watermark().every_records(2);
            let counts = s.key_by(|c| c.0.to_owned()).window("counts", Global).trigger(pairs).count();
            counts.map(|w| (w.key, w.value, w.firing))
        })
        .push(("ann", 1), 0)
        .push(("bob", 1), 1)
        .push(("ann", 2), 1_000_000)
        .emits(("ann", 2, Early))
        .watermark(2_000_000)
        .push(("ann", 3), 5)
        .end()
        .emits(("ann", 3, OnTime))
        .emits(("bob", 1, OnTime))
    });
}
