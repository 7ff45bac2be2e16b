//! What every operator has to bear, one script for all of it.
//!
//! A script is what is pushed into a job, and what has to come out behind each step. It is run in every way in which the
//! engine could run it (`ways`): step by step, all at once, without a checkpoint, with an output that refuses, with
//! a snapshot and a restore at each place, killed at each place, at parallelism 1 and 3, dealt to several splits. The
//! answer must be the same in all of them. The design is that of Hazelcast Jet's `TestSupport`.
//!
//! The hard case is a script that is right by chance: outputs that nothing is expected of have to stay empty, and step by
//! step it is checked behind every step that exactly what was expected has come, and nothing before its time.
use std::{fmt::Debug, marker::PhantomData, sync::Arc, time::Duration};

use super::{
    entries::Entries,
    harness::{Backends, JobHarness, Setup, TestJob, TestStream},
};
use crate::{Settings, Stream, settings::RestartStrategy, time::Timestamp};

#[cfg(test)]
mod tests;
mod ways;

pub use ways::Way;

/// An operator with a script of what it is given and what it has to give.
///
/// See `tidegate::testing::Conformance` for an example.
pub struct Conformance<I = (), B: Backends = Entries> {
    script: Script<B>,
    input: PhantomData<fn(I)>,
}

struct Script<B: Backends> {
    setup: Arc<dyn Fn() -> Setup<JobHarness<B>>>,
    steps: Vec<Step<B>>,
    is_ordered: bool,
    leaves_out: Vec<Way>,
}

type Act<B> = Box<dyn Fn(&JobHarness<B>)>;

struct Step<B: Backends> {
    what: String,
    act: Action<B>,
    /// What comes out: of which output, as text, and with which time if that matters.
    expected: Vec<(String, String, Option<Timestamp>)>,
}

enum Action<B: Backends> {
    /// Nothing yet: what comes out of an empty input.
    Begin,
    /// A record.
    Push(Act<B>),
    /// A watermark: between splits the order is only certain if it is settled on both sides.
    Watermark(Act<B>),
    /// What was pushed is processed before what comes next.
    Settle,
    /// Time passes.
    Advance(Duration),
    /// The end of the inputs.
    End,
}

impl<I, B: Backends> Debug for Conformance<I, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.script.steps.iter().map(|step| &step.what)).finish()
    }
}

const INPUT: &str = "input";
const OUTPUT: &str = "output";

impl<B: Backends> Conformance<(), B> {
    /// Of a whole job, with inputs and outputs of any name.
    pub fn of_job(build: impl Fn(&TestJob) + Clone + Send + Sync + 'static) -> Self {
        Self::new(build)
    }
}

impl<I: Clone + Debug + Send + 'static, B: Backends> Conformance<I, B> {
    /// Of what `build` chains to its input, called `input`; its output is called `output`.
    pub fn of<S>(build: impl Fn(TestStream<I>) -> S + Clone + Send + Sync + 'static) -> Self
    where
        S: Stream,
        S::Item: Debug,
    {
        Self::new(move |job| job.output(OUTPUT, build(job.input(INPUT))))
    }

    /// Pushes a record with its event time.
    pub fn push(self, record: I, at: Timestamp) -> Self {
        self.push_to(INPUT, record, at)
    }
}

impl<I, B: Backends> Conformance<I, B> {
    fn new(build: impl Fn(&TestJob) + Clone + Send + Sync + 'static) -> Self {
        let begin = Step { what: "begin".into(), act: Action::Begin, expected: Vec::new() };
        let setup = Arc::new(move || JobHarness::<B>::new(build.clone()));
        let script = Script { setup, steps: vec![begin], is_ordered: false, leaves_out: Vec::new() };
        Self { script, input: PhantomData }
    }

    /// At parallelism 1 and from one split, records have to come in this very order, and not only as often.
    pub fn in_order(mut self) -> Self {
        self.script.is_ordered = true;
        self
    }

    /// Leaves a way out: to be said with the reason why the answer may differ in it.
    pub fn without(mut self, way: Way) -> Self {
        self.script.leaves_out.push(way);
        self
    }

    fn step(mut self, what: String, act: Action<B>) -> Self {
        self.script.steps.push(Step { what, act, expected: Vec::new() });
        self
    }

    /// Pushes a record into an input.
    pub fn push_to<T: Clone + Debug + Send + 'static>(self, input: &str, record: T, at: Timestamp) -> Self {
        let (what, input) = (format!("{record:?} at {at} to {input}"), input.to_owned());
        self.step(what, Action::Push(Box::new(move |job| job.input(&input).push(record.clone(), at))))
    }

    /// Pushes a watermark to every input.
    pub fn watermark(self, at: Timestamp) -> Self {
        self.step(format!("watermark {at}"), Action::Watermark(Box::new(move |job| job.watermark(at))))
    }

    /// Pushes a watermark into an input, whose records are of type `T`.
    pub fn watermark_of<T: Clone + Send + 'static>(self, input: &str, at: Timestamp) -> Self {
        let (what, input) = (format!("watermark {at} of {input}"), input.to_owned());
        self.step(what, Action::Watermark(Box::new(move |job| job.input::<T>(&input).watermark(at))))
    }

    /// Has all of this processed before what comes next, in every way: where the order between two inputs matters, which
    /// the engine does not promise.
    pub fn settle(self) -> Self {
        self.step("settle".into(), Action::Settle)
    }

    /// Lets so much processing time pass.
    pub fn advance(self, time: Duration) -> Self {
        self.step(format!("{time:?} pass"), Action::Advance(time))
    }

    /// Ends the inputs: the last step.
    pub fn end(self) -> Self {
        self.step("end".into(), Action::End)
    }

    /// The last step makes this come out. Records are compared as `Debug` shows them, so a text may stand for a `String`.
    pub fn emits<O: Debug>(self, record: O) -> Self {
        self.emits_to(OUTPUT, record)
    }

    /// The last step makes these come out.
    pub fn emits_all<O: Debug>(self, records: impl IntoIterator<Item = O>) -> Self {
        records.into_iter().fold(self, Self::emits)
    }

    /// The last step makes this come out, with this event time. If it is said for one record of an output, it is
    /// to be said for all of them.
    pub fn emits_at<O: Debug>(self, record: O, at: Timestamp) -> Self {
        self.expect(OUTPUT, record, Some(at))
    }

    /// The last step makes this come out of an output.
    pub fn emits_to<O: Debug>(self, output: &str, record: O) -> Self {
        self.expect(output, record, None)
    }

    fn expect<O: Debug>(mut self, output: &str, record: O, at: Option<Timestamp>) -> Self {
        if let Some(step) = self.script.steps.last_mut() {
            step.expected.push((output.into(), format!("{record:?}"), at));
        }
        self
    }

    /// Runs the script in every way.
    ///
    /// # Panics
    /// In one of them something else came out; it says in which, and behind which step.
    #[track_caller]
    pub fn run(self) {
        self.run_with(&Settings::default());
    }

    /// As `run`, with these settings of the job: another state backend, another codec.
    ///
    /// # Panics
    /// As `run`.
    #[track_caller]
    pub fn run_with(self, settings: &Settings) {
        let mut settings = settings.clone();
        settings.restart.strategy = RestartStrategy::None;
        for way in Way::ALL.into_iter().filter(|way| !self.script.leaves_out.contains(way)) {
            for (parallelism, is_reluctant) in [(1, false), (3, false), (1, true), (3, true)] {
                let run = ways::Run { script: &self.script, way, parallelism, is_reluctant, settings: &settings };
                super::run(run.run());
            }
        }
    }
}
