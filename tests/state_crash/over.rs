//! The proofs that every backend has to pass, given its job file.
//!
//! The hard case is to prove something: an operator has about 1200 keys, and [`CACHE`] has room for some dozens, so that
//! almost every record reads the backend and almost every batch writes it.
use std::path::Path;

use crate::{
    child::{Case, files},
    killed::killed,
};

/// A line of `[state]` for those that cache.
pub const CACHE: &str = "cache = \"4KB\"";
/// Kills that have to hit a running job.
const KILLS: u32 = 25;

/// Runs the job over a backend, killed at random: at one parallelism, or at another one with each start.
pub fn exact_after_kills(parallelism: &[u32], job_file: impl Fn(&Path) -> String) {
    let mut case = Case::new(41, parallelism[0], 4_000, 900).with_job_file(job_file);
    let killed = killed(&mut case, KILLS + 10, |case, start| {
        case.at_parallelism(parallelism[start as usize % parallelism.len()]);
    });
    assert!(killed >= KILLS, "only {killed} kills hit a running job: give it more input");
}

/// Runs it undisturbed, and with thirty restarts; what is left of the latter is at most thrice as much. `left` is asked
/// when a job has ended; what it counts is the backend's: bytes, files, keys.
pub fn restarts_leave_nothing(job_file: impl Fn(&Path) -> String, left: impl Fn(&Case) -> u64) {
    let case = |rate| Case::new(43, 2, 3_000, rate).with_job_file(&job_file);
    let undisturbed = case(0);
    undisturbed.finish();
    let mut restarted = case(900);
    killed(&mut restarted, 30, |_, _| {});
    let (once, often) = (left(&undisturbed), left(&restarted));
    println!("left by an undisturbed run {once}, after thirty restarts {often}");
    assert!(often <= once * 3, "{once} is left by an undisturbed run, and {often} after thirty restarts");
}

/// Bytes of the objects in the checkpoint store.
pub fn stored(case: &Case) -> u64 {
    let files = files(&case.path().join("checkpoints/crash/state"));
    assert!(!files.is_empty(), "the last checkpoint has state");
    files.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum()
}
