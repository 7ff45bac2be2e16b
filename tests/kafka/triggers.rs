//! Triggers over a real Kafka: a partition is read to where it ended when the batch began.
//!
//! The hard case is what stands at the end and is never seen: markers of transactions, records that were aborted, a
//! transaction that stays open. A reader that waited for the record before the end would wait for ever.
use crate::until::until;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tidegate::{
    Batch, Collect, Error, Job, JobTrigger, Settings, Stream,
    kafka::{Kafka, Utf8},
};
use tidegate_testbed::kafka::{Broker, End, Record};

const PARTITIONS: u32 = 3;

fn records(range: std::ops::Range<u32>) -> Vec<Record> {
    range.map(|n| Record::value(n.to_string()).to((n % PARTITIONS) as i32)).collect()
}

fn settings(folder: &std::path::Path, trigger: JobTrigger) -> Settings {
    let mut settings = Settings { parallelism: 2, trigger, ..Settings::default() };
    settings.checkpoint.store = folder.display().to_string();
    settings.checkpoint.interval = Duration::from_millis(50);
    settings
}

fn sorted(out: &Collect<u32>) -> Vec<u32> {
    let mut all = out.take();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_run_ends_at_what_was_there_whatever_comes_meanwhile() {
    let broker = Arc::new(Broker::start().unwrap());
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    for (trigger, topic) in [(JobTrigger::AvailableNow, "available"), (JobTrigger::Once, "once")] {
        // One more than there are records for: an empty partition has its end, too.
        judge.create_topic(topic, PARTITIONS as i32 + 1, &[]).unwrap();
        let count = 60_000;
        judge.produce(topic, &records(0..count)).unwrap();
        judge.produce_transaction("tx", topic, &records(900_000..900_010), End::Abort).unwrap();
        let (folder, out, grown) = (tempfile::tempdir().unwrap(), Collect::new(), Arc::new(AtomicBool::new(false)));
        let start = || {
            let job = Job::new("bounded", settings(folder.path(), trigger));
            let (seen, grown) = (Arc::new(Mutex::new(BTreeSet::new())), grown.clone());
            let broker = broker.clone();
            job.source("numbers", kafka.source(topic, Utf8))
                .map(|text| text.parse::<u32>().unwrap())
                .inspect(move |n| {
                    // When each partition has been begun, and is far from its end.
                    let begun = *n < count && !grown.load(SeqCst) && {
                        let mut seen = seen.lock().unwrap();
                        seen.insert(n % PARTITIONS);
                        seen.len() == PARTITIONS as usize
                    };
                    if begun && !grown.swap(true, SeqCst) {
                        broker.judge().unwrap().produce(topic, &records(count..count + 30)).unwrap();
                    }
                })
                .sink("out", out.clone());
            job
        };
        start().run().await.unwrap();
        assert!(sorted(&out).into_iter().eq(0..count), "{trigger}");
        start().run().await.unwrap();
        assert!(sorted(&out).into_iter().eq(count..count + 30), "{trigger}");
        // Behind an open transaction nothing can be read; it is not waited for.
        judge.produce(topic, &records(1..4)).unwrap();
        judge.leave_open_transaction("open", topic, &records(500_000..500_003)).unwrap();
        judge.produce(topic, &records(4..7)).unwrap();
        start().run().await.unwrap();
        assert_eq!(sorted(&out), [1, 2, 3], "{trigger}");
        judge.end_transaction("open", End::Commit).unwrap();
        start().run().await.unwrap();
        assert_eq!(sorted(&out), [4, 5, 6, 500_000, 500_001, 500_002], "{trigger}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_follow_one_another_and_an_open_transaction_holds_none_up() {
    let broker = Broker::start().unwrap();
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    judge.create_topic("numbers", PARTITIONS as i32, &[]).unwrap();
    judge.produce("numbers", &records(0..5_000)).unwrap();
    let (folder, batches) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let job = Job::new("every", settings(folder.path(), JobTrigger::Every(Duration::from_millis(400))));
    let taken = batches.clone();
    job.source("numbers", kafka.source("numbers", Utf8).discover_every(Duration::from_millis(100)))
        .map(|text| text.parse::<u32>().unwrap())
        .foreach_batch("out", move |batch: Batch<u32>, _| {
            let taken = taken.clone();
            async move {
                let mut numbers = batch.collect().await?;
                numbers.sort_unstable();
                taken.lock().unwrap().push(numbers);
                Ok::<_, Error>(())
            }
        });
    let handle = job.start().unwrap();
    let come = || batches.lock().unwrap().concat().len();
    until(&handle, "the first batch", |_| come() == 5_000).await;
    // A mere look at what is there, not a batch for each fetch.
    assert!(
        batches.lock().unwrap().len() <= 2,
        "{:?}",
        batches.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>()
    );
    judge.leave_open_transaction("open", "numbers", &records(5_000..5_010)).unwrap();
    let before = handle.metrics().checkpoints.completed;
    until(&handle, "batches behind an open transaction", |m| m.checkpoints.completed >= before + 3).await;
    assert_eq!(come(), 5_000);
    judge.end_transaction("open", End::Commit).unwrap();
    until(&handle, "what was in it", |_| come() == 5_010).await;
    judge.add_partitions("numbers", 4).unwrap();
    while judge.offsets("numbers").is_ok_and(|o| o.len() < 4) {}
    judge.produce("numbers", &[Record::value("5010").to(3)]).unwrap();
    until(&handle, "the new partition", |_| come() == 5_011).await;
    handle.stop().await.unwrap();
    let mut all = batches.lock().unwrap().concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..5_011));
}
