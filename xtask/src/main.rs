//! The project's chores. `cargo xtask test` runs every check and every test on a fresh machine: it fetches the
//! test runner it needs, says so, and fails clearly where it cannot. The runner comes last, so that its
//! summary is the end of the output.
#![allow(clippy::disallowed_methods, reason = "no engine code: real processes and the real clock")]
mod tidy;
mod tools;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

const HELP: &str = "\
cargo xtask test [--quick] [-- RUNNER ARGUMENTS]

  Every check (format, lints, tidiness, documentation, licences) and every test.
  --quick     the tests alone
  --          what follows is handed to cargo nextest: a filter, for example

CARGO_TARGET_DIR is honoured; without it builds go to ~/.cache/tidegate/target, downloads beside it.";

/// What went wrong, for people.
type Failed = String;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((command, rest)) if command == "test" => test(rest),
        Some((command, _)) if command != "--help" && command != "help" => {
            Err(format!("there is no chore {command:?}\n\n{HELP}"))
        }
        _ => {
            println!("{HELP}");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nfailed: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace. Asked when it runs: clones may share one target folder, and so this program.
fn root() -> Result<PathBuf, Failed> {
    let here = env::var_os("CARGO_MANIFEST_DIR").ok_or("start this with `cargo xtask`")?;
    Ok(Path::new(&here).parent().ok_or("the workspace has no directory")?.to_owned())
}

fn test(arguments: &[String]) -> Result<(), Failed> {
    let (ours, runners) = match arguments.iter().position(|a| a == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[][..]),
    };
    if let Some(unknown) = ours.iter().find(|a| *a != "--quick") {
        return Err(format!("there is no option {unknown:?}\n\n{HELP}"));
    }
    let root = &root()?;
    let tools = tools::Tools::find(root)?;
    let features = ["--workspace", "--features", "tidegate/failpoints"];
    if ours.is_empty() {
        step("format", &mut tools.cargo(&["fmt", "--all", "--check"]))?;
        println!("== tidiness");
        tidy::check(root)?;
        step(
            "lints",
            tools.cargo(&["clippy", "--release", "--all-targets"]).args(features).args(["--", "-D", "warnings"]),
        )?;
        let mut documentation = tools.cargo(&["doc", "--release", "--no-deps"]);
        step("documentation", documentation.args(features).env("RUSTDOCFLAGS", "-D warnings"))?;
        match tools.deny() {
            Some(mut deny) => step("licences, bans, sources", &mut deny)?,
            None => {
                println!(
                    "== licences, bans, sources: left out, cargo-deny is not installed (cargo install cargo-deny)"
                );
            }
        }
        step("examples in the documentation", tools.cargo(&["test", "--doc"]).args(features))?;
    }
    step("tests", tools.nextest()?.arg("run").arg("--release").args(features).args(runners))
}

fn step(name: &str, command: &mut Command) -> Result<(), Failed> {
    println!("== {name}");
    let began = Instant::now();
    let status = command.status().map_err(|e| format!("{name}: cannot be started: {e}"))?;
    if !status.success() {
        return Err(format!("{name} ({status})"));
    }
    // The runner's own summary is to be the end.
    if name != "tests" {
        println!("== {name}: {} s", began.elapsed().as_secs());
    }
    Ok(())
}
