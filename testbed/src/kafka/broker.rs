//! One real Kafka node, in one process and one temporary folder; alone, or in a cluster of such.
//!
//! Hard are its ends. It can be killed at any moment and restarted over the same data on the same ports. And it must
//! not outlive a test that was killed itself and could clean nothing up: its stdin is a pipe from this
//! process, and when that ends, however it does, the node removes its folder and halts (see
//! `java/Broker.java`). For the same reason it is in a process group of its own: a Ctrl-C at the terminal is for its
//! owner, whose end it will notice.
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    Judge, Proxy, Settings,
    jars::Jars,
    settings::{self, Member, Ports},
};
use crate::{Failed, log::Log, ports};

const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// How often a start is tried whose ports another process has taken meanwhile.
const TRIES: u32 = 3;

/// A Kafka broker that is there until it is dropped.
pub struct Broker {
    // Dropped first: it is a client.
    judge: OnceLock<Judge>,
    judging: Mutex<()>,
    proxy: Option<Proxy>,
    bootstrap: String,
    /// The further ways in: name and address.
    listeners: Vec<(String, String)>,
    node: Option<Child>,
    boots: u32,
    jars: Jars,
    folder: TempDir,
}

impl Broker {
    /// Starts one, on a free port, and waits until it is ready.
    pub fn start() -> Result<Self, Failed> {
        Self::with(|settings| settings)
    }

    /// Starts one with settings of one's own.
    pub fn with(choose: impl FnOnce(Settings) -> Settings) -> Result<Self, Failed> {
        let settings = choose(Settings::default());
        if let Some(port) = settings.port.filter(|port| !ports::is_free(*port)) {
            return Err(format!("port {port} of 127.0.0.1 is taken"));
        }
        let mut broker = Self::empty(settings.proxied.then(Proxy::listen).transpose()?)?;
        for tried in 1.. {
            let ports = Ports::free(&settings)?;
            let alone = Member::alone(ports.controller);
            broker.configure(&settings, &ports, &alone)?;
            match broker.restart() {
                Err(why) if tried < TRIES && why.contains("Address already in use") => broker.clear()?,
                result => return result.map(|()| broker),
            }
        }
        Err("no port is free".into())
    }

    /// Starts a cluster, and waits until it is ready: everything is on three nodes, and two must have what is written.
    /// Clients of any of its brokers begin at all of them.
    pub fn cluster(count: usize) -> Result<Vec<Self>, Failed> {
        let settings = Settings::default();
        let ports: Vec<_> = (0..count).map(|_| Ports::free(&settings)).collect::<Result<_, _>>()?;
        let controllers: Vec<_> = ports.iter().map(|p| p.controller).collect();
        let mut brokers = Vec::new();
        for (n, ports) in ports.iter().enumerate() {
            let mut broker = Self::empty(None)?;
            broker.configure(&settings, ports, &Member { id: n + 1, controllers: controllers.clone() })?;
            brokers.push(broker);
        }
        let bootstrap = brokers.iter().map(|b| b.bootstrap.as_str()).collect::<Vec<_>>().join(",");
        // All at once: none is ready before most of them are there.
        for broker in &mut brokers {
            broker.bootstrap.clone_from(&bootstrap);
            broker.spawn()?;
        }
        for broker in &mut brokers {
            broker.ready()?;
        }
        Ok(brokers)
    }

    fn empty(proxy: Option<Proxy>) -> Result<Self, Failed> {
        let (jars, folder) = (Jars::find()?, tempfile::Builder::new().prefix("tidegate-kafka-").tempdir());
        let folder = folder.map_err(|e| format!("a temporary folder: {e}"))?;
        let (judge, judging) = (OnceLock::new(), Mutex::new(()));
        let (bootstrap, listeners) = (String::new(), Vec::new());
        Ok(Self { judge, judging, proxy, bootstrap, listeners, node: None, boots: 0, jars, folder })
    }

    fn configure(&mut self, settings: &Settings, ports: &Ports, member: &Member) -> Result<(), Failed> {
        self.bootstrap = format!("127.0.0.1:{}", ports.clients);
        let named = settings.listeners.iter().zip(&ports.listeners);
        self.listeners = named.map(|((name, _), port)| (name.clone(), format!("127.0.0.1:{port}"))).collect();
        if let Some(proxy) = &self.proxy {
            proxy.forward_to(ports.proxied);
        }
        let text = settings::text(settings, ports, member, self.proxy.as_ref(), &self.folder.path().join("data"));
        fs::write(self.file(), text).map_err(|e| format!("{}: {e}", self.file().display()))
    }

    fn clear(&mut self) -> Result<(), Failed> {
        self.kill();
        let data = self.folder.path().join("data");
        fs::remove_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))
    }

    /// Where clients begin: host and port.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where clients begin that come in by one of [`Settings::listener`].
    pub fn listener(&self, name: &str) -> Result<&str, Failed> {
        let found = self.listeners.iter().find(|(listener, _)| listener == name);
        found.map(|(_, address)| address.as_str()).ok_or_else(|| format!("the broker has no listener {name}"))
    }

    /// The way in through the proxy.
    pub fn proxy(&self) -> Result<&Proxy, Failed> {
        self.proxy.as_ref().ok_or_else(|| "the broker has no proxy: start it with Settings::proxied".into())
    }

    /// The node's process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Child::id)
    }

    /// What looks at this broker with Kafka's own clients: started when it is first asked for, and there until the
    /// broker is dropped, over kills and restarts.
    pub fn judge(&self) -> Result<&Judge, Failed> {
        let _one = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(judge) = self.judge.get() {
            return Ok(judge);
        }
        let judge = Judge::start(&self.bootstrap)?;
        Ok(self.judge.get_or_init(|| judge))
    }

    /// Ends the node at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }

    /// Ends the node in good order, as SIGTERM would; kills it if that takes too long.
    pub fn stop(&mut self) {
        if let Some(node) = &mut self.node {
            let asked = node.stdin.as_mut().map(|stdin| stdin.write_all(b"\n").and_then(|()| stdin.flush()));
            let until = Instant::now() + STOPPED_WITHIN;
            while matches!(asked, Some(Ok(()))) && matches!(node.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
        }
        self.kill();
    }

    /// Starts the node over what it has, and waits until it is ready. One that runs is killed before.
    pub fn restart(&mut self) -> Result<(), Failed> {
        self.spawn()?;
        self.ready()
    }

    fn spawn(&mut self) -> Result<(), Failed> {
        self.kill();
        self.boots += 1;
        let path = self.log();
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let out = File::create(&path).map_err(failed)?;
        let mut node = self.jars.program("Broker")?;
        node.arg(self.file()).arg(self.folder.path()).process_group(0);
        node.stdin(Stdio::piped()).stderr(out.try_clone().map_err(failed)?).stdout(out);
        self.node = Some(node.spawn().map_err(|e| format!("java cannot be started: {e}"))?);
        Ok(())
    }

    fn ready(&mut self) -> Result<(), Failed> {
        let log = Log(self.log());
        let node = self.node.as_mut().ok_or("the node was not started")?;
        log.wait(node, "the node itself starts", "Kafka Server started").map_err(|why| format!("Kafka: {why}"))
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    /// The log of the node since it was last started.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join(format!("log-{}", self.boots))
    }

    /// Waits until the node ends by itself; says what it said last.
    pub fn wait(&mut self) -> String {
        if let Some(node) = &mut self.node {
            // Its stdin is kept: Child::wait would close it, which the node takes for the end of its owner.
            while matches!(node.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(100));
            }
        }
        Log(self.log()).end()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
