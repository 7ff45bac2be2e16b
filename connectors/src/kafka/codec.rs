//! What a message is to the user: how its bytes become a record ([`Decode`]), and a record bytes ([`Encode`]).
//!
//! A message is looked at where it lies in librdkafka's memory, and copied only by a codec that keeps it. The hard
//! case is a value that is not there (a tombstone, which deletes its key in a compacted topic): a codec that has
//! not said that it knows them, with [`Nullable`], must take it for undecodable and not for an empty value.
//! Another is a codec that has to ask somebody (a schema registry) what the bytes are: it neither waits, as it is
//! called on the engine's threads, nor calls a good record undecodable. It says [`NotDecoded::Yet`].
use futures::future::{BoxFuture, ready};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::{self, Debug, Display},
    marker::PhantomData,
    string::FromUtf8Error,
};
use tidegate_core::{Error, Result};

use super::native::Headers;

/// A message, where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Where in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC, by its producer's clock or the broker's: the topic says which.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
}

impl<'a> Message<'a> {
    /// One that no broker has sent: for the tests of a codec.
    pub fn of(value: &'a [u8]) -> Self {
        let headers = Headers::none();
        Self { topic: "", partition: 0, offset: 0, timestamp_ms: None, key: None, value: Some(value), headers }
    }
    /// Its headers, in order; a name may occur more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        self.headers.iter()
    }
}

/// Makes a record of a message.
pub trait Decode: Clone + Send + Sync + 'static {
    /// The record.
    type Item: Send + 'static;

    /// Called before a partition of this topic is read: for what can be fetched beforehand. Most have nothing to do.
    ///
    /// # Errors
    /// Fails the attempt.
    fn prepare(&self, _topic: &str) -> BoxFuture<'static, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    /// Decodes one message. Must not wait for anybody.
    ///
    /// # Errors
    /// Why it cannot be, as text: the job's policy for undecodable records decides what becomes of it. Or that it
    /// cannot be yet.
    fn decode(&self, message: &Message<'_>) -> Result<Self::Item, NotDecoded>;
}

/// Why a message has not become a record. Made of text, it is undecodable.
pub enum NotDecoded {
    /// For this reason it never will.
    Ever(String),
    /// First this has to be done. Then the same message is decoded again; nothing behind it is read before that. An
    /// error in its place fails the attempt.
    Yet(BoxFuture<'static, Result<()>>),
}

impl From<String> for NotDecoded {
    fn from(reason: String) -> Self {
        Self::Ever(reason)
    }
}
impl From<&str> for NotDecoded {
    fn from(reason: &str) -> Self {
        Self::Ever(reason.to_owned())
    }
}
impl Display for NotDecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ever(reason) => f.write_str(reason),
            Self::Yet(_) => f.write_str("it cannot be decoded yet"),
        }
    }
}
impl Debug for NotDecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Makes a message's value of a record.
pub trait Encode<T>: Clone + Send + Sync + 'static {
    /// This codec, ready for a topic; `None`: each record chooses its own. Called once an attempt, before the first
    /// record. Most are always ready.
    ///
    /// # Errors
    /// Fails the attempt.
    fn prepare(&self, _topic: Option<&str>) -> BoxFuture<'static, Result<Self>> {
        Box::pin(ready(Ok(self.clone())))
    }

    /// Appends the value's bytes; `false`: there is no value, the message is a tombstone. Must not wait for anybody.
    ///
    /// # Errors
    /// Fails the attempt.
    fn encode(&self, record: &T, value: &mut Vec<u8>) -> Result<bool>;
}

pub(super) fn value<'a>(message: &Message<'a>) -> Result<&'a [u8], NotDecoded> {
    message.value.ok_or_else(|| "it has no value (a tombstone)".into())
}

/// JSON, by serde.
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// Of records of type `T`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}
impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}
impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}
impl<T> Debug for Json<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Json")
    }
}
impl<T: DeserializeOwned + Send + 'static> Decode for Json<T> {
    type Item = T;
    #[inline]
    fn decode(&self, message: &Message<'_>) -> Result<T, NotDecoded> {
        serde_json::from_slice(value(message)?).map_err(|e| e.to_string().into())
    }
}
impl<T: Serialize + 'static> Encode<T> for Json<T> {
    #[inline]
    fn encode(&self, record: &T, value: &mut Vec<u8>) -> Result<bool> {
        serde_json::to_writer(value, record)
            .map(|()| true)
            .map_err(|e| Error::data("a record cannot be written as JSON").caused_by(e))
    }
}

/// Text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Decode for Utf8 {
    type Item = String;
    fn decode(&self, message: &Message<'_>) -> Result<String, NotDecoded> {
        String::from_utf8(value(message)?.to_vec()).map_err(|e: FromUtf8Error| e.to_string().into())
    }
}
impl<T: AsRef<str>> Encode<T> for Utf8 {
    fn encode(&self, record: &T, value: &mut Vec<u8>) -> Result<bool> {
        value.extend_from_slice(record.as_ref().as_bytes());
        Ok(true)
    }
}

/// Bytes, as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

impl Decode for Bytes {
    type Item = Vec<u8>;
    fn decode(&self, message: &Message<'_>) -> Result<Vec<u8>, NotDecoded> {
        value(message).map(<[u8]>::to_vec)
    }
}
impl<T: AsRef<[u8]>> Encode<T> for Bytes {
    fn encode(&self, record: &T, value: &mut Vec<u8>) -> Result<bool> {
        value.extend_from_slice(record.as_ref());
        Ok(true)
    }
}

/// As another codec, with `None` for a tombstone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nullable<C>(pub C);

impl<C: Decode> Decode for Nullable<C> {
    type Item = Option<C::Item>;
    fn prepare(&self, topic: &str) -> BoxFuture<'static, Result<()>> {
        self.0.prepare(topic)
    }
    fn decode(&self, message: &Message<'_>) -> Result<Self::Item, NotDecoded> {
        message.value.map(|_| self.0.decode(message)).transpose()
    }
}
impl<T, C: Encode<T>> Encode<Option<T>> for Nullable<C> {
    fn prepare(&self, topic: Option<&str>) -> BoxFuture<'static, Result<Self>> {
        let prepared = self.0.prepare(topic);
        Box::pin(async { prepared.await.map(Nullable) })
    }
    fn encode(&self, record: &Option<T>, value: &mut Vec<u8>) -> Result<bool> {
        record.as_ref().map_or(Ok(false), |record| self.0.encode(record, value))
    }
}

/// A message's value, with everything else that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// The decoded value.
    pub value: T,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Where in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// As another codec, with key, headers, timestamp, partition and offset at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole<C>(pub C);

impl<C: Decode> Decode for Whole<C> {
    type Item = Record<C::Item>;
    fn prepare(&self, topic: &str) -> BoxFuture<'static, Result<()>> {
        self.0.prepare(topic)
    }
    fn decode(&self, message: &Message<'_>) -> Result<Self::Item, NotDecoded> {
        Ok(Record {
            value: self.0.decode(message)?,
            topic: message.topic.to_owned(),
            partition: message.partition,
            offset: message.offset,
            timestamp_ms: message.timestamp_ms,
            key: message.key.map(<[u8]>::to_vec),
            headers: message.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOMBSTONE: Message<'static> = Message {
        topic: "t",
        partition: 3,
        offset: 7,
        timestamp_ms: Some(1),
        key: Some(b"k"),
        value: None,
        headers: Headers::none(),
    };

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut bytes = Vec::new();
        assert!(Json::new().encode(&vec![1, 2], &mut bytes).unwrap());
        assert_eq!(Json::<Vec<u8>>::new().decode(&Message::of(&bytes)).unwrap(), [1, 2]);
        bytes.clear();
        assert!(Utf8.encode(&"né", &mut bytes).unwrap());
        assert_eq!(Utf8.decode(&Message::of(&bytes)).unwrap(), "né");
        assert_eq!(Bytes.decode(&Message::of(&[0xff])).unwrap(), [0xff]);
    }

    #[test]
    fn what_cannot_be_decoded_says_why() {
        assert!(Json::<u8>::new().decode(&Message::of(b"300")).unwrap_err().to_string().contains("300"));
        assert!(Utf8.decode(&Message::of(&[0xff])).unwrap_err().to_string().contains("utf-8"));
    }

    #[test]
    fn a_tombstone_is_undecodable_but_for_those_who_know_them() {
        assert!(Json::<Option<u8>>::new().decode(&TOMBSTONE).unwrap_err().to_string().contains("tombstone"));
        assert!(Bytes.decode(&TOMBSTONE).is_err() && Utf8.decode(&TOMBSTONE).is_err());
        assert_eq!(Nullable(Bytes).decode(&TOMBSTONE).unwrap(), None);
        let whole = Whole(Nullable(Utf8)).decode(&TOMBSTONE).unwrap();
        assert_eq!((whole.value, whole.key, whole.partition, whole.offset), (None, Some(b"k".to_vec()), 3, 7));
        assert!(!Nullable(Utf8).encode(&None::<String>, &mut Vec::new()).unwrap());
    }
}
