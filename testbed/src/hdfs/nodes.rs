//! The two nodes, alive and dead. The hard case is when they are ready: a `NameNode` answers long before it lets anybody
//! write, and long before it knows where the blocks are that it has names for. Both nodes say how far they are to who asks
//! them for their state over HTTP.
use std::{path::Path, sync::Arc, time::Duration};

use super::{
    jars::{DATA_NODE, Jars, NAME_NODE},
    options::{Options, PORTS, Ports},
};
use crate::{
    Failed, http, ports,
    process::{Folder, Process},
};

const READY_WITHIN: Duration = Duration::from_secs(120);

/// An HDFS that is there until it is dropped.
pub struct Hdfs {
    pub(super) ports: Ports,
    name_node: Process,
    data_node: Process,
    jars: Jars,
    folder: Arc<Folder>,
}

impl Hdfs {
    /// Starts one, on free ports, and waits until it is ready.
    pub fn start() -> Result<Self, Failed> {
        Self::with(&Options::default())
    }

    /// Starts one with options of one's own.
    pub fn with(options: &Options) -> Result<Self, Failed> {
        ports::start(options.port, PORTS, |ports| {
            let ports = Ports::of(ports).ok_or("there are no free ports")?;
            let (jars, folder) = (Jars::find()?, Folder::new("hdfs")?);
            jars.fill(folder.path(), options, &ports)?;
            let (name_node, data_node) = (Process::new("NameNode", &folder), Process::new("DataNode", &folder));
            let mut hdfs = Self { ports, name_node, data_node, jars, folder };
            hdfs.restart()?;
            Ok(hdfs)
        })
    }

    /// Where clients begin.
    pub fn url(&self) -> String {
        format!("hdfs://127.0.0.1:{}", self.ports.name)
    }

    /// The `NameNode`'s port for clients.
    pub fn port(&self) -> u16 {
        self.ports.name
    }

    /// The folder in which all is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The processes of the `NameNode` and the `DataNode`, where they run.
    pub fn pids(&self) -> (Option<u32>, Option<u32>) {
        (self.name_node.pid(), self.data_node.pid())
    }

    /// The logs of the `NameNode` and the `DataNode` since they were last started.
    pub fn logs(&self) -> (&Path, &Path) {
        (self.name_node.log(), self.data_node.log())
    }

    /// Ends the `NameNode` at once (SIGKILL), as a crash would.
    pub fn kill_name_node(&mut self) {
        self.name_node.kill();
    }

    /// Ends the `DataNode` at once (SIGKILL), as a crash would.
    pub fn kill_data_node(&mut self) {
        self.data_node.kill();
    }

    /// Ends both in good order.
    pub fn stop(&mut self) {
        self.data_node.stop();
        self.name_node.stop();
    }

    /// Starts the `NameNode` over what it has, and waits until it lets everybody read and write. Without a `DataNode` it
    /// may not do so (that is its safe mode): then only until it answers.
    pub fn restart_name_node(&mut self) -> Result<(), Failed> {
        self.name_node.spawn(self.jars.node(NAME_NODE, self.folder.path()))?;
        self.ready()
    }

    /// Starts the `DataNode` over what it has, and waits until the `NameNode`, if that is there, knows what it has.
    pub fn restart_data_node(&mut self) -> Result<(), Failed> {
        self.data_node.spawn(self.jars.node(DATA_NODE, self.folder.path()))?;
        self.ready()
    }

    /// Starts both, at once, and waits until they are ready.
    pub fn restart(&mut self) -> Result<(), Failed> {
        self.name_node.spawn(self.jars.node(NAME_NODE, self.folder.path()))?;
        self.data_node.spawn(self.jars.node(DATA_NODE, self.folder.path()))?;
        self.ready()
    }

    fn ready(&mut self) -> Result<(), Failed> {
        let (name_web, data_web) = (self.ports.name_web, self.ports.data_web);
        let (is_named, has_data) = (self.name_node.pid().is_some(), self.data_node.pid().is_some());
        if is_named {
            self.name_node.ready(READY_WITHIN, || bean(name_web, "NameNode", "FSNamesystemState").is_some())?;
        }
        if !has_data {
            return Ok(());
        }
        // The one that is dead is counted for 14 s: so the new one is asked itself whether it was welcomed.
        self.data_node.ready(READY_WITHIN, || {
            let state = bean(data_web, "DataNode", "DataNodeInfo");
            state.is_some_and(|state| !is_named || state.contains("\\\"ActorState\\\":\\\"RUNNING\\\""))
        })?;
        if !is_named {
            return Ok(());
        }
        self.name_node.ready(READY_WITHIN, || {
            let has = |name, all: &[&str]| {
                bean(name_web, "NameNode", name).is_some_and(|state| all.iter().all(|each| state.contains(each)))
            };
            has(
                "FSNamesystemState",
                &["\"FSState\" : \"Operational\"", "\"NumLiveDataNodes\" : 1", "\"NumStaleStorages\" : 0"],
            ) && has("NameNodeInfo", &["\"NumberOfMissingBlocks\" : 0"])
        })
    }

    /// Waits until the `NameNode` ends by itself; says what it said last.
    pub fn wait(&mut self) -> String {
        self.name_node.wait()
    }
}

/// What a node says of itself.
fn bean(port: u16, service: &str, name: &str) -> Option<String> {
    let path = format!("/jmx?qry=Hadoop:service={service},name={name}");
    let reply = http::ask(&format!("127.0.0.1:{port}"), "GET", &path, &[], &[]).ok()?;
    Some(reply.text()).filter(|text| text.contains(name))
}
