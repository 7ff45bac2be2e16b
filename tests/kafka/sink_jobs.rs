//! Whole jobs that write to a real Kafka: what a message is made of, where it goes, and what becomes of records that
//! cannot be read or written. That nothing is lost or doubled is tested in `kafka_crash`.
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use tidegate::{
    Collection, Job, Kind, RestartStrategy, Settings, Stream,
    extend::env::random,
    kafka::{Json, Kafka, Nullable, Utf8},
};
use tidegate_testbed::kafka::{Broker, Isolation, Judge, Read, Record};

fn settings(folder: &Path) -> Settings {
    let mut settings = Settings { parallelism: 2, ..Settings::default() };
    settings.checkpoint.store = folder.join("checkpoints").display().to_string();
    settings.checkpoint.interval = Duration::from_millis(100);
    settings.restart.strategy = RestartStrategy::None;
    settings
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event {
    key: String,
    topic: String,
    at: i64,
}

/// Everything, when no transaction is open any more: a broker answers a commit before it has told every partition of it.
fn read(judge: &Judge, topic: &str) -> Vec<Read> {
    while judge.has_open(topic).unwrap() {}
    judge.read(topic, Isolation::ReadCommitted).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_what_the_sink_was_told() {
    let broker = Broker::start().unwrap();
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    for topic in ["odd", "even", "plain", "deleted", "at-least-once"] {
        judge.create_topic(topic, 3, &[]).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let topic = |n: i64| if n % 2 == 0 { "even" } else { "odd" };
    let events: Vec<_> =
        (0..100).map(|n| Event { key: format!("k{n}"), topic: topic(n).into(), at: 1_700_000_000_000 + n }).collect();
    let job = Job::new("messages", settings(folder.path()));
    let all = job.source("events", Collection::new(events.clone())).boxed();
    let key = |e: &Event| e.key.clone();
    all.clone().sink(
        "by-topic",
        kafka
            .sink("unused", Json::<Event>::new())
            .key(|e| e.key.as_bytes())
            .topic_by(|e| e.topic.as_str())
            .timestamp(|e| e.at)
            .headers(|e| vec![("key".into(), Some(e.key.clone().into_bytes())), ("none".into(), None)]),
    );
    all.clone().map(move |e| key(&e)).sink("plain", kafka.sink("plain", Utf8).partition_by(|_: &String, of| of - 1));
    all.clone().map(|e| (e.at % 2 == 0).then_some(e.key)).sink("deleted", kafka.sink("deleted", Nullable(Utf8)));
    all.map(|e| e.key).sink("doubled", kafka.sink("at-least-once", Utf8).at_least_once());
    let plan = job.explain().unwrap();
    assert!(plan.contains(&format!("commits in a Kafka transaction at {}", broker.bootstrap())), "{plan}");
    job.run().await.unwrap();

    for topic in ["odd", "even"] {
        let found = read(judge, topic);
        assert_eq!(found.len(), 50);
        for message in found {
            let event: Event = serde_json::from_str(&message.text()).unwrap();
            assert_eq!((event.topic.as_str(), event.at), (topic, message.timestamp));
            assert_eq!(message.key.as_deref(), Some(event.key.as_bytes()));
            assert_eq!(message.partition, judge.partition_of(event.key.as_bytes(), 3).unwrap(), "as the Java client");
            assert_eq!(message.headers, [("key".into(), Some(event.key.into_bytes())), ("none".into(), None)]);
        }
    }
    let plain = read(judge, "plain");
    assert!(plain.len() == 100 && plain.iter().all(|m| m.partition == 2 && m.key.is_none()));
    assert_eq!(read(judge, "deleted").iter().filter(|m| m.value.is_none()).count(), 50);
    assert_eq!(read(judge, "at-least-once").len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_written_follows_the_policy() {
    let broker = Broker::start().unwrap();
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    judge.create_topic("in", 2, &[]).unwrap();
    judge.create_topic("small", 1, &[("max.message.bytes", "2000")]).unwrap();
    judge.create_topic("out", 2, &[]).unwrap();
    judge.create_topic("dead", 1, &[]).unwrap();
    let records: Vec<_> =
        (0..1_000).map(|n| Record::value(if n % 100 == 7 { "?".into() } else { n.to_string() })).collect();
    judge.produce("in", &records).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let job = Job::new("poisoned", settings(folder.path()));
    let mut numbers = job.source("in", kafka.source("in", Json::<u64>::new()).available_now());
    // In the same transaction as the rest: exactly once too.
    numbers.dead_letters().sink("dead", kafka.sink("dead", Json::new()));
    numbers.sink("out", kafka.sink("out", Json::new()));
    job.run().await.unwrap();
    let dead = read(judge, "dead");
    assert!(dead.len() == 10 && dead.iter().all(|m| m.text().contains("\"raw\":\"?\"")), "{dead:?}");
    assert_eq!(read(judge, "out").len(), 990);

    // By the broker's measure, and by librdkafka's own: both say what to do, and neither is tried again.
    for (name, length) in [("too-large-there", 5_000), ("too-large-here", 2_000_000)] {
        let job = Job::new(name, settings(folder.path()));
        // Nothing that lz4 could make small.
        let text = move |n: u64| {
            (0..length).map(|i: u64| char::from(33 + (random(&mut (i + n)) % 90) as u8)).collect::<String>()
        };
        job.source("texts", Collection::new(vec![text(1)])).sink("small", kafka.sink("small", Utf8));
        let error = job.run().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{error}");
        assert!(error.to_string().contains("message.max.bytes"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_looked_into_and_forgotten_on_purpose() {
    let broker = Broker::start().unwrap();
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    judge.create_topic("in", 2, &[]).unwrap();
    judge.create_topic("out", 1, &[]).unwrap();
    judge.produce("in", &(0..10).map(|n| Record::value(n.to_string()).to(n % 2)).collect::<Vec<_>>()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = async |settings: Settings| {
        let job = Job::new("looked-into", settings);
        let source = kafka.source("in", Utf8).group("watched").available_now();
        job.source("in", source).sink("out", kafka.sink("out", Utf8));
        job.run().await
    };
    run(settings(folder.path())).await.unwrap();
    let admin = kafka.admin();
    let records = admin.commit_records("looked-into").await.unwrap();
    assert_eq!(records.last().unwrap().transactional_ids, ["looked-into-0", "looked-into-1"]);
    judge.produce("in", &[Record::value("more").to(0)]).unwrap();
    let lag = admin.lag("in", "watched").await.unwrap();
    let behind: Vec<_> = lag.iter().map(|l| l.end - l.position.unwrap()).collect();
    assert_eq!(behind, [1, 0]);

    // What a job that has died has left open.
    judge.leave_open_transaction("looked-into-1", "out", &[Record::value("half")]).unwrap();
    assert_eq!(admin.held_back("out").await.unwrap().len(), 1);
    admin.abort_open("looked-into").await.unwrap();
    assert_eq!(admin.held_back("out").await.unwrap(), []);

    admin.forget("looked-into").await.unwrap();
    assert_eq!(admin.commit_records("looked-into").await.unwrap(), []);
    let error = run(settings(folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("allow-fresh-start"), "the store still knows: {error}");
    let mut anew = settings(folder.path());
    anew.checkpoint.allow_fresh_start = true;
    run(anew).await.unwrap();
    assert_eq!(read(judge, "out").len(), 10 + 11);
}

#[test]
fn secrets_are_shown_nowhere() {
    let file = "[kafka]\nbootstrap.servers = \"127.0.0.1:1\"\nsasl.password = \"canary\"\nsasl.username = \"me\"";
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { kafka: Settings::from_toml(file).unwrap().kafka, ..settings(folder.path()) };
    let kafka = Kafka::new(&settings);
    let job = Job::new("secret", settings.clone());
    job.source("in", kafka.source("in", Utf8).available_now()).sink("out", kafka.sink("out", Utf8));
    let shown = [format!("{settings:?} {kafka:?} {job:?}"), job.explain().unwrap()];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(job.run()).unwrap_err();
    for text in shown.into_iter().chain([format!("{error} {error:#?}")]) {
        assert!(!text.contains("canary"), "{text}");
    }
}
