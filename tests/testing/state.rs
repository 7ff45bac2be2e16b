//! The state of an operator, as JSON.
use crate::counts;
use serde_json::json;
use tidegate::{
    Codec, Kind, Settings, Stream,
    testing::{Harness, TestStream},
};

#[tokio::test(start_paused = true)]
async fn the_open_windows_are_there_with_their_keys_and_gone_when_they_have_fired() {
    for parallelism in [1, 3] {
        let mut harness = Harness::new(counts).parallelism(parallelism).start().await.unwrap();
        harness.push_all([("tide", 0), ("gate", 10), ("tide", 1_000), ("tide", 1_001)]);
        let state = harness.state("counts").await.unwrap();
        let state: Vec<_> = state.iter().map(|e| (e.namespace, e.key.clone(), e.value.clone())).collect();
        assert_eq!(
            state,
            [(0, json!("gate"), json!(1)), (0, json!("tide"), json!(1)), (1_000, json!("tide"), json!(2)),]
        );
        harness.watermark(999);
        assert_eq!(harness.state("counts").await.unwrap().len(), 1);
        harness.finish().await.unwrap();
        assert_eq!(harness.state("counts").await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_is_not_there_is_told_with_those_that_are() {
    let mut harness = Harness::new(counts).start().await.unwrap();
    let error = harness.state("count").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("\"counts\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_has_no_names_is_shown_as_its_bytes() {
    let mut settings = Settings::default();
    settings.state.codec = Codec::Compact;
    let sums = |s: TestStream<u64>| s.key_by(|_| 0u8).fold("sums", 0u64, |sum, n| *sum += n);
    let mut harness = Harness::new(sums).settings(settings).start().await.unwrap();
    harness.push(7, 0);
    assert_eq!(harness.state("sums").await.unwrap()[0].value, json!({ "postcard": [7] }));
}
