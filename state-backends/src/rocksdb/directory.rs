//! A directory of its own for each database, which nobody else takes and which does not outlive its process for long.
//!
//! ```text
//! <state.rocksdb.directory>/tidegate-rocksdb-<job>-<operator>-<subtask>-<unlike any other>/        0700
//!                           ... the same name .lock                      locked as long as its process lives
//! ```
//! It is deleted with its database. A process that is killed leaves it behind; the operating system then lets go of the
//! lock, and whoever opens a database next to it deletes it. Not its process id is asked: another process may have that
//! by now, or have it in another container over the same disk.
//!
//! The hard case is a directory that is just being made: its lock is there a moment before it is locked. So whoever has
//! locked it looks whether it is still there, before anything else is made; else a sweeper was quicker.
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use tidegate_checkpoint::error::{Error, Result};
use tidegate_core::env::unique;

use super::disk;

const PREFIX: &str = "tidegate-rocksdb-";
const LOCK: &str = "lock";

/// A directory that is there as long as this.
pub(super) struct Directory {
    path: PathBuf,
    /// Locked.
    _lock: File,
}

impl Directory {
    /// Makes an empty one; `label` is for people. Blocks, as all here does.
    pub(super) fn create(base: &Path, label: &str) -> Result<Self> {
        loop {
            let path = base.join(format!("{PREFIX}{label}-{:016x}", unique()));
            let lock = File::create_new(lock_of(&path)).map_err(|e| unusable(base, e))?;
            match lock.try_lock() {
                Ok(()) if lock_of(&path).exists() => {
                    make_private(&path).map_err(|e| unusable(base, e))?;
                    return Ok(Self { path, _lock: lock });
                }
                // Swept before it was locked.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(unusable(base, e)),
            }
        }
    }

    /// A path in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be deleted now is what the next sweep finds, and reports.
        let _ = delete(&self.path);
    }
}

/// Deletes what dead processes have left.
pub(super) fn sweep(base: &Path) -> Result<()> {
    fs::create_dir_all(base).map_err(|e| unusable(base, e))?;
    for entry in fs::read_dir(base).map_err(|e| unusable(base, e))? {
        let name = entry.map_err(|e| unusable(base, e))?.path();
        let ours = name.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !ours || name.extension().is_none_or(|extension| extension != LOCK) {
            continue;
        }
        let lock = match File::open(&name) {
            Ok(lock) => lock,
            // Gone meanwhile, or another user's.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => continue,
            Err(e) => return Err(unusable(base, e)),
        };
        match lock.try_lock() {
            Ok(()) => delete(&name.with_extension("")).map_err(|e| disk(&format!("delete {}", name.display()), e))?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(unusable(base, e)),
        }
    }
    Ok(())
}

/// The directory, then its lock: interrupted between the two, it is swept.
fn delete(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(fs::remove_dir_all(path))?;
    gone(fs::remove_file(lock_of(path)))
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(LOCK);
    name.into()
}

/// State is nobody else's business, wherever it lies.
fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn unusable(base: &Path, error: io::Error) -> Error {
    let what = format!("the directory {} cannot be used for state", base.display());
    let hint = "name one that this user may write, on a disk with room, in state.rocksdb.directory";
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::ReadOnlyFilesystem => Error::config(what),
        _ => Error::unavailable(what),
    }
    .caused_by(error)
    .hint(hint)
}
