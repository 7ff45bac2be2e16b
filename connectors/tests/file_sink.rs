//! The file sink at its edges: what it refuses (another run's output, another's file, a lost part, a
//! directory that cannot be written, a record that is no row) and how parts are cut. The hard case is a part
//! that is too large for one put: while it is uploaded in pieces, nothing of it can be seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, future::poll_fn, sync::Arc};
use tidegate_checkpoint::{
    commit::{CommitPermit, CommitRecord},
    ids::{Attempt, Epoch, Subtask},
};
use tidegate_connectors::FileSink;
use tidegate_core::{
    Kind, Result,
    connect::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext},
    testkit::{
        sink,
        store::{Fault, FaultyStore},
    },
};

fn context(attempt: u64, restored: Option<u64>) -> SinkContext {
    sink::context("rows", attempt, restored.map(Epoch))
}

fn permit(epoch: u64) -> CommitPermit {
    CommitPermit::forged(CommitRecord {
        epoch: Epoch(epoch),
        manifest: String::new(),
        lineage: String::new(),
        attempt: Attempt(1),
        transactional_ids: Vec::new(),
    })
}

const SUBTASK: WriterContext = WriterContext { subtask: Subtask(3), parallelism: 4 };

/// Writes records as subtask 3 in epoch 7, and stages them.
async fn stage<T: Clone, S: Sink<T>>(sink: &S, records: &[T]) -> Result<(S::Open, Vec<Value>)> {
    let open = sink.recover(context(1, None), Vec::new()).await?;
    let mut writer = open.writer(SUBTASK)?;
    for record in records {
        writer.write(record.clone(), 0)?;
        poll_fn(|cx| writer.poll_ready(cx)).await?;
    }
    let committables = writer.barrier(Epoch(7)).await?;
    Ok((open, committables))
}

async fn files(store: &dyn ObjectStore) -> BTreeMap<String, Vec<u8>> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut files = BTreeMap::new();
    for object in listed {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        files.insert(object.location.to_string(), bytes.to_vec());
    }
    files
}

#[derive(Clone, Serialize)]
struct Row {
    id: u32,
    text: String,
}

fn rows(count: u32, text: &str) -> Vec<Row> {
    (0..count).map(|id| Row { id, text: text.into() }).collect()
}

#[tokio::test]
async fn committables_are_a_format_and_parts_are_named_by_epoch_subtask_and_number() {
    let store = Arc::new(InMemory::new());
    let sink = FileSink::csv_in(store.clone(), "out").roll_bytes(20);
    let (open, committables) = stage(&sink, &rows(3, "wörld, \"\n")).await.unwrap();
    let whole = "id,text\n0,\"wörld, \"\"\n\"\n";
    assert_eq!(
        committables[0],
        json!({
            "staged": "out/.staging/job.rows/000001/0003-00000001.csv",
            "part": "part-00000007-0003-0000.csv",
            "bytes": whole.len(),
            "crc32": crc32fast::hash(whole.as_bytes()),
        })
    );
    OpenSink::<Row>::commit(&open, &permit(7), committables).await.unwrap();
    let files = files(store.as_ref()).await;
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    let part = |n: u32| format!("out/part-00000007-0003-{n:04}.csv");
    assert_eq!(names, [part(0), part(1), part(2)]);
    assert_eq!(files[&part(0)], whole.as_bytes());
}

#[tokio::test]
async fn json_lines_are_one_value_a_line() {
    let store = Arc::new(InMemory::new());
    let (open, committables) = stage(&FileSink::json_lines_in(store.clone(), "out"), &rows(2, "a\nb")).await.unwrap();
    OpenSink::<Row>::commit(&open, &permit(7), committables).await.unwrap();
    let expected = "{\"id\":0,\"text\":\"a\\nb\"}\n{\"id\":1,\"text\":\"a\\nb\"}\n";
    assert_eq!(files(store.as_ref()).await["out/part-00000007-0003-0000.jsonl"], expected.as_bytes());
}

#[tokio::test]
async fn an_epoch_without_records_has_no_part() {
    let (_, committables) = stage(&FileSink::csv_in(Arc::new(InMemory::new()), "out"), &rows(0, "")).await.unwrap();
    assert_eq!(committables, [Value::Null; 0]);
}

#[tokio::test]
async fn a_large_part_is_uploaded_in_pieces_and_seen_only_when_it_is_published() {
    let store = Arc::new(InMemory::new());
    let sink = FileSink::json_lines_in(store.clone(), "out");
    let open = Sink::<Row>::recover(&sink, context(1, None), Vec::new()).await.unwrap();
    let mut writer = OpenSink::<Row>::writer(&open, SUBTASK).unwrap();
    let mut expected = Vec::new();
    for row in rows(20_000, &"x".repeat(1000)) {
        serde_json::to_writer(&mut expected, &row).unwrap();
        expected.push(b'\n');
        writer.write(row, 0).unwrap();
        poll_fn(|cx| SinkWriter::<Row>::poll_ready(&mut writer, cx)).await.unwrap();
    }
    assert_eq!(files(store.as_ref()).await, BTreeMap::new(), "pieces are not objects");
    let committables = SinkWriter::<Row>::barrier(&mut writer, Epoch(7)).await.unwrap();
    assert!(files(store.as_ref()).await.keys().all(|n| n.starts_with("out/.staging/")));
    OpenSink::<Row>::commit(&open, &permit(7), committables).await.unwrap();
    let files = files(store.as_ref()).await;
    assert_eq!(files.keys().collect::<Vec<_>>(), ["out/part-00000007-0003-0000.jsonl"]);
    assert!(files["out/part-00000007-0003-0000.jsonl"] == expected, "20 MB have come through");
    assert_eq!(SinkWriter::<Row>::bytes(&writer), expected.len() as u64);
}

#[tokio::test]
async fn a_failing_upload_of_pieces_fails_the_epoch_at_every_call() {
    // Probe (put, delete), begin, three pieces, complete.
    let mut failed = 0;
    for spared in 0..7 {
        for fault in [Fault::Refused, Fault::ReplyLost] {
            let store = FaultyStore::new(Arc::new(InMemory::new()));
            store.fail_after(spared, fault);
            let sink = FileSink::json_lines_in(Arc::new(store.clone()), "out");
            let staged = stage(&sink, &rows(20, &"x".repeat(1 << 20))).await;
            let e = staged.err().unwrap_or_else(|| panic!("call {spared} failed unnoticed"));
            assert!(matches!(e.kind(), Kind::Unavailable | Kind::Config), "{e}");
            failed += usize::from(!files(store.inner().as_ref()).await.keys().any(|n| n.starts_with("out/part-")));
        }
    }
    assert_eq!(failed, 14, "nothing is ever visible");
}

/// What is written after it would only pile up in memory.
#[tokio::test]
async fn an_upload_that_has_failed_is_told_before_the_part_is_full() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    // The probe (put, delete) works, the upload does not even begin.
    store.fail_after(2, Fault::Refused);
    let sink = FileSink::json_lines_in(Arc::new(store), "out");
    let open = Sink::<Row>::recover(&sink, context(1, None), Vec::new()).await.unwrap();
    let mut writer = OpenSink::<Row>::writer(&open, SUBTASK).unwrap();
    let mut told = None;
    for row in rows(60, &"x".repeat(1 << 20)) {
        writer.write(row, 0).unwrap();
        if let Err(e) = poll_fn(|cx| SinkWriter::<Row>::poll_ready(&mut writer, cx)).await {
            told = Some(e);
            break;
        }
    }
    let error = told.expect("60 MB are waiting for nothing").to_string();
    assert!(error.contains("this call was made to fail"), "{error}");
}

#[tokio::test]
async fn a_run_that_begins_with_nothing_does_not_add_to_the_output_of_another() {
    let store = Arc::new(InMemory::new());
    store.put(&Path::from("out/part-00000001-0000-0000.csv"), "id\n1\n".into()).await.unwrap();
    store.put(&Path::from("out/notes.txt"), "mine".into()).await.unwrap();
    let e = stage(&FileSink::csv_in(store.clone(), "out"), &rows(1, "")).await.err().unwrap();
    assert_eq!(e.kind(), Kind::Config);
    assert!(e.message().contains("out/part-00000001-0000-0000.csv") && e.hint_text().is_some(), "{e}");
    let other = stage(&FileSink::csv_in(store.clone(), "elsewhere"), &rows(1, "")).await;
    assert!(other.is_ok(), "another directory is free");
}

#[tokio::test]
async fn a_file_of_the_same_name_that_is_not_ours_is_noticed_and_left_alone() {
    let store = Arc::new(InMemory::new());
    let (open, committables) = stage(&FileSink::csv_in(store.clone(), "out"), &rows(1, "")).await.unwrap();
    let theirs = Path::from("out/part-00000007-0003-0000.csv");
    store.put(&theirs, "theirs".into()).await.unwrap();
    let e = OpenSink::<Row>::commit(&open, &permit(7), committables).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Config);
    assert!(e.message().contains(theirs.as_ref()) && e.hint_text().is_some(), "{e}");
    let files = files(store.as_ref()).await;
    assert_eq!(files[theirs.as_ref()], b"theirs");
    assert_eq!(files.len(), 2, "and what was staged is still there");
}

#[tokio::test]
async fn a_committed_part_that_is_nowhere_is_an_error_that_names_it() {
    let store = Arc::new(InMemory::new());
    let sink = FileSink::csv_in(store.clone(), "out");
    let (_, committables) = stage(&sink, &rows(1, "")).await.unwrap();
    store.delete(&Path::from(committables[0]["staged"].as_str().unwrap())).await.unwrap();
    for (restored, named) in [(committables, "part-00000007-0003-0000.csv"), (vec![json!({ "part": 7 })], "7")] {
        let e = Sink::<Row>::recover(&sink, context(2, Some(7)), restored).await.err().unwrap();
        assert_eq!(e.kind(), Kind::Corrupt);
        assert!(e.message().contains(named), "{e}");
    }
}

#[tokio::test]
async fn recovery_sweeps_its_own_sinks_leftovers_and_nobody_elses() {
    let store = Arc::new(InMemory::new());
    for name in ["out/.staging/job.rows/000001/a.csv", "out/.staging/job.others/000001/a.csv", "out/kept.txt"] {
        store.put(&Path::from(name), "x".into()).await.unwrap();
    }
    Sink::<Row>::recover(&FileSink::csv_in(store.clone(), "out"), context(2, None), Vec::new()).await.unwrap();
    let files = files(store.as_ref()).await;
    assert_eq!(files.keys().collect::<Vec<_>>(), ["out/.staging/job.others/000001/a.csv", "out/kept.txt"]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_refused_before_anything_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for url in [file.to_str().unwrap(), file.join("below").to_str().unwrap(), "ftp://host/dir", ""] {
        let e = Sink::<Row>::recover(&FileSink::csv(url), context(1, None), Vec::new()).await.err().unwrap();
        assert_eq!(e.kind(), Kind::Config, "{url}: {e}");
        assert!(e.hint_text().is_some(), "{url}: {e}");
    }
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    store.die_after(0, Fault::Refused);
    let full = FileSink::csv_in(Arc::new(store), "out");
    let e = Sink::<Row>::recover(&full, context(1, None), Vec::new()).await.err().unwrap();
    assert!(e.message().contains("sink rows") && e.hint_text().is_some(), "{e}");
    assert_eq!(e.kind(), Kind::Unavailable, "a store that is away for a moment must not end the job: {e}");
}

/// It was slow to recover; the one that has replaced it is staging already.
#[tokio::test]
async fn an_older_attempt_that_recovers_late_leaves_alone_what_its_successor_has_staged() {
    let sink = FileSink::csv_in(Arc::new(InMemory::new()), "out");
    let newer = Sink::<Row>::recover(&sink, context(2, None), Vec::new()).await.unwrap();
    let mut writer = OpenSink::<Row>::writer(&newer, SUBTASK).unwrap();
    writer.write(rows(1, "staged").remove(0), 0).unwrap();
    let staged = SinkWriter::<Row>::barrier(&mut writer, Epoch(1)).await.unwrap();
    Sink::<Row>::recover(&sink, context(1, None), Vec::new()).await.unwrap();
    Sink::<Row>::recover(&sink, context(3, Some(1)), staged).await.expect("it has been swept");
}

#[tokio::test]
async fn a_record_that_is_no_row_is_the_users_error() {
    #[derive(Clone, Serialize)]
    struct Nested {
        tags: BTreeMap<String, u32>,
    }
    let nested = Nested { tags: [("a".to_owned(), 1)].into() };
    let e = stage(&FileSink::csv_in(Arc::new(InMemory::new()), "out"), &[nested]).await.err().unwrap();
    assert_eq!(e.kind(), Kind::User, "{e}");
    let keys = BTreeMap::from([((1, 2), 3)]);
    let e = stage(&FileSink::json_lines_in(Arc::new(InMemory::new()), "out"), &[keys]).await.err().unwrap();
    assert_eq!(e.kind(), Kind::User, "{e}");
}
