//! Jobs whose records have schemas, with a real Kafka and a real schema registry.
//!
//! The bytes are judged by what the specifications print of them, not by our own codec. The hard cases are those in which
//! records could be lost: a registry that goes away when a new schema comes, and schemas that change while the
//! job runs. Starting the two servers takes seconds, so each test has many steps.
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fmt::Debug,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tidegate::{
    Collect, Error, Job, Kind, Settings, Stream,
    kafka::{Avro, Decode, Kafka, Message, NotDecoded, Protobuf, Registry},
};
use tidegate_testbed::{
    kafka::{Broker, Isolation, Record},
    registry::Registry as Server,
};

/// As in the examples of Avro's specification, whose bytes it prints: 27 and "foo" are 36 06 66 6f 6f.
const TEST: &str = r#"{"type": "record", "name": "test", "fields": [
    {"name": "a", "type": "long"}, {"name": "b", "type": "string"}]}"#;
const TEST_2: &str = r#"{"type": "record", "name": "test", "fields": [
    {"name": "a", "type": "long"}, {"name": "c", "type": "int", "default": 5}, {"name": "b", "type": "string"}]}"#;
const TEST_OTHER: &str = r#"{"type": "record", "name": "test", "fields": [
    {"name": "a", "type": "string"}, {"name": "b", "type": "string"}]}"#;
const FOO: &[u8] = &[0x36, 0x06, 0x66, 0x6f, 0x6f];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Test {
    a: i64,
    b: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Test2 {
    a: i64,
    c: i64,
    b: String,
}

/// As in Protobuf's documentation of its encoding: 150 is 08 96 01.
const PROTO: &str = r#"syntax = "proto3"; package doc; message Other { string a = 1; }
    message Outer { message Test1 { int32 a = 1; } }"#;

#[derive(Clone, PartialEq, prost::Message)]
struct Test1 {
    #[prost(int32, tag = "1")]
    a: i32,
}

fn settings(folder: &std::path::Path) -> Settings {
    let mut settings = Settings { parallelism: 2, ..Settings::default() };
    settings.checkpoint.store = folder.display().to_string();
    settings.checkpoint.interval = Duration::from_millis(100);
    settings
}

/// Registers a schema, as another program would; its id.
fn register(server: &Server, subject: &str, schema: &str, kind: &str) -> u32 {
    let body = json!({ "schema": schema, "schemaType": kind }).to_string();
    let (status, answer) = server.ask("POST", &format!("/subjects/{subject}/versions"), &body).unwrap();
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str::<Value>(&answer).unwrap()["id"].as_u64().unwrap() as u32
}

fn framed(id: u32, rest: &[u8]) -> Record {
    Record::value([&[0][..], &id.to_be_bytes(), rest].concat()).to(0)
}

fn bytes(broker: &Broker, topic: &str) -> Vec<Vec<u8>> {
    let read = broker.judge().unwrap().read(topic, Isolation::ReadCommitted).unwrap();
    read.into_iter().map(|r| r.value.unwrap()).collect()
}

fn test(a: i64) -> Test {
    Test { a, b: "foo".into() }
}

/// Waits until as many have been collected.
async fn collected<T: Clone + Debug + Send + 'static>(step: &str, out: &Collect<T>, count: usize) -> Vec<T> {
    let (mut all, until) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    while all.len() < count {
        assert!(Instant::now() < until, "{step}: only {all:?}");
        all.extend(out.take());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    all
}

/// Runs a job that copies a topic, once and without restarts.
async fn copy<T: Clone + Send + Sync + 'static>(
    kafka: &Kafka,
    from: (&str, impl Decode<Item = T>),
    to: (&str, impl tidegate::kafka::Encode<T>),
) -> Result<(), Error> {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.restart.strategy = tidegate::RestartStrategy::None;
    static RUN: AtomicU32 = AtomicU32::new(0);
    let job = Job::new(&format!("copy-{}", RUN.fetch_add(1, Relaxed)), settings);
    job.source("in", kafka.source(from.0, from.1).available_now()).sink("out", kafka.sink(to.0, to.1));
    job.run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_through_topics_as_others_write_and_read_them() {
    let (broker, server) = (Broker::start().unwrap(), Server::start().unwrap());
    let (judge, kafka, registry) =
        (broker.judge().unwrap(), Kafka::at(broker.bootstrap()), Registry::at(&server.url()));
    for topic in ["avro", "avro-out", "proto", "proto-out", "other-out"] {
        judge.create_topic(topic, 1, &[]).unwrap();
    }
    // Avro: read with the writer's schema, written with one's own.
    let id = register(&server, "avro-value", TEST, "AVRO");
    judge.produce("avro", &[framed(id, FOO)]).unwrap();
    let avro = || Avro::<Test>::new(&registry);
    copy(&kafka, ("avro", avro()), ("avro-out", avro().schema(TEST))).await.unwrap();
    // The same schema has the same id under another subject.
    assert_eq!(bytes(&broker, "avro-out"), bytes(&broker, "avro"));
    let (status, latest) = server.ask("GET", "/subjects/avro-out-value/versions/latest", "").unwrap();
    assert!(status == 200 && latest.contains("test"), "{latest}");

    // Protobuf, of a message in a message.
    let id = register(&server, "proto-value", PROTO, "PROTOBUF");
    judge.produce("proto", &[framed(id, &[4, 2, 0, 0x08, 0x96, 0x01])]).unwrap();
    let proto = || Protobuf::<Test1>::new(&registry, "doc.Outer.Test1");
    copy(&kafka, ("proto", proto()), ("proto-out", proto().schema(PROTO))).await.unwrap();
    assert_eq!(bytes(&broker, "proto-out"), bytes(&broker, "proto"));
    // Another message, the other format, an id that is not there, and what has none.
    judge.produce("proto", &[framed(id, &[0]), framed(1, &[0]), framed(999, &[0]), Record::value("{}").to(0)]).unwrap();
    let out = Collect::new();
    let job = Job::new("dead", Settings::default());
    let mut source = job.source("in", kafka.source("proto", proto()).available_now());
    source.dead_letters().sink("dead", out.clone());
    source.sink("good", Collect::new());
    job.run().await.unwrap();
    let reasons: Vec<String> = out.take().into_iter().map(|bad| bad.reason).collect();
    let expected = [
        "it is a doc.Other, not a doc.Outer.Test1",
        "is AVRO, not PROTOBUF",
        "schema 999 is not in the registry",
        "no schema's id",
    ];
    assert!(reasons.len() == 4 && reasons.iter().zip(expected).all(|(r, e)| r.contains(e)), "{reasons:?}");

    // A schema that names one of another subject.
    register(&server, "named-value", TEST, "AVRO");
    let around = r#"{"type": "record", "name": "around", "fields": [{"name": "t", "type": "test"}]}"#;
    let named = json!([{ "name": "test", "subject": "named-value", "version": 1 }]);
    let body = json!({ "schema": around, "references": named }).to_string();
    let (status, answer) = server.ask("POST", "/subjects/around-value/versions", &body).unwrap();
    assert_eq!(status, 200, "{answer}");
    let id = serde_json::from_str::<Value>(&answer).unwrap()["id"].as_u64().unwrap() as u32;
    judge.create_topic("around", 1, &[]).unwrap();
    judge.produce("around", &[framed(id, FOO)]).unwrap();
    let out = Collect::new();
    let job = Job::new("around", Settings::default());
    job.source("in", kafka.source("around", Avro::<Value>::new(&registry)).available_now()).sink("out", out.clone());
    job.run().await.unwrap();
    assert_eq!(out.take(), [json!({ "t": { "a": 27, "b": "foo" } })]);

    // A schema that does not fit those before it is refused, and one that may not be registered.
    server.ask("PUT", "/config/other-out-value", r#"{"compatibility": "BACKWARD"}"#).unwrap();
    server.ask("PUT", "/config", r#"{"compatibility": "BACKWARD"}"#).unwrap();
    register(&server, "other-out-value", TEST_OTHER, "AVRO");
    let refused = copy(&kafka, ("avro", avro()), ("other-out", avro().schema(TEST))).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Config);
    assert!(
        refused.to_string().contains("not compatible") && refused.to_string().contains("other-out-value"),
        "{refused}"
    );
    assert!(refused.hint_text().unwrap().contains("default"), "{refused:?}");
    let strict = Registry::at(&server.url()).set("auto.register.schemas", "false");
    let written = Avro::<Test>::new(&strict);
    let refused = copy(&kafka, ("avro", avro()), ("other-out", written.clone().schema(TEST))).await.unwrap_err();
    assert!(refused.hint_text().unwrap().contains("auto.register.schemas"), "{refused:?}");
    copy(&kafka, ("avro", avro()), ("avro-out", written.clone().schema(TEST))).await.unwrap();
    // Without a schema: with the latest; the type is not what that says.
    copy(&kafka, ("avro", avro()), ("avro-out", written.clone())).await.unwrap();
    assert_eq!(bytes(&broker, "avro-out").len(), 3);
    let e = copy(&kafka, ("avro", avro()), ("other-out", written)).await.unwrap_err();
    assert_eq!((e.kind(), e.hint_text().is_some()), (Kind::Data, true), "{e:?}");
    // Nobody there, and not a registry.
    server.line().cut();
    let e = copy(&kafka, ("avro", Avro::<Test>::new(&Registry::at(&server.url_of_line()))), ("avro-out", avro())).await;
    let e = e.unwrap_err();
    assert!(e.kind() == Kind::Unavailable && e.to_string().contains("schema-registry.url"), "{e}");
    let wrong = server.url().replace("v7", "v0");
    let e = copy(&kafka, ("avro", Avro::<Test>::new(&Registry::at(&wrong))), ("avro-out", avro())).await.unwrap_err();
    assert!(e.kind() == Kind::Config && e.hint_text().unwrap().contains("schema-registry.url"), "{e:?}");
    // The second address is asked where the first is silent.
    let both = Registry::at(&format!("{},{}", server.url_of_line(), server.url()));
    copy(&kafka, ("avro", Avro::<Test>::new(&both)), ("avro-out", avro())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_change_while_a_job_runs_and_records_wait_for_a_registry_that_is_away() {
    let (broker, server) = (Broker::start().unwrap(), Server::start().unwrap());
    let (judge, kafka) = (broker.judge().unwrap(), Kafka::at(broker.bootstrap()));
    let registry = Registry::at(&server.url_of_line());
    judge.create_topic("avro", 1, &[]).unwrap();
    let first = register(&server, "avro-value", TEST, "AVRO");
    let folder = tempfile::tempdir().unwrap();
    let (plain, shaped) = (Collect::new(), Collect::new());
    let job = Job::new("follow", settings(folder.path()));
    job.source("plain", kafka.source("avro", Avro::<Test>::new(&registry))).sink("plain-out", plain.clone());
    let into = Avro::<Test2>::new(&registry).schema(TEST_2);
    job.source("shaped", kafka.source("avro", into)).sink("shaped-out", shaped.clone());
    let handle = job.start().unwrap();
    judge.produce("avro", &[framed(first, FOO)]).unwrap();
    assert_eq!(collected("the first record", &plain, 1).await, [test(27)]);
    assert_eq!(collected("the first record, shaped", &shaped, 1).await, [Test2 { a: 27, c: 5, b: "foo".into() }]);

    // A new field with a default: the types that do not know it read on.
    let second = register(&server, "avro-value", TEST_2, "AVRO");
    let with_c = [&FOO[..1], &[14], &FOO[1..]].concat();
    judge.produce("avro", &[framed(second, &with_c), framed(first, FOO)]).unwrap();
    assert_eq!(collected("the second schema", &plain, 2).await, [test(27), test(27)]);
    assert_eq!(
        collected("the second schema, shaped", &shaped, 2).await.iter().map(|t| t.c).collect::<Vec<_>>(),
        [7, 5]
    );

    // The registry goes, and a third schema comes: nothing is skipped, nothing fails, and checkpoints go on.
    let third = register(&server, "other-value", &TEST.replace("\"long\"", "\"int\""), "AVRO");
    server.line().cut();
    judge.produce("avro", &[framed(first, FOO), framed(third, &[2, 0]), framed(first, FOO)]).unwrap();
    assert_eq!(collected("before the third schema", &plain, 1).await, [test(27)]);
    while server.line().refused() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handle.checkpoint_now().await.unwrap();
    assert!(plain.is_empty(), "{:?}", plain.take());
    // Killed and started again meanwhile, it stands before the same record.
    handle.cancel().await.unwrap();
    server.line().heal();
    let (plain, shaped) = (Collect::new(), Collect::new());
    let job = Job::new("follow", settings(folder.path()));
    job.source("plain", kafka.source("avro", Avro::<Value>::new(&registry)))
        .map(|v| v["a"].as_i64())
        .sink("plain-out", plain.clone());
    let into = Avro::<Test2>::new(&registry).schema(TEST_2);
    job.source("shaped", kafka.source("avro", into)).sink("shaped-out", shaped.clone());
    let handle = job.start().unwrap();
    assert_eq!(collected("the third schema", &plain, 2).await, [Some(1), Some(27)]);
    let shaped = collected("the third schema, shaped", &shaped, 2).await;
    assert_eq!(shaped.iter().map(|t| (t.a, t.c)).collect::<Vec<_>>(), [(1, 5), (27, 5)]);

    // Away once more, and back without a restart.
    let fourth = TEST.replace(r#""string"}"#, r#""string"}, {"name": "d", "type": "int"}"#);
    let fourth = register(&server, "more-value", &fourth, "AVRO");
    server.line().cut();
    judge.produce("avro", &[framed(fourth, &[2, 0, 9]), framed(first, FOO)]).unwrap();
    let refused = server.line().refused();
    while server.line().refused() < refused + 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(plain.is_empty());
    server.line().heal();
    assert_eq!(collected("the fourth schema", &plain, 2).await, [Some(1), Some(27)]);
    assert_eq!(handle.status().restarts, 0);
    handle.cancel().await.unwrap();

    // As deep as the stack is not: the record is refused, and the process lives.
    let list = r#"{"type": "record", "name": "list", "fields": [{"name": "next", "type": ["null", "list"]}]}"#;
    let list = register(&server, "list-value", list, "AVRO");
    let deep = [&[0][..], &list.to_be_bytes(), &vec![2; 1_000_000], &[0]].concat();
    let lists = Avro::<Value>::new(&registry);
    let Err(NotDecoded::Yet(wait)) = lists.decode(&Message::of(&deep)) else { panic!("the schema is not known") };
    wait.await.unwrap();
    let Err(NotDecoded::Ever(why)) = lists.decode(&Message::of(&deep)) else { panic!("it has been read") };
    assert!(why.contains("deeper"), "{why}");
}

/// What is asked for and not had in time is an error of the registry's and not of the record's.
#[tokio::test]
async fn whoever_waits_for_a_registry_gives_up_in_the_end() {
    let registry = Registry::at("http://127.0.0.1:9").give_up_after(Duration::from_millis(150));
    let value = [&[0, 0, 0, 0, 7][..], FOO].concat();
    let Err(NotDecoded::Yet(wait)) = Avro::<Test>::new(&registry).decode(&Message::of(&value)) else {
        panic!("it should wait");
    };
    let e = wait.await.unwrap_err();
    assert!(e.kind() == Kind::Unavailable && e.to_string().contains("schema-registry.url"), "{e}");
}
