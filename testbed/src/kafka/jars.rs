//! What runs Kafka: its jars, and this crate's own Java sources, compiled. The compiler comes as a jar too, so that a
//! Java runtime without a development kit is enough.
//!
//! The hard case is the time: half of a broker's start is the loading of classes. So what a start and a judge load
//! is archived once (an application's class data sharing), which brings a start from 2.2 s to 1.1 s and its CPU
//! time from 2.7 s to 1.6 s. The archive is only valid for the very class path that it was made with: the jars
//! are named in one order, and the folder has a hash of the sources in its name.
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use super::settings::{self, Member, Ports, Settings};
use crate::{
    Failed, cache,
    maven::{self, Artifact, Libs},
    ports,
};

const KAFKA: &str = "4.1.2";
const ARTIFACTS: &[Artifact] = &[
    ("org.apache.kafka", "kafka_2.13", KAFKA),
    ("org.apache.logging.log4j", "log4j-core", "2.24.3"),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
    ("org.eclipse.jdt", "ecj", "3.37.0"),
];
const SOURCES: &[(&str, &str)] = &[
    ("Broker.java", include_str!("../../java/Broker.java")),
    ("Judge.java", include_str!("../../java/Judge.java")),
    ("Prepare.java", include_str!("../../java/Prepare.java")),
    ("Registry.java", include_str!("../../java/Registry.java")),
    ("log4j2.properties", include_str!("../../java/log4j2.properties")),
];
// A test machine has few cores and many of these: the better compiler would never earn its cost.
const FRUGAL: [&str; 3] = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// Kafka on this machine.
pub(crate) struct Jars {
    libs: Libs,
    /// Of this crate's own programs.
    programs: PathBuf,
}

impl Jars {
    /// Finds them, or fetches and prepares them.
    pub fn find() -> Result<Self, Failed> {
        let libs = Libs::find("Kafka", KAFKA, ARTIFACTS)?;
        let mut hasher = DefaultHasher::new();
        (SOURCES, ARTIFACTS, &FRUGAL).hash(&mut hasher);
        let programs = cache::folder(&format!("kafka-{KAFKA}"))?.join(format!("programs-{:016x}", hasher.finish()));
        let jars = Self { libs, programs };
        cache::once(&jars.programs, |to| jars.compile(to))?;
        // The archive knows its jar by its path: it is made where it stays.
        let archive = jars.programs.join("archive");
        cache::once(&archive, |to| jars.archive(to))?;
        Ok(jars)
    }

    fn compile(&self, to: &Path) -> Result<(), Failed> {
        let failed = |e: std::io::Error| format!("{}: {e}", to.display());
        let mut compiler = Command::new("java");
        compiler.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(self.libs.class_path()?);
        compiler.args(["org.eclipse.jdt.internal.compiler.batch.Main", "-17", "-nowarn", "-d", "classes"]);
        for (name, text) in SOURCES {
            fs::write(to.join(name), text).map_err(failed)?;
            if name.ends_with(".java") {
                compiler.arg(name);
            }
        }
        compiler.arg("-cp").arg(self.libs.class_path()?);
        let needed = "the programs that start and question Kafka are compiled";
        maven::run(compiler.current_dir(to), needed)?;
        let mut pack = Command::new("java");
        pack.args(["-cp", "classes", "Prepare", "pack", "classes", "programs.jar"]);
        maven::run(pack.current_dir(to), needed)
    }

    fn archive(&self, to: &Path) -> Result<(), Failed> {
        let [clients, controller] = ports::free(2)?[..] else { return Err("there are no two free ports".into()) };
        let scratch = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
        let file = scratch.path().join("server.properties");
        let (ports, alone) =
            (Ports { clients, controller, proxied: 0, listeners: Vec::new() }, Member::alone(controller));
        let text = settings::text(&Settings::default(), &ports, &alone, None, &scratch.path().join("data"));
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut java = self.java()?;
        java.arg(format!("-XX:ArchiveClassesAtExit={}", to.join("classes.jsa").display()));
        java.args(["Prepare", "rehearse"]).arg(&file).arg(format!("127.0.0.1:{clients}"));
        maven::run(&mut java, "Kafka is started once, to archive the classes that it loads")
    }

    /// A command that runs one of the programs, and its arguments are to follow.
    pub fn program(&self, class: &str) -> Result<Command, Failed> {
        let mut java = self.java()?;
        java.arg(format!("-XX:SharedArchiveFile={}", self.programs.join("archive/classes.jsa").display()));
        // Whatever the virtual machine has to say of the archive must not get between a judge's replies.
        java.args(["-Xlog:disable", "-Xlog:all=error:stderr", class]);
        Ok(java)
    }

    /// This crate's own programs.
    pub fn compiled(&self) -> PathBuf {
        self.programs.join("programs.jar")
    }

    fn java(&self) -> Result<Command, Failed> {
        let mut java = Command::new("java");
        let log = self.programs.join("log4j2.properties");
        java.args(FRUGAL).arg(format!("-Dlog4j2.configurationFile={}", log.display()));
        java.arg("-cp").arg(format!("{}:{}", self.libs.class_path()?, self.compiled().display()));
        Ok(java)
    }
}
