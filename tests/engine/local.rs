//! What an attempt has left on the local disk is used by the next one, and is gone with the run.
use crate::{
    kit::{Blast, finished, run, settings, until},
    pipeline::{COUNT, pipeline},
    store::{Fault, Op, Store},
};
use std::fs;

#[test]
fn a_restart_over_rocksdb_fetches_no_data_and_a_run_leaves_none() {
    run(async {
        let (store, directory) = (Store::new(), tempfile::tempdir().unwrap());
        let mut settings = settings(2);
        settings.state.backend = "rocksdb".into();
        settings.state.rocksdb.directory = directory.path().display().to_string();
        let mut p = pipeline("local", settings);
        p.job.checkpoint_store(store.checkpoints("local"));
        let handle = p.job.start().unwrap();
        p.gate.open_to(COUNT / 2);
        let committed = handle.checkpoint_now().await.unwrap();
        store.on(Op::Get, ".sst-", Fault::Fails, u32::MAX);
        p.bomb.arm("fold", Blast::Panic, 2);
        p.gate.open();
        let status = finished(handle).await;
        p.assert_exact();
        assert!(p.bomb.is_spent() && status.restored == Some(committed), "{status:?}");
        assert_eq!(store.hits(), 0, "reads of data");
        // The job is still there, and could be started again.
        until(|| fs::read_dir(directory.path()).unwrap().count() == 0).await;
    });
}
