//! What is to be done to a database, one after the other: writes, and the cuts between them.
//!
//! Whoever adds a step to an idle queue has it worked off on a blocking thread, until it is empty. So a step costs the
//! engine nothing, a cut is exactly where it was asked for, and a database that stops its writer to catch up stops
//! nobody else. What waits in the queue is what the engine has not waited for to be `flushed`, and has the bound that
//! it keeps.
//!
//! The hard case is a write that fails: everything behind it would be built on sand. So nothing is done any more, and
//! whoever asks is told why; the attempt ends.
use futures::channel::oneshot;
use rust_rocksdb::{WriteOptions, checkpoint::Checkpoint};
use std::{
    collections::VecDeque,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::Epoch,
};
use tidegate_core::{
    env::spawn_blocking,
    state::backend::{Write, WriteBatch},
};

use super::{Local, failed};

/// The folder of the last snapshot's files.
pub(super) const LAST: &str = "last";

/// One thing to do.
pub(super) enum Step {
    Write(WriteBatch),
    Cut(Epoch, oneshot::Sender<Result<Cut>>),
    /// Says when it is reached.
    Flushed(oneshot::Sender<Result<()>>),
}

/// The files of a database at one moment; they are deleted with this.
pub(super) struct Cut(pub(super) PathBuf);

impl Cut {
    /// Keeps the files until there is a later snapshot: the database may give them up before, and the next attempt
    /// would have to fetch them (`local`). Where that fails, it does fetch them.
    pub(super) fn keep(self, local: &Local) {
        let last = local.place.own.join(LAST);
        let _ = fs::remove_dir_all(&last);
        let _ = fs::rename(&self.0, last);
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Links only; what is left of them goes with the database's directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// See the module.
pub(super) struct Queue {
    local: Arc<Local>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: VecDeque<Step>,
    running: bool,
    failed: Option<Error>,
}

impl Queue {
    pub(super) fn new(local: Arc<Local>) -> Self {
        Self { local, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a step.
    pub(super) fn push(self: &Arc<Self>, step: Step) -> Result<()> {
        let mut state = self.state();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.steps.push_back(step);
        if !std::mem::replace(&mut state.running, true) {
            let queue = self.clone();
            spawn_blocking(move || queue.run());
        }
        Ok(())
    }

    fn run(&self) {
        let _running = Running(self);
        loop {
            let step = {
                let mut state = self.state();
                let Some(step) = state.steps.pop_front() else {
                    state.running = false;
                    return;
                };
                step
            };
            if let Err(error) = self.carry_out(step) {
                return self.give_up(error);
            }
        }
    }

    /// Who waits for a step that is dropped here is told that it was.
    fn give_up(&self, error: Error) {
        let mut state = self.state();
        state.failed = Some(error);
        for step in std::mem::take(&mut state.steps) {
            match (step, &state.failed) {
                (Step::Flushed(done), Some(error)) => drop(done.send(Err(error.clone()))),
                (Step::Cut(_, done), Some(error)) => drop(done.send(Err(error.clone()))),
                _ => {}
            }
        }
    }

    fn carry_out(&self, step: Step) -> Result<()> {
        match step {
            Step::Write(batch) => self.local.write(&batch)?,
            // Nobody may be there any more.
            Step::Flushed(done) => drop(done.send(Ok(()))),
            Step::Cut(_, done) if done.is_canceled() => {}
            Step::Cut(epoch, done) => drop(done.send(self.local.cut(epoch))),
        }
        Ok(())
    }
}

/// That the queue is being worked off. A panic must not leave it waiting for ever.
struct Running<'a>(&'a Queue);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up(Error::internal("a call of RocksDB has panicked"));
        }
    }
}

impl Local {
    /// Writes a batch, into memory: nothing of it outlives the process.
    pub(super) fn write(&self, batch: &WriteBatch) -> Result<()> {
        let mut writes = rust_rocksdb::WriteBatch::with_capacity_bytes(batch.bytes() + batch.len() * 16);
        for write in batch.iter() {
            match write {
                Write::Put(key, value) => writes.put(key, value),
                Write::Delete(key) => writes.delete(key),
                Write::DeleteRange(start, end) => writes.delete_range(start, end),
            }
        }
        self.apply(&writes)
    }

    pub(super) fn apply(&self, writes: &rust_rocksdb::WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(writes, &options).map_err(|e| failed("write", e))
    }

    /// The files of the database as it is now.
    fn cut(&self, epoch: Epoch) -> Result<Cut> {
        let cut = Cut(self.place.own.join(&format!("cut-{epoch}")));
        // With a zero all of memory is written first. Anything else trusts the log, and there is none.
        let made = Checkpoint::new(&self.db).and_then(|maker| maker.create_checkpoint_with_log_size(&cut.0, 0));
        made.map_err(|e| failed("cut a snapshot", e))?;
        Ok(cut)
    }
}
