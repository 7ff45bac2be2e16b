//! Operator state: a list of elements for each subtask of an operator, of no key. Flink's operator `ListState`.
//!
//! The list is given whole at each barrier and comes back at the next start. It is for little: what is in flight, a
//! position, a table that everybody needs. It lies in the checkpoint store, whatever the backend of keyed state is.
//!
//! ```text
//! object   "TGO1" | [length u32, element]*         little-endian, an element as the codec writes it
//! handle   { object, bytes, crc32, elements, codec }    in the manifest; an empty list has none
//! ```
//! The hard case is another parallelism. Where it is as before, each subtask gets its own list back. Where it is not,
//! [`Redistribution`] says what becomes of the lists; every subtask then reads all of them. In a savepoint the object is
//! copied as it is, and the handle refers to the copy.
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Attempt, Epoch, KeyGroupRange, OperatorId, Subtask},
    manifest::{ObjectRef, StateHandle},
    paths,
    store::CheckpointStore,
};

use super::{
    codec::Codec,
    savepoint::{self, draft::Draft},
};
use crate::{env::unique, runtime::build::Build};

/// What a handle names as its backend that refers to a list.
pub const BACKEND: &str = "operator";
const MAGIC: &[u8; 4] = b"TGO1";
/// The bytes that the list of one subtask may have.
const BYTES_MAX: usize = 1 << 30;

/// What becomes of the subtasks' lists at another parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redistribution {
    /// The elements are dealt to the new subtasks in turn.
    Split,
    /// Every subtask gets all elements, at the same parallelism too.
    Union,
    /// Each list stays as it is: that of subtask `s` goes to the new subtask `s` modulo their number.
    Whole,
}

/// What a handle says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    object: String,
    bytes: u64,
    crc32: u32,
    elements: u64,
    codec: u8,
}

/// The operator state of one subtask: read once, written at each barrier.
pub struct OperatorState {
    store: Arc<CheckpointStore>,
    savepoint: Option<Arc<CheckpointStore>>,
    operator: OperatorId,
    attempt: Attempt,
    subtask: Subtask,
    parallelism: u32,
    key_groups: u16,
    codec: Codec,
    redistribution: Redistribution,
    restore: Vec<StateHandle>,
    /// Of the checkpoint that is restored.
    parallelism_before: u32,
}

impl OperatorState {
    /// That of the subtask that is being built.
    pub fn new(build: &Build<'_>, operator: OperatorId, redistribution: Redistribution) -> Self {
        let context = build.context();
        Self {
            store: context.store.clone(),
            savepoint: context.savepoint.clone(),
            restore: build.restored_state(&operator),
            operator,
            attempt: context.attempt,
            subtask: build.subtask(),
            parallelism: context.parallelism,
            key_groups: context.key_groups,
            codec: context.state.codec,
            redistribution,
            parallelism_before: context.restored.as_ref().map_or(0, |manifest| manifest.parallelism),
        }
    }

    /// The lists that are this subtask's now, each in its order: its own; or of others; or one of elements that were
    /// dealt. Empty ones are left out.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](tidegate_checkpoint::error::Kind): an object is damaged or missing, or the elements are of
    /// another type. [`Kind::Config`](tidegate_checkpoint::error::Kind): the checkpoint has keyed state of this operator.
    pub async fn restore<E: DeserializeOwned>(&mut self) -> Result<Vec<Vec<E>>> {
        let mut handles = std::mem::take(&mut self.restore);
        handles.sort_by_key(|handle| handle.subtask);
        let (me, count) = (self.subtask.0, self.parallelism.max(1));
        let is_same = self.parallelism_before == count;
        let mut lists = Vec::new();
        for handle in handles {
            let is_mine = match self.redistribution {
                Redistribution::Union => true,
                _ if is_same => handle.subtask.0 == me,
                Redistribution::Whole => handle.subtask.0 % count == me,
                Redistribution::Split => true,
            };
            if is_mine {
                lists.push(self.read(&handle).await.map_err(|e| e.at(format!("state of operator {}", self.operator)))?);
            }
        }
        if self.redistribution == Redistribution::Split && !is_same {
            let dealt =
                lists.into_iter().flatten().enumerate().filter(|(n, _)| *n as u64 % u64::from(count) == u64::from(me));
            lists = vec![dealt.map(|(_, element)| element).collect()];
        }
        lists.retain(|list| !list.is_empty());
        Ok(lists)
    }

    async fn read<E: DeserializeOwned>(&self, handle: &StateHandle) -> Result<Vec<E>> {
        let store = match &self.savepoint {
            Some(place) if handle.backend == savepoint::BACKEND => place,
            _ => &self.store,
        };
        let (list, bytes) = whole(store, handle).await?;
        let codec = Codec::by_id(list.codec).ok_or_else(|| damaged(&list.object, "its codec is not known"))?;
        elements(&bytes).map(|element| codec.decode_whole(element)).collect()
    }

    /// Takes the elements down, and returns what makes them durable: the handles for the acknowledgement of `epoch`.
    ///
    /// # Errors
    /// [`Kind::User`](tidegate_checkpoint::error::Kind): an element does not serialise, or the list is too long.
    pub fn snapshot<'e, E: Serialize + 'e>(
        &self,
        epoch: Epoch,
        elements: impl IntoIterator<Item = &'e E>,
    ) -> Result<BoxFuture<'static, Result<Vec<StateHandle>>>> {
        let mut list = Encoded::new(self.codec);
        for element in elements {
            list.push(element)?;
        }
        Ok(self.store(epoch, list))
    }

    /// An empty list to be filled for a snapshot.
    pub(crate) fn list(&self) -> Encoded {
        Encoded::new(self.codec)
    }

    /// As [`OperatorState::snapshot`], of a list that has been filled.
    pub(crate) fn store(&self, epoch: Epoch, list: Encoded) -> BoxFuture<'static, Result<Vec<StateHandle>>> {
        let Encoded { codec, bytes, elements } = list;
        if elements == 0 {
            return Box::pin(futures::future::ready(Ok(Vec::new())));
        }
        let (store, subtask) = (self.store.clone(), self.subtask);
        let key_groups = KeyGroupRange { start: 0, end: self.key_groups };
        let object = paths::state(store.job(), &self.operator, self.attempt, epoch, subtask, "list");
        let (crc32, length) = (crc32fast::hash(&bytes), bytes.len() as u64);
        Box::pin(async move {
            store.put(&object, bytes).await?;
            let objects = vec![ObjectRef { path: object.clone(), bytes: length }];
            let data = data(&List { object, bytes: length, crc32, elements, codec: codec.id() })?;
            Ok(vec![StateHandle { subtask, key_groups, backend: BACKEND.into(), data, objects }])
        })
    }
}

/// A list as it is stored.
pub(crate) struct Encoded {
    codec: Codec,
    bytes: Vec<u8>,
    elements: u64,
}

impl Encoded {
    fn new(codec: Codec) -> Self {
        Self { codec, bytes: MAGIC.to_vec(), elements: 0 }
    }

    /// Adds an element.
    pub(crate) fn push<E: Serialize>(&mut self, element: &E) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.codec.encode(element, &mut self.bytes)?;
        if self.bytes.len() > BYTES_MAX {
            return Err(Error::user(format!("the operator state of one subtask has more than {BYTES_MAX} bytes"))
                .hint("operator state is written whole at each checkpoint: keep less of it, or keep it by key"));
        }
        let length = (self.bytes.len() - start - 4) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.elements += 1;
        Ok(())
    }
}

/// Whether a handle refers to a list, in a checkpoint or a savepoint.
pub(crate) fn is_list(handle: &StateHandle) -> bool {
    handle.backend == BACKEND || handle.data.get("elements").is_some()
}

fn data(list: &List) -> Result<serde_json::Value> {
    serde_json::to_value(list).map_err(|e| Error::internal("a state handle does not serialise").caused_by(e))
}

fn damaged(object: &str, why: &str) -> Error {
    Error::corrupt(format!("{object} cannot be used: {why}"))
        .hint("restore the file from a copy, or start from another checkpoint with checkpoint.from")
}

/// Reads an object and proves it: every element of it is as long as it says.
async fn whole(store: &CheckpointStore, handle: &StateHandle) -> Result<(List, Bytes)> {
    if !is_list(handle) {
        return Err(Error::config(
            "the checkpoint has keyed state under this name, and the operator keeps none by key",
        )
        .hint("names are the identity of state: give the new operator a name of its own"));
    }
    let list: List = serde_json::from_value(handle.data.clone())
        .map_err(|e| Error::corrupt("a handle of operator state cannot be read").caused_by(e))?;
    let bytes = store.get(&list.object).await?;
    if bytes.len() as u64 != list.bytes || crc32fast::hash(&bytes) != list.crc32 {
        return Err(damaged(&list.object, "its checksum does not match"));
    }
    if !bytes.starts_with(MAGIC) {
        return Err(damaged(&list.object, "it is no list of format 1"));
    }
    let used: usize = elements(&bytes).map(|element| element.len() + 4).sum();
    if elements(&bytes).count() as u64 != list.elements || used + MAGIC.len() != bytes.len() {
        return Err(damaged(&list.object, "it has not the elements that it should have"));
    }
    Ok((list, bytes))
}

/// The elements, as far as they are whole.
fn elements(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes.get(MAGIC.len()..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (element, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = behind;
        Some(element)
    })
}

/// Copies an operator's lists into a savepoint; the handles of the copies.
///
/// # Errors
/// As [`OperatorState::restore`], and what the stores return.
pub(crate) async fn copy(
    from: &CheckpointStore,
    handles: Vec<StateHandle>,
    operator: &OperatorId,
    draft: &mut Draft,
) -> Result<Vec<StateHandle>> {
    let (mut copies, unique) = (Vec::new(), unique() as u32);
    for handle in handles {
        let (list, bytes) = whole(from, &handle).await?;
        let object = format!("{operator}/{unique:08x}-{:04}.list", handle.subtask.0);
        draft.put(&object, bytes.to_vec()).await?;
        let objects = vec![ObjectRef { path: object.clone(), bytes: list.bytes }];
        copies.push(StateHandle { data: data(&List { object, ..list })?, objects, ..handle });
    }
    Ok(copies)
}

#[cfg(test)]
mod tests;
