//! Killed while it recovers from having been killed.
//!
//! The hard case is the output that is committed and not published: the next start has it to publish, and
//! dies at every step of doing so.
use crate::child::Case;

const IN_RECOVERY: [&str; 7] = [
    "attempt.claimed",
    "recover.observed",
    "recover.sinks",
    "finalise.before",
    "finalise.mid",
    "finalise.after",
    "recover.built",
];

fn exact_after(first: &str, parallelism: u32) {
    let case = Case::new(23, parallelism, 400, 1_000);
    case.die_at(first);
    let committed = case.committed();
    for point in IN_RECOVERY {
        case.die_at(point);
        assert_eq!(case.committed(), committed, "{point} was not in recovery: a checkpoint was made before it");
    }
    case.finish();
}

#[test]
fn with_output_committed_and_none_of_it_published_at_parallelism_1() {
    exact_after("commit.after:3", 1);
}

#[test]
fn with_output_committed_and_none_of_it_published_at_parallelism_2() {
    exact_after("commit.after:3", 2);
}

#[test]
fn with_output_committed_and_some_of_it_published_at_parallelism_1() {
    exact_after("finalise.mid:4", 1);
}

#[test]
fn with_output_committed_and_some_of_it_published_at_parallelism_2() {
    exact_after("finalise.mid:4", 2);
}
