//! A program as a child process: watched, signalled, waited for.
//!
//! Real time is right here, and only here: the thing under test is another process. Every wait is for a
//! condition and has a deadline that only a hang can reach.
#![allow(clippy::disallowed_methods)]
use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus},
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

impl Running {
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
