//! When a checkpoint is made, when it is complete, when it is given up: pure.
//!
//! `on(event, now)` returns what the driver has to do. One checkpoint is in flight at a time:
//!
//! ```text
//! Idle -Trigger-> Collecting -all acknowledged-> Writing -manifest there-> Committing -> Finalising -> Idle
//!                     |  timeout, a decline          | timeout, failed
//!                     +------------- Abandoned ------+
//! ```
//! A job that reads in batches is `Reading` between `Idle` and the trigger, until every source has read its part.
//!
//! The hard case is an abandoned epoch. Its barrier has cut the stream and its sinks have staged output
//! that no other acknowledgement will name again, so the committables of abandoned epochs are **carried**
//! into the next manifest, and a manifest is written only when every participant has answered for every
//! earlier epoch of the attempt too: an answer that is still on its way may hold committables. What is
//! carried is dropped only when a commit is certain; a commit whose outcome is not known ends the attempt.
//! Output that is in the commit's own transaction cannot be carried: there an abandoned epoch ends it too.
//!
//! The last checkpoint has no interval that paces it, and is tried again until one completes. So there is a
//! longer pause after each that failed; and while an answer for an earlier one is owed it is not tried at all,
//! up to the time-out, because whoever owes it would decline.
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    commit::CommitPermit,
    error::{Error, Result},
    ids::{Attempt, Epoch, OperatorId, Subtask},
    manifest::StateHandle,
};

/// A subtask that takes part in every checkpoint: of a source, a stateful operator or a sink.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Participant {
    /// The operator.
    pub operator: OperatorId,
    /// Its subtask.
    pub subtask: Subtask,
}

/// What a participant contributes to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ack {
    /// Positions, by split.
    pub splits: BTreeMap<String, Value>,
    /// Keyed state.
    pub states: Vec<StateHandle>,
    /// Staged output, each exactly once over all epochs.
    pub committables: Vec<Value>,
    /// Counters.
    pub counters: BTreeMap<String, u64>,
}

/// Where epochs are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Wherever the sources are when the interval is over.
    #[default]
    Anywhere,
    /// Behind a batch, the next of which begins when the interval is over.
    Batches,
    /// At the end, and nowhere before: who asks for a checkpoint gets that one.
    End,
}

/// How checkpoints are paced; all times in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where epochs are cut.
    pub cut: Cut,
    /// From the start of one (or of its batch) to the start of the next; `None`: only those asked for, and the last.
    pub interval_ms: Option<u64>,
    /// One that takes longer is abandoned.
    pub timeout_ms: u64,
    /// At least this long between the end of one and the start of the next.
    pub min_pause_ms: u64,
    /// Abandoned ones in a row after which the attempt fails; 0: never.
    pub tolerated_failures: u32,
    /// The first epoch; greater than any ever seen.
    pub first_epoch: Epoch,
    /// The attempt that is coordinated.
    pub attempt: Attempt,
    /// Its lineage.
    pub lineage: String,
    /// Whether the output of an abandoned checkpoint can be carried into the next. Where it is in a transaction,
    /// it cannot: then the attempt fails with its checkpoint.
    pub carries: bool,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// A checkpoint is asked for; `token` comes back with its outcome.
    Requested {
        /// Chosen by whoever asks.
        token: u64,
    },
    /// The job is to stop behind a last checkpoint.
    StopRequested,
    /// All splits of a source's subtask have ended.
    Exhausted(Participant),
    /// A source's subtask has read its part of the batch.
    Read(Participant),
    /// A participant has made its part of `epoch` durable.
    Acknowledged(Participant, Epoch, Ack),
    /// A participant cannot.
    Declined(Participant, Epoch, String),
    /// The outcome of [`Command::WriteManifest`]: its path.
    ManifestWritten(Epoch, Result<String>),
    /// The outcome of [`Command::Commit`]. An error means that it is fenced or that nobody knows.
    Committed(Epoch, Result<()>),
    /// The outcome of [`Command::Finalise`].
    Finalised(Epoch, Result<()>),
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Command {
    /// Tell every source to read a batch: what there is now.
    Read,
    /// Tell every source to end the epoch.
    Trigger {
        /// The epoch.
        epoch: Epoch,
        /// Whether the job stops behind it.
        last: bool,
    },
    /// Write the manifest of `epoch` from the acknowledgements; committables carried from abandoned epochs
    /// are in them.
    WriteManifest {
        /// The epoch.
        epoch: Epoch,
        /// Whether the job stops behind it.
        last: bool,
        /// By participant.
        acks: BTreeMap<Participant, Ack>,
    },
    /// Commit.
    Commit(CommitPermit),
    /// Publish the committed output.
    Finalise(Epoch),
    /// Checkpoint `epoch` is complete. Tell those who asked; then collect garbage.
    Completed {
        /// The epoch.
        epoch: Epoch,
        /// From when it was triggered.
        duration_ms: u64,
        /// Those who asked for it.
        tokens: Vec<u64>,
    },
    /// Checkpoint `epoch` was given up; the job goes on.
    Abandoned {
        /// The epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
        /// Those who asked for it.
        tokens: Vec<u64>,
    },
    /// The attempt cannot go on.
    Fail(Error),
    /// The last checkpoint is complete.
    Done,
}

#[derive(Debug)]
enum Phase {
    Idle,
    /// Waiting for these sources to have read the batch.
    Reading(BTreeSet<Participant>),
    /// Waiting for acknowledgements.
    Collecting(BTreeMap<Participant, Ack>),
    /// The manifest is being written; what is in it is kept, in case it fails.
    Writing(BTreeMap<Participant, Ack>),
    /// The commit is on its way.
    Committing,
    /// The sinks are publishing.
    Finalising,
}

/// The pause before the last checkpoint is tried again. It doubles with each failure in a row, up to so many
/// times.
const RETRY_MS: u64 = 10;
const RETRY_DOUBLINGS: u32 = 9;

/// See the module.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    participants: BTreeSet<Participant>,
    sources: BTreeSet<Participant>,
    exhausted: BTreeSet<Participant>,
    phase: Phase,
    /// The epoch in flight, or the last one that was.
    epoch: Epoch,
    next: Epoch,
    last: bool,
    started_ms: u64,
    /// When the last batch began.
    batch_ms: Option<u64>,
    ended_ms: Option<u64>,
    stopping: bool,
    failures: u32,
    waiting_tokens: Vec<u64>,
    tokens: Vec<u64>,
    /// Abandoned epochs that a participant has not answered for.
    owed: BTreeMap<Epoch, BTreeSet<Participant>>,
    /// By epoch, so that output becomes visible in the order in which it was written, whoever answers first.
    carried: BTreeMap<Participant, BTreeMap<Epoch, Vec<Value>>>,
    born_ms: u64,
}

impl Coordinator {
    /// Nothing has happened yet. `sources` are those participants that the job ends with.
    pub fn new(
        config: Config,
        participants: BTreeSet<Participant>,
        sources: BTreeSet<Participant>,
        now_ms: u64,
    ) -> Self {
        let next = config.first_epoch;
        Self {
            config,
            participants,
            sources,
            exhausted: BTreeSet::new(),
            phase: Phase::Idle,
            epoch: next,
            next,
            last: false,
            started_ms: now_ms,
            batch_ms: None,
            ended_ms: None,
            stopping: false,
            failures: 0,
            waiting_tokens: Vec::new(),
            tokens: Vec::new(),
            owed: BTreeMap::new(),
            carried: BTreeMap::new(),
            born_ms: now_ms,
        }
    }

    /// When `Tick` is due next.
    pub fn deadline_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle if self.stops() => Some(self.after_pause().max(self.before_retry())),
            Phase::Idle => self.config.interval_ms.map(|i| {
                let before = if self.config.cut == Cut::Batches { self.batch_ms } else { Some(self.started_ms) };
                self.after_pause().max(before.map_or(0, |before| before.saturating_add(i)))
            }),
            Phase::Collecting(_) | Phase::Writing(_) => Some(self.times_out_ms()),
            _ => None,
        }
    }

    fn times_out_ms(&self) -> u64 {
        self.started_ms.saturating_add(self.config.timeout_ms)
    }

    fn after_pause(&self) -> u64 {
        self.ended_ms.map_or(self.born_ms, |e| e.saturating_add(self.config.min_pause_ms))
    }

    /// When the last checkpoint may be tried again after one that failed.
    fn before_retry(&self) -> u64 {
        let (Some(ended), Some(before)) = (self.ended_ms, self.failures.checked_sub(1)) else { return 0 };
        let doubled = RETRY_MS << before.min(RETRY_DOUBLINGS);
        ended.saturating_add(if self.owed.is_empty() { doubled } else { self.config.timeout_ms })
    }

    fn stops(&self) -> bool {
        self.stopping || self.exhausted.len() == self.sources.len()
    }

    /// Takes an event, says what to do.
    pub fn on(&mut self, event: Event, now_ms: u64) -> Vec<Command> {
        match event {
            Event::Tick => {}
            Event::Requested { token } => self.waiting_tokens.push(token),
            Event::StopRequested => self.stopping = true,
            Event::Exhausted(source) => {
                if self.sources.contains(&source) {
                    self.exhausted.insert(source);
                }
            }
            Event::Read(source) => {
                if let Phase::Reading(left) = &mut self.phase {
                    left.remove(&source);
                }
            }
            Event::Acknowledged(participant, epoch, ack) => self.acknowledged(participant, epoch, ack),
            Event::Declined(participant, epoch, reason) => {
                if let Some(commands) = self.declined(&participant, epoch, &reason, now_ms) {
                    return commands;
                }
            }
            Event::ManifestWritten(epoch, result) => return self.manifest_written(epoch, result, now_ms),
            Event::Committed(epoch, result) => return self.committed(epoch, result),
            Event::Finalised(epoch, result) => return self.finalised(epoch, result, now_ms),
        }
        self.progress(now_ms)
    }

    fn progress(&mut self, now_ms: u64) -> Vec<Command> {
        let (due, times_out_ms) = (self.due(now_ms), self.times_out_ms());
        let (stops, asked) = (self.stops(), !self.waiting_tokens.is_empty());
        match &mut self.phase {
            Phase::Idle if due && self.config.cut == Cut::Batches && !stops && !asked => self.read(now_ms),
            Phase::Idle if due => self.trigger(now_ms),
            // What the batch lacks is there for the next start: a job that is to stop waits for no source.
            Phase::Reading(left) if stops || left.iter().all(|source| self.exhausted.contains(source)) => {
                self.trigger(now_ms)
            }
            Phase::Collecting(acks) if acks.len() == self.participants.len() && self.owed.is_empty() => {
                let mut acks = std::mem::take(acks);
                for (participant, carried) in std::mem::take(&mut self.carried) {
                    let ack = acks.entry(participant).or_default();
                    ack.committables.splice(0..0, carried.into_values().flatten());
                }
                self.phase = Phase::Writing(acks.clone());
                vec![Command::WriteManifest { epoch: self.epoch, last: self.last, acks }]
            }
            Phase::Collecting(_) | Phase::Writing(_) if now_ms >= times_out_ms => {
                let reason = format!("not complete after {} ms: {}", self.config.timeout_ms, self.missing());
                self.abandon(reason, now_ms)
            }
            _ => Vec::new(),
        }
    }

    fn due(&self, now_ms: u64) -> bool {
        let asked = !self.waiting_tokens.is_empty() && self.config.cut != Cut::End;
        asked || self.deadline_ms().is_some_and(|d| now_ms >= d)
    }

    fn read(&mut self, now_ms: u64) -> Vec<Command> {
        self.batch_ms = Some(now_ms);
        self.phase = Phase::Reading(self.sources.clone());
        vec![Command::Read]
    }

    fn trigger(&mut self, now_ms: u64) -> Vec<Command> {
        self.epoch = self.next;
        self.next = self.epoch.next();
        self.last = self.stops();
        self.started_ms = now_ms;
        self.tokens = std::mem::take(&mut self.waiting_tokens);
        self.phase = Phase::Collecting(BTreeMap::new());
        vec![Command::Trigger { epoch: self.epoch, last: self.last }]
    }

    fn acknowledged(&mut self, participant: Participant, epoch: Epoch, ack: Ack) {
        if self.settle(&participant, epoch) {
            self.carry(participant, epoch, ack);
        } else if let Phase::Collecting(acks) = &mut self.phase
            && epoch == self.epoch
            && self.participants.contains(&participant)
        {
            acks.insert(participant, ack);
        }
    }

    /// An answer for an abandoned epoch has come.
    fn settle(&mut self, participant: &Participant, epoch: Epoch) -> bool {
        let Some(owing) = self.owed.get_mut(&epoch) else { return false };
        let was_owed = owing.remove(participant);
        if owing.is_empty() {
            self.owed.remove(&epoch);
        }
        was_owed
    }

    fn carry(&mut self, participant: Participant, epoch: Epoch, ack: Ack) {
        if !ack.committables.is_empty() {
            self.carried.entry(participant).or_default().entry(epoch).or_default().extend(ack.committables);
        }
    }

    fn declined(&mut self, participant: &Participant, epoch: Epoch, reason: &str, now_ms: u64) -> Option<Vec<Command>> {
        if self.settle(participant, epoch) || epoch != self.epoch || !matches!(self.phase, Phase::Collecting(_)) {
            return None;
        }
        let commands =
            self.abandon(format!("{} subtask {}: {reason}", participant.operator, participant.subtask), now_ms);
        self.settle(participant, epoch);
        Some(commands)
    }

    /// Gives the epoch in flight up, keeping what it has produced.
    fn abandon(&mut self, reason: String, now_ms: u64) -> Vec<Command> {
        let acks = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Collecting(acks) | Phase::Writing(acks) => acks,
            _ => BTreeMap::new(),
        };
        let owing: BTreeSet<_> = self.participants.iter().filter(|p| !acks.contains_key(p)).cloned().collect();
        if !owing.is_empty() {
            self.owed.insert(self.epoch, owing);
        }
        for (participant, ack) in acks {
            self.carry(participant, self.epoch, ack);
        }
        self.ended_ms = Some(now_ms);
        self.failures += 1;
        let tokens = std::mem::take(&mut self.tokens);
        let mut commands = vec![Command::Abandoned { epoch: self.epoch, reason: reason.clone(), tokens }];
        if !self.config.carries {
            commands.push(Command::Fail(
                Error::unavailable(format!(
                    "checkpoint {} was abandoned, and its output is in a transaction that can only be given up with it: {reason}",
                    self.epoch
                ))
                .hint("the job goes back to the checkpoint before; raise checkpoint.timeout, or mend the store"),
            ));
        } else if self.config.tolerated_failures > 0 && self.failures > self.config.tolerated_failures {
            commands.push(Command::Fail(
                Error::unavailable(format!(
                    "{} checkpoints in a row were abandoned, the last one: {reason}",
                    self.failures
                ))
                .hint("raise checkpoint.timeout or checkpoint.tolerated-failures, or mend the store"),
            ));
        }
        commands
    }

    fn missing(&self) -> String {
        let Phase::Collecting(acks) = &self.phase else { return "its manifest is still being written".into() };
        let missing: Vec<_> = self.participants.iter().filter(|p| !acks.contains_key(p)).collect();
        let mut text: Vec<_> = missing.iter().take(5).map(|p| format!("{}/{}", p.operator, p.subtask)).collect();
        if missing.len() > 5 {
            text.push(format!("and {} more", missing.len() - 5));
        }
        if missing.is_empty() {
            text.push("answers for earlier abandoned checkpoints".into());
        }
        format!("waiting for {}", text.join(", "))
    }

    fn manifest_written(&mut self, epoch: Epoch, result: Result<String>, now_ms: u64) -> Vec<Command> {
        if epoch != self.epoch || !matches!(self.phase, Phase::Writing(_)) {
            return Vec::new();
        }
        match result {
            Ok(path) => {
                self.phase = Phase::Committing;
                let permit = CommitPermit::prepared(epoch, self.config.attempt, path, self.config.lineage.clone());
                vec![Command::Commit(permit)]
            }
            Err(error) => self.abandon(format!("the manifest cannot be written: {error}"), now_ms),
        }
    }

    fn committed(&mut self, epoch: Epoch, result: Result<()>) -> Vec<Command> {
        if epoch != self.epoch || !matches!(self.phase, Phase::Committing) {
            return Vec::new();
        }
        match result {
            Ok(()) => {
                self.phase = Phase::Finalising;
                vec![Command::Finalise(epoch)]
            }
            Err(error) => vec![Command::Fail(error)],
        }
    }

    fn finalised(&mut self, epoch: Epoch, result: Result<()>, now_ms: u64) -> Vec<Command> {
        if epoch != self.epoch || !matches!(self.phase, Phase::Finalising) {
            return Vec::new();
        }
        if let Err(error) = result {
            return vec![Command::Fail(error)];
        }
        self.phase = Phase::Idle;
        self.ended_ms = Some(now_ms);
        self.failures = 0;
        let tokens = std::mem::take(&mut self.tokens);
        let mut commands =
            vec![Command::Completed { epoch, duration_ms: now_ms.saturating_sub(self.started_ms), tokens }];
        if self.last {
            commands.push(Command::Done);
        } else {
            commands.extend(self.progress(now_ms));
        }
        commands
    }
}

#[cfg(test)]
mod tests;
