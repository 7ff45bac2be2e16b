//! Jars from Maven's central repository, with all they depend on. Maven itself is asked, as it alone knows which
//! of two versions wins and which mirror this machine is to use.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Failed, cache, tool};

const INSTALL: &str = "apt-get install default-jre-headless maven";
const JAVA_MIN: u32 = 17;

/// One artifact: group, name, version.
pub(crate) type Artifact = (&'static str, &'static str, &'static str);

/// Copies the artifacts and what they depend on to a folder.
fn fetch(artifacts: &[Artifact], to: &Path) -> Result<(), Failed> {
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

/// Runs Maven or Java.
pub(crate) fn run(command: &mut Command, needed: &str) -> Result<(), Failed> {
    tool::run(command, needed, INSTALL)
}

/// Jars in one folder of the cache.
pub(crate) struct Libs(PathBuf);

impl Libs {
    /// Finds those of a server, or fetches them.
    pub fn find(server: &str, version: &str, artifacts: &[Artifact]) -> Result<Self, Failed> {
        check_java()?;
        let libs = cache::folder(&format!("{}-{version}", server.to_lowercase()))?.join("libs");
        cache::once(&libs, |to| {
            eprintln!("== {server} {version} is fetched to {}", libs.display());
            fetch(artifacts, to)
        })?;
        Ok(Self(libs))
    }

    /// All of them, always in the same order.
    pub fn class_path(&self) -> Result<String, Failed> {
        let failed = |e| format!("{}: {e}: remove the folder, and it is fetched anew", self.0.display());
        let listed = fs::read_dir(&self.0).map_err(failed)?;
        let mut jars: Vec<String> = listed.flatten().map(|e| e.path().display().to_string()).collect();
        jars.sort();
        Ok(jars.join(":"))
    }
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
}
