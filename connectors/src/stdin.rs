//! Lines of standard input.
//!
//! It cannot be read twice. So a job that goes on from a checkpoint must be given the same input again from
//! its beginning (`job < file`): the lines that had been read are skipped. An input that is shorter than
//! that is an error.
//!
//! For the same reason an attempt that fails cannot be followed by another one in the same process: what the
//! first has read is gone, and the lines that would be skipped are others. That is an error too, which ends
//! the job.
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    task::{Context, Poll, ready as done},
};
use tidegate_core::{
    Error, Result,
    connect::{Emit, Progress, Source, Split, SplitReader},
    env::spawn_blocking,
};
use tokio::sync::mpsc;

use crate::files::format::next_line;

/// Lines of standard input, without their line ends; bytes that are not UTF-8 are replaced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stdin;

impl Stdin {
    /// Standard input.
    pub fn lines() -> Self {
        Self
    }
}

/// Whether somebody in this process reads it, or has.
static TAKEN: AtomicBool = AtomicBool::new(false);

impl Source for Stdin {
    type Item = String;
    type Reader = StdinReader;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        Box::pin(ready(Ok(vec![Split::new("stdin")])))
    }

    /// At the end of the input: what of it is there already cannot be known.
    fn can_end(&self) -> Result<()> {
        Ok(())
    }

    fn open(&self, _: Split, position: Option<Value>) -> BoxFuture<'_, Result<StdinReader>> {
        let skip = position.as_ref().map_or(Some(0), |p| p["lines"].as_u64());
        let Some(skip) = skip else {
            return Box::pin(ready(Err(Error::corrupt("the position of standard input cannot be read"))));
        };
        if TAKEN.swap(true, SeqCst) {
            return Box::pin(ready(Err(Error::config("standard input has been read by this process already").hint(
                "start the process again with the same input, from its beginning; and read it in one source only",
            ))));
        }
        let (sender, chunks) = mpsc::channel(8);
        spawn_blocking(move || read_ahead(skip, &sender));
        Box::pin(ready(Ok(StdinReader { chunks, lines: Vec::new().into_iter(), read: skip })))
    }
}

type Chunk = Result<Vec<String>>;

fn read_ahead(skip: u64, chunks: &mpsc::Sender<Chunk>) {
    let mut input = std::io::stdin().lock();
    let unreadable = |e| Error::unavailable("standard input cannot be read").caused_by(e);
    let mut number = 0;
    loop {
        let outcome = match next_line(&mut input, number, unreadable) {
            Ok(None) if number < skip => {
                Err(Error::config(format!("standard input has {number} lines, and {skip} have been read from it"))
                    .hint("give the job the same input again, from its beginning"))
            }
            Ok(None) => return,
            Ok(Some(_)) if number < skip => {
                number += 1;
                continue;
            }
            Ok(Some((line, _))) => Ok(vec![String::from_utf8_lossy(&line).into_owned()]),
            Err(e) => Err(e),
        };
        number += 1;
        let failed = outcome.is_err();
        // Nobody listening: the attempt has ended.
        if chunks.blocking_send(outcome).is_err() || failed {
            return;
        }
    }
}

/// Reads the lines.
pub struct StdinReader {
    chunks: mpsc::Receiver<Chunk>,
    lines: std::vec::IntoIter<String>,
    read: u64,
}

impl SplitReader for StdinReader {
    type Item = String;
    fn fill<E: Emit<String>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        for _ in 0..budget {
            if let Some(line) = self.lines.next() {
                out.bytes(line.len() as u64 + 1);
                out.record(line);
                self.read += 1;
                continue;
            }
            match self.chunks.try_recv() {
                Ok(chunk) => self.lines = chunk?.into_iter(),
                Err(mpsc::error::TryRecvError::Empty) => return Ok(Progress::Wait),
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(Progress::End),
            }
        }
        Ok(Progress::More)
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.lines.len() == 0
            && let Some(chunk) = done!(self.chunks.poll_recv(cx))
        {
            self.lines = chunk?.into_iter();
        }
        Poll::Ready(Ok(()))
    }
    fn position(&self) -> Value {
        json!({ "lines": self.read })
    }
}
