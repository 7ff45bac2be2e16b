//! The testbed's Redis against itself: what it has confirmed is there after a kill, what it was told not to keep is not,
//! a cluster serves its slots, and sentinels fail over. On these the tests of the engine rely.
#![allow(clippy::disallowed_methods, reason = "no engine code: real processes and the real clock")]
#![allow(clippy::unwrap_used, reason = "a test may")]
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tidegate_testbed::{
    redis::{Client, Cluster, Fault, Options, Proxy, Redis, Sentinels, Value},
    without::left_out,
};

fn text(redis: &Redis, words: &[&str]) -> String {
    redis.ask(words).unwrap().text().unwrap()
}

#[test]
fn what_was_confirmed_is_there_after_a_kill() {
    if left_out("redis") {
        return;
    }
    let mut redis = Redis::start(&Options::default()).unwrap();
    let mut client = redis.client().unwrap();
    for n in 0..100 {
        client.ask(&["SET", &format!("key {n}"), &n.to_string()]).unwrap();
    }
    // The judge of durability itself: this server knows it, and one disk has it.
    assert_eq!(client.ask(&["WAITAOF", "1", "0", "1000"]).unwrap().list()[0], Value::Integer(1));
    assert!(client.ask(&["NOTHING"]).unwrap_err().contains("unknown command"));
    let (pid, address) = (redis.pid().unwrap(), redis.address());
    redis.kill();
    assert!(redis.pid().is_none() && !fs::exists(format!("/proc/{pid}")).unwrap());
    assert!(client.ask(&["PING"]).is_err() && Client::connect(&address).is_err());
    redis.restart().unwrap();
    assert!(redis.address() == address && redis.pid().unwrap() != pid);
    assert_eq!(redis.ask(&["DBSIZE"]).unwrap(), Value::Integer(100));
    redis.stop();
    redis.restart().unwrap();
    assert_eq!(text(&redis, &["GET", "key 99"]), "99");
    redis.ask(&["FLUSHALL"]).unwrap();
    assert_eq!(redis.ask(&["GET", "key 99"]).unwrap(), Value::Nil);
}

#[test]
fn what_it_is_told_to_lose_it_loses() {
    if left_out("redis") {
        return;
    }
    let evicting = Options::default().in_memory().set("maxmemory", "2mb").set("maxmemory-policy", "allkeys-lru");
    let mut redis = Redis::start(&evicting).unwrap();
    let mut client = redis.client().unwrap();
    for n in 0..400 {
        client.ask(&["SET", &n.to_string(), &"x".repeat(20_000)]).unwrap();
    }
    let left = redis.ask(&["DBSIZE"]).unwrap().integer().unwrap();
    assert!((1..400).contains(&left) && redis.info("evicted_keys").unwrap() != "0", "{left}");
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    let full = (0..400).find_map(|n| client.ask(&["SET", &format!("more {n}"), &"x".repeat(20_000)]).err());
    assert!(full.unwrap().contains("OOM"));
    redis.kill();
    redis.restart().unwrap();
    assert_eq!(redis.ask(&["DBSIZE"]).unwrap(), Value::Integer(0));
}

#[test]
fn who_has_no_right_is_refused() {
    if left_out("redis") {
        return;
    }
    let options = Options::default().password("secret").user("reader", "word", "~a:* +get");
    let redis = Redis::start(&options).unwrap();
    redis.ask(&["SET", "a:1", "value"]).unwrap();
    let mut client = Client::connect(&redis.address()).unwrap();
    assert!(client.ask(&["GET", "a:1"]).unwrap_err().contains("NOAUTH"));
    assert!(client.ask(&["AUTH", "reader", "wrong"]).unwrap_err().contains("WRONGPASS"));
    client.ask(&["AUTH", "reader", "word"]).unwrap();
    assert_eq!(client.ask(&["GET", "a:1"]).unwrap().text().unwrap(), "value");
    for refused in [&["GET", "b:1"][..], &["SET", "a:1", "other"]] {
        assert!(client.ask(refused).unwrap_err().contains("NOPERM"));
    }
    let why = Redis::start(&Options::default().set("appendfsync", "perhaps")).err().unwrap();
    assert!(why.contains("it has ended") && why.contains("perhaps"), "{why}");
}

#[test]
fn the_proxy_loses_what_the_server_has_done() {
    if left_out("redis") {
        return;
    }
    let redis = Redis::start(&Options::default()).unwrap();
    let proxy = Proxy::to(redis.port()).unwrap();
    let connect = || Client::connect(&proxy.address().to_string()).unwrap();
    proxy.on("INCR n", 1, Fault::LoseReply);
    assert!(connect().ask(&["incr", "n"]).is_err());
    // Who asks again without knowing counts twice.
    assert_eq!(connect().ask(&["INCR", "n"]).unwrap(), Value::Integer(2));
    proxy.on("INCR", 1, Fault::LoseRequest);
    assert!(connect().ask(&["INCR", "n"]).is_err());
    proxy.on("", 1, Fault::Answer("LOADING for a while".into()));
    let mut client = connect();
    assert!(client.ask(&["INCR", "n"]).unwrap_err().contains("LOADING"));
    assert_eq!(client.ask(&["INCR", "n"]).unwrap(), Value::Integer(3));
    assert_eq!((proxy.fired(), proxy.seen("INCR n").len()), (3, 5));
}

#[test]
fn a_cluster_sends_clients_where_the_slot_is() {
    if left_out("redis") {
        return;
    }
    let mut cluster = Cluster::start(&Options::default()).unwrap();
    let slot = cluster.slot_of("foo").unwrap();
    assert_eq!((slot, cluster.owner_of(slot).unwrap()), (12_182, 2));
    assert_eq!([0, 5_461, 16_383].map(|slot| cluster.owner_of(slot).unwrap()), [0, 1, 2]);
    let [first, _, last] = cluster.nodes() else { panic!("three nodes") };
    let moved = first.ask(&["SET", "foo", "value"]).unwrap_err();
    assert!(moved.contains(&format!("MOVED 12182 {}", last.address())), "{moved}");
    last.ask(&["SET", "foo", "value"]).unwrap();
    cluster.move_slot(slot, 0).unwrap();
    assert!(last.ask(&["GET", "foo"]).unwrap_err().contains("MOVED"));
    assert_eq!(cluster.owner_of(slot).unwrap(), 0);
    cluster.nodes_mut()[0].kill();
    cluster.nodes_mut()[0].restart().unwrap();
    cluster.wait_ready().unwrap();
    assert_eq!(text(&cluster.nodes()[0], &["GET", "foo"]), "value");
}

#[test]
fn sentinels_put_the_replica_in_the_masters_place() {
    if left_out("redis") {
        return;
    }
    for count in [1, 3] {
        let mut set = Sentinels::start(count, &Options::default().password("secret")).unwrap();
        let first = set.master().unwrap().address();
        set.master().unwrap().ask(&["SET", "key", "value"]).unwrap();
        set.master().unwrap().ask(&["WAIT", "1", "10000"]).unwrap();
        set.fail_over().unwrap();
        let master = set.master().unwrap();
        assert!(master.address() != first && set.addresses().len() == count);
        assert_eq!(text(master, &["GET", "key"]), "value");
        set.heal().unwrap();
        let [old, new] = set.servers_mut();
        assert!(old.ask(&["SET", "key", "other"]).unwrap_err().contains("READONLY"));
        new.ask(&["SET", "key", "other"]).unwrap();
    }
}

const OWNER: &str = "TIDEGATE_TESTBED_OWNER";

/// No test by itself: the process that the next one kills.
#[test]
fn owner() {
    if env::var_os(OWNER).is_some() {
        let (redis, mut dead) =
            (Redis::start(&Options::default()).unwrap(), Redis::start(&Options::default()).unwrap());
        dead.kill();
        println!("owns {} {} {}", redis.pid().unwrap(), redis.folder().display(), dead.folder().display());
        loop {
            thread::park();
        }
    }
}

#[test]
fn nothing_outlives_an_owner_that_is_killed() {
    if left_out("redis") {
        return;
    }
    let mut owner = Command::new(env::current_exe().unwrap());
    owner.args(["owner", "--exact", "--nocapture"]).env(OWNER, "1").stdout(Stdio::piped());
    let mut owner = owner.spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.split_once("owns ").map(|(_, owned)| owned.to_owned())).unwrap();
    let [pid, folder, other] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let exe = format!("/proc/{pid}/exe");
    assert!([&exe, folder, other].iter().all(|path| fs::exists(path).unwrap()));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while [&exe, folder, other].iter().any(|path| fs::exists(path).unwrap_or(false)) {
        assert!(Instant::now() < until, "the server or a folder is left");
        thread::sleep(Duration::from_millis(10));
    }
}
