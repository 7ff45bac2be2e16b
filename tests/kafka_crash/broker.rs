//! Faults of the broker and of the way to it: the job goes on by itself, and nothing is lost or doubled.
use std::time::Duration;
use tidegate_testbed::kafka::{Action, Settings, api};

use crate::child::Case;

#[test]
fn a_broker_that_is_killed_in_mid_transaction_and_comes_back() {
    let mut case = Case::new(2, 15_000);
    case.arguments.restarts = 20;
    let mut job = case.started(3);
    for _ in 0..2 {
        case.broker.kill();
        case.broker.restart().unwrap();
        let before = case.committed();
        assert!(job.runs_until(|| case.committed() > before + 2), "{}", case.errors());
    }
    job.kill();
    case.finish();
}

/// `RisingWave` 25690, and Jepsen's report on Bufstream: the reply to a commit is lost, or late.
#[test]
fn a_commit_whose_reply_is_lost_or_late_counts_once() {
    let mut case = Case::with(1, 10_000, Settings::proxied);
    case.arguments.bootstrap = case.broker.proxy().unwrap().bootstrap().to_owned();
    case.arguments.restarts = 20;
    let mut job = case.started(3);
    let faults = [
        Action::DropReply,
        Action::DropRequest,
        Action::DelayReply(Duration::from_millis(300)),
        Action::DelayRequest(Duration::from_millis(300)),
    ];
    for action in faults {
        let proxy = case.broker.proxy().unwrap();
        let fired = proxy.fired(api::END_TXN);
        proxy.on(api::END_TXN, action);
        assert!(proxy.wait_fired(api::END_TXN, fired + 1, Duration::from_secs(60)), "{}", case.errors());
        let before = case.committed();
        assert!(job.runs_until(|| case.committed() > before + 1), "{}", case.errors());
    }
    job.kill();
    case.finish();
}

/// librdkafka 3087: a delivery that fails later, or times out at the client, must fail
/// the checkpoint that it belongs to.
#[test]
fn a_record_that_could_not_be_delivered_is_in_no_checkpoint() {
    let mut case = Case::with(1, 8_000, Settings::proxied);
    case.arguments.bootstrap = case.broker.proxy().unwrap().bootstrap().to_owned();
    case.arguments.restarts = 20;
    case.arguments.transaction_timeout_ms = 2_000;
    let mut job = case.started(3);
    let proxy = case.broker.proxy().unwrap();
    // Longer than a transaction, and so a message, may take.
    proxy.cut();
    job.runs_for(Duration::from_secs(4));
    proxy.heal();
    let before = case.committed();
    assert!(job.runs_until(|| case.committed() > before + 1), "{}", case.errors());
    job.kill();
    case.finish();
}
