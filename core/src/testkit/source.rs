//! Reads a source as the engine would, but stops wherever the test likes.
//!
//! The contract that is proved with it is the one of [`SplitReader::position`]: stop anywhere, open a new
//! reader there, and what the two read is what one would have read alone.
use serde_json::Value;
use std::future::poll_fn;

use crate::connect::{Emit, Progress, Source, Split, SplitReader, Undecodable};
use tidegate_checkpoint::error::Result;

/// What was read of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken<T> {
    /// The records.
    pub records: Vec<T>,
    /// Records that could not be decoded.
    pub undecodable: Vec<Undecodable>,
}

impl<T> Taken<T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { records: Vec::new(), undecodable: Vec::new() }
    }
    /// How many records there were, with those that could not be decoded.
    pub fn len(&self) -> usize {
        self.records.len() + self.undecodable.len()
    }
    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Taken<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Emit<T> for Taken<T> {
    fn record(&mut self, record: T) {
        self.records.push(record);
    }
    fn bytes(&mut self, _: u64) {}
    fn undecodable(&mut self, bad: Undecodable) -> Result<()> {
        self.undecodable.push(bad);
        Ok(())
    }
}

/// Opens a split at `position` and reads up to `count` records into `taken`, in fills of at most `budget`;
/// returns where the reader stands, and whether the split has ended.
///
/// # Errors
/// The reader's.
pub async fn read<S: Source>(
    source: &S,
    split: &Split,
    position: Option<Value>,
    count: usize,
    budget: usize,
    taken: &mut Taken<S::Item>,
) -> Result<(Value, bool)> {
    let mut reader = source.open(split.clone(), position).await?;
    let until = taken.len().saturating_add(count);
    while taken.len() < until {
        match reader.fill(budget.min(until - taken.len()), taken)? {
            Progress::More => {}
            Progress::Wait | Progress::Held => poll_fn(|cx| reader.poll_ready(cx)).await?,
            Progress::End => return Ok((reader.position(), true)),
        }
    }
    Ok((reader.position(), false))
}

/// Reads a split from its beginning to its end.
///
/// # Errors
/// The reader's.
pub async fn read_all<S: Source>(source: &S, split: &Split) -> Result<Taken<S::Item>> {
    let mut taken = Taken::new();
    read(source, split, None, usize::MAX, 1024, &mut taken).await?;
    Ok(taken)
}

/// Reads a split to its end, in pieces: after each so many records of `pieces` (over and over) the reader
/// is dropped and another is opened at its position, which has been through JSON as in a checkpoint.
///
/// # Errors
/// The readers'.
pub async fn read_in_pieces<S: Source>(
    source: &S,
    split: &Split,
    pieces: &[usize],
    budget: usize,
) -> Result<Taken<S::Item>> {
    let mut taken = Taken::new();
    let mut position = None;
    for piece in pieces.iter().cycle() {
        let (stopped, ended) = read(source, split, position, (*piece).max(1), budget, &mut taken).await?;
        if ended {
            break;
        }
        position = Some(stopped.to_string().parse().unwrap_or(stopped));
    }
    Ok(taken)
}
