//! What a job that reads and writes a real Kafka says of itself while it runs: by partition, of its transactions, and
//! of its clients. Nothing is timed: each figure is waited for.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate::{
    Figure, FigureValue, Job, JobMetrics, Settings, Stream,
    kafka::{Kafka, Utf8},
};
use tidegate_testbed::kafka::{Action, Broker, Isolation, Record, Settings as Node, api};

use super::until::until;

fn settings(folder: &Path, interval: Duration) -> Settings {
    let mut settings = Settings { parallelism: 2, ..Settings::default() };
    settings.checkpoint.store = folder.display().to_string();
    settings.checkpoint.interval = interval;
    settings
}

fn figures<'a>(metrics: &'a JobMetrics, operator: &str) -> &'a [Figure] {
    metrics.operator(operator).map_or(&[], |o| &o.figures)
}

/// The sum of all figures of a name.
pub fn sum(figures: &[Figure], name: &str) -> f64 {
    figures.iter().filter(|f| f.name == name).map(|f| f.value.as_f64()).sum()
}

/// Counts by a label's value.
fn by<'a>(figures: &'a [Figure], name: &str, label: &str) -> BTreeMap<&'a str, u64> {
    let of_name = figures.iter().filter(|f| f.name == name);
    let count = |f: &Figure| match f.value {
        FigureValue::Count(n) => n,
        FigureValue::Gauge(x) => x as u64,
    };
    of_name.map(|f| (f.label(label).unwrap(), count(f))).collect()
}

const WRITTEN: &str = "tidegate_kafka_written_records_total";
const OPEN: &str = "tidegate_kafka_open_transaction_seconds";
const DISTURBANCES: &str = "tidegate_kafka_disturbances_total";

#[tokio::test(flavor = "multi_thread")]
async fn partitions_transactions_and_clients_are_shown() {
    let broker = Broker::start().unwrap();
    let judge = broker.judge().unwrap();
    judge.create_topic("in", 3, &[]).unwrap();
    judge.create_topic("out", 4, &[]).unwrap();
    let records: Vec<_> = (0..3_000).map(|n| Record::value(format!("{n:04}")).to(n % 3)).collect();
    judge.produce("in", &records).unwrap();
    let heard = Arc::new(Mutex::new(BTreeMap::<String, String>::new()));
    let (folder, listener) = (tempfile::tempdir().unwrap(), heard.clone());
    let kafka = Kafka::at(broker.bootstrap())
        .set("statistics.interval.ms", "50")
        .set("sasl.password", "canary")
        .on_statistics(move |client, json| drop(listener.lock().unwrap().insert(client.into(), json.into())));
    // No checkpoint but those that are asked for: what is written stays in an open transaction.
    let job = Job::new("shown", settings(folder.path(), Duration::from_secs(250)));
    job.source("in", kafka.source("in", Utf8)).sink("out", kafka.sink("out", Utf8).key(|n: &String| n.as_bytes()));
    let handle = job.start().unwrap();

    let m = until(&handle, "all is written", |m| sum(figures(m, "out"), WRITTEN) as usize == records.len()).await;
    let split = |name: &str| by(figures(&m, "in"), &format!("tidegate_split_{name}_total"), "split");
    assert_eq!(split("records"), BTreeMap::from([("in/0", 1_000), ("in/1", 1_000), ("in/2", 1_000)]));
    assert!(split("bytes").values().all(|bytes| *bytes == 4_000), "{m:#}");
    assert_eq!((m.operator("in").unwrap().records_in, m.operator("in").unwrap().bytes_in), (3_000, 12_000));
    let none = BTreeMap::from([("in/0", 0), ("in/1", 0), ("in/2", 0)]);
    let read = |m: &JobMetrics| by(figures(m, "in"), "tidegate_split_lag_records", "split") == none;
    let m = until(&handle, "no lag", read).await;
    assert_eq!(m.operator("in").unwrap().lag, Some(0));

    let m = until(&handle, "an open transaction", |m| sum(&m.figures, OPEN) > 0.05).await;
    assert_eq!((m.checkpoints.commit, sum(&m.figures, "tidegate_kafka_end_transaction_max_seconds")), (None, 0.0));
    handle.checkpoint_now().await.unwrap();
    let m = handle.metrics();
    assert!(sum(&m.figures, OPEN) <= 0.0, "nothing has been written since: {m:#}");
    let commit = m.checkpoints.commit.unwrap();
    assert!(commit.p50 > Duration::ZERO && commit.p50 <= commit.p99 && commit.p99 <= commit.max, "{commit:?}");
    let ended = sum(&m.figures, "tidegate_kafka_end_transaction_last_seconds");
    assert!(ended > 0.0 && ended <= m.checkpoints.last_commit.as_secs_f64(), "{ended} {:?}", m.checkpoints);
    let text = m.to_string();
    assert!(text.contains(" · commits p50 ") && !text.contains("tidegate_"), "{text}");
    assert!(
        format!("{m:#}").contains("\ntidegate_split_records_total{operator=\"in\",split=\"in/0\"} 1000\n"),
        "{m:#}"
    );

    // A broker answers a commit before it has told every partition of it.
    while judge.has_open("out").unwrap() {}
    let mut there = BTreeMap::<_, (u64, u64)>::new();
    for message in judge.read("out", Isolation::ReadCommitted).unwrap() {
        let (records, bytes) = there.entry(message.partition.to_string()).or_default();
        *records += 1;
        *bytes += [message.key, message.value].into_iter().flatten().map(|part| part.len() as u64).sum::<u64>();
    }
    assert_eq!(there.len(), 4);
    for (partition, (records, bytes)) in &there {
        let written = |name: &str| by(figures(&m, "out"), name, "partition")[&**partition];
        assert_eq!((written(WRITTEN), written("tidegate_kafka_written_bytes_total")), (*records, *bytes));
    }

    let clients = ["admin", "consumer", "shown-0", "shown-1"];
    while !clients.iter().all(|client| heard.lock().unwrap().contains_key(*client)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (client, json) in &*heard.lock().unwrap() {
        let parsed: serde_json::Value = serde_json::from_str(json).unwrap();
        assert!(parsed["brokers"].is_object() && !json.contains("canary"), "{client}: {json}");
    }
    let sent = |m: &JobMetrics| {
        let of_source = by(figures(m, "in"), "tidegate_kafka_sent_bytes_total", "client").into_iter();
        let all = of_source.chain(by(&m.figures, "tidegate_kafka_sent_bytes_total", "client"));
        all.filter(|(_, bytes)| *bytes > 0).map(|(client, _)| client.to_owned()).collect::<BTreeSet<_>>()
    };
    let m = until(&handle, "every client has sent something", |m| sent(m).len() == clients.len()).await;
    assert_eq!(sent(&m), clients.map(ToOwned::to_owned).into());
    for all in [&m.figures, figures(&m, "in")] {
        assert!(all.iter().any(|f| f.name == "tidegate_kafka_retries_total"), "{m:#}");
    }
    // Where nothing has been answered for as long as statistics speak of, there is none.
    let round_trip = |m: &JobMetrics| sum(figures(m, "in"), "tidegate_kafka_round_trip_p99_seconds") > 0.0;
    until(&handle, "a round trip", round_trip).await;
    handle.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_away_and_replies_that_were_lost_are_counted() {
    let mut broker = Broker::with(Node::proxied).unwrap();
    let bootstrap = broker.proxy().unwrap().bootstrap().to_owned();
    broker.judge().unwrap().create_topic("in", 1, &[]).unwrap();
    broker.judge().unwrap().create_topic("out", 1, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::at(&bootstrap).set("statistics.interval.ms", "50");
    let job = Job::new("counted", settings(folder.path(), Duration::from_millis(100)));
    job.source("in", kafka.source("in", Utf8).group("counted")).sink("out", kafka.sink("out", Utf8));
    let handle = job.start().unwrap();
    let write =
        |broker: &Broker, n: u32| broker.judge().unwrap().produce("in", &[Record::value(n.to_string())]).unwrap();
    let written = |n: u32| move |m: &JobMetrics| sum(figures(m, "out"), WRITTEN) >= f64::from(n);
    write(&broker, 1);
    until(&handle, "a record", written(1)).await;

    // The consumer's request is sent again.
    broker.proxy().unwrap().on(api::OFFSET_COMMIT, Action::DropReply);
    let retries = |m: &JobMetrics| sum(figures(m, "in"), "tidegate_kafka_retries_total");
    until(&handle, "a retry", |m| retries(m) > 0.0 && sum(figures(m, "in"), "tidegate_kafka_disconnects_total") > 0.0)
        .await;

    // A commit was sent twice: that producer is not used again (a copy of the request that is late would commit its
    // next transaction), and what it has counted is not forgotten.
    const SENT: &str = "tidegate_kafka_sent_bytes_total";
    let sent = sum(&until(&handle, "bytes", |m| sum(&m.figures, SENT) > 0.0).await.figures, SENT);
    broker.proxy().unwrap().on(api::END_TXN, Action::DropReply);
    let recycled = |m: &JobMetrics| sum(&m.figures, "tidegate_kafka_producers_recycled_total") > 0.0;
    let m = until(&handle, "another producer", recycled).await;
    assert!(sum(&m.figures, SENT) >= sent, "{m:#}");

    let disturbances = |m: &JobMetrics| sum(&m.figures, DISTURBANCES) + sum(figures(m, "in"), DISTURBANCES);
    let before = disturbances(&handle.metrics());
    broker.kill();
    until(&handle, "somebody complains", |m| disturbances(m) > before).await;
    broker.restart().unwrap();
    write(&broker, 2);
    let arrived = || broker.judge().unwrap().read("out", Isolation::ReadCommitted).unwrap().len() == 2;
    until(&handle, "another record", |_| arrived()).await;
    handle.stop().await.unwrap();
}
