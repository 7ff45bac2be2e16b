//! The crash job as a child process: started, killed, and its output judged.
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};
use tempfile::TempDir;

use crate::{
    job,
    process::{Running, SIGKILL},
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

    pub fn at_parallelism(&mut self, parallelism: u32) {
        self.parallelism = parallelism;
    }

    /// Starts the job, armed with a kill point (`name:n`) or not.
    pub fn start(&self, kill_point: Option<&str>) -> Running {
        self.start_at(kill_point, self.rate)
    }

    fn start_at(&self, kill_point: Option<&str>, rate: u32) -> Running {
        let errors = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("errors")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", job::TEST, "--nocapture"]);
        command.env(job::ARGUMENTS, format!("{},{rate},{}", self.parallelism, self.dir.path().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).env_remove("TIDEGATE_KILL_POINT");
        if let Some(point) = kill_point {
            command.env("TIDEGATE_KILL_POINT", point);
        }
        Running(command.spawn().unwrap())
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default()
    }

    /// Committed checkpoints so far: the highest number.
    pub fn committed(&self) -> u64 {
        let records = fs::read_dir(self.dir.path().join("checkpoints/crash/commits")).into_iter().flatten();
        let names = records.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        names.filter_map(|n| n.strip_suffix(".commit").and_then(|n| n.parse().ok())).max().unwrap_or(0)
    }

    /// Runs with the kill point armed; the point itself must have killed it.
    pub fn die_at(&self, kill_point: &str) {
        let status = self.start(Some(kill_point)).ended();
        assert_eq!(
            status.signal(),
            Some(SIGKILL),
            "the kill point {kill_point} never fired: {status}\n{}",
            self.errors()
        );
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

fn files(dir: &Path) -> Vec<String> {
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
