//! The testbed's HDFS against itself: what was written is there after either node or both were killed, and who may only
//! read does not write. On these the tests of the engine rely. A start costs seconds and 400 MB: one each.
#![allow(clippy::disallowed_methods, reason = "no engine code: real processes and the real clock")]
#![allow(clippy::unwrap_used, reason = "a test may")]
use std::fs;

use tidegate_testbed::{
    hdfs::{Hdfs, Options},
    without::left_out,
};

#[test]
fn what_was_written_is_there_after_kills() {
    if left_out("hdfs") {
        return;
    }
    let mut hdfs = Hdfs::start().unwrap();
    let big = vec![7; 300_000];
    hdfs.write("/a/big", &big).unwrap();
    hdfs.write("/a/b/small", b"text").unwrap();
    assert_eq!(hdfs.list("/a").unwrap(), ["b", "big"]);
    let (pids, url) = (hdfs.pids(), hdfs.url());

    hdfs.kill_data_node();
    let error = hdfs.read("/a/big").unwrap_err();
    assert!(error.contains("refused") || error.contains("403") || error.contains("404"), "{error}");
    assert_eq!(hdfs.list("/a").unwrap(), ["b", "big"]);
    hdfs.restart_data_node().unwrap();
    assert_eq!(hdfs.read("/a/big").unwrap(), big);

    hdfs.kill_name_node();
    assert!(hdfs.pids().0.is_none() && hdfs.list("/a").is_err());
    hdfs.restart_name_node().unwrap();
    assert_eq!(hdfs.read("/a/b/small").unwrap(), b"text");
    hdfs.write("/a/c", b"after").unwrap();

    hdfs.kill_name_node();
    hdfs.kill_data_node();
    for pid in [pids.0, pids.1] {
        assert!(!fs::exists(format!("/proc/{}", pid.unwrap())).unwrap());
    }
    // Alone it may not be written to: it has yet to learn where its blocks are.
    hdfs.restart_name_node().unwrap();
    let error = hdfs.remove("/a").unwrap_err();
    assert!(error.contains("SafeMode"), "{error}");
    hdfs.restart().unwrap();
    assert!(hdfs.url() == url && hdfs.pids() != pids);
    assert_eq!(hdfs.read("/a/c").unwrap(), b"after");
    assert_eq!(hdfs.read("/a/big").unwrap(), big);
    hdfs.remove("/a").unwrap();
    assert!(hdfs.list("/a").unwrap_err().contains("FileNotFound"));
}

#[test]
fn who_may_only_read_does_not_write() {
    if left_out("hdfs") {
        return;
    }
    let hdfs = Hdfs::with(&Options::default().permissions()).unwrap();
    hdfs.make_folder("/own", "anna", "755").unwrap();
    let create = |user: &str| hdfs.ask(user, "PUT", "/own/file", "op=CREATE", b"text").unwrap();
    assert_eq!(create("bert").status, 403);
    assert_eq!(create("anna").status, 201);
    assert_eq!(hdfs.ask("bert", "GET", "/own/file", "op=OPEN", &[]).unwrap().body, b"text");
    hdfs.set_mode("/own", "555").unwrap();
    let refused = hdfs.ask("anna", "DELETE", "/own/file", "op=DELETE", &[]).unwrap();
    assert!(refused.status == 403 && refused.text().contains("AccessControlException"), "{}", refused.text());
}

#[test]
fn what_cannot_start_says_why() {
    if left_out("hdfs") {
        return;
    }
    let why = Hdfs::with(&Options::default().property("dfs.replication", "none")).err().unwrap();
    assert!(why.contains("NameNode") && why.contains("it has ended") && why.contains("\"none\""), "{why}");
}
