//! What is told when the job starts, and no reason to refuse.
use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};
use tidegate_testbed::{
    redis::{Options, Redis},
    without,
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::world::{At, Job, settings};

/// Every event of this level, as text.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<String>>>);

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tidegate")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = format!("{} ", event.metadata().level());
        event.record(&mut Text(&mut text));
        self.0.lock().unwrap().push(text);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Opens a job from nothing; what is told.
fn told(server: &Redis, lineage: &str) -> Vec<String> {
    let listener = Listener::default();
    tracing::subscriber::with_default(listener.clone(), || {
        // On this thread, to which the listener belongs.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut job = Job::new(settings(&server.url()));
            job.at = At::new(settings(&server.url()), lineage);
            job.open(1, &[]).await.unwrap();
        });
    });
    let told = listener.0.lock().unwrap().clone();
    assert!(told.iter().all(|text| !text.contains("canary")), "{told:?}");
    told
}

#[test]
fn a_server_that_confirms_too_early_is_told() {
    if without::left_out("redis") {
        return;
    }
    let password = |options: Options| Redis::start(&options.password("canary-hunter2")).unwrap();
    assert_eq!(told(&password(Options::default()), "a"), Vec::<String>::new());
    for options in [Options::default().set("appendfsync", "everysec"), Options::default().in_memory()] {
        let told = told(&password(options), "a");
        assert!(told.len() == 1 && told[0].starts_with("WARN") && told[0].contains("appendfsync always"), "{told:?}");
    }
}

/// As hosted servers do.
#[test]
fn a_server_that_does_not_let_itself_be_asked_is_told() {
    if without::left_out("redis") {
        return;
    }
    let options = Options::default().user("default", "canary-hunter2", "~tidegate:* +@all -config");
    let server = Redis::start(&options.password("canary-hunter2")).unwrap();
    let told = told(&server, "a");
    assert!(told.len() == 2 && told.iter().any(|text| text.contains("does not say")), "{told:?}");
}

#[test]
fn what_another_stores_job_has_left_is_told() {
    if without::left_out("redis") {
        return;
    }
    let server = Redis::start(&Options::default()).unwrap();
    assert_eq!(told(&server, "one"), Vec::<String>::new());
    let told = told(&server, "two");
    assert!(told.len() == 1 && told[0].contains("tidegate:{job:one*"), "{told:?}");
}
