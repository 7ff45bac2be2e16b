//! How Kafka clients are made, and what their errors mean.
//!
//! Everything that librdkafka can be configured with passes through. Three layers, the later one winning: our
//! defaults, the job's `[kafka]`, and what exactly-once stands on. A property of the third kind in the second is
//! refused with the reason, since it would be overruled silently.
use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tidegate_core::{
    Error, Kind, Result, Settings,
    env::spawn_blocking,
    properties::{HIDDEN, Properties, is_secret},
};

use super::{
    events::{Events, is_refusal},
    statistics::OnStatistics,
};

/// A Kafka cluster, and how it is connected to: sources and sinks are made of it. Clones are the same.
///
/// ```
/// use tidegate_connectors::kafka::Kafka;
/// use tidegate_core::Settings;
/// let settings = Settings::from_toml("[kafka]\nbootstrap.servers = \"127.0.0.1:9092\"")?;
/// let kafka = Kafka::new(&settings).set("client.rack", "a");
/// # let _ = kafka;
/// # Ok::<(), tidegate_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Kafka {
    properties: Arc<Properties>,
    on_statistics: Option<OnStatistics>,
}

/// What a client is for.
#[derive(Clone, Debug)]
pub(super) enum Role<'a> {
    /// Asks and administers; sees what is not committed too.
    Admin,
    /// Reads partitions; `group` is who it commits positions as.
    Consumer { group: &'a str, committed_only: bool },
    /// Writes, outside of transactions.
    Producer,
    /// Writes in transactions.
    Transactional { id: &'a str, timeout: Duration },
}

impl Role<'_> {
    /// What figures and statistics name the client by: the same in every attempt.
    fn client(&self) -> &str {
        match self {
            Self::Admin => "admin",
            Self::Consumer { .. } => "consumer",
            Self::Producer => "producer",
            Self::Transactional { id, .. } => id,
        }
    }
}

/// A call that takes longer has failed. Long enough for a broker's restart, which clients wait through.
pub(super) const CALL: Duration = Duration::from_secs(60);
/// When a transactional producer sends a request again, a fifth more or less. There is no other sign of it: librdkafka
/// says nothing when a connection breaks and the next one comes about.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Who cannot be reached within this when a job starts is not there.
pub(super) const CONTACT: Duration = Duration::from_secs(10);

/// What there is to do about a topic's name that cannot be one.
pub(super) const NAME: &str = "mend the name: a topic's has 1 to 249 ASCII letters, digits, '.', '_' and '-'";

/// That in steps, since a refusal is heard of only between two.
const CONTACT_STEPS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(7)];
const EVENTS: usize = 100;

/// In time with the engine, which waits for a fill and not for a message. Each partition has a queue of its own, and
/// may have so much in it.
const CONSUMER: &[(&str, &str)] = &[
    ("fetch.wait.max.ms", "50"),
    ("fetch.queue.backoff.ms", "5"),
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "16384"),
];
/// The queue has no bound of its own: writers wait by theirs (see the sink).
const PRODUCER: &[(&str, &str)] = &[
    ("linger.ms", "5"),
    ("compression.codec", "lz4"),
    ("queue.buffering.max.messages", "0"),
    ("queue.buffering.max.kbytes", "2097151"),
];
/// Nobody sees a record before its transaction is committed, and a drain waits for nothing that lingers. So there is
/// time for larger requests. With 5 ms a partition soon has the five requests under way that an idempotent producer
/// may have, and librdkafka's thread, which has more to send and may not, runs in circles: a fifth of the whole cost.
/// A request that is full goes at once; with up to three partitions it is full before the writers wait for room (see
/// `writer`), with more of them it is the lingering that sends.
const TRANSACTIONAL: &[(&str, &str)] = &[("linger.ms", "10"), ("batch.num.messages", "4000")];
/// Those that read and write say every 5 s how they are, or retries would be seen by nobody who has not asked before.
/// It takes a few microseconds for each partition and broker every time, and of a producer the addition to a
/// histogram for each message, on librdkafka's own thread and under a lock that it takes in any case.
const STATISTICS: (&str, &str) = ("statistics.interval.ms", "5000");
const ALL: &[(&str, &str)] = &[("reconnect.backoff.max.ms", "1000"), ("socket.nagle.disable", "true")];

/// Properties that may not be set, and why.
const REFUSED: &[(&str, &str)] = &[
    ("transactional.id", "it is made from the job's name, so that a restarted job fences the one before"),
    ("enable.idempotence", "without it a retried message could be written twice; it is always on"),
    ("acks", "a message that not all replicas have could be lost; it is always all"),
    ("request.required.acks", "a message that not all replicas have could be lost; it is always all"),
    ("isolation.level", "say read_uncommitted() on the source that is to see aborted records"),
    ("group.id", "say group(name) on the source; positions are kept in the checkpoint"),
    ("enable.auto.commit", "positions are kept in the checkpoint, and committed to the group after it"),
    ("auto.commit.enable", "positions are kept in the checkpoint, and committed to the group after it"),
    ("auto.commit.interval.ms", "positions are kept in the checkpoint, and committed to the group after it"),
    ("enable.auto.offset.store", "positions are kept in the checkpoint, and committed to the group after it"),
    ("auto.offset.reset", "a vanished position must not be skipped silently: say where to start on the source"),
    ("topic.auto.offset.reset", "a vanished position must not be skipped silently: say where to start on the source"),
    ("enable.partition.eof", "the source says whether it ends"),
    ("queue.buffering.max.messages", "what is in flight has a bound already, which a drain before a commit depends on"),
    ("queue.buffering.max.kbytes", "what is in flight has a bound already, which a drain before a commit depends on"),
    ("partitioner", "the sink chooses the partition, as Kafka's Java client does; say partition_by on the sink"),
    ("retry.backoff.ms", "by how long a commit has taken the sink tells whether it may have been sent twice"),
    ("retry.backoff.max.ms", "by how long a commit has taken the sink tells whether it may have been sent twice"),
    ("delivery.report.only.error", "failed deliveries are what a checkpoint depends on"),
];

impl Kafka {
    /// As the section `[kafka]` of the job's settings says.
    pub fn new(settings: &Settings) -> Self {
        Self { properties: Arc::new(settings.kafka.clone()), on_statistics: None }
    }
    /// With these servers, `host:port` with commas between, and nothing else.
    pub fn at(servers: &str) -> Self {
        Self { properties: Arc::default(), on_statistics: None }.set("bootstrap.servers", servers)
    }
    /// Sets a property of librdkafka's.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        Arc::make_mut(&mut self.properties).set(name, value);
        self
    }

    /// Calls this with every client's statistics, as librdkafka makes them: its STATISTICS.md says what the JSON text
    /// has. They come every 5 s, or as `statistics.interval.ms` says, from each client that is made of this: sources
    /// have one called `consumer`, and `admin` where an interval is set; sinks `producer`, or the transactional ids. No
    /// secret is in them. It is called on the thread that serves the client, which it must not keep.
    ///
    /// ```
    /// use tidegate_connectors::kafka::Kafka;
    /// let kafka = Kafka::at("127.0.0.1:9092").on_statistics(|client, json| println!("{client}: {json}"));
    /// # let _ = kafka;
    /// ```
    pub fn on_statistics(mut self, listener: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.on_statistics = Some(OnStatistics::new(listener));
        self
    }

    /// The servers it was told of: what tells a cluster from another.
    pub(super) fn servers(&self) -> &str {
        self.properties.get("bootstrap.servers").or_else(|| self.properties.get("metadata.broker.list")).unwrap_or("")
    }
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name)
    }

    /// Makes a client. It connects by itself, later.
    pub(super) fn client<C: FromClientConfigAndContext<Events>>(&self, role: &Role<'_>) -> Result<C> {
        let events = Events::new(self.properties.clone(), role.client(), self.on_statistics.clone());
        let made = self.config(role)?.create_with_context(events);
        made.map_err(|e| self.failed("a Kafka client cannot be made", &e))
    }

    fn config(&self, role: &Role<'_>) -> Result<ClientConfig> {
        if self.servers().is_empty() {
            return Err(Error::config("kafka.bootstrap.servers is not set")
                .hint("write it in the job file, below [kafka]: bootstrap.servers = \"host:9092\""));
        }
        for (name, why) in REFUSED {
            if self.properties.get(name).is_some() {
                return Err(Error::config(format!("kafka.{name} cannot be set: {why}")).hint("leave it out"));
            }
        }
        let mut config = ClientConfig::new();
        let mut set = |pairs: &[(&str, &str)]| {
            for (name, value) in pairs {
                config.set(*name, *value);
            }
        };
        set(ALL);
        match role {
            Role::Consumer { .. } => set(&[CONSUMER, &[STATISTICS]].concat()),
            Role::Producer => set(&[PRODUCER, &[STATISTICS]].concat()),
            Role::Transactional { .. } => set(&[PRODUCER, TRANSACTIONAL, &[STATISTICS]].concat()),
            Role::Admin => {}
        }
        set(&self.properties.iter().collect::<Vec<_>>());
        match role {
            Role::Admin => set(&[("isolation.level", "read_uncommitted")]),
            Role::Consumer { group, committed_only } => set(&[
                ("group.id", group),
                ("isolation.level", if *committed_only { "read_committed" } else { "read_uncommitted" }),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "error"),
                ("enable.partition.eof", "true"),
            ]),
            Role::Producer => set(&[("enable.idempotence", "true"), ("delivery.report.only.error", "true")]),
            Role::Transactional { id, timeout } => set(&[
                ("transactional.id", id),
                ("transaction.timeout.ms", &timeout.as_millis().to_string()),
                ("retry.backoff.ms", &RETRY.as_millis().to_string()),
                ("delivery.report.only.error", "true"),
            ]),
        }
        Ok(config)
    }

    /// What an error of librdkafka means, and what the user should do.
    pub(super) fn failed(&self, what: &str, error: &KafkaError) -> Error {
        if let KafkaError::ClientConfig(_, why, name, value) = error {
            let value = if is_secret(name) { HIDDEN } else { value };
            let text = format!("kafka.{name} = {value:?}: {}", self.properties.redact(why));
            return Error::config(text)
                .hint("librdkafka's CONFIGURATION.md has all properties; TLS and SASL need the feature kafka-tls");
        }
        if let KafkaError::ClientCreation(why) = error {
            return Error::config(format!("{what}: {}", self.properties.redact(why)))
                .hint("check the files, passwords and names below [kafka]; TLS and SASL need the feature kafka-tls");
        }
        let (kind, hint) = match code(error) {
            Some(code) => meaning(code),
            None => (Kind::Unavailable, None),
        };
        let error = Error::new(kind, format!("{what}: {}", self.properties.redact(&text(error))));
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Asks something of a cluster that has not been spoken to; `ask` is told how long it may take.
    ///
    /// # Errors
    /// Where nobody answers, or who answers refuses the client: a password that is wrong is told at once, though
    /// librdkafka, which only ever says so in passing, would go on trying.
    pub(super) fn contact<R>(
        &self,
        client: &BaseConsumer<Events>,
        ask: impl Fn(Duration) -> Result<R, KafkaError>,
    ) -> Result<R> {
        let mut last = KafkaError::MetadataFetch(Code::OperationTimedOut);
        for step in CONTACT_STEPS {
            last = match ask(step) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // What it has said in passing is heard here. That a call brings nothing does not mean that none would.
            (0..EVENTS).for_each(|_| drop(client.poll(Duration::ZERO)));
            if let Some((error, reason)) = client.context().heard().filter(|(error, _)| is_refusal(error)) {
                let what = format!("Kafka at {:?} refuses this client ({reason})", self.servers());
                return Err(self.failed(&what, &error));
            }
            if !is_passing(&last) {
                return Err(self.failed(&format!("Kafka at {:?} refuses what it is asked", self.servers()), &last));
            }
        }
        Err(self.unreachable(&last, client.context().heard().map(|(_, reason)| reason)))
    }

    /// That nobody answers at the servers that the settings name.
    fn unreachable(&self, error: &KafkaError, reason: Option<String>) -> Error {
        let (servers, limit) = (self.servers(), CONTACT.as_secs());
        let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let text = format!("Kafka does not answer at kafka.bootstrap.servers = {servers:?} within {limit} s{reason}");
        self.failed(&text, error).hint(
            "check the address, kafka.security.protocol and kafka.ssl.*, and that a broker runs there; cargo xtask kafka starts one",
        )
    }
}

/// In one line, without the wrapping of two libraries.
fn text(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(e) => format!("{} ({})", e.string(), e.name()),
        KafkaError::ClientCreation(text) => text.clone(),
        other => match code(other) {
            Some(code) => format!("{code}"),
            None => other.to_string(),
        },
    }
}

/// The crate's own `rdkafka_error_code` has none for an administrative request.
fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// Whether an error may be gone the next time: that nobody answers, or not yet.
pub(super) fn is_passing(error: &KafkaError) -> bool {
    code(error).is_none_or(|code| meaning(code).0 == Kind::Unavailable)
}

/// What a code means for whoever gets it, and what there is to do.
pub(super) fn meaning(code: Code) -> (Kind, Option<&'static str>) {
    use Code::{
        AllBrokersDown, Authentication, BrokerTransportFailure, ClusterAuthorizationFailed, GroupAuthorizationFailed,
        InvalidArgument, InvalidTopic, InvalidTransactionTimeout, MessageSizeTooLarge, NotEnoughReplicas,
        OperationTimedOut, Resolve, SSL, SaslAuthenticationFailed, TopicAuthorizationFailed,
        TransactionalIdAuthorizationFailed, UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
        UnsupportedSASLMechanism,
    };
    match code {
        TopicAuthorizationFailed => (
            Kind::Config,
            Some(
                "the cluster's ACLs must allow the topic: Read and Describe for a source, Write and Describe for a sink",
            ),
        ),
        GroupAuthorizationFailed => {
            (Kind::Config, Some("the cluster's ACLs must allow the group that the source names (Read)"))
        }
        TransactionalIdAuthorizationFailed => (
            Kind::Config,
            Some("the cluster's ACLs must allow transactional ids that begin with the job's name (Write, Describe)"),
        ),
        ClusterAuthorizationFailed => {
            (Kind::Config, Some("the cluster's ACLs must allow IdempotentWrite; or create the job's topics yourself"))
        }
        SaslAuthenticationFailed | Authentication | UnsupportedSASLMechanism => {
            (Kind::Config, Some("check kafka.sasl.* and kafka.security.protocol"))
        }
        SSL => {
            (Kind::Config, Some("check kafka.ssl.* and kafka.security.protocol, and that the certificates are valid"))
        }
        UnknownTopicOrPartition | UnknownTopic | UnknownPartition => {
            (Kind::Config, Some("create the topic, or mend its name"))
        }
        InvalidTopic => (Kind::Config, Some(NAME)),
        InvalidArgument => (Kind::Config, Some("mend the names and numbers that the source or sink is given")),
        MessageSizeTooLarge => (
            Kind::Data,
            Some("raise kafka.message.max.bytes and the topic's max.message.bytes, or write smaller records"),
        ),
        InvalidTransactionTimeout => (
            Kind::Config,
            Some(
                "the broker's transaction.max.timeout.ms is smaller: set kafka.transaction.timeout.ms, or checkpoint more often",
            ),
        ),
        BrokerTransportFailure | AllBrokersDown | Resolve | OperationTimedOut => {
            (Kind::Unavailable, Some("check kafka.bootstrap.servers, and that its brokers can be reached"))
        }
        NotEnoughReplicas => {
            (Kind::Unavailable, Some("too few replicas are in sync: see the topic's min.insync.replicas"))
        }
        _ => (Kind::Unavailable, None),
    }
}

/// Nothing that is locked here is left half-changed by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a call that blocks beside the engine.
pub(super) async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    spawn_blocking(work).await.map_err(|e| Error::internal("a call of librdkafka has panicked").caused_by(e))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kafka: &Kafka) -> Result<BaseConsumer<Events>> {
        kafka.client(&Role::Consumer { group: "g", committed_only: true })
    }

    #[test]
    fn what_would_break_exactly_once_is_refused_with_the_reason() {
        for (name, why) in REFUSED {
            let e = made(&Kafka::at("a:1").set(name, "x")).map(drop).unwrap_err();
            assert_eq!(e.kind(), Kind::Config);
            assert!(e.to_string().contains(&format!("kafka.{name} cannot be set: {why}")), "{e}");
        }
    }

    #[test]
    fn a_property_that_is_not_known_or_has_a_wrong_value_is_named_without_its_secret() {
        let e = made(&Kafka::at("a:1").set("lingr.ms", "5")).map(drop).unwrap_err().to_string();
        assert!(e.contains("kafka.lingr.ms"), "{e}");
        let e = made(&Kafka::at("a:1").set("sasl.passwort.password", "canary")).map(drop).unwrap_err().to_string();
        assert!(e.contains("kafka.sasl.passwort.password") && !e.contains("canary"), "{e}");
        let e = Kafka::new(&Settings::default());
        assert!(made(&e).map(drop).unwrap_err().to_string().contains("kafka.bootstrap.servers is not set"));
    }

    #[test]
    fn what_can_never_be_is_not_for_the_servers_address_to_mend() {
        for code in [Code::InvalidTopic, Code::InvalidArgument] {
            let error = Kafka::at("a:1").failed("t", &KafkaError::MetadataFetch(code));
            assert!(error.kind() == Kind::Config && error.hint_text().is_some(), "{error}");
            assert!(!is_passing(&KafkaError::MetadataFetch(code)), "{code}");
        }
    }

    #[test]
    fn what_passes_through_wins_over_the_defaults_and_loses_to_what_exactly_once_needs() {
        let kafka = Kafka::at("a:1").set("linger.ms", "77").set("client.rack", "r");
        let config = kafka.config(&Role::Transactional { id: "j-0", timeout: CALL }).unwrap();
        let got = |name| config.get(name).unwrap();
        assert_eq!((got("linger.ms"), got("client.rack"), got("transactional.id")), ("77", "r", "j-0"));
        assert_eq!(got("statistics.interval.ms"), "5000");
        assert_eq!((got("transaction.timeout.ms"), got("compression.codec")), ("60000", "lz4"));
    }
}
