//! Checkpoints in an S3 that is overloaded and loses replies: the server is real, and a proxy before it answers in its
//! place.
//!
//! The hard case is the reply that a conditional put has lost: the client tries again, and finds its own object in the
//! way. The store reads it back, and bytes equal to its own mean that it was the one.
use crate::{job, world};
use object_store::aws::AmazonS3Builder;
use std::{sync::Arc, time::Duration};
use tidegate::{
    RestartStrategy,
    extend::checkpoint::{
        ids::JobId,
        store::{CheckpointStore, Created},
    },
};
use tidegate_testbed::{
    http::Fault,
    s3::{ACCESS_KEY, BUCKET, REGION, S3, SECRET_KEY},
    without::left_out,
};

fn store(s3: &S3) -> CheckpointStore {
    let builder = AmazonS3Builder::new().with_endpoint(s3.endpoint_of_proxy()).with_allow_http(true);
    let builder = builder.with_region(REGION).with_bucket_name(BUCKET).with_virtual_hosted_style_request(false);
    let objects = builder.with_access_key_id(ACCESS_KEY).with_secret_access_key(SECRET_KEY).build().unwrap();
    CheckpointStore::new(Arc::new(objects), "checkpoints", JobId::new("crash").unwrap())
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(110), test).await.expect("the job hangs") })
}

#[test]
fn a_create_whose_reply_is_lost_is_ours_and_a_rivals_is_not() {
    if left_out("s3") {
        return;
    }
    let s3 = S3::start().unwrap();
    run(async {
        let store = store(&s3);
        s3.proxy().on("PUT /bucket/checkpoints/crash/", 1, Fault::LoseReply);
        assert!(matches!(store.create("crash/x", b"mine".to_vec()).await.unwrap(), Created::Ours));
        assert_eq!(s3.proxy().fired(), 1);
        assert!(matches!(store.create("crash/x", b"other".to_vec()).await.unwrap(), Created::Theirs(_)));
        for n in 0..6 {
            s3.proxy().on("PUT /bucket/checkpoints/crash/attempts", 1, Fault::LoseReply);
            s3.proxy().on("PUT /bucket/checkpoints/crash/attempts", 1, Fault::Answer(503));
            let attempt = store.claim(&format!("claimant {n}")).await.unwrap();
            assert_eq!((attempt.0, store.attempts().await.unwrap().len()), (n + 1, n as usize + 1));
        }
    });
}

#[test]
fn exact_on_an_s3_that_is_overloaded_slow_and_loses_replies() {
    if left_out("s3") {
        return;
    }
    let s3 = S3::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let expected = world::make(dir.path(), 61, 1_500);
    let faults = [
        Fault::Answer(503),
        Fault::Answer(429),
        Fault::LoseReply,
        Fault::LoseRequest,
        Fault::DelayReply(Duration::from_millis(300)),
    ];
    run(async {
        let mut settings = job::settings(dir.path(), 2);
        // Of a commit whose outcome cannot be learnt the attempt ends.
        settings.restart.strategy = RestartStrategy::FixedDelay;
        settings.restart.max_restarts = 20;
        let mut job = job::job(dir.path(), settings, 500.0);
        job.checkpoint_store(store(&s3));
        let running = job.start().unwrap();
        let mut status = running.watch();
        let mut round = 0;
        while !status.borrow_and_update().state.is_end() {
            let fault = faults[round % faults.len()];
            // What nobody has come upon does not pile up, or no try would ever be the last one.
            s3.proxy().clear();
            // Of every kind: claims and commits, manifests, state; reads and listings too.
            s3.proxy().on(["PUT ", "", "GET "][round % 3], 2, fault);
            round += 1;
            let _ = tokio::time::timeout(Duration::from_millis(150), status.changed()).await;
        }
        s3.proxy().clear();
        running.wait().await.unwrap();
    });
    assert!(s3.proxy().fired() > 20, "only {} faults", s3.proxy().fired());
    world::compare(&expected, &world::found(dir.path())).unwrap();
    assert!(!s3.list(BUCKET, "checkpoints/crash/commits").unwrap().is_empty());
}
