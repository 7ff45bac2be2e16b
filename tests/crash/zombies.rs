//! The same job in two processes: they never both write, whoever is alive, stopped or woken.
//!
//! The hard case is the zombie: SIGSTOP at a random moment, its job is finished by another process, SIGCONT.
//! It must find out that it has been replaced, say so, and leave nothing that counts.
use crate::{child::Case, process::Running};
use std::time::Duration;
use tidegate::extend::env::{random, wall_ms};

fn started(case: &Case) -> Running {
    let mut job = case.start(None);
    let before = case.committed();
    assert!(job.runs_until(|| case.committed() > before + 1), "{}", case.errors());
    job
}

#[test]
fn a_second_process_takes_over_from_one_that_is_alive() {
    for parallelism in [1, 2] {
        let case = Case::new(31, parallelism, 2_000, 1_000);
        let mut first = started(&case);
        let mut second = started(&case);
        first.ends_fenced(|| case.errors());
        assert!(second.runs_for(Duration::from_millis(1)), "both have ended: {}", case.errors());
        second.kill();
        case.finish();
    }
}

#[test]
fn a_process_that_wakes_up_after_its_job_was_finished_by_another_changes_nothing() {
    let mut seed = wall_ms().unsigned_abs();
    println!("seed {seed}");
    for parallelism in [1, 2] {
        for _ in 0..6 {
            let case = Case::new(seed, parallelism, 1_000, 1_000);
            let mut zombie = started(&case);
            zombie.runs_for(Duration::from_micros(random(&mut seed) % 40_000));
            zombie.signal("STOP");
            case.finish();
            zombie.signal("CONT");
            zombie.ends_fenced(|| case.errors());
            // Another start has nothing to add, and sweeps what the zombie has staged.
            case.finish();
        }
    }
}
