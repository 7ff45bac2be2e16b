//! Who may do what: a job that comes in with a name and a password, and lacks one right after the other.
//!
//! A right that is missing is no outage. It is told at the start, with what is missing and what to do, and not tried
//! again: here a job that were to begin anew would do so a hundred times. SASL PLAIN needs no OpenSSL, so this is the
//! build that everybody has; what needs it is in `tls`.
//!
//! The hard case is the secret, which must be in no error, log line, plan or checkpoint, whatever goes wrong: all
//! passwords here are canaries, and everything that is said or written is searched for them.

use std::{path::Path, time::Duration};
use tidegate::{
    Error, Job, Kind, RestartStrategy, Settings, Stream,
    extend::env::now,
    kafka::{Kafka, Start, Utf8},
};
use tidegate_testbed::kafka::{Broker, Isolation, Judge, Record};

use super::said::Said;

const CANARY: &str = "canary-7f3a";
/// Contact, and then some, for a machine that is busy.
const SOON: Duration = Duration::from_secs(12);

fn settings(folder: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.checkpoint.store = folder.join("checkpoints").display().to_string();
    settings.checkpoint.interval = Duration::from_millis(100);
    settings.restart.strategy = RestartStrategy::FixedDelay;
    settings.restart.max_restarts = 100;
    settings
}

fn kafka(servers: &str, user: &str, password: &str) -> Kafka {
    let kafka = Kafka::at(servers).set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanism", "PLAIN");
    kafka.set("sasl.username", user).set("sasl.password", password)
}

/// From `in` to `out`, for the user after whom the job is called.
async fn run(user: &str, kafka: &Kafka, folder: &Path, said: &Said) -> Result<(), Error> {
    let job = Job::new(user, settings(folder));
    let source = kafka.source("in", Utf8).available_now();
    let source = if user == "groupless" { source } else { source.from(Start::Group).group(readers(user)) };
    job.source("in", source).sink("out", kafka.sink("out", Utf8));
    said.add(&format!("{job:?} {kafka:?} {}", job.explain().unwrap()));
    let result = job.run().await;
    if let Err(error) = &result {
        said.add(&format!("{error} {error:#?} {:?}", error.hint_text()));
    }
    result
}

/// A group of each user's own, so that everybody finds something to read.
fn readers(user: &str) -> String {
    format!("readers-{user}")
}

/// Everything that a job needs, but what is left out: a kind and a name.
fn allow(judge: &Judge, user: &str, but: (&str, &str)) {
    let commits = format!("{user}-commits");
    let ids = [0, 1].map(|n| format!("{user}-{n}"));
    let rights: [(&str, &str, &[&str]); 6] = [
        ("topic", "in", &["read", "describe"]),
        ("group", &readers(user), &["read", "describe"]),
        ("topic", "out", &["write", "describe"]),
        ("transactional_id", &ids[0], &["write", "describe"]),
        ("transactional_id", &ids[1], &["write", "describe"]),
        ("topic", &commits, &["create", "read", "write", "describe"]),
    ];
    for (kind, name, operations) in rights {
        let operations: Vec<_> =
            operations.iter().copied().filter(|o| (*o, name) != but && (kind, name) != but).collect();
        if !operations.is_empty() {
            judge.allow(user, kind, name, &operations).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_told_at_the_start() {
    let said = Said::begin();
    // User, what is left out, and what the error has to say.
    let cases = [
        ("all", ("", ""), ("", "")),
        ("groupless", ("group", "readers-groupless"), ("", "")),
        ("noread", ("read", "in"), ("in", "Read and Describe for a source")),
        ("unseen", ("topic", "in"), ("in", "Read and Describe for a source")),
        ("nowrite", ("write", "out"), ("out", "Write and Describe for a sink")),
        ("nosink", ("topic", "out"), ("out", "Write and Describe for a sink")),
        ("noid", ("transactional_id", "noid-0"), ("noid-0", "transactional ids that begin with the job's name")),
        ("nogroup", ("group", "readers-nogroup"), ("readers-nogroup", "must allow the group")),
        ("nocreate", ("create", "nocreate-commits"), ("nocreate-commits", "make it yourself")),
        ("norecord", ("write", "norecord-commits"), ("norecord-commits", "ACLs must allow")),
        ("noresume", ("read", "noresume-commits"), ("noresume-commits", "ACLs must allow")),
    ];
    let users = cases.map(|(user, ..)| (user, CANARY));
    let broker = Broker::with(|s| s.authorized().listener("sasl", "SASL_PLAINTEXT").users("sasl", &users)).unwrap();
    let (judge, folder) = (broker.judge().unwrap(), tempfile::tempdir().unwrap());
    let servers = broker.listener("sasl").unwrap();
    judge.create_topic("in", 1, &[]).unwrap();
    judge.create_topic("out", 1, &[]).unwrap();
    judge.produce("in", &[Record::value("1"), Record::value("2")]).unwrap();
    let mut written = 0;
    for (user, but, (name, hint)) in cases {
        allow(judge, user, but);
        let began = now();
        let result = run(user, &kafka(servers, user, CANARY), folder.path(), &said).await;
        let took = now().duration_since(began);
        if name.is_empty() {
            result.unwrap();
            written += 2;
            assert_eq!(judge.read("out", Isolation::ReadCommitted).unwrap().len(), written);
            continue;
        }
        let error = result.unwrap_err();
        let text = format!("{error}");
        assert_eq!(error.kind(), Kind::Config, "{user}: {text}");
        assert!(text.contains(name) && text.contains(hint), "{user}: {text}");
        assert!(took < SOON, "{user}: {took:?} until {text}");
    }

    for (user, password) in [("all", "canary-wrong"), ("nobody", CANARY)] {
        let began = now();
        let error = run(user, &kafka(servers, user, password), folder.path(), &said).await.unwrap_err();
        let took = now().duration_since(began);
        assert_eq!(error.kind(), Kind::Config, "{error}");
        assert!(error.to_string().contains("kafka.sasl"), "{error}");
        assert!(took < SOON, "{took:?} until {error}");
    }
    said.assert_without("canary", folder.path());
}
