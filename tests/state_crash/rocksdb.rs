//! The backend `rocksdb`: databases on local disk, which a killed process leaves behind.
use crate::{
    child::{Case, files},
    over::{CACHE, exact_after_kills, restarts_leave_nothing, stored},
};
use std::{fs, path::Path};

/// Where the databases of a case are.
const DIRECTORY: &str = "databases";

fn job_file(dir: &Path) -> String {
    let directory = dir.join(DIRECTORY);
    let rocksdb = format!("[state.rocksdb]\ndirectory = {:?}\nmemory = \"32MB\"\n", directory.display().to_string());
    format!("[state]\nbackend = \"rocksdb\"\n{CACHE}\n{rocksdb}")
}

/// What no process has any more that could use it.
fn databases(case: &Case) -> Vec<String> {
    let found = fs::read_dir(case.path().join(DIRECTORY)).unwrap().map(|e| e.unwrap().file_name());
    found.map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn exact_after_kills_at_parallelism_1() {
    exact_after_kills(&[1], job_file);
}

#[test]
fn exact_after_kills_at_another_parallelism_each_time() {
    exact_after_kills(&[1, 2, 3], job_file);
}

#[test]
fn restarts_leave_no_objects_and_no_databases() {
    restarts_leave_nothing(job_file, |case| {
        assert_eq!(databases(case), [""; 0], "the last process has swept what those before it left, and its own");
        stored(case)
    });
}

/// All data that is in the checkpoint store goes, too: what the killed process had is enough.
#[test]
fn what_a_killed_process_has_left_is_gone_on_from() {
    let case = Case::new(47, 2, 3_000, 900).with_job_file(job_file);
    case.die_at("commit.after:3");
    let objects = files(&case.path().join("checkpoints/crash/state"));
    let data: Vec<_> = objects.iter().filter(|path| path.contains(".sst-")).collect();
    assert!(data.len() >= 4, "two operators in two subtasks: {objects:?}");
    for path in data {
        fs::remove_file(path).unwrap();
    }
    case.finish();
    assert_eq!(databases(&case), [""; 0]);
}
