//! What it costs, for people: `cargo test --release --features rocksdb --test rocksdb -- --ignored --nocapture`.
use crate::kit::Kit;
use std::collections::BTreeSet;
use tidegate_checkpoint::{ids::Epoch, manifest::StateHandle};
use tidegate_core::{
    env::{now, random},
    record::Keyed,
    state::{
        codec::Codec,
        hash::hash_key,
        keyed::{KeyedState, Swept},
    },
    testkit::block_on,
};

const KEYS: u64 = 5_000_000;
const BATCH: usize = 4096;

async fn update(state: &mut KeyedState<u64, u64>, keys: impl Iterator<Item = u64>) {
    let keyed = |key: u64| Keyed { hash: hash_key(&key), key, record: 1u64, at: 0 };
    let mut records: Vec<_> = keys.map(keyed).collect();
    let mut missing = Vec::new();
    state.missing(&records, |_, need| need(0), &mut missing).unwrap();
    state.load(missing).await.unwrap();
    let change = |sum: &mut u64, next: Keyed<u64, u64>| *sum += next.record;
    state.update_while(0, &mut records.drain(..), |_| true, || 0, change).unwrap();
    if state.needs_tending() {
        assert!(state.tend().await.unwrap().is_none());
    }
}

async fn checkpoint(state: &mut KeyedState<u64, u64>, epoch: u64) -> StateHandle {
    assert!(state.freeze(Epoch(epoch)).unwrap());
    loop {
        if let Swept::Sealed(_, durable) = state.sweep(u64::MAX).unwrap() {
            return durable.await.unwrap();
        }
    }
}

#[test]
#[ignore = "a measurement of a minute"]
fn five_million_keys_through_a_cache_of_64_mb() {
    block_on(async {
        let kit = Kit::new();
        let context = kit.context(1, (0, 1), &[]);
        let range = context.key_groups;
        let backend = kit.open(1, (0, 1), &[]).await.unwrap();
        let mut state =
            KeyedState::<u64, u64>::new("operator", backend, Codec::Compact, crate::kit::KEY_GROUPS, range, 64_000_000);
        state.restore().await.unwrap();
        let began = now();
        for first in (0..KEYS).step_by(BATCH) {
            update(&mut state, first..KEYS.min(first + BATCH as u64)).await;
        }
        println!("{:.0} keys/s are made", KEYS as f64 / began.elapsed().as_secs_f64());
        let began = now();
        let mut last = checkpoint(&mut state, 1).await;
        let bytes = |handle: &StateHandle| handle.objects.iter().map(|o| o.bytes).sum::<u64>();
        println!("the first checkpoint: {} MB in {:?}", bytes(&last) / 1_000_000, began.elapsed());
        let mut seed = 1;
        let began = now();
        let updates = 400 * BATCH;
        for _ in 0..400 {
            let keys: Vec<_> = (0..BATCH).map(|_| random(&mut seed) % KEYS).collect();
            update(&mut state, keys.into_iter()).await;
        }
        println!("{:.0} updates/s of any key", updates as f64 / began.elapsed().as_secs_f64());
        last = checkpoint(&mut state, 2).await;
        for epoch in 3..15 {
            let keys: Vec<_> = (0..KEYS / 100).map(|_| random(&mut seed) % KEYS).collect();
            for keys in keys.chunks(BATCH) {
                update(&mut state, keys.iter().copied()).await;
            }
            let began = now();
            let next = checkpoint(&mut state, epoch).await;
            let known: BTreeSet<_> = last.objects.iter().collect();
            let new: u64 = next.objects.iter().filter(|o| !known.contains(o)).map(|o| o.bytes).sum();
            println!("1 % changed: {} kB of {} MB in {:?}", new / 1000, bytes(&next) / 1_000_000, began.elapsed());
            last = next;
        }
        let (handle, began) = (last, now());
        drop(state);
        kit.open(2, (0, 1), &[handle]).await.unwrap();
        println!("restored in {:?}", began.elapsed());
    });
}
