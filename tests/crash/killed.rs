//! SIGKILL at random moments, start after start, over one and the same output.
//!
//! The moment is either a random time after the start, which falls into recovery as often as not, or a random
//! time after a further checkpoint has committed, so that the job also gets on. The seed is printed;
//! `TIDEGATE_TEST_SEED` repeats it.
use crate::child::Case;
use std::time::Duration;
use tidegate::extend::env::{random, wall_ms};

fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| wall_ms().unsigned_abs());
    println!("TIDEGATE_TEST_SEED={seed}");
    seed
}

/// Kills a case so often, and lets it finish; how many kills hit a running job.
pub fn killed(case: &mut Case, kills: u32, mut rescale: impl FnMut(&mut Case, u32)) -> u32 {
    let mut seed = seed();
    let mut killed = 0;
    for start in 0..kills {
        rescale(case, start);
        let mut job = case.start(None);
        if random(&mut seed).is_multiple_of(2) {
            let before = case.committed();
            job.runs_until(|| case.committed() > before);
        }
        job.runs_for(Duration::from_micros(random(&mut seed) % 150_000));
        killed += u32::from(job.kill());
    }
    assert!(killed >= kills / 2, "only {killed} of {kills} kills hit a running job: give it more input");
    case.finish();
    killed
}
