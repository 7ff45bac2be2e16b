//! The engine in one process, from one seed: thousands of runs in which everything outside goes wrong.
//!
//! A run draws a job, its input and its settings; a store, sources and sinks that fail; crashes, second runs of
//! the same job, stops. Then all faults end, the job has to finish, and its output has to be that of a run in
//! which nothing had failed. The clock is tokio's paused one and everything runs on one thread, so the same
//! seed gives the same run, call by call.
//!
//! `TIDEGATE_TEST_SEED=7 cargo test --test simulation -- --nocapture replay` runs one seed and prints its trace;
//! `TIDEGATE_TEST_SEED=5000..100000` runs more of them.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may
mod chaos;
mod job;
mod oracle;
mod plan;
mod sink;
mod source;
mod store;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    panic,
};

/// What has to happen in some of the runs of every test: else they prove nothing.
const SOMETIMES: &[&str] = &[
    "a process ended: fenced",
    "a process ended: unavailable",
    "a process ended: user code",
    "a record was late",
    "a window fired again",
    "checkpoints",
    "checkpoints abandoned",
    "claim lost its reply",
    "collection lost its reply",
    "collection refused",
    "commit lost its reply",
    "commit refused",
    "dead letters",
    "killed in claim",
    "killed in collection",
    "killed in commit",
    "killed in manifest",
    "killed in publishing",
    "killed in publishing in recovery",
    "killed in restore",
    "killed in snapshot",
    "killed in staging",
    "killed in sweep",
    "manifest lost its reply",
    "manifest refused",
    "published what an abandoned checkpoint had staged",
    "publishing lost its reply",
    "publishing refused",
    "reader failed",
    "reader panicked",
    "replaced in commit",
    "replaced in manifest",
    "replaced in publishing",
    "replaced in sweep",
    "restored at another parallelism",
    "snapshot lost its reply",
    "snapshot refused",
    "staging lost its reply",
    "stalls",
    "started while it runs",
    "stopped",
    "user failed",
    "user panicked",
    "writer failed",
    "writer panicked",
];

/// Runs them all, whatever becomes of one; says how often what has happened.
fn seeds(seeds: Range<u64>) -> BTreeMap<String, u64> {
    let (mut tally, mut failed) = (BTreeMap::<String, u64>::new(), Vec::new());
    for seed in seeds {
        match panic::catch_unwind(|| world::run(seed, false).tally()) {
            Ok(counts) => counts.into_iter().for_each(|(what, n)| *tally.entry(what).or_default() += n),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "{} seeds fail: {failed:?}", failed.len());
    for (what, n) in &tally {
        println!("{n:>8} {what}");
    }
    tally
}

/// A quarter of the seeds of a test run: the runner runs the quarters beside each other.
fn quarter(n: u64) {
    let tally = seeds(1_250 * n..1_250 * (n + 1));
    let never: Vec<_> = SOMETIMES.iter().filter(|what| !tally.contains_key(**what)).collect();
    assert!(never.is_empty(), "has never happened: {never:?}");
}

#[test]
fn every_run_that_is_healed_gives_what_an_unharmed_one_gives_first_quarter() {
    quarter(0);
}

#[test]
fn every_run_that_is_healed_gives_what_an_unharmed_one_gives_second_quarter() {
    quarter(1);
}

#[test]
fn every_run_that_is_healed_gives_what_an_unharmed_one_gives_third_quarter() {
    quarter(2);
}

#[test]
fn every_run_that_is_healed_gives_what_an_unharmed_one_gives_fourth_quarter() {
    quarter(3);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let hashes = || -> Vec<u64> { (0..50).map(|seed| world::run(seed, false).hash()).collect() };
    let first = hashes();
    assert_eq!(first, hashes());
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len());
}

/// What `TIDEGATE_TEST_SEED` says: one seed, with its trace, or a range of them. Nothing without it.
#[test]
fn replay() {
    let Ok(wanted) = std::env::var("TIDEGATE_TEST_SEED") else { return };
    match wanted.split_once("..") {
        Some((from, to)) => drop(seeds(from.parse().unwrap()..to.parse().unwrap())),
        None => drop(world::run(wanted.parse().unwrap(), true)),
    }
}
