//! The exactly-once promise of the file sink, against a model: whatever crashes, fails or is abandoned, and
//! wherever, readers see each committed record once and nothing else.
//!
//! The test plays the engine: it writes, stages, commits and publishes, keeps what a manifest would keep,
//! and after a crash begins a new attempt that reads again from the last committed record. After every step
//! it looks at the directory with a CSV reader of its own. The hard cases: a crash between moving one part
//! and the next, a lost reply of any call, a second crash in the recovery, and a dead attempt whose writer
//! goes on after its successor has recovered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, memory::InMemory, path::Path};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;
use std::{collections::BTreeSet, future::poll_fn, sync::Arc};
use tidegate_checkpoint::{
    commit::{CommitPermit, CommitRecord},
    ids::{Attempt, Epoch, Subtask},
};
use tidegate_connectors::files::{CsvEncoder, FileSink};
use tidegate_core::{
    Result,
    connect::{OpenSink, Sink, SinkWriter, WriterContext},
    testkit::{
        sink,
        store::{Fault, FaultyStore},
    },
};

const DIRECTORY: &str = "out/rows";
const SUBTASKS: u32 = 2;

#[derive(serde::Serialize)]
struct Row {
    id: u64,
    text: String,
}

#[derive(Clone, Debug)]
enum Step {
    /// Writes so many rows.
    Write(u64),
    /// Goes through a checkpoint, up to the point where something happens.
    Checkpoint(End),
    /// The call after so many more fails, once or for good.
    Fault { spared: u64, fault: Fault, lasting: bool },
    /// The process dies between two calls.
    Crash,
    /// The attempt is given up, but its writers live on; they stage once more after the next recovery.
    Zombie,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Published,
    PublishedTwice,
    Abandoned,
    DiedWhenStaged,
    DiedWhenCommitted,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end =
        select(vec![End::Published, End::PublishedTwice, End::Abandoned, End::DiedWhenStaged, End::DiedWhenCommitted]);
    let fault = (0u64..12, select(vec![Fault::Refused, Fault::ReplyLost]), any::<bool>());
    vec(
        prop_oneof![
            6 => (1u64..30).prop_map(Step::Write),
            6 => end.prop_map(Step::Checkpoint),
            3 => fault.prop_map(|(spared, fault, lasting)| Step::Fault { spared, fault, lasting }),
            1 => Just(Step::Crash),
            1 => Just(Step::Zombie),
        ],
        1..30,
    )
}

type Open = <FileSink<CsvEncoder> as Sink<Row>>::Open;
type Writer = <Open as OpenSink<Row>>::Writer;

struct Running {
    open: Open,
    writers: Vec<Writer>,
    /// Staged for epochs that were abandoned.
    carried: Vec<Value>,
    /// The next row to be written.
    next: u64,
}

struct World {
    store: FaultyStore,
    sink: FileSink<CsvEncoder>,
    epoch: u64,
    attempt: u64,
    /// Rows below this are committed; and what the last manifest says is to be published.
    committed: u64,
    committables: Vec<Value>,
    last: Option<Epoch>,
    running: Option<Running>,
    zombies: Vec<Writer>,
}

impl World {
    fn new(inner: Arc<dyn ObjectStore>) -> Self {
        let store = FaultyStore::new(inner);
        let sink = FileSink::csv_in(Arc::new(store.clone()), DIRECTORY).roll_bytes(120);
        Self {
            store,
            sink,
            epoch: 0,
            attempt: 0,
            committed: 0,
            committables: Vec::new(),
            last: None,
            running: None,
            zombies: Vec::new(),
        }
    }

    async fn step(&mut self, step: Step) {
        let outcome = match step {
            Step::Write(rows) => self.write(rows).await,
            Step::Checkpoint(end) => self.checkpoint(end).await,
            Step::Fault { spared, fault, lasting: true } => {
                self.store.die_after(spared, fault);
                Ok(())
            }
            Step::Fault { spared, fault, lasting: false } => {
                self.store.fail_after(spared, fault);
                Ok(())
            }
            Step::Crash => {
                self.running = None;
                Ok(())
            }
            Step::Zombie => {
                let running = self.running.take();
                self.zombies.extend(running.into_iter().flat_map(|r| r.writers));
                Ok(())
            }
        };
        if outcome.is_err() {
            self.running = None;
        }
        let visible = self.visible().await;
        // What is committed may still wait to be published, whole parts at a time; nothing else is there.
        assert!(visible.iter().all(|id| *id < self.committed), "uncommitted rows are visible: {visible:?}");
    }

    /// Recovers if nothing runs; a store that is down comes back after the first try.
    async fn running(&mut self) -> &mut Running {
        let mut healed = false;
        while self.running.is_none() {
            self.attempt += 1;
            let context = sink::context("rows", self.attempt, self.last);
            match Sink::<Row>::recover(&self.sink, context, self.committables.clone()).await {
                Ok(open) => {
                    let writer = |n| {
                        OpenSink::<Row>::writer(&open, WriterContext { subtask: Subtask(n), parallelism: SUBTASKS })
                    };
                    let writers = (0..SUBTASKS).map(|n| writer(n).unwrap()).collect();
                    self.running = Some(Running { open, writers, carried: Vec::new(), next: self.committed });
                    self.check_recovered().await;
                }
                Err(e) => {
                    assert!(!healed, "a healthy store does not recover: {e}");
                    self.store.heal();
                    healed = true;
                }
            }
        }
        self.running.as_mut().unwrap()
    }

    async fn write(&mut self, rows: u64) -> Result<()> {
        let running = self.running().await;
        for _ in 0..rows {
            let id = running.next;
            let writer = &mut running.writers[(id % u64::from(SUBTASKS)) as usize];
            writer.write(Row { id, text: format!("row, \"{id}\"\n") }, 0)?;
            poll_fn(|cx| SinkWriter::<Row>::poll_ready(writer, cx)).await?;
            running.next += 1;
        }
        Ok(())
    }

    async fn checkpoint(&mut self, end: End) -> Result<()> {
        self.running().await;
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        let running = self.running.as_mut().unwrap();
        let mut committables = std::mem::take(&mut running.carried);
        for writer in &mut running.writers {
            committables.extend(SinkWriter::<Row>::barrier(writer, epoch).await?);
        }
        match end {
            End::Abandoned => running.carried = committables,
            End::DiedWhenStaged => self.running = None,
            End::DiedWhenCommitted => {
                self.commit(epoch, committables);
                self.running = None;
            }
            End::Published | End::PublishedTwice => {
                let record = self.commit(epoch, committables.clone());
                let permit = CommitPermit::forged(record);
                let running = self.running.as_ref().unwrap();
                OpenSink::<Row>::commit(&running.open, &permit, committables.clone()).await?;
                if matches!(end, End::PublishedTwice) {
                    OpenSink::<Row>::commit(&running.open, &permit, committables).await?;
                }
                assert_eq!(self.visible().await, (0..self.committed).collect(), "after publishing");
            }
        }
        Ok(())
    }

    /// What a manifest and its commit record keep.
    fn commit(&mut self, epoch: Epoch, committables: Vec<Value>) -> CommitRecord {
        self.committed = self.running.as_ref().unwrap().next;
        (self.last, self.committables) = (Some(epoch), committables);
        CommitRecord {
            epoch,
            manifest: "m".into(),
            lineage: "l".into(),
            attempt: Attempt(self.attempt),
            transactional_ids: Vec::new(),
        }
    }

    async fn check_recovered(&mut self) {
        assert_eq!(self.visible().await, (0..self.committed).collect(), "after recovery");
        let left: Vec<_> = self.names().await.into_iter().filter(|n| n.contains(".staging")).collect();
        assert_eq!(left, [""; 0], "recovery sweeps what dead attempts have staged");
        for mut zombie in std::mem::take(&mut self.zombies) {
            let _ = SinkWriter::<Row>::barrier(&mut zombie, Epoch(self.epoch + 1)).await;
        }
    }

    async fn names(&self) -> Vec<String> {
        use futures::TryStreamExt;
        let listed: Vec<_> = self.store.inner().list(None).try_collect().await.unwrap();
        listed.into_iter().map(|o| o.location.to_string()).collect()
    }

    /// The ids in all parts that a reader sees; each part has to be whole.
    async fn visible(&self) -> BTreeSet<u64> {
        let mut ids = BTreeSet::new();
        for name in self.names().await.into_iter().filter(|n| !n.contains(".staging")) {
            assert!(name.starts_with(&format!("{DIRECTORY}/part-")) && name.ends_with(".csv"), "{name}");
            let part = self.store.inner().get(&Path::from(name)).await.unwrap().bytes().await.unwrap();
            let mut reader = csv::Reader::from_reader(&part[..]);
            assert_eq!(reader.headers().unwrap(), ["id", "text"].as_slice(), "every part has its header");
            assert!(part.ends_with(b"\n"), "a part ends with a whole row");
            for row in reader.records() {
                let row = row.unwrap();
                let id = row[0].parse().unwrap();
                assert_eq!(&row[1], format!("row, \"{id}\"\n"));
                assert!(ids.insert(id), "row {id} is visible twice");
            }
        }
        ids
    }
}

/// Returns how many changing calls were made.
fn run(inner: Arc<dyn ObjectStore>, steps: Vec<Step>) -> u64 {
    // One thread for what blocks: a write of a dead attempt that is under way comes before its successor's sweep.
    // With more it may come behind it, and is swept by the next.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(inner);
        for step in steps {
            world.step(step).await;
        }
        // At last all goes well: what is written from here on comes out, behind what was committed before.
        world.store.heal();
        world.running = None;
        world.running().await;
        world.write(10).await.unwrap();
        world.checkpoint(End::Published).await.unwrap();
        assert!(world.committed >= 10);
        world.store.calls()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_committed_row_is_visible_once_and_no_other_in_a_store_of_objects(steps in steps()) {
        run(Arc::new(InMemory::new()), steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_committed_row_is_visible_once_and_no_other_in_a_local_directory(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        run(Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap()), steps);
    }
}

/// Each call of one eventful history fails in turn, in both ways, once and for good.
#[test]
fn a_failure_of_every_single_call_is_survived() {
    let history = || {
        [Step::Write(20), Step::Checkpoint(End::Published), Step::Write(25), Step::Checkpoint(End::Abandoned)]
            .into_iter()
            .chain([Step::Write(9), Step::Checkpoint(End::DiedWhenCommitted), Step::Write(12)])
            .chain([Step::Checkpoint(End::PublishedTwice)])
    };
    let calls = run(Arc::new(InMemory::new()), history().collect());
    assert!(calls > 30, "an eventful history makes more than {calls} calls");
    for fault in [Fault::Refused, Fault::ReplyLost] {
        for lasting in [false, true] {
            for spared in 0..calls {
                let fails = Step::Fault { spared, fault, lasting };
                run(Arc::new(InMemory::new()), [fails].into_iter().chain(history()).collect());
            }
        }
    }
}
