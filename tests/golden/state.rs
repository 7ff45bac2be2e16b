//! Keyed state: the memory backend's log of blocks, and the blocks of both codecs in it.
//!
//! Two snapshots, so that the second refers to blocks of the first. Each key is in a key group of its own:
//! in which order keys of one block follow each other is not part of the format.
use object_store::memory::InMemory;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tidegate::{
    Result,
    extend::{
        backends::Memory,
        checkpoint::{
            ids::{Attempt, Epoch, JobId, KeyGroupRange, OperatorId, Subtask},
            manifest::StateHandle,
            store::CheckpointStore,
        },
        state::{
            backend::{OpenContext, RunId, StateBackendFactory},
            codec::Codec,
            hash::{hash_key, key_group},
            keyed::{KeyedState, Swept},
            table::Value,
        },
    },
};

use crate::pinned;

const KEY_GROUPS: u16 = 8;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Last {
    Never,
    At(i64),
    Named { name: String, sure: bool },
}

/// Something of every kind that values are made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub count: u64,
    pub sum: i64,
    pub mean: f64,
    pub last: Last,
    pub tags: Vec<Option<String>>,
    pub by_hour: BTreeMap<u8, u32>,
}

pub fn totals(n: u64) -> Totals {
    let last = match n % 3 {
        0 => Last::Never,
        1 => Last::At(-(n as i64)),
        _ => Last::Named { name: format!("é{n}"), sure: true },
    };
    Totals {
        count: n,
        sum: -300 * n as i64,
        mean: n as f64 / 4.0,
        last,
        tags: vec![None, Some("x".repeat(n as usize))],
        by_hour: BTreeMap::from([(3, n as u32), (23, u32::MAX)]),
    }
}

/// (Namespace, key) and value.
type Contents<V = Totals> = BTreeMap<(i64, String), V>;

pub async fn open<V: Value>(
    store: &Arc<CheckpointStore>,
    codec: Codec,
    restore: Vec<StateHandle>,
) -> Result<KeyedState<String, V>> {
    let range = KeyGroupRange { start: 0, end: KEY_GROUPS };
    let context = OpenContext {
        store: store.clone(),
        operator: OperatorId::new("per-hour").unwrap(),
        subtask: Subtask(0),
        attempt: Attempt(3),
        run: RunId::default(),
        key_groups: range,
        restored: None,
        restore,
        lineage: "lineage".into(),
        settings: Arc::default(),
    };
    let mut state = KeyedState::new("per-hour", Memory.open(context).await.unwrap(), codec, KEY_GROUPS, range, 0);
    state.restore().await.map(|()| state)
}

fn put(state: &mut KeyedState<String, Totals>, namespace: i64, key: &str, n: u64) {
    let key = key.to_owned();
    state.update(namespace, hash_key(&key), &key, || totals(0), |value| *value = totals(n)).unwrap();
}

async fn snapshot(state: &mut KeyedState<String, Totals>, epoch: u64) -> StateHandle {
    assert!(state.freeze(Epoch(epoch)).unwrap());
    match state.sweep(u64::MAX / 2).unwrap() {
        Swept::Sealed(_, durable) => durable.await.unwrap(),
        _ => panic!("a sweep of everything does not end"),
    }
}

pub fn contents<V: Value + Clone>(state: &KeyedState<String, V>) -> Contents<V> {
    let tables = state.tables().iter();
    tables.flat_map(|t| t.iter().map(|(k, v)| ((t.namespace(), k.clone()), v.clone()))).collect()
}

pub fn store() -> Arc<CheckpointStore> {
    Arc::new(CheckpointStore::new(Arc::new(InMemory::new()), "", JobId::new("job").unwrap()))
}

/// What is pinned is `<name>-1`, `<name>-2`, `<name>-handle`.
async fn both_ways(name: &str, codec: Codec) {
    let keys = ["JFK", "LGA", "EWR"];
    let groups: BTreeSet<u16> = keys.iter().map(|k| key_group(hash_key(*k), KEY_GROUPS)).collect();
    assert_eq!(groups.len(), keys.len(), "each key in a group of its own");

    let today = store();
    let mut state = open(&today, codec, Vec::new()).await.unwrap();
    // Long, so that its block is worth keeping where it is.
    put(&mut state, 3_600_000, keys[0], 1000);
    put(&mut state, 3_600_000, keys[1], 2);
    put(&mut state, -3_600_000, keys[2], 3);
    state.save_watermark(7_200_000);
    snapshot(&mut state, 4).await;
    put(&mut state, 3_600_000, keys[1], 5);
    state.discard(-3_600_000);
    let handle = snapshot(&mut state, 5).await;
    assert_eq!(handle.objects.len(), 2, "the second snapshot refers to the first");

    let old = store();
    for (n, object) in handle.objects.iter().enumerate() {
        let bytes = pinned(&format!("{name}-{}", n + 1), &today.get(&object.path).await.unwrap());
        old.put(&object.path, bytes).await.unwrap();
    }
    let handle = pinned(&format!("{name}-handle"), &serde_json::to_vec(&handle).unwrap());
    let restored = open(&old, Codec::default(), vec![serde_json::from_slice(&handle).unwrap()]).await.unwrap();
    assert_eq!(contents(&restored), contents(&state));
    assert_eq!(contents(&restored)[&(3_600_000, "LGA".into())], totals(5));
    assert_eq!(restored.watermark(), Some(7_200_000));
}

pub fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

#[test]
fn blocks_with_names_are_written_as_they_were_and_old_ones_are_read() {
    block_on(both_ways("blocks-named", Codec::Named));
}

#[test]
fn compact_blocks_are_written_as_they_were_and_old_ones_are_read() {
    block_on(both_ways("blocks-compact-lengths", Codec::Compact));
}

/// As they were before values had their length in front, which savepoints need: layout 2.
#[test]
fn compact_blocks_without_lengths_are_read() {
    block_on(async {
        let old = store();
        let read = |name: &str| std::fs::read(crate::data(&format!("blocks-compact-{name}"))).unwrap();
        let handle: StateHandle = serde_json::from_slice(&read("handle")).unwrap();
        for (n, object) in handle.objects.iter().enumerate() {
            old.put(&object.path, read(&(n + 1).to_string())).await.unwrap();
        }
        let restored = open(&old, Codec::default(), vec![handle]).await.unwrap();
        let expected = [((3_600_000, "JFK".into()), totals(1000)), ((3_600_000, "LGA".into()), totals(5))];
        assert_eq!(contents(&restored), Contents::from(expected));
        assert_eq!(restored.watermark(), Some(7_200_000));
    });
}
