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
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Failed, cache,
    kafka::{jars::Jars, log::Log},
    line::Line,
    maven::{self, Artifact},
    ports,
};

/// The newest that Java 17 runs.
const ARTIFACT: Artifact = ("io.apicurio", "apicurio-registry-app", "3.0.9");
const API: &str = "/apis/ccompat/v7";
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How often a start is tried whose port another process has taken meanwhile.
const TRIES: u32 = 3;

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
        let mut tried = 1;
        loop {
            match Self::launch(&class_path, properties) {
                Err(why) if tried < TRIES && why.contains("already bound") => tried += 1,
                started => return started.map_err(|why| format!("the schema registry: {why}")),
            }
        }
    }

    fn launch(class_path: &str, properties: &[(&str, &str)]) -> Result<Self, Failed> {
        let [port] = ports::free(1)?[..] else { return Err("there is no free port".into()) };
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
        let until = Instant::now() + READY_WITHIN;
        while !matches!(registry.ask("GET", "/subjects", ""), Ok((200, _))) {
            let ended = registry.process.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > until {
                let why =
                    ended.map_or_else(|| "it is not ready in time".into(), |status| format!("it has ended ({status})"));
                return Err(format!("{why}; the end of its log:\n{}", Log(path).end()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Asks the registry itself, as any client could: its answer's status and text.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String), Failed> {
        let failed = |e: std::io::Error| format!("{method} {path}: {e}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map_err(failed)?;
        let length = body.len();
        write!(
            stream,
            "{method} {API}{path} HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, text) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok((status.ok_or_else(|| format!("{method} {path}: no HTTP: {answer:?}"))?, text.to_owned()))
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

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
