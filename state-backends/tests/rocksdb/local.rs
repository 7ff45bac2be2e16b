//! What is on the local disk already is not fetched again; and nothing of it is believed.
//!
//! That a file is not fetched is shown by its object, which is not there any more; that it is, by the error.
use crate::kit::{Kit, write, wrong};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tidegate_checkpoint::{error::Kind, ids::Epoch, manifest::StateHandle};
use tidegate_core::testkit::block_on;

const KEYS: u64 = 20_000;

impl Kit {
    /// Takes the objects of all files of data away.
    async fn take_data(&self, handles: &[StateHandle]) {
        let objects = handles.iter().flat_map(|handle| &handle.objects).filter(|o| o.path.contains(".sst-"));
        for object in objects.collect::<std::collections::BTreeSet<_>>() {
            self.store.delete(&object.path).await.unwrap();
        }
    }

    /// What a kill at this moment would leave of a subtask's database, to be found when the run has ended.
    pub fn left_by_a_kill(&self, subtask: u32) -> PathBuf {
        let label = format!("tidegate-rocksdb-job-operator-{subtask}-");
        let is_it = |path: &PathBuf| path.is_dir() && path.file_name().unwrap().to_string_lossy().starts_with(&label);
        let live = self.left().into_iter().rfind(is_it).unwrap();
        let dead = as_dead(&live, self.left().len());
        copy(&live, &dead);
        fs::write(dead.with_extension("lock"), "").unwrap();
        dead
    }
}

/// The name of another directory of the same label.
pub fn as_dead(live: &Path, number: usize) -> PathBuf {
    let (label, _) = live.to_str().unwrap().rsplit_once('-').unwrap();
    format!("{label}-0123456789abc{number:03x}").into()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else if let Err(e) = fs::copy(entry.path(), &to) {
            // The database lives, and may just have given it up.
            assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{e}");
        }
    }
}

/// Files of data in a directory.
fn data(directory: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|e| e.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).collect()
}

/// A state of two snapshots, the directory of the killed process, and the handle.
async fn killed(kit: &Kit) -> (PathBuf, StateHandle) {
    let mut backend = kit.open(1, (0, 1), &[]).await.unwrap();
    write(backend.as_mut(), 0..KEYS, 1).await;
    backend.seal(Epoch(1)).await.unwrap();
    write(backend.as_mut(), 0..100, 2).await;
    let handle = backend.seal(Epoch(2)).await.unwrap();
    let dead = kit.left_by_a_kill(0);
    drop(backend);
    kit.ended();
    // The directory, and its lock.
    kit.leaves(2).await;
    (dead, handle)
}

#[test]
fn what_a_killed_process_has_left_is_not_fetched_again() {
    block_on(async {
        let kit = Kit::new();
        let (dead, handle) = killed(&kit).await;
        kit.take_data(std::slice::from_ref(&handle)).await;
        // Also by an attempt that comes behind one that did not get to a snapshot.
        for attempt in 2..4 {
            let mut backend = kit.open(attempt, (0, 1), std::slice::from_ref(&handle)).await.unwrap();
            assert_eq!(wrong(backend.as_mut(), 0..100, 2).await + wrong(backend.as_mut(), 100..KEYS, 1).await, 0);
            assert!(dead.exists());
        }
        let mut backend = kit.open(4, (0, 1), std::slice::from_ref(&handle)).await.unwrap();
        write(backend.as_mut(), 100..200, 2).await;
        let next = backend.seal(Epoch(3)).await.unwrap();
        let old = next.objects.iter().filter(|object| handle.objects.contains(object));
        assert!(old.count() > 0, "what has been linked is stored already: {:?}", next.objects);
        kit.leaves(2).await;
        assert!(!dead.exists());
        drop(backend);
        let mut backend = kit.open(5, (0, 1), &[next]).await.unwrap();
        assert_eq!(wrong(backend.as_mut(), 0..200, 2).await + wrong(backend.as_mut(), 200..KEYS, 1).await, 0);
        drop(backend);
        kit.ended();
        kit.leaves(0).await;
    });
}

/// The database goes on, and makes one file of many: those of the last snapshot are there all the same.
#[test]
fn the_next_attempt_of_the_process_finds_the_last_snapshot_whole() {
    block_on(async {
        let mut kit = Kit::new();
        kit.settings.rocksdb.memory = tidegate_core::ByteSize::mb(16);
        let mut backend = kit.open(1, (0, 1), &[]).await.unwrap();
        let mut handle = None;
        for epoch in 1..12 {
            write(backend.as_mut(), 0..KEYS, epoch).await;
            handle = Some(backend.seal(Epoch(epoch)).await.unwrap());
        }
        let handle = handle.unwrap();
        write(backend.as_mut(), 0..KEYS * 4, 100).await;
        kit.take_data(std::slice::from_ref(&handle)).await;
        // While it is still open, and when it is not.
        for attempt in 2..4 {
            let mut next = kit.open(attempt, (0, 1), std::slice::from_ref(&handle)).await.unwrap();
            assert_eq!(wrong(next.as_mut(), 0..KEYS, 11).await, 0);
            write(backend.as_mut(), 0..KEYS, 101).await;
            assert_eq!(wrong(next.as_mut(), 0..KEYS, 11).await, 0);
        }
        drop(backend);
        let mut next = kit.open(4, (0, 1), std::slice::from_ref(&handle)).await.unwrap();
        assert_eq!(wrong(next.as_mut(), 0..KEYS, 11).await, 0);
    });
}

#[test]
fn what_is_not_what_the_handle_says_is_fetched() {
    fn flip(path: &Path) {
        let mut content = fs::read(path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(path, content).unwrap();
    }
    fn resize(path: &Path, by: i64) {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len().checked_add_signed(by).unwrap()).unwrap();
    }
    let spoilt: [(&str, fn(&Path)); 5] = [
        ("a byte is another", flip),
        ("the last byte is not there", |path| resize(path, -1)),
        ("there is a byte more", |path| resize(path, 1)),
        ("nothing has been written yet", |path| fs::write(path, "").unwrap()),
        ("it is not there", |path| fs::remove_file(path).unwrap()),
    ];
    block_on(async {
        for (what, spoil) in spoilt {
            let kit = Kit::new();
            let (dead, handle) = killed(&kit).await;
            let files = data(&dead);
            assert!(files.len() > 1, "{files:?}");
            for path in &files {
                spoil(path);
            }
            let spoilt: Vec<_> = files.iter().map(|path| fs::read(path).ok()).collect();
            let mut backend = kit.open(2, (0, 1), std::slice::from_ref(&handle)).await.unwrap();
            let differ = wrong(backend.as_mut(), 0..100, 2).await + wrong(backend.as_mut(), 100..KEYS, 1).await;
            assert_eq!(differ, 0, "{what}");
            let after: Vec<_> = files.iter().map(|path| fs::read(path).ok()).collect();
            assert!(after == spoilt, "{what}: what was fetched was written into the old file");
            drop(backend);
            kit.take_data(std::slice::from_ref(&handle)).await;
            let error = kit.open(3, (0, 1), &[handle]).await.err().expect(what);
            assert_eq!(error.kind(), Kind::Corrupt, "{what}: {error}");
        }
    });
}

/// Two attempts go on from one checkpoint, and give the same number to different files.
#[test]
fn a_file_of_another_lineage_under_the_same_number_is_no_match() {
    block_on(async {
        let kit = Kit::new();
        let mut backend = kit.open(1, (0, 1), &[]).await.unwrap();
        write(backend.as_mut(), 0..KEYS, 1).await;
        let first = backend.seal(Epoch(1)).await.unwrap();
        drop(backend);
        let mut forks = Vec::new();
        for round in 2..4 {
            let mut backend = kit.open(round, (0, 1), std::slice::from_ref(&first)).await.unwrap();
            write(backend.as_mut(), 0..1_000, round).await;
            forks.push(backend.seal(Epoch(round)).await.unwrap());
            if round == 3 {
                // That of the attempt before is deleted beside everything else.
                kit.leaves(2).await;
                kit.left_by_a_kill(0);
            }
        }
        kit.ended();
        let files = |handle: &StateHandle| handle.data["files"].as_object().unwrap().clone();
        let (one, other) = (files(&forks[0]), files(&forks[1]));
        let same =
            one.iter().filter(|(name, pieces)| name.ends_with(".sst") && other.get(*name) == Some(pieces)).count();
        let differ = one.iter().filter(|(name, pieces)| other.get(*name).is_some_and(|found| found != *pieces)).count();
        assert!(same > 0 && differ > 1, "{one:?} {other:?}");
        let mut backend = kit.open(4, (0, 1), std::slice::from_ref(&forks[0])).await.unwrap();
        assert_eq!(wrong(backend.as_mut(), 0..1_000, 2).await + wrong(backend.as_mut(), 1_000..KEYS, 1).await, 0);
        drop(backend);
        // What both go on from is there.
        kit.take_data(std::slice::from_ref(&first)).await;
        let mut backend = kit.open(5, (0, 1), std::slice::from_ref(&forks[0])).await.unwrap();
        assert_eq!(wrong(backend.as_mut(), 0..1_000, 2).await + wrong(backend.as_mut(), 1_000..KEYS, 1).await, 0);
    });
}

#[test]
fn other_subtasks_than_had_the_files_find_them() {
    block_on(async {
        let kit = Kit::new();
        let (_, handle) = killed(&kit).await;
        let (mut handles, mut attempt) = (vec![handle], 1);
        for parallelism in [3, 2, 1] {
            kit.take_data(&handles).await;
            attempt += 1;
            let mut parts = Vec::new();
            for subtask in 0..parallelism {
                parts.push(kit.open(attempt, (subtask, parallelism), &handles).await.unwrap());
            }
            let mut sealed = Vec::new();
            let mut found = 0;
            for part in &mut parts {
                found += KEYS - 100 - wrong(part.as_mut(), 100..KEYS, 1).await as u64;
                sealed.push(part.seal(Epoch(attempt + 1)).await.unwrap());
            }
            assert_eq!(found, KEYS - 100, "by {parallelism} subtasks");
            handles = sealed;
            // The next process.
            (0..parallelism).for_each(|subtask| drop(kit.left_by_a_kill(subtask)));
            drop(parts);
            kit.ended();
            kit.leaves(2 * parallelism as usize).await;
        }
    });
}

#[test]
fn what_others_can_write_to_is_not_used() {
    block_on(async {
        let kit = Kit::new();
        let (dead, handle) = killed(&kit).await;
        kit.take_data(std::slice::from_ref(&handle)).await;
        fs::set_permissions(&dead, std::os::unix::fs::PermissionsExt::from_mode(0o770)).unwrap();
        assert_eq!(kit.open(2, (0, 1), &[handle]).await.err().unwrap().kind(), Kind::Corrupt);
        assert!(dead.exists());
    });
}
