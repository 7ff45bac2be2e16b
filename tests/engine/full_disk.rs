//! A disk that is really full: a tmpfs of one megabyte, in a mount namespace of the test's own.
//!
//! The test starts itself as a child there, for a job whose checkpoints are on that disk and for one whose
//! output is. It needs the right to mount: as root, or where unprivileged user namespaces are allowed. Where
//! neither is so it fails and says what it needs; it never passes without having tried.
use crate::kit::{Gate, Gated, assert_same, finished, run, settings, until};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};
use tidegate::{Collect, FileSink, Job, JobHandle, Settings, Stream};

const COUNT: u64 = 2_000;
const DISK: &str = "TIDEGATE_TEST_FULL_DISK";
const FULL: &str = "No space left on device";

/// Runs `test` again as a child with a disk of its own; returns the disk if this is the child.
fn on_a_small_disk(test: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" && exec \"$2\" --exact \"$3\" --nocapture";
    let mut tried = Vec::new();
    for namespace in ["-m", "-Urm"] {
        let probe = Command::new("unshare")
            .args([namespace, "sh", "-c", "mount -t tmpfs -o size=1m tmpfs \"$1\"", "sh"])
            .arg(dir.path())
            .output();
        match probe {
            Ok(probe) if probe.status.success() => {
                let mut child = Command::new("unshare");
                child.args([namespace, "sh", "-c", script, "sh"]).arg(dir.path());
                child.arg(std::env::current_exe().unwrap()).arg(test).env(DISK, dir.path());
                let output = child.output().unwrap();
                let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
                assert!(output.status.success() && text.contains("1 passed"), "{text}");
                return None;
            }
            Ok(probe) => tried.push(format!("unshare {namespace}: {}", String::from_utf8_lossy(&probe.stderr))),
            Err(e) => tried.push(format!("unshare {namespace}: {e}")),
        }
    }
    panic!(
        "this test mounts a tmpfs of 1 MiB in a mount namespace of its own, and may not: run it as root, or allow \
         unprivileged user namespaces (unshare and mount of util-linux are needed)\n{}",
        tried.join("\n")
    );
}

/// Takes all the space that is left; gives it back when it is dropped.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(disk: &Path) -> Self {
        let path = disk.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        let error = loop {
            if let Err(e) = file.write_all(&[0; 4096]) {
                break e;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let path = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

async fn written(handle: &JobHandle, sink: &str, count: u64) {
    until(|| handle.metrics().operator(sink).is_some_and(|o| o.records_in == count)).await;
}

fn stored_in(store: &Path) -> Settings {
    let mut settings = settings(1);
    settings.checkpoint.store = store.display().to_string();
    settings.restart.max_restarts = u32::MAX;
    settings
}

/// Sums by last digit, so far; each keeps its summands.
fn summing(store: &Path) -> (Job, Gate, Collect<(u64, u64)>) {
    let ((source, gate), sums) = (Gated::new(COUNT, 1), Collect::new());
    let job = Job::new("summing", stored_in(store));
    job.source("numbers", source)
        .key_by(|n| n % 10)
        .fold("sums", Vec::new(), Vec::push)
        .map(|(_, summands)| (summands[summands.len() - 1], summands.iter().sum()))
        .sink("out", sums.clone());
    (job, gate, sums)
}

fn sums(numbers: std::ops::Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    numbers.map(|n| (n, (n % 10..=n).step_by(10).sum()))
}

#[test]
fn checkpoints_on_a_full_disk_are_abandoned_and_work_again_when_there_is_space() {
    let test = "full_disk::checkpoints_on_a_full_disk_are_abandoned_and_work_again_when_there_is_space";
    let Some(disk) = on_a_small_disk(test) else { return };
    run(async {
        let store = disk.join("checkpoints");
        let (job, gate, out) = summing(&store);
        let handle = job.start().unwrap();
        gate.open_to(COUNT / 4);
        written(&handle, "out", COUNT / 4).await;
        assert_eq!(handle.checkpoint_now().await.unwrap(), 1);
        let before = files(&store);
        let ballast = Ballast::fill(&disk);
        gate.open_to(COUNT / 2);
        written(&handle, "out", COUNT / 2).await;
        for _ in 0..3 {
            let error = handle.checkpoint_now().await.unwrap_err().to_string();
            assert!(error.contains("abandoned") && error.contains(FULL), "{error}");
        }
        let status = handle.status();
        assert_eq!(status.restarts, 0, "{:?}", status.failures);
        assert!(status.last_abandoned.unwrap().contains(FULL));
        // The last checkpoint is what it was, and can be gone on from.
        let after = files(&store);
        assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "the last checkpoint has changed");
        let elsewhere = tempfile::tempdir().unwrap();
        copy(&store, elsewhere.path());
        let (other, others_gate, others) = summing(elsewhere.path());
        others_gate.open();
        assert_eq!(finished(other.start().unwrap()).await.restored, Some(1));
        assert_same(others.take(), sums(COUNT / 4..COUNT));

        drop(ballast);
        assert_eq!(handle.checkpoint_now().await.unwrap(), 5, "the next one does not work");
        gate.open();
        let status = finished(handle).await;
        assert_eq!(status.restarts, 0, "{:?}", status.failures);
        assert_same(out.take(), sums(0..COUNT));
    });
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    number: u64,
    text: String,
}

/// Each row has some hundred bytes.
fn writing(out: &Path, checkpoints: &Path, copies: &Collect<u64>) -> (Job, Gate) {
    let (source, gate) = Gated::new(COUNT, 2);
    let job = Job::new("writing", stored_in(checkpoints));
    let numbers = job.source("numbers", source).boxed();
    numbers.clone().sink("copies", copies.clone());
    numbers
        .map(|number| Row { number, text: format!("{number:0100}") })
        .sink("rows", FileSink::csv(out.display().to_string()));
    (job, gate)
}

#[test]
fn output_on_a_full_disk_waits_for_space_and_is_exact() {
    let Some(disk) = on_a_small_disk("full_disk::output_on_a_full_disk_waits_for_space_and_is_exact") else { return };
    let checkpoints = tempfile::tempdir().unwrap();
    run(async {
        let (out, copies) = (disk.join("out"), Collect::new());
        let (job, gate) = writing(&out, checkpoints.path(), &copies);
        let handle = job.start().unwrap();
        gate.open_to(COUNT / 4);
        written(&handle, "rows", COUNT / 4).await;
        assert_eq!(handle.checkpoint_now().await.unwrap(), 1);
        let before = files(&out);
        assert!(!before.is_empty());
        let ballast = Ballast::fill(&disk);
        gate.open_to(COUNT / 2);
        written(&handle, "rows", COUNT / 2).await;
        let error = handle.checkpoint_now().await.unwrap_err().to_string();
        assert!(error.contains(FULL), "{error}");
        // It goes on trying: from staging, and from the check that the directory can be written.
        until(|| handle.status().restarts > 3).await;
        let status = handle.status();
        assert!(status.failures.iter().all(|f| f.cause.contains(FULL)), "{:?}", status.failures);
        assert!(
            before.iter().all(|(path, bytes)| files(&out).get(path) == Some(bytes)),
            "published output has changed"
        );
        drop(ballast);
        gate.open();
        finished(handle).await;
        let lines = |bytes: &Vec<u8>| -> Vec<u64> {
            let text = std::str::from_utf8(bytes).unwrap();
            text.lines().skip(1).map(|l| l.split(',').next().unwrap().parse().unwrap()).collect()
        };
        let found = files(&out);
        assert!(found.keys().all(|path| !path.display().to_string().contains(".staging")), "{:?}", found.keys());
        assert_same(found.values().flat_map(lines), 0..COUNT);
        assert_same(copies.take(), 0..COUNT);
    });
}
