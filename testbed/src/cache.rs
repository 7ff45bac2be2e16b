//! Where what was fetched is kept, and how it comes there once. The hard case is many at once: a test runner
//! starts every test in a process of its own, and on a fresh machine all of them miss the same thing at the same
//! time. One of them makes it, under a lock of the file system that ends with its process; the others
//! wait. It is made in a folder of its own and renamed, so that what is there is whole.
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::Failed;

/// A folder in the cache of the project.
pub(crate) fn folder(name: &str) -> Result<PathBuf, Failed> {
    let home = env::var_os("HOME").ok_or("HOME is not set: it says where the cache folder is")?;
    Ok(Path::new(&home).join(".cache/tidegate").join(name))
}

/// The folder `to`, which `make` fills if there is none.
pub(crate) fn once(to: &Path, make: impl FnOnce(&Path) -> Result<(), Failed>) -> Result<(), Failed> {
    if to.exists() {
        return Ok(());
    }
    let failed = |e: std::io::Error| format!("{}: {e}", to.display());
    let parent = to.parent().ok_or_else(|| format!("{} has no parent", to.display()))?;
    fs::create_dir_all(parent).map_err(failed)?;
    let lock = File::create(to.with_extension("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if to.exists() {
        return Ok(());
    }
    let making = tempfile::Builder::new().prefix("making-").tempdir_in(parent).map_err(failed)?;
    let made = making.path().join("made");
    fs::create_dir(&made).map_err(failed)?;
    make(&made)?;
    fs::rename(&made, to).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn many_at_once_make_it_once() {
        let scratch = tempfile::tempdir().unwrap();
        let (to, made) = (scratch.path().join("a/b"), AtomicU32::new(0));
        let make = |folder: &Path| {
            made.fetch_add(1, Ordering::Relaxed);
            fs::write(folder.join("file"), "whole").map_err(|e| e.to_string())
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    once(&to, make).unwrap();
                    assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "whole");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn what_fails_leaves_nothing_and_may_be_tried_again() {
        let scratch = tempfile::tempdir().unwrap();
        let to = scratch.path().join("b");
        assert_eq!(once(&to, |_| Err("no network".into())), Err("no network".into()));
        assert!(!to.exists());
        once(&to, |_| Ok(())).unwrap();
        assert!(to.exists());
    }
}
