//! Inputs and outputs: what is pushed, when it has been processed, what comes out where.
use crate::{Word, counts};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use tidegate::{
    Kind, Settings, Stream, Tumbling,
    testing::{Harness, JobHarness, TestStream},
};

#[tokio::test(start_paused = true)]
async fn a_window_fires_at_the_watermark_that_passes_its_end_and_not_before() {
    for parallelism in [1, 2, 3] {
        let mut harness = Harness::new(counts).parallelism(parallelism).start().await.unwrap();
        harness.push_all([("tide", 0), ("gate", 10), ("tide", 999)]);
        harness.watermark(998);
        harness.settle().await.unwrap();
        assert_eq!(harness.take(), []);
        harness.watermark(999);
        harness.settle().await.unwrap();
        assert_eq!(harness.take_sorted(), [(0, "gate".into(), 1), (0, "tide".into(), 2)]);
        assert_eq!(harness.take(), [], "what was taken is not given again");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_has_been_pushed_is_processed_once_it_has_settled() {
    for (parallelism, splits) in [(1, 1), (3, 1), (3, 3), (1, 5)] {
        let build = |s: TestStream<u64>| s.map(|n| n + 1).key_by(|n| n % 100).fold("last", 0, |last, n| *last = n);
        let mut harness = Harness::new(build).parallelism(parallelism).splits(splits).start().await.unwrap();
        for round in 0..20 {
            harness.push_all((0..5_000).map(|n| (n * round, 0)));
            harness.settle().await.unwrap();
            assert_eq!(harness.take().len(), 5_000);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn records_and_watermarks_keep_their_order() {
    let mut job = JobHarness::new(|job| {
        let words = job.input::<Word>("words").key_by(|w| (*w).to_owned());
        let mut windows = words.window("counts", Tumbling::of(Duration::from_secs(1)));
        job.output("late", windows.late());
        job.output("output", windows.count().map(|w| (w.key, w.value)));
    })
    .parallelism(2)
    .start()
    .await
    .unwrap();
    let words = job.input::<Word>("words");
    // All of it at once: what is late follows from the order alone.
    words.push("in time", 5);
    words.watermark(999);
    words.push("late", 6);
    words.push("in the next", 1_000);
    words.watermark(1_999);
    job.settle().await.unwrap();
    assert_eq!(job.output::<Word>("late").take_timed(), [("late", 6)]);
    let counts = job.output::<(String, u64)>("output").take_sorted();
    assert_eq!(counts, [("in the next".into(), 1), ("in time".into(), 1)]);
    let metrics = job.metrics();
    assert_eq!(metrics.operators.iter().map(|o| o.late).sum::<u64>(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_slower_of_two_inputs_holds_time_back() {
    let mut job = JobHarness::new(|job| {
        let both = job.input::<Word>("a").union(job.input::<Word>("b"));
        let windows = both.key_by(|w| (*w).to_owned()).window("counts", Tumbling::of(Duration::from_secs(1)));
        job.output("output", windows.count().map(|w| (w.key, w.value)));
    })
    .parallelism(2)
    .start()
    .await
    .unwrap();
    let (a, b, counts) = (job.input::<Word>("a"), job.input::<Word>("b"), job.output::<(String, u64)>("output"));
    a.push("tide", 1);
    a.watermark(5_000);
    b.push("tide", 2);
    job.settle().await.unwrap();
    assert!(counts.is_empty());
    b.end();
    job.settle().await.unwrap();
    assert_eq!(counts.take(), [("tide".into(), 2)], "what has ended holds nothing back");
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_the_inputs_everything_comes_out_and_the_job_ends() {
    let mut harness = Harness::new(counts).parallelism(2).start().await.unwrap();
    harness.push("tide", 10);
    harness.finish().await.unwrap();
    assert_eq!(harness.take(), [(0, "tide".into(), 1)]);
    harness.settle().await.unwrap();
    assert_eq!(harness.snapshot().await.unwrap_err().kind(), Kind::Config);
}

#[tokio::test]
async fn it_runs_on_a_clock_that_is_not_paused_too() {
    let mut harness = Harness::new(counts).start().await.unwrap();
    harness.push("tide", 10);
    harness.watermark(999);
    harness.advance(Duration::from_millis(1)).await.unwrap();
    assert_eq!(harness.take(), [(0, "tide".into(), 1)]);
}

#[test]
fn and_on_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut harness = Harness::new(counts).parallelism(3).start().await.unwrap();
        for second in 0..50 {
            harness.push_all((0..100).map(|n| ("tide", second * 1_000 + n)));
            harness.watermark(second * 1_000 + 999);
            harness.settle().await.unwrap();
            assert_eq!(harness.take(), [(second * 1_000, "tide".into(), 100)]);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_reluctant_output_gives_the_same() {
    let mut harness = Harness::new(counts).parallelism(2).reluctant_outputs().start().await.unwrap();
    harness.push_all((0..10_000).map(|n| ("tide", n)));
    harness.watermark(9_999);
    harness.settle().await.unwrap();
    assert_eq!(harness.take().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_name_or_a_type_that_is_wrong_is_told_with_those_that_are_right() {
    let job = JobHarness::new(|job| job.output("numbers", job.input::<u32>("in"))).start().await.unwrap();
    let said = |f: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    assert!(said(&|| drop(job.input::<u32>("im"))).contains("\"in\""));
    assert!(said(&|| drop(job.output::<u32>("number"))).contains("\"numbers\""));
    assert!(said(&|| drop(job.input::<u64>("in"))).contains("u64"));
    assert!(said(&|| drop(job.output::<u64>("numbers"))).contains("u64"));
}

#[tokio::test(start_paused = true)]
async fn a_mistake_in_the_job_or_its_settings_comes_out_of_the_start() {
    let twice = JobHarness::new(|job| {
        job.output("numbers", job.input::<u32>("in"));
        job.output("numbers", job.input::<u32>("more"));
    });
    assert!(twice.start().await.unwrap_err().to_string().contains("two operators are called \"numbers\""));
    let none = Harness::new(counts).settings(Settings { parallelism: 0, ..Settings::default() });
    assert_eq!(none.start().await.unwrap_err().kind(), Kind::Config);
}
