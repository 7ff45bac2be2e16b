//! The log of a process, as the place where it says that it is ready, or why it will not be. It is read from the
//! file that the process writes: a process that prints into a pipe stops when nobody reads.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::{Failed, maven::tail};

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LINES: usize = 20;

pub(crate) struct Log(pub PathBuf);

impl Log {
    /// Waits until the log has `ready` after `since`.
    pub fn wait(&self, child: &mut Child, since: &str, ready: &str) -> Result<(), Failed> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            // First, so that what a process said before it ended is not missed.
            let ended = child.try_wait().ok().flatten();
            let text = read(&self.0);
            if text.split_once(since).is_some_and(|(_, after)| after.contains(ready)) {
                return Ok(());
            }
            let why = match ended {
                Some(status) => format!("it has ended ({status})"),
                None if Instant::now() > until => format!("it is not ready after {} s", READY_WITHIN.as_secs()),
                None => {
                    thread::sleep(LOOK_EVERY);
                    continue;
                }
            };
            return Err(format!("{why}; the end of its log:\n{}", tail(&text, LINES)));
        }
    }

    /// Its last lines.
    pub fn end(&self) -> String {
        tail(&read(&self.0), LINES)
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
