//! A master, its replica, and sentinels that put the replica in the master's place when that is dead. The hard case is
//! the beginning: sentinels that do not yet know the replica, or one another, cannot fail over, and a test that kills
//! the master too early would wait for nothing. So a start waits until they do.
use std::{
    fmt::Write as _,
    fs, thread,
    time::{Duration, Instant},
};

use super::{Options, Redis, Value};
use crate::{
    Failed, ports,
    process::{self, Folder, Process},
};

/// What the sentinels call the master.
const NAME: &str = "tidegate";
/// In less than the second between two attempts to connect a new master is believed dead, and so on for ever.
const DOWN_AFTER_MS: u32 = 1500;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A master and its replica under sentinels, which are there until they are dropped.
pub struct Sentinels {
    /// One of them is the master.
    servers: [Redis; 2],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    _process: Process,
}

impl Sentinels {
    /// Starts so many sentinels (1 or 3), and waits until they could fail over.
    pub fn start(count: usize, options: &Options) -> Result<Self, Failed> {
        // Both of them: each follows the other in its turn.
        let options = &match &options.password {
            Some(password) => options.clone().set("masterauth", password),
            None => options.clone(),
        };
        let master = Redis::start(options)?;
        let follow = format!("replicaof 127.0.0.1 {}", master.port);
        let replica = ports::start(None, 1, |ports| Redis::on(ports[0], options, &[&follow]))?;
        wait("the replica follows", || replica.info("master_link_status").is_ok_and(|status| status == "up"))?;
        let quorum = count / 2 + 1;
        let port = master.port;
        let mut text = format!(
            "bind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {port} {quorum}\n\
             sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 3000\n"
        );
        if let Some(password) = &options.password {
            let _ = writeln!(text, "sentinel auth-pass {NAME} {password}");
        }
        let sentinels = (0..count).map(|_| ports::start(None, 1, |ports| Sentinel::on(ports[0], &text)));
        let sentinels = sentinels.collect::<Result<_, _>>()?;
        let set = Self { servers: [master, replica], sentinels };
        let others = (count - 1).to_string();
        let knows = |sentinel: &Sentinel| {
            let known = |name: &str| sentinel.known(name).ok();
            known("num-slaves").as_deref() == Some("1") && known("num-other-sentinels").as_ref() == Some(&others)
        };
        wait("the sentinels know all", || set.sentinels.iter().all(knows))?;
        Ok(set)
    }

    /// Where clients begin: host and port of each sentinel.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Sentinel::address).collect()
    }

    /// What they call the master.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The master, as the first sentinel sees it.
    pub fn master(&self) -> Result<&Redis, Failed> {
        Ok(&self.servers[self.master_index()?])
    }

    /// Both servers, the first master first.
    pub fn servers_mut(&mut self) -> &mut [Redis; 2] {
        &mut self.servers
    }

    /// Kills the master (SIGKILL), and waits until all sentinels name the other one, and that is a master.
    pub fn fail_over(&mut self) -> Result<(), Failed> {
        let dead = self.master_index()?;
        self.servers[dead].kill();
        let other = &self.servers[1 - dead];
        let is_over = |sentinel: &Sentinel| sentinel.master().is_ok_and(|port| port == other.port);
        wait("the replica has taken over", || {
            self.sentinels.iter().all(is_over) && other.info("role").is_ok_and(|role| role == "master")
        })
    }

    /// Starts the one that is dead, and waits until it follows the master. It comes back as a master; the sentinels
    /// would let it be one for ten seconds, so it is told at once. A test that needs those ten restarts it itself, with
    /// [`servers_mut`](Self::servers_mut).
    pub fn heal(&mut self) -> Result<(), Failed> {
        let index = self.master_index()?;
        let port = self.servers[index].port.to_string();
        let follower = &mut self.servers[1 - index];
        if follower.pid().is_none() {
            follower.restart()?;
        }
        follower.ask(&["REPLICAOF", "127.0.0.1", &port])?;
        wait("the old master follows", || follower.info("master_link_status").is_ok_and(|status| status == "up"))
    }

    fn master_index(&self) -> Result<usize, Failed> {
        let port = self.sentinels.first().ok_or("there is no sentinel")?.master()?;
        let index = self.servers.iter().position(|server| server.port == port);
        index.ok_or_else(|| format!("the sentinels' master at port {port} is none of these"))
    }
}

impl Sentinel {
    fn on(port: u16, text: &str) -> Result<Self, Failed> {
        let folder = Folder::new("sentinel")?;
        let file = folder.path().join("sentinel.conf");
        let text = format!("port {port}\n{text}");
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut command = process::server(super::program()?);
        command.args(["sentinel.conf", "--sentinel"]).current_dir(folder.path());
        let mut process = Process::new("sentinel", &folder);
        process.spawn(command)?;
        process.ready(READY_WITHIN, || ask(port, &["PING"]).is_ok())?;
        Ok(Self { port, _process: process })
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port of the master.
    fn master(&self) -> Result<u16, Failed> {
        let address = ask(self.port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
        let port = address.list().get(1).and_then(Value::integer);
        port.map(|port| port as u16).ok_or_else(|| "the sentinel knows no master".into())
    }

    /// What it knows of the master under this name.
    fn known(&self, name: &str) -> Result<String, Failed> {
        let fields = ask(self.port, &["SENTINEL", "MASTER", NAME])?;
        let field = fields.list().chunks(2).find(|pair| pair[0].text().as_deref() == Some(name));
        field.and_then(|pair| pair.get(1)?.text()).ok_or_else(|| format!("the sentinel does not know {name}"))
    }
}

fn ask(port: u16, words: &[&str]) -> Result<Value, Failed> {
    super::Client::connect(&format!("127.0.0.1:{port}"))?.ask(words)
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Failed> {
    let until = Instant::now() + READY_WITHIN;
    while !is_so() {
        if Instant::now() > until {
            return Err(format!("Redis: not within {} s: {what}", READY_WITHIN.as_secs()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
