//! A schema registry, and what is remembered of it.
//!
//! A schema's id means the same for ever, so it is asked for once: clones of a [`Registry`] share what they know, over
//! attempts too. Of the schemas that records wait for one is asked for at a time; who has waited for it finds the
//! answer. A codec that does not know a schema gets a future to wait for ([`Registry::schema`]): it tries again until
//! the registry answers, and gives up after a while.
//!
//! The hard case is a registry that says it does not know a schema. A copy of it may lag behind, and were it believed
//! at once, good records would be skipped. So every address is asked, several times over two seconds; then it is
//! believed, for a minute only. The price: each id that does not exist costs two seconds, once a minute.
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    fmt,
    hash::Hash,
    sync::{Arc, Mutex},
    time::Duration,
};
use tidegate_core::{
    Error, Kind, Result, Settings,
    env::{Instant, now, sleep, spawn_blocking},
    properties::Properties,
};

use super::{
    super::{client::lock, codec::NotDecoded},
    avro,
    http::{Answer, Client},
    references,
};

/// Schemas that are remembered; then all are forgotten and asked for again.
const REMEMBERED_MAX: usize = 1_000;
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// How often a registry says that it does not know a schema before it is believed, and the pause between.
const UNKNOWN_TIMES: u32 = 3;
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);
/// Schemas that one schema names, and those name, at most.
const REFERENCES_MAX: usize = 200;

/// A schema registry: Avro and Protobuf codecs are made with it. Clones are the same.
///
/// ```
/// use tidegate_connectors::kafka::{Avro, Kafka, Registry};
/// use tidegate_core::Settings;
/// #[derive(Clone, serde::Deserialize)]
/// struct Order { id: i64 }
/// let settings = Settings::from_toml("[schema-registry]\nurl = \"http://127.0.0.1:8081\"")?;
/// let registry = Registry::new(&settings);
/// let orders = Kafka::new(&settings).source("orders", Avro::<Order>::new(&registry));
/// # let _ = orders;
/// # Ok::<(), tidegate_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    properties: Arc<Properties>,
    give_up_after: Duration,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    client: Mutex<Option<Arc<Client>>>,
    schemas: Mutex<Remembered<u32, Known>>,
    /// Schemas that are written with, by subject and text, and subjects that have been looked at.
    written: Mutex<BTreeMap<(String, Option<String>), Arc<Schema>>>,
    looked_at: Mutex<BTreeSet<String>>,
    /// By the schema's id.
    avro_writers: Mutex<HashMap<u32, avro::Writer>>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<()>,
}

/// A map that has a bound: what is put into it when it is full takes the place of all the rest.
pub(super) struct Remembered<K, V>(HashMap<K, V>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Remembered<K, V> {
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }
    pub fn insert(&mut self, key: K, value: V) {
        self.make_room(&key);
        self.0.insert(key, value);
    }
    pub fn get_or_try_insert<E>(&mut self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<&V, E> {
        self.make_room(&key);
        Ok(match self.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(make()?),
        })
    }
    fn make_room(&mut self, key: &K) {
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(key) {
            self.0.clear();
        }
    }
}

#[derive(Clone)]
enum Known {
    Schema(Arc<Schema>),
    /// The registry said so, then.
    Unknown(String, Instant),
}

/// The kinds of schemas, by their names in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Avro,
    Protobuf,
    Json,
}

/// A schema of the registry's.
#[derive(Debug)]
pub(super) struct Schema {
    pub id: u32,
    pub format: Format,
    /// Avro's with all that it names in it.
    pub text: String,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::Json => "JSON",
        }
    }

    /// Of an answer: Avro's is not said by every registry.
    fn of(answer: &Value) -> Result<Self, String> {
        let name = answer["schemaType"].as_str().unwrap_or(Self::Avro.name());
        let all = [Self::Avro, Self::Protobuf, Self::Json];
        all.into_iter().find(|f| f.name() == name).ok_or_else(|| format!("a schema of the kind {name:?}"))
    }
}

impl Schema {
    /// The text of a schema of this format.
    pub fn of(&self, format: Format) -> Result<&str, String> {
        if self.format == format {
            return Ok(&self.text);
        }
        Err(format!("schema {} is {}, not {}", self.id, self.format.name(), format.name()))
    }
}

impl Registry {
    /// As the section `[schema-registry]` of the job's settings says: `url` (several with commas between),
    /// `basic.auth.user.info` or `bearer.auth.token`, `ssl.ca.location`, `auto.register.schemas`, `request.timeout.ms`.
    pub fn new(settings: &Settings) -> Self {
        Self::of(settings.schema_registry.clone())
    }
    /// At this address, and nothing else.
    pub fn at(url: &str) -> Self {
        Self::of(Properties::default()).set("url", url)
    }
    fn of(properties: Properties) -> Self {
        let (properties, shared) = (Arc::new(properties), Arc::default());
        Self { properties, give_up_after: Duration::from_secs(300), shared }
    }
    /// Sets a property.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        Arc::make_mut(&mut self.properties).set(name, value);
        self.shared = Arc::default();
        self
    }
    /// How long the registry may be away while records wait for a schema of its, 5 min without this. After that the
    /// attempt fails, and what then happens is up to the job's restarts.
    pub fn give_up_after(mut self, limit: Duration) -> Self {
        self.give_up_after = limit;
        self
    }

    /// A schema that is known.
    ///
    /// # Errors
    /// That the registry does not know it, or what to wait for.
    pub(super) fn schema(&self, id: u32) -> Result<Arc<Schema>, NotDecoded> {
        match self.known(id) {
            Some(Known::Schema(schema)) => Ok(schema),
            Some(Known::Unknown(said, _)) => {
                Err(NotDecoded::Ever(format!("schema {id} is not in the registry: {said}")))
            }
            None => Err(NotDecoded::Yet(self.fetched(id))),
        }
    }

    fn known(&self, id: u32) -> Option<Known> {
        let known = lock(&self.shared.schemas).get(&id).cloned()?;
        let stale = matches!(&known, Known::Unknown(_, at) if now().duration_since(*at) >= UNKNOWN_FOR);
        (!stale).then_some(known)
    }

    fn remember(&self, id: u32, known: Known) {
        lock(&self.shared.schemas).insert(id, known);
    }

    /// Asks for a schema until there is an answer that can be believed.
    fn fetched(&self, id: u32) -> BoxFuture<'static, Result<()>> {
        let registry = self.clone();
        Box::pin(async move {
            let (began, mut pause, mut denied) = (now(), *PAUSE.start(), 0);
            let mut one = registry.shared.asking.lock().await;
            loop {
                if registry.known(id).is_some() {
                    return Ok(());
                }
                match registry.fetch(id).await {
                    Err(error) if error.kind() == Kind::Unavailable && began.elapsed() < registry.give_up_after => {
                        if pause == *PAUSE.start() {
                            tracing::warn!(schema = id, %error, "records wait for a schema");
                        }
                        sleep(pause).await;
                        pause = (pause * 2).min(*PAUSE.end());
                    }
                    Ok(Known::Unknown(..)) if denied + 1 < UNKNOWN_TIMES => {
                        denied += 1;
                        // The registry is there: who waits for another schema is not held up by this one.
                        drop(one);
                        sleep(UNKNOWN_PAUSE).await;
                        one = registry.shared.asking.lock().await;
                    }
                    answered => {
                        let known = answered.map_err(|e| e.at(format!("schema {id}")))?;
                        registry.remember(id, known);
                        return Ok(());
                    }
                }
            }
        })
    }

    async fn fetch(&self, id: u32) -> Result<Known> {
        match self.look_up(format!("/schemas/ids/{id}")).await? {
            Ok(answer) => self.understand(id, &answer).await.map(Known::Schema),
            Err(said) => Ok(Known::Unknown(said, now())),
        }
    }

    /// The schema in an answer, together with what it names.
    async fn understand(&self, id: u32, answer: &Value) -> Result<Arc<Schema>> {
        let format = Format::of(answer).map_err(strange)?;
        let text = answer["schema"].as_str().ok_or_else(|| strange("a schema without its text"))?;
        let text = match (format, answer["references"].as_array()) {
            (Format::Avro, Some(named)) if !named.is_empty() => {
                let named = self.named(named.clone()).await?;
                references::inline(text, &named).map_err(|why| strange(format!("schema {id}, where {why}")))?
            }
            _ => text.to_owned(),
        };
        Ok(Arc::new(Schema { id, format, text }))
    }

    /// The texts of all schemas that are named, and that those name.
    async fn named(&self, mut asked: Vec<Value>) -> Result<Vec<String>> {
        let (mut texts, mut seen) = (Vec::new(), BTreeSet::new());
        while let Some(next) = asked.pop() {
            let (Some(subject), Some(version)) = (next["subject"].as_str(), next["version"].as_u64()) else {
                return Err(strange("a reference without subject and version"));
            };
            if !seen.insert((subject.to_owned(), version)) {
                continue;
            }
            if seen.len() > REFERENCES_MAX {
                return Err(strange(format!("a schema that names more than {REFERENCES_MAX} others")));
            }
            let path = format!("/subjects/{}/versions/{version}", escaped(subject));
            let Ok(answer) = self.look_up(path).await? else {
                return Err(strange(format!("a reference to version {version} of {subject:?}, which is not there")));
            };
            asked.extend(answer["references"].as_array().cloned().unwrap_or_default());
            texts.push(answer["schema"].as_str().unwrap_or_default().to_owned());
        }
        Ok(texts)
    }

    /// Looks at a subject's latest schema, since records are most likely written with it; once. The first such look
    /// also finds out, when the job starts, that the registry is not where the job file says. A later one need not
    /// succeed: records wait for their schemas.
    ///
    /// # Errors
    /// That it is not there.
    pub(super) async fn look_at(&self, subject: &str) -> Result<()> {
        let is_first = {
            let looked_at = lock(&self.shared.looked_at);
            if looked_at.contains(subject) {
                return Ok(());
            }
            looked_at.is_empty()
        };
        match self.latest(subject).await {
            Err(error) if error.kind() == Kind::Unavailable && !is_first => {
                tracing::debug!(subject, %error, "no look at a subject");
                return Ok(());
            }
            Err(error) => return Err(error),
            Ok(Ok(schema)) => self.remember(schema.id, Known::Schema(schema)),
            // It may have none yet, or records carry schemas of other subjects.
            Ok(Err(_)) => {}
        }
        lock(&self.shared.looked_at).insert(subject.to_owned());
        Ok(())
    }

    /// A subject's latest schema, or what the registry says for want of one.
    async fn latest(&self, subject: &str) -> Result<Result<Arc<Schema>, String>> {
        match self.look_up(format!("/subjects/{}/versions/latest", escaped(subject))).await? {
            Ok(answer) => self.understand(id(&answer)?, &answer).await.map(Ok),
            Err(said) => Ok(Err(said)),
        }
    }

    /// The schema that records of a subject are written with: `text`, registered where need be and allowed; without
    /// it, the subject's latest.
    ///
    /// # Errors
    /// That it is refused, or not there.
    pub(super) async fn to_write(&self, subject: String, format: Format, text: Option<String>) -> Result<Arc<Schema>> {
        let key = (subject.clone(), text.clone());
        if let Some(schema) = lock(&self.shared.written).get(&key) {
            return Ok(schema.clone());
        }
        let schema = match text {
            Some(text) => Arc::new(Schema { id: self.id_of(&subject, format, &text).await?, format, text }),
            None => self.latest(&subject).await?.map_err(|said| {
                Error::config(format!("subject {subject:?} has no schema to write with: {said}"))
                    .hint("give the sink's codec one with schema(text), or register it")
            })?,
        };
        lock(&self.shared.written).insert(key, schema.clone());
        Ok(schema)
    }

    /// The Avro writer for a schema, made once.
    pub(super) fn avro_writer(&self, id: u32, new: impl FnOnce() -> Result<avro::Writer>) -> Result<avro::Writer> {
        let mut writers = lock(&self.shared.avro_writers);
        if let Some(writer) = writers.get(&id) {
            return Ok(*writer);
        }
        let writer = new()?;
        writers.insert(id, writer);
        Ok(writer)
    }

    async fn id_of(&self, subject: &str, format: Format, text: &str) -> Result<u32> {
        let register = self.properties.get("auto.register.schemas") != Some("false");
        let path = format!("/subjects/{}{}", escaped(subject), if register { "/versions" } else { "" });
        let body = json!({ "schema": text, "schemaType": format.name() });
        match self.ask(path, Some(body)).await? {
            Answer::Given(answer) => id(&answer),
            Answer::Unknown(said) => Err(Error::config(format!("subject {subject:?} has no such schema: {said}"))
                .hint("register it, or set schema-registry.auto.register.schemas = true")),
            Answer::Incompatible(said) => Err(Error::config(format!(
                "the schema is not compatible with those of subject {subject:?}: {said}"
            ))
            .hint("give new fields a default and leave old ones, or name another subject; its level of compatibility is the registry's")),
            Answer::Invalid(said) => Err(Error::config(format!("the schema for subject {subject:?} is refused: {said}"))
                .hint("mend its text")),
        }
    }

    /// What the registry has at a path, or what it says for want of it.
    async fn look_up(&self, path: String) -> Result<Result<Value, String>> {
        Ok(match self.ask(path, None).await? {
            Answer::Given(answer) => Ok(answer),
            Answer::Unknown(said) | Answer::Incompatible(said) | Answer::Invalid(said) => Err(said),
        })
    }

    async fn ask(&self, path: String, body: Option<Value>) -> Result<Answer> {
        let client = self.client()?;
        let asked = spawn_blocking(move || client.ask(&path, body.as_ref())).await;
        asked.map_err(|e| Error::internal("a request to the schema registry has panicked").caused_by(e))?
    }

    fn client(&self) -> Result<Arc<Client>> {
        let mut client = lock(&self.shared.client);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        Ok(client.insert(Arc::new(Client::new(&self.properties)?)).clone())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.properties).finish()
    }
}

/// The subject of a topic's values (Confluent's `TopicNameStrategy`), unless one is named.
///
/// # Errors
/// Where there is neither.
pub(super) fn subject(named: Option<&str>, topic: Option<&str>) -> Result<String> {
    match (named, topic) {
        (Some(named), _) => Ok(named.to_owned()),
        (None, Some(topic)) => Ok(format!("{topic}-value")),
        (None, None) => Err(Error::config("a sink whose records choose their topics needs one schema for all of them")
            .hint("name its subject on the codec: subject(\"...\")")),
    }
}

fn id(answer: &Value) -> Result<u32> {
    let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| strange("a schema without an id"))
}

fn strange(what: impl AsRef<str>) -> Error {
    Error::config(format!("the schema registry has answered with {}", what.as_ref()))
        .hint("check that schema-registry.url leads to a registry that speaks Confluent's API")
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn a_subject_is_the_topics_unless_it_is_named() {
        assert_eq!(subject(None, Some("orders")).unwrap(), "orders-value");
        assert_eq!(subject(Some("shop.Order"), None).unwrap(), "shop.Order");
        assert!(subject(None, None).unwrap_err().hint_text().unwrap().contains("subject("));
        assert_eq!(escaped("a b/ü-1"), "a%20b%2F%C3%BC-1");
    }

    #[test]
    fn a_registrys_secrets_are_not_shown() {
        let registry = Registry::at("http://a:1").set("basic.auth.user.info", "me:canary");
        assert!(!format!("{registry:?}").contains("canary"), "{registry:?}");
    }

    /// A registry with these answers, one a connection, and nothing behind them.
    fn answering(answers: &'static [(&'static str, &'static str)]) -> (String, impl Future<Output = ()>) {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = move |(status, body): &(&str, &str)| {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        };
        (url, spawn_blocking(move || answers.iter().for_each(answer)).map(Result::unwrap))
    }

    /// Registries have copies, and one that lags does not know yet what a writer has been told by another. No real one
    /// can be made to lag, so this is said by one that knows nothing else.
    #[tokio::test]
    async fn a_schema_that_a_copy_of_the_registry_does_not_know_yet_is_asked_for_again() {
        const UNKNOWN: (&str, &str) = ("404 Not Found", r#"{"error_code": 40403, "message": "not here"}"#);
        const LATER: &[(&str, &str)] = &[UNKNOWN, UNKNOWN, ("200 OK", r#"{"schema": "\"long\""}"#)];
        let (url, served) = answering(LATER);
        let registry = Registry::at(&url);
        let Err(NotDecoded::Yet(wait)) = registry.schema(7) else { panic!("it should wait") };
        wait.await.unwrap();
        assert_eq!(registry.schema(7).unwrap().of(Format::Avro).unwrap(), "\"long\"");
        served.await;

        let (url, served) = answering(&[UNKNOWN, UNKNOWN, UNKNOWN]);
        let registry = Registry::at(&url);
        let Err(NotDecoded::Yet(wait)) = registry.schema(7) else { panic!("it should wait") };
        wait.await.unwrap();
        let Err(NotDecoded::Ever(why)) = registry.schema(7) else { panic!("it has said so three times") };
        assert!(why.contains("not here"), "{why}");
        served.await;
    }
}
