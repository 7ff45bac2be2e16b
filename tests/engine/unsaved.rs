//! Savepoints that fail leave nothing behind, and nothing of anybody else's is touched.
//!
//! The hard case is the last write, whose reply is lost: then the savepoint is there, and whole.
use crate::{
    kit::{finished, run, settings},
    pipeline::{COUNT, pipeline},
    store::{Fault, Op, Store},
};
use bytes::Bytes;
use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, sync::Arc};
use tidegate::{
    Error, Kind, Result,
    extend::{
        checkpoint::{
            ids::{JobId, OperatorId},
            manifest::Manifest,
            store::CheckpointStore,
        },
        state::savepoint::{draft::Draft, files::Writer},
    },
    state::reader::Reader,
};

/// In a folder `saved`, with a file of each operator and `end`.
async fn make(store: &Store, operators: &[&str], filled: Result<()>) -> Result<()> {
    let job = JobId::new("job").unwrap();
    let manifest = Manifest::empty(&job, "lineage", 8, 1);
    let mut draft = Draft::at(Arc::new(CheckpointStore::new(store.objects(), "saved", job)));
    let fill = async {
        for operator in operators {
            let mut writer = Writer::new(&mut draft, OperatorId::new(*operator).unwrap());
            writer.add([(Bytes::from_static(&[0, 1, 1]), Bytes::from_static(b"watermark"))]).await?;
            writer.end().await?;
        }
        filled
    };
    let filled = fill.await;
    draft.end(filled.map(|()| manifest)).await
}

/// A store with a file that another has put there meanwhile.
async fn shared(name: &str) -> (Store, BTreeMap<String, Bytes>) {
    let theirs = BTreeMap::from([(format!("saved/{name}"), Bytes::from_static(b"theirs"))]);
    (Store::with(&theirs).await, theirs)
}

#[test]
fn whichever_file_of_a_savepoint_fails_all_of_its_own_are_deleted() {
    run(async {
        for fault in [Fault::Fails, Fault::LosesReply, Fault::DiskFull] {
            for failing in ["a", "b", "c"] {
                let (store, theirs) = shared("a/theirs").await;
                store.on(Op::Put, &format!("{failing}/"), fault, 1);
                let error = make(&store, &["a", "b", "c"], Ok(())).await.unwrap_err();
                assert!(error.to_string().contains(&format!("cannot write {failing}/")), "{error}");
                assert_eq!(store.contents().await, theirs, "{fault:?} at {failing}");
            }
        }
        // What was to be read failed, or the user's function.
        let (store, theirs) = shared("a/theirs").await;
        let error = make(&store, &["a", "b"], Err(Error::corrupt("damaged"))).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Corrupt, "damaged"));
        assert_eq!(store.contents().await, theirs);
        // Somebody else's is there first.
        let (store, theirs) = shared("savepoint").await;
        let error = make(&store, &["a", "b"], Ok(())).await.unwrap_err();
        assert!(error.kind() == Kind::Config && error.to_string().contains("meanwhile"), "{error}");
        assert_eq!(store.contents().await, theirs);
    });
}

#[test]
fn files_that_cannot_be_deleted_change_nothing_about_the_error() {
    run(async {
        let store = Store::new();
        store.on(Op::Put, "c/", Fault::Fails, 1);
        store.on(Op::Delete, "", Fault::Fails, u32::MAX);
        let error = make(&store, &["a", "b", "c"], Ok(())).await.unwrap_err();
        assert!(error.kind() == Kind::Unavailable && error.to_string().contains("cannot write c/"), "{error}");
        assert_eq!(store.contents().await.len(), 2);
    });
}

#[test]
fn a_savepoint_that_may_be_there_stays_whole_and_that_is_told() {
    run(async {
        let store = Store::new();
        store.on(Op::Put, "saved/savepoint", Fault::LosesReply, 1);
        store.on(Op::Get, "saved/savepoint", Fault::Fails, 1);
        let error = make(&store, &["a", "b"], Ok(())).await.unwrap_err();
        assert!(error.kind() == Kind::Unavailable && error.to_string().contains("may be there"), "{error}");
        assert_eq!(store.contents().await.len(), 3);
    });
}

/// A folder in which no file can be made stops one of the two operators.
#[test]
fn a_place_where_a_savepoint_failed_is_free_for_the_next() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let spoilt = |name: &str| {
            let blocked = folder.path().join(name).join("per-window");
            fs::create_dir_all(blocked.parent().unwrap()).unwrap();
            symlink("nowhere", &blocked).unwrap();
            (at(name), blocked)
        };
        let p = pipeline("saved", settings(1));
        p.gate.open_to(COUNT / 2);
        let handle = p.job.start().unwrap();
        let (place, blocked) = spoilt("saved");
        let error = handle.savepoint(&place).await.unwrap_err();
        assert!(error.to_string().contains("per-window"), "{error}");
        assert_eq!(files(Path::new(&place)), 0);
        fs::remove_file(&blocked).unwrap();
        handle.savepoint(&place).await.unwrap();
        assert_eq!(files(Path::new(&place)), 3);

        let reader = Reader::open(&place).await.unwrap();
        let (place, blocked) = spoilt("changed");
        let same = |_: &str, entry: &tidegate::state::reader::Read| Some(entry.value.clone());
        let error = reader.write_changed(&place, same).await.unwrap_err();
        assert!(error.to_string().contains("per-window"), "{error}");
        assert_eq!(files(Path::new(&place)), 0);
        fs::remove_file(&blocked).unwrap();
        reader.write_changed(&place, same).await.unwrap();
        assert_eq!(files(Path::new(&place)), 3);
        p.gate.open();
        finished(handle).await;
    });
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let count = |entry: fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => files(&entry.path()),
        kind => usize::from(kind.is_file()),
    };
    entries.map(count).sum()
}
