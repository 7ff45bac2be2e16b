//! The job as a child process, and the world that it works in.
use std::fs;
use tempfile::TempDir;
use tidegate_testbed::kafka::{Broker, Settings};

use crate::{
    job::{self, Arguments},
    process::{self, Running},
    world::World,
};

/// A broker, input, and a folder for checkpoints.
pub struct Case {
    pub broker: Broker,
    pub world: World,
    pub arguments: Arguments,
    dir: TempDir,
}

impl Case {
    pub fn new(parallelism: u32, count: u64) -> Self {
        Self::with(parallelism, count, |settings| settings)
    }

    pub fn with(parallelism: u32, count: u64, choose: impl FnOnce(Settings) -> Settings) -> Self {
        Self::on(Broker::with(choose).unwrap(), parallelism, count)
    }

    pub fn on(broker: Broker, parallelism: u32, count: u64) -> Self {
        let world = World::make(&broker, count);
        let dir = tempfile::tempdir().unwrap();
        let arguments = Arguments {
            bootstrap: broker.bootstrap().to_owned(),
            store: dir.path().join("checkpoints").display().to_string(),
            parallelism,
            pace: 1,
            restarts: 0,
            transaction_timeout_ms: 60_000,
            follow: false,
        };
        Self { broker, world, arguments, dir }
    }

    /// Starts the job, armed with a kill point (`name:n`) or not.
    pub fn start(&self, kill_point: Option<&str>) -> Running {
        self.start_with(&self.arguments, kill_point)
    }

    pub fn start_with(&self, arguments: &Arguments, kill_point: Option<&str>) -> Running {
        let arguments = &serde_json::to_string(arguments).unwrap();
        process::start(job::TEST, (job::ARGUMENTS, arguments), &self.dir.path().join("errors"), kill_point)
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default()
    }

    /// Committed checkpoints so far: the highest number, as the store knows it.
    pub fn committed(&self) -> u64 {
        process::committed(&self.dir.path().join("checkpoints/crash/commits"))
    }

    /// Runs until `more` checkpoints have been committed.
    pub fn started(&self, more: u64) -> Running {
        let before = self.committed();
        let mut job = self.start(None);
        assert!(job.runs_until(|| self.committed() >= before + more), "{}", self.errors());
        job
    }

    /// Runs with the kill point armed; the point itself must have killed it.
    pub fn die_at(&self, kill_point: &str) {
        self.start(Some(kill_point)).dies_at(kill_point, || self.errors());
    }

    /// Runs to the end, as fast as it can, and compares.
    pub fn finish(&self) {
        let status = self.start_with(&Arguments { pace: 0, ..self.arguments.clone() }, None).ended();
        assert!(status.success(), "{status}\n{}", self.errors());
        self.world.assert_exact(&self.broker);
    }
}
