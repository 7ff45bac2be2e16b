//! What a broker is started with. One node is broker and controller at once; alone, it has little of everything that
//! is three by default in a cluster. The hard case is its session: with the default a one-node broker on a busy
//! machine is fenced by its own controller, so it is long, and the launcher sees to it that a restart need not
//! wait for it. In a cluster it is short, since nobody else leads until it is over.
use std::{fmt::Write as _, path::Path};

use super::Proxy;
use crate::{Failed, ports};

/// What may be chosen about a broker.
#[derive(Default)]
pub struct Settings {
    pub(super) port: Option<u16>,
    pub(super) proxied: bool,
    /// Names and protocols.
    pub(super) listeners: Vec<(String, String)>,
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

    /// One more way in, for [`Broker::listener`](super::Broker::listener): its name, which is also that of its
    /// settings (`listener.name.NAME.…`), and its protocol: `SASL_PLAINTEXT`, `SSL` or `SASL_SSL`.
    #[must_use]
    pub fn listener(mut self, name: &str, protocol: &str) -> Self {
        self.listeners.push((name.to_owned(), protocol.to_owned()));
        self
    }

    /// Users with passwords, who come in at a listener with SASL PLAIN.
    #[must_use]
    pub fn users(self, listener: &str, users: &[(&str, &str)]) -> Self {
        let users: String = users.iter().map(|(name, password)| format!(" user_{name}=\"{password}\"")).collect();
        let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
        self.property(&format!("listener.name.{listener}.sasl.enabled.mechanisms"), "PLAIN")
            .property(&format!("listener.name.{listener}.plain.sasl.jaas.config"), format!("{module} required{users};"))
    }

    /// Users may do what [`Judge::allow`](super::Judge::allow) has allowed them, and nothing else. Who comes in without
    /// a name, as a judge does, may do everything.
    #[must_use]
    pub fn authorized(self) -> Self {
        self.property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            .property("super.users", "User:ANONYMOUS")
    }
}

/// The ports of a node, which a restart keeps.
pub(super) struct Ports {
    pub clients: u16,
    pub controller: u16,
    pub proxied: u16,
    /// Of the further listeners, in their order.
    pub listeners: Vec<u16>,
}

impl Ports {
    /// Free ones, but for the one that is given.
    pub fn free(settings: &Settings) -> Result<Self, Failed> {
        let all = ports::free(3 + settings.listeners.len())?;
        let [free, controller, proxied, listeners @ ..] = &all[..] else {
            return Err("there are no free ports".into());
        };
        let clients = settings.port.unwrap_or(*free);
        Ok(Self { clients, controller: *controller, proxied: *proxied, listeners: listeners.to_vec() })
    }
}

/// A node's place in a cluster.
pub(super) struct Member {
    pub id: usize,
    /// The ports of the controllers of all nodes, from the first.
    pub controllers: Vec<u16>,
}

impl Member {
    pub fn alone(controller: u16) -> Self {
        Self { id: 1, controllers: vec![controller] }
    }

    fn is_alone(&self) -> bool {
        self.controllers.len() == 1
    }
}

const ALWAYS: &str = "\
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
auto.create.topics.enable=false
offsets.topic.num.partitions=3
transaction.state.log.num.partitions=3
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.retention.check.interval.ms=1000
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
";

const ALONE: &str = "\
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=30000
";

const IN_A_CLUSTER: &str = "\
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
";

/// The text of `server.properties`.
pub(super) fn text(settings: &Settings, ports: &Ports, member: &Member, proxy: Option<&Proxy>, data: &Path) -> String {
    let Ports { clients, controller, proxied, .. } = ports;
    let mut listeners = format!("PLAIN://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("PLAIN://127.0.0.1:{clients}");
    let mut protocols = "PLAIN:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    if let Some(proxy) = proxy {
        let _ = write!(listeners, ",PROXIED://127.0.0.1:{proxied}");
        // A client goes where the broker says it is: here, back to the proxy.
        let _ = write!(advertised, ",PROXIED://{}", proxy.bootstrap());
    }
    for ((name, protocol), port) in settings.listeners.iter().zip(&ports.listeners) {
        let _ = write!(listeners, ",{name}://127.0.0.1:{port}");
        let _ = write!(advertised, ",{name}://127.0.0.1:{port}");
        let _ = write!(protocols, ",{name}:{protocol}");
    }
    let voters = member.controllers.iter().enumerate().map(|(n, port)| format!("{}@127.0.0.1:{port}", n + 1));
    let voters = voters.collect::<Vec<_>>().join(",");
    let mut text = format!("{ALWAYS}{}", if member.is_alone() { ALONE } else { IN_A_CLUSTER });
    let _ = write!(
        text,
        "node.id={}\ncontroller.quorum.voters={voters}\nlisteners={listeners}\nadvertised.listeners={advertised}\n\
         listener.security.protocol.map={protocols}\nlog.dirs={}\n",
        member.id,
        data.display()
    );
    // Of a setting that is there twice the last one counts.
    for (name, value) in &settings.properties {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}
