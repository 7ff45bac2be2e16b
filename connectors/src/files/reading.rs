//! Reading a file ahead, on threads for blocking work: decompresses, cuts into rows, decodes.
//!
//! The task of the source only takes finished chunks; it never waits for a disk. The channel is bounded, and
//! reading ends when nobody listens any more. What has been put behind a file's end since a batch began is kept back,
//! where the length on disk says what that is: in what is not compressed. It says when it has come to the end of the file: a channel
//! that closes without that is a thread that has panicked (in a user's `Deserialize`), never an end.
//!
//! The hard case is many files. There are fewer threads than that, and a file that is not read on (another
//! one is behind in event time, or the sink is slow) must not keep one: the others, and the store of the
//! checkpoints, need it. So a thread reads until the channel is full and is given back.
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tidegate_core::{
    Error, Result, Undecodable,
    connect::{Emit, Progress, SplitReader},
    env::{AbortOnDrop, spawn_blocking, spawn_owned},
};
use tokio::sync::mpsc;

use super::format::{Format, Opened, Place, Row, Rows, unreadable};
use crate::generator::Pace;

const CHUNK_ROWS: usize = 512;
const CHUNKS: usize = 8;

struct Chunk<T> {
    rows: Vec<Row<T>>,
    /// Bytes of the file on disk read so far.
    read: u64,
    /// Nothing comes behind these.
    last: bool,
}

/// Reads one file.
pub struct FileReader<T> {
    id: String,
    chunks: mpsc::Receiver<Result<Chunk<T>>>,
    rows: std::vec::IntoIter<Row<T>>,
    /// Behind the bound.
    kept_back: Option<Row<T>>,
    path: PathBuf,
    bound: u64,
    place: Place,
    read: u64,
    reported: u64,
    pace: Option<Pace>,
    /// The last chunk has come.
    ended: bool,
    _ahead: AbortOnDrop<()>,
}

impl<T: Send + 'static> FileReader<T> {
    pub(super) fn open<F: Format<Item = T>>(
        format: F,
        id: String,
        path: PathBuf,
        position: Option<&Value>,
        rate: Option<f64>,
    ) -> Result<Self> {
        let place = match position {
            None => Place::default(),
            Some(p) => match (p["offset"].as_u64(), p["line"].as_u64()) {
                (Some(offset), Some(line)) => Place { offset, line },
                _ => return Err(Error::corrupt(format!("{p} is no position in a file"))),
            },
        };
        // Opened here, so that a missing file is an error of the start.
        let size = open_file(&path)?.metadata().map_or(0, |m| m.len());
        if !is_compressed(&path) && size < place.offset {
            return Err(shorter(size, place.offset).at(path.display()));
        }
        let (sender, chunks) = mpsc::channel(CHUNKS);
        // Only what is decompressed is read again from the front.
        let passed = if is_compressed(&path) { 0 } else { place.offset };
        let ahead = spawn_owned(read_ahead(format, path.clone(), place, sender));
        Ok(Self {
            id,
            chunks,
            rows: Vec::new().into_iter(),
            kept_back: None,
            path,
            bound: u64::MAX,
            place,
            read: passed,
            reported: passed,
            pace: rate.map(Pace::new),
            ended: false,
            _ahead: ahead,
        })
    }
}

type Chunks<T> = mpsc::Sender<Result<Chunk<T>>>;

async fn read_ahead<F: Format>(format: F, path: PathBuf, place: Place, chunks: Chunks<F::Item>) {
    let read = Arc::new(AtomicU64::new(0));
    let (file, counted) = (path.clone(), read.clone());
    let opened = spawn_blocking(move || {
        let open = |offset| open_at(&file, offset, counted.clone());
        format.rows(&open, (place.offset, place.line))
    });
    // A panic is told by the channel, which closes.
    let Ok(opened) = opened.await else { return };
    let mut rows = match opened {
        Ok(rows) => rows,
        Err(e) => return drop(chunks.send(Err(e.at(path.display()))).await),
    };
    // Room for several chunks, so that going to a thread costs little; none when the reader has gone.
    while chunks.reserve_many(CHUNKS / 2).await.is_ok() {
        let (path, read, chunks) = (path.clone(), read.clone(), chunks.clone());
        let filled = spawn_blocking(move || fill_channel(rows, &path, &read, &chunks)).await;
        let Ok(Some(rest)) = filled else { return };
        rows = rest;
    }
}

/// Reads until the channel is full; what is left then, or `None` when nothing comes behind what was sent.
fn fill_channel<T>(mut rows: Rows<T>, path: &Path, read: &AtomicU64, chunks: &Chunks<T>) -> Option<Rows<T>> {
    loop {
        let room = match chunks.try_reserve() {
            Ok(room) => room,
            Err(mpsc::error::TrySendError::Full(())) => return Some(rows),
            // The reader has gone when its attempt has ended.
            Err(mpsc::error::TrySendError::Closed(())) => return None,
        };
        let chunk: Result<Vec<_>> = rows.0.by_ref().take(CHUNK_ROWS).collect();
        let chunk = chunk.map(|rows| Chunk { last: rows.len() < CHUNK_ROWS, rows, read: read.load(Relaxed) });
        let more = chunk.as_ref().is_ok_and(|c| !c.last);
        room.send(chunk.map_err(|e| e.at(path.display())));
        if !more {
            return None;
        }
    }
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "gz" || e == "zst")
}

fn open_file(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::NotFound => {
                "check the path; a file that a checkpoint speaks of must stay until it has been read"
            }
            _ => "check the permissions",
        };
        Error::config(format!("cannot open the input file {}", path.display())).caused_by(e).hint(hint)
    })
}

fn shorter(size: u64, read: u64) -> Error {
    Error::corrupt(format!("it has {size} bytes, and {read} have been read from it"))
        .hint("the file was replaced or cut short: restore it, or start from nothing with another checkpoint store")
}

struct Counting(File, Arc<AtomicU64>);

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}

/// Opens a file so that the next byte is at `offset` of its decompressed content.
fn open_at(path: &Path, offset: u64, read: Arc<AtomicU64>) -> Result<Opened> {
    let mut file = open_file(path)?;
    let compressed: Box<dyn Read + Send> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(Counting(file, read))),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(Counting(file, read)).map_err(unreadable)?),
        _ => {
            file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
            read.store(offset, Relaxed);
            return Ok(Opened(Box::new(Counting(file, read))));
        }
    };
    let mut input = compressed;
    let skipped = std::io::copy(&mut (&mut input).take(offset), &mut std::io::sink()).map_err(unreadable)?;
    if skipped < offset {
        return Err(shorter(skipped, offset));
    }
    Ok(Opened(input))
}

impl<T: Send + 'static> SplitReader for FileReader<T> {
    type Item = T;

    fn fill<E: Emit<T>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        let budget = match &mut self.pace {
            Some(pace) => pace.grant(budget as u64) as usize,
            None => budget,
        };
        for _ in 0..budget {
            let Some(row) = self.kept_back.take().or_else(|| self.rows.next()) else {
                match self.chunks.try_recv() {
                    Ok(chunk) => self.take(chunk?),
                    Err(mpsc::error::TryRecvError::Empty) => return Ok(self.report(out, Progress::Wait)),
                    Err(mpsc::error::TryRecvError::Disconnected) if self.ended => {
                        return Ok(self.report(out, Progress::End));
                    }
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        return Err(Error::user("decoding a record has panicked")
                            .hint("the record behind the last one that was read; let Deserialize return an error"));
                    }
                }
                continue;
            };
            if row.ends.offset > self.bound {
                self.kept_back = Some(row);
                return Ok(self.report(out, Progress::Wait));
            }
            self.place = row.ends;
            match row.record {
                Ok(record) => out.record(record),
                Err((reason, raw)) => {
                    let place = format!("line {}", row.begins.line + 1);
                    out.undecodable(Undecodable { split: self.id.clone(), place, reason, raw })?;
                }
            }
        }
        let progress = if self.pace.as_ref().is_some_and(Pace::is_spent) { Progress::Wait } else { Progress::More };
        Ok(self.report(out, progress))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll(cx));
        }
        if self.kept_back.is_none()
            && self.rows.len() == 0
            && let Some(chunk) = ready!(self.chunks.poll_recv(cx))
        {
            self.take(chunk?);
        }
        Poll::Ready(Ok(()))
    }

    /// With a rate, what there is now is what the rate grants.
    fn bound(&mut self) -> bool {
        if !is_compressed(&self.path) {
            self.bound = std::fs::metadata(&self.path).map_or(u64::MAX, |m| m.len());
        }
        if let Some(pace) = &mut self.pace {
            pace.catch_up();
        }
        self.pace.is_none()
    }

    fn is_at_bound(&self) -> bool {
        self.kept_back.is_some()
    }

    fn position(&self) -> Value {
        json!({ "offset": self.place.offset, "line": self.place.line })
    }

    fn progress(&self) -> Option<u64> {
        Some(self.read)
    }
}

impl<T> FileReader<T> {
    fn take(&mut self, chunk: Chunk<T>) {
        (self.read, self.ended) = (chunk.read, chunk.last);
        self.rows = chunk.rows.into_iter();
    }

    fn report<E: Emit<T>>(&mut self, out: &mut E, progress: Progress) -> Progress {
        out.bytes(self.read.saturating_sub(self.reported));
        self.reported = self.read;
        progress
    }
}
