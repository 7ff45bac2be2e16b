//! Looks into a savepoint without the user's types, and changes it.
//!
//! Keys and values are JSON, as `serde` would write them. Values of `codec = "named"` (`MessagePack`) can be read and
//! changed; those of `compact` (postcard) have no names and no types, and are shown as their bytes. Keys cannot be
//! changed: where an entry belongs follows from its key's own encoding, which JSON does not have.
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{JobId, KeyGroupRange, OperatorId},
    manifest::Manifest,
    store::CheckpointStore,
};

use super::{Entry, Savepoint, draft::Draft, files, free, load, place};
use crate::{
    properties::SecretUrl,
    state::{
        codec::Codec,
        operator,
        table::{is_watermark_key, key_group_of, split_entry_key},
    },
};

/// One entry of an operator's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Its key group.
    pub key_group: u16,
    /// The start of its window in ms since 1970; 0 where there are no windows.
    pub namespace: i64,
    /// Its key.
    pub key: Value,
    /// Its value.
    pub value: Value,
}

/// A savepoint that is open.
pub struct Reader {
    store: Arc<CheckpointStore>,
    savepoint: Savepoint,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reader").field(&self.savepoint.checkpoint.job).finish()
    }
}

impl Reader {
    /// Opens the savepoint at a URL.
    ///
    /// # Errors
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind): there is none; [`Kind::Corrupt`]: it is damaged, or of a
    /// newer format.
    ///
    /// [`Kind::Corrupt`]: tidegate_checkpoint::error::Kind::Corrupt
    pub async fn open(url: &str) -> Result<Self> {
        // The job's name is in the savepoint; nothing here is below a folder of it.
        let url = SecretUrl::from(url);
        let store = place(&url, &JobId::new("savepoint")?)?;
        let savepoint = load(&store, &url).await?;
        Ok(Self { store, savepoint })
    }

    /// What the store has, which nobody opened by a URL.
    #[cfg(feature = "testkit")]
    pub(crate) async fn of(store: Arc<CheckpointStore>) -> Result<Self> {
        let savepoint = load(&store, &SecretUrl::from("memory:")).await?;
        Ok(Self { store, savepoint })
    }

    /// The job that it is of, and the checkpoint's number.
    pub fn job(&self) -> (&str, u64) {
        (self.savepoint.checkpoint.job.as_str(), self.savepoint.checkpoint.epoch.0)
    }

    /// How far each source has been read, by split.
    pub fn positions(&self) -> &BTreeMap<OperatorId, BTreeMap<String, Value>> {
        &self.savepoint.checkpoint.sources
    }

    /// The operators with state, and how many entries each has.
    pub fn operators(&self) -> impl Iterator<Item = (&str, u64)> {
        let count = |files: &Vec<super::File>| files.iter().map(|file| file.entries).sum();
        self.savepoint.operators.iter().map(move |(operator, files)| (operator.as_str(), count(files)))
    }

    fn files(&self, operator: &str) -> Result<files::Reader> {
        let found = self.savepoint.operators.iter().find(|(name, _)| name.as_str() == operator);
        let Some((_, files)) = found else {
            let known: Vec<_> = self.operators().map(|(name, _)| format!("{name:?}")).collect();
            return Err(Error::config(format!("the savepoint has no operator {operator:?}"))
                .hint(format!("it has {}", known.join(", "))));
        };
        let all = KeyGroupRange { start: 0, end: self.savepoint.checkpoint.key_groups };
        Ok(files::Reader::new(self.store.clone(), files.clone(), all))
    }

    /// Hands on the entries of an operator, one after the other, until `see` says that it is enough.
    ///
    /// # Errors
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind): there is no such operator. Else as [`Reader::open`].
    pub async fn each(&self, operator: &str, mut see: impl FnMut(Read) -> bool) -> Result<()> {
        let mut files = self.files(operator)?;
        while let Some(entries) = files.next().await? {
            for (key, value) in entries.iter().filter(|(key, _)| !is_watermark_key(key)) {
                if !see(read(key, value)?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes a savepoint at another URL in which each value is what `change` makes of it; `None`: without that entry.
    ///
    /// # Errors
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind): there is something at the URL, or a value is changed that has
    /// no names. Else as [`Reader::open`]. What has been written is deleted then.
    pub async fn write_changed(&self, url: &str, change: impl FnMut(&str, &Read) -> Option<Value>) -> Result<()> {
        let mut draft = Draft::at(free(url, &self.savepoint.checkpoint.job).await?);
        let filled = match self.fill(&mut draft, change).await {
            Ok(()) => self.copy_lists(&mut draft).await,
            Err(error) => Err(error),
        };
        draft.end(filled).await
    }

    /// State of no key, as it is.
    async fn copy_lists(&self, draft: &mut Draft) -> Result<Manifest> {
        let mut checkpoint = self.savepoint.checkpoint.clone();
        for (name, handles) in &mut checkpoint.states {
            *handles = operator::copy(&self.store, std::mem::take(handles), name, draft).await?;
        }
        Ok(checkpoint)
    }

    async fn fill(&self, draft: &mut Draft, mut change: impl FnMut(&str, &Read) -> Option<Value>) -> Result<()> {
        for operator in self.savepoint.operators.keys() {
            let mut files = self.files(operator.as_str())?;
            let mut writer = files::Writer::new(draft, operator.clone());
            while let Some(entries) = files.next().await? {
                let mut changed = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    if is_watermark_key(&key) {
                        changed.push((key, value));
                        continue;
                    }
                    let before = read(&key, &value)?;
                    match change(operator.as_str(), &before) {
                        Some(after) if after == before.value => changed.push((key, value)),
                        Some(after) => changed.push(written(key, &value, &before.value, &after)?),
                        None => {}
                    }
                }
                writer.add(changed).await?;
            }
            writer.end().await?;
        }
        Ok(())
    }
}

fn damaged() -> Error {
    Error::corrupt("an entry of the savepoint has not the form that it should have")
}

fn read(key: &Bytes, value: &Bytes) -> Result<Read> {
    let key_group = key_group_of(key).ok_or_else(damaged)?;
    let (namespace, key) = split_entry_key(key).ok_or_else(damaged)?;
    let (codec, value) = value.split_first().ok_or_else(damaged)?;
    let value = match Codec::by_id(*codec).ok_or_else(damaged)? {
        Codec::Named => json(value)?,
        Codec::Compact => serde_json::json!({ "postcard": value }),
    };
    Ok(Read { key_group, namespace, key: json(key)?, value })
}

/// `MessagePack` as JSON; what is behind the value is passed over.
pub(crate) fn json(bytes: &[u8]) -> Result<Value> {
    let value = rmp_serde::from_slice(bytes).map_err(|_| damaged())?;
    Ok(Any::into(value))
}

/// An entry with another value.
fn written(key: Bytes, bytes: &Bytes, before: &Value, after: &Value) -> Result<Entry> {
    if bytes.first() != Some(&Codec::Named.id()) {
        return Err(Error::config("a value in postcard cannot be changed: it has no names").hint(
            "set state.codec = \"named\", run the job until all of its state has changed, and make another savepoint",
        ));
    }
    let encode = |value: &Value| {
        let mut bytes = vec![Codec::Named.id()];
        let written = value.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map());
        written.map(|()| bytes).map_err(|e| Error::config("the changed value cannot be written").caused_by(e))
    };
    if encode(before)? != bytes[..] {
        return Err(Error::config("a value has something that JSON has not, as maps whose keys are numbers, or bytes")
            .hint("change it in a job that starts from the savepoint"));
    }
    Ok((key, encode(after)?.into()))
}

/// Whatever `MessagePack` can have: JSON has no bytes, and no keys but texts.
struct Any(Value);

impl From<Any> for Value {
    fn from(any: Any) -> Self {
        any.0
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Any;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Any, E> {
                Ok(Any(Value::Null))
            }
            fn visit_none<E>(self) -> Result<Any, E> {
                Ok(Any(Value::Null))
            }
            fn visit_some<D: serde::Deserializer<'de>>(self, inner: D) -> Result<Any, D::Error> {
                Any::deserialize(inner)
            }
            fn visit_bool<E>(self, b: bool) -> Result<Any, E> {
                Ok(Any(b.into()))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Any, E> {
                Ok(Any(n.into()))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Any, E> {
                Ok(Any(n.into()))
            }
            fn visit_f64<E>(self, x: f64) -> Result<Any, E> {
                Ok(Any(x.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Any, E> {
                Ok(Any(text.into()))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Any, E> {
                Ok(Any(bytes.into()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Any, A::Error> {
                let mut all = Vec::new();
                while let Some(Any(value)) = seq.next_element()? {
                    all.push(value);
                }
                Ok(Any(all.into()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Any, A::Error> {
                let mut all = serde_json::Map::new();
                while let Some((Any(key), Any(value))) = map.next_entry()? {
                    let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                    all.insert(key, value);
                }
                Ok(Any(all.into()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
