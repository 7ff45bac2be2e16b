//! SIGKILL of the job: at random, at every point around flush, commit record, `EndTxn` and recovery, and again in
//! the recovery from that.
use std::time::Duration;
use tidegate::extend::{
    checkpoint::kill::KAFKA_POINTS,
    env::{now, random, wall_ms},
};

use crate::{child::Case, job};

/// Kills of each parallelism.
const KILLS: u64 = 32;

fn at_random(parallelism: u32) {
    let mut seed = wall_ms().unsigned_abs();
    println!("seed {seed}");
    let case = Case::new(parallelism, 60_000);
    let mut at_work = 0;
    for kill in 0..KILLS {
        // Half of them in the recovery from the one before, or in the first checkpoints after it.
        let mut job = if kill.is_multiple_of(2) { case.start(None) } else { case.started(1) };
        job.runs_for(Duration::from_millis(random(&mut seed) % 400));
        at_work += u64::from(job.kill());
    }
    // What it dies of must be the kill, and not the end of the input.
    assert!(at_work >= KILLS * 9 / 10, "only {at_work} kills found it alive: {}", case.errors());
    assert!(case.committed() >= KILLS / 2, "hardly a checkpoint was made: {}", case.errors());
    case.finish();
}

#[test]
fn at_random_on_one_subtask() {
    at_random(1);
}

#[test]
fn at_random_on_two_subtasks() {
    at_random(2);
}

#[test]
fn at_every_point_of_the_protocol() {
    let case = Case::new(2, 100_000);
    let others = [
        "trigger",
        "source.barrier",
        "snapshot.begin",
        "sink.flush",
        "manifest.before",
        "manifest.after",
        "collect.before",
    ];
    for point in KAFKA_POINTS.iter().map(|(name, _)| *name).chain(others) {
        case.die_at(point);
        if !point.starts_with("kafka.recover") {
            case.die_at(&format!("{point}:3"));
        }
    }
    case.finish();
}

#[test]
fn in_the_recovery_from_another_kill() {
    let case = Case::new(2, 100_000);
    for first in ["kafka.commit.begin:2", "kafka.commit.ended:2", "manifest.after:3"] {
        for second in [
            "attempt.claimed",
            "kafka.recover.found",
            "kafka.recover.fenced",
            "kafka.recover.read",
            "recover.sinks",
            "recover.built",
        ] {
            case.die_at(first);
            case.die_at(second);
        }
    }
    case.finish();
}

/// Flink's connector, 314: what an ended job leaves open holds back every reader until it times out.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_leaves_no_transaction_open() {
    let case = Case::new(2, 20_000);
    let running = job::job(&case.arguments).start().unwrap();
    let judge = case.broker.judge().unwrap();
    let is_open = || judge.has_open("copies").unwrap();
    let began = now();
    while case.committed() < 3 || !is_open() {
        assert!(now().duration_since(began) < Duration::from_secs(30), "{:?}", running.status());
    }
    running.cancel().await.unwrap();
    let began = now();
    while is_open() {
        let waited = now().duration_since(began);
        assert!(waited < Duration::from_millis(case.arguments.transaction_timeout_ms / 2), "it is left to time out");
    }
    case.finish();
}

/// Flink's documentation warns of lost data here: what was prepared can no longer be committed then. Here
/// nothing that was prepared has to be.
#[test]
fn and_started_again_after_its_transaction_has_timed_out() {
    let mut case = Case::new(1, 5_000);
    case.arguments.transaction_timeout_ms = 1_500;
    for point in ["kafka.commit.begin:5", "manifest.after:5"] {
        case.die_at(point);
        let judge = case.broker.judge().unwrap();
        let is_open = || judge.has_open("copies").unwrap();
        assert!(is_open(), "there is no transaction to time out");
        while is_open() {}
    }
    case.finish();
}

#[test]
fn and_started_again_with_a_partition_more() {
    let mut case = Case::new(2, 4_000);
    case.started(3).kill();
    // A run of `available_now` keeps to the ends that it began with; the next run sees the rest.
    case.finish();
    let Case { broker, world, .. } = &mut case;
    world.add_a_partition(broker, 500);
    case.die_at("kafka.commit.ended:1");
    case.finish();
}
