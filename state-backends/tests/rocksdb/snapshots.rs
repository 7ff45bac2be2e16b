//! What a snapshot stores, and when: what is new, behind the call, and again if it has failed.
use crate::kit::{Kit, get, write, wrong};
use std::{collections::BTreeSet, time::Duration};
use tidegate_checkpoint::{ids::Epoch, manifest::StateHandle};
use tidegate_core::{
    env::now,
    testkit::{block_on, store::Fault},
};

/// Objects of a handle that an earlier one does not have.
fn new<'a>(handle: &'a StateHandle, earlier: &StateHandle) -> Vec<&'a str> {
    let earlier: BTreeSet<_> = earlier.objects.iter().collect();
    handle.objects.iter().filter(|o| !earlier.contains(o)).map(|o| o.path.as_str()).collect()
}

fn bytes(handle: &StateHandle, paths: &[&str]) -> u64 {
    handle.objects.iter().filter(|o| paths.contains(&o.path.as_str())).map(|o| o.bytes).sum()
}

#[test]
fn what_is_stored_already_is_referred_to_over_a_restore_too() {
    block_on(async {
        let kit = Kit::new();
        let mut backend = kit.open(1, (0, 1), &[]).await.unwrap();
        write(backend.as_mut(), 0..50_000, 1).await;
        let first = backend.seal(Epoch(1)).await.unwrap();
        let whole: u64 = first.objects.iter().map(|o| o.bytes).sum();
        assert!(whole > 3_000_000, "{whole}");
        write(backend.as_mut(), 0..100, 2).await;
        let second = backend.seal(Epoch(2)).await.unwrap();
        assert!(bytes(&second, &new(&second, &first)) < whole / 20, "{:?}", new(&second, &first));
        drop(backend);
        let mut backend = kit.open(2, (0, 1), std::slice::from_ref(&second)).await.unwrap();
        write(backend.as_mut(), 100..200, 2).await;
        let third = backend.seal(Epoch(3)).await.unwrap();
        assert!(bytes(&third, &new(&third, &second)) < whole / 20, "{:?}", new(&third, &second));
        let mut backend = kit.open(3, (0, 1), &[third]).await.unwrap();
        assert_eq!(wrong(backend.as_mut(), 0..200, 2).await, 0);
        assert_eq!(wrong(backend.as_mut(), 200..50_000, 1).await, 0);
    });
}

#[test]
fn a_snapshot_behind_a_failed_one_stores_what_that_did_not() {
    block_on(async {
        for fault in [Fault::Refused, Fault::ReplyLost] {
            let kit = Kit::new();
            let mut backend = kit.open(1, (0, 1), &[]).await.unwrap();
            write(backend.as_mut(), 0..1_000, 1).await;
            kit.faults.fail_after(0, fault);
            backend.seal(Epoch(1)).await.unwrap_err();
            kit.faults.heal();
            write(backend.as_mut(), 1_000..1_100, 1).await;
            let handle = backend.seal(Epoch(2)).await.unwrap();
            assert!(handle.objects.iter().all(|o| o.path.contains("-000000000002-")), "{:?}", handle.objects);
            let mut backend = kit.open(2, (0, 1), &[handle]).await.unwrap();
            assert_eq!(wrong(backend.as_mut(), 0..1_100, 1).await, 0);
        }
    });
}

/// The memory of 60 MB takes a while to be written; neither the cut nor what is written behind it waits.
#[test]
fn a_cut_is_where_it_was_called_for_and_the_call_does_not_wait() {
    block_on(async {
        let kit = Kit::new();
        let mut backend = kit.open(1, (0, 1), &[]).await.unwrap();
        write(backend.as_mut(), 0..200_000, 1).await;
        let began = now();
        let sealing = backend.seal(Epoch(1));
        let call = began.elapsed();
        let mut batch = tidegate_core::state::backend::WriteBatch::default();
        batch.delete_range(&[0, 0], &[0, KEY_GROUPS_END]);
        backend.write(batch).unwrap();
        let written = began.elapsed();
        backend.flushed().await.unwrap();
        let flushed = began.elapsed();
        let handle = sealing.await.unwrap();
        println!("seal {call:?}, write {written:?}, flushed {flushed:?}, durable {:?}", began.elapsed());
        assert!(written < Duration::from_millis(50), "the call took {call:?}, a write behind it {written:?}");
        assert!(get(backend.as_mut(), 0..1_000).await.iter().all(Option::is_none), "all is deleted");
        let mut backend = kit.open(2, (0, 1), &[handle]).await.unwrap();
        assert_eq!(wrong(backend.as_mut(), 0..200_000, 1).await, 0);
    });
}

const KEY_GROUPS_END: u8 = crate::kit::KEY_GROUPS as u8;

/// Large enough for files on several levels; the conformance suite has the small ones.
#[test]
fn a_large_state_is_split_and_united() {
    block_on(async {
        let mut kit = Kit::new();
        kit.settings.rocksdb.memory = tidegate_core::ByteSize::mb(32);
        let mut backend = kit.open(1, (0, 1), &[]).await.unwrap();
        for round in 1..4 {
            write(backend.as_mut(), 0..150_000, round).await;
        }
        let mut handles = vec![backend.seal(Epoch(1)).await.unwrap()];
        for (attempt, parallelism) in [(2, 3), (3, 2), (4, 1)] {
            let (mut sealed, mut found, mut foreign) = (Vec::new(), 0, 0);
            for subtask in 0..parallelism {
                let mut backend = kit.open(attempt, (subtask, parallelism), &handles).await.unwrap();
                let missing = wrong(backend.as_mut(), 0..150_000, 3).await;
                found += 150_000 - missing;
                let range = kit.context(attempt, (subtask, parallelism), &[]).key_groups;
                let page = backend.scan(bytes::Bytes::new(), None, usize::MAX).await.unwrap();
                foreign += page.iter().filter(|(key, _)| !range.contains(u16::from_be_bytes([key[0], key[1]]))).count();
                sealed.push(backend.seal(Epoch(attempt)).await.unwrap());
            }
            assert_eq!((found, foreign), (150_000, 0), "over {parallelism} subtasks");
            handles = sealed;
        }
    });
}
