//! Telling sources which of their positions have been committed: beside everything else.
//!
//! What they do with it is for people who watch (a Kafka group's lag), so it delays no checkpoint and fails no job:
//! while a source is slow, the checkpoints that complete are left out, but for the newest. The hard case is the
//! end. A monitor would show the last records of a job that has finished as unread for ever, so the last one is
//! waited for; within bounds, since a job must be able to end while what it read from is away.
use std::{sync::Arc, time::Duration};

use tidegate_checkpoint::manifest::Manifest;

use super::{open_split::position_of, terminal::SourceNode};
use crate::env::{AbortOnDrop, sleep, spawn_owned};

pub(super) struct Told {
    sources: Arc<Vec<SourceNode>>,
    running: Option<AbortOnDrop<()>>,
    /// Completed while the one before was being told.
    next: Option<Arc<Manifest>>,
}

/// The end of a job waits no longer than this.
const LAST: Duration = Duration::from_secs(10);

impl Told {
    pub(super) fn new(sources: Vec<SourceNode>) -> Self {
        Self { sources: Arc::new(sources), running: None, next: None }
    }

    pub(super) fn completed(&mut self, manifest: Arc<Manifest>) {
        self.next = Some(manifest);
        if self.running.as_ref().is_none_or(AbortOnDrop::is_finished) {
            self.begin();
        }
    }

    fn begin(&mut self) {
        self.running = self.next.take().map(|manifest| spawn_owned(tell(self.sources.clone(), manifest)));
    }

    /// Waits until the last one has been told.
    pub(super) async fn finish(&mut self) {
        let all = async {
            loop {
                if let Some(running) = self.running.take()
                    && let Err(error) = running.await
                {
                    tracing::warn!(%error, "a source could not be told of a completed checkpoint");
                }
                if self.next.is_none() {
                    return;
                }
                self.begin();
            }
        };
        tokio::select! {
            () = all => {}
            () = sleep(LAST) => tracing::warn!("a source was not told in time of the last checkpoint"),
        }
    }
}

async fn tell(sources: Arc<Vec<SourceNode>>, manifest: Arc<Manifest>) {
    for source in sources.iter() {
        let splits = manifest.sources.get(&source.name).into_iter().flatten();
        let positions = splits.filter_map(|(id, saved)| Some((id.clone(), position_of(saved)?.clone()))).collect();
        if let Err(error) = source.committed(positions).await {
            tracing::warn!(%error, "a source could not be told of a completed checkpoint; the next one tries again");
        }
    }
}
