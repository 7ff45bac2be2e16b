//! What cannot be opened or read says why, and what to do.
use std::fs;
use tidegate_core::{Kind, state::backend::StateBackendFactory};
use tidegate_state::ObjectStoreState;

use crate::kit::{Job, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_url_the_setting_is_named() {
    let e = ObjectStoreState::default().open(Job::new().context(1, 0, 1, &[])).await.err().unwrap();
    assert!(e.kind() == Kind::Config && e.to_string().contains("state.object-store.url"), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_another_backend_is_refused() {
    let mut job = Job::new();
    let mut handles = job.checkpoint(&mut job.open(1, 1, &[]).await).await;
    handles[0].backend = "memory".into();
    let e = job.factory.open(job.context(2, 0, 1, &handles)).await.err().unwrap();
    assert!(e.kind() == Kind::Config && e.to_string().contains("\"memory\""), "{e}");
}

/// Of every kind of file the first is spoilt: what is restored is refused then, or exactly what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_refused_and_named() {
    let mut job = Job::new();
    let mut parts = job.open(1, 1, &[]).await;
    parts[0].put((0..200).map(|n| (key(n as u16 % 8, n), vec![n as u8; 100].into()))).await;
    let model = parts[0].scan().await.unwrap();
    let handles = job.checkpoint(&mut parts).await;
    drop(parts);
    let mut refused = 0;
    for file in job.files() {
        let whole = fs::read(&file).unwrap();
        for spoilt in [None, Some(whole[..whole.len() / 2].to_vec()), Some(flipped(&whole))] {
            match &spoilt {
                None => fs::remove_file(&file).unwrap(),
                Some(bytes) => fs::write(&file, bytes).unwrap(),
            }
            // A factory of its own, so that nothing is remembered.
            let other = ObjectStoreState::at(&format!("file://{}", job.dir.path().display()));
            let result = async {
                let context = job.context(2, 0, 1, &handles);
                let range = context.key_groups;
                crate::kit::Part { backend: other.open(context).await?, range }.scan().await
            };
            match result.await {
                Ok(found) => assert_eq!(found, model, "{} gives another state", file.display()),
                Err(e) => {
                    assert!(
                        e.to_string().contains("operator/000001/") || e.to_string().contains("operator/000002/"),
                        "{e}"
                    );
                    assert_ne!(e.kind(), Kind::Config, "{e}");
                    refused += 1;
                }
            }
            fs::write(&file, &whole).unwrap();
        }
    }
    assert!(refused >= 4, "only {refused} were refused");
}

fn flipped(whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let middle = bytes.len() / 3;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 4;
    }
    bytes
}
