//! The second half of the conformance suite: every object of a snapshot is cut short, flipped and removed.
//!
//! A damaged snapshot is refused with an error that names the object, or what is damaged is not needed any
//! more and the state comes back exactly. There is no third way: never another state, never a panic.
use std::sync::Arc;
use tidegate_checkpoint::error::Kind;

use super::{
    backend::{Model, World, Writes},
    block_on,
};
use crate::state::backend::StateBackendFactory;

/// Checkpoints in a row, so that the last one refers to objects of several.
const CHECKPOINTS: u8 = 4;

#[derive(Default)]
struct Tally {
    refused: usize,
    harmless: usize,
}

/// Spoils each object of a snapshot in many ways; returns how many objects there were. A backend that keeps
/// nothing in the checkpoint store has nothing to spoil here.
///
/// # Panics
/// When damage goes unnoticed, or the error does not say which object is damaged.
pub fn damage<F: StateBackendFactory>(make: impl Fn() -> F) -> usize {
    block_on(async {
        let mut world = World::new(Arc::new(make())).await;
        for n in 0..CHECKPOINTS {
            // Every checkpoint replaces a third of the last one's values, and brings new ones: most of what
            // each has written is still needed, and lies in its own object.
            let value = |k: u8| vec![n; 200 + usize::from(k)];
            let writes: Writes = (n * 4..n * 4 + 6).map(|k| (vec![0, k % 8, 0, k], Some(value(k)))).collect();
            world.write(&writes);
            assert!(world.checkpoint(&Writes::new(), true).await);
        }
        world.ended();
        let Some(last) = world.kept.pop() else { return 0 };
        let mut objects: Vec<_> = last.handles.iter().flat_map(|h| h.objects.clone()).collect();
        objects.sort();
        objects.dedup();
        let mut tally = Tally::default();
        for object in &objects {
            let whole = world.store.get(&object.path).await.unwrap();
            assert_eq!(whole.len() as u64, object.bytes, "the handle says how large {} is", object.path);
            let mut spoilt: Vec<(String, Option<Vec<u8>>)> = vec![("removed".into(), None)];
            spoilt.extend((0..whole.len()).map(|at| (format!("cut at {at}"), Some(whole[..at].to_vec()))));
            spoilt.extend((0..whole.len() * 8).map(|bit| {
                let mut flipped = whole.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                (format!("flipped at bit {bit}"), Some(flipped))
            }));
            for (how, bytes) in spoilt {
                match bytes {
                    Some(bytes) => world.store.put(&object.path, bytes).await.unwrap(),
                    None => world.store.delete(&object.path).await.unwrap(),
                }
                let what = format!("{} {how}", object.path);
                check(&world, &last.handles, &last.model, &what, &object.path, &mut tally).await;
            }
            world.store.put(&object.path, whole.to_vec()).await.unwrap();
        }
        assert_eq!(world.read(&last.handles, 1).await.unwrap(), last.model, "mended");
        let Tally { refused, harmless } = tally;
        assert!(objects.is_empty() || refused > harmless, "{refused} refused, but {harmless} harmless");
        objects.len()
    })
}

async fn check(
    world: &World,
    handles: &[tidegate_checkpoint::manifest::StateHandle],
    model: &Model,
    what: &str,
    object: &str,
    tally: &mut Tally,
) {
    match world.read(handles, 1).await {
        Ok(found) => {
            assert_eq!(&found, model, "{what} gives another state");
            assert!(!what.ends_with("removed") && !what.ends_with("cut at 0"), "{what} goes unnoticed");
            tally.harmless += 1;
        }
        Err(e) => {
            assert_eq!(e.kind(), Kind::Corrupt, "{what}: {e}");
            assert!(e.to_string().contains(object), "{what}, but the error does not say so: {e}");
            tally.refused += 1;
        }
    }
}
