//! Whole jobs that read from a real Kafka: what the engine and the source are to each other.
//!
//! That the source itself reads what it should is tested beside it; here is what takes a job: positions that reach
//! the group before the job ends, partitions that are found while it runs, a run that goes on where one has ended.
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tidegate::{
    Collect, Job, JobMetrics, RestartStrategy, Settings, Stream,
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
async fn a_partition_that_came_before_the_first_checkpoint_outlasts_its_attempt() {
    let broker = Broker::start().unwrap();
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    judge.create_topic("orders", 1, &[]).unwrap();
    judge.produce("orders", &records(0..5, 1)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.checkpoint.interval = Duration::from_secs(600);
    settings.restart.strategy = RestartStrategy::FixedDelay;
    settings.restart.max_restarts = 1;
    let (out, job) = (Collect::new(), Job::new("latest", settings));
    let seen = Arc::new(AtomicUsize::new(0));
    let source = kafka.source("orders", Utf8).from(Start::Latest).discover_every(Duration::from_millis(100));
    let count = seen.clone();
    job.source("orders", source)
        .inspect(move |_: &String| assert_ne!(count.fetch_add(1, Relaxed), 9, "the tenth fails the first attempt"))
        .sink("out", out.clone());
    let handle = job.start().unwrap();
    let lag_is_known = async || {
        while lag(&handle.metrics()) != Some(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), lag_is_known()).await.unwrap();
    judge.add_partitions("orders", 2).unwrap();
    while judge.offsets("orders").is_ok_and(|o| o.len() < 2) {}
    judge.produce("orders", &records(5..15, 2)).unwrap();
    let all_again = async || {
        while seen.load(Relaxed) < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all_again = tokio::time::timeout(Duration::from_secs(20), all_again()).await;
    assert!(all_again.is_ok(), "seen {} of 20: records of the new partition are lost", seen.load(Relaxed));
    handle.stop().await.unwrap();
    assert_eq!(collected(&out, 10).await, (5..15).collect());
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
