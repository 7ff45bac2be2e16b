//! Zombies, lost and late replies, a server that is killed, emptied, or fails over.
use std::time::{Duration, Instant};
use tidegate_checkpoint::ids::Epoch;
use tidegate_core::Kind;
use tidegate_testbed::{
    redis::{Cluster, Fault, Options, Proxy, Redis, Sentinels},
    without,
};

use crate::world::{Job, Model, all, put, puts, run, server, settings};

#[test]
fn a_zombie_changes_nothing_and_is_told() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let job = Job::new(settings(&server.url()));
        let mut model = Model::new();
        let mut old = job.open(1, &[]).await.unwrap();
        old.write(puts(0, 100, "kept")).unwrap();
        put(&mut model, 0, 100, "kept");
        let handle = old.seal(Epoch(1)).await.unwrap();
        // In the middle of an epoch, with a snapshot and a batch that are still to come.
        old.write(puts(0, 5000, "zombie")).unwrap();
        old.flushed().await.unwrap();
        let mut new = job.open(2, std::slice::from_ref(&handle)).await.unwrap();
        old.write(puts(50, 5000, "zombie")).unwrap();
        let refused = old.seal(Epoch(2)).await.unwrap_err();
        assert!(refused.to_string().contains("attempt 2"), "{refused}");
        assert!(!refused.kind().is_retriable());
        assert!(old.flushed().await.is_err() && old.write(puts(0, 1, "zombie")).is_err());
        assert_eq!(all(new.as_mut()).await.unwrap(), model);
        // Nor does it come back.
        assert!(job.open(1, std::slice::from_ref(&handle)).await.is_err());
        assert_eq!(all(new.as_mut()).await.unwrap(), model);
        new.seal(Epoch(3)).await.unwrap();
    });
}

/// Every kind of script, its answer lost, or late.
#[test]
fn a_lost_or_late_reply_changes_nothing() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    for fault in [Fault::LoseReply, Fault::LoseRequest, Fault::DelayReply(Duration::from_millis(30))] {
        server.ask(&["FLUSHALL"]).unwrap();
        let proxy = Proxy::to(server.port()).unwrap();
        run(async {
            let job = Job::new(settings(&format!("redis://{}", proxy.address())));
            let mut model = Model::new();
            let mut handle = None;
            for attempt in 1..=6u32 {
                proxy.on("EVAL", 3, fault.clone());
                let mut backend = job.open(attempt.into(), handle.as_slice()).await.unwrap();
                assert_eq!(all(backend.as_mut()).await.unwrap(), model);
                for round in 0..4 {
                    proxy.on("EVAL", 2, fault.clone());
                    proxy.on("HMGET", 1, fault.clone());
                    let value = format!("{attempt} {round}");
                    backend.write(puts(attempt * 700, 4000, &value)).unwrap();
                    put(&mut model, attempt * 700, 4000, &value);
                    let mut batch = tidegate_core::state::backend::WriteBatch::default();
                    batch.delete_range(&[0, 1, 0], &[0, 1, 0, 0, 0, 8]);
                    model.retain(|key, _| key[..] < [0, 1, 0][..] || key[..] >= [0, 1, 0, 0, 0, 8][..]);
                    backend.write(batch).unwrap();
                    assert_eq!(all(backend.as_mut()).await.unwrap(), model);
                }
                proxy.on("EVAL", 2, fault.clone());
                handle = Some(backend.seal(Epoch(attempt.into())).await.unwrap());
                backend.write(puts(0, 9000, "not finished")).unwrap();
                backend.flushed().await.unwrap();
            }
            assert!(proxy.fired() > 60, "only {} faults", proxy.fired());
        });
    }
}

#[test]
fn a_server_that_is_killed_and_comes_back_costs_a_pause() {
    if without::left_out("redis") {
        return;
    }
    let mut server = server();
    run(async {
        let job = Job::new(settings(&server.url()));
        let mut model = Model::new();
        let mut backend = job.open(1, &[]).await.unwrap();
        let mut handle = None;
        for epoch in 1..=8u32 {
            backend.write(puts(epoch * 300, 6000, &epoch.to_string())).unwrap();
            put(&mut model, epoch * 300, 6000, &epoch.to_string());
            let sealing = backend.seal(Epoch(epoch.into()));
            std::thread::sleep(Duration::from_millis(u64::from(epoch)));
            server.kill();
            server.restart().unwrap();
            handle = Some(sealing.await.unwrap());
            assert_eq!(all(backend.as_mut()).await.unwrap(), model);
        }
        let mut backend = job.open(2, handle.as_slice()).await.unwrap();
        assert_eq!(all(backend.as_mut()).await.unwrap(), model);
    });
}

#[test]
fn a_server_that_does_not_come_back_is_given_up() {
    if without::left_out("redis") {
        return;
    }
    let mut server = server();
    run(async {
        let mut settings = settings(&server.url());
        settings.give_up_after = Duration::from_millis(700);
        let job = Job::new(settings);
        let mut backend = job.open(1, &[]).await.unwrap();
        server.kill();
        let began = Instant::now();
        backend.write(puts(0, 10, "never")).unwrap();
        let e = backend.flushed().await.unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
        assert!(e.to_string().contains(&server.address()), "{e}");
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert!(backend.write(puts(0, 1, "never")).is_err());
    });
}

/// Whoever has been emptied is never taken for a fresh start: neither in the middle of an epoch, nor by a restart.
#[test]
fn an_emptied_server_is_noticed() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let job = Job::new(settings(&server.url()));
        let mut backend = job.open(1, &[]).await.unwrap();
        backend.write(puts(0, 100, "value")).unwrap();
        let handle = backend.seal(Epoch(1)).await.unwrap();
        server.ask(&["FLUSHALL"]).unwrap();
        // Not one write, and yet it cannot go on.
        let e = backend.seal(Epoch(2)).await.unwrap_err();
        assert!(e.to_string().contains("has lost"), "{e}");
        let e = job.open(2, std::slice::from_ref(&handle)).await.err().unwrap();
        assert_eq!(e.kind(), Kind::Corrupt);
        assert!(e.to_string().contains("emptied") && e.to_string().contains("checkpoint.from"), "{e}");
    });
}

/// A server that comes back with an older state: a backup, or a replica that had not got all.
#[test]
fn a_server_with_an_older_state_is_noticed() {
    if without::left_out("redis") {
        return;
    }
    let mut server = server();
    run(async {
        let job = Job::new(settings(&server.url()));
        let mut backend = job.open(1, &[]).await.unwrap();
        let mut kept = Vec::new();
        let file = server.folder().join("backup");
        for epoch in 1..=3u32 {
            backend.write(puts(0, 100 * epoch, &epoch.to_string())).unwrap();
            kept.push(backend.seal(Epoch(epoch.into())).await.unwrap());
            if epoch == 2 {
                copy(&server.folder().join("appendonlydir"), &file);
            }
        }
        server.kill();
        std::fs::remove_dir_all(server.folder().join("appendonlydir")).unwrap();
        copy(&file, &server.folder().join("appendonlydir"));
        server.restart().unwrap();
        backend.write(puts(0, 10, "on")).unwrap();
        let e = backend.seal(Epoch(4)).await.unwrap_err();
        assert!(e.to_string().contains("has lost"), "{e}");
        let e = job.open(2, std::slice::from_ref(&kept[2])).await.err().unwrap();
        assert_eq!(e.kind(), Kind::Corrupt, "{e}");
        assert!(e.to_string().contains("checkpoint.from"), "{e}");
        let mut older = job.open(3, std::slice::from_ref(&kept[1])).await.unwrap();
        let mut model = Model::new();
        put(&mut model, 0, 200, "2");
        assert_eq!(all(older.as_mut()).await.unwrap(), model);
    });
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_failover_by_sentinels_is_followed() {
    if without::left_out("redis") {
        return;
    }
    let password = "canary-hunter2";
    let mut sentinels = Sentinels::start(1, &Options::default().password(password)).unwrap();
    run(async {
        let urls: Vec<_> = sentinels.addresses().iter().map(|a| format!("redis://:{password}@{a}")).collect();
        let mut settings = settings(&urls.join(","));
        settings.sentinel_master = sentinels.name().into();
        settings.give_up_after = Duration::from_secs(60);
        let job = Job::new(settings);
        let mut model = Model::new();
        let mut backend = job.open(1, &[]).await.unwrap();
        backend.write(puts(0, 3000, "before")).unwrap();
        put(&mut model, 0, 3000, "before");
        backend.seal(Epoch(1)).await.unwrap();
        replicated(sentinels.master().unwrap());
        sentinels.fail_over().unwrap();
        backend.write(puts(1000, 3000, "after")).unwrap();
        put(&mut model, 1000, 3000, "after");
        let handle = backend.seal(Epoch(2)).await.unwrap();
        assert_eq!(all(backend.as_mut()).await.unwrap(), model);
        let mut backend = job.open(2, &[handle]).await.unwrap();
        assert_eq!(all(backend.as_mut()).await.unwrap(), model);
    });
}

/// Slots move from node to node and nodes are killed, while a job goes on.
#[test]
fn a_cluster_that_moves_and_breaks_is_followed() {
    if without::left_out("redis") {
        return;
    }
    let mut cluster = Cluster::start(&Options::default()).unwrap();
    run(async {
        let urls: Vec<_> = cluster.addresses().iter().map(|address| format!("redis://{address}")).collect();
        let mut settings = settings(&urls.join(","));
        (settings.cluster, settings.give_up_after) = (true, Duration::from_secs(60));
        let job = Job::new(settings);
        let mut model = Model::new();
        let mut backend = job.open(1, &[]).await.unwrap();
        let mut handle = None;
        for epoch in 1..=6u32 {
            backend.write(puts(epoch * 300, 5000, &epoch.to_string())).unwrap();
            put(&mut model, epoch * 300, 5000, &epoch.to_string());
            let sealing = backend.seal(Epoch(epoch.into()));
            let key = format!("tidegate:{{job:lineage:operator#1:{}}}:m", epoch % 4);
            let slot = cluster.slot_of(&key).unwrap();
            let owner = cluster.owner_of(slot).unwrap();
            cluster.move_slot(slot, (owner + 1) % 3).unwrap();
            if epoch % 2 == 0 {
                let node = &mut cluster.nodes_mut()[owner];
                node.kill();
                node.restart().unwrap();
                cluster.wait_ready().unwrap();
            }
            handle = Some(sealing.await.unwrap());
            assert_eq!(all(backend.as_mut()).await.unwrap(), model);
            backend.write(puts(0, 300, "never")).unwrap();
            backend.flushed().await.unwrap();
            backend = job.open(u64::from(epoch) + 1, handle.as_slice()).await.unwrap();
            assert_eq!(all(backend.as_mut()).await.unwrap(), model);
        }
        drop(handle);
    });
}

#[test]
fn a_full_server_is_named_as_such() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default().set("maxmemory", "12mb")).unwrap();
    run(async {
        let mut settings = settings(&server.url());
        settings.give_up_after = Duration::from_millis(500);
        let job = Job::new(settings);
        let mut backend = job.open(1, &[]).await.unwrap();
        let mut model = Model::new();
        backend.write(puts(0, 1000, "small")).unwrap();
        put(&mut model, 0, 1000, "small");
        let handle = backend.seal(Epoch(1)).await.unwrap();
        backend.write(puts(0, 100_000, &"large ".repeat(50))).unwrap();
        let e = backend.flushed().await.unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
        assert!(e.to_string().contains("maxmemory"), "{e}");
        // What it had begun is taken back all the same, once there is room.
        server.ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
        let mut backend = job.open(2, &[handle]).await.unwrap();
        assert_eq!(all(backend.as_mut()).await.unwrap(), model);
    });
}

fn replicated(master: &Redis) {
    assert_eq!(master.ask(&["WAIT", "1", "10000"]).unwrap().integer(), Some(1));
}
