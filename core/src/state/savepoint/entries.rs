//! The entries of a state that is only read: a checkpoint's, over whatever backend, or a savepoint's.
//!
//! Backends that cache have entries. A backend whose tables hold everything has blocks of them, which are taken apart
//! here, without the user's types: a key is `MessagePack` and ends where it ends, and so does a value, or it has its length
//! in front.
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::KeyGroupRange,
};

use super::{Entry, files::Reader};
use crate::state::{
    backend::{Residency, StateBackend, key_group_prefix},
    codec::Codec,
    keyed::damaged,
    table::{Layout, entry_prefix, is_watermark_key, key_group_of, namespace_of},
};

/// Entries of a page; blocks have a thousand of them each.
const PAGE: usize = 1024;
const BLOCKS: usize = 16;

/// Where entries come from.
pub enum Source {
    /// A checkpoint, opened by its backend.
    Backend {
        /// The backend.
        backend: Box<dyn StateBackend>,
        /// What is still to be read.
        rest: Option<(Bytes, Bytes)>,
    },
    /// Files of a savepoint.
    Files(Reader),
}

/// What a source has next.
pub enum Page {
    /// Entries.
    Entries(Vec<Entry>),
    /// Blocks of entries, and watermarks.
    Blocks(Vec<Entry>),
    /// Nothing.
    End,
}

impl Source {
    /// What an open backend has of these key groups.
    pub fn of(backend: Box<dyn StateBackend>, range: KeyGroupRange) -> Self {
        let bound = |key_group| Bytes::copy_from_slice(&key_group_prefix(key_group));
        Self::Backend { backend, rest: Some((bound(range.start), bound(range.end))) }
    }

    /// The next entries, or blocks of them.
    ///
    /// # Errors
    /// What the backend returns; [`Kind::Corrupt`](tidegate_checkpoint::error::Kind) names a damaged object.
    pub async fn next(&mut self) -> Result<Page> {
        match self {
            Self::Files(reader) => reader.next().await.map(|found| found.map_or(Page::End, Page::Entries)),
            Self::Backend { backend, rest } => {
                let Some((start, end)) = rest.take() else { return Ok(Page::End) };
                let limit = if backend.residency() == Residency::Resident { BLOCKS } else { PAGE };
                let page = backend.scan(start, Some(end.clone()), limit).await?;
                let Some((last, _)) = page.last() else { return Ok(Page::End) };
                *rest = Some(([&last[..], &[0]].concat().into(), end));
                Ok(match backend.residency() {
                    Residency::Resident => Page::Blocks(page),
                    Residency::Cached => Page::Entries(page),
                })
            }
        }
    }

    /// As `next`, with blocks taken apart; `None`: the end.
    ///
    /// # Errors
    /// As there; and [`Kind::Config`](tidegate_checkpoint::error::Kind) for a block that cannot be taken apart.
    pub async fn next_entries(&mut self) -> Result<Option<Vec<Entry>>> {
        match self.next().await? {
            Page::End => Ok(None),
            Page::Entries(entries) => Ok(Some(entries)),
            Page::Blocks(blocks) => {
                let mut entries = Vec::new();
                for (key, block) in blocks {
                    explode(key, block, &mut entries)?;
                }
                Ok(Some(entries))
            }
        }
    }
}

/// Takes a block apart.
fn explode(key: Bytes, block: Bytes, entries: &mut Vec<Entry>) -> Result<()> {
    if is_watermark_key(&key) {
        entries.push((key, block));
        return Ok(());
    }
    let (namespace, key_group) = (namespace_of(&key).ok_or_else(damaged)?, key_group_of(&key).ok_or_else(damaged)?);
    let prefix = entry_prefix(key_group, namespace);
    let (layout, rest) = block.split_first().ok_or_else(damaged)?;
    let layout = Layout::by_id(*layout).ok_or_else(damaged)?;
    let codec = match layout {
        Layout::Named => Codec::Named,
        Layout::Compact => Codec::Compact,
        Layout::OldCompact => {
            return Err(Error::config(
                "state that an older version has written with codec \"compact\" can only be read by the job",
            )
            .hint("run the job until all of it has changed, or set state.codec = \"named\" and run it once"));
        }
    };
    let (count, mut rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    for _ in 0..u32::from_le_bytes(*count) {
        let key = skip(&mut rest)?;
        let value = match layout {
            Layout::Named => skip(&mut rest)?,
            Layout::Compact | Layout::OldCompact => {
                let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
                let (value, behind) =
                    behind.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
                rest = behind;
                value
            }
        };
        entries.push(([&prefix[..], key].concat().into(), [&[codec.id()], value].concat().into()));
    }
    if rest.is_empty() { Ok(()) } else { Err(damaged()) }
}

/// Moves past a `MessagePack` value; its bytes.
fn skip<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let whole = *bytes;
    IgnoredAny::deserialize(&mut rmp_serde::Deserializer::new(&mut *bytes)).map_err(|_| damaged())?;
    Ok(&whole[..whole.len() - bytes.len()])
}
