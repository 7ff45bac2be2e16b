//! The small objects: claim, manifest, commit record, and the names of all of them.
use serde_json::json;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};
use tidegate::extend::checkpoint::{
    commit::{CommitPermit, CommitPoint, CommitRecord, StoreCommitPoint},
    ids::{Attempt, Epoch, JobId, KeyGroupRange, OperatorId, Subtask},
    manifest::{HASH, Manifest, ObjectRef, StateHandle},
    paths,
    store::CheckpointStore,
};

use crate::pinned;

fn op(name: &str) -> OperatorId {
    OperatorId::new(name).unwrap()
}

/// Every field has something in it.
fn manifest() -> Manifest {
    let path = "clicks/state/per-minute/000002-000000000007-0001.blocks".to_owned();
    Manifest {
        job: JobId::new("clicks").unwrap(),
        lineage: "8c1f00aa".into(),
        epoch: Epoch(7),
        parent: Some(Epoch(6)),
        attempt: Attempt(2),
        key_groups: 128,
        hash: HASH.into(),
        parallelism: 2,
        last: true,
        created_ms: 1_795_000_000_000,
        sources: BTreeMap::from([(op("in"), BTreeMap::from([("a.csv".to_owned(), json!({"offset": 17, "line": 3}))]))]),
        states: BTreeMap::from([(
            op("per-minute"),
            vec![StateHandle {
                subtask: Subtask(1),
                key_groups: KeyGroupRange { start: 64, end: 128 },
                backend: "memory".into(),
                data: json!({"object": path, "offset": 20}),
                objects: vec![ObjectRef { path, bytes: 99 }],
            }],
        )]),
        sinks: BTreeMap::from([(op("out"), vec![json!({"part": "part-00000007-0001-0000.csv"})])]),
        counters: BTreeMap::from([(op("in"), BTreeMap::from([("records-out".to_owned(), 42)]))]),
    }
}

fn record() -> CommitRecord {
    CommitRecord {
        epoch: Epoch(7),
        manifest: "clicks/manifests/000000000007-000002.manifest".into(),
        lineage: "8c1f00aa".into(),
        attempt: Attempt(2),
        transactional_ids: vec!["clicks-0".into()],
    }
}

fn store(directory: &Path) -> Arc<CheckpointStore> {
    Arc::new(CheckpointStore::open(directory.to_str().unwrap(), JobId::new("clicks").unwrap()).unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_claim_is_written_as_it_was_and_an_old_one_counts() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    block_on(async {
        assert_eq!(store(dir.path()).claim("the owner").await.unwrap(), Attempt(1));
        let bytes = pinned("claim", &fs::read(dir.path().join("clicks/attempts/000000000001")).unwrap());

        fs::create_dir_all(old.path().join("clicks/attempts")).unwrap();
        fs::write(old.path().join("clicks/attempts/000000000001"), bytes).unwrap();
        assert_eq!(store(old.path()).claim("another").await.unwrap(), Attempt(2));
    });
}

#[test]
fn a_manifest_is_written_as_it_was_and_an_old_one_is_read() {
    let bytes = pinned("manifest", &manifest().encode().unwrap());
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
}

#[test]
fn a_commit_record_is_written_as_it_was_and_an_old_one_is_read() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = "clicks/commits/000000000007.commit";
    block_on(async {
        StoreCommitPoint::new(store(dir.path())).commit(&CommitPermit::forged(record())).await.unwrap();
        let bytes = pinned("commit", &fs::read(dir.path().join(path)).unwrap());

        fs::create_dir_all(old.path().join("clicks/commits")).unwrap();
        fs::write(old.path().join(path), bytes).unwrap();
        assert_eq!(StoreCommitPoint::new(store(old.path())).latest().await.unwrap(), Some(record()));
    });
}

#[test]
fn objects_are_called_as_they_were() {
    let job = JobId::new("clicks").unwrap();
    let state = paths::state(&job, &op("per-minute"), Attempt(2), Epoch(7), Subtask(1), "blocks");
    let names = [
        paths::attempt(&job, Attempt(2)),
        paths::manifest(&job, Epoch(7), Attempt(2)),
        paths::commit(&job, Epoch(7)),
        state,
    ];
    pinned("names", names.join("\n").as_bytes());
}
