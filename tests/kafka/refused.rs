//! What a sink refuses, and what it does not do meanwhile: make a topic of a name that is mistyped, keep a process that
//! gives its job up, or leave a damaged checkpoint without a remedy.
use std::{path::Path, time::Duration};
use tidegate::{
    Collection, Error, Generator, Job, Kind, RestartStrategy, Settings, Stream,
    kafka::{Kafka, Utf8},
};
use tidegate_testbed::kafka::{Broker, Isolation};

use super::until::until;

fn settings(folder: &Path) -> Settings {
    let mut settings = Settings { parallelism: 1, ..Settings::default() };
    settings.checkpoint.store = folder.join("checkpoints").display().to_string();
    settings.checkpoint.interval = Duration::from_millis(100);
    settings.restart.strategy = RestartStrategy::None;
    settings
}

/// Kafka's own default is a broker that makes every topic that a producer asks about.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_name_is_mistyped_is_told_and_not_made() {
    let broker = Broker::with(|node| node.property("auto.create.topics.enable", true)).unwrap();
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    let folder = tempfile::tempdir().unwrap();
    let run = async |name: &str, transactional: bool, chosen: bool| -> Error {
        let job = Job::new("mistyped", settings(folder.path()));
        let mut sink = kafka.sink(if chosen { "unused" } else { name }, Utf8);
        if chosen {
            sink = sink.topic_by(String::as_str);
        }
        if !transactional {
            sink = sink.at_least_once();
        }
        job.source("names", Collection::new(vec![name.to_owned()])).sink("out", sink);
        job.run().await.unwrap_err()
    };
    for (transactional, chosen) in [(true, false), (true, true), (false, false), (false, true)] {
        let error = run("typo", transactional, chosen).await;
        assert!(error.kind() == Kind::Config && error.to_string().contains("\"typo\""), "{error}");
        assert!(error.to_string().contains("create the topic, or mend its name"), "{error}");
        let error = run("no name", transactional, chosen).await;
        assert!(error.kind() == Kind::Config && error.to_string().contains("1 to 249"), "{error}");
    }
    assert!(judge.offsets("typo").is_err(), "it has been made");
}

/// Refused before anybody is asked: the address is nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_too_far_apart_for_a_transaction_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.checkpoint.min_pause = Duration::from_secs(20);
    let kafka = Kafka::at("127.0.0.1:9").set("transaction.timeout.ms", "15000");
    let job = Job::new("rare", settings);
    job.source("n", Collection::new(vec!["1".to_owned()])).sink("out", kafka.sink("out", Utf8));
    let error = job.run().await.unwrap_err();
    assert!(error.kind() == Kind::Config && error.to_string().contains("checkpoint.min-pause"), "{error}");
}

/// A remedy that an error names has to be one.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_can_be_passed_over_as_its_error_says() {
    let broker = Broker::start().unwrap();
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    judge.create_topic("out", 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let job = |settings| {
        let job = Job::new("damaged", settings);
        let numbers = Generator::new(100_000, |n: u64| n.to_string()).rate(1_000.0);
        job.source("n", numbers).sink("out", kafka.sink("out", Utf8));
        job
    };
    let handle = job(settings(folder.path())).start().unwrap();
    until(&handle, "checkpoints", |_| handle.status().last_checkpoint.is_some_and(|c| c.epoch > 3)).await;
    handle.stop().await.unwrap();
    let records = kafka.admin().commit_records("damaged").await.unwrap();
    let [.., before, newest] = &records[..] else { panic!("{records:?}") };
    std::fs::write(folder.path().join("checkpoints").join(&newest.manifest), "damaged").unwrap();

    let error = job(settings(folder.path())).run().await.unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("checkpoint.from"), "{error}");
    let mut from = settings(folder.path());
    from.checkpoint.from = before.epoch.0;
    let handle = job(from).start().unwrap();
    until(&handle, "it goes on", |_| handle.status().last_checkpoint.is_some_and(|c| c.epoch > newest.epoch.0)).await;
    handle.stop().await.unwrap();
    assert!(!judge.read("out", Isolation::ReadCommitted).unwrap().is_empty());
}

/// What waits for a broker that is away waits on threads of the runtime's, which has to wait for those when it ends: a
/// call would keep them for a minute.
#[test]
fn a_job_that_is_given_up_lets_go_of_its_process() {
    let mut broker = Broker::start().unwrap();
    broker.judge().unwrap().create_topic("out", 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let given_up = runtime.block_on(async {
        let job = Job::new("given-up", settings(folder.path()));
        let numbers = Generator::new(u64::MAX, |n: u64| n.to_string()).rate(5_000.0);
        job.source("n", numbers).sink("out", Kafka::at(broker.bootstrap()).sink("out", Utf8));
        let handle = job.start().unwrap();
        until(&handle, "a checkpoint", |_| handle.status().last_checkpoint.is_some()).await;
        broker.kill();
        // In the middle of a drain or of a commit: there is one ten times a second.
        let then = handle.metrics().operator("out").map_or(0, |o| o.records_in);
        until(&handle, "more is written", |m| m.operator("out").map_or(0, |o| o.records_in) > then + 2_500).await;
        let _ = handle.cancel().await;
        std::time::Instant::now()
    });
    drop(runtime);
    assert!(given_up.elapsed() < Duration::from_secs(20), "it was kept for {:?}", given_up.elapsed());
}
