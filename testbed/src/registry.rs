//! A real schema registry: Apicurio's, which speaks Confluent's API (Confluent's own is not in Maven's central
//! repository). It keeps schemas in memory, and is there until it is dropped. Clients may come through a
//! [`Line`] that can be cut: that is how a test takes the registry away without losing what is in it.
//!
//! As with a broker, the hard case is an owner that is killed: the registry's stdin is a pipe from this process, and
//! it ends with it (see `java/Registry.java`).
//!
//! ```no_run
//! let registry = tidegate_testbed::registry::Registry::start()?;
//! println!("{}", registry.url());
//! # Ok::<(), tidegate_testbed::Failed>(())
//! ```
use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Failed, cache, http,
    kafka::jars::Jars,
    line::Line,
    log::Log,
    maven::{self, Artifact},
    ports,
};

/// The newest that Java 17 runs.
const ARTIFACT: Artifact = ("io.apicurio", "apicurio-registry-app", "3.0.9");
const API: &str = "/apis/ccompat/v7";
const READY_WITHIN: Duration = Duration::from_secs(90);

/// A schema registry.
pub struct Registry {
    port: u16,
    line: Line,
    process: Child,
    _folder: TempDir,
}

/// Fetches what a registry needs (110 MB), if it is not there. Otherwise the first start does so.
pub fn prepare() -> Result<(), Failed> {
    runner().map(drop)
}

/// The jar to run, beside its libraries.
fn runner() -> Result<PathBuf, Failed> {
    maven::check_java()?;
    let (_, name, version) = ARTIFACT;
    let folder = cache::folder(&format!("{name}-{version}"))?;
    cache::once(&folder, |to| {
        eprintln!("== {name} {version} is fetched to {}", folder.display());
        maven::unpack(ARTIFACT, "tar.gz:all", to)
    })?;
    Ok(folder.join(format!("{name}-{version}-runner.jar")))
}

impl Registry {
    /// Starts one, on a free port, and waits until it is ready.
    pub fn start() -> Result<Self, Failed> {
        Self::with(&[])
    }

    /// Starts one with properties of its own, as its documentation names them.
    pub fn with(properties: &[(&str, &str)]) -> Result<Self, Failed> {
        let class_path = format!("{}:{}", Jars::find()?.compiled().display(), runner()?.display());
        let started = ports::start(None, 1, |ports| Self::launch(&class_path, properties, ports[0]));
        started.map_err(|why| format!("the schema registry: {why}"))
    }

    fn launch(class_path: &str, properties: &[(&str, &str)], port: u16) -> Result<Self, Failed> {
        let folder = tempfile::Builder::new().prefix("tidegate-registry-").tempdir();
        let folder = folder.map_err(|e| format!("a temporary folder: {e}"))?;
        let path = folder.path().join("log");
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let out = File::create(&path).map_err(failed)?;
        let mut java = Command::new("java");
        java.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        java.arg("-Dquarkus.http.host=127.0.0.1").arg(format!("-Dquarkus.http.port={port}"));
        java.args(properties.iter().map(|(name, value)| format!("-D{name}={value}")));
        java.args(["-cp", class_path, "Registry"]).process_group(0).current_dir(folder.path());
        java.stdin(Stdio::piped()).stderr(out.try_clone().map_err(failed)?).stdout(out);
        let process = java.spawn().map_err(|e| format!("java cannot be started: {e}"))?;
        let mut registry = Self { port, line: Line::to(port)?, process, _folder: folder };
        let is_ready = || matches!(ask(port, "GET", "/subjects", ""), Ok((200, _)));
        Log(path).until(&mut registry.process, READY_WITHIN, is_ready)?;
        Ok(registry)
    }

    /// Asks the registry itself, as any client could: its answer's status and text.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String), Failed> {
        ask(self.port, method, path, body)
    }

    /// Where clients begin.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{API}", self.port)
    }

    /// The way through the [`Line`].
    pub fn url_of_line(&self) -> String {
        format!("http://{}{API}", self.line.address())
    }

    /// What can be cut.
    pub fn line(&self) -> &Line {
        &self.line
    }
}

fn ask(port: u16, method: &str, path: &str, body: &str) -> Result<(u16, String), Failed> {
    let (address, path) = (format!("127.0.0.1:{port}"), format!("{API}{path}"));
    let reply = http::ask(&address, method, &path, &[("content-type", "application/json")], body.as_bytes())?;
    Ok((reply.status, reply.text()))
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
