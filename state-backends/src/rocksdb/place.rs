//! Where a database lives, and where its files may be already: directories of earlier attempts.
//!
//! Those of dead processes are claimed. Those of this process's attempts are on the *shelf* of the run from their first
//! snapshot on: there they are found by the next attempt, whether their database has been closed by then or not, and
//! there they stay until it has made a snapshot itself. So an attempt that fails before it has got that far leaves the
//! one after it as much as it has found. The shelf goes with the run, and with it all that nobody uses any more.
//!
//! The hard case is another parallelism: the files of a subtask are then wanted by several, and by others than have had
//! them. So a directory is looked for under the subtasks that the handles are of, and is everybody's while it is on the
//! shelf. The first of them that has made a snapshot takes it off; all others have found it long before, or do without.
//!
//! A reader, as for a savepoint, makes no snapshot, and so leaves nothing on the shelf.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_checkpoint::error::Result;
use tidegate_core::{
    env::{spawn_blocking, wall_ms},
    state::backend::RunId,
};

use super::directory::{Directory, GRACE};

/// See the module; a shelf for each run.
#[derive(Debug, Default)]
pub(super) struct Shelves(Mutex<BTreeMap<RunId, Arc<Shelf>>>);

impl Shelves {
    /// That of a run.
    pub(super) fn of(&self, run: RunId) -> Arc<Shelf> {
        lock(&self.0).entry(run).or_default().clone()
    }

    /// A run has ended. What its last databases are yet to put on the shelf goes with them. To drop it takes time.
    pub(super) fn take(&self, run: RunId) -> Option<Arc<Shelf>> {
        lock(&self.0).remove(&run)
    }
}

/// Directories under their labels.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    kept: Mutex<Vec<(String, Arc<Directory>)>>,
    /// When what is beside them was last swept, by the machine's clock.
    swept: Mutex<i64>,
}

impl Shelf {
    /// What there is of some labels.
    fn find(&self, own: &Directory, labels: &BTreeSet<String>) -> Result<Vec<Arc<Directory>>> {
        let mut kept = lock(&self.kept);
        for label in labels {
            let claimed = own.claim(label)?.into_iter().map(|directory| (label.clone(), Arc::new(directory)));
            kept.extend(claimed);
        }
        Ok(kept.iter().filter(|(label, _)| labels.contains(label)).map(|(_, found)| found.clone()).collect())
    }

    /// Keeps a directory, instead of all others of its label and of those that have been used. These are what is
    /// returned.
    fn keep(&self, label: &str, directory: &Arc<Directory>, used: &[Arc<Directory>]) -> Vec<(String, Arc<Directory>)> {
        let mut kept = lock(&self.kept);
        if kept.iter().any(|(_, found)| Arc::ptr_eq(found, directory)) {
            return Vec::new();
        }
        let is_gone = |(of, found): &mut (String, Arc<Directory>)| {
            of == label || used.iter().any(|used| Arc::ptr_eq(used, found))
        };
        let gone = kept.extract_if(.., is_gone).collect();
        kept.push((label.to_owned(), directory.clone()));
        gone
    }

    /// Whether what is beside them is to be swept, as it has not been within [`GRACE`]; then whoever asks does.
    fn is_to_sweep(&self) -> bool {
        let mut swept = lock(&self.swept);
        let is_due = u128::from((wall_ms() - *swept).unsigned_abs()) >= GRACE.as_millis();
        if is_due {
            *swept = wall_ms();
        }
        is_due
    }
}

/// Where one database lives.
pub(super) struct Place {
    pub(super) own: Arc<Directory>,
    label: String,
    shelf: Arc<Shelf>,
    /// Others that its files may be in. None any more once there is a snapshot.
    earlier: Mutex<Vec<Arc<Directory>>>,
}

impl Place {
    /// A new one; `labels` are those whose files may be wanted. Blocks, as all here does.
    pub(super) fn new(shelf: Arc<Shelf>, base: &Path, label: String, mut labels: BTreeSet<String>) -> Result<Self> {
        let own = Arc::new(Directory::create(base, &label)?);
        labels.insert(label.clone());
        let earlier = Mutex::new(shelf.find(&own, &labels)?);
        Ok(Self { own, label, shelf, earlier })
    }

    /// See the field.
    pub(super) fn earlier(&self) -> Vec<Arc<Directory>> {
        lock(&self.earlier).clone()
    }

    /// A snapshot has been stored.
    pub(super) fn settle(&self) {
        self.own.touch();
        let used = std::mem::take(&mut *lock(&self.earlier));
        let gone = self.shelf.keep(&self.label, &self.own, &used);
        // Not before: now all subtasks of the job have claimed what they want, however long it has waited for them.
        let sweeps = self.shelf.is_to_sweep();
        if !sweeps && gone.is_empty() && used.is_empty() {
            return;
        }
        // To delete takes time, and the checkpoint does not wait for it. Where it comes to nothing, as when the runtime
        // ends, what is dropped is deleted all the same.
        let own = self.own.clone();
        drop(spawn_blocking(move || {
            drop((gone, used));
            if sweeps {
                // What cannot be deleted is tried again.
                let _ = own.sweep();
            }
        }));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
