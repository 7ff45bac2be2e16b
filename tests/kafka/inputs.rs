//! What others have written: batches of every compression, and a compacted topic with gaps and tombstones, read to the
//! end by a whole job. The Java client writes, and says what there is to read.
//!
//! The hard case is the end. Compaction deletes records but no offsets, so behind the last record that is left there
//! may be nothing but the offsets of others: a reader that waits for the record before the end waits for ever.
use tidegate::{
    Collect, Job, Settings, Stream,
    kafka::{Kafka, Nullable, Utf8},
};
use tidegate_testbed::kafka::{Broker, End, Isolation, Read, Record};

async fn read(broker: &Broker, topic: &str) -> Vec<Option<String>> {
    let (kafka, out, folder) = (Kafka::at(broker.bootstrap()), Collect::new(), tempfile::tempdir().unwrap());
    let mut settings = Settings { parallelism: 2, ..Settings::default() };
    settings.checkpoint.store = folder.path().display().to_string();
    let job = Job::new("inputs", settings);
    job.source("in", kafka.source(topic, Nullable(Utf8)).available_now()).sink("out", out.clone());
    job.run().await.unwrap();
    let mut found = out.take();
    found.sort();
    found
}

/// The same, as the Java client sees it.
fn expected(broker: &Broker, topic: &str) -> Vec<Option<String>> {
    let all = broker.judge().unwrap().read(topic, Isolation::ReadCommitted).unwrap();
    let mut values: Vec<_> = all.iter().map(|read: &Read| read.value.as_ref().map(|_| read.text())).collect();
    values.sort();
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_every_compression_are_read() {
    let broker = Broker::start().unwrap();
    let judge = broker.judge().unwrap();
    judge.create_topic("in", 3, &[]).unwrap();
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        // Some that fill batches, and some that make batches of one record; a value that cannot be made smaller too.
        let text = |n: u32| format!("{codec} {n} {}", "abc".repeat(n as usize % 50));
        let records: Vec<_> = (0..2_000).map(|n| Record::new(n.to_string(), text(n)).to(n as i32 % 3)).collect();
        judge.produce_compressed(codec, "in", &records).unwrap();
        judge.produce_compressed(codec, "in", &records[..1]).unwrap();
    }
    let found = read(&broker, "in").await;
    assert_eq!(found.len(), codecs.len() * 2_001);
    assert_eq!(found, expected(&broker, "in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_is_read_to_its_end() {
    let broker = Broker::with(|settings| settings.property("log.cleaner.backoff.ms", 100)).unwrap();
    let judge = broker.judge().unwrap();
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "100"),
        ("segment.ms", "100"),
    ];
    judge.create_topic("in", 2, &compacted).unwrap();
    let written = 6_000;
    for round in 0..3 {
        // Each key again and again, and every seventh deleted in the end.
        let record = |n: i32| {
            let key = n % 400;
            let is_deleted = round == 2 && key % 7 == 0;
            let value = (!is_deleted).then(|| format!("{key} {round} {n}").into_bytes());
            Record { value, ..Record::new(key.to_string(), "").to(key % 2) }
        };
        judge.produce("in", &(0..written / 3).map(record).collect::<Vec<_>>()).unwrap();
    }
    // What an aborted transaction leaves at the end, and then nothing but a marker.
    let aborted: Vec<_> = (0..2).map(|p| Record::new("aborted", "never").to(p)).collect();
    judge.produce_transaction("aborting", "in", &aborted, End::Abort).unwrap();
    // Until compaction has been there; a segment is only done with when another one has begun.
    let mut tick = 0;
    while expected(&broker, "in").len() > 2_000 {
        tick += 1;
        judge.produce("in", &[0, 1].map(|p| Record::new("tick", tick.to_string()).to(p))).unwrap();
    }
    judge.produce_transaction("aborting", "in", &aborted, End::Abort).unwrap();
    let (there, ends) = (expected(&broker, "in"), judge.offsets("in").unwrap());
    let offsets: i64 = ends.iter().map(|o| o.high_watermark - o.earliest).sum();
    assert!((there.len() as i64) < offsets, "there are no gaps");
    assert!(there.contains(&None), "there are no tombstones");
    assert_eq!(read(&broker, "in").await, there);
}
