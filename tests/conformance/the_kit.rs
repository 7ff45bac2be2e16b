//! The conformance harness itself: operators that are wrong do not pass it.
use crate::Conformance;
use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tidegate::{Stream, Tumbling, testing::TestStream};

/// What it says of a script that must not pass.
#[track_caller]
fn refused<I: Clone + Debug + Send + 'static>(script: Conformance<I>) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| script.run())).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_record_too_many_too_few_or_of_another_value_does_not_pass() {
    let build = |s: TestStream<u32>| s.flat_map(|n| vec![n; n as usize]);
    Conformance::of(build).push(2, 0).emits_all([2, 2]).run();
    refused(Conformance::of(build).push(2, 0).emits(2));
    refused(Conformance::of(build).push(2, 0).emits_all([2, 2, 2]));
    refused(Conformance::of(build).push(2, 0).emits_all([2, 3]));
    refused(Conformance::of(build).push(1, 0));
}

#[test]
fn what_comes_before_its_time_does_not_pass() {
    let build = |s: TestStream<u32>| s.key_by(|n| *n).window("w", Tumbling::of(Duration::from_millis(10))).count();
    let early = Conformance::of(move |s| build(s).map(|w| w.value)).push(1, 5).watermark(9).watermark(20).emits(1u64);
    assert!(refused(early).contains("StepByStep"));
}

#[test]
fn another_event_time_does_not_pass() {
    refused(Conformance::of(|s: TestStream<u32>| s.map(|n| n)).push(1, 5).emits_at(1, 6));
}

#[test]
fn another_order_does_not_pass_where_it_is_asked_for() {
    let script = || Conformance::of(|s: TestStream<u32>| s.flat_map(|n| [n + 1, n])).push(1, 0).emits(1).emits(2);
    script().run();
    refused(script().in_order());
}

/// A count in a variable, which is in no checkpoint.
#[test]
fn state_that_is_not_in_the_checkpoint_does_not_pass() {
    let script = || {
        Conformance::of(|s: TestStream<u32>| {
            let mut count = 0;
            s.map(move |_| {
                count += 1;
                count
            })
        })
        .push(7, 0)
        .emits(1)
        .push(7, 0)
        .emits(2)
    };
    let why = refused(script());
    assert!(why.contains("Restored") || why.contains("ThreeSplits"), "{why}");
}

/// And one that outlives the job, as what is global does.
#[test]
fn an_effect_that_is_repeated_does_not_pass() {
    let count = Arc::new(AtomicU32::new(0));
    refused(
        Conformance::of(move |s: TestStream<u32>| {
            let count = count.clone();
            s.map(move |_| count.fetch_add(1, SeqCst))
        })
        .push(7, 0)
        .emits(0),
    );
}
