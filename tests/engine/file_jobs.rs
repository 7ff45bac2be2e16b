//! What only a job shows of files: the policies for records that cannot be decoded, and a watched
//! directory. The hard case is a file that appears while the job is stopped, and one that appears while it
//! runs: each is read exactly once, whoever finds it.
use crate::{
    kit::{Gated, assert_same, finished, run, settings, until},
    store::{Fault, Op, Store},
};
use object_store::memory::InMemory;
use serde::Deserialize;
use std::{fs, path::Path, sync::Arc, time::Duration};
use tempfile::tempdir;
use tidegate_checkpoint::{ids::JobId, store::CheckpointStore};
use tidegate_connectors::{Collect, FileSink, FileSource};
use tidegate_core::{
    Job, JobHandle, JobState, Kind, Settings, Stream, Undecodable, Watermarks,
    env::{now, sleep},
};

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Row {
    id: u32,
}

fn job(store: &CheckpointStore) -> Job {
    let mut settings = Settings::default();
    settings.checkpoint.interval = Duration::from_millis(20);
    settings.checkpoint.min_pause = Duration::from_millis(1);
    settings.restart.max_restarts = 0;
    (settings.report.checkpoints, settings.report.progress, settings.report.summary) = (false, false, false);
    let mut job = Job::with_backends("job", settings, tidegate_state::all());
    job.checkpoint_store(store.clone());
    job
}

fn store() -> CheckpointStore {
    CheckpointStore::new(Arc::new(InMemory::new()), "", JobId::new("job").unwrap())
}

fn write(directory: &Path, name: &str, content: &str) {
    let hidden = directory.join(format!(".{name}"));
    fs::write(&hidden, content).unwrap();
    fs::rename(hidden, directory.join(name)).unwrap();
}

const ROWS: &str = "id\n1\nx\n3\n4,4\n5\n";

#[tokio::test]
async fn an_undecodable_record_fails_the_job_and_says_where_it_is() {
    let directory = tempdir().unwrap();
    write(directory.path(), "a.csv", ROWS);
    let job = job(&store());
    job.source("in", FileSource::csv::<Row>(directory.path())).sink("out", Collect::new());
    let e = job.run().await.unwrap_err();
    assert_eq!(e.kind(), Kind::Data);
    let text = e.to_string();
    assert!(text.contains("line 3 of a.csv") && text.contains("\"x\"") && text.contains("skip_undecodable"), "{text}");
}

#[tokio::test]
async fn undecodable_records_can_be_skipped_and_are_counted() {
    let directory = tempdir().unwrap();
    write(directory.path(), "a.csv", ROWS);
    let (job, rows) = (job(&store()), Collect::new());
    let source = job.source("in", FileSource::csv::<Row>(directory.path())).skip_undecodable();
    source.map(|r| r.id).sink("out", rows.clone());
    let handle = job.start().unwrap();
    let mut status = handle.watch();
    status.wait_for(|s| matches!(s.state, JobState::Finished | JobState::Failed)).await.unwrap();
    assert_eq!(handle.metrics().operators.iter().map(|o| o.skipped).sum::<u64>(), 2);
    handle.wait().await.unwrap();
    assert_eq!(rows.take(), [1, 3, 5]);
}

#[tokio::test]
async fn undecodable_records_can_go_to_a_dead_letter_sink() {
    let directory = tempdir().unwrap();
    write(directory.path(), "a.csv", ROWS);
    let (job, rows, dead) = (job(&store()), Collect::new(), Collect::<Undecodable>::new());
    let mut source = job.source("in", FileSource::csv::<Row>(directory.path()));
    source.dead_letters().sink("dead", dead.clone());
    source.map(|r| r.id).sink("out", rows.clone());
    job.run().await.unwrap();
    assert_eq!(rows.take(), [1, 3, 5]);
    let dead = dead.take();
    let places: Vec<_> = dead.iter().map(|d| (d.split.as_str(), d.place.as_str(), d.raw.as_str())).collect();
    assert_eq!(places, [("a.csv", "line 3", "x"), ("a.csv", "line 5", "4,4")]);
    assert!(dead[0].reason.contains("column 1") && dead[1].reason.contains("2 columns"), "{dead:?}");
}

fn watching(store: &CheckpointStore, directory: &Path, lines: &Collect<String>) -> JobHandle {
    let job = job(store);
    let source = FileSource::text(directory.join("*.txt")).watch(Duration::from_millis(10));
    job.source("in", source).sink("out", lines.clone());
    job.start().unwrap()
}

/// Waits until so many lines have come out.
async fn come(lines: &Collect<String>, seen: &mut Vec<String>, count: usize) {
    let deadline = now() + Duration::from_secs(60);
    while seen.len() < count {
        assert!(now() < deadline, "only {seen:?} have come");
        sleep(Duration::from_millis(2)).await;
        seen.append(&mut lines.take());
    }
}

#[tokio::test]
async fn a_watched_directory_gives_every_file_once_even_across_restarts() {
    let (directory, store, lines) = (tempdir().unwrap(), store(), Collect::new());
    let mut seen = Vec::new();
    write(directory.path(), "a.txt", "a1\na2\n");
    let handle = watching(&store, directory.path(), &lines);
    come(&lines, &mut seen, 2).await;
    write(directory.path(), "c.txt", "c1\n");
    come(&lines, &mut seen, 3).await;
    handle.stop().await.unwrap();

    // One comes while nobody looks, one that was read goes, and the job is ended without a last checkpoint.
    write(directory.path(), "b.txt", "b1\nb2\n");
    fs::remove_file(directory.path().join("a.txt")).unwrap();
    let handle = watching(&store, directory.path(), &lines);
    come(&lines, &mut seen, 5).await;
    handle.cancel().await.unwrap();

    write(directory.path(), "d.txt", "d1\n");
    let handle = watching(&store, directory.path(), &lines);
    come(&lines, &mut seen, 6).await;
    handle.stop().await.unwrap();
    seen.append(&mut lines.take());
    seen.sort();
    assert_eq!(seen, ["a1", "a2", "b1", "b2", "c1", "d1"]);
}

/// More files than the runtime has threads for blocking work, aligned in event time: those that are ahead
/// are not read on until the others have begun, and must not keep the threads that these need.
#[test]
fn files_that_wait_their_turn_keep_no_thread_from_the_others() {
    let directory = tempdir().unwrap();
    let (files, rows) = (4u64, 10_000u64);
    for file in 0..files {
        let lines: String = (0..rows).map(|row| format!("{}\n", row * files + file)).collect();
        write(directory.path(), &format!("{file}.txt"), &lines);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    let (job, lines) = (Job::with_backends("job", settings(1), tidegate_state::all()), Collect::new());
    job.source("in", FileSource::text(directory.path()))
        .event_time(
            |line| line.parse().unwrap_or_default(),
            Watermarks::monotonous().every(100).align(Duration::from_millis(4_000)),
        )
        .sink("out", lines.clone());
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), job.run()).await });
    runtime.shutdown_background();
    ended.expect("the job hangs").unwrap();
    assert_same(lines.take(), (0..files * rows).map(|n| n.to_string()));
}

/// S3 is such a store, unless it is told how.
#[test]
fn files_are_published_in_a_store_that_cannot_copy_only_if_there_is_nothing() {
    run(async {
        let (count, files) = (1_000, Store::new());
        files.on(Op::CopyIfAbsent, "", Fault::Unsupported, u32::MAX);
        let published = || async {
            let parts = files.contents().await.into_iter().filter(|(path, _)| path.starts_with("out/part-"));
            let text: Vec<_> = parts.map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect();
            text.iter().flat_map(|t| t.lines()).map(|line| line.parse().unwrap()).collect::<Vec<u64>>()
        };
        let job = Job::with_backends("job", settings(1), tidegate_state::all());
        let (source, gate) = Gated::new(count, 2);
        job.source("numbers", source).sink("out", FileSink::json_lines_in(files.objects(), "out"));
        let handle = job.start().unwrap();
        gate.open_to(count / 2);
        until(|| handle.metrics().operator("out").is_some_and(|o| o.records_in == count / 2)).await;
        handle.checkpoint_now().await.unwrap();
        assert_same(published().await, 0..count / 2);
        gate.open();
        finished(handle).await;
        assert!(files.hits() > 0);
        assert_same(published().await, 0..count);
        let left: Vec<_> = files.contents().await.into_keys().filter(|path| path.contains(".staging")).collect();
        assert!(left.is_empty(), "{left:?}");
    });
}
