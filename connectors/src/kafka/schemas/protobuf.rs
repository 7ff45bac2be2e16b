//! Protobuf: records of a type that `prost` has generated, each with the id of the schema that it was written with and
//! the place of its message in it.
//!
//! The type itself reads the bytes, by the numbers of its fields: schemas evolve as Protobuf's rules say. The hard
//! case is a record of another type in the same topic, which would be read without complaint, as nonsense. So the schema
//! is asked for what message it is, once for each schema and place.
use futures::future::BoxFuture;
use prost::Message as Generated;
use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex},
};
use tidegate_core::{Error, Result};

use super::{
    super::{
        client::lock,
        codec::{Decode, Encode, Message, NotDecoded, value},
    },
    proto,
    registry::{Format, Registry, Remembered, subject},
    wire,
};

/// Protobuf, with a schema registry: records of type `M`, which `prost` has generated (or derived).
///
/// ```
/// use tidegate_connectors::kafka::{Kafka, Protobuf, Registry};
/// #[derive(Clone, prost::Message)]
/// struct Payment {
///     #[prost(string, tag = "1")]
///     user: String,
///     #[prost(int64, tag = "2")]
///     cents: i64,
/// }
/// const PAYMENT: &str = r#"syntax = "proto3"; package shop; message Payment { string user = 1; int64 cents = 2; }"#;
/// let registry = Registry::at("http://127.0.0.1:8081");
/// let kafka = Kafka::at("127.0.0.1:9092");
/// let source = kafka.source("payments", Protobuf::<Payment>::new(&registry, "shop.Payment"));
/// let sink = kafka.sink("copies", Protobuf::<Payment>::new(&registry, "shop.Payment").schema(PAYMENT));
/// # let _ = (source, sink);
/// ```
pub struct Protobuf<M> {
    registry: Registry,
    message: Arc<str>,
    schema: Option<Arc<str>>,
    subject: Option<Arc<str>>,
    /// What stands before a record, and why it cannot be read with that, if it cannot.
    seen: Mutex<Remembered<Box<[u8]>, Option<String>>>,
    /// What this one writes before a record, once it is prepared.
    head: Option<Arc<[u8]>>,
    records: PhantomData<fn() -> M>,
}

impl<M> Protobuf<M> {
    /// Of the message with this full name (`package.Message.Inner`; with `prost::Name` it is `M::full_name()`). Writes
    /// with the latest schema of the topic's subject.
    pub fn new(registry: &Registry, message: &str) -> Self {
        Self {
            registry: registry.clone(),
            message: message.into(),
            schema: None,
            subject: None,
            seen: Mutex::default(),
            head: None,
            records: PhantomData,
        }
    }
    /// Writes with this schema, the text of a `.proto` file. It is registered when the job starts, unless
    /// `auto.register.schemas` is false. It may import only what every registry has (`google/protobuf/...`).
    pub fn schema(mut self, text: &str) -> Self {
        self.schema = Some(text.into());
        self
    }
    /// The subject of its schemas; `<topic>-value` without this.
    pub fn subject(mut self, name: &str) -> Self {
        self.subject = Some(name.into());
        self
    }

    /// Why records with this schema and place cannot be read.
    fn unreadable(&self, id: u32, place: &[u32]) -> Result<Option<String>, NotDecoded> {
        let schema = self.registry.schema(id)?;
        let messages = proto::messages(schema.of(Format::Protobuf)?);
        let found = messages.into_iter().find(|(of, _)| of == place).map(|(_, name)| name);
        Ok(match found {
            Some(name) if *name == *self.message => None,
            Some(name) => Some(format!("it is a {name}, not a {}", self.message)),
            None => Some(format!("schema {id} has no message {place:?}")),
        })
    }
}

/// A clone reads on its own.
impl<M> Clone for Protobuf<M> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
            message: self.message.clone(),
            schema: self.schema.clone(),
            subject: self.subject.clone(),
            seen: Mutex::default(),
            head: self.head.clone(),
            records: PhantomData,
        }
    }
}
impl<M> fmt::Debug for Protobuf<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protobuf")
            .field("registry", &self.registry)
            .field("message", &self.message)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl<M: Generated + Default + 'static> Decode for Protobuf<M> {
    type Item = M;

    fn prepare(&self, topic: &str) -> BoxFuture<'static, Result<()>> {
        let (registry, subject) = (self.registry.clone(), subject(self.subject.as_deref(), Some(topic)));
        Box::pin(async move { registry.look_at(&subject?).await })
    }

    fn decode(&self, message: &Message<'_>) -> Result<M, NotDecoded> {
        let value = value(message)?;
        let (id, rest) = wire::split(value)?;
        let (place, record) = wire::place(rest)?;
        let head = &value[..value.len() - record.len()];
        let mut seen = lock(&self.seen);
        if seen.get(head).is_none() {
            seen.insert(head.into(), self.unreadable(id, &place)?);
        }
        if let Some(Some(why)) = seen.get(head) {
            return Err(why.as_str().into());
        }
        M::decode(record).map_err(|e| format!("with schema {id}: {e}").into())
    }
}

impl<M: Generated + Default + 'static> Encode<M> for Protobuf<M> {
    fn prepare(&self, topic: Option<&str>) -> BoxFuture<'static, Result<Self>> {
        let (mut ready, subject) = (self.clone(), subject(self.subject.as_deref(), topic));
        Box::pin(async move {
            let text = ready.schema.as_deref().map(str::to_owned);
            let schema = ready.registry.to_write(subject?, Format::Protobuf, text).await?;
            let text = schema.of(Format::Protobuf).map_err(|why| Error::config(why).hint("name another subject"))?;
            let found = proto::messages(text).into_iter().find(|(_, name)| **name == *ready.message);
            let (place, _) = found.ok_or_else(|| {
                Error::config(format!("the schema has no message {:?}", ready.message))
                    .hint("name it with its package, and with the messages that it is in: package.Outer.Inner")
            })?;
            let mut head = wire::head(schema.id).to_vec();
            wire::put_place(&place, &mut head);
            ready.head = Some(head.into());
            Ok(ready)
        })
    }

    fn encode(&self, record: &M, value: &mut Vec<u8>) -> Result<bool> {
        let head =
            self.head.as_ref().ok_or_else(|| Error::internal("a Protobuf codec writes before it is prepared"))?;
        value.extend_from_slice(head);
        record.encode(value).map(|()| true).map_err(|e| Error::data("a record cannot be written").caused_by(e))
    }
}
