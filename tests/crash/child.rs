//! The crash job as a child process: started, killed, and its output judged.
use std::{fs, path::Path};
use tempfile::TempDir;

use crate::{
    job,
    process::{self, Running},
    world::{self, Output},
};

/// A directory with input, and the job that runs over it.
pub struct Case {
    dir: TempDir,
    expected: Output,
    parallelism: u32,
    rate: u32,
}

impl Case {
    /// `rows` in each of four files, each read at `rate` rows a second.
    pub fn new(seed: u64, parallelism: u32, rows: u64, rate: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let expected = world::make(dir.path(), seed, rows);
        Self { dir, expected, parallelism, rate }
    }

    /// With a job file; it may name paths below the case's directory.
    pub fn with_job_file(self, text: impl Fn(&Path) -> String) -> Self {
        fs::write(self.dir.path().join(job::JOB_FILE), text(self.dir.path())).unwrap();
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn at_parallelism(&mut self, parallelism: u32) {
        self.parallelism = parallelism;
    }

    /// Starts the job, armed with a kill point (`name:n`) or not.
    pub fn start(&self, kill_point: Option<&str>) -> Running {
        self.start_at(kill_point, self.rate)
    }

    fn start_at(&self, kill_point: Option<&str>, rate: u32) -> Running {
        let arguments = &format!("{},{rate},{}", self.parallelism, self.dir.path().display());
        process::start(job::TEST, (job::ARGUMENTS, arguments), &self.dir.path().join("errors"), kill_point)
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default()
    }

    /// Committed checkpoints so far: the highest number.
    pub fn committed(&self) -> u64 {
        process::committed(&self.dir.path().join("checkpoints/crash/commits"))
    }

    /// Runs with the kill point armed; the point itself must have killed it.
    pub fn die_at(&self, kill_point: &str) {
        self.start(Some(kill_point)).dies_at(kill_point, || self.errors());
    }

    /// Runs to the end, as fast as it can, and compares.
    pub fn finish(&self) {
        let status = self.start_at(None, 0).ended();
        assert!(status.success(), "{status}\n{}", self.errors());
        self.assert_exact();
    }

    pub fn assert_exact(&self) {
        if let Err(difference) = world::compare(&self.expected, &world::found(self.dir.path())) {
            panic!("{difference}\n{}", self.errors());
        }
        let staged = files(&self.dir.path().join("out")).into_iter().filter(|f| f.contains(".staging"));
        assert_eq!(staged.collect::<Vec<_>>(), Vec::<String>::new(), "left in the staging area");
    }
}

/// Every file below a directory.
pub fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}
