//! What is collected, and what is not: attempt after attempt, the store holds little more than the state.
use bytes::Bytes;

use crate::kit::{Job, KEY_GROUPS, State, all, key};

const LIFE: std::time::Duration = std::time::Duration::from_millis(700);

/// All keys, with values that nothing compresses.
fn entries(from: u32, to: u32, salt: u32) -> impl Iterator<Item = (Bytes, Bytes)> {
    (from..to).map(move |n| {
        let value: Vec<u8> =
            (0..250u32).flat_map(|i| (i ^ n.wrapping_mul(2_654_435_761) ^ salt).to_le_bytes()).collect();
        (key(n as u16 % KEY_GROUPS, n), value.into())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_restarts_leave_no_more_than_thrice_the_state() {
    let (mut job, mut model, mut from) = (Job::new(), State::new(), Vec::new());
    for attempt in 1..=31 {
        let mut parts = job.open(attempt, 1 + attempt as u32 % 3, &from).await;
        assert_eq!(all(&mut parts).await, model, "attempt {attempt}");
        let changed = if attempt == 1 { (0, 400) } else { (attempt as u32 * 10, attempt as u32 * 10 + 40) };
        for part in &mut parts {
            part.put(entries(changed.0, changed.1, attempt as u32)).await;
        }
        model.extend(entries(changed.0, changed.1, attempt as u32));
        job.checkpoint(&mut parts).await;
        // Not so short a life that nothing is compacted.
        tidegate_core::env::sleep(LIFE).await;
        from = job.checkpoint(&mut parts).await;
        job.collect(attempt).await;
        // What is written after the last snapshot is nobody's.
        for part in &mut parts {
            part.put(entries(0, 100, 77)).await;
        }
    }
    let live: u64 = model.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    let stored = job.stored();
    println!("{live} bytes of state, {stored} stored");
    assert!(stored <= 3 * live, "{live} bytes of state, and {stored} are stored in {} files", job.files().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_can_be_restored_and_a_newer_attempt_is_left_alone() {
    let mut job = Job::new();
    let mut first = job.open(1, 2, &[]).await;
    for part in &mut first {
        part.put(entries(0, 50, 1)).await;
    }
    let old = job.checkpoint(&mut first).await;
    for part in &mut first {
        part.put(entries(50, 60, 1)).await;
    }
    let kept = job.checkpoint(&mut first).await;
    let mut second = job.open(2, 1, &kept).await;
    let mut newer = job.open(3, 1, &kept).await;
    for parts in [&mut second, &mut newer] {
        parts[0].put(entries(60, 70, 1)).await;
    }
    let latest = job.checkpoint(&mut second).await;
    let unseen = newer[0].backend.seal(tidegate_checkpoint::ids::Epoch(9)).await.unwrap();
    for _ in 0..3 {
        job.collect(2).await;
    }
    let model = |to| entries(0, to, 1).collect::<State>();
    for (handles, to) in [(&kept, 60), (&latest, 70), (&vec![unseen], 70)] {
        assert_eq!(all(&mut job.open(4, 3, handles).await).await, model(to));
    }
    assert_eq!(all(&mut newer).await, model(70));
    // And what is not kept is gone.
    let context = job.context(5, 0, 1, &old);
    let e = tidegate_core::state::backend::StateBackendFactory::open(&job.factory, context).await.err().unwrap();
    assert_eq!(e.kind(), tidegate_core::Kind::Corrupt, "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_spoils_nothing_and_what_it_leaves_is_deleted() {
    let mut job = Job::new();
    let mut zombie = job.open(1, 1, &[]).await;
    zombie[0].put(entries(0, 50, 1)).await;
    let mut from = job.checkpoint(&mut zombie).await;
    for attempt in 2..6 {
        let mut parts = job.open(attempt, 2, &from).await;
        // All of it, so that the new trees need nothing of the old ones.
        for part in &mut parts {
            part.put(entries(0, 50, attempt as u32)).await;
        }
        zombie[0].put(entries(0, 80, 99)).await;
        let _ = zombie[0].backend.seal(tidegate_checkpoint::ids::Epoch(100 + attempt)).await;
        from = job.checkpoint(&mut parts).await;
        job.collect(attempt).await;
        assert_eq!(all(&mut parts).await, entries(0, 50, attempt as u32).collect::<State>());
    }
    drop(zombie);
    let mut last = job.open(6, 1, &from).await;
    assert_eq!(all(&mut last).await, entries(0, 50, 5).collect::<State>());
}
