//! Redis: the jobs are killed, and in one of the proofs the server as well.
#![allow(clippy::disallowed_methods, reason = "real servers, and the real clock")]
use crate::over::{CACHE, exact_after_kills, restarts_leave_nothing};
use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};
use tidegate_testbed::{
    redis::{Options, Redis},
    without,
};

use crate::child::{Case, files};

fn job_file(url: &str) -> String {
    format!("[state]\nbackend = \"redis\"\n{CACHE}\n[state.redis]\nurl = \"{url}\"\n")
}

#[test]
fn exact_after_kills_over_redis() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default()).unwrap();
    exact_after_kills(&[2], |_| job_file(&server.url()));
}

#[test]
fn exact_after_kills_at_any_parallelism_over_redis() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default()).unwrap();
    exact_after_kills(&[1, 2, 3], |_| job_file(&server.url()));
}

#[test]
fn exact_though_the_server_is_killed_too() {
    if without::left_out("redis") {
        return;
    }
    let server = Mutex::new(Redis::start(&Options::default()).unwrap());
    let url = server.lock().unwrap().url();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut killed = 0u32;
            while !over.load(SeqCst) {
                thread::sleep(Duration::from_millis(200 + u64::from(killed * 37 % 400)));
                let mut server = server.lock().unwrap();
                server.kill();
                server.restart().unwrap();
                killed += 1;
            }
            assert!(killed >= 10, "the server was killed {killed} times only");
        });
        let proof =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| exact_after_kills(&[2, 1], |_| job_file(&url))));
        over.store(true, SeqCst);
        if let Err(panic) = proof {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Who was stopped while another process finished its job finds its state fenced, and changes nothing.
#[test]
fn a_process_that_wakes_up_after_another_has_gone_on_changes_nothing() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default()).unwrap();
    for seed in 50..56 {
        let case =
            Case::new(seed, 2, 1_500, 1_000).with_job_file(|_| job_file(&format!("{}/{}", server.url(), seed % 16)));
        let mut zombie = case.start(None);
        assert!(zombie.runs_until(|| case.committed() > 2), "{}", case.errors());
        zombie.runs_for(Duration::from_millis(seed % 7 * 5));
        zombie.signal("STOP");
        let mut next = case.start(None);
        let before = case.committed();
        assert!(next.runs_until(|| case.committed() > before + 1), "{}", case.errors());
        zombie.signal("CONT");
        zombie.ends_fenced(|| case.errors());
        next.kill();
        case.finish();
    }
}

/// Never a fresh start in silence; and the password is in nothing that a job writes or says.
#[test]
fn an_emptied_server_ends_the_job_for_good() {
    if without::left_out("redis") {
        return;
    }
    let password = "canary-hunter2";
    let server = Redis::start(&Options::default().password(password)).unwrap();
    let case = Case::new(45, 2, 4_000, 900).with_job_file(|_| job_file(&server.url()));
    let mut job = case.start(None);
    assert!(job.runs_until(|| case.committed() > 3));
    server.ask(&["FLUSHALL"]).unwrap();
    assert!(!job.ended().success());
    assert!(case.errors().contains("has lost what it had confirmed"), "{}", case.errors());
    let committed = case.committed();
    assert!(!case.start(None).ended().success());
    assert!(
        case.errors().contains("it has been emptied") && case.errors().contains("checkpoint.from"),
        "{}",
        case.errors()
    );
    assert_eq!(case.committed(), committed);
    for file in files(case.path()).iter().filter(|file| !file.ends_with("job.toml")) {
        let bytes = std::fs::read(file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(password), "{file} has the password");
    }
}

/// Each job in a database of its own.
#[test]
fn restarts_leave_no_keys() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default()).unwrap();
    let count = AtomicU32::new(0);
    let file = |_: &Path| job_file(&format!("{}/{}", server.url(), count.fetch_add(1, SeqCst)));
    restarts_leave_nothing(file, |case: &Case| {
        let text = std::fs::read_to_string(case.path().join("job.toml")).unwrap();
        let database = text.rsplit('/').next().unwrap().trim().trim_matches('"');
        let mut client = server.client().unwrap();
        client.ask(&["SELECT", database]).unwrap();
        let keys = client.ask(&["DBSIZE"]).unwrap().integer().unwrap();
        assert!(keys > 0, "its state is in database {database}");
        keys as u64
    });
}
