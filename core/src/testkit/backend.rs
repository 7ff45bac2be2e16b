//! The conformance suite of state backends: [`conformance`] plays a job with random histories against a
//! model, [`damage`](super::damage::damage) spoils what a snapshot is made of. A backend that passes both
//! keeps the contract of [`StateBackend`]:
//!
//! - a snapshot is exactly what was written before `seal` was called, whatever is written before its future
//!   has ended;
//! - it can be restored as often as one likes, by any number of subtasks: split, united, or both at once;
//! - a snapshot that fails loses nothing of what a resident table writes again, or a cached backend was given;
//! - what a handle does not refer to is never read, so the coordinator may collect it; a dead attempt that
//!   goes on spoils nothing.
//!
//! It does what the engine does and no more: a resident table reads all once and writes all it has into the
//! first snapshot and into the one behind a failed one; deletes are never repeated.
use bytes::Bytes;
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidegate_checkpoint::{
    error::Result,
    ids::{Attempt, Epoch, JobId, KeyGroupRange, OperatorId, Subtask},
    manifest::StateHandle,
    paths,
    retain::{Inventory, garbage},
    store::CheckpointStore,
};

use super::store::{Fault, FaultyStore};
use crate::state::backend::{
    OpenContext, Residency, RunId, StateBackend, StateBackendFactory, WriteBatch, key_group_prefix,
};

/// Key groups of the suite's jobs.
pub const KEY_GROUPS: u16 = 8;
/// Checkpoints that are kept when garbage is collected.
const RETAINED: usize = 2;

/// What a state should hold.
pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;
/// Puts, and deletes.
pub type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Clone, Debug)]
enum Op {
    Write(Writes),
    /// Of a key group, from one of its keys up to another.
    DeleteRange(u16, u8, u8),
    /// All subtasks seal; `meanwhile` is written before their futures end.
    Checkpoint {
        fault: Option<(u64, Fault)>,
        meanwhile: Writes,
        commit: bool,
        collect: bool,
    },
    /// A new attempt from one of the kept checkpoints; the old one goes on as a zombie. `run`: of another run, which has
    /// nothing of what a backend may have kept for the next attempt.
    Restore {
        run: bool,
        back: usize,
        parallelism: u32,
        page: usize,
    },
}

fn writes() -> impl Strategy<Value = Writes> {
    let key = (0..KEY_GROUPS, 0u8..6).prop_map(|(key_group, n)| {
        let mut key = key_group_prefix(key_group).to_vec();
        key.extend_from_slice(&[0, n]);
        key
    });
    let value = prop_oneof![
        1 => Just(None),
        4 => vec(any::<u8>(), 0..40).prop_map(Some),
        1 => vec(any::<u8>(), 300..400).prop_map(Some),
    ];
    vec((key, value), 0..12)
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let fault = (0u64..6, select(vec![Fault::Refused, Fault::ReplyLost]));
    let checkpoint = (proptest::option::weighted(0.2, fault), writes(), prop::bool::weighted(0.8), any::<bool>());
    vec(
        prop_oneof![
            4 => writes().prop_map(Op::Write),
            1 => (0..KEY_GROUPS, 0u8..7, 0u8..7).prop_map(|(key_group, a, b)| Op::DeleteRange(key_group, a, b)),
            4 => checkpoint.prop_map(|(fault, meanwhile, commit, collect)| Op::Checkpoint { fault, meanwhile, commit, collect }),
            2 => (any::<bool>(), 0usize..3, 1u32..5, 1usize..9)
                .prop_map(|(run, back, parallelism, page)| Op::Restore { run, back, parallelism, page }),
        ],
        1..24,
    )
}

/// One operator's state in a job, subtask by subtask.
pub(super) struct World {
    factory: Arc<dyn StateBackendFactory>,
    pub faults: FaultyStore,
    pub store: Arc<CheckpointStore>,
    attempt: Attempt,
    epoch: Epoch,
    model: Model,
    parts: Vec<Part>,
    zombies: Vec<Part>,
    pub kept: Vec<Snapshot>,
}

struct Part {
    backend: Box<dyn StateBackend>,
    range: KeyGroupRange,
    /// A resident table writes all it has.
    rewrite: bool,
}

pub(super) struct Snapshot {
    pub epoch: Epoch,
    pub handles: Vec<StateHandle>,
    pub model: Model,
}

impl World {
    pub(super) async fn new(factory: Arc<dyn StateBackendFactory>) -> Self {
        let faults = FaultyStore::new(Arc::new(object_store::memory::InMemory::new()));
        let job = JobId::new("job").unwrap();
        let store = Arc::new(CheckpointStore::new(Arc::new(faults.clone()), "checkpoints", job));
        let (parts, zombies, kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self {
            factory,
            faults,
            store,
            attempt: Attempt(0),
            epoch: Epoch(0),
            model: Model::new(),
            parts,
            zombies,
            kept,
        };
        world.restart(None, 1, 4).await;
        world
    }

    /// Opens the state of a new attempt from a checkpoint, and compares it.
    async fn restart(&mut self, from: Option<usize>, parallelism: u32, page: usize) {
        self.attempt.0 += 1;
        let from = from.map(|at| &self.kept[at]);
        self.model = from.map(|s| s.model.clone()).unwrap_or_default();
        let handles = from.map(|s| s.handles.clone()).unwrap_or_default();
        let (parts, found) = self.open(&handles, parallelism, page).await.unwrap();
        assert_eq!(found, self.model, "restored by {parallelism} subtasks");
        self.zombies = std::mem::replace(&mut self.parts, parts);
    }

    /// Opens a snapshot with so many subtasks; returns what is in it, as scanned in pages.
    async fn open(&self, handles: &[StateHandle], parallelism: u32, page: usize) -> Result<(Vec<Part>, Model)> {
        let (mut parts, mut found) = (Vec::new(), Model::new());
        for subtask in (0..parallelism).map(Subtask) {
            let range = KeyGroupRange::of(subtask, parallelism, KEY_GROUPS);
            let context = OpenContext {
                store: self.store.clone(),
                // As in a program in which it is renamed now and then: where a state is, its handle says.
                operator: OperatorId::new(if self.attempt.0.is_multiple_of(3) { "renamed" } else { "operator" })
                    .unwrap(),
                subtask,
                attempt: self.attempt,
                run: RunId::default(),
                key_groups: range,
                restored: None,
                lineage: "lineage".into(),
                settings: Arc::default(),
                restore: handles.iter().filter(|h| h.key_groups.overlaps(&range)).cloned().collect(),
            };
            let mut backend = self.factory.open(context).await?;
            let in_range = scan(backend.as_mut(), range, page).await?;
            assert!(in_range.keys().all(|k| range.contains(key_group(k))), "a subtask has foreign key groups");
            found.extend(in_range);
            let rewrite = backend.residency() == Residency::Resident;
            parts.push(Part { backend, range, rewrite });
        }
        Ok((parts, found))
    }

    /// The run is over: from now on what is restored is what the checkpoint store has.
    pub(super) fn ended(&self) {
        drop(self.factory.ended(RunId::default()));
    }

    /// What is in a snapshot.
    pub(super) async fn read(&self, handles: &[StateHandle], parallelism: u32) -> Result<Model> {
        self.open(handles, parallelism, 5).await.map(|(_, found)| found)
    }

    pub(super) fn write(&mut self, writes: &Writes) {
        for part in &mut self.parts {
            part.write(writes);
        }
        apply(&mut self.model, writes);
    }

    fn delete_range(&mut self, key_group: u16, start: u8, end: u8) {
        let key = |n| [&key_group_prefix(key_group)[..], &[0, n]].concat();
        let (start, end) = (key(start), key(end));
        for part in &mut self.parts {
            if part.backend.residency() == Residency::Cached && part.range.contains(key_group) {
                let mut batch = WriteBatch::default();
                batch.delete_range(&start, &end);
                part.backend.write(batch).unwrap();
            }
        }
        // Nobody does this to a resident one.
        if self.parts.iter().any(|part| part.backend.residency() == Residency::Cached) {
            self.model.retain(|key, _| *key < start || *key >= end);
        }
    }

    /// Seals every subtask; true when all of them are durable.
    pub(super) async fn checkpoint(&mut self, meanwhile: &Writes, commit: bool) -> bool {
        self.epoch.0 += 1;
        for mut zombie in std::mem::take(&mut self.zombies) {
            zombie.write(&vec![(vec![0, 0, 0, 0], Some(b"undead".to_vec()))]);
            // It may be fenced; if not, what it stores is nobody's.
            let _ = zombie.backend.seal(self.epoch).await;
        }
        let mut sealing = Vec::new();
        for part in &mut self.parts {
            if std::mem::take(&mut part.rewrite) {
                let all: Writes = self.model.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect();
                part.write(&all);
            }
            sealing.push(part.backend.seal(self.epoch));
        }
        let model = self.model.clone();
        self.write(meanwhile);
        let mut handles = Vec::new();
        for (part, sealing) in self.parts.iter_mut().zip(sealing) {
            match sealing.await {
                Ok(handle) => handles.push(handle),
                Err(_) => part.rewrite = part.backend.residency() == Residency::Resident,
            }
        }
        let durable = handles.len() == self.parts.len();
        if durable && commit {
            self.kept.push(Snapshot { epoch: self.epoch, handles, model });
        }
        durable
    }

    /// Deletes what the engine would delete.
    async fn collect(&mut self) {
        let commits: BTreeSet<Epoch> = self.kept.iter().map(|s| s.epoch).collect();
        self.kept.drain(..self.kept.len().saturating_sub(RETAINED));
        let referenced = self.kept.iter().flat_map(|s| &s.handles).flat_map(|h| &h.objects);
        let referenced: BTreeSet<String> = referenced.map(|o| o.path.clone()).collect();
        let objects = self.store.list("state").await.unwrap().into_iter().map(|o| o.path).collect();
        let inventory = Inventory { commits, objects, ..Inventory::default() };
        let job = self.store.job().clone();
        let (commit, attempt) = (|e| paths::commit(&job, e), |a| paths::attempt(&job, a));
        for doomed in garbage(&inventory, RETAINED, &referenced, self.attempt, commit, attempt) {
            self.store.delete(&doomed).await.unwrap();
        }
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Write(writes) => self.write(&writes),
            Op::DeleteRange(key_group, a, b) => self.delete_range(key_group, a.min(b), a.max(b)),
            Op::Checkpoint { fault, meanwhile, commit, collect } => {
                if let Some((spared, fault)) = fault {
                    self.faults.fail_after(spared, fault);
                }
                let durable = self.checkpoint(&meanwhile, commit).await;
                self.faults.heal();
                // Behind a commit, as the engine: before its first one an attempt refers to what it was restored from,
                // and nobody has collected that.
                if collect && durable && commit {
                    self.collect().await;
                }
            }
            Op::Restore { run, back, parallelism, page } => {
                if run {
                    self.ended();
                }
                let from = self.kept.len().checked_sub(back + 1);
                self.restart(from, parallelism, page).await;
            }
        }
        self.check_cached().await;
    }

    /// A cached backend can be asked at any time.
    async fn check_cached(&mut self) {
        for part in &mut self.parts {
            if part.backend.residency() == Residency::Resident {
                continue;
            }
            let expected: Model =
                self.model.clone().into_iter().filter(|(k, _)| part.range.contains(key_group(k))).collect();
            part.backend.flushed().await.unwrap();
            assert_eq!(scan(part.backend.as_mut(), part.range, 3).await.unwrap(), expected);
            let absent = [Bytes::from_static(&[0, 0, 9]), Bytes::from_static(&[0, 0, 0, 200])];
            let keys = expected.keys().cloned().map(Bytes::from).chain(absent).collect::<BTreeSet<_>>();
            let keys: Vec<Bytes> = keys.into_iter().collect();
            let values = part.backend.get_many(keys.clone()).await.unwrap();
            let wanted: Vec<_> = keys.iter().map(|k| expected.get(&k[..]).cloned().map(Bytes::from)).collect();
            assert_eq!(values, wanted);
        }
    }
}

impl Part {
    /// Writes those in its range.
    fn write(&mut self, writes: &Writes) {
        let mut batch = WriteBatch::default();
        for (key, value) in writes.iter().filter(|(k, _)| self.range.contains(key_group(k))) {
            match value {
                Some(value) => batch
                    .put_with(key, |bytes| {
                        bytes.extend_from_slice(value);
                        Ok(())
                    })
                    .unwrap(),
                None => batch.delete(key),
            }
        }
        self.backend.write(batch).unwrap();
    }
}

fn key_group(key: &[u8]) -> u16 {
    u16::from_be_bytes([key[0], key[1]])
}

fn apply(model: &mut Model, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

/// Reads a range as the engine does: page after page, in order, each key once.
async fn scan(backend: &mut dyn StateBackend, range: KeyGroupRange, page: usize) -> Result<Model> {
    let mut start = Bytes::copy_from_slice(&key_group_prefix(range.start));
    let end = Bytes::copy_from_slice(&key_group_prefix(range.end));
    let mut found = Model::new();
    loop {
        let pairs = backend.scan(start.clone(), Some(end.clone()), page).await?;
        assert!(pairs.len() <= page, "a page has at most {page} pairs");
        let Some((last, _)) = pairs.last().cloned() else { return Ok(found) };
        for (key, value) in pairs {
            assert!(key >= start && key < end, "a page has only keys of its range");
            start = [&key[..], &[0]].concat().into();
            found.insert(key.to_vec(), value.to_vec());
        }
        start = [&last[..], &[0]].concat().into();
    }
}

/// Plays `cases` random histories; a new factory for each. A test over a server gives each factory a place of its own
/// there: every history begins with nothing.
///
/// ```
/// // As `tidegate::testing`, with the feature `testing`.
/// use tidegate_core::testkit::{backend::conformance, damage::damage, entries::Entries};
///
/// conformance(|| Entries, 20);
/// damage(|| Entries);
/// ```
///
/// # Panics
/// When the backend breaks its contract; the message has the shortest history that shows it.
pub fn conformance<F: StateBackendFactory>(make: impl Fn() -> F, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&ops(), |ops| {
        super::block_on(async {
            let mut world = World::new(Arc::new(make())).await;
            for op in ops {
                world.run(op).await;
            }
            // Whatever has happened: the next checkpoint works, and each that is kept can be restored.
            let durable = world.checkpoint(&Writes::new(), true).await;
            prop_assert!(durable, "a healthy store keeps a snapshot");
            world.collect().await;
            world.ended();
            for snapshot in &world.kept {
                for parallelism in 1..=u32::from(KEY_GROUPS) {
                    let found = world.read(&snapshot.handles, parallelism).await;
                    let found = found.map_err(|e| TestCaseError::fail(e.to_string()))?;
                    prop_assert_eq!(&found, &snapshot.model, "read by {} subtasks", parallelism);
                }
            }
            Ok(())
        })
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}
