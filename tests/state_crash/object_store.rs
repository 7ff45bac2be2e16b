//! State in a directory, as in an object store: see what `over` proves.
use crate::{
    child::{Case, files},
    over::{CACHE, exact_after_kills, restarts_leave_nothing},
};
use std::{fs, path::Path};

fn job_file(dir: &Path) -> String {
    let url = format!("file://{}", dir.join("state").display());
    format!("[state]\nbackend = \"object-store\"\n{CACHE}\n[state.object-store]\nurl = \"{url}\"\n")
}

/// All of it: files, manifests, and what was written for nobody.
fn left(case: &Case) -> u64 {
    let files = files(&case.path().join("state"));
    assert!(!files.is_empty(), "the last checkpoint has state");
    files.iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

#[test]
fn exact_after_kills_at_parallelism_1() {
    exact_after_kills(&[1], job_file);
}

#[test]
fn exact_after_kills_at_any_parallelism() {
    exact_after_kills(&[1, 2, 3], job_file);
}

#[test]
fn restarts_leave_little() {
    restarts_leave_nothing(job_file, left);
}
