//! Keyed state over a backend, against a map: each snapshot is the state at its freeze, whatever
//! the operator goes on to do while it is swept and stored; over memory, which holds everything, and over a backend
//! of entries whose tables hold next to nothing.
//!
//! A history is played by several subtasks in step: updates (also so many that sub-shards split), windows
//! made, discarded and made again, freezes, sweeps in slices of any size, snapshots that fail or hang in the
//! air while the next barrier comes, and restores of any snapshot at any parallelism.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
use object_store::memory::InMemory;
use proptest::{collection::vec, prelude::*, sample::select};
use std::{collections::BTreeMap, sync::Arc};
use tidegate_checkpoint::{
    ids::{Attempt, Epoch, JobId, KeyGroupRange, OperatorId, Subtask},
    manifest::StateHandle,
    store::CheckpointStore,
};
use tidegate_core::{
    Result,
    record::Keyed,
    state::{
        backend::{OpenContext, RunId, StateBackendFactory},
        codec::Codec,
        hash::{hash_key, key_group},
        keyed::{KeyedState, Swept},
    },
    testkit::{
        block_on,
        entries::Entries,
        store::{Fault, FaultyStore},
    },
};
use tidegate_state::Memory;

/// (Namespace, key) and value.
type Model = BTreeMap<(i64, u32), u64>;
type Durable = futures::future::BoxFuture<'static, Result<StateHandle>>;

/// Instead of a sum to add: the key is removed.
const REMOVE: u64 = 0;

#[derive(Clone, Debug)]
enum Op {
    /// Adds to `count` keys of a window, beginning with `first`, or removes them.
    Update {
        window: i64,
        first: u32,
        count: u32,
        add: u64,
    },
    Discard {
        window: i64,
    },
    Watermark(i64),
    Freeze,
    Sweep {
        entries: u64,
    },
    /// Stores what has been swept; a failing store fails it.
    Store {
        fault: Option<Fault>,
    },
    Restore {
        back: usize,
        parallelism: u32,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let window = || select(vec![i64::MIN, -60_000, 0, 60_000]);
    let fault = proptest::option::weighted(0.3, select(vec![Fault::Refused, Fault::ReplyLost]));
    let few = (window(), 0u32..3000, 1u32..20, 1u64..100);
    let many = (window(), 0u32..1000, 500u32..2500, 1u64..100);
    let update = |(window, first, count, add)| Op::Update { window, first, count, add };
    vec(
        prop_oneof![
            6 => few.clone().prop_map(update),
            2 => many.clone().prop_map(update),
            2 => few.prop_map(|(window, first, count, _)| Op::Update { window, first, count, add: REMOVE }),
            2 => many.prop_map(|(window, first, count, _)| Op::Update { window, first, count, add: REMOVE }),
            2 => window().prop_map(|window| Op::Discard { window }),
            1 => (-100i64..100).prop_map(Op::Watermark),
            4 => Just(Op::Freeze),
            6 => (1u64..800).prop_map(|entries| Op::Sweep { entries }),
            3 => Just(Op::Sweep { entries: u64::MAX / 2 }),
            3 => fault.prop_map(|fault| Op::Store { fault }),
            1 => (0usize..3, 1u32..4).prop_map(|(back, parallelism)| Op::Restore { back, parallelism }),
        ],
        1..50,
    )
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    Sweeping,
    /// All captured; nobody has driven the future yet.
    Hanging(Durable),
    Stored(StateHandle),
    Failed,
}

struct Part {
    state: KeyedState<u32, u64>,
    range: KeyGroupRange,
    phase: Phase,
}

struct Snapshot {
    handles: Vec<StateHandle>,
    model: Model,
    watermark: Option<i64>,
}

struct World {
    backend: Arc<dyn StateBackendFactory>,
    /// Bytes of the tables, where they hold a part.
    cache: usize,
    faults: FaultyStore,
    store: Arc<CheckpointStore>,
    codec: Codec,
    key_groups: u16,
    attempt: u64,
    epoch: u64,
    model: Model,
    watermark: Option<i64>,
    parts: Vec<Part>,
    /// The state at the freeze of the snapshot in progress.
    frozen: Option<(Model, Option<i64>)>,
    kept: Vec<Snapshot>,
    /// Entries have been removed: they are counted until they have gone.
    removed: bool,
}

impl World {
    async fn new(key_groups: u16, codec: Codec) -> Self {
        Self::over(Arc::new(Memory), 0, key_groups, codec).await
    }

    async fn over(backend: Arc<dyn StateBackendFactory>, cache: usize, key_groups: u16, codec: Codec) -> Self {
        let faults = FaultyStore::new(Arc::new(InMemory::new()));
        let store = Arc::new(CheckpointStore::new(Arc::new(faults.clone()), "", JobId::new("job").unwrap()));
        let mut world = Self {
            backend,
            cache,
            faults,
            store,
            codec,
            key_groups,
            attempt: 0,
            epoch: 0,
            model: Model::new(),
            watermark: None,
            parts: Vec::new(),
            frozen: None,
            kept: Vec::new(),
            removed: false,
        };
        world.restart(None, 1).await;
        world
    }

    async fn restart(&mut self, from: Option<usize>, parallelism: u32) {
        self.attempt += 1;
        let from = from.map(|at| &self.kept[at]);
        let parallelism = parallelism.min(u32::from(self.key_groups));
        let mut parts = Vec::new();
        for subtask in (0..parallelism).map(Subtask) {
            let range = KeyGroupRange::of(subtask, parallelism, self.key_groups);
            let handles = from.iter().flat_map(|s| &s.handles).filter(|h| h.key_groups.overlaps(&range)).cloned();
            let backend = self.backend.open(OpenContext {
                store: self.store.clone(),
                operator: OperatorId::new("operator").unwrap(),
                subtask,
                attempt: Attempt(self.attempt),
                run: RunId::default(),
                key_groups: range,
                restored: None,
                restore: handles.collect(),
                lineage: "lineage".into(),
                settings: Arc::default(),
            });
            let backend = backend.await.unwrap();
            let state = KeyedState::new("operator", backend, self.codec, self.key_groups, range, self.cache);
            let mut state = state.removing(|sum| *sum == 0);
            state.restore().await.unwrap();
            let watermark = from.and_then(|s| s.watermark);
            assert_eq!(state.watermark(), watermark, "the watermark comes back to every subtask");
            parts.push(Part { state, range, phase: Phase::Idle });
        }
        (self.model, self.watermark) = from.map(|s| (s.model.clone(), s.watermark)).unwrap_or_default();
        (self.parts, self.frozen) = (parts, None);
        self.check("restored").await;
    }

    /// The state has what the model has.
    async fn check(&mut self, when: &str) {
        let mut found = Model::new();
        for part in &mut self.parts {
            let before = found.len();
            for table in part.state.tables() {
                for (key, value) in table.iter() {
                    assert!(part.range.contains(key_group(hash_key(key), self.key_groups)), "{when}: a foreign key");
                    assert_eq!(found.insert((table.namespace(), *key), *value), None, "{when}: {key} is there twice");
                }
            }
            let (counted, there) = (part.state.len(), found.len() - before);
            assert!(counted == there || self.removed && counted > there, "{when}: {counted} of {there} are counted");
            let of = |group: u16| part.state.tables().iter().map(|t| t.of_key_group(group).count()).sum::<usize>();
            assert_eq!(part.range.iter().map(of).sum::<usize>(), there, "{when}: key groups are told apart");
            for namespace in part.state.namespaces() {
                for key_group in part.range.iter().collect::<Vec<_>>() {
                    let (mut from, mut more) = (None, part.state.has_more(namespace, key_group));
                    while more {
                        let entries;
                        (entries, from) = part.state.next_page(namespace, key_group, from).await.unwrap();
                        more = from.is_some();
                        for (key, value) in entries {
                            assert_eq!(found.insert((namespace, key), value), None, "{when}: {key} is there twice");
                        }
                    }
                }
            }
        }
        assert!(found == self.model, "{when}: {} entries, {} expected", found.len(), self.model.len());
    }

    /// As the engine does: the records of each subtask as one batch.
    async fn update(&mut self, window: i64, keys: impl Iterator<Item = u32>, add: u64) {
        let keys: Vec<_> = keys.map(|key| (key, hash_key(&key))).collect();
        for part in &mut self.parts {
            let own = |hash: u64| part.range.contains(key_group(hash, self.key_groups));
            let mine: Vec<_> = keys.iter().filter(|(_, hash)| own(*hash)).collect();
            let mut records: Vec<_> =
                mine.into_iter().map(|(key, hash)| Keyed { hash: *hash, key: *key, record: add, at: 0 }).collect();
            let mut missing = Vec::new();
            part.state.missing(&records, |_, need| need(window), &mut missing).unwrap();
            part.state.load(missing).await.unwrap();
            let change = |sum: &mut u64, next: Keyed<u32, u64>| match next.record {
                REMOVE => *sum = 0,
                add => *sum += add,
            };
            part.state.update_while(window, &mut records.drain(..), |_| true, || 0, change).unwrap();
            // A snapshot that has to be finished for it is returned before there is room.
            for _ in 0..2 {
                if part.state.needs_tending()
                    && let Some((_, durable)) = part.state.tend().await.unwrap()
                {
                    part.phase = Phase::Hanging(durable);
                }
            }
            assert!(!part.state.needs_tending(), "there is room again");
        }
        for (key, _) in keys {
            match add {
                REMOVE => drop(self.model.remove(&(window, key))),
                add => *self.model.entry((window, key)).or_insert(0) += add,
            }
        }
        self.removed |= add == REMOVE;
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Update { window, first, count, add } => self.update(window, first..first + count, add).await,
            Op::Discard { window } => {
                self.parts.iter_mut().for_each(|p| p.state.discard(window));
                self.model.retain(|(namespace, _), _| *namespace != window);
            }
            Op::Watermark(at) => {
                // An operator's watermark never goes back, neither over a restore.
                let at = self.watermark.map_or(at, |before| before.max(at));
                self.parts.iter_mut().for_each(|p| p.state.save_watermark(at));
                self.watermark = Some(at);
            }
            Op::Freeze => self.freeze(),
            Op::Sweep { entries } => self.parts.iter_mut().for_each(|p| p.sweep(entries)),
            Op::Store { fault } => self.store(fault).await,
            Op::Restore { back, parallelism } => {
                let from = self.kept.len().checked_sub(back + 1);
                self.restart(from, parallelism).await;
            }
        }
    }

    /// Accepted when no snapshot is in progress, by every subtask or by none.
    fn freeze(&mut self) {
        let idle = self.parts.iter().all(|p| matches!(p.phase, Phase::Idle));
        self.epoch += 1;
        if idle {
            self.frozen = Some((self.model.clone(), self.watermark));
        }
        for part in &mut self.parts {
            let accepted = part.state.freeze(Epoch(self.epoch)).unwrap();
            let expected = matches!(part.phase, Phase::Idle | Phase::Failed | Phase::Stored(_));
            assert_eq!(accepted, expected, "a barrier is declined while a snapshot is in progress");
            if accepted {
                // When the others are not ready this snapshot is one of nobody; it is made all the same.
                part.phase = Phase::Sweeping;
            }
        }
        if !idle {
            self.frozen = None;
        }
    }

    /// Drives every snapshot that is captured; keeps the checkpoint when all subtasks have theirs.
    async fn store(&mut self, fault: Option<Fault>) {
        if let Some(fault) = fault {
            self.faults.fail_after(0, fault);
        }
        for part in &mut self.parts {
            part.phase = match std::mem::take(&mut part.phase) {
                Phase::Hanging(durable) => durable.await.map_or(Phase::Failed, Phase::Stored),
                other => other,
            };
        }
        self.faults.heal();
        if self.parts.iter().any(|p| matches!(p.phase, Phase::Sweeping | Phase::Hanging(_))) {
            return;
        }
        let phases: Vec<_> = self.parts.iter_mut().map(|p| std::mem::take(&mut p.phase)).collect();
        let handle = |phase| match phase {
            Phase::Stored(handle) => Some(handle),
            _ => None,
        };
        let handles: Option<Vec<_>> = phases.into_iter().map(handle).collect();
        if let (Some(handles), Some((model, watermark))) = (handles, self.frozen.take()) {
            self.kept.push(Snapshot { handles, model, watermark });
        }
    }

    /// Plays a history; then the next checkpoint works, and each that is kept can be restored.
    async fn play(mut self, ops: Vec<Op>) {
        for op in ops {
            self.run(op).await;
        }
        self.check("at the end").await;
        let before = self.kept.len();
        self.checkpoint().await;
        assert!(self.kept.len() > before, "a healthy store keeps a checkpoint");
        for snapshot in 0..self.kept.len() {
            for parallelism in [1, 2, 3] {
                self.restart(Some(snapshot), parallelism).await;
            }
        }
    }

    /// A checkpoint with nothing in its way.
    async fn checkpoint(&mut self) {
        self.parts.iter_mut().for_each(|p| p.sweep(u64::MAX / 2));
        self.store(None).await;
        self.freeze();
        self.parts.iter_mut().for_each(|p| p.sweep(u64::MAX / 2));
        self.store(None).await;
    }
}

impl Part {
    fn sweep(&mut self, entries: u64) {
        match self.state.sweep(entries).unwrap() {
            Swept::Idle => assert!(!matches!(self.phase, Phase::Sweeping)),
            Swept::More => assert!(matches!(self.phase, Phase::Sweeping)),
            Swept::Sealed(_, durable) => self.phase = Phase::Hanging(durable),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn each_snapshot_is_the_state_at_its_freeze(
        ops in ops(),
        key_groups in select(vec![1u16, 2, 8, 128]),
        codec in select(vec![Codec::Named, Codec::Compact]),
    ) {
        block_on(async {
            World::new(key_groups, codec).await.play(ops).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn each_snapshot_is_the_state_at_its_freeze_where_the_tables_hold_a_part(
        ops in ops(),
        key_groups in select(vec![1u16, 2, 8, 128]),
        codec in select(vec![Codec::Named, Codec::Compact]),
        cache in select(vec![200usize, 5_000, 40_000, 1_000_000]),
    ) {
        block_on(async {
            World::over(Arc::new(Entries), cache, key_groups, codec).await.play(ops).await;
        });
    }
}

fn keys(world: &World) -> u64 {
    world.parts.iter().map(|p| p.state.captured()).sum()
}

#[test]
fn a_snapshot_writes_only_the_sub_shards_that_have_changed_since_the_last_durable_one() {
    block_on(async {
        let mut world = World::new(8, Codec::Named).await;
        world.update(0, 0..20_000, 1).await;
        world.checkpoint().await;
        assert_eq!(keys(&world), 20_000, "the first one is full");
        world.checkpoint().await;
        assert_eq!(keys(&world), 20_000, "nothing has changed");
        world.update(0, 7..8, 1).await;
        world.checkpoint().await;
        let changed = keys(&world) - 20_000;
        assert!((1..=1_280).contains(&changed), "one sub-shard has changed, and {changed} entries were written");
        assert_eq!(world.kept.len(), 3);
        world.restart(Some(2), 2).await;
    });
}

/// A window is discarded behind the barrier, and room has to be made while the snapshot is swept, for which it need not be
/// finished: the backend is still in the epoch in which the window was there.
#[test]
fn what_is_discarded_behind_the_barrier_is_in_the_snapshot() {
    block_on(async {
        let mut world = World::over(Arc::new(Entries), 5_000, 8, Codec::Named).await;
        world.update(0, 0..600, 1).await;
        world.checkpoint().await;
        world.update(60_000, 0..70, 1).await;
        world.freeze();
        world.run(Op::Discard { window: 0 }).await;
        for first in (1_000..1_048).step_by(8) {
            // What has been captured is clean, and can go.
            world.parts.iter_mut().for_each(|p| p.sweep(1));
            world.update(60_000, first..first + 8, 1).await;
        }
        world.parts.iter_mut().filter(|p| matches!(p.phase, Phase::Sweeping)).for_each(|p| p.sweep(u64::MAX / 2));
        world.store(None).await;
        world.check("behind it").await;
        let snapshots = world.kept.len();
        world.restart(Some(snapshots - 1), 2).await;
    });
}

#[test]
fn a_snapshot_behind_a_failed_one_is_full() {
    block_on(async {
        for fault in [Fault::Refused, Fault::ReplyLost] {
            let mut world = World::new(8, Codec::Named).await;
            world.update(0, 0..5_000, 1).await;
            world.checkpoint().await;
            world.update(0, 0..1, 1).await;
            for op in [Op::Freeze, Op::Sweep { entries: u64::MAX / 2 }, Op::Store { fault: Some(fault) }] {
                world.run(op).await;
            }
            assert_eq!(world.kept.len(), 1, "it has failed");
            let before = keys(&world);
            world.checkpoint().await;
            assert_eq!(keys(&world) - before, 5_000);
            world.restart(Some(1), 1).await;
        }
    });
}

/// Larger than what the caches are taken to hold, so that entries are asked for ahead: some of them are guessed
/// before the records in front of them make, capture or move what the guess was of.
#[test]
fn a_large_table_is_changed_as_exactly_while_it_grows_and_is_swept() {
    block_on(async {
        let mut world = World::new(8, Codec::Named).await;
        world.update(0, 0..60_000, 1).await;
        world.freeze();
        for step in 0..200u32 {
            // Old keys and new ones in no order, and each of them once more soon after.
            let scattered = (0..300).map(|i| (step * 300 + i).wrapping_mul(2_654_435_761) % 120_000);
            world.update(0, scattered.flat_map(|key| [key, key / 2, key]), u64::from(step)).await;
            world.parts.iter_mut().for_each(|p| p.sweep(400));
        }
        world.check("after all").await;
        world.checkpoint().await;
        world.checkpoint().await;
        for snapshot in 0..world.kept.len() {
            world.restart(Some(snapshot), 2).await;
        }
        assert!(!world.kept.is_empty());
    });
}

/// What is asked for ahead goes as far as what fits, wherever in a chunk that ends.
#[test]
fn a_large_table_is_changed_up_to_the_first_record_that_does_not_fit() {
    block_on(async {
        let mut world = World::new(8, Codec::Named).await;
        world.update(0, 0..60_000, 1).await;
        for fitting in (0..70u32).chain([255, 256]) {
            let keyed = |key: u32| Keyed { hash: hash_key(&key), key, record: 1u64, at: 0 };
            let mut batch: Vec<_> = (0..256).map(|i| keyed(i * 211)).collect();
            let mut records = batch.drain(..);
            let fits = |next: &Keyed<u32, u64>| next.key < fitting * 211;
            let change = |sum: &mut u64, next: Keyed<u32, u64>| *sum += next.record;
            world.parts[0].state.update_while(0, &mut records, fits, || 0, change).unwrap();
            assert_eq!(records.map(|r| r.key).collect::<Vec<_>>(), (fitting..256).map(|i| i * 211).collect::<Vec<_>>());
            for i in 0..fitting {
                *world.model.entry((0, i * 211)).or_insert(0) += 1;
            }
        }
        world.check("after all").await;
    });
}
