//! What lies on the local disk: a database as long as it is used, and nothing of the dead.
use crate::kit::{Kit, write};
use std::{fs, fs::File};
use tidegate_checkpoint::{error::Kind, ids::Epoch};
use tidegate_core::testkit::block_on;

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
        let dead = ["operator-0", "operator-1", "other-0"].map(|of| {
            let dead = kit.path().join(format!("tidegate-rocksdb-job-{of}-0123456789abcdef"));
            fs::create_dir_all(dead.join("database")).unwrap();
            fs::write(dead.join("database/000012.sst"), "data").unwrap();
            File::create(dead.with_extension("lock")).unwrap();
            dead
        });
        fs::write(kit.path().join("tidegate-rocksdb-of-somebody-else"), "no lock").unwrap();
        fs::write(kit.path().join("somebody-else.lock"), "").unwrap();
        let all = kit.left();
        // Killed between the two that are deleted: there is nothing that anybody could want.
        let half = kit.path().join("tidegate-rocksdb-job-other-1-0123456789abcdef.lock");
        File::create(&half).unwrap();
        drop(kit.open(1, (1, 2), &[]).await.unwrap());
        assert!(half.exists(), "nothing is swept before there is a snapshot");
        write(living.as_mut(), 0..1_000, 1).await;
        living.seal(Epoch(1)).await.unwrap();
        assert!(
            !half.exists() && all.iter().all(|path| kit.left().contains(path)),
            "whoever they are of may be on their way"
        );
        // The living have given no sign either; but their locks are held.
        for lock in kit.left().iter().filter(|path| path.extension().is_some()) {
            let lock = File::options().write(true).open(lock).unwrap();
            lock.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
        }
        kit.ended();
        let mut next = kit.open(2, (0, 3), &[]).await.unwrap();
        write(next.as_mut(), 0..1_000, 1).await;
        next.seal(Epoch(1)).await.unwrap();
        let after = kit.left();
        assert!(before.iter().all(|path| after.contains(path)), "{after:?}");
        assert!(!dead.iter().any(|dead| dead.exists()), "{after:?}");
        assert_eq!(after.len(), before.len() + 4, "what is none of ours stays: {after:?}");
        living.seal(Epoch(2)).await.unwrap();
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
