//! Files of entries: written block by block, read back block by block.
//!
//! A file has an end, so that it can be put into a store whole: a state is as many files as it needs. The hard case is
//! damage: every block and the index have checksums, and the index's is in the savepoint itself, which has one too.
use bytes::Bytes;
use std::{collections::VecDeque, mem, sync::Arc};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{KeyGroupRange, OperatorId},
    store::CheckpointStore,
};

use super::{Entry, File, draft::Draft};
use crate::{env::unique, state::table::key_group_of};

const MAGIC: &[u8; 4] = b"TGS1";
/// Bytes at which a block ends.
const BLOCK: usize = 256 << 10;
/// And a file.
const FILE: usize = 32 << 20;

/// Offset, length, checksum, entries.
type Place = (u64, u64, u32, u64);

/// Writes the files of one operator.
pub struct Writer<'a> {
    draft: &'a mut Draft,
    operator: OperatorId,
    /// Its files' names have it in common.
    unique: u32,
    files: Vec<File>,
    bytes: Vec<u8>,
    block: Vec<u8>,
    entries: u64,
    index: Vec<Place>,
    key_groups: Option<(u16, u16)>,
}

impl<'a> Writer<'a> {
    /// Writes below the savepoint's place.
    pub fn new(draft: &'a mut Draft, operator: OperatorId) -> Self {
        let (files, block, index) = Default::default();
        let unique = unique() as u32;
        Self { draft, operator, unique, files, bytes: MAGIC.to_vec(), block, entries: 0, index, key_groups: None }
    }

    /// Adds entries behind those before.
    ///
    /// # Errors
    /// As the store.
    pub async fn add(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<()> {
        for (key, value) in entries {
            let key_group = key_group_of(&key).ok_or_else(|| Error::internal("an entry without a key group"))?;
            self.key_groups =
                Some(self.key_groups.map_or((key_group, key_group), |(a, b)| (a.min(key_group), b.max(key_group))));
            for part in [&key, &value] {
                let length =
                    u32::try_from(part.len()).map_err(|_| Error::user("an entry of state is larger than 4 GB"))?;
                self.block.extend_from_slice(&length.to_le_bytes());
                self.block.extend_from_slice(part);
            }
            self.entries += 1;
            if self.block.len() >= BLOCK {
                self.end_block();
            }
            if self.bytes.len() >= FILE {
                self.end_file().await?;
            }
        }
        Ok(())
    }

    fn end_block(&mut self) {
        let entries = mem::take(&mut self.entries);
        if entries > 0 {
            let crc = crc32fast::hash(&self.block);
            self.index.push((self.bytes.len() as u64, self.block.len() as u64, crc, entries));
            self.bytes.append(&mut self.block);
        }
    }

    async fn end_file(&mut self) -> Result<()> {
        self.end_block();
        let Some(key_groups) = self.key_groups.take() else { return Ok(()) };
        let index = mem::take(&mut self.index);
        let entries = index.iter().map(|place| place.3).sum();
        let index =
            serde_json::to_vec(&index).map_err(|e| Error::internal("an index does not serialise").caused_by(e))?;
        let place = (self.bytes.len() as u64, index.len() as u64, crc32fast::hash(&index));
        self.bytes.extend_from_slice(&index);
        let bytes = mem::replace(&mut self.bytes, MAGIC.to_vec());
        let name = format!("{}/{:08x}-{:06}.entries", self.operator, self.unique, self.files.len());
        self.files.push(File { name: name.clone(), bytes: bytes.len() as u64, entries, key_groups, index: place });
        self.draft.put(&name, bytes).await
    }

    /// Ends the last file: these are all of the operator.
    ///
    /// # Errors
    /// As the store.
    pub async fn end(mut self) -> Result<()> {
        self.end_file().await?;
        self.draft.operator(self.operator, self.files);
        Ok(())
    }
}

/// Reads files, and of them what is in some key groups.
pub struct Reader {
    store: Arc<CheckpointStore>,
    files: VecDeque<File>,
    range: KeyGroupRange,
    /// Of the file that is being read: its name, and the blocks that are left.
    open: Option<(String, VecDeque<Place>)>,
}

impl Reader {
    /// Reads these files.
    pub fn new(store: Arc<CheckpointStore>, files: Vec<File>, range: KeyGroupRange) -> Self {
        let mine = |file: &File| file.key_groups.0 < range.end && file.key_groups.1 >= range.start;
        Self { store, files: files.into_iter().filter(mine).collect(), range, open: None }
    }

    /// The next entries, if there are any.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](tidegate_checkpoint::error::Kind) names a file that is damaged or missing.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        loop {
            let Some((name, blocks)) = &mut self.open else {
                let Some(file) = self.files.pop_front() else { return Ok(None) };
                self.open = Some(self.index_of(file).await?);
                continue;
            };
            let Some((offset, length, crc, _)) = blocks.pop_front() else {
                self.open = None;
                continue;
            };
            let block = block(&self.store, name, (offset, length, crc)).await?;
            let mut entries =
                split(&block).ok_or_else(|| damaged(name, "a block has not the form that it should have"))?;
            entries.retain(|(key, _)| key_group_of(key).is_some_and(|k| self.range.contains(k)));
            return Ok(Some(entries));
        }
    }

    async fn index_of(&self, file: File) -> Result<(String, VecDeque<Place>)> {
        let front = self.store.get_ranges(&file.name, &[0..MAGIC.len() as u64]).await?;
        if front.first().is_none_or(|front| front != &MAGIC[..]) {
            return Err(damaged(&file.name, "it is no file of entries of format 1"));
        }
        let index = block(&self.store, &file.name, file.index).await?;
        let index = serde_json::from_slice(&index).map_err(|_| damaged(&file.name, "its index cannot be read"))?;
        Ok((file.name, index))
    }
}

async fn block(store: &CheckpointStore, name: &str, (offset, length, crc): (u64, u64, u32)) -> Result<Bytes> {
    let found = store.get_ranges(name, &[offset..offset.saturating_add(length)]).await?.pop();
    let found = found.filter(|block| block.len() as u64 == length && crc32fast::hash(block) == crc);
    found.ok_or_else(|| damaged(name, "a checksum does not match"))
}

fn split(block: &Bytes) -> Option<Vec<Entry>> {
    let (mut entries, mut at) = (Vec::new(), 0);
    let mut part = || {
        let length = block.get(at..at + 4)?;
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        let end = (at + 4).checked_add(length).filter(|end| *end <= block.len())?;
        let part = block.slice(at + 4..end);
        at = end;
        Some((part, at))
    };
    loop {
        let (key, _) = part()?;
        let (value, at) = part()?;
        entries.push((key, value));
        if at == block.len() {
            return Some(entries);
        }
    }
}

fn damaged(name: &str, why: &str) -> Error {
    Error::corrupt(format!("{name} of the savepoint cannot be used: {why}"))
        .hint("restore the file from a copy, or make a new savepoint")
}
