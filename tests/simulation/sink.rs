//! A sink in memory as exact as the file sink, and as easily hurt: parts are staged piece by piece, and
//! published one by one, and every step can fail, stall or lose its reply.
//!
//! What a file sink's directory cannot tell is checked here at each publication: whether the commit record
//! exists, and whether it is the publisher's own.
use futures::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};
use tidegate::{
    Error, Result, Timestamp,
    extend::{
        checkpoint::{commit::CommitPermit, ids::Epoch},
        connect::{OpenSink, Sink, SinkContext, SinkWriter, WriterContext},
        env::sleep,
    },
};

use crate::chaos::{Chaos, Client};

/// What outlives every process. Clones are the same.
#[derive(Debug)]
pub struct Shelf<T>(Arc<Mutex<Parts<T>>>);

#[derive(Debug)]
struct Parts<T> {
    /// With the attempt that has staged them.
    staged: BTreeMap<String, (u64, Vec<T>)>,
    names: BTreeSet<String>,
    published: Vec<T>,
}

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
impl<T> Default for Shelf<T> {
    fn default() -> Self {
        let parts = Parts { staged: BTreeMap::new(), names: BTreeSet::new(), published: Vec::new() };
        Self(Arc::new(Mutex::new(parts)))
    }
}

impl<T> Shelf<T> {
    fn parts(&self) -> MutexGuard<'_, Parts<T>> {
        self.0.lock().unwrap()
    }
    pub fn staged(&self) -> usize {
        self.parts().staged.len()
    }

    /// True when it was not published before.
    fn publish(&self, name: &str, chaos: &Chaos) -> Result<bool> {
        let parts = &mut *self.parts();
        if let Some((_, records)) = parts.staged.remove(name) {
            chaos.note(format_args!("part {name} becomes visible: {} records", records.len()));
            parts.published.extend(records);
            parts.names.insert(name.to_owned());
            return Ok(true);
        }
        if parts.names.contains(name) {
            return Ok(false);
        }
        Err(Error::corrupt(format!("{name} was committed, and is neither staged nor published")))
    }
}

impl<T: Clone> Shelf<T> {
    /// In the order of publication.
    pub fn published(&self) -> Vec<T> {
        self.parts().published.clone()
    }
}

/// The shelf as one process sees it.
pub struct Seeded<T> {
    pub shelf: Shelf<T>,
    pub chaos: Chaos,
    pub client: Client,
    pub part_max: u64,
}

impl<T: Send + 'static> Sink<T> for Seeded<T> {
    type Open = Open<T>;
    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<Open<T>>> {
        Box::pin(async move {
            let Self { shelf, chaos, client, part_max } = self;
            let attempt = context.attempt.0;
            for part in restored {
                chaos.call(*client, "publishing in recovery", || shelf.publish(name(&part), chaos)).await?;
            }
            chaos
                .call(*client, "sweep", || {
                    shelf.parts().staged.retain(|_, (owner, _)| *owner >= attempt);
                    Ok(())
                })
                .await?;
            let (shelf, chaos) = (shelf.clone(), chaos.clone());
            Ok(Open { shelf, chaos, client: *client, attempt, part_max: *part_max })
        })
    }
}

fn name(committable: &Value) -> &str {
    committable["part"].as_str().unwrap()
}

pub struct Open<T> {
    shelf: Shelf<T>,
    chaos: Chaos,
    client: Client,
    attempt: u64,
    part_max: u64,
}

impl<T: Send + 'static> OpenSink<T> for Open<T> {
    type Writer = Writer<T>;
    fn writer(&self, context: WriterContext) -> Result<Writer<T>> {
        self.chaos.trip("writer")?;
        Ok(Writer {
            shelf: self.shelf.clone(),
            chaos: self.chaos.clone(),
            client: self.client,
            attempt: self.attempt,
            part_max: self.part_max,
            subtask: context.subtask.0,
            count: 0,
            buffer: Vec::new(),
            staged: Vec::new(),
            staging: None,
            pause: None,
        })
    }

    fn commit<'a>(&'a self, permit: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for part in committables {
                let publish = || {
                    let new = self.shelf.publish(name(&part), &self.chaos)?;
                    let epoch = permit.epoch().0;
                    let committer = self.chaos.committer(epoch);
                    self.chaos.must(!new || committer == Some(self.client), || {
                        format!("client {} publishes {part} of epoch {epoch}, committed by {committer:?}", self.client)
                    });
                    if new && part["epoch"].as_u64() < Some(epoch) {
                        self.chaos.count("published what an abandoned checkpoint had staged".into());
                    }
                    Ok(())
                };
                self.chaos.call(self.client, "publishing", publish).await?;
            }
            Ok(())
        })
    }
}

pub struct Writer<T> {
    shelf: Shelf<T>,
    chaos: Chaos,
    client: Client,
    attempt: u64,
    part_max: u64,
    subtask: u32,
    count: u32,
    buffer: Vec<T>,
    staged: Vec<String>,
    staging: Option<BoxFuture<'static, Result<String>>>,
    pause: Option<BoxFuture<'static, ()>>,
}

impl<T: Send + 'static> Writer<T> {
    /// Stages what is buffered.
    fn stage(&mut self) -> BoxFuture<'static, Result<String>> {
        self.count += 1;
        let name = format!("{}-{}-{}", self.attempt, self.subtask, self.count);
        let (shelf, chaos, client, attempt) = (self.shelf.clone(), self.chaos.clone(), self.client, self.attempt);
        let records = std::mem::take(&mut self.buffer);
        Box::pin(async move {
            let staged = name.clone();
            chaos
                .call(client, "staging", move || {
                    shelf.parts().staged.insert(staged, (attempt, records));
                    Ok(())
                })
                .await?;
            Ok(name)
        })
    }
}

impl<T: Send + 'static> SinkWriter<T> for Writer<T> {
    fn write(&mut self, record: T, _: Timestamp) -> Result<()> {
        self.buffer.push(record);
        Ok(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(staging) = &mut self.staging {
            let staged = std::task::ready!(staging.poll_unpin(cx))?;
            self.staged.push(staged);
            self.staging = None;
        }
        if self.buffer.len() as u64 >= self.part_max {
            self.staging = Some(self.stage());
            return self.poll_ready(cx);
        }
        if self.pause.is_none() {
            self.pause = self.chaos.pause().map(|pause| sleep(pause).boxed());
        }
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.poll_unpin(cx));
            self.pause = None;
        }
        Poll::Ready(Ok(()))
    }

    fn barrier(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<Vec<Value>>> {
        if let Err(e) = self.chaos.trip("writer") {
            return Box::pin(futures::future::ready(Err(e)));
        }
        let (mut staged, staging) = (std::mem::take(&mut self.staged), self.staging.take());
        let rest = (!self.buffer.is_empty()).then(|| self.stage());
        Box::pin(async move {
            for part in [staging, rest].into_iter().flatten() {
                staged.push(part.await?);
            }
            Ok(staged.into_iter().map(|part| json!({ "part": part, "epoch": epoch.0 })).collect())
        })
    }
}
