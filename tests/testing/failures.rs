//! Jobs that fail: what the test is told, and what happens where restarts are granted.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tidegate::{
    Kind, RestartStrategy, Settings, Stream,
    testing::{Harness, TestStream},
};

#[tokio::test(start_paused = true)]
async fn the_error_that_the_job_fails_with_comes_out_of_the_next_settle() {
    let numbers = |s: TestStream<&'static str>| s.try_map(str::parse::<u8>);
    let mut harness = Harness::new(numbers).parallelism(2).start().await.unwrap();
    harness.push("1", 0);
    harness.settle().await.unwrap();
    harness.push("one", 0);
    let error = harness.settle().await.unwrap_err();
    assert_eq!(error.kind(), Kind::User);
    assert!(error.to_string().contains("invalid digit"), "{error}");
    assert_eq!(harness.take(), [1], "what was committed is there");
    assert_eq!(harness.settle().await.unwrap_err().kind(), Kind::User, "and it stays so");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_may_restart_is_waited_for_and_reads_again_what_was_lost() {
    let mut settings = Settings::default();
    settings.restart.strategy = RestartStrategy::FixedDelay;
    settings.restart.delay = Duration::from_secs(60);
    let armed = Arc::new(AtomicBool::new(false));
    let trips = armed.clone();
    let sums = move |s: TestStream<u64>| {
        let trips = trips.clone();
        let sums = s.key_by(|_| 0u8).fold("sums", 0, |sum, n| *sum += n);
        sums.try_map(move |(_, sum)| if trips.swap(false, SeqCst) { Err("it trips") } else { Ok(sum) })
    };
    let mut harness = Harness::new(sums).settings(settings).start().await.unwrap();
    harness.push(1, 0);
    harness.settle().await.unwrap();
    armed.store(true, SeqCst);
    harness.push_all([(2, 0), (3, 0)]);
    harness.settle().await.unwrap();
    assert_eq!(harness.take(), [1, 3, 6]);
    assert_eq!(harness.status().restarts, 1);
}
