//! Checkpoints and state on a real HDFS: the job is killed, and the servers are. A job here never restarts in its process,
//! so what ends it because a server is gone is started again by the test, as a supervisor does.
use crate::child::Case;
use std::time::Duration;
use tidegate::extend::env::random;
use tidegate_testbed::{hdfs::Hdfs, without::left_out};

/// Kills that have to hit a running job.
const KILLS: u32 = 15;
/// Starts that a job may need until its servers are back.
const STARTS: u32 = 60;

fn case(seed: u64, rows: u64, hdfs: &Hdfs) -> Case {
    let url = hdfs.url();
    Case::new(seed, 2, rows, 400).with_job_file(|_| {
        format!(
            "[checkpoint]\nstore = \"{url}/checkpoints\"\n\
             [state]\nbackend = \"object-store\"\ncache = \"64KB\"\n[state.object-store]\nurl = \"{url}/state\"\n"
        )
    })
}

/// Runs it to its end, however often it has to be started.
fn finish(case: &Case) {
    for _ in 0..STARTS {
        let status = case.start(None).ended();
        if status.success() {
            return case.assert_exact();
        }
        assert!(!case.errors().contains("panicked at core"), "{}", case.errors());
    }
    panic!("{STARTS} starts were not enough: {}", case.errors());
}

#[test]
fn exact_on_hdfs_after_kills() {
    if left_out("hdfs") {
        return;
    }
    let hdfs = Hdfs::start().unwrap();
    let mut case = case(51, 10_000, &hdfs);
    let (mut seed, mut killed) = (51, 0);
    for start in 0..KILLS + 5 {
        case.at_parallelism(start % 3 + 1);
        let mut job = case.start(None);
        job.runs_for(Duration::from_millis(700 + random(&mut seed) % 2_500));
        killed += u32::from(job.kill());
    }
    assert!(killed >= KILLS, "only {killed} kills hit a running job: give it more input");
    finish(&case);
    // What killed writers left of checkpoints is gone, but for what the last one has lost.
    for folder in ["commits", "manifests"] {
        let names = hdfs.list(&format!("/checkpoints/crash/{folder}")).unwrap();
        assert!(names.iter().filter(|name| name.starts_with('.')).count() <= 1, "{names:?}");
    }
}

#[test]
fn exact_on_hdfs_although_its_nodes_are_killed() {
    if left_out("hdfs") {
        return;
    }
    let mut hdfs = Hdfs::start().unwrap();
    let case = case(52, 3_000, &hdfs);
    let mut job = case.start(None);
    job.runs_for(Duration::from_secs(3));
    hdfs.kill_data_node();
    job.runs_for(Duration::from_secs(1));
    hdfs.restart_data_node().unwrap();
    if !job.runs_for(Duration::from_secs(2)) {
        job = case.start(None);
        job.runs_for(Duration::from_secs(2));
    }
    hdfs.kill_name_node();
    job.runs_for(Duration::from_secs(1));
    hdfs.restart_name_node().unwrap();
    if job.ended().success() {
        return case.assert_exact();
    }
    drop(job);
    finish(&case);
}
