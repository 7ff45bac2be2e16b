//! Jobs over a real Redis behind TLS, which ends right before it: the server of the tests has none of its own.
//!
//! The hard case is what is not trusted: it must be told at once, by the settings that mend it, and without the password.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
#![allow(clippy::disallowed_methods, reason = "a real server, and the real clock")]
mod certificates;

use std::{path::Path, process::Command, sync::Arc, time::Duration};
use tidegate::{Collect, Collection, Error, Job, Kind, Result, Settings, Stream};
use tidegate_testbed::{
    redis::{Options, Redis},
    without::left_out,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use self::certificates::Certificate;

const CANARY: &str = "canary-hunter2";
/// The URL for a child that trusts what `SSL_CERT_FILE` says.
const CHILD: &str = "TIDEGATE_TEST_REDIS_TLS";
/// What a user needs, as the hint of a refusal has it.
const RIGHTS: &str = "~tidegate:* +@hash +@sortedset +@set +@keyspace +@scripting +@connection +config|get";

/// A server with a user `me`, and the port of the TLS before it.
struct Server {
    redis: Redis,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let redis = Redis::start(&Options::default().password("other").user("me", CANARY, RIGHTS)).unwrap();
        let (authority, stranger) = (Certificate::authority("authority"), Certificate::authority("stranger"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("stranger.pem"), stranger.pem()).unwrap();
        let Certificate { der, pkcs8 } = authority.of_a_server("authority");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.into()], PrivateKeyDer::Pkcs8(pkcs8.into()))
            .unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (port, behind) = (listener.local_addr().unwrap().port(), redis.port());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that trusts nobody here hangs up.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { redis, port, folder }
    }

    fn url(&self) -> String {
        format!("rediss://me:{CANARY}@127.0.0.1:{}", self.port)
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// A job that counts, at parallelism 2; what it says has no password in it.
async fn run(state: &str, folder: &Path) -> Result<()> {
    let text = format!("parallelism = 2\n[state]\nbackend = \"redis\"\n[state.redis]\n{state}\n");
    let mut settings = Settings::from_toml(&text).unwrap();
    settings.checkpoint.store = folder.join("checkpoints").display().to_string();
    settings.restart.strategy = tidegate::RestartStrategy::None;
    let (job, out) = (Job::new("counts", settings), Collect::new());
    let numbers = job.source("numbers", Collection::new((0..3_000u64).collect::<Vec<_>>()));
    numbers.key_by(|n| n % 100).fold("count", 0u64, |count, _| *count += 1).sink("out", out.clone());
    let plan = job.explain().unwrap();
    assert!(plan.contains("state: redis"), "{plan}");
    assert!(!format!("{plan}{job:?}").contains(CANARY));
    let handle = job.start()?;
    let status = handle.watch();
    let ended = tokio::time::timeout(Duration::from_secs(60), handle.wait()).await;
    ended.unwrap_or_else(|_| panic!("the job hangs: {:?}", status.borrow()))?;
    let mut counts: Vec<(u64, u64)> = out.take();
    counts.sort_unstable();
    let all: Vec<_> = (0..100).flat_map(|key| (1..=30).map(move |count| (key, count))).collect();
    assert_eq!(counts, all);
    Ok(())
}

async fn refused(state: &str) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let error = run(state, folder.path()).await.unwrap_err();
    assert!(!format!("{error} {error:?} {error:#?}").contains(CANARY), "{error:#?}");
    assert!(error.hint_text().is_some(), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_keeps_its_state_behind_tls_as_a_user_with_a_password() {
    if left_out("redis") {
        return;
    }
    let server = Server::start().await;
    let state = format!("url = {:?}\nca-file = {:?}", server.url(), server.at("ca.pem"));
    run(&state, server.folder.path()).await.unwrap();
    let keys = server.redis.ask(&["DBSIZE"]).unwrap().integer().unwrap();
    assert!(keys > 0, "nothing is in Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_trusted_is_told_with_what_to_do() {
    if left_out("redis") {
        return;
    }
    let server = Server::start().await;
    let url = format!("url = {:?}", server.url());
    let other_host = url.replace("127.0.0.1", "localhost");
    let (known, stranger) = (server.at("ca.pem"), server.at("stranger.pem"));
    for state in [
        // What the system trusts; another CA; another name; each node of a cluster.
        url.clone(),
        format!("{url}\nca-file = {stranger:?}"),
        format!("{other_host}\nca-file = {known:?}"),
        format!("{url}\nca-file = {stranger:?}\ncluster = true"),
    ] {
        let error = refused(&state).await;
        assert_eq!(error.kind(), Kind::Config, "{error}");
        for words in ["state.redis.url", "not trusted", "invalid peer certificate", "state.redis.ca-file"] {
            assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
        }
    }
    let wrong = url.replace(CANARY, "canary-hunter2-wrong");
    let error = refused(&format!("{wrong}\nca-file = {known:?}")).await;
    assert!(error.kind() == Kind::Config && error.to_string().contains("password"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_names_no_authority_is_told_by_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("empty.pem"), "").unwrap();
    std::fs::write(at("broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let tls = format!("rediss://me:{CANARY}@127.0.0.1:1");
    for (url, name) in [
        (&tls, "missing.pem"),
        (&tls, "empty.pem"),
        (&tls, "broken.pem"),
        (&format!("redis://me:{CANARY}@127.0.0.1:1"), "empty.pem"),
    ] {
        let error = refused(&format!("url = {url:?}\nca-file = {:?}", at(name))).await;
        assert_eq!(error.kind(), Kind::Config, "{name}: {error}");
        assert!(error.to_string().contains("state.redis.ca-file"), "{name}: {error}");
    }
}

/// Which a process reads from its environment: so there are two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_what_the_system_trusts_is_trusted() {
    if left_out("redis") {
        return;
    }
    if let Ok(url) = std::env::var(CHILD) {
        let folder = tempfile::tempdir().unwrap();
        return run(&format!("url = {url:?}"), folder.path()).await.unwrap();
    }
    let server = Server::start().await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "without_a_file_what_the_system_trusts_is_trusted", "--nocapture"]);
    child.env(CHILD, server.url()).env("SSL_CERT_FILE", server.at("ca.pem"));
    let output = child.output().unwrap();
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
