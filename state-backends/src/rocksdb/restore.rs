//! A database from what the checkpoint store has: from nothing, from one handle, or from parts of several.
//!
//! The handle that has most to give becomes the database, files and all, so that its next snapshot refers to what is
//! stored already. Others are opened beside it and copied, key group by key group, and their files deleted. Files that
//! an earlier attempt has left on the disk are not fetched again (`local`).
//!
//! The hard case are key groups that are not ours any more. Files that have nothing else are dropped; but a file may
//! have others too, and those that were written last are never dropped like this. So their keys are deleted as well:
//! then it does not matter which files were.
use rust_rocksdb::{DB, ErrorKind, ReadOptions, WriteBatch};
use std::{fs, sync::Arc};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::KeyGroupRange,
    manifest::StateHandle,
};
use tidegate_core::state::backend::{OpenContext, key_group_prefix};

use super::{
    Local, blocking,
    budget::Budget,
    disk, failed,
    local::link,
    pieces::{Files, damaged, fetch},
    place::Place,
    snapshot,
};

/// The folder of the database, and that of one which is copied.
pub(super) const DATABASE: &str = "database";
const PART: &str = "part";
/// Bytes that are copied at once.
const COPY: usize = 1 << 20;

/// What is restored of a handle.
struct Source {
    files: Files,
    /// The key groups that it has, and those that are wanted of them.
    has: KeyGroupRange,
    wanted: KeyGroupRange,
}

impl Source {
    fn new(handle: &StateHandle, mine: KeyGroupRange) -> Result<Self> {
        let has = handle.key_groups;
        let wanted = KeyGroupRange { start: has.start.max(mine.start), end: has.end.min(mine.end) };
        Ok(Self { files: snapshot::files(handle)?, has, wanted })
    }

    /// Bytes that it has to give, about.
    fn bytes(&self) -> u64 {
        let all = self.files.values().flatten().map(|piece| piece.bytes).sum::<u64>();
        let of = |range: KeyGroupRange| u64::from(range.end - range.start);
        all * of(self.wanted) / of(self.has).max(1)
    }

    async fn fetch(&self, context: &OpenContext, budget: &Budget, place: &Place, folder: &'static str) -> Result<()> {
        // Held by what is done to it, as in `pieces`: else it could be deleted half-way.
        let own = place.own.clone();
        blocking(move || {
            let made = own.join(folder);
            fs::create_dir(&made).map_err(|e| disk(&format!("create {}", made.display()), e))
        })
        .await?;
        let missing = link(budget, &self.files, place, folder).await?;
        fetch(&context.store, budget, &missing, &place.own, folder).await?;
        let Some(manifest) = snapshot::manifest(&self.files) else {
            return Err(Error::corrupt("a handle of the backend rocksdb names no manifest"));
        };
        let (own, text) = (place.own.clone(), format!("{manifest}\n"));
        blocking(move || {
            let current = own.join(folder).join("CURRENT");
            fs::write(&current, text).map_err(|e| disk(&format!("write {}", current.display()), e))
        })
        .await
    }

    /// RocksDB opens what is known to be undamaged, and still may not be able to read it.
    fn unreadable(&self, error: rust_rocksdb::Error) -> Error {
        let object = snapshot::manifest(&self.files).and_then(|name| self.files[name].first());
        match (error.kind(), object) {
            (ErrorKind::Corruption | ErrorKind::NotSupported | ErrorKind::InvalidArgument, Some(piece)) => {
                damaged(&piece.object, "this RocksDB cannot read it").caused_by(error)
            }
            _ => failed("open a database", error),
        }
    }
}

/// Opens the database of an attempt; with it come the files that are stored already.
pub(super) async fn open(context: &OpenContext, place: Place, budget: Arc<Budget>) -> Result<(Local, Files)> {
    let overlapping = context.restore.iter().filter(|handle| handle.key_groups.overlaps(&context.key_groups));
    let mut sources: Vec<Source> =
        overlapping.map(|handle| Source::new(handle, context.key_groups)).collect::<Result<_>>()?;
    sources.sort_by_key(Source::bytes);
    let Some(base) = sources.pop() else {
        let local = blocking(move || {
            let db = DB::open(&budget.options(), place.own.join(DATABASE)).map_err(|e| failed("open a database", e))?;
            Ok(Local { db, place, budget })
        });
        return Ok((local.await?, Files::new()));
    };
    base.fetch(context, &budget, &place, DATABASE).await?;
    let stored = base.files.clone();
    let mut local = blocking(move || {
        let opened = DB::open(&budget.options(), place.own.join(DATABASE));
        let local = Local { db: opened.map_err(|e| base.unreadable(e))?, place, budget };
        local.delete(base.has.start, base.wanted.start)?;
        local.delete(base.wanted.end, base.has.end)?;
        Ok(local)
    })
    .await?;
    for source in sources {
        source.fetch(context, &local.budget, &local.place, PART).await?;
        local = blocking(move || local.copy(&source)).await?;
    }
    Ok((local, stored))
}

impl Local {
    /// Deletes whole key groups.
    fn delete(&self, start: u16, end: u16) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        let (start, end) = (key_group_prefix(start), key_group_prefix(end));
        self.db.delete_file_in_range(start, end).map_err(|e| failed("delete files", e))?;
        let mut deletes = WriteBatch::default();
        deletes.delete_range(start, end);
        self.apply(&deletes)
    }

    /// Copies what is wanted of a database, and deletes it.
    fn copy(self, source: &Source) -> Result<Self> {
        let from = self.place.own.join(PART);
        let part = DB::open_for_read_only(&self.budget.options(), &from, false).map_err(|e| source.unreadable(e))?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(key_group_prefix(source.wanted.end));
        options.fill_cache(false);
        let mut cursor = part.raw_iterator_opt(options);
        cursor.seek(key_group_prefix(source.wanted.start));
        let mut writes = WriteBatch::default();
        while let Some((key, value)) = cursor.item() {
            writes.put(key, value);
            if writes.size_in_bytes() >= COPY {
                self.apply(&writes)?;
                writes.clear();
            }
            cursor.next();
        }
        cursor.status().map_err(|e| failed("read", e))?;
        self.apply(&writes)?;
        drop(cursor);
        drop(part);
        fs::remove_dir_all(&from).map_err(|e| disk(&format!("delete {}", from.display()), e))?;
        Ok(self)
    }
}
