//! Bugs that other engines had, each with a test that would find it here. Those that another test guards already are
//! listed with it in docs/design/0003-kafka-transactions.md.
use std::{fs, path::PathBuf};
use tidegate::{
    Collect, Job, Kind, RestartStrategy, Settings, Stream,
    extend::env::sleep,
    kafka::{Kafka, Utf8},
};
use tidegate_testbed::kafka::{Broker, Isolation, Record};

use crate::{child::Case, job::run};

/// The epochs of the commit records that readers see.
fn records(case: &Case) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin = Kafka::at(case.broker.bootstrap()).admin();
    let records = runtime.block_on(admin.commit_records("crash")).unwrap();
    records.iter().map(|record| record.epoch.0).collect()
}

/// `RisingWave` 26492: the epoch of a sink that is idle is acknowledged, and nowhere to be found after a crash.
#[test]
fn an_epoch_without_output_is_recorded_like_any_other() {
    let mut case = Case::new(2, 500);
    case.arguments.follow = true;
    let mut job = case.started(2);
    let copies = || case.broker.judge().unwrap().read("copies", Isolation::ReadCommitted).unwrap().len();
    assert!(job.runs_until(|| copies() == 500), "{}", case.errors());
    job.kill();
    for _ in 0..2 {
        let before = case.committed();
        case.die_at("kafka.commit.copied:6");
        assert_eq!(records(&case).last(), Some(&case.committed()));
        assert!(case.committed() >= before + 6, "epochs were given again");
    }
    case.arguments.follow = false;
    case.world.add(&case.broker, 500);
    case.finish();
}

/// Flink 8132: a producer is used again, and a recovery that commits what it had prepared commits what it has begun
/// since. Both producers are in their second turn here, with output and a commit record in an open transaction.
#[test]
fn what_a_producer_has_begun_anew_is_not_committed_by_a_recovery() {
    let case = Case::new(1, 5_000);
    for turn in [3, 4] {
        case.die_at(&format!("kafka.commit.begin:{turn}"));
        let judge = case.broker.judge().unwrap();
        assert!(judge.has_open("copies").unwrap(), "nothing is open");
        let before = (records(&case), judge.read("copies", Isolation::ReadCommitted).unwrap().len());
        assert_eq!(before.0.last(), Some(&case.committed()));
        case.die_at("kafka.recover.read");
        while judge.has_open("copies").unwrap() {}
        assert_eq!((records(&case), judge.read("copies", Isolation::ReadCommitted).unwrap().len()), before);
    }
    case.finish();
}

/// Flink 22502: the newest checkpoint cannot be read, and an older one is taken without a word, though the output of
/// the newest is there for all to see.
#[test]
fn a_checkpoint_whose_output_is_committed_and_that_cannot_be_read_is_not_passed_over() {
    let case = Case::new(1, 5_000);
    case.die_at("kafka.commit.ended:4");
    let newest = *records(&case).last().unwrap();
    assert_eq!(newest, case.committed() + 1, "the store is to have older ones only");
    let folder = PathBuf::from(&case.arguments.store).join("crash");
    for kind in ["manifests", "state"] {
        let file = files(&folder.join(kind)).into_iter().max_by_key(|f| f.metadata().unwrap().modified().unwrap());
        let file = file.unwrap();
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [Some(flipped), Some(whole[..whole.len() / 2].to_vec()), Some(Vec::new()), None] {
            let (is_gone, manifest) = (damaged.is_none(), kind == "manifests");
            match damaged {
                Some(bytes) => fs::write(&file, bytes).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let error = run(&case.arguments).unwrap_err();
            // Of a manifest that is gone it may be that it has never been there: another job's record.
            let expected = if is_gone && manifest { Kind::Config } else { Kind::Corrupt };
            assert!(error.kind() == expected && error.hint_text().is_some(), "{error}");
            assert_eq!(records(&case).last(), Some(&newest), "another checkpoint was taken, and went on");
        }
        fs::write(&file, whole).unwrap();
    }
    case.finish();
}

fn files(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Flink 5701 and 31305, and its connector's 107: a flush is done, though what was to be flushed has failed, and what
/// it failed of is forgotten. Outside of transactions nobody else would notice: the checkpoint counts, and records
/// are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_what_has_failed_fails_the_checkpoint() {
    let broker = Broker::with(tidegate_testbed::kafka::Settings::proxied).unwrap();
    let (judge, proxy, folder) = (broker.judge().unwrap(), broker.proxy().unwrap(), tempfile::tempdir().unwrap());
    judge.create_topic("in", 1, &[]).unwrap();
    judge.create_topic("out", 1, &[]).unwrap();
    let mut settings = Settings::default();
    settings.checkpoint.store = folder.path().display().to_string();
    settings.checkpoint.interval = std::time::Duration::from_millis(100);
    settings.restart.strategy = RestartStrategy::FixedDelay;
    settings.restart.max_restarts = 100;
    let job = Job::new("flushed", settings);
    // Only what is written goes through the proxy, and is given up after a second.
    let there = Kafka::at(proxy.bootstrap()).set("message.timeout.ms", "1000");
    let seen = Collect::new();
    let texts = job.source("in", Kafka::at(broker.bootstrap()).source("in", Utf8)).boxed();
    texts.clone().sink("out", there.sink("out", Utf8).at_least_once());
    texts.sink("seen", seen);
    let job = job.start().unwrap();
    let written = || judge.read("out", Isolation::ReadCommitted).unwrap();
    let some = |from: u32| (from..from + 50).map(|n| Record::value(n.to_string())).collect::<Vec<_>>();
    judge.produce("in", &some(0)).unwrap();
    while written().len() < 50 {}
    proxy.cut();
    judge.produce("in", &some(50)).unwrap();
    while job.status().restarts == 0 {
        sleep(std::time::Duration::from_millis(5)).await;
    }
    proxy.heal();
    judge.produce("in", &some(100)).unwrap();
    let has_all = || {
        let found: std::collections::BTreeSet<u32> = written().iter().map(|r| r.text().parse().unwrap()).collect();
        found.contains(&149).then_some(found)
    };
    let found = loop {
        if let Some(found) = has_all() {
            break found;
        }
    };
    assert_eq!(found, (0..150).collect(), "records are lost");
    job.cancel().await.unwrap();
}
