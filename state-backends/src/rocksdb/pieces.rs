//! A file in the checkpoint store: an object for each piece of it, so that neither way more of it is in memory than a
//! few pieces, and that each is stored whole or not at all.
//!
//! What is read back is compared with what the handle says, bytes and checksum, before RocksDB sees it: its own
//! checksums would find damage too, but only where it happens to look, and could not say in which object.
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tidegate_checkpoint::{
    error::{Error, Result},
    store::CheckpointStore,
};

use super::{
    blocking,
    budget::{Budget, PIECE},
    directory::Directory,
    disk,
};

/// Requests to the store at once, of one database; those of all of them have a bound of their own.
pub(super) const AT_ONCE: usize = 8;

/// A part of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    pub(super) object: String,
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

/// Files by name, each with its pieces in order.
pub(super) type Files = BTreeMap<String, Vec<Piece>>;

/// Stores files of a directory; `object` names a piece of one.
pub(super) async fn store(
    store: &CheckpointStore,
    budget: &Budget,
    directory: &Path,
    files: Vec<(String, u64)>,
    object: impl Fn(&str, u64) -> String,
) -> Result<Files> {
    let pieces = files.into_iter().flat_map(|(name, bytes)| {
        let path = directory.join(&name);
        let pieces = (0..bytes.div_ceil(PIECE)).map(|n| (object(&name, n), n * PIECE, PIECE.min(bytes - n * PIECE)));
        pieces.map(|(object, at, bytes)| (name.clone(), path.clone(), object, at, bytes)).collect::<Vec<_>>()
    });
    let storing = stream::iter(pieces).map(|(name, path, object, at, bytes)| async move {
        let _permit = budget.transfers.acquire().await.map_err(|_| super::abandoned())?;
        let (content, crc32) = blocking(move || {
            let content = read(&path, at, bytes).map_err(|e| disk(&format!("read {}", path.display()), e))?;
            let crc32 = crc32fast::hash(&content);
            Ok((content, crc32))
        })
        .await?;
        store.put(&object, content).await?;
        Ok((name, Piece { object, bytes, crc32 }))
    });
    // In their order, whichever is first to be stored.
    let stored: Vec<(String, Piece)> = storing.buffered(AT_ONCE).try_collect().await?;
    let mut files = Files::new();
    for (name, piece) in stored {
        files.entry(name).or_default().push(piece);
    }
    Ok(files)
}

/// Brings files into a folder of a directory. When one cannot be had, others may still be on their way: the
/// directory lasts until they are there, or they would come after it was deleted.
pub(super) async fn fetch(
    store: &CheckpointStore,
    budget: &Budget,
    files: &Files,
    directory: &Arc<Directory>,
    folder: &'static str,
) -> Result<()> {
    let to = directory.join(folder);
    let mut pieces = Vec::new();
    for (name, all) in files {
        let mut at = 0;
        for piece in all {
            pieces.push((to.join(name), at, piece.clone()));
            at += piece.bytes;
        }
    }
    let fetching = stream::iter(pieces).map(|(path, at, piece)| async move {
        let _permit = budget.transfers.acquire().await.map_err(|_| super::abandoned())?;
        let content = store.get(&piece.object).await?;
        let directory = directory.clone();
        blocking(move || {
            let _directory = directory;
            if content.len() as u64 != piece.bytes {
                return Err(damaged(&piece.object, &format!("it has {} bytes, not {}", content.len(), piece.bytes)));
            }
            if crc32fast::hash(&content) != piece.crc32 {
                return Err(damaged(&piece.object, "its checksum does not match"));
            }
            write(&path, at, &content).map_err(|e| disk(&format!("write {}", path.display()), e))
        })
        .await
    });
    fetching.buffer_unordered(AT_ONCE).try_collect().await
}

/// An object that cannot be gone on from.
pub(super) fn damaged(object: &str, why: &str) -> Error {
    Error::corrupt(format!("{object} cannot be used: {why}"))
        .hint("restore it from a copy, or start from another checkpoint with checkpoint.from")
}

fn read(path: &PathBuf, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut content = vec![0; bytes as usize];
    file.read_exact(&mut content)?;
    Ok(content)
}

fn write(path: &PathBuf, at: u64, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(content)
}
