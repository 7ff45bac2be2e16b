//! A server that is written in Go: built once from its module, and the binary kept. Go itself is asked where modules
//! come from, as the machine has set it up.
use std::{path::PathBuf, process::Command};

use crate::{Failed, cache, tool};

const INSTALL: &str =
    "install Go 1.25 or newer and put it on the PATH; one from 1.21 on fetches the newer one that it needs itself";

/// The program of a module's package at a version; it is called as the last part of the package is.
pub(crate) fn program(package: &str, version: &str) -> Result<PathBuf, Failed> {
    let name = package.rsplit('/').next().unwrap_or(package);
    let folder = cache::folder(&format!("{name}-{version}"))?;
    cache::once(&folder, |to| {
        eprintln!("== {name} {version} is built with Go, which takes some minutes, to {}", folder.display());
        let mut go = Command::new("go");
        // Without what only a debugger needs, a quarter of it.
        go.args(["install", "-ldflags=-s -w"]).arg(format!("{package}@{version}"));
        go.env("GOBIN", to).current_dir(to);
        tool::run(&mut go, &format!("{name} is built with Go"), INSTALL)
    })?;
    Ok(folder.join(name))
}
