//! Every named kill point, at its first and at a later passing, at parallelism 1 and 2.
//!
//! The hard case is the point that is never reached: such a test would pass for nothing. So the process must
//! have died of SIGKILL, which only the point sends, and a test of its own holds this list against the
//! engine's.
use crate::child::Case;
use std::collections::BTreeSet;
use tidegate::extend::checkpoint::kill::POINTS;

/// Dies at the point's first passing from a fresh start, again at its `later` one from whatever that left,
/// and once more at the first; then finishes.
fn exact_after(point: &str, later: u32, parallelism: u32) {
    let case = Case::new(17, parallelism, 400, 1_000);
    case.die_at(&format!("{point}:1"));
    case.die_at(&format!("{point}:{later}"));
    case.die_at(&format!("{point}:1"));
    case.finish();
}

macro_rules! points {
    ($($test:ident: $point:literal, $later:literal;)*) => {
        $(mod $test {
            #[test]
            fn parallelism_1() {
                super::exact_after($point, $later, 1);
            }
            #[test]
            fn parallelism_2() {
                super::exact_after($point, $later, 2);
            }
        })*

        #[test]
        fn every_point_of_the_engine_has_its_test() {
            let tested = BTreeSet::from([$($point),*]);
            assert_eq!(tested, POINTS.iter().map(|(name, _)| *name).collect());
        }
    };
}

// What happens once an attempt is passed once a process.
points! {
    attempt_claimed: "attempt.claimed", 1;
    recover_observed: "recover.observed", 1;
    recover_sinks: "recover.sinks", 1;
    recover_built: "recover.built", 1;
    trigger: "trigger", 3;
    source_barrier: "source.barrier", 5;
    align_first: "align.first", 3;
    align_more: "align.more", 3;
    snapshot_begin: "snapshot.begin", 4;
    snapshot_upload_before: "snapshot.upload.before", 4;
    snapshot_upload_after: "snapshot.upload.after", 4;
    sink_flush: "sink.flush", 5;
    sink_staged: "sink.staged", 5;
    manifest_before: "manifest.before", 3;
    manifest_after: "manifest.after", 3;
    commit_before: "commit.before", 3;
    commit_after: "commit.after", 3;
    finalise_before: "finalise.before", 5;
    finalise_mid: "finalise.mid", 5;
    finalise_after: "finalise.after", 5;
    collect_before: "collect.before", 3;
    collect_mid: "collect.mid", 2;
    collect_after: "collect.after", 3;
}
