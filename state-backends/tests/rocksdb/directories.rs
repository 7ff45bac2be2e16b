//! What lies on the local disk: a database as long as it is used, and nothing of the dead.
use crate::{
    kit::{Kit, write},
    local::as_dead,
};
use std::{fs, fs::File, path::PathBuf, sync::Arc};
use tidegate_checkpoint::{
    error::Kind,
    ids::{Epoch, JobId, OperatorId},
    store::CheckpointStore,
};
use tidegate_core::{
    state::backend::{OpenContext, RunId, StateBackendFactory},
    testkit::block_on,
};

#[test]
fn a_database_is_deleted_with_its_run() {
    block_on(async {
        let kit = Kit::new();
        let mut backend = kit.open(1, (0, 1), &[]).await.unwrap();
        write(backend.as_mut(), 0..1_000, 1).await;
        let handle = backend.seal(Epoch(1)).await.unwrap();
        let second = kit.open(1, (0, 1), std::slice::from_ref(&handle)).await.unwrap();
        assert_eq!(kit.left().len(), 4, "two directories, and their locks");
        drop((backend, second));
        assert_eq!(kit.left().len(), 2, "what has made a snapshot waits for the next attempt");
        kit.ended();
        assert_eq!(kit.left(), [""; 0].map(Into::<std::path::PathBuf>::into));
        // Nor does one stay that could not be opened.
        kit.store.delete(&handle.objects[0].path).await.unwrap();
        assert_eq!(kit.open(2, (0, 1), &[handle]).await.err().unwrap().kind(), Kind::Corrupt);
        assert_eq!(kit.left().len(), 0);
    });
}

/// A killed process leaves a directory and a lock that nobody holds.
#[test]
fn what_the_dead_have_left_is_swept_and_the_living_are_left_alone() {
    block_on(async {
        let kit = Kit::new();
        let mut living = kit.open(1, (0, 1), &[]).await.unwrap();
        let before = kit.left();
        let names =
            ["operator-1-00000000", "other-0-00000000"].map(|of| format!("tidegate-rocksdb-job-{of}-0123456789abcdef"));
        let [one, other] = names.map(|name| kit.path().join(name));
        let dead = [as_dead(&before[0], 0), one, other].map(|dead| {
            fs::create_dir_all(dead.join("database")).unwrap();
            fs::write(dead.join("database/000012.sst"), "data").unwrap();
            File::create(dead.with_extension("lock")).unwrap();
            dead
        });
        fs::write(kit.path().join("tidegate-rocksdb-of-somebody-else"), "no lock").unwrap();
        fs::write(kit.path().join("somebody-else.lock"), "").unwrap();
        let all = kit.left();
        // Killed between the two that are deleted: there is nothing that anybody could want.
        let half = kit.path().join("tidegate-rocksdb-job-other-1-00000000-0123456789abcdef.lock");
        File::create(&half).unwrap();
        drop(kit.open(1, (1, 2), &[]).await.unwrap());
        assert!(half.exists(), "nothing is swept before there is a snapshot");
        write(living.as_mut(), 0..1_000, 1).await;
        living.seal(Epoch(1)).await.unwrap();
        kit.until(|left| !left.contains(&half)).await;
        assert!(all.iter().all(|path| kit.left().contains(path)), "whoever they are of may be on their way");
        // The living have given no sign either; but their locks are held.
        for lock in kit.left().iter().filter(|path| path.extension().is_some()) {
            let lock = File::options().write(true).open(lock).unwrap();
            lock.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
        }
        kit.ended();
        let mut next = kit.open(2, (0, 3), &[]).await.unwrap();
        write(next.as_mut(), 0..1_000, 1).await;
        next.seal(Epoch(1)).await.unwrap();
        kit.leaves(before.len() + 4).await;
        let after = kit.left();
        assert!(before.iter().all(|path| after.contains(path)), "{after:?}");
        assert!(!dead.iter().any(|dead| dead.exists()), "{after:?}");
        let others = ["tidegate-rocksdb-of-somebody-else", "somebody-else.lock"].map(|name| kit.path().join(name));
        assert!(others.iter().all(|path| path.exists()), "what is none of ours stays: {after:?}");
        living.seal(Epoch(2)).await.unwrap();
    });
}

/// It is told late of the first: a task that is cut off ends when it is its turn.
#[test]
fn the_end_of_a_run_takes_nothing_from_the_next_one_of_the_same_job() {
    block_on(async {
        let mut kit = Kit::new();
        let mut handles = Vec::new();
        for run in 1..3 {
            kit.run = RunId(run);
            let mut backend = kit.open(run, (0, 1), &[]).await.unwrap();
            write(backend.as_mut(), 0..1_000, run).await;
            handles.push(backend.seal(Epoch(run)).await.unwrap());
        }
        kit.leaves(4).await;
        drop(kit.factory.ended(RunId(1)));
        kit.leaves(2).await;
        assert!(kit.factory.ended(RunId(1)).is_none(), "it has nothing any more");
        kit.ended();
        kit.leaves(0).await;
    });
}

/// Names that read the same when they are put together, and another job of the same name.
#[test]
fn nobody_claims_what_another_jobs_operator_has_left() {
    block_on(async {
        let kit = Kit::new();
        let context = |store: &str, job: &str, operator: &str| {
            let store = kit.path().join("checkpoints").join(store);
            let store = CheckpointStore::open(store.to_str().unwrap(), JobId::new(job).unwrap()).unwrap();
            let operator = OperatorId::new(operator).unwrap();
            OpenContext { store: Arc::new(store), operator, ..kit.context(1, (0, 1), &[]) }
        };
        let labels =
            [("one", "a-b", "c"), ("one", "a", "b-c"), ("other", "a", "b-c")].map(|of| context(of.0, of.1, of.2));
        let own = |left: &[PathBuf]| left.iter().filter(|path| path.is_dir() && !path.ends_with("checkpoints")).count();
        let mut dead = Vec::new();
        for (n, context) in labels.iter().enumerate() {
            let backend = kit.factory.open(context.clone()).await.unwrap();
            let live =
                kit.left().into_iter().find(|path| path.join("database").exists() && !dead.contains(path)).unwrap();
            drop(backend);
            kit.until(|left| own(left) == n).await;
            let path = as_dead(&live, n);
            fs::create_dir_all(path.join("database")).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            File::create(path.with_extension("lock")).unwrap();
            dead.push(path);
        }
        for (n, context) in labels.into_iter().enumerate() {
            // What it has claimed goes with the end of its run.
            drop(kit.factory.open(context).await.unwrap());
            kit.ended();
            kit.until(|left| own(left) == 2 - n).await;
            assert_eq!(dead.iter().map(|path| path.exists()).collect::<Vec<_>>(), [0, 1, 2].map(|m| m > n));
        }
    });
}

#[test]
fn a_place_that_cannot_be_used_is_the_users_to_mend() {
    block_on(async {
        let mut kit = Kit::new();
        fs::write(kit.path().join("file"), "").unwrap();
        kit.settings.rocksdb.directory = kit.path().join("file/below").display().to_string();
        let error = kit.open(1, (0, 1), &[]).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Config, "{error}");
        assert!(error.to_string().contains("state.rocksdb.directory"), "{error}");
        kit.settings.rocksdb.memory = tidegate_core::ByteSize::mb(1);
        let error = kit.open(1, (0, 1), &[]).await.err().unwrap();
        assert!(error.kind() == Kind::Config && error.to_string().contains("state.rocksdb.memory"), "{error}");
    });
}
