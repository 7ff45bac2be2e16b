//! Whatever the moments at which it is killed: see [`killed`].
use crate::{child::Case, killed::killed};

#[test]
fn exact_after_thirty_kills_at_parallelism_1() {
    killed(&mut Case::new(5, 1, 3_000, 900), 30, |_, _| {});
}

#[test]
fn exact_after_thirty_kills_at_parallelism_2() {
    killed(&mut Case::new(6, 2, 3_000, 900), 30, |_, _| {});
}

#[test]
fn exact_after_twenty_kills_with_another_parallelism_at_each_start() {
    killed(&mut Case::new(7, 1, 3_000, 900), 20, |case, start| case.at_parallelism(start % 3 + 1));
}
