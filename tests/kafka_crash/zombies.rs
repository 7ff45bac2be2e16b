//! The same job in two processes: a zombie is fenced by Kafka, finds out, and says so.
use std::time::Duration;
use tidegate::extend::env::{random, wall_ms};

use crate::child::Case;

#[test]
fn a_second_process_takes_over_from_one_that_is_alive() {
    let case = Case::new(2, 20_000);
    let mut first = case.started(2);
    let mut second = case.started(2);
    first.ends_fenced(|| case.errors());
    assert!(second.runs_for(Duration::from_millis(1)), "both have ended: {}", case.errors());
    second.kill();
    case.finish();
}

/// It "recovers" in other engines, fences its replacement, and the two fight without end. With restarts allowed it
/// would do so here.
#[test]
fn a_process_that_wakes_up_changes_nothing_and_fences_nobody() {
    let mut seed = wall_ms().unsigned_abs();
    println!("seed {seed}");
    let mut case = Case::new(2, 30_000);
    case.arguments.restarts = 5;
    for _ in 0..5 {
        let mut zombie = case.started(2);
        zombie.runs_for(Duration::from_micros(random(&mut seed) % 60_000));
        zombie.signal("STOP");
        let mut replacement = case.started(2);
        zombie.signal("CONT");
        zombie.ends_fenced(|| case.errors());
        let before = case.committed();
        assert!(replacement.runs_until(|| case.committed() > before + 1), "{}", case.errors());
        replacement.kill();
    }
    case.finish();
}
