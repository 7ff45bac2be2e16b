//! Whole jobs that read from a real Kafka: what the engine and the source are to each other.
//!
//! That the source itself reads what it should is tested beside it; here is what takes a job: positions that reach
//! the group before the job ends, partitions that are found while it runs, a run that goes on where one has ended.
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tidegate::{
    Collect, Job, JobMetrics, Settings, Stream,
    kafka::{Kafka, Start, Utf8},
};
use tidegate_testbed::kafka::{Broker, End, Record};

fn records(range: std::ops::Range<u32>, partitions: i32) -> Vec<Record> {
    range.map(|n| Record::value(n.to_string()).to(n as i32 % partitions)).collect()
}

fn settings(folder: &std::path::Path) -> Settings {
    let mut settings = Settings { parallelism: 2, ..Settings::default() };
    settings.checkpoint.store = folder.display().to_string();
    settings.checkpoint.interval = Duration::from_millis(100);
    settings
}

fn lag(metrics: &JobMetrics) -> Option<u64> {
    metrics.operator("orders").and_then(|o| o.lag)
}

/// Waits until as many texts have been collected; gives them.
async fn collected(out: &Collect<String>, count: usize) -> BTreeSet<u32> {
    let (mut all, mut records) = (BTreeSet::new(), 0);
    let enough = tokio::time::timeout(Duration::from_secs(30), async {
        while records < count {
            let some = out.take();
            records += some.len();
            all.extend(some.iter().map(|text| text.parse::<u32>().unwrap()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    enough.await.unwrap();
    assert_eq!(records, count, "{all:?}");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_read_follow_and_go_on() {
    let broker = Broker::start().unwrap();
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    judge.create_topic("orders", 3, &[]).unwrap();
    judge.produce("orders", &records(0..1000, 3)).unwrap();
    judge.produce_transaction("tx", "orders", &records(1000..1010, 3), End::Abort).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = Collect::new();
    let batch = || {
        let job = Job::new("batch", settings(folder.path()));
        let source = kafka.source("orders", Utf8).group("batch").available_now();
        job.source("orders", source).sink("out", out.clone());
        job
    };
    batch().run().await.unwrap();
    assert_eq!(collected(&out, 1000).await, (0..1000).collect());
    let ends = || -> Vec<_> {
        let offsets = judge.offsets("orders").unwrap();
        offsets.iter().map(|o| ("orders".to_owned(), o.partition, o.high_watermark)).collect()
    };
    assert_eq!(judge.group_offsets("batch").unwrap(), ends());
    // Nothing new, then something.
    batch().run().await.unwrap();
    judge.produce("orders", &records(2000..2010, 3)).unwrap();
    batch().run().await.unwrap();
    assert_eq!(collected(&out, 10).await, (2000..2010).collect());
    assert_eq!(judge.group_offsets("batch").unwrap(), ends());

    let follow = || {
        let job = Job::new("follow", settings(folder.path()));
        let source = kafka.source("orders", Utf8).from(Start::Group).group("batch");
        job.source("orders", source.discover_every(Duration::from_millis(100))).sink("out", out.clone());
        job.start().unwrap()
    };
    let handle = follow();
    judge.produce("orders", &records(3000..3010, 3)).unwrap();
    assert_eq!(collected(&out, 10).await, (3000..3010).collect());
    judge.add_partitions("orders", 4).unwrap();
    while judge.offsets("orders").is_ok_and(|o| o.len() < 4) {}
    judge.produce("orders", &records(4000..4010, 4)).unwrap();
    assert_eq!(collected(&out, 10).await, (4000..4010).collect());
    while lag(&handle.metrics()) != Some(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handle.stop().await.unwrap();
    assert_eq!(judge.group_offsets("batch").unwrap(), ends());
    // What came while it was not there.
    judge.add_partitions("orders", 5).unwrap();
    while judge.offsets("orders").is_ok_and(|o| o.len() < 5) {}
    judge.produce("orders", &records(5000..5010, 5)).unwrap();
    let handle = follow();
    assert_eq!(collected(&out, 10).await, (5000..5010).collect());
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlasts_its_broker() {
    let mut broker = Broker::start().unwrap();
    let kafka = Kafka::at(broker.bootstrap());
    broker.judge().unwrap().create_topic("orders", 2, &[]).unwrap();
    broker.judge().unwrap().produce("orders", &records(0..10, 2)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (out, job) = (Collect::new(), Job::new("outlasts", settings(folder.path())));
    let source = kafka.source("orders", Utf8).group("outlasts").discover_every(Duration::from_millis(300));
    job.source("orders", source).sink("out", out.clone());
    let handle = job.start().unwrap();
    assert_eq!(collected(&out, 10).await, (0..10).collect());
    broker.kill();
    let before = handle.checkpoint_now().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(handle.checkpoint_now().await.unwrap() > before);
    broker.restart().unwrap();
    broker.judge().unwrap().produce("orders", &records(10..20, 2)).unwrap();
    assert_eq!(collected(&out, 10).await, (10..20).collect());
    // No attempt has failed meanwhile; and a job ends also while its broker is away.
    assert_eq!(handle.status().restarts, 0);
    broker.kill();
    let began = Instant::now();
    handle.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// A partition that is found before the first checkpoint is read from its beginning, whatever the job begins with. An
/// attempt that fails then must not make its successor begin at the end of it, as with those that were there.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_found_before_the_first_checkpoint_is_not_lost_with_the_attempt() {
    let broker = Broker::start().unwrap();
    let judge = broker.judge().unwrap();
    judge.create_topic("in", 1, &[]).unwrap();
    let (folder, out, kafka) = (tempfile::tempdir().unwrap(), Collect::new(), Kafka::at(broker.bootstrap()));
    let mut settings = settings(folder.path());
    settings.checkpoint.interval = Duration::from_secs(600);
    let seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let times = |text: &str| seen.lock().unwrap().iter().filter(|seen| *seen == text).count();
    let eyes = seen.clone();
    let job = Job::new("found", settings);
    job.source("in", kafka.source("in", Utf8).from(Start::Latest).discover_every(Duration::from_millis(50)))
        .inspect(move |text: &String| {
            let mut seen = eyes.lock().unwrap();
            seen.push(text.clone());
            let fails = text == "fail" && seen.iter().filter(|text| *text == "fail").count() == 1;
            drop(seen);
            assert!(!fails, "as it should");
        })
        .sink("out", out.clone());
    let handle = job.start().unwrap();
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        for _ in 0..6_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}; {:?}", handle.status());
    };
    // It is at the end of partition 0 when it sees what is written there from now on.
    let reads = || {
        judge.produce("in", &[Record::value("here").to(0)]).unwrap();
        times("here") > 0
    };
    until("it reads", &reads).await;
    judge.add_partitions("in", 2).unwrap();
    until("another partition", &|| judge.offsets("in").is_ok_and(|o| o.len() == 2)).await;
    judge.produce("in", &[Record::value("new").to(1)]).unwrap();
    until("what is new", &|| times("new") == 1).await;
    judge.produce("in", &[Record::value("fail").to(0)]).unwrap();
    until("the next attempt comes to the same", &|| times("fail") == 2).await;
    until("and to what was new", &|| times("new") == 2).await;
    handle.stop().await.unwrap();
    assert_eq!(out.take().iter().filter(|text| *text == "new").count(), 1);
}
