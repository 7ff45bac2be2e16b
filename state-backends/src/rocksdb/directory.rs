//! A directory of its own for each database, which nobody else takes and which does not outlive its process for long.
//!
//! ```text
//! <state.rocksdb.directory>/tidegate-rocksdb-<job>-<operator>-<subtask>-<hash>-<unlike any other>/ 0700
//!                           ... the same name .lock                      locked as long as its process lives
//! ```
//! The hash is of store, job and operator: a job of the same name over another store has another, and so has `a` with
//! `b-c` where `a-b` has `c`.
//!
//! A process that is killed leaves it behind; the operating system then lets go of the lock, and whoever opens a
//! database that may want its files claims it (`place`, `local`), and deletes it in the end. Not its process id is asked:
//! another process may have that by now, or have it in another container over the same disk. What nobody claims is swept
//! by whoever makes a snapshot next to it, once there has been no sign of life for [`GRACE`]: a job that is about to be
//! restarted, here or beside this one, must find what it had.
//!
//! The hard case is a directory that is just being made: its lock is there a moment before it is locked. So whoever has
//! locked it looks whether it is still there, before anything else is made; else somebody else was quicker.
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use tidegate_checkpoint::error::{Error, Result};
use tidegate_core::env::{unique, wall_ms};

use super::disk;

const PREFIX: &str = "tidegate-rocksdb-";
const LOCK: &str = ".lock";
/// How long what the dead have left waits for somebody who claims it.
pub(super) const GRACE: Duration = Duration::from_secs(600);

/// A directory that is there as long as this.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked. When it was changed is the last sign of life.
    lock: File,
}

impl Directory {
    /// Makes an empty one. Blocks, as all here does.
    pub(super) fn create(base: &Path, label: &str) -> Result<Self> {
        fs::create_dir_all(base).map_err(|e| unusable(base, e))?;
        loop {
            let path = base.join(format!("{PREFIX}{label}-{:016x}", unique()));
            let lock = File::create_new(lock_of(&path)).map_err(|e| unusable(base, e))?;
            match lock.try_lock() {
                Ok(()) if lock_of(&path).exists() => {
                    make_private(&path).map_err(|e| unusable(base, e))?;
                    return Ok(Self { path, lock });
                }
                // Swept or claimed before it was locked.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(unusable(base, e)),
            }
        }
    }

    /// A path in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Gives a sign of life.
    pub(super) fn touch(&self) {
        // Without it others wait less for whoever comes after this process, which then fetches more.
        let _ = self.lock.set_modified(UNIX_EPOCH + Duration::from_millis(wall_ms().unsigned_abs()));
    }

    /// What dead processes have left beside it under a label.
    pub(super) fn claim(&self, label: &str) -> Result<Vec<Self>> {
        let mut claimed = Vec::new();
        for path in self.beside()?.into_iter().filter(|path| label_of(path) == Some(label)) {
            // What others could write to is no good, whatever it is.
            if is_private(&path, &self.path).unwrap_or(false)
                && let Some(directory) = take(path)?
            {
                directory.touch();
                claimed.push(directory);
            }
        }
        Ok(claimed)
    }

    /// Deletes what dead processes have left beside it, and nobody has claimed.
    pub(super) fn sweep(&self) -> Result<()> {
        for path in self.beside()? {
            if is_over(&path).unwrap_or(false)
                && let Some(dead) = take(path)?
            {
                let failed = |e| disk(&format!("delete {}", dead.path.display()), e);
                delete(&dead.path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// All that are there, and of this user.
    fn beside(&self) -> Result<Vec<PathBuf>> {
        let base = self.path.parent().unwrap_or(&self.path);
        let mut found = Vec::new();
        for entry in fs::read_dir(base).map_err(|e| unusable(base, e))? {
            let lock = entry.map_err(|e| unusable(base, e))?.path();
            let name = lock.file_name().and_then(|name| name.to_str());
            let Some(name) = name.and_then(|name| name.strip_suffix(LOCK)) else { continue };
            if name.starts_with(PREFIX) && has_same_owner(&lock, &self.path).unwrap_or(false) {
                found.push(base.join(name));
            }
        }
        Ok(found)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be deleted now is what a later sweep finds, and reports.
        let _ = delete(&self.path);
    }
}

/// That of a process that is dead.
fn take(path: PathBuf) -> Result<Option<Directory>> {
    let lock = match OpenOptions::new().write(true).open(lock_of(&path)) {
        Ok(lock) => lock,
        // Gone meanwhile, or not ours to touch.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(None),
        Err(e) => return Err(unusable(&path, e)),
    };
    match lock.try_lock() {
        Ok(()) if lock_of(&path).exists() => Ok(Some(Directory { path, lock })),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(unusable(&path, e)),
    }
}

/// Whether nobody will want it: there is only a lock, or has been no sign of life for long. It is asked before the lock:
/// to try that of one that is wanted would be in the way of who claims it.
fn is_over(path: &Path) -> io::Result<bool> {
    if !path.try_exists()? {
        return Ok(true);
    }
    let changed = fs::metadata(lock_of(path))?.modified()?;
    let changed = changed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    // Clocks are put back, too.
    Ok(changed.abs_diff(u128::from(wall_ms().unsigned_abs())) > GRACE.as_millis())
}

/// Of whose database it is.
fn label_of(path: &Path) -> Option<&str> {
    Some(path.file_name()?.to_str()?.strip_prefix(PREFIX)?.rsplit_once('-')?.0)
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

/// Whether it is a directory as one of ours is.
fn is_private(path: &Path, ours: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    #[cfg(unix)]
    let shared = std::os::unix::fs::MetadataExt::mode(&found) & 0o077 != 0;
    #[cfg(not(unix))]
    let shared = false;
    Ok(found.is_dir() && !shared && has_same_owner(path, ours)?)
}

/// Whether both belong to the same user.
fn has_same_owner(path: &Path, ours: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    let user = |path: &Path| fs::symlink_metadata(path).map(|found| std::os::unix::fs::MetadataExt::uid(&found));
    #[cfg(not(unix))]
    let user = |path: &Path| fs::symlink_metadata(path).map(drop);
    Ok(user(path)? == user(ours)?)
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
