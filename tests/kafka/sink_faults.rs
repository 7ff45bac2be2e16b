//! What becomes of a sink when the broker is slow at the wrong moment: a commit whose reply is late takes away a
//! producer, and whoever writes on must not notice; nor must a successor, if the job is not ours any more.
use std::{collections::BTreeMap, path::Path, time::Duration};
use tidegate::{
    Generator, Job, JobHandle, JobState, RestartStrategy, Settings, Stream,
    kafka::{Kafka, Utf8},
};
use tidegate_testbed::kafka::{Action, Broker, Isolation, Settings as Node, api};

use super::{metrics::sum, until::until};

/// Longer than a commit may take before it counts as sent twice.
const LATE: Duration = Duration::from_millis(600);

fn settings(folder: &Path) -> Settings {
    let mut settings = Settings { parallelism: 1, ..Settings::default() };
    settings.checkpoint.store = folder.join("checkpoints").display().to_string();
    settings.checkpoint.interval = Duration::from_millis(100);
    settings.restart.strategy = RestartStrategy::None;
    settings
}

fn committed(handle: &JobHandle) -> u64 {
    handle.status().last_checkpoint.map_or(0, |c| c.epoch)
}

/// The topic has grown when one lane gets another producer. Both go on with the partitions that were there before, or a
/// key would go to and fro between two of them; and one who chooses by their number need not ask first.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_takes_anothers_place_chooses_the_same_partitions() {
    let broker = Broker::with(Node::proxied).unwrap();
    let (judge, proxy) = (broker.judge().unwrap(), broker.proxy().unwrap());
    judge.create_topic("keyed", 2, &[]).unwrap();
    judge.create_topic("chosen", 2, &[]).unwrap();
    let (folder, kafka) = (tempfile::tempdir().unwrap(), Kafka::at(proxy.bootstrap()));
    let job = Job::new("grown", settings(folder.path()));
    let numbers = job.source("n", Generator::new(1_000_000, |n| (n % 16).to_string()).rate(500.0)).boxed();
    numbers.clone().sink("keyed", kafka.sink("keyed", Utf8).key(|n: &String| n.as_bytes()));
    numbers.sink("chosen", kafka.sink("chosen", Utf8).partition_by(|_: &String, count| count - 1));
    let handle = job.start().unwrap();
    until(&handle, "a checkpoint", |_| committed(&handle) > 0).await;
    judge.add_partitions("keyed", 7).unwrap();
    judge.add_partitions("chosen", 7).unwrap();
    until(&handle, "more partitions", |_| judge.offsets("keyed").is_ok_and(|o| o.len() == 7)).await;

    proxy.on(api::END_TXN, Action::DelayReply(LATE));
    until(&handle, "another producer", |m| sum(&m.figures, "tidegate_kafka_producers_recycled_total") > 0.0).await;
    let then = committed(&handle);
    until(&handle, "both lanes have had their turn", |_| committed(&handle) > then + 4).await;
    handle.stop().await.unwrap();
    while judge.has_open("keyed").unwrap() {}
    let mut of_key = BTreeMap::new();
    for row in judge.read("keyed", Isolation::ReadCommitted).unwrap() {
        let at = *of_key.entry(row.text()).or_insert(row.partition);
        assert_eq!(at, row.partition, "key {}", row.text());
    }
    assert_eq!(of_key.len(), 16);
    assert!(judge.read("chosen", Isolation::ReadCommitted).unwrap().iter().all(|row| row.partition == 1));
}

/// The reply to a commit is late, and meanwhile another process takes over: what the first one does then must not
/// fence it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_been_taken_over_replaces_no_producer() {
    let broker = Broker::with(Node::proxied).unwrap();
    let (judge, proxy) = (broker.judge().unwrap(), broker.proxy().unwrap());
    judge.create_topic("in", 1, &[]).unwrap();
    judge.create_topic("out", 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let start = |servers: &str| {
        let job = Job::new("taken", settings(folder.path()));
        job.source("in", Kafka::at(broker.bootstrap()).source("in", Utf8))
            .sink("out", Kafka::at(servers).sink("out", Utf8));
        job.start().unwrap()
    };
    let first = start(proxy.bootstrap());
    until(&first, "a checkpoint", |_| committed(&first) > 0).await;
    let fired = proxy.fired(api::END_TXN);
    proxy.on(api::END_TXN, Action::DelayReply(Duration::from_secs(6)));
    assert!(proxy.wait_fired(api::END_TXN, fired + 1, Duration::from_secs(20)));
    let second = start(broker.bootstrap());
    until(&second, "the first one ends", |_| first.status().state == JobState::Failed).await;
    let then = committed(&second);
    until(&second, "it goes on", |_| committed(&second) > then + 4).await;
    assert!(first.status().failure.is_some_and(|why| why.contains("attempt")), "{:?}", first.status());
    second.stop().await.unwrap();
}

/// Records are large and the broker takes its time: the job waits with little in flight, and nothing is refused.
#[tokio::test(flavor = "multi_thread")]
async fn large_records_and_a_slow_broker_are_waited_for() {
    let broker = Broker::with(Node::proxied).unwrap();
    let (judge, proxy) = (broker.judge().unwrap(), broker.proxy().unwrap());
    judge.create_topic("out", 2, &[]).unwrap();
    let (folder, kafka) = (tempfile::tempdir().unwrap(), Kafka::at(proxy.bootstrap()));
    let job = Job::new("large", settings(folder.path()));
    let large = |n| format!("{n} {}", "x".repeat(300_000));
    job.source("n", Generator::new(6_000, large)).sink("out", kafka.sink("out", Utf8));
    proxy.on(api::PRODUCE, Action::DelayReply(Duration::from_secs(3)));
    let handle = job.start().unwrap();
    let written = || handle.metrics().operator("out").map_or(0, |o| o.records_in);
    until(&handle, "something is written", |_| written() > 0).await;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        // 64 MiB are 223 of them, and a batch of the engine's may come on top.
        assert!(committed(&handle) > 0 || written() < 1_500, "{} records are in flight", written());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    handle.wait().await.unwrap();
    assert_eq!(judge.offsets("out").unwrap().iter().map(|o| o.last_stable - o.earliest).sum::<i64>() / 6_000, 1);
}
