//! What runs HDFS: its jars, and a file system that was formatted once. Formatting takes a virtual machine of its own and
//! a second or two, and what it writes has nothing in it that a test could tell from another's: so every start takes
//! a copy.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    SUPERUSER,
    options::{self, Options, PORTS, Ports},
};
use crate::{
    Failed, cache,
    maven::{self, Artifact, Libs},
    process,
};

const HADOOP: &str = "3.5.0";
const ARTIFACTS: &[Artifact] = &[
    ("org.apache.hadoop", "hadoop-common", HADOOP),
    ("org.apache.hadoop", "hadoop-hdfs", HADOOP),
    ("org.apache.hadoop", "hadoop-hdfs-client", HADOOP),
];
const FRUGAL: [&str; 4] =
    ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"];
pub(super) const NAME_NODE: &str = "org.apache.hadoop.hdfs.server.namenode.NameNode";
pub(super) const DATA_NODE: &str = "org.apache.hadoop.hdfs.server.datanode.DataNode";
const LOG: &str = "\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
";

/// HDFS on this machine.
pub(super) struct Jars {
    class_path: String,
    formatted: PathBuf,
}

impl Jars {
    /// Finds them, or fetches and prepares them.
    pub fn find() -> Result<Self, Failed> {
        let class_path = Libs::find("Hadoop", HADOOP, ARTIFACTS)?.class_path()?;
        let formatted = cache::folder(&format!("hadoop-{HADOOP}"))?.join("formatted");
        cache::once(&formatted, |to| format(&class_path, to))?;
        Ok(Self { class_path, formatted })
    }

    /// Fills the folder of a new HDFS.
    pub fn fill(&self, folder: &Path, options: &Options, ports: &Ports) -> Result<(), Failed> {
        configure(folder, options, ports)?;
        let (from, to) = (self.formatted.join("name/current"), folder.join("name/current"));
        let failed = |e: std::io::Error| format!("{}: {e}", from.display());
        fs::create_dir_all(&to).map_err(failed)?;
        for entry in fs::read_dir(&from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            fs::copy(entry.path(), to.join(entry.file_name())).map_err(failed)?;
        }
        Ok(())
    }

    /// A command that runs one of the nodes.
    pub fn node(&self, class: &str, folder: &Path) -> Command {
        let mut command = process::server("java");
        complete(&mut command, &self.class_path, folder);
        command.arg(class);
        command
    }
}

fn complete(java: &mut Command, class_path: &str, folder: &Path) {
    java.args(FRUGAL).arg("-cp").arg(format!("conf:{class_path}")).current_dir(folder);
    java.env("HADOOP_USER_NAME", SUPERUSER);
}

fn configure(folder: &Path, options: &Options, ports: &Ports) -> Result<(), Failed> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let conf = folder.join("conf");
    // The jars lack the web pages, and without a place for them both nodes refuse to start.
    for name in ["hdfs", "datanode"] {
        fs::create_dir_all(conf.join("webapps").join(name)).map_err(failed)?;
    }
    fs::write(conf.join("log4j.properties"), LOG).map_err(failed)?;
    fs::write(conf.join("hdfs-site.xml"), options::text(options, ports, folder)).map_err(failed)
}

fn format(class_path: &str, to: &Path) -> Result<(), Failed> {
    // It listens on none of them.
    let ports = Ports::of(&[1; PORTS]).ok_or("there are no ports")?;
    configure(to, &Options::default(), &ports)?;
    let mut java = Command::new("java");
    complete(&mut java, class_path, to);
    java.args([NAME_NODE, "-format", "-force", "-nonInteractive"]);
    maven::run(&mut java, "a file system is formatted")?;
    // Of a folder elsewhere it would say that all is well.
    if to.join("name/current").exists() { Ok(()) } else { Err("a file system is formatted, and not there".into()) }
}
