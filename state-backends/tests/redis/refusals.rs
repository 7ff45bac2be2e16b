//! What is refused at the start, and what is said then: never the password.
use std::time::{Duration, Instant};
use tidegate_checkpoint::ids::Epoch;
use tidegate_core::{Error, Kind, settings::RedisSettings};
use tidegate_testbed::{
    redis::{Options, Redis},
    without,
};

use crate::world::{Job, puts, run, settings};

const CANARY: &str = "canary-hunter2";

fn refused(settings: RedisSettings) -> Error {
    let e = run(async { Job::new(settings).open(1, &[]).await.err().expect("it is refused") });
    assert!(!format!("{e} {e:?} {e:#?}").contains(CANARY), "{e:#?}");
    e
}

#[test]
fn a_server_that_evicts_is_refused() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default().set("maxmemory-policy", "allkeys-lru")).unwrap();
    let e = refused(settings(&server.url()));
    assert_eq!(e.kind(), Kind::Config);
    assert!(e.to_string().contains("allkeys-lru") && e.to_string().contains("noeviction"), "{e}");
}

#[test]
fn a_wrong_password_is_the_users_to_mend() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default().password("right")).unwrap();
    for credentials in ["", &format!(":{CANARY}@"), &format!("{CANARY}:{CANARY}@")] {
        let e = refused(settings(&format!("redis://{credentials}{}", server.address())));
        assert_eq!(e.kind(), Kind::Config, "{e}");
        assert!(e.to_string().contains("state.redis.url"), "{e}");
    }
    let allowed = Options::default().user("tidegate", CANARY, "~other:* +@all");
    let server = Redis::start(&allowed).unwrap();
    let e = refused(settings(&format!("redis://tidegate:{CANARY}@{}", server.address())));
    assert_eq!(e.kind(), Kind::Config, "{e}");
    assert!(e.to_string().contains("tidegate:*"), "{e}");
}

/// What a script may not do is told in another way than what a client may not.
#[test]
fn a_user_who_may_too_little_is_told_what_is_missing() {
    if without::left_out("redis") {
        return;
    }
    let allowed = Options::default().user("tidegate", CANARY, "~tidegate:* +@all -@keyspace");
    let server = Redis::start(&allowed).unwrap();
    let e = run(async {
        let job = Job::new(settings(&format!("redis://tidegate:{CANARY}@{}", server.address())));
        let mut backend = job.open(1, &[]).await?;
        backend.write(puts(0, 10, "value"))?;
        backend.seal(Epoch(1)).await
    });
    let e = e.expect_err("it may not");
    assert_eq!(e.kind(), Kind::Config, "{e}");
    assert!(e.to_string().contains("+@keyspace") && !format!("{e:#?}").contains(CANARY), "{e}");
}

#[test]
fn a_server_that_is_not_there_is_named_soon() {
    let began = Instant::now();
    let e = refused(settings(&format!("redis://:{CANARY}@127.0.0.1:1")));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(e.to_string().contains("127.0.0.1:1") && e.to_string().contains("state.redis.url"), "{e}");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    for url in ["", "http://x", &format!("redis://:{CANARY}@"), &format!("redis://:{CANARY}@h:70000")] {
        let e = refused(settings(url));
        assert_eq!(e.kind(), Kind::Config, "{url}: {e}");
        assert!(e.to_string().contains("state.redis.url"), "{e}");
    }
    let mut both = settings("redis://127.0.0.1:1");
    (both.cluster, both.sentinel_master) = (true, "m".into());
    assert_eq!(refused(both).kind(), Kind::Config);
}

/// With TLS compiled in, what answers without it is unreachable; otherwise the missing feature is named.
#[test]
fn tls_to_a_server_without_it_is_refused() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default()).unwrap();
    let mut settings = settings(&format!("rediss://:{CANARY}@{}", server.address()));
    settings.give_up_after = Duration::from_millis(300);
    let e = refused(settings);
    if cfg!(feature = "redis-tls") {
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
    } else {
        assert!(e.kind() == Kind::Config && e.to_string().contains("redis-tls"), "{e}");
    }
}

#[test]
fn the_password_is_in_no_handle_and_no_error() {
    if without::left_out("redis") {
        return;
    }
    let mut server = Redis::start(&Options::default().password(CANARY)).unwrap();
    run(async {
        let mut settings = settings(&server.url());
        settings.give_up_after = Duration::from_millis(300);
        let job = Job::new(settings);
        let mut backend = job.open(1, &[]).await.unwrap();
        backend.write(puts(0, 10, "value")).unwrap();
        let handle = backend.seal(Epoch(1)).await.unwrap();
        assert!(!format!("{handle:?}").contains(CANARY));
        server.ask(&["FLUSHALL"]).unwrap();
        let e = job.open(2, &[handle]).await.err().unwrap();
        assert!(!format!("{e} {e:#?}").contains(CANARY), "{e:#?}");
        server.kill();
        backend.write(puts(0, 10, "value")).unwrap();
        let e = backend.flushed().await.unwrap_err();
        assert!(!format!("{e} {e:#?}").contains(CANARY), "{e:#?}");
    });
}
