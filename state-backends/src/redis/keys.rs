//! How things are called in Redis.
//!
//! All of a key group lies in one slot of a cluster, since what is between braces decides: `tidegate:{job:lineage:
//! home:group}` and then `m` (a hash: fence, owner, number of the last step, logs), `b` (a hash: the state), `o` (a
//! sorted set: its keys in their order), `p` (a hash: from the mark of a snapshot to the log that it ends at) and
//! `u:NUMBER` (hashes: the logs). Names of jobs and operators have no colon, no brace and no `#` in them.
//!
//! A home is what an operator's state is called here, for as long as it lives: `operator#ATTEMPT`, after who has begun
//! it. Handles say it. So an operator can be renamed and nothing has to be moved; and one that begins with nothing never
//! comes upon what an operator that had its name before still lives in.
//!
//! The lineage is one of the names. So a job that starts from nothing finds nothing, and neither reads nor clears what
//! is somebody else's: of a job of the same name with another checkpoint store, which may run now or be started again
//! tomorrow, and nobody here can tell.
use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Attempt, KeyGroupRange, OperatorId},
    manifest::StateHandle,
};
use tidegate_core::state::backend::OpenContext;

use super::NAME;

/// A job with its lineage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub name: String,
    pub lineage: String,
}

impl Job {
    pub fn of(context: &OpenContext) -> Self {
        Self { name: context.store.job().to_string(), lineage: context.lineage.clone() }
    }

    /// A set: which lineages a job of this name has or had.
    pub fn lineages(&self) -> String {
        format!("tidegate:{{{}}}:lineages", self.name)
    }

    /// A set: which homes have had which key groups.
    pub fn operators(&self) -> String {
        format!("tidegate:{{{}:{}}}:operators", self.name, self.lineage)
    }

    /// The keys of a key group.
    pub fn group(&self, home: &str, key_group: u16) -> Names {
        Names(format!("tidegate:{{{}:{}:{home}:{key_group}}}:", self.name, self.lineage))
    }

    /// A pattern of all keys of the lineage: for people.
    pub fn pattern(&self) -> String {
        format!("tidegate:{{{}:{}*", self.name, self.lineage)
    }
}

/// The keys of a key group.
#[derive(Clone, Debug)]
pub(super) struct Names(String);

impl Names {
    pub fn meta(&self) -> String {
        format!("{}m", self.0)
    }
    pub fn base(&self) -> String {
        format!("{}b", self.0)
    }
    pub fn order(&self) -> String {
        format!("{}o", self.0)
    }
    pub fn positions(&self) -> String {
        format!("{}p", self.0)
    }
    pub fn log(&self, number: u64) -> String {
        format!("{}u:{number}", self.0)
    }
}

/// One entry of [`Job::operators`].
pub(super) fn owned(home: &str, KeyGroupRange { start, end }: KeyGroupRange) -> String {
    format!("{home}:{start}:{end}")
}

/// As it was written.
pub(super) fn parse_owned(text: &str) -> Option<(&str, u16, u16)> {
    let mut parts = text.split(':');
    Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Where an operator lives that begins with nothing.
pub(super) fn new_home(operator: &OperatorId, attempt: Attempt) -> String {
    format!("{operator}#{attempt}")
}

/// Where the state of a handle is; before there were homes, under the operator's name.
pub(super) fn home<'a>(handle: &'a StateHandle, operator: &'a OperatorId) -> &'a str {
    handle.data.get("home").and_then(|home| home.as_str()).unwrap_or(operator.as_str())
}

/// Where a snapshot is, from its handle.
pub(super) fn mark(handle: &StateHandle) -> Result<&str> {
    let mark = handle.data.get("mark").and_then(|mark| mark.as_str()).filter(|mark| !mark.is_empty());
    mark.filter(|_| handle.backend == NAME).ok_or_else(|| {
        Error::corrupt("the checkpoint does not say where its state is in Redis")
            .hint("start from another checkpoint with checkpoint.from")
    })
}
