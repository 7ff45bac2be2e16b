//! Snapshots, restores at another parallelism, kills.
use crate::{Word, counts};
use tidegate::{
    Stream,
    testing::{Harness, JobHarness, TestStream},
};

#[tokio::test(start_paused = true)]
async fn a_job_goes_on_from_its_snapshot_at_another_parallelism() {
    let mut harness = Harness::new(counts).start().await.unwrap();
    harness.push_all((0..500).map(|n| (if n % 2 == 0 { "tide" } else { "gate" }, n)));
    let snapshot = harness.snapshot().await.unwrap();
    for parallelism in [1, 2, 3, 8] {
        let mut again = harness.restore(&snapshot, parallelism).await.unwrap();
        again.push("tide", 600);
        again.watermark(999);
        again.settle().await.unwrap();
        assert_eq!(again.take_sorted(), [(0, "gate".into(), 250), (0, "tide".into(), 251)]);
    }
    // The first one has seen nothing of it.
    harness.watermark(999);
    harness.settle().await.unwrap();
    assert_eq!(harness.take_sorted(), [(0, "gate".into(), 250), (0, "tide".into(), 250)]);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_stays_what_it_is() {
    let mut harness = Harness::new(counts).start().await.unwrap();
    harness.push("tide", 1);
    let snapshot = harness.snapshot().await.unwrap();
    for n in 0..50 {
        harness.push("tide", 2 + n);
        harness.settle().await.unwrap();
    }
    for _ in 0..2 {
        let mut again = harness.restore(&snapshot, 2).await.unwrap();
        again.finish().await.unwrap();
        assert_eq!(again.take(), [(0, "tide".into(), 1)]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_watermark_is_part_of_it() {
    let mut job = JobHarness::new(|job| {
        let words = job.input::<Word>("words").key_by(|w| (*w).to_owned());
        let mut windows = words.window("counts", tidegate::Tumbling::of(std::time::Duration::from_secs(1)));
        job.output("late", windows.late());
        job.output("output", windows.count().map(|w| w.value));
    })
    .start()
    .await
    .unwrap();
    job.watermark(5_000);
    let snapshot = job.snapshot().await.unwrap();
    let mut again = job.restore(&snapshot, 3).await.unwrap();
    again.input("words").push("tide", 100);
    again.settle().await.unwrap();
    assert_eq!(again.output::<Word>("late").take(), ["tide"]);
    assert!(again.output::<u64>("output").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_killed_job_reads_again_what_was_not_committed_and_gives_it_once() {
    let sums = |s: TestStream<u64>| s.key_by(|n| n % 3).fold("sums", 0, |sum, n| *sum += n).map(|(_, sum)| sum);
    let mut harness = Harness::new(sums).start().await.unwrap();
    harness.push(1, 0);
    harness.settle().await.unwrap();
    harness.push(4, 0);
    harness.kill(3).await.unwrap();
    harness.push(7, 0);
    harness.settle().await.unwrap();
    assert_eq!(harness.take(), [1, 5, 12]);
}

#[tokio::test(start_paused = true)]
async fn another_version_of_a_job_goes_on_from_the_snapshot_of_the_one_before() {
    let sums = |s: TestStream<u64>| s.key_by(|_| 0u8).fold("sums", 0, |sum, n| *sum += n).map(|(_, sum)| sum);
    let mut before = Harness::new(sums).start().await.unwrap();
    before.push(40, 0);
    let snapshot = before.snapshot().await.unwrap();
    let texts =
        |s: TestStream<u64>| s.key_by(|_| 0u8).fold("sums", 0, |sum, n| *sum += n).map(|(_, sum)| format!("= {sum}"));
    let mut after = Harness::new(texts).from_snapshot(&snapshot).start().await.unwrap();
    after.push(2, 0);
    after.settle().await.unwrap();
    assert_eq!(after.take(), ["= 42"]);
}
