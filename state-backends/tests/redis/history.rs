//! What can be come back to: older checkpoints and newer ones, with other parallelism, after what was not finished, and
//! what is left when garbage has been collected.
use std::{collections::BTreeMap, time::Duration};
use tidegate_checkpoint::ids::{Epoch, KeyGroupRange, Subtask};
use tidegate_core::{env::random, state::backend::WriteBatch};
use tidegate_testbed::{redis::Redis, without};

use crate::world::{At, Job, KEY_GROUPS, Model, all, key, put, puts, run, server, settings};

fn keys_of(server: &Redis, pattern: &str) -> usize {
    server.ask(&["KEYS", pattern]).unwrap().list().len()
}

/// More than fits into one script, and ranges of more than that.
#[test]
fn an_unfinished_epoch_is_taken_back_in_pieces() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let job = Job::new(settings(&server.url()));
        let mut model = Model::new();
        let mut backend = job.open(1, &[]).await.unwrap();
        backend.write(puts(0, 20_000, "first")).unwrap();
        put(&mut model, 0, 20_000, "first");
        let handle = backend.seal(Epoch(1)).await.unwrap();
        for round in 0..2 {
            let mut batch = WriteBatch::default();
            for key_group in 0..KEY_GROUPS {
                batch.delete_range(&key_group.to_be_bytes(), &(key_group + 1).to_be_bytes());
            }
            backend.write(batch).unwrap();
            backend.write(puts(15_000, 20_000, "never")).unwrap();
            let found = all(backend.as_mut()).await.unwrap();
            assert_eq!(found.len(), 20_000);
            assert!(found.values().all(|value| value == b"never"));
            backend = job.open(2 + round, std::slice::from_ref(&handle)).await.unwrap();
            assert_eq!(all(backend.as_mut()).await.unwrap(), model);
        }
    });
}

/// To go back to an older checkpoint must not cost the newer ones: they may be asked for tomorrow.
#[test]
fn older_and_newer_checkpoints_are_come_back_to_in_any_order() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let job = Job::new(settings(&server.url()));
        let mut backend = job.open(1, &[]).await.unwrap();
        let (mut model, mut kept) = (Model::new(), Vec::new());
        for epoch in 1..=4u32 {
            backend.write(puts(epoch * 500, 3000, &format!("{epoch}"))).unwrap();
            put(&mut model, epoch * 500, 3000, &format!("{epoch}"));
            kept.push((backend.seal(Epoch(epoch.into())).await.unwrap(), model.clone()));
        }
        for (attempt, at) in (2..).zip([0, 3, 1, 1, 2, 0, 3]) {
            let (handle, model) = &kept[at];
            let mut backend = job.open(attempt, std::slice::from_ref(handle)).await.unwrap();
            assert_eq!(&all(backend.as_mut()).await.unwrap(), model, "checkpoint {}", at + 1);
            backend.write(puts(0, 100, "not finished")).unwrap();
            backend.flushed().await.unwrap();
        }
        // What is collected are the logs behind the oldest that is kept, and marks of what is not.
        job.collect(9, &[(2, &kept[1].0), (4, &kept[3].0)]).await.unwrap();
        for (attempt, at) in (10..).zip([1, 3, 1]) {
            let (handle, model) = &kept[at];
            let mut backend = job.open(attempt, std::slice::from_ref(handle)).await.unwrap();
            assert_eq!(&all(backend.as_mut()).await.unwrap(), model, "checkpoint {}", at + 1);
        }
        let gone = job.open(13, std::slice::from_ref(&kept[0].0)).await.err().unwrap();
        assert!(gone.to_string().contains("checkpoint.from"), "{gone}");
    });
}

/// The way back is left at any moment, as by a kill, and begun again to another checkpoint.
#[test]
fn recovery_may_be_interrupted_anywhere() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let job = Job::new(settings(&server.url()));
        let mut backend = job.open(1, &[]).await.unwrap();
        let (mut model, mut kept) = (Model::new(), Vec::new());
        for epoch in 1..=4u32 {
            backend.write(puts(epoch * 3000, 9000, &format!("{epoch}"))).unwrap();
            put(&mut model, epoch * 3000, 9000, &format!("{epoch}"));
            kept.push((backend.seal(Epoch(epoch.into())).await.unwrap(), model.clone()));
        }
        backend.write(puts(0, 20_000, "not finished")).unwrap();
        backend.flushed().await.unwrap();
        let (mut seed, mut attempt, mut interrupted) = (7, 1, 0);
        for _ in 0..12 {
            for _ in 0..3 {
                attempt += 1;
                let (handle, _) = &kept[random(&mut seed) as usize % 4];
                let open = job.open(attempt, std::slice::from_ref(handle));
                let moment = Duration::from_micros(random(&mut seed) % 60_000);
                interrupted += u32::from(tokio::time::timeout(moment, open).await.is_err());
            }
            attempt += 1;
            let (handle, model) = &kept[random(&mut seed) as usize % 4];
            let mut backend = job.open(attempt, std::slice::from_ref(handle)).await.unwrap();
            assert_eq!(&all(backend.as_mut()).await.unwrap(), model);
        }
        assert!(interrupted > 8, "{interrupted} were interrupted");
    });
}

#[test]
fn rescaling_moves_nothing_and_leaves_nothing_out() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let job = Job::new(settings(&server.url()));
        let mut model = Model::new();
        let mut handles = vec![];
        let mut backend = job.open(1, &[]).await.unwrap();
        backend.write(puts(0, 5000, "one")).unwrap();
        put(&mut model, 0, 5000, "one");
        handles.push(backend.seal(Epoch(1)).await.unwrap());
        for (attempt, parallelism) in (2u64..).zip([2, 4, 3, 1]) {
            let (mut found, mut next) = (Model::new(), Vec::new());
            for subtask in (0..parallelism).map(Subtask) {
                let range = KeyGroupRange::of(subtask, parallelism, KEY_GROUPS);
                let mut part = job.open_part(attempt, &handles, subtask, range).await.unwrap();
                found.extend(all(part.as_mut()).await.unwrap());
                let n = (range.start..range.end).map(u32::from).next().unwrap();
                part.write(puts(n, 1, "changed")).unwrap();
                model.insert(key(n), b"changed".to_vec());
                next.push(part.seal(Epoch(attempt)).await.unwrap());
            }
            assert_eq!(found.len(), model.len());
            handles = next;
        }
        let mut backend = job.open(9, &handles).await.unwrap();
        assert_eq!(all(backend.as_mut()).await.unwrap(), model);
    });
}

#[test]
fn collecting_frees_logs_and_operators_and_lineages_that_nobody_needs() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let mut job = Job::new(settings(&server.url()));
        let mut backend = job.open(1, &[]).await.unwrap();
        let mut kept = BTreeMap::new();
        for epoch in 1..=6 {
            backend.write(puts(0, 100, &format!("{epoch}"))).unwrap();
            kept.insert(epoch, backend.seal(Epoch(epoch)).await.unwrap());
        }
        assert_eq!(keys_of(&server, "*:u:*"), 6 * usize::from(KEY_GROUPS));
        // An attempt that has been overtaken frees nothing.
        job.collect(0, &[(5, &kept[&5]), (6, &kept[&6])]).await.unwrap();
        assert_eq!(keys_of(&server, "*:u:*"), 6 * usize::from(KEY_GROUPS));
        job.collect(1, &[(5, &kept[&5]), (6, &kept[&6])]).await.unwrap();
        assert_eq!(keys_of(&server, "*:u:*"), usize::from(KEY_GROUPS));
        let kept = kept.remove(&6).unwrap();
        // The next program has no such operator.
        job.operator = "another";
        let mut another = job.open(2, &[]).await.unwrap();
        another.write(puts(0, 10, "new")).unwrap();
        let new = another.seal(Epoch(7)).await.unwrap();
        let states = |job: &Job| keys_of(&server, &format!("*:{}#*", job.operator));
        job.operator = "operator";
        assert!(states(&job) > 0);
        // While a kept checkpoint has it, it stays.
        job.collect(2, &[(6, &kept)]).await.unwrap();
        assert!(states(&job) > 0);
        job.operator = "another";
        job.collect(2, &[(7, &new)]).await.unwrap();
        job.operator = "operator";
        assert_eq!(states(&job), 0);
        job.operator = "another";
        assert!(states(&job) > 0);
    });
}

/// It goes on where it lives, and stays apart from an operator that has got its old name, which begins with nothing.
#[test]
fn an_operator_that_is_renamed_moves_nothing() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let mut job = Job::new(settings(&server.url()));
        let mut model = Model::new();
        let mut before = job.open(1, &[]).await.unwrap();
        before.write(puts(0, 100, "one")).unwrap();
        put(&mut model, 0, 100, "one");
        let first = before.seal(Epoch(1)).await.unwrap();
        let keys = keys_of(&server, "*");
        job.operator = "renamed";
        let mut renamed = job.open(2, std::slice::from_ref(&first)).await.unwrap();
        assert_eq!(keys_of(&server, "*"), keys);
        job.operator = "operator";
        let mut other = job.open(2, &[]).await.unwrap();
        assert!(all(other.as_mut()).await.unwrap().is_empty());
        other.write(puts(50, 100, "other")).unwrap();
        other.flushed().await.unwrap();
        assert_eq!(all(renamed.as_mut()).await.unwrap(), model);
        renamed.write(puts(0, 10, "two")).unwrap();
        put(&mut model, 0, 10, "two");
        let second = renamed.seal(Epoch(2)).await.unwrap();
        // Neither is taken for garbage that the other's name has left.
        job.operator = "renamed";
        job.collect(2, &[(2, &second)]).await.unwrap();
        let mut again = job.open(3, &[second]).await.unwrap();
        assert_eq!(all(again.as_mut()).await.unwrap(), model);
        assert_eq!(all(other.as_mut()).await.unwrap().len(), 100);
        // The first to have it is fenced, whatever it was called.
        before.write(puts(0, 10, "zombie")).unwrap();
        assert!(before.flushed().await.is_err());
    });
}

/// Two checkpoint stores with a job of the same name: neither spoils the other, and only what is certainly nobody's goes.
#[test]
fn a_fresh_start_leaves_other_stores_jobs_alone() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    run(async {
        let one = Job::new(settings(&server.url()));
        let mut first = one.open(7, &[]).await.unwrap();
        first.write(puts(0, 10, "first")).unwrap();
        let mut other = Job::new(settings(&server.url()));
        other.at = At::new(settings(&server.url()), "other");
        let mut second = other.open(3, &[]).await.unwrap();
        assert!(all(second.as_mut()).await.unwrap().is_empty());
        second.write(puts(0, 20, "second")).unwrap();
        assert_eq!(all(first.as_mut()).await.unwrap().len(), 10);
        first.seal(Epoch(1)).await.unwrap();
        assert_eq!(all(second.as_mut()).await.unwrap().len(), 20);
        // One that has claimed this store and died before its first checkpoint.
        let attempt = other.store.claim("somebody").await.unwrap();
        other.at = At::new(settings(&server.url()), &tidegate_checkpoint::store::lineage("somebody"));
        let mut died = other.open(attempt.0, &[]).await.unwrap();
        died.write(puts(0, 10, "died")).unwrap();
        died.flushed().await.unwrap();
        let pattern = format!("*{}*", tidegate_checkpoint::store::lineage("somebody"));
        assert!(keys_of(&server, &pattern) > 0);
        let attempt = other.store.claim("next").await.unwrap();
        other.at = At::new(settings(&server.url()), &tidegate_checkpoint::store::lineage("next"));
        other.open(attempt.0, &[]).await.unwrap();
        assert_eq!(keys_of(&server, &pattern), 0);
        assert!(died.seal(Epoch(1)).await.is_err());
        assert_eq!(all(second.as_mut()).await.unwrap().len(), 20);
    });
}
