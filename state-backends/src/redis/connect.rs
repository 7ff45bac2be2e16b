//! A connection to the server, to the master that sentinels name, or to a cluster.
//!
//! Sentinels are asked again for every connection, since that is how a failover is noticed. They are asked without
//! password first; one that wants to have it gets that of the URL, as the server does.
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, Value,
    aio::MultiplexedConnection,
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo},
};
use std::time::Duration;

use tidegate_checkpoint::error::{Error, Result};
use tidegate_core::settings::RedisSettings;

/// For one address.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
/// The library gives up after half a second, as a disk that syncs may not. A request that has been given up is made
/// again, and nothing is done twice.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Where Redis is.
#[derive(Clone)]
pub(super) struct Place {
    nodes: Vec<ConnectionInfo>,
    kind: Kind,
    /// The nodes know it too, but not those of a cluster that they name.
    #[cfg(feature = "redis-tls")]
    certificates: Option<redis::TlsCertificates>,
    /// As it may be shown.
    pub shown: String,
}

#[derive(Clone)]
enum Kind {
    Server,
    Sentinels(String),
    Cluster,
}

#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Place {
    pub fn new(settings: &RedisSettings) -> Result<Self> {
        let shown = settings.url.to_string();
        let example = "write it as redis://user:password@host:6379/0; with TLS rediss://";
        if settings.url.is_empty() {
            return Err(Error::config("state.backend = \"redis\" needs state.redis.url").hint(example));
        }
        let kind = match (settings.cluster, settings.sentinel_master.as_str()) {
            (true, "") => Kind::Cluster,
            (false, "") => Kind::Server,
            (false, master) => Kind::Sentinels(master.to_owned()),
            (true, _) => {
                return Err(Error::config("state.redis.cluster and state.redis.sentinel-master exclude each other")
                    .hint("sentinels watch over a master and its replicas; a cluster does so itself: leave one away"));
            }
        };
        let urls: Vec<&str> = match kind {
            Kind::Server => vec![settings.url.reveal()],
            Kind::Sentinels(_) | Kind::Cluster => settings.url.reveal().split(',').map(str::trim).collect(),
        };
        // What is wrong is not shown as it is: a password may be in it.
        let nodes = urls.into_iter().map(IntoConnectionInfo::into_connection_info).collect::<RedisResult<Vec<_>>>();
        let nodes = nodes.map_err(|e| {
            let wrong = format!("state.redis.url = {shown:?} cannot be used ({})", e.category());
            Error::config(wrong).hint(if shown.contains("rediss:") || shown.contains("valkeys:") {
                "TLS needs the feature \"redis-tls\": tidegate = { ..., features = [\"redis-tls\"] }"
            } else {
                example
            })
        })?;
        let is_tls = |node: &ConnectionInfo| matches!(node.addr(), ConnectionAddr::TcpTls { .. });
        if !settings.ca_file.is_empty() && !nodes.iter().all(is_tls) {
            return Err(Error::config(format!("state.redis.ca-file is of no use without TLS to {shown}"))
                .hint("write state.redis.url as rediss://, or leave the file away"));
        }
        #[cfg(feature = "redis-tls")]
        let (nodes, certificates) = {
            let mut nodes = nodes;
            let certificates = super::tls::trusted(settings, &mut nodes)?;
            (nodes, certificates)
        };
        Ok(Self {
            nodes,
            kind,
            #[cfg(feature = "redis-tls")]
            certificates,
            shown,
        })
    }

    pub async fn connect(&self) -> RedisResult<Connection> {
        match &self.kind {
            Kind::Cluster => {
                let builder = ClusterClient::builder(self.nodes.iter().cloned());
                // Who is asked again decides `Link`.
                let builder = builder.connection_timeout(CONNECTED_WITHIN).response_timeout(ANSWERED_WITHIN).retries(3);
                #[cfg(feature = "redis-tls")]
                let builder = match &self.certificates {
                    Some(certificates) => builder.certs(certificates.clone()),
                    None => builder,
                };
                Ok(Connection::Cluster(builder.build()?.get_async_connection().await?))
            }
            Kind::Server => open(self.nodes[0].clone()).await.map(Connection::Server),
            Kind::Sentinels(master) => {
                let mut failed = None;
                for node in &self.nodes {
                    match self.master(node, master).await {
                        Ok(address) => {
                            let node = node.clone().set_addr(address);
                            return open(node).await.map(Connection::Server);
                        }
                        Err(e) => failed = Some(e),
                    }
                }
                Err(failed.unwrap_or_else(|| (ErrorKind::EmptySentinelList, "there are no sentinels").into()))
            }
        }
    }

    async fn master(&self, sentinel: &ConnectionInfo, name: &str) -> RedisResult<ConnectionAddr> {
        let open_to = sentinel.clone().set_redis_settings(RedisConnectionInfo::default());
        let asked = match ask_sentinel(open_to, name).await {
            Err(e) if e.code() == Some("NOAUTH") => {
                let redis = sentinel.redis_settings().clone().set_db(0);
                ask_sentinel(sentinel.clone().set_redis_settings(redis), name).await
            }
            asked => asked,
        };
        let unknown = || (ErrorKind::MasterNameNotFoundBySentinel, "the sentinels know no master of this name");
        let (host, port) = asked?.ok_or_else(unknown)?;
        Ok(match sentinel.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        })
    }
}

async fn open(node: ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTED_WITHIN))
        .set_response_timeout(Some(ANSWERED_WITHIN));
    Client::open(node)?.get_multiplexed_async_connection_with_config(&config).await
}

async fn ask_sentinel(sentinel: ConnectionInfo, name: &str) -> RedisResult<Option<(String, u16)>> {
    let mut sentinel = open(sentinel).await?;
    redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(&mut sentinel).await
}

impl Connection {
    pub async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    pub async fn ask_all(&mut self, command: Cmd) -> RedisResult<Value> {
        let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        match self {
            Self::Server(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => connection.route_command(command, masters).await,
        }
    }
}

/// Whether to ask again may help: the server is away, or not ready.
pub(super) fn may_pass(error: &RedisError) -> bool {
    let code = error.code();
    match error.kind() {
        ErrorKind::Io if is_untrusted(error) => false,
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::MasterNameNotFoundBySentinel => true,
        ErrorKind::Server(
            ServerErrorKind::ResponseError
            | ServerErrorKind::NoPerm
            | ServerErrorKind::CrossSlot
            | ServerErrorKind::NoScript,
        ) => false,
        ErrorKind::Server(_) => true,
        // Full, cut off from its replicas, unable to write its file, or in a script of somebody's.
        _ => matches!(code, Some("OOM" | "NOREPLICAS" | "MISCONF" | "BUSY")),
    }
}

/// Whether the server's certificate has been refused. In its words, since a cluster's connection hands on nothing else.
fn is_untrusted(error: &RedisError) -> bool {
    error.to_string().contains("invalid peer certificate")
}

/// Whether the user may not do it. What a script may not do has no code of its own.
fn is_forbidden(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || error.detail().is_some_and(|detail| detail.contains("ACL failure in script"))
}

/// What it means to a user.
pub(super) fn failed(place: &str, error: RedisError) -> Error {
    let code = error.code().unwrap_or_default().to_owned();
    let at = |what: &str| format!("Redis at {place} (state.redis.url) {what}");
    match error.kind() {
        ErrorKind::AuthenticationFailed => Error::config(at("refuses the user or the password"))
            .hint("put the right ones into state.redis.url: redis://user:password@host:6379"),
        _ if is_forbidden(&error) => Error::config(at("does not allow what has to be done")).hint(
            "the user needs: ~tidegate:* +@hash +@sortedset +@set +@keyspace +@scripting +@connection +config|get, and in a \
             cluster +cluster|slots",
        ),
        ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
            Error::config(at("cannot be connected to")).hint("see state.redis in the documentation of Settings")
        }
        ErrorKind::Io if is_untrusted(&error) => Error::config(at("has a certificate that is not trusted")).hint(
            "put the certificate of the CA that it is from, in PEM, into a file and name that in state.redis.ca-file; \
             the host must be written in state.redis.url as the certificate names it",
        ),
        _ if matches!(code.as_str(), "NOAUTH" | "WRONGPASS") => Error::config(at("wants a user and a password"))
            .hint("put them into state.redis.url: redis://user:password@host:6379"),
        _ if code == "OOM" => {
            Error::unavailable(at("has no memory left")).hint("raise maxmemory, or take a larger server")
        }
        _ => Error::unavailable(at("does not answer as it should"))
            .hint("is it running, and can it be reached from here?"),
    }
    .caused_by(error)
}
