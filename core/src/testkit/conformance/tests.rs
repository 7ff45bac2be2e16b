//! Operators that are wrong in ways in which no function of a user's can be.
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll, ready},
};
use tidegate_checkpoint::error::Result;

use super::Conformance;
use crate::{
    Stream,
    plan::{Graph, NodeId},
    record::{Control, Output},
    runtime::build::Build,
    testkit::harness::TestStream,
    time::Timestamp,
};

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It lets go of what it holds at a barrier only.
    UntilTheBarrier,
    /// What it holds is lost where its output is not ready.
    LostWhenRefused,
    /// Watermarks overtake what it holds.
    Overtaken,
}

/// Holds records back until it is asked whether it is ready.
struct Holding<S> {
    stream: S,
    fault: Fault,
}

impl<S: Stream> Stream for Holding<S> {
    type Item = S::Item;
    fn graph(&self) -> &Graph {
        self.stream.graph()
    }
    fn node(&self) -> NodeId {
        self.stream.node()
    }
    fn attach<O: Output<S::Item>>(&self, build: &mut Build<'_>, out: O) -> Result<()> {
        self.stream.attach(build, Held { records: Vec::new(), fault: self.fault, out })
    }
}

struct Held<T, O> {
    records: Vec<(T, Timestamp)>,
    fault: Fault,
    out: O,
}

impl<T, O: Output<T>> Held<T, O> {
    fn let_go(&mut self) {
        self.records.drain(..).for_each(|(record, at)| self.out.record(record, at));
    }
}

impl<T: Send + 'static, O: Output<T>> Output<T> for Held<T, O> {
    fn record(&mut self, record: T, at: Timestamp) {
        self.records.push((record, at));
    }
    fn control(&mut self, control: Control) {
        let lets_go = match self.fault {
            Fault::UntilTheBarrier => matches!(control, Control::Barrier(_)),
            Fault::Overtaken => !matches!(control, Control::Watermark(_)),
            Fault::None | Fault::LostWhenRefused => true,
        };
        if lets_go {
            self.let_go();
        }
        self.out.control(control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.fault == Fault::LostWhenRefused && self.out.poll_ready(cx)?.is_pending() {
            self.records.clear();
            return Poll::Pending;
        }
        if !matches!(self.fault, Fault::UntilTheBarrier | Fault::Overtaken) {
            self.let_go();
        }
        ready!(self.out.poll_ready(cx))?;
        Poll::Ready(Ok(()))
    }
    fn sweep(&mut self) -> bool {
        self.out.sweep()
    }
}

/// What it says of an operator with a fault, in a script that a good one passes.
fn said_of(fault: Fault) -> Option<String> {
    let script = Conformance::<_>::of(move |s: TestStream<u32>| {
        let windows = Holding { stream: s, fault }.key_by(|n| *n);
        windows.window("counts", crate::Tumbling::of(std::time::Duration::from_secs(1))).count().map(|w| w.value)
    });
    let script = script.push(1, 0).push(1, 10).push(2, 20).watermark(999).emits(2u64).emits(1u64);
    let script = script.push(3, 1_000).push(3, 1_001).watermark(1_999).emits(2u64).end();
    let panic = catch_unwind(AssertUnwindSafe(|| script.run())).err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

#[test]
fn one_that_holds_records_and_is_right_passes() {
    assert_eq!(said_of(Fault::None), None);
}

#[test]
fn one_that_gives_at_a_barrier_only_does_not_pass() {
    let said = said_of(Fault::UntilTheBarrier);
    assert!(said.is_some(), "it passes");
}

#[test]
fn one_that_loses_records_when_it_is_refused_does_not_pass() {
    let said = said_of(Fault::LostWhenRefused);
    assert!(said.is_some_and(|said| said.contains("reluctant")));
}

#[test]
fn one_whose_records_are_overtaken_by_watermarks_does_not_pass() {
    assert!(said_of(Fault::Overtaken).is_some());
}

/// Without windows behind it, only a run without a checkpoint tells.
#[test]
fn and_only_a_run_without_a_checkpoint_tells_where_nothing_is_behind_it() {
    let script = Conformance::<_>::of(|s: TestStream<u32>| Holding { stream: s, fault: Fault::UntilTheBarrier });
    let panic = catch_unwind(AssertUnwindSafe(|| script.push(1, 0).emits(1).run())).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("WithoutCheckpoint"));
}
