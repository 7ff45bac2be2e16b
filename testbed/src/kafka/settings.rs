//! What a broker is started with. One node is broker and controller at once; it has little of everything that is
//! three by default in a cluster. The hard case is its session: with the default a one-node broker on a busy
//! machine is fenced by its own controller, so it is long, and the launcher sees to it that a restart need not
//! wait for it.
use std::{fmt::Write as _, path::Path};

use super::Proxy;

/// What may be chosen about a broker.
#[derive(Default)]
pub struct Settings {
    pub(super) port: Option<u16>,
    pub(super) proxied: bool,
    pub(super) properties: Vec<(String, String)>,
}

impl Settings {
    /// One of the broker's own settings; it wins over what it would be otherwise.
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

    /// A second way in, through [`Broker::proxy`](super::Broker::proxy).
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }
}

/// The ports of a node, which a restart keeps.
pub(super) struct Ports {
    pub clients: u16,
    pub controller: u16,
    pub proxied: u16,
}

const ALWAYS: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listener.security.protocol.map=PLAIN:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=30000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.retention.check.interval.ms=1000
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
";

/// The text of `server.properties`.
pub(super) fn text(settings: &Settings, ports: &Ports, proxy: Option<&Proxy>, data: &Path) -> String {
    let Ports { clients, controller, proxied } = ports;
    let mut listeners = format!("PLAIN://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("PLAIN://127.0.0.1:{clients}");
    if let Some(proxy) = proxy {
        let _ = write!(listeners, ",PROXIED://127.0.0.1:{proxied}");
        // A client goes where the broker says it is: here, back to the proxy.
        let _ = write!(advertised, ",PROXIED://{}", proxy.bootstrap());
    }
    let mut text = ALWAYS.to_owned();
    let _ = write!(
        text,
        "controller.quorum.voters=1@127.0.0.1:{controller}\nlisteners={listeners}\nadvertised.listeners={advertised}\nlog.dirs={}\n",
        data.display()
    );
    // Of a setting that is there twice the last one counts.
    for (name, value) in &settings.properties {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}
