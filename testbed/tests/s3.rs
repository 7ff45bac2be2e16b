//! The testbed's S3 against itself: objects outlive a kill, one of many writers wins, and the proxy answers in the
//! server's place and loses what the server has said. On these the tests of the engine rely.
#![allow(clippy::disallowed_methods, reason = "no engine code: real processes and the real clock")]
#![allow(clippy::unwrap_used, reason = "a test may")]
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use tidegate_testbed::{
    http::{self, Fault},
    s3::S3,
    without::left_out,
};

#[test]
fn what_was_written_is_there_after_a_kill() {
    if left_out("s3") {
        return;
    }
    let mut s3 = S3::start().unwrap();
    s3.make_bucket("other").unwrap();
    s3.put("/bucket/a/1", b"one").unwrap();
    let big = vec![7; 300_000];
    s3.put("/bucket/a/2", &big).unwrap();
    s3.put("/other/b", b"other").unwrap();
    let (pid, endpoint) = (s3.pid().unwrap(), s3.endpoint());
    s3.kill();
    assert!(s3.pid().is_none() && !fs::exists(format!("/proc/{pid}")).unwrap());
    assert!(s3.get("/bucket/a/1").is_err());
    s3.restart().unwrap();
    assert!(s3.endpoint() == endpoint && s3.pid().unwrap() != pid);
    assert_eq!(s3.list("bucket", "a/").unwrap(), ["a/1", "a/2"]);
    assert_eq!(s3.get("/bucket/a/2").unwrap(), big);
    s3.stop();
    s3.restart().unwrap();
    assert_eq!(s3.get("/other/b").unwrap(), b"other");
    s3.remove("/bucket/a/1").unwrap();
    assert!(s3.get("/bucket/a/1").unwrap_err().contains("NoSuchKey"));
    assert!(s3.put("/nowhere/a", b"").unwrap_err().contains("NoSuchBucket"));
    let unsigned = http::ask(endpoint.strip_prefix("http://").unwrap(), "GET", "/bucket/a/2", &[], &[]).unwrap();
    assert_eq!(unsigned.status, 403);
}

#[test]
fn of_many_who_create_the_same_object_one_wins() {
    if left_out("s3") {
        return;
    }
    let s3 = S3::start().unwrap();
    for round in 0..20 {
        let path = format!("/bucket/{round}");
        let create = |n: usize| s3.ask("PUT", &path, &[("if-none-match", "*")], n.to_string().as_bytes()).unwrap();
        let statuses: Vec<u16> = thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|n| scope.spawn(move || create(n).status)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let winners: Vec<_> = (0..8).filter(|n| statuses[*n] == 200).collect();
        assert_eq!(winners.len(), 1, "{statuses:?}");
        assert_eq!(s3.get(&path).unwrap(), winners[0].to_string().as_bytes());
    }
}

#[test]
fn the_proxy_answers_delays_and_loses() {
    if left_out("s3") {
        return;
    }
    let s3 = S3::start().unwrap();
    let proxy = s3.proxy();
    let through = |path: &str, headers: &[(&str, &str)]| s3.ask_through_proxy("PUT", path, headers, b"text");
    proxy.on("PUT /bucket/", 2, Fault::Answer(503));
    proxy.on("PUT /bucket/", 1, Fault::Answer(429));
    let statuses = [(); 4].map(|()| through("/bucket/a", &[]).unwrap().status);
    assert_eq!(statuses, [503, 503, 429, 200]);
    // The server has it, and who asks again finds its own object in the way.
    proxy.on("PUT /bucket/b", 1, Fault::LoseReply);
    let new = [("if-none-match", "*")];
    assert!(through("/bucket/b", &new).is_err());
    assert_eq!(s3.get("/bucket/b").unwrap(), b"text");
    assert_eq!(through("/bucket/b", &new).unwrap().status, 412);
    proxy.on("PUT /bucket/c", 1, Fault::LoseRequest);
    assert!(through("/bucket/c", &new).is_err());
    assert_eq!(through("/bucket/c", &new).unwrap().status, 200);
    proxy.on("", 1, Fault::DelayReply(Duration::from_millis(100)));
    let began = Instant::now();
    assert_eq!(through("/bucket/d", &[]).unwrap().status, 200);
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!((proxy.fired(), proxy.seen("PUT /bucket/b").len()), (6, 2));
}
