//! The testbed against itself: a real broker does what the tests of the engine will rely on. A double that is
//! wrong shows green where it should show red; so would a testbed whose kill does not kill or whose proxy lets all
//! replies through, and that is what is tried here. A start costs a second and 300 MB: few brokers, many steps.
#![allow(clippy::disallowed_methods, reason = "no engine code: real processes and the real clock")]
#![allow(clippy::unwrap_used, reason = "a test may")]
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tidegate_testbed::kafka::{Action, Broker, End, Isolation, Judge, Read, Record, Settings, api};

fn texts(judge: &Judge, topic: &str, isolation: Isolation) -> Vec<String> {
    judge.read(topic, isolation).unwrap().iter().map(Read::text).collect()
}

fn ends(judge: &Judge, topic: &str) -> Vec<(i64, i64, i64)> {
    judge.offsets(topic).unwrap().iter().map(|o| (o.earliest, o.last_stable, o.high_watermark)).collect()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < limit, "not within 30 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_was_committed_is_there_and_nothing_else_even_after_a_kill() {
    let mut broker = Broker::start().unwrap();
    let judge = broker.judge().unwrap();
    judge.create_topic("t", 1, &[]).unwrap();
    let plain = Record::new("k", "plain").at(7).header("h", [1, 2]);
    let placed = judge.produce("t", std::slice::from_ref(&plain)).unwrap();
    assert_eq!((placed[0].partition, placed[0].offset), (0, 0));
    judge.produce_transaction("tx-a", "t", &[Record::value("aborted")], End::Abort).unwrap();
    judge.produce_transaction("tx-c", "t", &[Record::value("committed")], End::Commit).unwrap();
    judge.leave_open_transaction("tx-o", "t", &[Record::value("open")]).unwrap();
    judge.produce("t", &[Record::value("behind")]).unwrap();

    assert_eq!(texts(judge, "t", Isolation::ReadCommitted), ["plain", "committed"]);
    assert_eq!(texts(judge, "t", Isolation::ReadUncommitted), ["plain", "aborted", "committed", "open", "behind"]);
    // A record, two records with their markers, the open one at 5, and the one behind it.
    assert_eq!(ends(judge, "t"), [(0, 5, 7)]);
    let open = |judge: &Judge| judge.transactions().unwrap().into_iter().find(|t| t.id == "tx-o").unwrap().state;
    assert_eq!(open(judge), "Ongoing");
    judge.end_transaction("tx-o", End::Commit).unwrap();
    assert!(judge.end_transaction("tx-o", End::Commit).unwrap_err().contains("tx-o"));
    until("the marker is written", || ends(judge, "t") == [(0, 8, 8)]);
    assert_eq!(texts(judge, "t", Isolation::ReadCommitted), ["plain", "committed", "open", "behind"]);

    let read = &judge.read("t", Isolation::ReadCommitted).unwrap()[0];
    assert_eq!((&read.key, read.timestamp, &read.headers), (&plain.key, 7, &plain.headers));
    judge.commit_offsets("group", "t", &[(0, 3)]).unwrap();
    assert_eq!(judge.group_offsets("group").unwrap(), [("t".to_owned(), 0, 3)]);

    let (pid, bootstrap) = (broker.pid().unwrap(), broker.bootstrap().to_owned());
    broker.kill();
    assert!(broker.pid().is_none() && !Path::new(&format!("/proc/{pid}")).exists());
    broker.restart().unwrap();
    assert!(broker.bootstrap() == bootstrap && broker.pid().unwrap() != pid);
    let judge = broker.judge().unwrap();
    assert_eq!(texts(judge, "t", Isolation::ReadCommitted), ["plain", "committed", "open", "behind"]);
    assert_eq!(judge.group_offsets("group").unwrap(), [("t".to_owned(), 0, 3)]);

    judge.delete_records("t", 0, 3).unwrap();
    judge.add_partitions("t", 2).unwrap();
    until("the second partition is there", || judge.offsets("t").is_ok_and(|o| o.len() == 2));
    assert_eq!(ends(judge, "t")[0].0, 3);
    broker.stop();
    broker.restart().unwrap();
    let judge = broker.judge().unwrap();
    assert_eq!(texts(judge, "t", Isolation::ReadCommitted), ["committed", "open", "behind"]);
    judge.delete_topic("t").unwrap();
    until("the topic is gone", || judge.offsets("t").is_err_and(|why| why.contains("UnknownTopic")));
}

#[test]
fn keys_go_where_the_java_client_sends_them() {
    let broker = Broker::start().unwrap();
    let judge = broker.judge().unwrap();
    // Known hashes of Kafka's own test of murmur2, without their sign, modulo.
    for (key, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)] {
        assert_eq!(judge.partition_of(key.as_bytes(), 12).unwrap(), (hash & 0x7fff_ffff) % 12, "{key}");
    }
    judge.create_topic("t", 12, &[]).unwrap();
    let placed = judge.produce("t", &[Record::new("foobar", "")]).unwrap();
    assert_eq!(placed[0].partition, judge.partition_of(b"foobar", 12).unwrap());
    let error = judge.create_topic("t", 1, &[]).unwrap_err();
    assert!(error.contains("already exists"), "{error}");
    let error = judge.produce("t", &[Record::value(vec![0; 2 << 20])]).unwrap_err();
    assert!(error.contains("RecordTooLarge"), "{error}");
    // And what is read after an error is the reply to what was asked after it.
    assert_eq!(judge.read("t", Isolation::ReadCommitted).unwrap().len(), 1);
}

#[test]
fn a_lost_reply_is_asked_for_again_and_changes_nothing() {
    let broker = Broker::with(Settings::proxied).unwrap();
    let (proxy, judge) = (broker.proxy().unwrap(), broker.judge().unwrap());
    judge.create_topic("t", 1, &[]).unwrap();
    let through = Judge::start(proxy.bootstrap()).unwrap();
    proxy.on(api::END_TXN, Action::DropReply);
    proxy.on(api::PRODUCE, Action::DropReply);
    through.produce_transaction("tx", "t", &[Record::value("once")], End::Commit).unwrap();
    assert_eq!((proxy.fired(api::END_TXN), proxy.fired(api::PRODUCE)), (1, 1));
    assert_eq!((proxy.seen(api::END_TXN), proxy.seen(api::PRODUCE)), (2, 2));
    assert_eq!(texts(judge, "t", Isolation::ReadCommitted), ["once"]);
    proxy.cut();
    proxy.heal();
    through.produce("t", &[Record::value("again")]).unwrap();
    assert_eq!(texts(judge, "t", Isolation::ReadCommitted), ["once", "again"]);
}

#[test]
fn a_broker_that_cannot_start_says_why() {
    let why = Broker::with(|settings| settings.property("num.io.threads", "many")).err().unwrap();
    assert!(why.contains("it has ended") && why.contains("num.io.threads"), "{why}");
}

const OWNER: &str = "TIDEGATE_TESTBED_OWNER";

/// No test by itself: the process that the next one kills.
#[test]
fn owner() {
    if env::var_os(OWNER).is_some() {
        let broker = Broker::start().unwrap();
        println!("owns {} {}", broker.pid().unwrap(), broker.log().parent().unwrap().display());
        loop {
            thread::park();
        }
    }
}

#[test]
fn a_broker_does_not_outlive_its_owner() {
    let mut owner = Command::new(env::current_exe().unwrap());
    owner.args(["owner", "--exact", "--nocapture"]).env(OWNER, "1").stdout(Stdio::piped());
    let mut owner = owner.spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.split_once("owns ").map(|(_, owned)| owned.to_owned())).unwrap();
    let (pid, folder) = line.split_once(' ').unwrap();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap() && fs::exists(folder).unwrap());
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the node and its folder are gone", || {
        !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false) && !fs::exists(folder).unwrap()
    });
}
