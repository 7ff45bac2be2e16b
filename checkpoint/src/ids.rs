//! Newtypes for everything that is counted or named, so that no epoch is ever taken for an attempt.
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range};

use crate::error::{Error, Result};

/// A job's name: what its checkpoints, parts and transactional ids are named after.
///
/// 1 to 100 characters of `a-z A-Z 0-9 . _ -`, not beginning with a dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(String);

/// The name of a source, sink or stateful operator: the identity of its state. Same alphabet as [`JobId`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OperatorId(String);

fn checked(what: &str, name: String) -> Result<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(fine) {
        return Err(Error::config(format!("{what} {name:?} cannot be used as a name"))
            .hint("use 1 to 100 of the characters a-z A-Z 0-9 . _ - and do not begin with a dot"));
    }
    Ok(name)
}

impl JobId {
    /// Checks the name.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config) when it is empty, too long or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        checked("the job's name", name.into()).map(Self)
    }
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl OperatorId {
    /// Checks the name.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config) when it is empty, too long or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        checked("the operator's name", name.into()).map(Self)
    }
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a checkpoint, and of the stretch of input between it and the one before. Begins at 1.
/// Never reused, not even by an abandoned checkpoint, and never taken from a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a start of the job, in this or another process. Begins at 1; the highest one owns the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u64);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the parallel instances of an operator, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subtask(pub u32);

impl fmt::Display for Subtask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of key groups `start..end`: the unit in which keyed state is owned, stored and moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// First key group.
    pub start: u16,
    /// One past the last key group.
    pub end: u16,
}

impl KeyGroupRange {
    /// The range that subtask `subtask` of `parallelism` owns out of `key_groups`: contiguous, and
    /// together a partition of all of them (as in Flink's `KeyGroupRangeAssignment`).
    pub fn of(subtask: Subtask, parallelism: u32, key_groups: u16) -> Self {
        let cut = |i: u32| (u64::from(i) * u64::from(key_groups)).div_ceil(u64::from(parallelism.max(1))) as u16;
        Self { start: cut(subtask.0), end: cut(subtask.0 + 1) }
    }
    /// The subtask of `parallelism` that owns `key_group`: the inverse of [`KeyGroupRange::of`].
    pub fn owner(key_group: u16, parallelism: u32, key_groups: u16) -> Subtask {
        Subtask((u64::from(key_group) * u64::from(parallelism) / u64::from(key_groups.max(1))) as u32)
    }
    /// Whether `key_group` is in it.
    pub fn contains(&self, key_group: u16) -> bool {
        self.start <= key_group && key_group < self.end
    }
    /// Whether the two share a key group.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
    /// The key groups as a standard range.
    pub fn iter(&self) -> Range<u16> {
        self.start..self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_group_has_exactly_one_owner_at_every_parallelism() {
        for key_groups in [1u16, 2, 3, 128, 1000] {
            for parallelism in 1..=u32::from(key_groups.min(130)) {
                for kg in 0..key_groups {
                    let owners: Vec<_> = (0..parallelism)
                        .filter(|s| KeyGroupRange::of(Subtask(*s), parallelism, key_groups).contains(kg))
                        .collect();
                    assert_eq!(owners, [KeyGroupRange::owner(kg, parallelism, key_groups).0]);
                }
            }
        }
    }

    #[test]
    fn a_name_with_a_slash_is_refused_with_a_hint() {
        let e = JobId::new("a/b").unwrap_err();
        assert!(e.to_string().contains("hint"), "{e}");
        assert!(
            OperatorId::new("").is_err() && OperatorId::new(".x").is_err() && OperatorId::new("per-hour_1.x").is_ok()
        );
    }
}
