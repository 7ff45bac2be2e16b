//! The log of a process, as the place where it says that it is ready, or why it will not be. It is read from the
//! file that the process writes: a process that prints into a pipe stops when nobody reads.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use crate::{Failed, tool::tail};

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LINES: usize = 20;

pub(crate) struct Log(pub PathBuf);

impl Log {
    /// Waits until the log has `ready` after `since`.
    pub fn wait(&self, child: &mut Child, since: &str, ready: &str) -> Result<(), Failed> {
        let is_ready = || read(&self.0).split_once(since).is_some_and(|(_, after)| after.contains(ready));
        self.until(child, READY_WITHIN, is_ready)
    }

    /// Waits until a process is ready by some other sign; of one that has ended or takes too long, the log says why.
    pub fn until(&self, child: &mut Child, within: Duration, mut is_ready: impl FnMut() -> bool) -> Result<(), Failed> {
        let until = Instant::now() + within;
        loop {
            // First, so that what a process said before it ended is not missed.
            let ended = child.try_wait().ok().flatten();
            // What answers in the place of one that has ended is another's, on a port that it has taken.
            let why = match ended {
                Some(status) => format!("it has ended ({status})"),
                None if is_ready() => return Ok(()),
                None if Instant::now() > until => format!("it is not ready after {} s", within.as_secs()),
                None => {
                    thread::sleep(LOOK_EVERY);
                    continue;
                }
            };
            return Err(format!("{why}; the end of its log:\n{}", self.end()));
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
