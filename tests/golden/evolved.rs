//! Old state under new types: the pinned blocks, read by a struct that has changed since.
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs};
use tidegate::{Codec, Kind};

use crate::state::{Last, Totals, block_on, contents, open, store, totals};

fn one() -> u32 {
    1
}

/// [`Totals`] a year later: without `mean` and `tags`, in another order, with two more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Later {
    #[serde(default)]
    since: Option<i64>,
    last: Last,
    by_hour: BTreeMap<u16, u64>,
    #[serde(default = "one")]
    weight: u32,
    sum: i64,
    count: u64,
}

/// And as it must not be changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrong {
    count: u64,
    last: Never,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Never {
    Never,
}

/// The pinned snapshot `<name>-handle`, with its objects.
async fn pinned(name: &str) -> (std::sync::Arc<tidegate::extend::checkpoint::store::CheckpointStore>, Vec<Handle>) {
    let read = |what: &str| fs::read(crate::data(&format!("{name}-{what}"))).unwrap();
    let (old, handle) = (store(), serde_json::from_slice::<Handle>(&read("handle")).unwrap());
    for (n, object) in handle.objects.iter().enumerate() {
        old.put(&object.path, read(&(n + 1).to_string())).await.unwrap();
    }
    (old, vec![handle])
}

type Handle = tidegate::extend::checkpoint::manifest::StateHandle;

#[test]
fn old_state_is_read_by_a_type_with_fields_added_removed_and_reordered() {
    block_on(async {
        let (old, handles) = pinned("blocks-named").await;
        let restored = open::<Later>(&old, Codec::Compact, handles).await.unwrap();
        let later = |n| {
            let Totals { count, sum, last, by_hour, .. } = totals(n);
            let by_hour = by_hour.into_iter().map(|(hour, n)| (hour.into(), n.into())).collect();
            Later { since: None, last, by_hour, weight: 1, sum, count }
        };
        let expected = [((3_600_000, "JFK".into()), later(1000)), ((3_600_000, "LGA".into()), later(5))];
        assert_eq!(contents(&restored), BTreeMap::from(expected));
    });
}

#[test]
fn a_type_that_cannot_read_old_state_is_told_the_field() {
    block_on(async {
        let (old, handles) = pinned("blocks-named").await;
        let error = open::<Wrong>(&old, Codec::Named, handles).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("field last: unknown variant"), "{error}");
        // Without names it can only be told that the type has changed.
        let (old, handles) = pinned("blocks-compact-lengths").await;
        let error = open::<(u64, i64)>(&old, Codec::Named, handles).await.err().unwrap();
        assert!(error.kind() == Kind::Config && error.to_string().contains("bytes are left over"), "{error}");
    });
}
