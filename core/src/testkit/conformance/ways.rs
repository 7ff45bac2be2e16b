//! The ways in which a script is run.
use std::{collections::BTreeMap, fmt, time::Duration};

use super::{Action, Script};
use crate::{
    Settings, env,
    testkit::harness::{Backends, JobHarness},
    time::Timestamp,
};

/// A way to run a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A checkpoint behind every step, and a look at what has come out.
    StepByStep,
    /// Everything at once, and one checkpoint behind it.
    AllAtOnce,
    /// Everything at once and no checkpoint: what comes out has to come without one.
    WithoutCheckpoint,
    /// Records are dealt to three splits; all at once between watermarks.
    ThreeSplits,
    /// Once for every place in the script: a snapshot there, and the rest at another parallelism.
    RestoredOnce,
    /// A snapshot and a restore behind every step, each at another parallelism.
    RestoredAtEachStep,
    /// Once for every place in the script: killed there, with nothing committed since the beginning.
    Killed,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::StepByStep,
        Self::AllAtOnce,
        Self::WithoutCheckpoint,
        Self::ThreeSplits,
        Self::RestoredOnce,
        Self::RestoredAtEachStep,
        Self::Killed,
    ];
}

/// What has come out, by output.
type Records = BTreeMap<String, Vec<(String, Timestamp)>>;

/// One run of a script; it may be in many pieces.
pub(super) struct Run<'a, B: Backends> {
    pub script: &'a Script<B>,
    pub way: Way,
    pub parallelism: u32,
    pub is_reluctant: bool,
    pub settings: &'a Settings,
}

/// Where a run is, for who reads why it failed.
impl<B: Backends> fmt::Display for Run<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = if self.is_reluctant { "a reluctant" } else { "a willing" };
        write!(f, "{:?} at parallelism {} with {output} output", self.way, self.parallelism)
    }
}

impl<B: Backends> Run<'_, B> {
    pub(super) async fn run(&self) {
        match self.way {
            Way::StepByStep => self.step_by_step().await,
            Way::AllAtOnce | Way::ThreeSplits => self.at_once().await,
            Way::WithoutCheckpoint => self.without_checkpoint().await,
            Way::RestoredOnce => {
                for place in self.places() {
                    self.restored(&[place]).await;
                }
            }
            Way::RestoredAtEachStep => self.restored(&self.places().collect::<Vec<_>>()).await,
            Way::Killed => {
                for place in self.places() {
                    self.killed(place).await;
                }
            }
        }
    }

    /// The numbers of the steps behind which the job can be restored.
    fn places(&self) -> impl Iterator<Item = usize> + use<B> {
        let steps = &self.script.steps;
        0..steps.iter().position(|step| matches!(step.act, Action::End)).unwrap_or(steps.len())
    }

    async fn start(&self) -> JobHarness<B> {
        let mut setup = (self.script.setup)().settings(self.settings.clone()).parallelism(self.parallelism);
        if self.is_reluctant {
            setup = setup.reluctant_outputs();
        }
        if self.way == Way::ThreeSplits {
            setup = setup.splits(3);
        }
        setup.start().await.unwrap_or_else(|e| panic!("{self}: it does not start: {e}"))
    }

    async fn take(&self, job: &mut JobHarness<B>, step: usize) {
        let step = &self.script.steps[step];
        let done = match &step.act {
            Action::Begin => Ok(()),
            Action::Push(act) => {
                act(job);
                Ok(())
            }
            Action::Watermark(act) => {
                let splits = self.way == Way::ThreeSplits;
                let mut done = if splits { job.settle().await } else { Ok(()) };
                act(job);
                if splits && done.is_ok() {
                    done = job.settle().await;
                }
                done
            }
            Action::Settle if self.way == Way::WithoutCheckpoint => {
                env::sleep(IDLE).await;
                Ok(())
            }
            Action::Settle => job.settle().await,
            Action::Advance(time) => job.advance(*time).await,
            Action::End => job.finish().await,
        };
        done.unwrap_or_else(|e| panic!("{self}, {}: {e}", step.what));
    }

    async fn settle(&self, job: &mut JobHarness<B>) {
        job.settle().await.unwrap_or_else(|e| panic!("{self}: {e}"));
    }

    async fn step_by_step(&self) {
        let mut job = self.start().await;
        for step in 0..self.script.steps.len() {
            self.take(&mut job, step).await;
            self.settle(&mut job).await;
            self.check(&job.written(), step, &self.script.steps[step].what);
        }
    }

    async fn at_once(&self) {
        let mut job = self.start().await;
        for step in 0..self.script.steps.len() {
            self.take(&mut job, step).await;
        }
        self.settle(&mut job).await;
        self.check_all(&job.written());
    }

    /// A clock that is paused goes on only when nothing is left to be done.
    async fn without_checkpoint(&self) {
        let acts = || self.script.steps.iter().map(|step| &step.act);
        // Time would pass while it is waited, and checkpoints would be made.
        if acts().any(|act| matches!(act, Action::Advance(_))) {
            return;
        }
        let mut job = self.start().await;
        for step in 0..self.script.steps.len() {
            // The end makes the last checkpoint.
            if !matches!(self.script.steps[step].act, Action::End) {
                self.take(&mut job, step).await;
                continue;
            }
            env::sleep(IDLE).await;
            self.check(&job.written(), step - 1, "what was before the end");
            self.take(&mut job, step).await;
        }
        env::sleep(IDLE).await;
        self.check_all(&job.written());
    }

    async fn restored(&self, places: &[usize]) {
        let mut job = self.start().await;
        let (mut parallelism, mut before) = (self.parallelism, Records::new());
        for step in 0..self.script.steps.len() {
            self.take(&mut job, step).await;
            if places.contains(&step) {
                let snapshot = job.snapshot().await.unwrap_or_else(|e| panic!("{self}, no snapshot: {e}"));
                add(&mut before, job.written());
                parallelism = parallelism % 3 + 1;
                let restored = job.restore(&snapshot, parallelism).await;
                job = restored.unwrap_or_else(|e| panic!("{self}, restored behind step {step}: {e}"));
            }
        }
        self.settle(&mut job).await;
        add(&mut before, job.written());
        let last = self.script.steps.len() - 1;
        self.check(&before, last, &format!("restored behind steps {places:?}"));
    }

    async fn killed(&self, place: usize) {
        let mut job = self.start().await;
        for step in 0..self.script.steps.len() {
            self.take(&mut job, step).await;
            if step == place {
                // So that it has been read, and perhaps not all of it.
                env::sleep(Duration::from_millis(place as u64 % 2)).await;
                let again = job.kill(self.parallelism % 3 + 1).await;
                again.unwrap_or_else(|e| panic!("{self}, killed behind step {step}: {e}"));
            }
        }
        self.settle(&mut job).await;
        let last = self.script.steps.len() - 1;
        self.check(&job.written(), last, &format!("killed behind step {place}"));
    }

    fn check_all(&self, records: &Records) {
        self.check(records, self.script.steps.len() - 1, "the whole script");
    }

    /// Exactly what has been expected up to a step has come out, of every output.
    fn check(&self, records: &Records, step: usize, what: &str) {
        let expected = |output: &str| {
            let steps = self.script.steps[..=step].iter().flat_map(|step| &step.expected);
            steps.filter(|(name, ..)| name == output).map(|(_, text, at)| (text.clone(), *at)).collect::<Vec<_>>()
        };
        let is_timed = |output: &str| {
            let all = self.script.steps.iter().flat_map(|step| &step.expected);
            all.filter(|(name, ..)| name == output).any(|(.., at)| at.is_some())
        };
        for (output, records) in records {
            let timed = is_timed(output);
            let show = |(text, at): (String, Option<Timestamp>)| match at {
                Some(at) if timed => format!("{text} at {at}"),
                _ => text,
            };
            let mut expected: Vec<_> = expected(output).into_iter().map(show).collect();
            let mut found: Vec<_> = records.iter().map(|(text, at)| show((text.clone(), Some(*at)))).collect();
            let is_ordered = self.script.is_ordered
                && self.parallelism == 1
                && matches!(self.way, Way::StepByStep | Way::AllAtOnce | Way::WithoutCheckpoint);
            if !is_ordered {
                expected.sort();
                found.sort();
            }
            assert!(
                expected == found,
                "{self}, {what}: the output {output:?} has\n  {found:#?}\nand not\n  {expected:#?}"
            );
        }
    }
}

const IDLE: Duration = Duration::from_millis(1);

fn add(before: &mut Records, more: Records) {
    for (output, records) in more {
        before.entry(output).or_default().extend(records);
    }
}
