//! State that moves: from one backend to another by configuration alone, and through savepoints to wherever one likes.
//!
//! The hard case is the job that goes on after its savepoint was made. So each test has two: the one that goes on, and
//! the one that starts from what was saved; both must be exact.
use crate::{
    kit::{assert_same, end, finished, run, settings},
    pipeline::{COUNT, Pipeline, expected, pipeline},
    store::{Fault, Op, Store},
};
use std::{fs, path::Path};
use tidegate::{ByteSize, Codec, Kind, Settings, state::reader::Reader};

/// Backends, and how much their tables hold.
const BACKENDS: [(&str, u64); 4] = [("memory", 0), ("entries", 0), ("entries", 3_000), ("entries", 1_000_000)];

fn over(backend: (&str, u64), codec: Codec, parallelism: u32) -> Settings {
    let mut settings = settings(parallelism);
    (settings.state.backend, settings.state.cache, settings.state.codec) =
        (backend.0.into(), ByteSize(backend.1), codec);
    settings
}

fn job(name: &str, store: &Store, settings: Settings) -> Pipeline {
    let mut p = pipeline(name, settings);
    p.job.checkpoint_store(store.checkpoints(name));
    p
}

type Published = Vec<(u64, u64, u64)>;

#[track_caller]
fn assert_exact(totals: impl IntoIterator<Item = Published>, windows: impl IntoIterator<Item = Vec<(u64, i64, u64)>>) {
    let (expected_totals, expected_windows) = expected();
    assert_same(totals.into_iter().flatten().collect::<Vec<_>>(), expected_totals);
    assert_same(windows.into_iter().flatten().collect::<Vec<_>>(), expected_windows);
}

#[test]
fn a_job_goes_from_any_backend_to_any_other_by_configuration() {
    run(async {
        for codec in [Codec::Named, Codec::Compact] {
            for from in BACKENDS {
                let store = Store::new();
                let p = job("moved", &store, over(from, codec, 2));
                let handle = p.job.start().unwrap();
                for part in 1..=3 {
                    p.gate.open_to(COUNT / 6 * part);
                    handle.checkpoint_now().await.unwrap();
                }
                handle.cancel().await.unwrap();
                let (totals, windows) = (p.totals.take(), p.windows.take());
                let contents = store.contents().await;
                for to in BACKENDS {
                    let store = Store::with(&contents).await;
                    let p = job("moved", &store, over(to, codec, 3));
                    p.gate.open_to(COUNT / 3 * 2);
                    let handle = p.job.start().unwrap();
                    handle.checkpoint_now().await.unwrap();
                    handle.cancel().await.unwrap();
                    // And back, from a checkpoint of the other one's own making.
                    let back = job("moved", &store, over(from, codec, 1));
                    back.gate.open();
                    finished(back.job.start().unwrap()).await;
                    assert_exact(
                        [totals.clone(), p.totals.take(), back.totals.take()],
                        [windows.clone(), p.windows.take(), back.windows.take()],
                    );
                }
            }
        }
    });
}

#[test]
fn a_savepoint_is_started_from_while_the_job_that_it_is_of_goes_on() {
    run(async {
        for (from, to) in [(BACKENDS[0], BACKENDS[1]), (BACKENDS[2], BACKENDS[0])] {
            let (folder, store) = (tempfile::tempdir().unwrap(), Store::new());
            let place = folder.path().join("saved").display().to_string();
            let p = job("saved", &store, over(from, Codec::Named, 2));
            p.gate.open_to(COUNT / 2);
            let handle = p.job.start().unwrap();
            let epoch = handle.savepoint(&place).await.unwrap();
            let (totals, windows) = (p.totals.take(), p.windows.take());
            p.gate.open_to(COUNT / 3 * 2);
            handle.checkpoint_now().await.unwrap();
            p.gate.open();
            finished(handle).await;
            assert_exact([totals.clone(), p.totals.take()], [windows.clone(), p.windows.take()]);

            // Another job, in another store; restarted half-way, it goes on from its own checkpoint.
            let store = Store::new();
            let mut settings = over(to, Codec::Named, 3);
            settings.checkpoint.savepoint = place.as_str().into();
            let p = job("fork", &store, settings.clone());
            p.gate.open_to(COUNT / 4 * 3);
            let handle = p.job.start().unwrap();
            assert!(handle.checkpoint_now().await.unwrap() > epoch);
            handle.cancel().await.unwrap();
            let rest = job("fork", &store, settings);
            rest.gate.open();
            assert!(finished(rest.job.start().unwrap()).await.restored > Some(epoch));
            assert_exact(
                [totals, p.totals.take(), rest.totals.take()],
                [windows, p.windows.take(), rest.windows.take()],
            );
        }
    });
}

/// Its first checkpoint is prepared and not committed: the next attempt starts from the savepoint again.
#[test]
fn a_job_that_has_committed_nothing_yet_starts_from_its_savepoint_again() {
    run(async {
        let (folder, store) = (tempfile::tempdir().unwrap(), Store::new());
        let place = folder.path().join("saved").display().to_string();
        let p = job("saved", &store, over(BACKENDS[0], Codec::Named, 2));
        p.gate.open_to(COUNT / 2);
        let handle = p.job.start().unwrap();
        handle.savepoint(&place).await.unwrap();
        let (totals, windows) = (p.totals.take(), p.windows.take());
        handle.cancel().await.unwrap();

        let store = Store::new();
        let mut settings = over(BACKENDS[1], Codec::Named, 2);
        settings.checkpoint.savepoint = place.as_str().into();
        // What was written, and what the attempt says of it, is lost.
        store.on(Op::Put, "commits", Fault::Fails, 2);
        let p = job("fork", &store, settings);
        p.gate.open();
        let ended = finished(p.job.start().unwrap()).await;
        assert!(ended.restarts > 0, "{ended:?}");
        assert_exact([totals, p.totals.take()], [windows, p.windows.take()]);
    });
}

#[test]
fn a_savepoint_is_read_and_changed_without_the_jobs_types() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let store = Store::new();
        let p = job("read", &store, over(BACKENDS[0], Codec::Named, 2));
        p.gate.open_to(COUNT / 2);
        let handle = p.job.start().unwrap();
        handle.checkpoint_now().await.unwrap();
        handle.stop_with_savepoint(&at("saved")).await.unwrap();
        let totals = p.totals.take();

        let reader = Reader::open(&at("saved")).await.unwrap();
        assert_eq!(reader.job().0, "read");
        assert_eq!(reader.positions().len(), 1);
        let (operator, count) = reader.operators().find(|(_, count)| *count > 0).unwrap();
        let mut found = Vec::new();
        let every = |entry| {
            found.push(entry);
            true
        };
        reader.each(operator, every).await.unwrap();
        assert!(!found.is_empty() && found.len() as u64 <= count && !totals.is_empty());
        assert!(found.iter().all(|entry| entry.key.is_u64()), "{found:?}");

        // Without every other entry.
        let mut kept = 0;
        let even = |_: &str, entry: &tidegate::state::reader::Read| {
            kept += u64::from(entry.key.as_u64().unwrap().is_multiple_of(2));
            (entry.key.as_u64().unwrap().is_multiple_of(2)).then(|| entry.value.clone())
        };
        reader.write_changed(&at("halved"), even).await.unwrap();
        let reader = Reader::open(&at("halved")).await.unwrap();
        let mut left = 0;
        for (operator, _) in reader.operators() {
            let count = |entry: tidegate::state::reader::Read| {
                left += 1;
                entry.key.as_u64().unwrap().is_multiple_of(2)
            };
            reader.each(operator, count).await.unwrap();
        }
        assert_eq!(left, kept);
        let error = reader.each("no-such", |_| true).await.unwrap_err();
        assert!(error.kind() == Kind::Config && error.to_string().contains(operator), "{error}");
    });
}

#[test]
fn what_is_wrong_with_a_savepoint_is_told() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let store = Store::new();
        let p = job("told", &store, over(BACKENDS[0], Codec::Named, 1));
        p.gate.open_to(COUNT / 2);
        let handle = p.job.start().unwrap();
        handle.savepoint(&at("saved")).await.unwrap();
        let error = handle.savepoint(&at("saved")).await.unwrap_err();
        assert!(error.kind() == Kind::Config && error.to_string().contains("already"), "{error}");
        handle.cancel().await.unwrap();

        let start = async |place: &str| {
            let mut settings = over(BACKENDS[0], Codec::Named, 1);
            settings.checkpoint.savepoint = place.into();
            let p = job("fresh", &Store::new(), settings);
            p.gate.open();
            end(p.job.start().unwrap()).await.0
        };
        start(&at("saved")).await.unwrap();
        // Whoever reads makes nothing, neither where there is nothing nor where there is something else.
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("file"), "x").unwrap();
        for name in ["nowhere", "no/where", "file://nowhere", "empty", "file", "file/below"] {
            let place = match name.strip_prefix("file://") {
                Some(name) => format!("file://{}", at(name)),
                None => at(name),
            };
            let error = start(&place).await.unwrap_err();
            assert!(error.kind() == Kind::Config && error.to_string().contains("checkpoint.savepoint"), "{error}");
            let read = Reader::open(&place).await.unwrap_err();
            for error in [error, read] {
                assert!(error.to_string().contains(&format!("there is no savepoint at {place}")), "{error}");
                assert!(error.kind() == Kind::Config && error.hint_text().is_some(), "{error}");
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "something was made");
        assert_eq!(fs::read_dir(at("empty")).unwrap().count(), 0);

        // Of every file one bit: the first, one in the middle, the last.
        for file in walk(Path::new(&at("saved"))) {
            let whole = fs::read(&file).unwrap();
            for bit in [0, whole.len() * 4, whole.len() * 8 - 1] {
                let mut bad = whole.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, bad).unwrap();
                let error = start(&at("saved")).await.unwrap_err();
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                assert_eq!(error.kind(), Kind::Corrupt, "{name}, bit {bit}: {error}");
                assert!(error.to_string().contains(&name), "{error}");
            }
            fs::write(&file, &whole).unwrap();
        }
        let main = Path::new(&at("saved")).join("savepoint");
        let text = String::from_utf8_lossy(&fs::read(&main).unwrap()).replacen(" v1 ", " v9 ", 1);
        fs::write(&main, text).unwrap();
        let error = start(&at("saved")).await.unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.to_string().contains("newer"), "{error}");
    });
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
