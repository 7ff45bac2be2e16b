//! Lists through the store and back, at each parallelism, damaged, and of another type.
use super::*;
use tidegate_checkpoint::{error::Kind, ids::JobId};

fn state(
    store: &Arc<CheckpointStore>,
    subtask: u32,
    parallelism: u32,
    redistribution: Redistribution,
) -> OperatorState {
    OperatorState {
        store: store.clone(),
        savepoint: None,
        operator: OperatorId::new("ask").unwrap(),
        attempt: Attempt(2),
        subtask: Subtask(subtask),
        parallelism,
        key_groups: 128,
        codec: Codec::Named,
        redistribution,
        restore: Vec::new(),
        parallelism_before: 0,
    }
}

fn memory() -> Arc<CheckpointStore> {
    Arc::new(CheckpointStore::open("memory:", JobId::new("j").unwrap()).unwrap())
}

/// What each of `after` subtasks gets of the lists of `before` ones.
async fn moved(lists: &[Vec<u64>], after: u32, redistribution: Redistribution) -> Vec<Vec<Vec<u64>>> {
    let (store, before) = (memory(), lists.len() as u32);
    let mut handles = Vec::new();
    for (subtask, list) in lists.iter().enumerate() {
        let state = state(&store, subtask as u32, before, redistribution);
        handles.extend(state.snapshot(Epoch(7), list).unwrap().await.unwrap());
    }
    // The order of the acknowledgements is nobody's promise.
    handles.reverse();
    let mut got = Vec::new();
    for subtask in 0..after {
        let mut state = state(&store, subtask, after, redistribution);
        (state.restore, state.parallelism_before) = (handles.clone(), before);
        got.push(state.restore().await.unwrap());
    }
    got
}

#[tokio::test]
async fn lists_come_back_as_their_redistribution_says() {
    use Redistribution::{Split, Union, Whole};
    let lists = [vec![1, 2, 3], vec![], vec![4, 5]];
    let own = vec![vec![vec![1, 2, 3]], vec![], vec![vec![4, 5]]];
    assert_eq!(moved(&lists, 3, Split).await, own);
    assert_eq!(moved(&lists, 3, Whole).await, own);
    let all = vec![vec![1, 2, 3], vec![4, 5]];
    assert_eq!(moved(&lists, 3, Union).await, vec![all.clone(); 3]);
    assert_eq!(moved(&lists, 2, Split).await, [[[1, 3, 5].to_vec()], [[2, 4].to_vec()]]);
    assert_eq!(moved(&lists, 2, Whole).await, [all.clone(), vec![]]);
    assert_eq!(moved(&lists, 2, Union).await, vec![all.clone(); 2]);
    assert_eq!(moved(&lists, 1, Split).await, [[[1, 2, 3, 4, 5].to_vec()]]);
    assert_eq!(moved(&lists, 1, Whole).await, [all]);
    let five = moved(&lists, 5, Split).await;
    assert_eq!(five.concat().concat(), [1, 2, 3, 4, 5]);
    assert!(five.iter().all(|lists| lists.len() == 1));
    assert_eq!(moved(&[vec![], vec![]], 3, Split).await, vec![Vec::<Vec<u64>>::new(); 3]);
}

#[tokio::test]
async fn format_1_is_pinned() {
    let store = memory();
    let state = state(&store, 1, 2, Redistribution::Split);
    let handle = state.snapshot(Epoch(7), &["ab", "c"]).unwrap().await.unwrap().pop().unwrap();
    let bytes = store.get("j/state/ask/000002-000000000007-0001.list").await.unwrap();
    assert_eq!(&bytes[..], b"TGO1\x03\0\0\0\xa2ab\x02\0\0\0\xa1c");
    let data = r#"{"bytes":17,"codec":1,"crc32":"#;
    assert!(handle.data.to_string().starts_with(data), "{}", handle.data);
    assert_eq!((handle.backend.as_str(), handle.objects.len()), ("operator", 1));
    assert_eq!(paths::parse_state(&handle.objects[0].path), Some((Attempt(2), Epoch(7))));
}

#[tokio::test]
async fn damage_another_type_and_keyed_state_are_told() {
    let store = memory();
    let mut wanted = state(&store, 0, 1, Redistribution::Split);
    wanted.parallelism_before = 1;
    let handles = wanted.snapshot(Epoch(1), &[300u64, 2]).unwrap().await.unwrap();
    let object = handles[0].objects[0].path.clone();
    let whole = store.get(&object).await.unwrap().to_vec();

    wanted.restore = handles.clone();
    let e = wanted.restore::<String>().await.unwrap_err();
    assert!(
        e.hint_text().is_some() && e.to_string().contains("operator ask") && e.to_string().contains("String"),
        "{e}"
    );

    let mut read = async |bytes: Vec<u8>| {
        store.put(&object, bytes).await.unwrap();
        wanted.restore = handles.clone();
        wanted.restore::<u64>().await
    };
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read(bad).await.unwrap_err().kind(), Kind::Corrupt, "bit {bit}");
    }
    for end in 0..whole.len() {
        let e = read(whole[..end].to_vec()).await.unwrap_err();
        assert!(e.kind() == Kind::Corrupt && e.to_string().contains(&object), "cut off at {end}: {e}");
    }
    assert_eq!(read(whole).await.unwrap(), [[300, 2]]);
    store.delete(&object).await.unwrap();
    wanted.restore = handles.clone();
    assert_eq!(wanted.restore::<u64>().await.unwrap_err().kind(), Kind::Corrupt);

    let keyed =
        StateHandle { backend: "memory".into(), data: serde_json::json!({ "object": "x" }), ..handles[0].clone() };
    wanted.restore = vec![keyed];
    let e = wanted.restore::<u64>().await.unwrap_err();
    assert!(e.kind() == Kind::Config && e.to_string().contains("keyed state"), "{e}");
}
