//! Types that change under the state that they are of.
use super::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

type Seen<V> = Collect<(u64, V)>;

/// Keeps a value for each of seven keys, made from nothing and changed by `change`.
fn keeping<V>(store: &Store, settings: Settings, init: V, change: fn(&mut V, u64)) -> (Job, Gate, Seen<V>)
where
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let mut job = Job::with_backends("evolving", settings, [Arc::new(Entries) as _]);
    job.checkpoint_store(store.checkpoints("evolving"));
    let ((source, gate), seen) = (Gated::new(COUNT, 3), Collect::new());
    job.source("numbers", source).key_by(|n| n % 7).fold("per-user", init, change).sink("out", seen.clone());
    (job, gate, seen)
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Visits {
    count: u64,
    last: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Old {
    name: String,
    visits: Visits,
    gone: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct More {
    last: u64,
    #[serde(default = "one")]
    weight: u32,
    count: u64,
}

/// One field has gone, one has come, two have changed places, one is in another struct.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct New {
    visits: More,
    #[serde(default)]
    since: Option<u64>,
    name: String,
}

fn one() -> u32 {
    1
}

fn old(user: &mut Old, n: u64) {
    user.name = format!("user {}", n % 7);
    user.visits = Visits { count: user.visits.count + 1, last: user.visits.last.max(n) };
    user.gone.push(n);
}

async fn write_old(store: &Store, settings: Settings) {
    let (before, gate, _) = keeping(store, settings, Old::default(), old);
    part(&before, &gate, 0..COUNT / 3).await.cancel().await.unwrap();
}

/// The state of all users at the end, read by another type.
async fn read_on<V>(store: &Store, settings: Settings, change: fn(&mut V, u64)) -> tidegate::Result<HashMap<u64, V>>
where
    V: Serialize + DeserializeOwned + Clone + Default + Send + Sync + 'static,
{
    let (after, gate, seen) = keeping(store, settings, V::default(), change);
    gate.open();
    let (result, status) = end(after.start().unwrap()).await;
    assert!(result.is_ok() || status.restarts <= 1, "tried again: {status:?}");
    result.map(|()| seen.take().into_iter().collect())
}

#[test]
fn fields_are_added_removed_and_moved_over_every_backend() {
    run(async {
        for backend in BACKENDS {
            let store = Store::new();
            write_old(&store, over(backend, 2)).await;
            let change = |user: &mut New, n: u64| {
                user.visits.count += 1;
                user.visits.last = user.visits.last.max(n);
                user.since = Some(user.since.map_or(n, |since| since.min(n)));
            };
            let users = read_on(&store, over(backend, 1), change).await.unwrap();
            assert_eq!(users.len(), 7);
            for (key, user) in users {
                let count = (0..COUNT).filter(|n| n % 7 == key).count() as u64;
                let since = (COUNT / 3..COUNT).find(|n| n % 7 == key);
                let (name, last) = (format!("user {key}"), (0..COUNT).rev().find(|n| n % 7 == key).unwrap());
                assert_eq!(user, New { visits: More { last, weight: 1, count }, since, name });
            }
        }
    });
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Renamed {
    visits: Wrong,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Wrong {
    count: String,
}

/// A field that has no default, and was not there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Lacking {
    surname: String,
}

#[track_caller]
fn assert_told<V: std::fmt::Debug>(read: tidegate::Result<V>, words: &[&str]) {
    let error = read.unwrap_err();
    assert!(error.kind() == Kind::Config && error.hint_text().is_some(), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

/// No record comes, so that nobody asks for an entry: the start itself says it.
#[test]
fn a_type_that_cannot_read_the_state_is_refused_at_the_start_with_operator_and_field() {
    run(async {
        for backend in BACKENDS {
            let store = Store::new();
            write_old(&store, over(backend, 2)).await;
            let (after, _closed, _) = keeping(&store, over(backend, 2), Renamed::default(), |_, _| {});
            assert_told(
                end(after.start().unwrap()).await.0,
                &["state of operator per-user: field visits.count: invalid type", "expected a string", "Renamed"],
            );
            let (after, _closed, _) = keeping(&store, over(backend, 2), Lacking::default(), |_, _| {});
            assert_told(
                end(after.start().unwrap()).await.0,
                &["state of operator per-user: missing field `surname`", "#[serde(default)]", "Lacking"],
            );
            // Nothing of it is lost.
            assert_eq!(read_on(&store, over(backend, 1), old).await.unwrap().len(), 7);
        }
    });
}

/// Over a backend that is asked for single entries, those that were not looked at first.
#[test]
fn a_value_that_does_not_fit_is_told_when_it_is_read() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Text {
        value: Option<String>,
    }
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Number {
        value: Option<u64>,
    }
    run(async {
        let store = Store::new();
        let mut settings = over(("entries", 0), 1);
        // All in one key group: only the first of them is looked at when the state is opened.
        settings.key_groups = 1;
        let change = |text: &mut Text, n: u64| text.value = (n % 7 == 6).then(|| "x".to_owned());
        let (before, gate, _) = keeping(&store, settings.clone(), Text::default(), change);
        part(&before, &gate, 0..COUNT / 3).await.cancel().await.unwrap();
        let read = read_on(&store, settings, |number: &mut Number, n| number.value = Some(n)).await;
        assert_told(read, &["state of operator per-user: field value: invalid type: string \"x\", expected u64"]);
    });
}

#[test]
fn a_savepoint_is_read_by_changed_types_and_refused_by_wrong_ones() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("saved").display().to_string();
        let (before, gate, _) = keeping(&Store::new(), over(BACKENDS[0], 2), Old::default(), old);
        let handle = part(&before, &gate, 0..COUNT / 3).await;
        handle.savepoint(&place).await.unwrap();
        handle.cancel().await.unwrap();
        for backend in BACKENDS {
            let mut settings = over(backend, 3);
            settings.checkpoint.savepoint = place.as_str().into();
            let users =
                read_on(&Store::new(), settings.clone(), |user: &mut New, _| user.visits.count += 1).await.unwrap();
            assert_eq!(users.values().map(|user| user.visits.count).sum::<u64>(), COUNT);
            let read = read_on(&Store::new(), settings, |_: &mut Renamed, _| {}).await;
            assert_told(read, &["state of operator per-user: field visits.count: invalid type"]);
        }
    });
}

/// Each stored value says its codec, so that a job goes from one to the other by its job file, entry by entry.
#[test]
fn the_codec_may_be_another_one_at_each_start() {
    run(async {
        for backend in BACKENDS {
            let (store, mut seen) = (Store::new(), HashMap::new());
            for (n, codec) in [Codec::Named, Codec::Compact, Codec::Named, Codec::Compact].into_iter().enumerate() {
                let mut settings = over(backend, 1 + n as u32 % 2);
                settings.state.codec = codec;
                let (job, gate, values) = keeping(&store, settings, Old::default(), old);
                let from = COUNT / 5 * n as u64;
                part(&job, &gate, from..from + COUNT / 5).await.cancel().await.unwrap();
                seen.extend(values.take());
            }
            assert_eq!(seen.values().map(|user: &Old| user.visits.count).sum::<u64>(), COUNT / 5 * 4);
            assert_eq!(seen.values().map(|user| user.gone.len() as u64).sum::<u64>(), COUNT / 5 * 4);
        }
    });
}

/// Without names there is only the length to tell by.
#[test]
fn compact_state_that_ends_too_soon_or_too_late_is_refused() {
    run(async {
        for backend in BACKENDS {
            let compact = |parallelism| {
                let mut settings = over(backend, parallelism);
                settings.state.codec = Codec::Compact;
                settings
            };
            let store = Store::new();
            write_old(&store, compact(2)).await;
            // Whatever is set now: the values are what they are.
            for settings in [compact(1), over(backend, 2)] {
                let read = read_on(&store, settings, |_: &mut (String, Visits), _| {}).await;
                assert_told(read, &["state of operator per-user: ", "bytes are left over", "codec \"compact\""]);
            }
            let read = read_on(&store, compact(1), |_: &mut (Old, u64), _| {}).await;
            assert_told(read, &["state of operator per-user: field [1]", "codec \"compact\""]);
            assert_eq!(read_on(&store, compact(3), old).await.unwrap().len(), 7);
        }
    });
}
