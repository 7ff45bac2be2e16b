//! A manifest: everything that one checkpoint consists of. Created once, never changed.
//!
//! It is *prepared* when it is written and counts only once its epoch is committed ([`crate::commit`]).
//! It refers to state objects, perhaps of earlier epochs; what a retained manifest refers to is never
//! deleted ([`crate::retain`]).
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::{
    envelope::{self, EnvelopeError},
    error::Result,
    ids::{Attempt, Epoch, JobId, KeyGroupRange, OperatorId, Subtask},
};

const WHAT: &str = "manifest";
/// The format that this code writes, and the newest it reads.
pub const VERSION: u32 = 1;
/// The hash that assigns keys to key groups.
pub const HASH: &str = "rapidhash-v3";

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The job it belongs to.
    pub job: JobId,
    /// Made at the job's first start and inherited ever since: a job of the same name that was started
    /// from nothing has another.
    pub lineage: String,
    /// The checkpoint's number.
    pub epoch: Epoch,
    /// The checkpoint that its attempt started from, or made before it.
    pub parent: Option<Epoch>,
    /// Who made it.
    pub attempt: Attempt,
    /// Key groups of the job: fixed from the first checkpoint on.
    pub key_groups: u16,
    /// How keys are assigned to them.
    pub hash: String,
    /// Subtasks of every operator when it was made.
    pub parallelism: u32,
    /// Whether it was made at the end of the input, or at a drain.
    pub last: bool,
    /// When it was made, by the machine's clock (ms since 1970, UTC): for people only.
    pub created_ms: i64,
    /// By source and split: how far it was read.
    pub sources: BTreeMap<OperatorId, BTreeMap<String, Value>>,
    /// By operator: its keyed state.
    pub states: BTreeMap<OperatorId, Vec<StateHandle>>,
    /// By sink: what to publish when it commits.
    pub sinks: BTreeMap<OperatorId, Vec<Value>>,
    /// By operator: its counters, summed over subtasks.
    pub counters: BTreeMap<OperatorId, BTreeMap<String, u64>>,
}

/// The state of one operator and subtask in one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateHandle {
    /// The subtask that wrote it.
    pub subtask: Subtask,
    /// The key groups in it.
    pub key_groups: KeyGroupRange,
    /// The backend that wrote it.
    pub backend: String,
    /// What that backend needs to open it.
    pub data: Value,
    /// Every object it refers to.
    pub objects: Vec<ObjectRef>,
}

/// An object in the checkpoint store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// Its path below the store's prefix.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

impl Manifest {
    /// The checkpoint of a job that has done nothing yet: to go on from it is to begin.
    pub fn empty(job: &JobId, lineage: &str, key_groups: u16, parallelism: u32) -> Self {
        Self {
            job: job.clone(),
            lineage: lineage.to_owned(),
            epoch: Epoch(0),
            parent: None,
            attempt: Attempt(0),
            key_groups,
            hash: HASH.into(),
            parallelism,
            last: false,
            created_ms: 0,
            sources: BTreeMap::new(),
            states: BTreeMap::new(),
            sinks: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }

    /// The bytes that are stored.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::error::Kind) when it does not serialise.
    pub fn encode(&self) -> Result<Vec<u8>> {
        envelope::encode(WHAT, VERSION, self)
    }

    /// Reads a manifest back.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        envelope::decode(WHAT, VERSION, bytes)
    }

    /// Every state object that it refers to.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.states.values().flatten().flat_map(|h| &h.objects)
    }

    /// Every object that a sink has staged in the checkpoint store: what its committables have as `objects`.
    pub fn staged(&self) -> impl Iterator<Item = ObjectRef> {
        let named = self.sinks.values().flatten().filter_map(|c| c.get("objects")?.as_array()).flatten();
        named.filter_map(|object| ObjectRef::deserialize(object).ok())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn sample(epoch: u64) -> Manifest {
        let op = |n: &str| OperatorId::new(n).unwrap();
        Manifest {
            job: JobId::new("clicks").unwrap(),
            lineage: "8c1f".into(),
            epoch: Epoch(epoch),
            parent: (epoch > 1).then(|| Epoch(epoch - 1)),
            attempt: Attempt(2),
            key_groups: 128,
            hash: HASH.into(),
            parallelism: 2,
            last: false,
            created_ms: 1_700_000_000_000,
            sources: [(op("in"), [("a.csv".into(), json!({"offset": 17}))].into())].into(),
            states: [(
                op("per-hour"),
                vec![StateHandle {
                    subtask: Subtask(0),
                    key_groups: KeyGroupRange { start: 0, end: 64 },
                    backend: "memory".into(),
                    data: json!({"index": "i"}),
                    objects: vec![ObjectRef {
                        path: format!("clicks/state/per-hour/000002-{epoch:012}-0000.blocks"),
                        bytes: 99,
                    }],
                }],
            )]
            .into(),
            sinks: [(op("out"), vec![json!({"part": "p"})])].into(),
            counters: [(op("in"), [("records".into(), 5)].into())].into(),
        }
    }

    #[test]
    fn format_1_is_pinned() {
        let golden = include_bytes!("../testdata/manifest-v1.manifest");
        assert_eq!(Manifest::decode(golden).unwrap(), sample(3));
        assert_eq!(String::from_utf8(sample(3).encode().unwrap()).unwrap(), String::from_utf8_lossy(golden));
    }

    #[test]
    fn every_flipped_bit_of_a_manifest_is_a_typed_error() {
        let whole = sample(3).encode().unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_field_that_version_1_does_not_have_is_refused() {
        let mut value = serde_json::to_value(sample(3)).unwrap();
        value["surprise"] = json!(1);
        let bytes = envelope::encode(WHAT, VERSION, &value).unwrap();
        assert!(matches!(Manifest::decode(&bytes), Err(EnvelopeError::Content(_))));
    }
}
