//! Windows.
use crate::{Conformance, over_both};
use std::time::Duration;
use tidegate::{Stream, Tumbling, testing::TestStream};

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
