//! Real servers: the public suite where writes are quick, a shorter life where they are not, and what only they refuse.
#[cfg(feature = "s3")]
use tidegate_core::testkit::backend::conformance;
use tidegate_state::ObjectStoreState;
use tidegate_testbed::without::left_out;

#[cfg(any(feature = "s3", feature = "hdfs"))]
use crate::kit::Job;
#[cfg(feature = "hdfs")]
use crate::kit::{State, all, key};

#[cfg(feature = "hdfs")]
#[test]
fn on_hdfs() {
    if left_out("hdfs") {
        return;
    }
    let hdfs = tidegate_testbed::hdfs::Hdfs::start().unwrap();
    let factory = ObjectStoreState::at(&format!("{}/state", hdfs.url()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut job, mut model, mut from) =
            (Job::over(factory, tempfile::tempdir().unwrap()), State::new(), Vec::new());
        for (attempt, parallelism) in [(1, 1), (2, 3), (3, 2), (4, 1)] {
            let mut parts = job.open(attempt, parallelism, &from).await;
            assert_eq!(all(&mut parts).await, model, "attempt {attempt}");
            for round in 0..2 {
                let n = attempt as u32 * 20 + round;
                let entries = (n..n + 30).map(|n| (key(n as u16 % 8, n), vec![attempt as u8; 500].into()));
                for part in &mut parts {
                    part.put(entries.clone()).await;
                }
                model.extend(entries);
                from = job.checkpoint(&mut parts).await;
                job.collect(attempt).await;
            }
        }
        assert_eq!(all(&mut job.open(5, 2, &from).await).await, model);
    });
    // Folders that nothing is in are gone with their trees.
    let attempts = hdfs.list("/state/job/lineage/operator").unwrap();
    assert!(attempts.iter().any(|attempt| attempt == "000004"), "{attempts:?}");
}

#[cfg(feature = "hdfs")]
#[test]
fn a_folder_of_hdfs_that_may_only_be_read_is_the_users_to_mend() {
    use tidegate_core::{Kind, state::backend::StateBackendFactory};
    if left_out("hdfs") {
        return;
    }
    let options = tidegate_testbed::hdfs::Options::default().permissions();
    let hdfs = tidegate_testbed::hdfs::Hdfs::with(&options).unwrap();
    hdfs.make_folder("/state", "writer", "755").unwrap();
    let factory = ObjectStoreState::at(&format!("hdfs://reader@127.0.0.1:{}/state", hdfs.port()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let e = runtime.block_on(async {
        let opened = factory.open(Job::new().context(1, 0, 1, &[]));
        tokio::time::timeout(std::time::Duration::from_secs(60), opened).await.unwrap().err().unwrap()
    });
    assert!(e.kind() == Kind::Config && e.to_string().contains("state.object-store.url"), "{e}");
}

#[cfg(feature = "s3")]
#[test]
fn on_s3() {
    use object_store::aws::AmazonS3Builder;
    use tidegate_testbed::s3::{ACCESS_KEY, BUCKET, REGION, S3, SECRET_KEY};
    if left_out("s3") {
        return;
    }
    let s3 = S3::start().unwrap();
    let builder = AmazonS3Builder::new().with_endpoint(s3.endpoint()).with_allow_http(true).with_region(REGION);
    let builder = builder.with_bucket_name(BUCKET).with_virtual_hosted_style_request(false);
    let objects = builder.with_access_key_id(ACCESS_KEY).with_secret_access_key(SECRET_KEY).build().unwrap();
    let objects = std::sync::Arc::new(objects);
    conformance(|| ObjectStoreState::over(objects.clone(), "state", true), 4);
    assert!(!s3.list(BUCKET, "state/job").unwrap().is_empty());
}

#[cfg(feature = "hdfs")]
#[test]
fn a_name_node_that_is_not_there_is_named_soon() {
    named_soon(ObjectStoreState::at("hdfs://127.0.0.1:1/state"), "127.0.0.1:1");
}

#[cfg(feature = "s3")]
#[test]
fn an_s3_that_is_not_there_is_named_soon() {
    let builder = object_store::aws::AmazonS3Builder::new().with_endpoint("http://127.0.0.1:1").with_region("here");
    let builder = builder.with_allow_http(true).with_bucket_name("bucket").with_access_key_id("a");
    let objects = std::sync::Arc::new(builder.with_secret_access_key("b").build().unwrap());
    named_soon(ObjectStoreState::over(objects, "state", true), "bucket");
}

#[cfg(any(feature = "s3", feature = "hdfs"))]
fn named_soon(factory: ObjectStoreState, name: &str) {
    use tidegate_core::{Kind, state::backend::StateBackendFactory};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let e = runtime.block_on(async {
        let opened = factory.open(Job::new().context(1, 0, 1, &[]));
        tokio::time::timeout(std::time::Duration::from_secs(10), opened).await.unwrap().err().unwrap()
    });
    let text = e.to_string();
    assert!(e.kind() == Kind::Unavailable && text.contains(name), "{text}");
    assert!(text.contains("state.object-store.url"), "{text}");
}
