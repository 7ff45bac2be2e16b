//! Files of a handle that are on the local disk already, in a directory that an earlier attempt has left.
//!
//! They are linked into the new database, which costs a look at each and neither bytes on the disk nor requests to the
//! checkpoint store. What is in such a directory is nobody's word: a killed process has left half a file; one that went
//! on from an older checkpoint has given the same number to another file. So nothing counts but what the handle says of
//! each piece, bytes and checksum, as with what is fetched; and what is not so, whatever the reason, is fetched.
//!
//! The hard case is an earlier attempt that still runs, or whose database is being closed. It may delete the file, and
//! not what has been linked; it does not change one that is complete, RocksDB never does. So the link is made first,
//! and what is looked at is what will be used.
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use tidegate_checkpoint::error::Result;

use super::{
    blocking,
    budget::Budget,
    disk,
    pieces::{AT_ONCE, Files, Piece},
    place::Place,
    queue::LAST,
    restore::DATABASE,
    snapshot::is_data,
};

/// Where files are, in another's directory.
const FOLDERS: [&str; 2] = [LAST, DATABASE];
/// Bytes that are looked at at once.
const LOOK: usize = 256 << 10;

/// Links files into a folder of the place's own directory; returns those that are not to be had.
pub(super) async fn link(budget: &Budget, files: &Files, place: &Place, folder: &'static str) -> Result<Files> {
    let earlier: Arc<[_]> = place.earlier().into();
    if earlier.is_empty() {
        return Ok(files.clone());
    }
    let linking = stream::iter(files.clone()).map(|(name, pieces)| {
        let (own, earlier) = (place.own.clone(), earlier.clone());
        async move {
            // The manifest is small, and is always another.
            if !is_data(&name) {
                return Ok(Some((name, pieces)));
            }
            let _permit = budget.transfers.acquire().await.map_err(|_| super::abandoned())?;
            blocking(move || {
                let to = own.join(folder).join(&name);
                let mut places = earlier.iter().flat_map(|found| FOLDERS.map(|folder| found.join(folder).join(&name)));
                let linked = places.try_fold(false, |linked, from| Ok(linked || link_same(&from, &to, &pieces)?));
                let linked = linked.map_err(|e| disk(&format!("delete {}", to.display()), e))?;
                Ok((!linked).then_some((name, pieces)))
            })
            .await
        }
    });
    let missing: Vec<_> = linking.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(missing.into_iter().flatten().collect())
}

/// Links a file if it is that of these pieces; whether it is.
fn link_same(from: &Path, to: &Path, pieces: &[Piece]) -> io::Result<bool> {
    // It is not there, or on another disk, or cannot be had for another reason.
    if fs::hard_link(from, to).is_err() {
        return Ok(false);
    }
    let same = is_same(to, pieces).unwrap_or(false);
    if !same {
        // Else what is fetched would be written into another's file.
        fs::remove_file(to)?;
    }
    Ok(same)
}

fn is_same(path: &Path, pieces: &[Piece]) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.len() != pieces.iter().map(|piece| piece.bytes).sum::<u64>() {
        return Ok(false);
    }
    let (mut file, mut buffer) = (File::open(path)?, vec![0; LOOK]);
    for piece in pieces {
        let (mut left, mut checksum) = (piece.bytes, crc32fast::Hasher::new());
        while left > 0 {
            let part = &mut buffer[..left.min(LOOK as u64) as usize];
            file.read_exact(part)?;
            checksum.update(part);
            left -= part.len() as u64;
        }
        if checksum.finalize() != piece.crc32 {
            return Ok(false);
        }
    }
    Ok(true)
}
