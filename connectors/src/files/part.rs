//! A part on its way into the staging area: one put when it is small, a multipart upload when it grows.
//!
//! The upload runs on a task of its own behind a short channel, which bounds what is in memory. A part is
//! complete only when `finish` says so; dropped before, its upload is aborted and nothing is there.
use bytes::Bytes;
use futures::{SinkExt, StreamExt, channel::mpsc};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde_json::{Value, json};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tidegate_checkpoint::{kill, store::failed};
use tidegate_core::{
    Error, Result,
    env::{AbortOnDrop, spawn_owned},
};

/// Bytes of one piece of a multipart upload.
pub(super) const PIECE: usize = 8 << 20;

enum Message {
    Piece(Bytes),
    Finish,
}

pub(super) struct Part {
    objects: Arc<dyn ObjectStore>,
    staged: Path,
    name: String,
    crc: crc32fast::Hasher,
    pub bytes: u64,
    pieces: Vec<Bytes>,
    upload: Option<(mpsc::Sender<Message>, AbortOnDrop<Result<()>>)>,
}

impl Part {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, staged: Path, name: String) -> Self {
        Self { objects, staged, name, crc: crc32fast::Hasher::new(), bytes: 0, pieces: Vec::new(), upload: None }
    }

    /// Adds bytes; a piece's worth starts the upload.
    pub(super) fn add(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.crc.update(&bytes);
        self.bytes += bytes.len() as u64;
        self.pieces.push(bytes.into());
        if self.upload.is_none() && self.bytes as usize >= PIECE {
            let (sender, receiver) = mpsc::channel(1);
            let task = spawn_owned(upload(self.objects.clone(), self.staged.clone(), receiver));
            self.upload = Some((sender, task));
        }
    }

    /// Ready when no piece waits. After an error the part is of no use any more.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some((sender, task)) = &mut self.upload else { return Poll::Ready(Ok(())) };
        while !self.pieces.is_empty() {
            let open = ready!(sender.poll_ready(cx)).is_ok();
            if !open || sender.start_send(Message::Piece(self.pieces.remove(0))).is_err() {
                // A channel that has closed means that the upload has failed: its task says why.
                return Pin::new(task).poll(cx).map(uploaded);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Completes the part; returns its committable.
    pub(super) async fn finish(self) -> Result<Value> {
        let Self { objects, staged, name, crc, bytes, pieces, upload } = self;
        match upload {
            None => {
                let whole: object_store::PutPayload = pieces.into_iter().collect();
                objects.put(&staged, whole).await.map_err(|e| failed("stage", &name, e))?;
            }
            Some((mut sender, task)) => {
                // A channel that has closed means that the upload has failed: its task says why.
                for message in pieces.into_iter().map(Message::Piece).chain([Message::Finish]) {
                    if sender.send(message).await.is_err() {
                        break;
                    }
                }
                uploaded(task.await)?;
            }
        }
        kill::point("sink.staged");
        Ok(json!({ "staged": staged.to_string(), "part": name, "bytes": bytes, "crc32": crc.finalize() }))
    }
}

/// How an upload's task has ended.
pub(super) fn uploaded<T, J: std::error::Error + Send + Sync + 'static>(
    joined: std::result::Result<Result<T>, J>,
) -> Result<T> {
    joined.map_err(|e| Error::internal("the upload of a part has panicked").caused_by(e))?
}

async fn upload(objects: Arc<dyn ObjectStore>, path: Path, mut messages: mpsc::Receiver<Message>) -> Result<()> {
    let name = path.to_string();
    let mut upload = objects.put_multipart(&path).await.map_err(|e| failed("stage", &name, e))?;
    while let Some(message) = messages.next().await {
        match message {
            Message::Piece(piece) => upload.put_part(piece.into()).await.map_err(|e| failed("stage", &name, e))?,
            Message::Finish => return upload.complete().await.map(drop).map_err(|e| failed("stage", &name, e)),
        }
    }
    upload.abort().await.map_err(|e| failed("abort", &name, e))
}
