//! Savepoints: state in one format, whatever backend it was in.
//!
//! ```text
//! <url>/savepoint                     what it is of: the job's positions, and the files of each operator's state
//! <url>/<operator>/<names>.entries    "TGS1" | block | block | ... | index
//! <url>/<operator>/<names>.list       operator state, as it is in a checkpoint ([`super::operator`])
//! block                               [length u32, key, length u32, value]*       little-endian, at most 256 kB and one
//! index                               JSON: [[offset, length, crc32, entries], ...]
//! ```
//! A key is `key group u16 | 0 | namespace i64, sign flipped | key`, big-endian, the last part in `MessagePack` without
//! field names; its value is a byte that names the codec (1: `MessagePack` with field names, 2: postcard) and the value.
//! Or it is `key group | 1`, and the value the watermark of the operator there. Entries are in order of their key groups
//! and namespaces.
//!
//! A savepoint is made of a checkpoint that has been committed, by reading it ([`mod@write`]); a job starts from it where it
//! has no checkpoint of its own, or people look into it ([`mod@read`]). The hard case is what changes meanwhile: nothing of
//! the checkpoint is deleted as long as it is read, and the file `savepoint`, without which there is none, comes last and
//! is created, never replaced. Two that are made at one place have files of different names. One that fails deletes what
//! it has written ([`mod@draft`]); one whose process is killed, or whose future is dropped, leaves files that nothing
//! refers to.
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

use tidegate_checkpoint::{
    envelope,
    error::{Error, Kind, Result},
    ids::{JobId, OperatorId},
    manifest::Manifest,
    store::CheckpointStore,
};

use crate::properties::SecretUrl;

pub mod draft;
pub mod entries;
pub mod files;
pub mod read;
pub mod write;

/// The object that says what a savepoint consists of.
const NAME: &str = "savepoint";
const VERSION: u32 = 1;
/// What a state handle names as its backend that refers to a savepoint's files.
pub const BACKEND: &str = "savepoint";

/// What a savepoint consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Savepoint {
    /// The checkpoint that it was made of; of its states only those of no key, which are copied beside the files.
    pub checkpoint: Manifest,
    /// Each operator's files.
    pub operators: BTreeMap<OperatorId, Vec<File>>,
}

/// A file of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name below the savepoint's URL.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// How many entries it has.
    pub entries: u64,
    /// The first and the last key group that it has anything of.
    pub key_groups: (u16, u16),
    /// Where its index is, and that one's checksum.
    pub index: (u64, u64, u32),
}

/// A key as it is stored, and its value.
pub type Entry = (Bytes, Bytes);

/// The place of a savepoint that is to be read: nothing is made there.
///
/// # Errors
/// [`Kind::Config`]: a URL that cannot be understood, a store that is not compiled in, or a directory that is not there.
pub fn place(url: &SecretUrl, job: &JobId) -> Result<Arc<CheckpointStore>> {
    lasting(CheckpointStore::find(url.reveal(), job.clone())?.ok_or_else(|| none(url))?)
}

fn lasting(store: CheckpointStore) -> Result<Arc<CheckpointStore>> {
    if store.is_volatile() {
        return Err(Error::config("a savepoint has to outlast the process")
            .hint("give it a directory, or a URL of an object store"));
    }
    Ok(Arc::new(store))
}

fn none(url: &SecretUrl) -> Error {
    Error::config(format!("there is no savepoint at {url}"))
        .hint("check its URL: it is the one that was given when it was made")
}

/// A place for a savepoint at which there is nothing yet.
///
/// # Errors
/// [`Kind::Config`]: there is something, or the place cannot be used.
pub(crate) async fn free(url: &str, job: &JobId) -> Result<Arc<CheckpointStore>> {
    let place = lasting(CheckpointStore::open(url, job.clone())?)?;
    if place.is_empty().await? {
        return Ok(place);
    }
    Err(Error::config("there is something at the savepoint's URL already")
        .hint("give each savepoint a place of its own"))
}

/// What the savepoint at `url` consists of, which `store` has.
///
/// # Errors
/// [`Kind::Config`]: there is none; [`Kind::Corrupt`]: it is damaged, or of a newer format.
pub async fn load(store: &CheckpointStore, url: &SecretUrl) -> Result<Savepoint> {
    let bytes = match store.get(NAME).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == Kind::Corrupt => return Err(none(url).caused_by(error)),
        Err(error) => return Err(error),
    };
    envelope::decode(NAME, VERSION, &bytes).map_err(|e| e.of(NAME))
}
