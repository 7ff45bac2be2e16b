//! What the two nodes are started with: everything that takes its time in a cluster of thousands is short, and there is
//! one of what there are three of.
use std::{fmt::Write as _, path::Path};

/// What may be chosen about an HDFS.
#[derive(Clone, Default)]
pub struct Options {
    pub(super) port: Option<u16>,
    permissions: bool,
    properties: Vec<(String, String)>,
}

impl Options {
    /// One of Hadoop's own properties (`dfs.blocksize`); it wins over what it would be otherwise.
    #[must_use]
    pub fn property(mut self, name: &str, value: impl ToString) -> Self {
        self.properties.push((name.to_owned(), value.to_string()));
        self
    }

    /// A given port for clients; without it, a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Owners and modes count, so that a folder can be one that a user may only read.
    #[must_use]
    pub fn permissions(mut self) -> Self {
        self.permissions = true;
        self
    }
}

const ALWAYS: [(&str, &str); 7] = [
    ("dfs.replication", "1"),
    ("dfs.datanode.hostname", "127.0.0.1"),
    ("dfs.namenode.datanode.registration.ip-hostname-check", "false"),
    ("dfs.namenode.safemode.extension", "0"),
    // How soon a NameNode knows that the DataNode is there, and that it is gone (14 s; else ten minutes).
    ("dfs.heartbeat.interval", "1"),
    ("dfs.namenode.heartbeat.recheck-interval", "2000"),
    // By default it waits for its disk to have some gigabytes to spare.
    ("dfs.namenode.resource.du.reserved", "0"),
];

/// The ports of both nodes, which a restart keeps.
pub(super) struct Ports {
    /// The `NameNode`'s for clients, and for its web interface.
    pub name: u16,
    pub name_web: u16,
    /// The `DataNode`'s for clients, for the other node, and for its web interface.
    pub data: u16,
    pub data_ipc: u16,
    pub data_web: u16,
}

/// How many there are.
pub(super) const PORTS: usize = 5;

impl Ports {
    pub fn of(ports: &[u16]) -> Option<Self> {
        let &[name, name_web, data, data_ipc, data_web] = ports else { return None };
        Some(Self { name, name_web, data, data_ipc, data_web })
    }
}

/// The text of `hdfs-site.xml`, which may hold everything; `core-site.xml` may not, as the defaults of HDFS win over it.
pub(super) fn text(options: &Options, ports: &Ports, folder: &Path) -> String {
    let at = |port: u16| format!("127.0.0.1:{port}");
    let within = |name: &str| format!("file://{}", folder.join(name).display());
    let own = [
        ("fs.defaultFS", format!("hdfs://{}", at(ports.name))),
        ("dfs.namenode.http-address", at(ports.name_web)),
        ("dfs.datanode.address", at(ports.data)),
        ("dfs.datanode.ipc.address", at(ports.data_ipc)),
        ("dfs.datanode.http.address", at(ports.data_web)),
        ("dfs.namenode.name.dir", within("name")),
        ("dfs.datanode.data.dir", within("data")),
        ("hadoop.tmp.dir", folder.join("tmp").display().to_string()),
        ("dfs.permissions.enabled", options.permissions.to_string()),
    ];
    let always = ALWAYS.iter().map(|(name, value)| (*name, *value));
    let own = own.iter().map(|(name, value)| (*name, value.as_str()));
    let chosen = options.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut text = "<configuration>\n".to_owned();
    // Of a property that is there twice the last one counts.
    for (name, value) in always.chain(own).chain(chosen) {
        let value = value.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(text, "<property><name>{name}</name><value>{value}</value></property>");
    }
    text + "</configuration>\n"
}
