//! Starts that would lose or double output, or that cannot work, are refused with a reason and what to do.
use std::time::Duration;
use tidegate::Kind;
use tidegate_testbed::kafka::Broker;

use crate::{
    child::Case,
    job::{Arguments, run},
};

fn refused(arguments: &Arguments, kind: Kind, words: &[&str]) {
    let error = run(arguments).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(words.iter().all(|w| text.contains(w)) && error.hint_text().is_some(), "{text}");
}

/// Flink 37380: two jobs with one transactional id prefix.
#[test]
fn a_job_whose_records_are_elsewhere() {
    let case = Case::new(1, 3_000);
    case.started(3).kill();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Arguments { store: elsewhere.path().display().to_string(), ..case.arguments.clone() };
    refused(&other, Kind::Config, &["crash-commits", "not in checkpoint.store", "same name"]);
    refused(&Arguments { store: "memory:".into(), ..other }, Kind::Config, &["checkpoint.store"]);
    // The living one has not been fenced by it.
    case.finish();
    // The topic of its records is lost: the store's copies say so.
    let judge = case.broker.judge().unwrap();
    judge.delete_topic("crash-commits").unwrap();
    refused(&case.arguments, Kind::Corrupt, &["commit record is gone", "checkpoint.from"]);
}

#[test]
fn a_cluster_that_is_not_there_and_a_topic_that_is_not() {
    let broker = Broker::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let arguments = Arguments {
        bootstrap: broker.bootstrap().to_owned(),
        store: folder.path().display().to_string(),
        parallelism: 1,
        pace: 0,
        restarts: 0,
        transaction_timeout_ms: 60_000,
        follow: false,
    };
    let judge = broker.judge().unwrap();
    judge.create_topic("in", 1, &[]).unwrap();
    refused(&arguments, Kind::Config, &["copies", "cannot be written"]);
    let nowhere = Arguments { bootstrap: "127.0.0.1:1".into(), ..arguments.clone() };
    let began = tidegate::extend::env::now();
    refused(&nowhere, Kind::Unavailable, &["kafka.bootstrap.servers", "127.0.0.1:1"]);
    assert!(tidegate::extend::env::now().duration_since(began) < Duration::from_secs(30));
    let slow = Arguments { transaction_timeout_ms: 50, ..arguments };
    refused(&slow, Kind::Config, &["checkpoint.interval"]);
}
