//! What a killed process leaves of a write to a local directory, and to HDFS.
//!
//! `object_store` writes a local object as `name#1` beside its place and renames it when it is complete. It
//! never lists such files, so what a crash leaves of them would stay for ever: they are looked for here, in
//! the directory itself. On HDFS it is `.name.tmp.1`, and otherwise the same.
//! Called only by the owner of an attempt, about attempts before it: a writer whose file vanishes under it is fenced,
//! and its write fails.
use object_store::{Result, path::Path};
use std::{
    fs, io,
    path::{Path as Directory, PathBuf},
};

/// The directory that a URL means; `None` when it is no local one.
pub(crate) fn local_directory(url: &str) -> Option<&str> {
    match url.split_once(':') {
        Some(("file", rest)) => Some(rest.strip_prefix("//").unwrap_or(rest)),
        Some((scheme, _)) if !scheme.contains(['/', '.']) => None,
        _ => Some(url),
    }
}

/// Deletes unfinished writes below `prefix` of the store behind `url`; directly below it only those, and only in those
/// directories, whose name `is_swept`: of a write, the name that it was to have. Says how many.
///
/// # Errors
/// The operating system's, but for what somebody else has deleted meanwhile.
pub fn sweep_unfinished(url: &str, prefix: &Path, is_swept: impl Fn(&str) -> bool) -> io::Result<usize> {
    let Some(directory) = local_directory(url) else { return Ok(0) };
    sweep(&prefix.parts().fold(PathBuf::from(directory), |path, part| path.join(part.as_ref())), &is_swept)
}

/// The same on HDFS, which is elsewhere: and so it waits, and does not block. Nothing happens to stores that leave
/// nothing.
///
/// # Errors
/// As the store.
#[cfg_attr(not(feature = "hdfs"), allow(clippy::unused_async, unused_variables, reason = "the others leave nothing"))]
pub async fn sweep_unfinished_remote(url: &str, prefix: &Path, is_swept: impl Fn(&str) -> bool) -> Result<usize> {
    #[cfg(feature = "hdfs")]
    if url.starts_with("hdfs:") {
        return crate::hdfs::sweep(url, prefix, is_swept).await;
    }
    Ok(0)
}

fn sweep(directory: &Directory, is_swept: &dyn Fn(&str) -> bool) -> io::Result<usize> {
    let mut swept = 0;
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if is_swept(&name.to_string_lossy()) {
                swept += sweep(&entry.path(), &|_| true)?;
            }
        } else if unfinished(&name.to_string_lossy()).is_some_and(is_swept) {
            match fs::remove_file(entry.path()) {
                Ok(()) => swept += 1,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(swept)
}

/// The name that an unfinished write was to have.
fn unfinished(name: &str) -> Option<&str> {
    let (name, n) = name.rsplit_once('#')?;
    (!n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unfinished_writes_below_the_prefix_go() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for name in ["a/b/part#1", "a/c/part#1", "a/c#1", "a/part#23", "a/part", "a/x#y", "other/part#1"] {
            put(name);
        }
        let url = format!("file://{}", dir.path().display());
        let sweep = |url: &str, prefix: &str| sweep_unfinished(url, &Path::from(prefix), |name| name != "c").unwrap();
        assert_eq!(sweep(&url, "a"), 2);
        assert_eq!(sweep(&url, "a"), 0);
        assert!(["a/part", "a/x#y", "a/c/part#1", "a/c#1", "other/part#1"].iter().all(|n| dir.path().join(n).exists()));
        assert_eq!((sweep(&url, "missing"), sweep("s3://bucket", "")), (0, 0));
    }
}
