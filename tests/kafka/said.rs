//! Everything that a job says or leaves behind, to search it for secrets: what is logged at any level, what a test
//! adds, and the files below a folder.
use std::{
    fmt::{Debug, Write as _},
    fs,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<String>>);

impl Said {
    /// From now on, in the whole process: tests in one hear each other.
    pub fn begin() -> Self {
        static SAID: OnceLock<Said> = OnceLock::new();
        let begin = || {
            let said = Self::default();
            tracing::subscriber::set_global_default(said.clone()).unwrap();
            said
        };
        SAID.get_or_init(begin).clone()
    }

    pub fn add(&self, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }

    /// The text is nowhere, and there was something to search.
    pub fn assert_without(&self, secret: &str, folder: &Path) {
        let said = self.0.lock().unwrap();
        assert!(said.contains("librdkafka"), "nothing was logged: {said}");
        assert!(!said.contains(secret), "{said}");
        let files = files(folder);
        assert!(!files.is_empty(), "nothing was written");
        for (name, bytes) in files {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{name}");
        }
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Said {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Fields(&mut self.0.lock().unwrap()));
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Fields(&mut self.0.lock().unwrap()));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Fields(&mut self.0.lock().unwrap()));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
