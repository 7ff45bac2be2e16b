//! Over TLS and with SASL mechanisms that take OpenSSL: needs the feature kafka-tls.
//!
//! Certificates are made by the JDK's keytool when the test runs: the broker's own, which is also what the client is
//! to trust, and the client's. The hard case is what is not trusted: it must be told at the start, with the reason,
//! and no secret may be in anything that is said.

use std::{path::Path, process::Command};
use tidegate::{
    Error, Job, Kind, RestartStrategy, Settings, Stream,
    kafka::{Kafka, Utf8},
};
use tidegate_testbed::kafka::{Broker, Isolation, Record};

use super::said::Said;

const CANARY: &str = "canary-7f3a";

fn keytool(folder: &Path, arguments: &str) {
    let output = Command::new("keytool").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A key with a certificate of its own making in `NAME.p12`, and the certificate in `NAME.pem`.
fn certificate(folder: &Path, name: &str) {
    let store = format!("-alias {name} -keystore {name}.p12 -storetype PKCS12 -storepass {CANARY}");
    keytool(folder, &format!("-genkeypair {store} -keyalg EC -dname CN={name} -ext san=ip:127.0.0.1 -validity 2"));
    keytool(folder, &format!("-exportcert {store} -rfc -file {name}.pem"));
}

async fn run(name: &str, kafka: &Kafka, folder: &Path, said: &Said) -> Result<(), Error> {
    let mut settings = Settings::default();
    settings.checkpoint.store = folder.join("checkpoints").display().to_string();
    settings.restart.strategy = RestartStrategy::None;
    let job = Job::new(name, settings);
    job.source("in", kafka.source("in", Utf8).group("readers").available_now()).sink("out", kafka.sink("out", Utf8));
    said.add(&format!("{job:?} {kafka:?} {}", job.explain().unwrap()));
    let result = job.run().await;
    if let Err(error) = &result {
        said.add(&format!("{error} {error:#?} {:?}", error.hint_text()));
    }
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_is_exactly_once_and_what_is_not_trusted_is_told() {
    let said = Said::begin();
    let certificates = tempfile::tempdir().unwrap();
    let at = |name: &str| certificates.path().join(name).display().to_string();
    for name in ["broker", "client", "stranger"] {
        certificate(certificates.path(), name);
    }
    keytool(
        certificates.path(),
        &format!(
            "-importcert -noprompt -alias client -file client.pem -keystore trusted.p12 -storetype PKCS12 -storepass {CANARY}"
        ),
    );
    let module = "org.apache.kafka.common.security";
    let broker = Broker::with(|settings| {
        let mut settings = settings
            .listener("ssl", "SSL")
            .listener("mutual", "SSL")
            .listener("sasl", "SASL_PLAINTEXT")
            .listener("both", "SASL_SSL")
            .listener("oauth", "SASL_PLAINTEXT")
            .users("both", &[("me", CANARY)])
            .property("listener.name.sasl.sasl.enabled.mechanisms", "SCRAM-SHA-512")
            .property(
                "listener.name.sasl.scram-sha-512.sasl.jaas.config",
                format!("{module}.scram.ScramLoginModule required;"),
            )
            .property("listener.name.oauth.sasl.enabled.mechanisms", "OAUTHBEARER")
            .property(
                "listener.name.oauth.oauthbearer.sasl.jaas.config",
                format!(
                    "{module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
                ),
            )
            .property("listener.name.mutual.ssl.client.auth", "required")
            .property("listener.name.mutual.ssl.truststore.location", at("trusted.p12"))
            .property("listener.name.mutual.ssl.truststore.password", CANARY);
        for name in ["ssl", "mutual", "both"] {
            settings = settings
                .property(&format!("listener.name.{name}.ssl.keystore.location"), at("broker.p12"))
                .property(&format!("listener.name.{name}.ssl.keystore.password"), CANARY)
                .property(&format!("listener.name.{name}.ssl.key.password"), CANARY);
        }
        settings
    });
    let broker = broker.unwrap();
    let (judge, folder) = (broker.judge().unwrap(), tempfile::tempdir().unwrap());
    judge.create_scram_user("me", CANARY).unwrap();
    judge.create_topic("in", 2, &[]).unwrap();
    judge.create_topic("out", 1, &[]).unwrap();
    judge.produce("in", &(0..10).map(|n| Record::value(n.to_string()).to(n % 2)).collect::<Vec<_>>()).unwrap();

    let way =
        |listener: &str, protocol| Kafka::at(broker.listener(listener).unwrap()).set("security.protocol", protocol);
    let tls = |kafka: Kafka| kafka.set("ssl.ca.location", &at("broker.pem"));
    let named = |kafka: Kafka, mechanism, password| {
        kafka.set("sasl.mechanism", mechanism).set("sasl.username", "me").set("sasl.password", password)
    };
    let with_key =
        |kafka: Kafka, name: &str| kafka.set("ssl.keystore.location", &at(name)).set("ssl.keystore.password", CANARY);
    let bearer = way("oauth", "SASL_PLAINTEXT").set("sasl.mechanism", "OAUTHBEARER");
    let ways = [
        ("ssl", tls(way("ssl", "SSL"))),
        ("mutual", with_key(tls(way("mutual", "SSL")), "client.p12")),
        ("scram", named(way("sasl", "SASL_PLAINTEXT"), "SCRAM-SHA-512", CANARY)),
        ("both", named(tls(way("both", "SASL_SSL")), "PLAIN", CANARY)),
        (
            "oauth",
            bearer
                .set("enable.sasl.oauthbearer.unsecure.jwt", "true")
                .set("sasl.oauthbearer.config", "principal=me scopeClaimName=scope scope=canary-scope"),
        ),
    ];
    for (n, (name, kafka)) in ways.iter().enumerate() {
        run(name, kafka, folder.path(), &said).await.unwrap();
        assert_eq!(judge.read("out", Isolation::ReadCommitted).unwrap().len(), 10 * (n + 1), "{name}");
    }

    let refused = [
        ("unknown-ca", way("ssl", "SSL"), "ssl.ca.location"),
        ("no-certificate", tls(way("mutual", "SSL")), "kafka.ssl"),
        ("certificate-of-a-stranger", with_key(tls(way("mutual", "SSL")), "stranger.p12"), "kafka.ssl"),
        ("password", named(way("sasl", "SASL_PLAINTEXT"), "SCRAM-SHA-512", "canary-wrong"), "kafka.sasl"),
        ("both-password", named(tls(way("both", "SASL_SSL")), "PLAIN", "canary-wrong"), "kafka.sasl"),
        ("mechanism", named(way("sasl", "SASL_PLAINTEXT"), "PLAIN", CANARY), "kafka.sasl"),
        ("store", with_key(way("ssl", "SSL"), "client.p12").set("ssl.keystore.password", "canary-wrong"), "ssl"),
    ];
    for (name, kafka, words) in refused {
        let error = run(name, &kafka, folder.path(), &said).await.unwrap_err();
        // With TLS 1.3 a broker that wants another certificate only hangs up.
        let kind = if name.contains("certificate") { Kind::Unavailable } else { Kind::Config };
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
    said.assert_without("canary", folder.path());
}
