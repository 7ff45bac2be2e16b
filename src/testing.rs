//! What jobs are tested with, and what connectors and state backends are proved with (feature `testing`).
//!
//! [`Harness`] runs an operator or a chain of them, [`JobHarness`] a whole job: the real engine, into which a test pushes
//! records and watermarks, whose clock it moves on, and whose output and state it reads. [`Conformance`] runs a script in every
//! way in which the engine could run it. `docs/testing.md` goes through all of it.
//!
//! [`backend`] has the suite that every state backend here passes on its real server; [`source`], [`sink`] and [`store`] have
//! the doubles for tests of connectors.
use std::sync::Arc;

use tidegate_core::{
    state::backend::StateBackendFactory,
    testkit::{conformance, harness},
};

pub use tidegate_core::testkit::{
    backend,
    conformance::Way,
    damage, entries,
    harness::{Backends, Setup, Snapshot, TestInput, TestJob, TestOutput, TestStream},
    run, sink, source, store,
};

/// The state backends that are compiled in.
#[derive(Clone, Copy, Debug)]
pub struct CompiledIn;

impl Backends for CompiledIn {
    fn all() -> Vec<Arc<dyn StateBackendFactory>> {
        tidegate_state::all()
    }
}

/// See [`tidegate_core::testkit::harness::Harness`]: an operator, or a chain of them, under test.
///
/// ```
/// use std::time::Duration;
/// use tidegate::{Stream, Tumbling, testing::{Harness, TestStream}};
///
/// # tidegate::testing::run(async {
/// let setup = Harness::new(|clicks: TestStream<(&'static str, u32)>| {
///     clicks
///         .key_by(|click| click.0.to_owned())
///         .window("per-minute", Tumbling::of(Duration::from_secs(60)))
///         .count()
///         .map(|w| (w.window.start, w.key, w.value))
/// });
/// let mut harness = setup.parallelism(2).start().await?;
///
/// harness.push(("ann", 1), 1_000);
/// harness.push(("ann", 2), 59_999);
/// harness.settle().await?;
/// assert!(harness.take().is_empty(), "the window is open");
///
/// let snapshot = harness.snapshot().await?;
/// harness.watermark(59_999);
/// harness.settle().await?;
/// assert_eq!(harness.take(), [(0, "ann".into(), 2)]);
///
/// let mut again = harness.restore(&snapshot, 3).await?;
/// again.push(("ann", 3), 30_000);
/// again.watermark(59_999);
/// again.settle().await?;
/// assert_eq!(again.take(), [(0, "ann".into(), 3)]);
/// # Ok::<(), tidegate::Error>(())
/// # })?;
/// # Ok::<(), tidegate::Error>(())
/// ```
pub type Harness<I, O> = harness::Harness<I, O, CompiledIn>;

/// See [`tidegate_core::testkit::harness::JobHarness`]: a whole job under test, with any number of inputs and outputs.
///
/// ```
/// use tidegate::{Stream, testing::JobHarness};
///
/// # tidegate::testing::run(async {
/// let mut job = JobHarness::new(|job| {
///     let numbers = job.input::<i64>("numbers").union(job.input::<i64>("more")).boxed();
///     job.output("even", numbers.clone().filter(|n| n % 2 == 0));
///     job.output("odd", numbers.filter(|n| n % 2 != 0));
/// })
/// .start()
/// .await?;
///
/// job.input::<i64>("numbers").push(1, 0);
/// job.input::<i64>("more").push_all([(2, 0), (4, 1)]);
/// job.settle().await?;
/// assert_eq!(job.output::<i64>("even").take(), [2, 4]);
/// assert_eq!(job.output::<i64>("odd").take(), [1]);
/// # Ok::<(), tidegate::Error>(())
/// # })?;
/// # Ok::<(), tidegate::Error>(())
/// ```
pub type JobHarness = harness::JobHarness<CompiledIn>;

/// See [`tidegate_core::testkit::conformance::Conformance`]: a script that has to have one answer in every way in which it
/// can be run. Every operator of this crate is put through it.
///
/// ```
/// use std::time::Duration;
/// use tidegate::{Stream, Tumbling, testing::{Conformance, TestStream}};
///
/// Conformance::of(|words: TestStream<&'static str>| {
///     words.key_by(|w| (*w).to_owned()).window("counts", Tumbling::of(Duration::from_secs(1))).count().map(|w| (w.key, w.value))
/// })
/// .push("tide", 10)
/// .push("gate", 20)
/// .push("tide", 999)
/// .watermark(998)
/// .watermark(999)
/// .emits(("tide", 2))
/// .emits(("gate", 1))
/// .run();
/// ```
pub type Conformance<I = ()> = conformance::Conformance<I, CompiledIn>;
