//! The store and the commit point on real objects: in memory and in a directory.
#![allow(clippy::unwrap_used, reason = "a test may")]
use futures::future::join_all;
use object_store::memory::InMemory;
use std::{collections::BTreeSet, sync::Arc};
use tidegate_checkpoint::{
    commit::{CommitPermit, CommitPoint, CommitRecord, StoreCommitPoint, committed_manifest},
    error::Kind,
    ids::{Attempt, Epoch, JobId},
    manifest::{HASH, Manifest},
    paths,
    store::{CheckpointStore, Created, failed},
};

fn job() -> JobId {
    JobId::new("j").unwrap()
}
fn manifest(epoch: u64, attempt: u64) -> Manifest {
    Manifest {
        job: job(),
        lineage: "l".into(),
        epoch: Epoch(epoch),
        parent: None,
        attempt: Attempt(attempt),
        key_groups: 128,
        hash: HASH.into(),
        parallelism: 1,
        last: false,
        created_ms: 0,
        sources: Default::default(),
        states: Default::default(),
        sinks: Default::default(),
        counters: Default::default(),
    }
}
fn permit(epoch: u64, attempt: u64) -> CommitPermit {
    let manifest = paths::manifest(&job(), Epoch(epoch), Attempt(attempt));
    CommitPermit::forged(CommitRecord {
        epoch: Epoch(epoch),
        manifest,
        lineage: "l".into(),
        attempt: Attempt(attempt),
        transactional_ids: vec![],
    })
}
fn stores() -> (tempfile::TempDir, Vec<Arc<CheckpointStore>>) {
    let dir = tempfile::tempdir().unwrap();
    let local = CheckpointStore::open(dir.path().to_str().unwrap(), job()).unwrap();
    let memory = CheckpointStore::new(Arc::new(InMemory::new()), "some/prefix", job());
    (dir, vec![Arc::new(local), Arc::new(memory)])
}

#[tokio::test]
async fn a_committed_manifest_is_found_again_and_checked_against_its_record() {
    for store in stores().1 {
        let commits = StoreCommitPoint::new(store.clone());
        assert_eq!(commits.latest().await.unwrap(), None);
        let attempt = store.claim("me").await.unwrap();
        let path = store.put_manifest(&manifest(1, attempt.0)).await.unwrap();
        commits.commit(&permit(1, attempt.0)).await.unwrap();
        let record = commits.latest().await.unwrap().unwrap();
        assert_eq!(record.manifest, path);
        assert_eq!(committed_manifest(&store, &record).await.unwrap(), manifest(1, attempt.0));
    }
}

#[tokio::test]
async fn claims_of_racing_processes_are_all_different() {
    for store in stores().1 {
        let names: Vec<_> = (0..8).map(|i| format!("process {i}")).collect();
        let claims = join_all(names.iter().map(|n| store.claim(n))).await;
        let distinct: BTreeSet<_> = claims.into_iter().map(Result::unwrap).collect();
        assert_eq!(distinct.len(), 8);
        // Who was overtaken before it had looked has claimed again: there may be more, but none that is newer.
        assert_eq!(store.attempts().await.unwrap().last(), distinct.last());
    }
}

#[tokio::test]
async fn of_two_attempts_that_commit_one_epoch_exactly_one_wins_and_the_other_is_fenced() {
    for store in stores().1 {
        for epoch in 1..20 {
            let (a, b) = (StoreCommitPoint::new(store.clone()), StoreCommitPoint::new(store.clone()));
            let (pa, pb) = (permit(epoch, 1), permit(epoch, 2));
            let (a, b) = tokio::join!(a.commit(&pa), b.commit(&pb));
            assert_eq!(u8::from(a.is_ok()) + u8::from(b.is_ok()), 1);
            assert_eq!(a.err().or(b.err()).unwrap().kind(), Kind::Fenced);
        }
    }
}

#[tokio::test]
async fn a_repeated_commit_of_our_own_is_fine_and_a_newer_attempt_fences() {
    for store in stores().1 {
        let commits = StoreCommitPoint::new(store.clone());
        let first = store.claim("x").await.unwrap();
        commits.commit(&permit(1, first.0)).await.unwrap();
        commits.commit(&permit(1, first.0)).await.unwrap();
        store.claim("y").await.unwrap();
        let e = commits.commit(&permit(2, first.0)).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Fenced);
        assert!(e.to_string().contains("attempt 2 of the same job has taken over"), "{e}");
    }
}

#[tokio::test]
async fn create_tells_ours_from_theirs_and_a_missing_object_is_named() {
    for store in stores().1 {
        assert!(matches!(store.create("j/x", b"1".to_vec()).await.unwrap(), Created::Ours));
        assert!(matches!(store.create("j/x", b"1".to_vec()).await.unwrap(), Created::Ours), "our own retry");
        assert!(matches!(store.create("j/x", b"2".to_vec()).await.unwrap(), Created::Theirs(b) if b == "1"[..]));
        let e = store.get("j/none").await.unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt);
        assert!(e.to_string().contains("j/none is missing"), "{e}");
        store.delete("j/none").await.unwrap();
    }
}

#[test]
fn a_store_is_shown_without_its_url() {
    let shown = format!("{:?}", CheckpointStore::open("memory:secret", job()).unwrap());
    assert_eq!(shown, format!("CheckpointStore(InMemory, {})", job()));
}

#[test]
fn a_url_of_a_feature_that_is_not_compiled_in_names_the_feature() {
    for (url, word) in [
        ("ftp://x/y", "no known kind"),
        ("s3://b/p", "\"s3\""),
        ("gs://b/p", "\"gcs\""),
        ("az://c/p", "\"azure\""),
        ("hdfs://n:1/p", "\"hdfs\""),
    ] {
        if let Err(e) = CheckpointStore::open(url, job()) {
            assert_eq!(e.kind(), Kind::Config);
            assert!(e.to_string().contains(word), "{e}");
        }
    }
    let e = CheckpointStore::open("/proc/nothing/here", job()).unwrap_err();
    assert!(e.to_string().contains("/proc/nothing/here"), "{e}");
}

/// A directory that may not be written is the user's to mend; a disk that is full may be freed meanwhile.
#[test]
fn an_error_of_the_operating_system_is_of_the_kind_that_says_what_to_do() {
    use std::io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem, StorageFull, TimedOut};
    for (cause, kind) in [
        (PermissionDenied, Kind::Config),
        (NotADirectory, Kind::Config),
        (ReadOnlyFilesystem, Kind::Config),
        (StorageFull, Kind::Unavailable),
        (TimedOut, Kind::Unavailable),
    ] {
        let error = object_store::Error::Generic { store: "local", source: std::io::Error::from(cause).into() };
        assert_eq!(failed("write", "x", error).kind(), kind, "{cause}");
    }
}

#[tokio::test]
async fn what_killed_claimants_have_left_is_swept_but_not_what_a_later_one_is_writing() {
    let dir = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open(dir.path().to_str().unwrap(), job()).unwrap();
    store.claim("before").await.unwrap();
    let attempt = store.claim("me").await.unwrap();
    let file = |attempt: u64| dir.path().join(format!("{}#1", paths::attempt(&job(), Attempt(attempt))));
    for n in [1, 2, 3] {
        std::fs::write(file(n), "half").unwrap();
    }
    store.sweep_unfinished(attempt).unwrap();
    assert_eq!([1, 2, 3].map(|n| file(n).exists()), [false, true, true]);
    assert_eq!(store.attempts().await.unwrap(), [1, 2].map(Attempt));
}
