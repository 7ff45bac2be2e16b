//! Avro: records by serde, in the binary form, each with the id of the schema that it was written with.
//!
//! A record is read with its writer's schema. Without one of one's own, fields are matched by their names, as serde
//! does with JSON: those that the type does not have are passed over, those that it lacks take the type's
//! `#[serde(default)]`. With one ([`Avro::schema`]) the record is brought into its shape first, by Avro's rules: defaults
//! and aliases of the schema. The hard case is the record's own name: writers choose it, and it says nothing of what
//! the type is called here. The library's quick way, without a value between, insists that both are equal, and so is
//! not taken for reading.
use apache_avro::{GenericSingleObjectReader, Schema as Parsed, from_value, writer::datum::GenericDatumWriter};
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
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
    depth::Depth,
    registry::{Format, Registry, Remembered, subject},
    wire,
};

/// Avro, with a schema registry: records of type `T`, by serde.
///
/// ```
/// use tidegate_connectors::kafka::{Avro, Kafka, Registry};
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Payment { user: String, cents: i64 }
/// const PAYMENT: &str = r#"{"type": "record", "name": "Payment", "fields": [
///     {"name": "user", "type": "string"}, {"name": "cents", "type": "long"}]}"#;
/// let registry = Registry::at("http://127.0.0.1:8081");
/// let kafka = Kafka::at("127.0.0.1:9092");
/// let source = kafka.source("payments", Avro::<Payment>::new(&registry));
/// let sink = kafka.sink("copies", Avro::<Payment>::new(&registry).schema(PAYMENT));
/// # let _ = (source, sink);
/// ```
pub struct Avro<T> {
    registry: Registry,
    /// The text that was given, and what it says.
    schema: Option<(Arc<str>, Arc<Result<Parsed>>)>,
    subject: Option<Arc<str>>,
    readers: Mutex<Remembered<u32, Reader>>,
    /// What this one writes with, once it is prepared.
    writer: Option<Writer>,
    records: PhantomData<fn() -> T>,
}

struct Reader {
    reader: GenericSingleObjectReader,
    depth: Option<Depth>,
}

/// What writes with one schema; the registry keeps it.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    head: [u8; wire::HEAD],
    writer: &'static GenericDatumWriter<'static>,
}

impl<T> Avro<T> {
    /// Reads with the schema that each record was written with, and writes with the latest of the topic's subject.
    pub fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            schema: None,
            subject: None,
            readers: Mutex::default(),
            writer: None,
            records: PhantomData,
        }
    }
    /// With this schema, in Avro's JSON. A sink writes with it: it is registered when the job starts, unless
    /// `auto.register.schemas` is false. A source brings every record into its shape.
    ///
    /// That of a type which derives `apache_avro::AvroSchema` is `serde_json::to_string(&T::get_schema())`.
    pub fn schema(mut self, text: &str) -> Self {
        let parsed = Parsed::parse_str(text).map_err(|e| {
            Error::config("the schema of an Avro codec is none").caused_by(e).hint("mend the text given to schema()")
        });
        self.schema = Some((text.into(), Arc::new(parsed)));
        self
    }
    /// The subject of its schemas; `<topic>-value` without this.
    pub fn subject(mut self, name: &str) -> Self {
        self.subject = Some(name.into());
        self
    }

    fn check(&self) -> Result<()> {
        self.schema.as_ref().map_or(Ok(()), |(_, parsed)| parsed.as_ref().as_ref().map(drop).map_err(Error::clone))
    }
}

impl Writer {
    fn new(id: u32, text: &str) -> Result<Self> {
        let failed =
            |e| Error::config(format!("schema {id} cannot be written with")).caused_by(e).hint("mend the schema");
        // Kept for ever, since a writer borrows its schema: one for each schema that is written with, as all codecs and
        // attempts with one registry share it.
        let schema: &'static Parsed = Box::leak(Box::new(Parsed::parse_str(text).map_err(failed)?));
        let made = GenericDatumWriter::builder(schema).build().map_err(failed)?;
        Ok(Self { head: wire::head(id), writer: Box::leak(Box::new(made)) })
    }
}

/// A clone reads on its own.
impl<T> Clone for Avro<T> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
            schema: self.schema.clone(),
            subject: self.subject.clone(),
            readers: Mutex::default(),
            writer: self.writer,
            records: PhantomData,
        }
    }
}
impl<T> fmt::Debug for Avro<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Avro").field("registry", &self.registry).field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + Send + 'static> Decode for Avro<T> {
    type Item = T;

    fn prepare(&self, topic: &str) -> BoxFuture<'static, Result<()>> {
        let (registry, checked) = (self.registry.clone(), self.check());
        let subject = subject(self.subject.as_deref(), Some(topic));
        Box::pin(async move {
            checked?;
            registry.look_at(&subject?).await
        })
    }

    fn decode(&self, message: &Message<'_>) -> Result<T, NotDecoded> {
        let (id, mut datum) = wire::split(value(message)?)?;
        let mut readers = lock(&self.readers);
        let reader = readers.get_or_try_insert(id, || reader(&self.registry, id))?;
        let undecodable = |e| format!("with schema {id}: {e}");
        if let Some(depth) = &reader.depth {
            depth.check(datum, self.schema.is_some()).map_err(|why| format!("with schema {id}: {why}"))?;
        }
        let mut record = reader.reader.read_value(&mut datum).map_err(undecodable)?;
        if !datum.is_empty() {
            return Err(format!("{} bytes are left behind what schema {id} describes", datum.len()).into());
        }
        if let Some((_, parsed)) = &self.schema {
            let shape = parsed.as_ref().as_ref().map_err(ToString::to_string)?;
            record = record.resolve(shape).map_err(undecodable)?;
        }
        Ok(from_value(&record).map_err(undecodable)?)
    }
}

fn reader(registry: &Registry, id: u32) -> Result<Reader, NotDecoded> {
    let schema = registry.schema(id)?;
    let failed = |e| format!("schema {id}: {e}");
    let parsed = Parsed::parse_str(schema.of(Format::Avro)?).map_err(failed)?;
    let depth = Depth::of(&parsed).map_err(failed)?;
    // What stands before the record has been read.
    let reader = GenericSingleObjectReader::builder().schema(parsed).header(Vec::new()).build();
    Ok(Reader { reader: reader.map_err(failed)?, depth })
}

impl<T: Serialize + 'static> Encode<T> for Avro<T> {
    fn prepare(&self, topic: Option<&str>) -> BoxFuture<'static, Result<Self>> {
        let (mut ready, checked) = (self.clone(), self.check());
        let subject = subject(self.subject.as_deref(), topic);
        Box::pin(async move {
            checked?;
            let text = ready.schema.as_ref().map(|(text, _)| text.to_string());
            let schema = ready.registry.to_write(subject?, Format::Avro, text).await?;
            let text = schema.of(Format::Avro).map_err(|why| Error::config(why).hint("name another subject"))?;
            ready.writer = Some(ready.registry.avro_writer(schema.id, || Writer::new(schema.id, text))?);
            Ok(ready)
        })
    }

    fn encode(&self, record: &T, value: &mut Vec<u8>) -> Result<bool> {
        let Writer { head, writer } =
            self.writer.ok_or_else(|| Error::internal("an Avro codec writes before it is prepared"))?;
        value.extend_from_slice(&head);
        writer.write_ser(value, record).map(|_| true).map_err(|e| {
            Error::data("a record cannot be written with its schema")
                .caused_by(e)
                .hint("the schema's fields must be those of the type, in their order")
        })
    }
}
