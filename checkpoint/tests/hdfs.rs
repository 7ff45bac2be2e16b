//! The checkpoint store on a real HDFS: what only one may create, what killed writers leave, and what is refused. The
//! testbed's own client looks at what is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]
#![allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
use futures::{TryStreamExt, future::join_all};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_checkpoint::{
    commit::{CommitPoint, StoreCommitPoint, committed_manifest},
    error::Kind,
    ids::{Attempt, Epoch, JobId, OperatorId, Subtask},
    manifest::{Manifest, ObjectRef},
    paths,
    store::{CheckpointStore, Created, open_url},
};
use tidegate_testbed::{
    hdfs::{Hdfs, Options},
    without::left_out,
};

fn job() -> JobId {
    JobId::new("j").unwrap()
}

fn open(url: &str) -> Arc<CheckpointStore> {
    Arc::new(CheckpointStore::open(url, job()).unwrap())
}

/// One server and everything that it takes no fault for, since it takes seconds to start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_kept_and_only_one_creates_what_is_not_there() {
    if left_out("hdfs") {
        return;
    }
    let hdfs = Hdfs::start().unwrap();
    let url = format!("{}/some/folder", hdfs.url());
    whole_life(&open(&url)).await;
    races(&url).await;
    sweeps(&hdfs, &url).await;
    copies(&hdfs).await;
}

async fn whole_life(store: &Arc<CheckpointStore>) {
    assert!(store.attempts().await.unwrap().is_empty(), "a folder that is not there is empty");
    let attempt = store.claim("me").await.unwrap();
    assert_eq!(store.claimant(attempt).await.unwrap(), "me");
    let state = paths::state(&job(), &OperatorId::new("op").unwrap(), attempt, Epoch(1), Subtask(0), "blocks");
    store.put(&state, vec![7; 300_000]).await.unwrap();
    store.put(&state, vec![8; 200_000]).await.unwrap();
    assert_eq!(store.list("state").await.unwrap(), [ObjectRef { path: state.clone(), bytes: 200_000 }]);
    let parts = store.get_ranges(&state, &[0..2, 199_999..200_000]).await.unwrap();
    assert_eq!(parts, [&[8, 8][..], &[8]]);
    assert_eq!(store.get_ranges(&state, &[0..200_001]).await.unwrap_err().kind(), Kind::Corrupt);
    let mut upload = store.put_multipart(&state).await.unwrap();
    upload.put_part(PutPayload::from(vec![9; 100_000])).await.unwrap();
    assert_eq!(store.get(&state).await.unwrap().len(), 200_000, "what is not complete is not there");
    upload.complete().await.unwrap();
    assert_eq!(store.get(&state).await.unwrap(), vec![9; 100_000]);
    store.delete(&state).await.unwrap();
    store.delete(&state).await.unwrap();
    assert!(store.list("state").await.unwrap().is_empty());
    let manifest = Manifest { epoch: Epoch(1), attempt, ..Manifest::empty(&job(), "l", 128, 1) };
    let commits = StoreCommitPoint::new(store.clone());
    commits.seal(&manifest).await.unwrap();
    let record = commits.latest().await.unwrap().unwrap();
    assert_eq!(committed_manifest(store, &record).await.unwrap(), manifest);
    let e = store.get("j/none").await.unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("j/none is missing"), "{e}");
}

/// Each writer with a client of its own, as processes have.
async fn races(url: &str) {
    let stores: Vec<_> = (0..8).map(|_| open(url)).collect();
    for round in 0..6 {
        let name = format!("j/manifests/race-{round}");
        let tries = stores.iter().enumerate().map(|(n, store)| store.create(&name, vec![n as u8; 2000]));
        let tries: Vec<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<_> = tries.iter().enumerate().filter(|(_, c)| matches!(c, Created::Ours)).collect();
        let &[(winner, _)] = &winners[..] else { panic!("{} of 8 have won", winners.len()) };
        let there = vec![winner as u8; 2000];
        assert_eq!(stores[0].get(&name).await.unwrap(), there);
        assert!(tries.iter().all(|c| !matches!(c, Created::Theirs(theirs) if *theirs != there)));
    }
    let names: Vec<_> = (0..8).map(|n| format!("process {n}")).collect();
    let claims = join_all(stores.iter().zip(&names).map(|(store, name)| store.claim(name))).await;
    let distinct: BTreeSet<_> = claims.into_iter().map(Result::unwrap).collect();
    assert_eq!(distinct.len(), 8);
    // The losers of the races have left files that nobody sees.
    assert_eq!(stores[0].attempts().await.unwrap().last(), distinct.last());
    assert_eq!(stores[0].list("manifests").await.unwrap().len(), 1 + 6);
}

async fn sweeps(hdfs: &Hdfs, url: &str) {
    let folder = "/some/folder/j";
    let left = |name: &str| hdfs.list(&format!("{folder}/{name}")).unwrap().into_iter().filter(|n| n.starts_with('.'));
    for path in ["state/op/.x.blocks.tmp.1", "commits/.000000000003.commit.tmp.2", "state/op/.not-ours"] {
        hdfs.write(&format!("{folder}/{path}"), b"half").unwrap();
    }
    let store = open(url);
    let attempt = store.claim("sweeper").await.unwrap();
    hdfs.write(&format!("{folder}/attempts/.{:012}.tmp.1", attempt.0), b"a rival's").unwrap();
    assert!(store.list("commits").await.unwrap().iter().all(|o| paths::parse_commit(&o.path).is_some()));
    store.sweep_unfinished_remote(attempt).await.unwrap();
    for name in ["manifests", "commits"] {
        assert_eq!(left(name).count(), 0, "{name}");
    }
    assert_eq!(left("state/op").collect::<Vec<_>>(), [".not-ours"]);
    assert_eq!(left("attempts").count(), 1, "one that is perhaps on its way stays");
    store.sweep_unfinished_remote(Attempt(attempt.0 + 1)).await.unwrap();
    assert_eq!(left("attempts").count(), 0);
}

/// As files are published: whole or not at all, and never over another one.
async fn copies(hdfs: &Hdfs) {
    let (objects, folder) = open_url(&format!("{}/files", hdfs.url())).unwrap();
    let path = |name: &str| folder.clone().join(name);
    objects.put(&path("a"), vec![1; 100_000].into()).await.unwrap();
    objects.copy_if_not_exists(&path("a"), &path("b")).await.unwrap();
    assert_eq!(hdfs.read("/files/b").unwrap(), vec![1; 100_000]);
    objects.put(&path("c"), vec![2; 10].into()).await.unwrap();
    let e = objects.copy_if_not_exists(&path("c"), &path("b")).await.unwrap_err();
    assert!(matches!(e, object_store::Error::AlreadyExists { .. }), "{e}");
    objects.copy(&path("c"), &path("b")).await.unwrap();
    objects.rename(&path("c"), &path("d")).await.unwrap();
    let mut names: Vec<_> = objects.list(Some(&folder)).map_ok(|o| o.location).try_collect().await.unwrap();
    names.sort();
    assert_eq!(names, [path("a"), path("b"), path("d")]);
    assert_eq!(hdfs.read("/files/b").unwrap(), [2; 10]);
    let listed = objects.list_with_delimiter(Some(&Path::from("files"))).await.unwrap();
    assert_eq!((listed.objects.len(), listed.common_prefixes.len()), (3, 0));
}

/// Set in the process that reads Hadoop's configuration: to the URLs that it must find there.
const CONFIGURED: &str = "TIDEGATE_TEST_CONFIGURED";

/// In a process of its own, since the environment is the process's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_service_is_found_where_hadoops_configuration_is() {
    if let Some(urls) = std::env::var_os(CONFIGURED) {
        for (n, url) in urls.to_str().unwrap().split(',').enumerate() {
            assert_eq!(open(url).claim("me").await.unwrap(), Attempt(n as u64 + 1), "{url}");
        }
        return;
    }
    if left_out("hdfs") {
        return;
    }
    let hdfs = Hdfs::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let property = |name: &str, value: &str| format!("<property><name>{name}</name><value>{value}</value></property>");
    let write = |file: &str, properties: String| {
        std::fs::write(folder.path().join(file), format!("<configuration>{properties}</configuration>")).unwrap();
    };
    write("core-site.xml", property("fs.defaultFS", "hdfs://house"));
    let address = format!("127.0.0.1:{}", hdfs.port());
    write(
        "hdfs-site.xml",
        [
            property("dfs.nameservices", "house"),
            // The first of the two is not there.
            property("dfs.ha.namenodes.house", "a,b"),
            property("dfs.namenode.rpc-address.house.a", "127.0.0.1:1"),
            property("dfs.namenode.rpc-address.house.b", &address),
        ]
        .concat(),
    );
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_name_service_is_found_where_hadoops_configuration_is", "--nocapture"]);
    child.env("HADOOP_CONF_DIR", folder.path()).env(CONFIGURED, "hdfs://house/kept,hdfs:///kept");
    let done = child.output().unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(hdfs.list("/kept/j/attempts").unwrap().iter().any(|name| !name.starts_with('.')), "it went elsewhere");
}

#[tokio::test]
async fn a_name_node_that_is_not_there_is_soon_said_to_be_so() {
    for (url, host) in
        [("hdfs://127.0.0.1:1/x", "127.0.0.1:1"), ("hdfs://no-such-host.invalid:9000/x", "no-such-host.invalid:9000")]
    {
        let began = Instant::now();
        let e = open(url).claim("me").await.unwrap_err();
        let took = began.elapsed();
        let text = e.to_string();
        assert!(e.kind() == Kind::Unavailable && text.contains(host) && text.contains("checkpoint.store"), "{e}");
        assert!(took < Duration::from_secs(10), "{host}: after {took:?}");
    }
    let e = CheckpointStore::open("hdfs://unknown-service/x", job()).unwrap_err();
    assert!(e.kind() == Kind::Config && e.to_string().contains("HADOOP_CONF_DIR"), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_may_only_be_read_is_the_users_to_mend() {
    if left_out("hdfs") {
        return;
    }
    let hdfs = Hdfs::with(&Options::default().permissions()).unwrap();
    hdfs.make_folder("/own", "reader", "755").unwrap();
    hdfs.make_folder("/others", "writer", "755").unwrap();
    let url = |folder: &str| format!("hdfs://reader@127.0.0.1:{}/{folder}", hdfs.port());
    open(&url("own")).claim("me").await.unwrap();
    let e = open(&url("others")).claim("me").await.unwrap_err();
    let text = e.to_string();
    assert_eq!(e.kind(), Kind::Config, "{e}");
    for part in ["reader", "/others", "permissions of the store"] {
        assert!(text.contains(part) && !text.contains("\tat "), "{part}: {text}");
    }
    // Nothing of it is there, and what is there can be read.
    hdfs.set_mode("/own", "555").unwrap();
    assert_eq!(open(&url("own")).attempts().await.unwrap(), [Attempt(1)]);
}
