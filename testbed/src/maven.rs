//! Jars from Maven's central repository, with all they depend on. Maven itself is asked, as it alone knows which
//! of two versions wins and which mirror this machine is to use; nothing of the machine's Maven settings is
//! overridden. What is missing is said together with the command that brings it.
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::Failed;

const INSTALL: &str = "apt-get install default-jre-headless maven";
const JAVA_MIN: u32 = 17;

/// One artifact: group, name, version.
pub(crate) type Artifact = (&'static str, &'static str, &'static str);

/// Copies the artifacts and what they depend on to a folder.
pub(crate) fn fetch(artifacts: &[Artifact], to: &Path) -> Result<(), Failed> {
    let dependencies: String = artifacts
        .iter()
        .map(|(group, name, version)| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
            )
        })
        .collect();
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>tidegate</groupId><artifactId>testbed</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{dependencies}</dependencies></project>"
    );
    let failed = |e: std::io::Error| format!("a temporary folder: {e}");
    let project = tempfile::tempdir().map_err(failed)?;
    fs::write(project.path().join("pom.xml"), pom).map_err(failed)?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    maven.arg(format!("-DoutputDirectory={}", to.display()));
    let needed = format!("the jars of {} are fetched with Maven", artifacts.first().map_or("a server", |a| a.1));
    run(maven.current_dir(project.path()), &needed)
}

/// Unpacks an artifact of this type and classifier (`tar.gz:all`) to a folder.
pub(crate) fn unpack((group, name, version): Artifact, form: &str, to: &Path) -> Result<(), Failed> {
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:unpack"]).arg(format!("-Dartifact={group}:{name}:{version}:{form}"));
    // Not where it is called: it would take a project that lies there for its own.
    maven.arg(format!("-DoutputDirectory={}", to.display())).current_dir(to);
    run(&mut maven, &format!("{name} is fetched with Maven"))
}

/// Whether there is a Java that can run the servers.
pub(crate) fn check_java() -> Result<(), Failed> {
    let mut java = Command::new("java");
    java.arg("-version").stdin(Stdio::null());
    let needed = "the servers for tests run on Java";
    let output = java.output().map_err(|e| format!("{needed}, and java cannot be started ({e}): {INSTALL}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    match major(&text) {
        Some(version) if version >= JAVA_MIN => Ok(()),
        _ => Err(format!(
            "{needed}, {JAVA_MIN} or newer, and `java -version` says: {}\n  {INSTALL}",
            text.lines().next().unwrap_or_default()
        )),
    }
}

/// Runs a command of which only the failure is worth reading.
pub(crate) fn run(command: &mut Command, needed: &str) -> Result<(), Failed> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{needed}, and {program} cannot be started ({e}): {INSTALL}"))?;
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

/// The 17 of `openjdk version "17.0.15" 2025-04-15`, and the 8 of `java version "1.8.0_42"`.
fn major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    version.strip_prefix("1.").unwrap_or(version).split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_java_are_understood() {
        for (text, version) in [
            ("openjdk version \"17.0.15\" 2025-04-15", Some(17)),
            ("java version \"1.8.0_42\"", Some(8)),
            ("openjdk version \"25-ea\"", Some(25)),
            ("command not found", None),
        ] {
            assert_eq!(major(text), version, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_what_brings_it() {
        let error = run(&mut Command::new("no-such-mvn"), "it is needed").unwrap_err();
        assert!(error.contains("it is needed") && error.contains("no-such-mvn") && error.contains(INSTALL), "{error}");
        let error = run(Command::new("sh").args(["-c", "echo why; exit 3"]), "it is needed").unwrap_err();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }
}
