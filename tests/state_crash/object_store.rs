//! State in a directory, as in an object store: see what `over` proves.
use crate::{
    child::{Case, files},
    killed::killed,
    over::{CACHE, exact_after_kills},
};
use std::{collections::BTreeSet, fs, path::Path};

fn job_file(dir: &Path) -> String {
    let url = format!("file://{}", dir.join("state").display());
    format!("[state]\nbackend = \"object-store\"\n{CACHE}\n[state.object-store]\nurl = \"{url}\"\n")
}

#[test]
fn exact_after_kills_at_parallelism_1() {
    exact_after_kills(&[1], job_file);
}

#[test]
fn exact_after_kills_at_any_parallelism() {
    exact_after_kills(&[1, 2, 3], job_file);
}

/// Attempts so short that next to nothing is compacted, and state so small that what names it is most of it: so trees are
/// counted here. The tests of the backend hold what is left against the state.
#[test]
fn restarts_leave_few_trees() {
    let mut case = Case::new(43, 2, 3_000, 900).with_job_file(job_file);
    let killed = killed(&mut case, 30, |_, _| {});
    let files = files(&case.path().join("state"));
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    // Of two operators and two subtasks; the last folder of a tree is that of its files.
    let trees: BTreeSet<&str> = files.iter().filter_map(|file| file.rsplitn(3, '/').nth(2)).collect();
    println!("{} trees and {bytes} bytes are left of {killed} attempts that were killed", trees.len());
    assert!(!trees.is_empty() && trees.len() <= 60, "{} trees are left", trees.len());
    assert!(bytes <= 3 << 20, "{bytes} bytes are left");
}
