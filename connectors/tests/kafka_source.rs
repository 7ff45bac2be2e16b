//! The source against a real Kafka, whose own Java client says what there is to read.
//!
//! What a double could not show is what librdkafka and the broker make of aborted transactions, of ends at which
//! nothing stands, of offsets and topics that vanish, and of a broker's death. One broker serves all tests but the
//! one that kills it; each has topics of its own.
#![cfg(feature = "kafka")]
#![allow(clippy::disallowed_methods, reason = "a real server and the real clock")]
#![allow(clippy::unwrap_used, reason = "a test may")]
use serde_json::Value;
use std::{
    future::poll_fn,
    sync::OnceLock,
    time::{Duration, Instant},
};
use tidegate_connectors::kafka::{
    Decode, Gap, Json, Kafka, KafkaReader, KafkaSource, Record as Got, Start, Utf8, Whole, offsets,
};
use tidegate_core::{
    Kind, Result,
    connect::{Progress, Source, Split, SplitReader},
    testkit::source::{Taken, read, read_all, read_in_pieces},
};
use tidegate_testbed::kafka::{Broker, End, Isolation, Judge, Record};

fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    // Its process ends with this one.
    BROKER.get_or_init(|| Broker::start().unwrap())
}
fn judge() -> &'static Judge {
    broker().judge().unwrap()
}
fn kafka() -> Kafka {
    Kafka::at(broker().bootstrap())
}

fn values(range: std::ops::Range<u32>) -> Vec<Record> {
    range.map(|n| Record::value(format!("{n}")).to(0)).collect()
}
fn numbers(taken: &Taken<String>) -> Vec<u32> {
    taken.records.iter().map(|text| text.parse().unwrap()).collect()
}
fn split(id: &str) -> Split {
    Split::new(id)
}
async fn ids<S: Source>(source: &S) -> Vec<String> {
    source.discover().await.unwrap().into_iter().map(|split| split.id).collect()
}

/// Reads until so many records are there, or the end.
async fn take<C: Decode>(reader: &mut KafkaReader<C>, count: usize) -> Result<(Vec<C::Item>, bool)> {
    let mut taken = Taken::new();
    while taken.len() < count {
        match reader.fill(count - taken.len(), &mut taken)? {
            Progress::More => {}
            Progress::Wait | Progress::Held => poll_fn(|cx| reader.poll_ready(cx)).await?,
            Progress::End => return Ok((taken.records, true)),
        }
    }
    Ok((taken.records, false))
}

/// Reads what is there: until nothing comes for a second.
async fn drain<C: Decode>(reader: &mut KafkaReader<C>) -> Result<Vec<C::Item>> {
    let mut taken = Taken::new();
    loop {
        match reader.fill(100, &mut taken)? {
            Progress::More => {}
            Progress::Wait | Progress::Held => {
                let ready = poll_fn(|cx| reader.poll_ready(cx));
                match tokio::time::timeout(Duration::from_secs(1), ready).await {
                    Ok(ready) => ready?,
                    Err(_) => return Ok(taken.records),
                }
            }
            Progress::End => return Ok(taken.records),
        }
    }
}

/// For records of long ago: half a minute after it has begun, a broker looks for what is older than a week.
const FOR_EVER: (&str, &str) = ("retention.ms", "-1");

/// Two partitions of plain, aborted and committed records, with headers and keys; partition 1 ends in an abort.
fn mixed(topic: &str) {
    judge().create_topic(topic, 2, &[FOR_EVER]).unwrap();
    let some = |from: u32, partition: i32| -> Vec<Record> {
        (from..from + 3)
            .map(|n| {
                Record::new(format!("k{n}"), format!("v{n}"))
                    .to(partition)
                    .header("n", n.to_string())
                    .at(1000 + i64::from(n))
            })
            .collect()
    };
    for partition in 0..2 {
        judge().produce(topic, &some(0, partition)).unwrap();
        judge().produce_transaction(&format!("{topic}-a"), topic, &some(10, partition), End::Abort).unwrap();
        judge().produce_transaction(&format!("{topic}-c"), topic, &some(20, partition), End::Commit).unwrap();
        judge().produce(topic, &some(30, partition)).unwrap();
    }
    judge().produce_transaction(&format!("{topic}-a"), topic, &some(40, 1), End::Abort).unwrap();
}

type Flat = (i64, i64, Option<Vec<u8>>, String, Vec<(String, Option<Vec<u8>>)>);

fn expected(topic: &str, partition: i32, isolation: Isolation) -> Vec<Flat> {
    let read = judge().read(topic, isolation).unwrap();
    read.into_iter()
        .filter(|r| r.partition == partition)
        .map(|r| (r.offset, r.timestamp, r.key.clone(), r.text(), r.headers))
        .collect()
}
fn flat(records: Vec<Got<String>>) -> Vec<Flat> {
    records.into_iter().map(|r| (r.offset, r.timestamp_ms.unwrap(), r.key, r.value, r.headers)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_committed_record_comes_once_wherever_a_reader_is_stopped() {
    mixed("mixed");
    let committed = kafka().source("mixed", Whole(Utf8)).available_now();
    let all = committed.clone().read_uncommitted();
    let splits = committed.discover().await.unwrap();
    assert_eq!(splits.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["mixed/0", "mixed/1"]);
    assert_eq!(splits.iter().map(|s| s.length.unwrap()).collect::<Vec<_>>(), [14, 18]);
    for (partition, split) in (0..).zip(&splits) {
        let there = expected("mixed", partition, Isolation::ReadCommitted);
        assert_eq!(there.len(), 9);
        assert_eq!(flat(read_all(&committed, split).await.unwrap().records), there);
        // Stopped at every record.
        for pieces in [&[1][..], &[2, 1, 4]] {
            assert_eq!(flat(read_in_pieces(&committed, split, pieces, 2).await.unwrap().records), there, "{pieces:?}");
        }
        let there = expected("mixed", partition, Isolation::ReadUncommitted);
        assert_eq!(flat(read_all(&all, split).await.unwrap().records), there);
    }
    // At its end a reader stands behind what is not seen.
    let (position, ended) = read(&committed, &splits[1], None, 99, 99, &mut Taken::new()).await.unwrap();
    assert!(ended && position["offset"] == 18 && position["end"] == 18, "{position}");
    let mut reader = kafka().source("mixed", Utf8).open(split("mixed/1"), None).await.unwrap();
    assert_eq!(drain(&mut reader).await.unwrap().len(), 9);
    assert_eq!((reader.position()["offset"].as_i64(), reader.lag()), (Some(18), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_available_now_ends_before_an_open_transaction_and_stays_so_over_restarts() {
    judge().create_topic("now", 1, &[]).unwrap();
    judge().produce("now", &values(0..5)).unwrap();
    judge().leave_open_transaction("now-open", "now", &values(5..7)).unwrap();
    judge().produce("now", &values(7..9)).unwrap();
    let source = kafka().source("now", Utf8).available_now();
    let mut taken = Taken::new();
    let (position, ended) = read(&source, &split("now/0"), None, 3, 9, &mut taken).await.unwrap();
    assert!(!ended && position["end"] == 5, "{position}");
    judge().end_transaction("now-open", End::Commit).unwrap();
    judge().produce("now", &values(9..10)).unwrap();
    // A broker answers a commit before its partitions have heard of it.
    while judge().has_open("now").unwrap() {}
    let (position, ended) = read(&source, &split("now/0"), Some(position), 99, 9, &mut taken).await.unwrap();
    assert_eq!((numbers(&taken), ended), ((0..5).collect(), true));
    // A restart ends there too; the job's next run does not.
    assert!(read(&source, &split("now/0"), Some(position.clone()), 99, 9, &mut taken).await.unwrap().1);
    assert_eq!(taken.len(), 5);
    let mut reader = source.open_again(split("now/0"), position).await.unwrap();
    let (more, ended) = take(&mut reader, 99).await.unwrap();
    assert_eq!((more, ended), ((5..10).map(|n| n.to_string()).collect(), true));
    // A partition that has come since is read as far as it goes when it is first seen.
    let mut reader = source.open_new(split("now/0")).await.unwrap();
    let (all, ended) = take(&mut reader, 99).await.unwrap();
    assert_eq!((all, ended), ((0..10).map(|n| n.to_string()).collect(), true));

    let bounded = kafka().source("now", Utf8).until(offsets([("now", 0, 4)]));
    assert_eq!(bounded.discover().await.unwrap()[0].length, Some(4));
    assert_eq!(numbers(&read_all(&bounded, &split("now/0")).await.unwrap()), [0, 1, 2, 3]);
    let error = kafka().source("now", Utf8).until(offsets([("now", 3, 4)])).discover().await.unwrap_err();
    assert!(error.kind() == Kind::Config && error.to_string().contains("now/3"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_begins_where_it_is_told() {
    judge().create_topic("begin", 1, &[FOR_EVER]).unwrap();
    let records: Vec<_> = (0..10).map(|n| Record::value(n.to_string()).to(0).at(1_700_000_000_000 + n)).collect();
    judge().produce("begin", &records).unwrap();
    judge().commit_offsets("begin-group", "begin", &[(0, 7)]).unwrap();
    let first = async |start, group: &str| {
        let source = kafka().source("begin", Utf8).from(start).group(group).available_now();
        let mut reader = source.open(split("begin/0"), None).await?;
        take(&mut reader, 99).await.map(|(records, _)| records.first().cloned())
    };
    for (start, group, found) in [
        (Start::Earliest, "g", Some("0")),
        (Start::Latest, "g", None),
        (Start::Timestamp(1_700_000_000_004), "g", Some("4")),
        (Start::Timestamp(1_800_000_000_000), "g", None),
        (Start::Group, "begin-group", Some("7")),
        (Start::Group, "begin-nobody", Some("0")),
        (Start::GroupOrLatest, "begin-nobody", None),
        (Start::Offsets(offsets([("begin", 0, 6)])), "g", Some("6")),
    ] {
        assert_eq!(first(start.clone(), group).await.unwrap().as_deref(), found, "{start:?}");
    }
    // An attempt that fails before the first checkpoint does not move the beginning.
    let source = kafka().source("begin", Utf8).from(Start::Latest);
    drop(source.open(split("begin/0"), None).await.unwrap());
    judge().produce("begin", &values(10..12)).unwrap();
    let mut reader = source.open(split("begin/0"), None).await.unwrap();
    assert_eq!(take(&mut reader, 2).await.unwrap().0, ["10", "11"]);
    assert_eq!(first(Start::GroupOrFail, "begin-nobody").await.unwrap_err().kind(), Kind::Config);
    assert_eq!(first(Start::Offsets(offsets([("begin", 0, 13)])), "g").await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_and_topics_are_found_and_read_from_their_beginning() {
    judge().create_topic("grow-a", 1, &[]).unwrap();
    judge().produce("grow-a", &values(0..3)).unwrap();
    let source = kafka().source_matching("grow-*", Utf8).from(Start::Latest);
    assert_eq!(ids(&source).await, ["grow-a/0"]);
    let mut old = source.open(split("grow-a/0"), None).await.unwrap();
    judge().create_topic("grow-b", 1, &[]).unwrap();
    judge().add_partitions("grow-a", 2).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while ids(&source).await != ["grow-a/0", "grow-a/1", "grow-b/0"] {
        assert!(Instant::now() < deadline, "{:?}", ids(&source).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    judge().produce("grow-b", &values(3..5)).unwrap();
    let mut new = source.open_new(split("grow-b/0")).await.unwrap();
    assert_eq!(take(&mut new, 2).await.unwrap().0, ["3", "4"]);
    judge().produce("grow-a", &values(5..6)).unwrap();
    assert_eq!(take(&mut old, 1).await.unwrap().0, ["5"]);
    // A reader of the attempt before may still be there.
    let mut again = source.open(split("grow-a/0"), Some(old.position())).await.unwrap();
    judge().produce("grow-a", &values(6..7)).unwrap();
    assert_eq!(take(&mut again, 1).await.unwrap().0, ["6"]);
    drop((new, old));
    judge().produce("grow-a", &values(7..8)).unwrap();
    assert_eq!(take(&mut again, 1).await.unwrap().0, ["7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_since_the_job_began_is_read_from_its_beginning_by_every_attempt() {
    judge().create_topic("since", 1, &[]).unwrap();
    judge().produce("since", &values(0..3)).unwrap();
    let source = kafka().source("since", Utf8).from(Start::Latest);
    assert_eq!(ids(&source).await, ["since/0"]);
    let old = source.open(split("since/0"), None).await.unwrap();
    judge().add_partitions("since", 3).unwrap();
    while judge().offsets("since").is_ok_and(|o| o.len() < 3) {}
    judge().produce("since", &[3, 4, 5].map(|n: i32| Record::value(n.to_string()).to(n - 3))).unwrap();
    let mut new = source.open_new(split("since/1")).await.unwrap();
    assert_eq!(take(&mut new, 1).await.unwrap().0, ["4"]);
    // Before the first checkpoint; this attempt has found one of the new ones, and the other it has not.
    drop((old, new));
    assert_eq!(ids(&source).await, ["since/0", "since/1", "since/2"]);
    for (id, text) in [("since/0", "3"), ("since/1", "4"), ("since/2", "5")] {
        let mut reader = source.open(split(id), None).await.unwrap();
        let taken = tokio::time::timeout(Duration::from_secs(10), take(&mut reader, 1)).await;
        assert_eq!(taken.unwrap_or_else(|_| panic!("nothing in {id}")).unwrap().0, [text]);
    }
    // What the attempt before has read is not passed over when it has been deleted since.
    judge().delete_records("since", 1, 1).unwrap();
    let error = source.open(split("since/1"), None).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}

/// A position behind the fifth of ten records.
async fn half(source: &KafkaSource<Utf8>, topic: &str) -> Value {
    judge().create_topic(topic, 1, &[]).unwrap();
    judge().produce(topic, &values(0..10)).unwrap();
    read(source, &split(&format!("{topic}/0")), None, 5, 5, &mut Taken::new()).await.unwrap().0
}

async fn recreate(topic: &str, records: std::ops::Range<u32>) {
    judge().delete_topic(topic).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = judge().create_topic(topic, 1, &[]) {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    judge().produce(topic, &values(records)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_has_vanished_is_an_error_unless_the_job_says_otherwise() {
    let source = kafka().source("gone", Utf8);
    let position = half(&source, "gone").await;
    judge().delete_records("gone", 0, 5).unwrap();
    assert!(source.open(split("gone/0"), Some(position.clone())).await.is_ok(), "everything unread is there");
    judge().delete_records("gone", 0, 8).unwrap();
    let error = source.open(split("gone/0"), Some(position.clone())).await.err().unwrap();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("Gap::Earliest"), "{error}");
    let tolerant = source.on_gap(Gap::Earliest);
    let mut reader = tolerant.open(split("gone/0"), Some(position)).await.unwrap();
    assert_eq!(take(&mut reader, 2).await.unwrap().0, ["8", "9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_is_another_one() {
    let source = kafka().source("again", Utf8);
    let position = half(&source, "again").await;
    let mut running = source.open(split("again/0"), Some(position.clone())).await.unwrap();
    assert_eq!(take(&mut running, 5).await.unwrap().0, ["5", "6", "7", "8", "9"]);
    recreate("again", 100..120).await;
    let error = source.open(split("again/0"), Some(position.clone())).await.err().unwrap();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("created again"), "{error}");
    let tolerant = source.clone().on_gap(Gap::Earliest);
    let mut reader = tolerant.open(split("again/0"), Some(position.clone())).await.unwrap();
    assert_eq!(take(&mut reader, 1).await.unwrap().0, ["100"]);
    // The one that reads notices too.
    let noticed = tokio::time::timeout(Duration::from_secs(40), async {
        loop {
            if let Err(error) = take(&mut running, 1).await {
                return error;
            }
        }
    });
    let error = noticed.await.unwrap();
    assert!(error.kind() == Kind::Corrupt, "{error}");

    judge().delete_topic("again").unwrap();
    let error = source.open(split("again/0"), Some(position.clone())).await.err().unwrap();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("again/0 is gone"), "{error}");
    let mut reader = tolerant.open(split("again/0"), Some(position.clone())).await.unwrap();
    assert_eq!((take(&mut reader, 1).await.unwrap(), reader.position()), ((vec![], true), position));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_overtakes_a_reader_fails_it() {
    judge().create_topic("overtaken", 1, &[]).unwrap();
    judge().produce("overtaken", &values(0..200)).unwrap();
    // One record at a time, so that it is far behind.
    let slow =
        kafka().set("queued.min.messages", "1").set("fetch.message.max.bytes", "100").set("fetch.max.bytes", "1000");
    let slow = slow.set("message.max.bytes", "1000");
    let source = slow.source("overtaken", Utf8);
    for _ in 0..200 {
        judge().produce("overtaken", &values(0..1)).unwrap();
    }
    let mut reader = source.open(split("overtaken/0"), None).await.unwrap();
    take(&mut reader, 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    judge().delete_records("overtaken", 0, 399).unwrap();
    let error = take(&mut reader, 500).await.err().unwrap();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("not there any more"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_says_where_it_is() {
    judge().create_topic("bad", 1, &[]).unwrap();
    let tombstone = Record { value: None, ..Record::new("k", "").to(0) };
    judge().produce("bad", &[Record::value("1").to(0), Record::value("x\u{e9}").to(0), tombstone]).unwrap();
    let source = kafka().source("bad", Json::<u32>::new()).available_now();
    let taken = read_in_pieces(&source, &split("bad/0"), &[1], 1).await.unwrap();
    assert_eq!(taken.records, [1]);
    let [first, second] = &taken.undecodable[..] else { panic!("{taken:?}") };
    assert_eq!((&*first.split, &*first.place, &*first.raw), ("bad/0", "offset 1", "x\u{e9}"));
    assert!(second.reason.contains("tombstone") && second.place == "offset 2", "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_at_once() {
    let error = kafka().source("nowhere", Utf8).discover().await.unwrap_err();
    assert!(error.kind() == Kind::Config && error.to_string().contains("\"nowhere\""), "{error}");
    let error = kafka().source("no name", Utf8).discover().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    let error = kafka().source_matching("nowhere-*", Utf8).available_now().discover().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(ids(&kafka().source_matching("nowhere-*", Utf8)).await.is_empty());
    // Nobody listens at a port that has just been free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let began = Instant::now();
    let error = Kafka::at(&format!("127.0.0.1:{port}")).source("t", Utf8).discover().await.unwrap_err();
    assert!(error.kind() == Kind::Unavailable && error.to_string().contains("kafka.bootstrap.servers"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_may_be_named_twice_and_not_be_named_what_none_can_be() {
    judge().create_topic("twice", 1, &[]).unwrap();
    assert_eq!(ids(&kafka().source_of(["twice", "twice"], Utf8)).await, ["twice/0"]);
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a b", "a/b", "\u{fc}", "a\0b", &long] {
        for source in [kafka().source(name, Utf8), kafka().source_matching(name, Utf8)] {
            let error = source.discover().await.unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{error}");
            assert!(error.to_string().contains("no topic can have the name"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_committed_to_the_group_for_those_who_watch() {
    mixed("watched");
    let source = kafka().source("watched", Utf8).group("watchers").available_now();
    let mut positions = Vec::new();
    for split in source.discover().await.unwrap() {
        let (position, ended) = read(&source, &split, None, 99, 99, &mut Taken::new()).await.unwrap();
        assert!(ended);
        positions.push((split.id, position));
    }
    source.committed(positions).await.unwrap();
    let found = judge().group_offsets("watchers").unwrap();
    let ends = judge().offsets("watched").unwrap();
    let ends: Vec<_> = ends.iter().map(|o| ("watched".to_owned(), o.partition, o.high_watermark)).collect();
    assert_eq!(found, ends, "no lag is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_and_comes_back_is_waited_for() {
    let mut broker = Broker::start().unwrap();
    let (kafka, topics) = (Kafka::at(broker.bootstrap()), ["t", "u"]);
    for topic in topics {
        broker.judge().unwrap().create_topic(topic, 1, &[]).unwrap();
        broker.judge().unwrap().produce(topic, &values(0..10)).unwrap();
    }
    let source = kafka.source_of(topics, Utf8);
    let mut readers = Vec::new();
    for split in source.discover().await.unwrap() {
        readers.push(source.open(split, None).await.unwrap());
    }
    for reader in &mut readers {
        assert_eq!(take(reader, 10).await.unwrap().0.len(), 10);
    }
    broker.kill();
    for reader in &mut readers {
        assert_eq!(drain(reader).await.unwrap(), Vec::<String>::new());
    }
    // Nothing new is found meanwhile, and that is no error.
    assert_eq!(ids(&source).await, ["t/0", "u/0"]);
    broker.restart().unwrap();
    for topic in topics {
        broker.judge().unwrap().produce(topic, &values(10..20)).unwrap();
    }
    for reader in &mut readers {
        assert_eq!(take(reader, 10).await.unwrap().0[0], "10");
    }
    // But not for ever.
    let hasty = source.clone().give_up_after(Duration::from_secs(5));
    let mut reader = hasty.open(split("t/0"), None).await.unwrap();
    assert_eq!(drain(&mut reader).await.unwrap().len(), 20);
    broker.kill();
    let error = tokio::time::timeout(Duration::from_secs(45), take(&mut reader, 1)).await.unwrap().err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_waits_for_topics_waits_also_for_its_broker() {
    let mut broker = Broker::start().unwrap();
    let source = Kafka::at(broker.bootstrap()).source_matching("x-*", Utf8).discover_every(Duration::from_millis(100));
    let hasty = source.clone().give_up_after(Duration::from_secs(5));
    assert!(ids(&source).await.is_empty() && ids(&hasty).await.is_empty());
    broker.kill();
    let late = source.clone();
    let (found, given_up, late) = tokio::join!(source.discover(), hasty.discover(), late.discover());
    assert_eq!(found.unwrap(), [], "nothing is new meanwhile");
    for error in [given_up.unwrap_err(), late.expect_err("a job that starts is told at once")] {
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
    broker.restart().unwrap();
    broker.judge().unwrap().create_topic("x-a", 1, &[]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while ids(&source).await.is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((ids(&source).await, ids(&hasty).await), (vec!["x-a/0".to_owned()], vec!["x-a/0".to_owned()]));
}
