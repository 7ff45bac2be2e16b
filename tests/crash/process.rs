//! A program as a child process: watched, signalled, waited for.
//!
//! Real time is right here, and only here: the thing under test is another process. Every wait is for a
//! condition and has a deadline that only a hang can reach.
#![allow(clippy::disallowed_methods)]
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(120);
pub const SIGKILL: i32 = 9;

/// A started job; killed when it is dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this very test binary as a job: told to run `test`, with its arguments in the environment, armed with a kill
/// point (`name:n`) or not. What it says on standard error is added to a file.
pub fn start(test: &str, (variable, arguments): (&str, &str), errors: &Path, kill_point: Option<&str>) -> Running {
    let errors = fs::OpenOptions::new().create(true).append(true).open(errors).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(variable, arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).env_remove("TIDEGATE_KILL_POINT");
    if let Some(point) = kill_point {
        command.env("TIDEGATE_KILL_POINT", point);
    }
    Running(command.spawn().unwrap())
}

/// The number of the last checkpoint in a job's folder of commit records.
pub fn committed(commits: &Path) -> u64 {
    let names = fs::read_dir(commits).into_iter().flatten().map(|e| e.unwrap().file_name());
    let epochs = names.filter_map(|n| n.to_string_lossy().strip_suffix(".commit").and_then(|n| n.parse().ok()));
    epochs.max().unwrap_or(0)
}

impl Running {
    /// Waits for its end, which must be that of a kill point.
    #[track_caller]
    pub fn dies_at(mut self, kill_point: &str, errors: impl Fn() -> String) {
        let status = self.ended();
        let killed = status.signal() == Some(SIGKILL);
        assert!(killed, "the kill point {kill_point} never fired: {status}\n{}", errors());
    }

    /// Waits for its end, which must be that of a process whose job was taken over, and which says so.
    #[track_caller]
    pub fn ends_fenced(&mut self, errors: impl Fn() -> String) {
        let (status, errors) = (self.ended(), errors());
        assert!(!status.success(), "it does not know that it was replaced");
        assert!(errors.contains("has been fenced") && errors.contains("two processes run this job"), "{errors}");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < DEADLINE, "the job hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets it run for so long; whether it is still running.
    pub fn runs_for(&mut self, time: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < time {
            if self.0.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Waits until `condition` holds; whether it does (or the job has ended before).
    pub fn runs_until(&mut self, condition: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        while !condition() {
            if self.0.try_wait().unwrap().is_some() {
                return condition();
            }
            assert!(began.elapsed() < DEADLINE, "the condition does not come about");
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Another signal, by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.0.id())).status().unwrap();
        assert!(sent.success());
    }

    /// SIGKILL; whether it was still running.
    pub fn kill(mut self) -> bool {
        let _ = self.0.kill();
        self.0.wait().unwrap().signal() == Some(SIGKILL)
    }
}
