//! One server, in one process and one temporary folder. It can be killed at any moment, and restarted over the same
//! data on the same port; what ends it when its owner was killed is in [`process`](crate::process).
use std::{fs, path::Path, sync::Arc, time::Duration};

use super::{Client, Options, Value};
use crate::{
    Failed, ports,
    process::{self, Folder, Process},
};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A Redis server that is there until it is dropped.
pub struct Redis {
    pub(super) port: u16,
    password: Option<String>,
    process: Process,
    folder: Arc<Folder>,
}

impl Redis {
    /// Starts one, on a free port, and waits until it is ready.
    pub fn start(options: &Options) -> Result<Self, Failed> {
        ports::start(options.port, 1, |ports| Self::on(ports[0], options, &[]))
    }

    /// Starts one on this port, with arguments of its own.
    pub(super) fn on(port: u16, options: &Options, arguments: &[&str]) -> Result<Self, Failed> {
        let folder = Folder::new("redis")?;
        let file = folder.path().join("server.conf");
        let arguments = arguments.join("\n");
        let text = format!("{}{arguments}\n", options.text(port));
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        let process = Process::new("Redis", &folder);
        let mut redis = Self { port, password: options.password.clone(), process, folder };
        redis.restart()?;
        Ok(redis)
    }

    /// Where clients begin: host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port of its address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// For clients that want an address with a scheme, and the password, if there is one.
    pub fn url(&self) -> String {
        let password = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{password}{}", self.address())
    }

    /// The server's process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Its log since it was last started.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Its folder, in which its data are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection that may do everything.
    pub fn client(&self) -> Result<Client, Failed> {
        client(&self.address(), self.password.as_deref())
    }

    /// Asks the server itself one thing, as `["DBSIZE"]` or `["CONFIG", "SET", "maxmemory", "1mb"]`.
    pub fn ask<T: AsRef<[u8]>>(&self, words: &[T]) -> Result<Value, Failed> {
        self.client()?.ask(words)
    }

    /// The value of one line of INFO: `used_memory`, `role`.
    pub fn info(&self, name: &str) -> Result<String, Failed> {
        let info = self.ask(&["INFO", "everything"])?.text().unwrap_or_default();
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::to_owned).ok_or_else(|| format!("Redis has no {name} in INFO"))
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it over what it has, and waits until it has loaded that. One that runs is killed before.
    pub fn restart(&mut self) -> Result<(), Failed> {
        let mut command = process::server(super::program()?);
        command.arg("server.conf").current_dir(self.folder.path());
        self.process.spawn(command)?;
        let (address, password) = (self.address(), self.password.clone());
        let is_ready = || client(&address, password.as_deref()).is_ok_and(|mut client| client.ask(&["PING"]).is_ok());
        self.process.ready(READY_WITHIN, is_ready)
    }

    /// Waits until it ends by itself; says what it said last.
    pub fn wait(&mut self) -> String {
        self.process.wait()
    }
}

fn client(address: &str, password: Option<&str>) -> Result<Client, Failed> {
    let mut client = Client::connect(address)?;
    if let Some(password) = password {
        client.ask(&["AUTH", password])?;
    }
    Ok(client)
}
