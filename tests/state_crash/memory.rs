//! The memory backend, which keeps everything in its tables: the harness itself is tried with it.
use crate::over::{CACHE, exact_after_kills, restarts_leave_nothing, stored};
use std::path::Path;

fn job_file(_: &Path) -> String {
    format!("[state]\nbackend = \"memory\"\n{CACHE}\n")
}

#[test]
fn exact_after_kills_at_any_parallelism() {
    exact_after_kills(&[1, 2, 3], job_file);
}

#[test]
fn restarts_leave_no_objects() {
    restarts_leave_nothing(job_file, stored);
}
